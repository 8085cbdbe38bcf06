"""An existing GGUF file in place of a model's weights: every format that diffusers can run.

Here a precision is the path of a file, so K-quants and mixed files that llama.cpp made are choices
like any other: ``gguf-file:~/models/flux1-dev-Q4_K_S.gguf``.
"""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError, first_line
from autoquant.search_spaces.backends.base import Recipe, not_installed

if TYPE_CHECKING:
    import torch

_FILES_REMEMBERED = 8


class GgufFile:
    """What is quantized, and how, is the file's; a layer that is excluded is unpacked."""

    name = "gguf-file"
    precisions: Mapping[str, float] = {}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why the file ``precision`` cannot be used; None if it can."""
        missing = not_installed("gguf", "0.10", "gguf")
        if missing is None and not Path(precision).expanduser().is_file():
            return f"there is no file {precision}"
        return missing

    def quantizable_layers(self, module: Any, precision: str) -> tuple[str, ...]:
        """Paths of the layers that the file holds quantized; none for a model without such files.

        Raises:
            InputError: The file holds no weights of this model.
        """
        if not hasattr(type(module), "from_single_file"):
            return ()
        path = Path(precision).expanduser()
        try:
            stamp = path.stat().st_mtime_ns
        except OSError as error:
            raise InputError(f"Cannot read the GGUF file {precision}: {error}.") from error
        config = json.dumps(dict(module.config), default=str, sort_keys=True)
        model_class: Any = type(module)
        return _quantized_layers(model_class, config, path, stamp)

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that load the file ``precision``."""
        return Recipe(load_gguf_file, {"path": precision}, brings_weights=True)


def load_gguf_file(module: "Any", layers: tuple[str, ...], *, path: str) -> None:
    """Give the model the weights of a GGUF file, with exactly these layers left quantized.

    The model's own weights are not read: they may be on the meta device, in the compute dtype.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch
    from diffusers import GGUFQuantizationConfig
    from diffusers.quantizers.gguf.utils import GGUFLinear, dequantize_gguf_tensor

    model_class, dtype = type(module), module.dtype
    with TemporaryDirectory() as folder:
        module.save_config(folder)
        loaded = model_class.from_single_file(
            str(Path(path).expanduser()),
            config=folder,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
        )
    for name, layer in list(loaded.named_modules()):
        if isinstance(layer, GGUFLinear) and name not in layers:
            width, height = layer.in_features, layer.out_features
            plain = torch.nn.Linear(width, height, bias=layer.bias is not None, device="meta")
            plain.weight = torch.nn.Parameter(dequantize_gguf_tensor(layer.weight).to(dtype))
            plain.bias = layer.bias
            parent_path, _, leaf = name.rpartition(".")
            setattr(loaded.get_submodule(parent_path), leaf, plain)
    module.__dict__.update(loaded.__dict__)
    module.requires_grad_(False).eval()


@functools.lru_cache(maxsize=_FILES_REMEMBERED)
def _quantized_layers(
    model_class: type[Any], config: str, path: Path, stamp: int
) -> tuple[str, ...]:
    """Load the file as it lies on the disk, without reading its weights, to learn their names."""
    from diffusers import GGUFQuantizationConfig
    from diffusers.quantizers.gguf.utils import GGUFLinear

    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(config, encoding="utf-8")
        try:
            loaded = model_class.from_single_file(
                _mapped_tensors(path), config=folder, quantization_config=GGUFQuantizationConfig()
            )
        except (
            *(ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OSError),
        ) as error:
            # Which of these it is depends on where a converter of diffusers stumbles.
            raise _misfit(
                path, model_class, f"{type(error).__name__}: {first_line(error)}"
            ) from error
    lacking = next((name for name, weight in loaded.named_parameters() if weight.is_meta), None)
    if lacking is not None:
        raise _misfit(path, model_class, f"it lacks {lacking}")
    return tuple(
        name
        for name, layer in loaded.named_modules()
        if isinstance(layer, GGUFLinear)
        and getattr(getattr(layer.weight, "quant_type", None), "name", "BF16") != "BF16"
    )


def _misfit(path: Path, model_class: type[Any], reason: str) -> InputError:
    return InputError(
        f"The GGUF file {path} holds no weights of this {model_class.__name__}: {reason}"
    )


def _mapped_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """The file's tensors, left on the disk until they are read."""
    import gguf
    import torch
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter

    plain = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
    tensors: dict[str, torch.Tensor] = {}
    for tensor in gguf.GGUFReader(path, "c").tensors:
        weight = torch.from_numpy(tensor.data)
        if tensor.tensor_type in plain:
            tensors[tensor.name] = weight
        elif tensor.tensor_type in SUPPORTED_GGUF_QUANT_TYPES:
            tensors[tensor.name] = GGUFParameter(weight, quant_type=tensor.tensor_type)
        else:
            raise ValueError(
                f"{tensor.name} is {tensor.tensor_type.name}, which diffusers cannot run"
            )
    return tensors
