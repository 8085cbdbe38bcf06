"""Where each Linear module of a pipeline stands under a plan: quantized, or left as it is.

Emitters are given this instead of a model. It is read from the configs alone: the models are built
without weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoquant.errors import PlanFormatError, UnsupportedPipeline
from autoquant.planner.checkpoints import require_stored_weights
from autoquant.planner.source import (
    PipelineSource,
    find_source,
    local_directory,
    read_model_index,
)
from autoquant.search_spaces.scheme import Choice

if TYPE_CHECKING:
    from autoquant.planner.plan import Plan


@dataclass(frozen=True)
class ComponentLayout:
    """One component of the pipeline, as a plan changes it.

    Attributes:
        library: ``diffusers`` or ``transformers``.
        class_name: Its class there.
        quantized: Exact paths of the Linear modules that the plan quantizes, fused names where it
            fuses, in module order.
        kept: The other Linear modules.
        overridden: Those of the quantized ones that have another scheme than the rest, by scheme.
        kept_in_float32: Names that the class asks loaders to leave alone, whatever a config says.
        first_layer: Path of the module with the model's first parameter, whose dtype the model
            reports, and whether it has a bias.
        without_fusing: The same where the plan's projections are not fused; None if they are not.
    """

    library: str
    class_name: str
    quantized: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    overridden: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept_in_float32: tuple[str, ...] = ()
    first_layer: tuple[str, bool] = ("", True)
    without_fusing: ComponentLayout | None = None

    @property
    def unfused(self) -> ComponentLayout:
        """The layout for tools that do not fuse projections."""
        return self.without_fusing or self


@dataclass(frozen=True)
class Layout:
    """A pipeline as a plan changes it.

    Attributes:
        source: Directory or hub id that a tool can open.
        components: Every torch component.
    """

    source: str
    components: Mapping[str, ComponentLayout] = field(default_factory=dict)


def read_layout(plan: Plan, source: str | None = None) -> Layout:
    """Look the plan's choices up in its pipeline.

    Args:
        plan: The plan.
        source: Directory or hub id of the pipeline, if it has moved.

    Raises:
        InputError: The pipeline cannot be found, or an exclusion is no path of it.
        PlanFormatError: The plan names a component or class that the pipeline does not have.
    """
    require_stored_weights(part.scheme for part in plan.components.values())
    named = plan.pipeline.as_source() if source is None else find_source(source)
    directory = local_directory(named, download=False)
    index = read_model_index(directory)
    if index.class_name != plan.pipeline.class_name:
        raise PlanFormatError(
            f"The plan is for a {plan.pipeline.class_name}, "
            f"but {named.location} holds a {index.class_name}."
        )
    named_parts = {*plan.components, *(adapter.component for adapter in plan.adapters)}
    unknown = sorted(named_parts - set(index.components))
    if unknown:
        raise PlanFormatError(
            f"The plan names {', '.join(unknown)}, which {named.location} does not have; "
            f"it has {', '.join(index.components)}."
        )
    components = {}
    for name, (library, class_name) in index.components.items():
        if library not in {"diffusers", "transformers"} or not _is_model(index.model_class(name)):
            continue
        choice = plan.components[name].choice if name in plan.components else Choice()
        if choice == Choice():
            components[name] = ComponentLayout(library, class_name)
        else:
            model = _without_weights(index.model_class(name), _config_of(named, directory, name))
            components[name] = _component_layout(library, model, choice)
    return Layout(_for_tools(named, directory), components)


def _component_layout(library: str, model: Any, choice: Choice) -> ComponentLayout:
    from autoquant.search_spaces.fuse import fused_skeleton
    from autoquant.search_spaces.linears import linears
    from autoquant.search_spaces.quantize import layer_schemes, overridden_layers

    apart = choice.model_copy(update={"fuse_qkv": False})
    schemes = layer_schemes(model, choice)
    as_planned = fused_skeleton(model) if choice.fuse_qkv else model
    first = next(name.rpartition(".")[0] for name, _ in as_planned.named_parameters())
    has_bias = getattr(as_planned.get_submodule(first), "bias", None) is not None
    return ComponentLayout(
        library=library,
        class_name=type(model).__name__,
        quantized=tuple(schemes),
        kept=tuple(path for path in linears(as_planned) if path not in schemes),
        overridden=overridden_layers(schemes, choice),
        kept_in_float32=tuple(sorted(getattr(model, "_keep_in_fp32_modules", None) or ())),
        first_layer=(first, has_bias),
        without_fusing=_component_layout(library, model, apart) if choice.fuse_qkv else None,
    )


def _is_model(model_class: type[Any]) -> bool:
    import torch

    return issubclass(model_class, torch.nn.Module)


def _without_weights(model_class: type[Any], directory: Path) -> Any:
    """The model with parameters that hold no memory, as loaders build it before they read any."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    try:
        with init_empty_weights():
            if hasattr(model_class, "load_config"):  # a diffusers model
                return model_class.from_config(model_class.load_config(directory))
            return model_class(model_class.config_class.from_pretrained(directory))
    except (OSError, ValueError, TypeError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedPipeline(
            f"The config in {directory} cannot be read as a {model_class.__name__}: {first_line}"
        ) from error


def _config_of(source: PipelineSource, directory: Path, component: str) -> Path:
    """The folder with the component's config, fetched from the hub if it is not here yet."""
    folder = directory / component
    if (folder / "config.json").is_file() or Path(source.location).expanduser().is_dir():
        return folder
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(source.location, f"{component}/config.json", revision=source.revision)
        ).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedPipeline(
            f"Cannot get the config of {component} from {source.location}: check the network, or "
            "name a local directory as the source."
        ) from error


def _for_tools(source: PipelineSource, directory: Path) -> str:
    """A directory as other programs open it; they know neither the demo nor ``~``."""
    is_directory = Path(source.location).expanduser().is_dir()
    if is_directory or source.location == "demo":
        return str(directory.resolve())
    return source.location
