"""Load a pipeline component by component, so that each can be quantized before the next arrives."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging

from autoquant.errors import UnsupportedPipeline, first_line
from autoquant.planner.adapters import adapters_of_pipeline, without_adapters
from autoquant.planner.loras import Adapter, by_component
from autoquant.planner.source import ModelIndex, read_model_index
from autoquant.search_spaces.fuse import without_weights
from autoquant.storage import held_bytes

# What drawing passes to every call; one that takes no height draws sound, or changes an image.
_TAKEN = {"prompt", "height", "width", "num_inference_steps", "generator", "output_type"}

# These are never optional, though many a signature gives them None as a default.
_GIVEN_IMAGES = {"mask_image", "mask_video", "control_image", "control_video"}


class ComponentLoader(Protocol):
    """Gives fresh, unquantized components on the CPU, and puts a pipeline together."""

    pipeline_class: type[Any]
    adapters: Mapping[str, tuple[Adapter, ...]]
    """What each component gets once it is loaded and quantized; set by who prepares the search."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each torch component, largest first."""

    def load(self, name: str, dtype: torch.dtype) -> torch.nn.Module:
        """A module that shares no storage with anything else, in evaluation mode."""

    def outline(self, name: str) -> torch.nn.Module:
        """The module's layers; its weights may be on the meta device, and must not be changed."""

    def assemble(self, modules: Mapping[str, torch.nn.Module], dtype: torch.dtype) -> Any:
        """A pipeline around ``modules``; what is not among them is loaded unquantized."""


class DirectoryLoader:
    """Components of a pipeline directory, read from its safetensors files.

    Raises:
        UnsupportedPipeline: The directory is no text-to-image pipeline of the installed diffusers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index: ModelIndex = read_model_index(directory)
        self.pipeline_class = _pipeline_class(self.index.class_name)
        self.adapters: Mapping[str, tuple[Adapter, ...]] = {}

    @property
    def sizes(self) -> Mapping[str, int]:
        sizes = {
            name: sum(file.stat().st_size for file in (self.directory / name).glob("*.safetensors"))
            for name in self.index.components
            if issubclass(self.index.model_class(name), torch.nn.Module)
        }
        return _largest_first(sizes)

    def load(self, name: str, dtype: torch.dtype) -> torch.nn.Module:
        try:
            module = self.index.model_class(name).from_pretrained(
                self.directory, subfolder=name, dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UnsupportedPipeline(
                f"{self.directory / name} cannot be loaded: {first_line(error)}"
            ) from error
        assert isinstance(module, torch.nn.Module)
        return module.eval().requires_grad_(False)

    def outline(self, name: str) -> torch.nn.Module:
        model_class = self.index.model_class(name)
        try:
            with torch.device("meta"):
                if hasattr(model_class, "load_config"):  # a model of diffusers
                    config = model_class.load_config(self.directory, subfolder=name)
                    module = model_class.from_config(config)
                else:
                    kind = model_class.config_class
                    module = model_class(kind.from_pretrained(self.directory, subfolder=name))
        except (OSError, ValueError) as error:
            raise UnsupportedPipeline(
                f"{self.directory / name} cannot be outlined: {first_line(error)}"
            ) from error
        assert isinstance(module, torch.nn.Module)
        return module

    def assemble(self, modules: Mapping[str, torch.nn.Module], dtype: torch.dtype) -> Any:
        try:
            with _no_progress_bar():
                # Not DiffusionPipeline's: that takes only those components that the constructor
                # requires, and loads the others again, unquantized (diffusers 0.42).
                pipeline = self.pipeline_class.from_pretrained(
                    self.directory, dtype=dtype, use_safetensors=True, **modules
                )
        except (OSError, ValueError) as error:
            raise UnsupportedPipeline(
                f"{self.directory} cannot be loaded: {first_line(error)}"
            ) from error
        ignored = [name for name, it in modules.items() if getattr(pipeline, name) is not it]
        if ignored:
            raise UnsupportedPipeline(
                f"{self.pipeline_class.__name__} loads {', '.join(ignored)} itself and takes no "
                "other; pass the loaded pipeline to autoquant() instead of its directory."
            )
        return _quiet(pipeline)


class ObjectLoader:
    """Copies of the components of a pipeline in memory, which stays as it is.

    Raises:
        UnsupportedPipeline: The pipeline is no text-to-image pipeline, has offload hooks, or is
            quantized already, or has adapters that are fused, not active, or no LoRA.
    """

    def __init__(self, pipeline: Any) -> None:
        _require_text_to_image(type(pipeline))
        self.pipeline_class = type(pipeline)
        self._pipeline = pipeline
        self._modules = {
            name: component
            for name, component in pipeline.components.items()
            if isinstance(component, torch.nn.Module)
        }
        self.adapters: Mapping[str, tuple[Adapter, ...]] = by_component(
            adapters_of_pipeline(pipeline)
        )
        for name, module in self._modules.items():
            _require_untouched(name, module)
        self._outlines = {
            name: without_adapters(without_weights(module)) if name in self.adapters else module
            for name, module in self._modules.items()
        }

    @property
    def sizes(self) -> Mapping[str, int]:
        return _largest_first({name: held_bytes(module) for name, module in self._modules.items()})

    def load(self, name: str, dtype: torch.dtype) -> torch.nn.Module:
        return without_adapters(_copy_to_cpu(self._modules[name], dtype))

    def outline(self, name: str) -> torch.nn.Module:
        return self._outlines[name]

    def assemble(self, modules: Mapping[str, torch.nn.Module], dtype: torch.dtype) -> Any:
        missing = {name: self.load(name, dtype) for name in self._modules if name not in modules}
        scheduler = self._pipeline.scheduler
        fresh = {"scheduler": type(scheduler).from_config(scheduler.config), **modules, **missing}
        replaced = {
            id(component): fresh[name]
            for name, component in self._pipeline.components.items()
            if name in fresh
        }
        return _quiet(_rebuilt(self._pipeline, replaced))


def _rebuilt(pipeline: Any, replaced: Mapping[int, Any]) -> Any:
    """A copy with components replaced, by their ids, here and in the pipelines that it is made of.

    A combined pipeline hands its call on to a prior and a decoder, which hold components too.
    """
    copied = copy.copy(pipeline)
    copied.register_modules(
        **{
            name: replaced[id(component)]
            for name, component in pipeline.components.items()
            if id(component) in replaced
        }
    )
    for name, part in vars(pipeline).items():
        if isinstance(part, DiffusionPipeline):
            setattr(copied, name, _rebuilt(part, replaced))
    return copied


def _copy_to_cpu(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Copy ``module``, casting what ``from_pretrained(dtype=…)`` casts: its state dict only.

    Buffers outside the state dict (sinusoidal tables) keep their precision; casting them moves the
    images by as much as 8-bit quantization does.
    """
    kept_in_fp32 = tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
    persistent = {id(tensor): name for name, tensor in module.state_dict(keep_vars=True).items()}
    copies: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        name = persistent.get(id(tensor))
        casts = name is not None and tensor.is_floating_point()
        if casts and any(part in kept_in_fp32 for part in (name or "").split(".")):
            casts = tensor.dtype != torch.float32
        copied = tensor.detach().to("cpu", dtype if casts else tensor.dtype, copy=True)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        copies[id(tensor)] = torch.nn.Parameter(copied, False) if is_parameter else copied
    return copy.deepcopy(module, copies).eval()


def _require_untouched(name: str, module: torch.nn.Module) -> None:
    if any(hasattr(part, "_hf_hook") for part in module.modules()):
        raise UnsupportedPipeline(
            f"{name} has offload hooks; call pipe.remove_all_hooks() before autoquant()."
        )
    weights_are_plain = all(type(weight) is torch.nn.Parameter for weight in module.parameters())
    if not weights_are_plain or getattr(module, "is_quantized", False):
        raise UnsupportedPipeline(
            f"{name} is quantized already; pass the pipeline in bfloat16, float16 or float32."
        )


def _pipeline_class(class_name: str) -> type[Any]:
    import diffusers

    found = getattr(diffusers, class_name, None)
    if not (isinstance(found, type) and issubclass(found, DiffusionPipeline)):
        raise UnsupportedPipeline(
            f"{class_name} is no pipeline of the installed diffusers {diffusers.__version__}; "
            "upgrade it: pip install -U diffusers"
        )
    _require_text_to_image(found)
    return found


def _require_text_to_image(pipeline_class: type[Any]) -> None:
    parameters = inspect.signature(pipeline_class.__call__).parameters
    missing = sorted(_TAKEN - set(parameters))
    needed = [
        name
        for name, parameter in list(parameters.items())[1:]
        if name not in _TAKEN
        and parameter.default is inspect.Parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ] or sorted(_GIVEN_IMAGES & set(parameters))
    why = ["takes no " + ", ".join(missing)] * bool(missing)
    why += ["needs " + ", ".join(needed)] * bool(needed)
    if why:
        raise UnsupportedPipeline(
            f"{pipeline_class.__name__} is no text-to-image pipeline: its call {' and '.join(why)}."
        )


def _largest_first(sizes: dict[str, int]) -> dict[str, int]:
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """A search loads a pipeline for every candidate; forty bars say nothing."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def loader_for(directory: Path, *, trust_remote_code: bool = False) -> ComponentLoader:
    """The loader for a pipeline directory; code that it brings runs only if it is trusted.

    Raises:
        UnsupportedPipeline: The directory is no text-to-image pipeline, or brings code that is not
            trusted.
    """
    if not trust_remote_code:
        return DirectoryLoader(directory)
    return ObjectLoader(
        DiffusionPipeline.from_pretrained(directory, use_safetensors=True, trust_remote_code=True)
    )
