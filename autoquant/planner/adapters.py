"""LoRA adapters of a pipeline: taken from it or read from files, and kept apart from its weights.

An adapter is kept as peft saves one, a folder with its config and a safetensors file for each
component, in the user's cache directory under a hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError, UnsupportedPipeline, first_line
from autoquant.planner.cache import cache_directory
from autoquant.planner.loras import Adapter, NamedLora, require_peft
from autoquant.planner.source import without_home
from autoquant.search_spaces.fuse import without_weights
from autoquant.search_spaces.lora import CONFIG, WEIGHTS

if TYPE_CHECKING:
    import torch


def adapters_from_files(pipeline: Any, named: Sequence[str]) -> tuple[Adapter, ...]:
    """The adapters that LoRA files hold, read by the pipeline's own ``load_lora_weights``.

    Args:
        pipeline: Of modules ``without_memory``, which are changed.
        named: ``FILE`` or ``FILE=SCALE``.

    Raises:
        InputError: A file holds no adapter of this pipeline.
    """
    found: list[Adapter] = []
    for lora in map(NamedLora.parse, named):
        if not hasattr(pipeline, "load_lora_weights"):
            raise InputError(f"{type(pipeline).__name__} loads no LoRA files.")
        try:
            pipeline.load_lora_weights(
                str(lora.file.parent),
                weight_name=lora.file.name,
                adapter_name=lora.name,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=True,
            )
        except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
            # Which of these it is depends on where a converter of diffusers stumbles.
            raise InputError(
                f"The LoRA file {lora.file} does not fit this {type(pipeline).__name__}: "
                f"{first_line(error)}"
            ) from error
        own = [
            _kept(name, module, lora.name, lora.scale)
            for name, module in _modules(pipeline).items()
            if lora.name in (getattr(module, "peft_config", None) or {})
        ]
        if not own:
            raise InputError(
                f"The LoRA file {lora.file} holds nothing for this {type(pipeline).__name__}."
            )
        found += own
    return tuple(found)


def without_memory(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``module`` on the CPU in which each tensor is one zero, repeated.

    peft puts an adapter on the device of the weight beside it; on the meta device it would be lost.
    """
    import torch

    hollow = without_weights(module)
    for part in hollow.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                zeros = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
                part._parameters[name] = torch.nn.Parameter(zeros, requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.zeros((), dtype=buffer.dtype).expand(buffer.shape)
    return hollow


def adapters_of_pipeline(pipeline: Any) -> tuple[Adapter, ...]:
    """The active adapters of a pipeline in memory, with their scales.

    Raises:
        UnsupportedPipeline: An adapter is fused, switched off, no LoRA, or scaled layer by layer.
        InputError: peft is too old.
    """
    found = []
    for component, module in _modules(pipeline).items():
        for name in getattr(module, "peft_config", None) or {}:
            require_peft()
            found.append(_kept(component, module, name, _scale(component, module, name)))
    return tuple(found)


def adapted_layers(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Paths of the layers that the adapters of one component change.

    Raises:
        InputError: An adapter's folder is gone or damaged.
    """
    from safetensors import SafetensorError, safe_open

    layers: dict[str, None] = {}
    for adapter in adapters:
        file = Path(adapter.folder).expanduser() / WEIGHTS
        try:
            with safe_open(file, framework="numpy") as opened:
                names = list(opened.keys())
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"The LoRA adapter {adapter.name} of {adapter.component} is no more at "
                f"{adapter.folder}: {error}. Plan again."
            ) from error
        layers |= dict.fromkeys(re.split(r"\.lora_", name)[0] for name in names)
    return tuple(layers)


def without_adapters(module: torch.nn.Module) -> torch.nn.Module:
    """``module``, changed in place, as it is without its adapters."""
    if not getattr(module, "peft_config", None):
        return module
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    plain: Any = recurse_remove_peft_layers(module)
    del plain.peft_config
    if hasattr(plain, "_hf_peft_config_loaded"):
        plain._hf_peft_config_loaded = False
    assert isinstance(plain, type(module))
    return plain


def _modules(pipeline: Any) -> Mapping[str, Any]:
    import torch

    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def _scale(component: str, module: Any, name: str) -> float:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(module.peft_config[name], LoraConfig):
        raise UnsupportedPipeline(
            f"{component} has the adapter {name}, which is no LoRA: "
            f"{type(module.peft_config[name]).__name__}. Fuse and save it, or unload it."
        )
    scales = set()
    for path, layer in module.named_modules():
        if not isinstance(layer, BaseTunerLayer) or name not in getattr(layer, "scaling", {}):
            continue
        assert isinstance(layer, LoraLayer)
        if layer.merged:
            raise UnsupportedPipeline(
                f"{component} has the adapter {name} fused at {path}: call "
                "pipe.unload_lora_weights() to keep it so, or pipe.unfuse_lora()."
            )
        if layer.disable_adapters or name not in layer.active_adapters:
            raise UnsupportedPipeline(
                f"{component} has the adapter {name} loaded but not active: call "
                f"pipe.set_adapters() or pipe.delete_adapters({name!r})."
            )
        rank = layer.r[name] ** 0.5 if layer.use_rslora.get(name, False) else layer.r[name]
        trained = layer.lora_alpha[name] / rank
        scales.add(round(layer.scaling[name] / trained, 6))
    if len(scales) > 1:
        raise UnsupportedPipeline(
            f"{component} scales the adapter {name} layer by layer ({sorted(scales)}): call "
            "pipe.set_adapters() with one weight for each component."
        )
    return scales.pop() if scales else 1.0


def _kept(component: str, module: Any, name: str, scale: float) -> Adapter:
    """Write the adapter into the cache, once for equal content."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = {
        key: tensor.detach().cpu().contiguous()
        for key, tensor in get_peft_model_state_dict(module, adapter_name=name).items()
    }
    config = module.peft_config[name]
    digest = hashlib.sha256(json.dumps(config.to_dict(), default=str, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    folder = cache_directory() / "adapters" / f"{name}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as partial:
            config.save_pretrained(partial)
            assert Path(partial, CONFIG).is_file()
            save_file(tensors, Path(partial, WEIGHTS), {"format": "pt"})
            complete = Path(partial, "complete")
            complete.mkdir()
            for file in (CONFIG, WEIGHTS):
                Path(partial, file).replace(complete / file)
            if not folder.is_dir():
                complete.rename(folder)
    return Adapter(
        name=name,
        component=component,
        folder=without_home(folder.absolute()),
        scale=scale,
        stored_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
    )
