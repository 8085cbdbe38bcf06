"""A model folder that was quantized before: by auto-round, for Nunchaku, or by any other method
whose checkpoints diffusers and transformers load.

Here a precision is the path of a folder: ``checkpoint:~/models/flux-autoround-int4/transformer``.
"""

# No `from __future__ import annotations`: the recipes are copied into scripts that may not have it.
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoquant.errors import InputError
from autoquant.search_spaces.backends.base import Recipe, not_installed
from autoquant.search_spaces.quantized_folder import read_quantized_folder

if TYPE_CHECKING:
    import torch

_TRUST = "DIFFUSERS_TRUST_REMOTE_KERNELS"
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class Method:
    """What a ``quant_method`` needs.

    Attributes:
        distribution: The package that loads it.
        minimum: Its oldest version that works.
        extra: The extra of diffusers-autoquant that installs it.
    """

    distribution: str
    minimum: str
    extra: str


METHODS: Mapping[str, Method] = {
    "auto-round": Method("auto-round", "0.13", "auto-round"),
    "bitsandbytes": Method("bitsandbytes", "0.49", "bitsandbytes"),
    "modelopt": Method("nvidia-modelopt", "0.47", "modelopt"),
    "nunchaku_lite": Method("kernels", "0.11.1", "nunchaku"),
    "quanto": Method("optimum-quanto", "0.2.7", "quanto"),
    "sdnq": Method("sdnq", "0.2.5", "sdnq"),
    "torchao": Method("torchao", "0.16", "torchao"),
}
"""The methods whose folders are loaded, by the ``quant_method`` of their config.json."""


class Checkpoint:
    """What is quantized, and how, is the folder's; no further layer can be left out."""

    name = "checkpoint"
    precisions: Mapping[str, float] = {}

    def unavailable(self, precision: str, device_type: str) -> str | None:
        """Say why the folder ``precision`` cannot be loaded; None if it can."""
        try:
            folder = read_quantized_folder(precision)
        except InputError as error:
            return str(error).removesuffix(".")
        method = METHODS.get(folder.method)
        if method is None:
            return (
                f"{precision} was quantized by {folder.method!r}, which is not loaded here; known "
                f"are {', '.join(METHODS)}"
            )
        return method_unavailable(folder.method)

    def quantizable_layers(self, module: "torch.nn.Module", precision: str) -> tuple[str, ...]:
        """Paths of the layers that the folder holds quantized; none if it holds another model."""
        try:
            return read_quantized_folder(precision).quantized_layers(module)
        except InputError:
            return ()

    def recipe(self, precision: str) -> Recipe:
        """The function and arguments that load the folder ``precision``."""
        return Recipe(load_checkpoint, {"path": precision}, brings_weights=True)


def method_unavailable(method: str) -> str | None:
    """Say why no checkpoint of ``method`` can be loaded in this environment; None if it can."""
    needs = METHODS[method]
    missing = not_installed(needs.distribution, needs.minimum, needs.extra)
    if missing is not None:
        return missing
    if method == "nunchaku_lite" and os.environ.get(_TRUST, "").lower() not in _TRUE:
        return (
            "its kernels are code that diffusers fetches from the hub "
            f"(rootonchair/nunchaku-lite-kernels): set {_TRUST}=true if you trust its author"
        )
    return None


def load_checkpoint(module: "Any", layers: tuple[str, ...], *, path: str) -> None:
    """Give the model the weights of a folder in which exactly these layers are quantized.

    The model's own weights are not read: they may be on the meta device, in the compute dtype.
    """
    import json
    from pathlib import Path

    import torch

    folder = Path(path).expanduser()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    method = config["quantization_config"].get("quant_method")
    options = {}
    if method == "sdnq":
        import sdnq  # noqa: F401 - transformers knows the method only once it is imported
    if method in {"auto-round", "intel/auto-round"} and torch.accelerator.is_available():
        # It picks its kernel for the device that it loads to.
        options["device_map"] = str(torch.accelerator.current_accelerator())
    loaded = type(module).from_pretrained(
        folder, dtype=module.dtype, use_safetensors=True, local_files_only=True, **options
    )
    wrong = [
        name
        for name in layers
        if type(loaded.get_submodule(name)) is torch.nn.Linear
        and type(loaded.get_submodule(name).weight) is torch.nn.Parameter
        and loaded.get_submodule(name).weight.dtype == module.dtype
    ]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} was loaded unquantized")
    module.__dict__.update(loaded.__dict__)
    module.requires_grad_(False).eval()
