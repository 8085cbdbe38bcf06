"""A model folder that was quantized before, as its config and headers tell; no weight is read.

Nothing here imports torch.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from autoquant.errors import InputError

if TYPE_CHECKING:
    from torch import nn

_FOLDERS_REMEMBERED = 16
_LARGEST_JSON = 16_000_000

# The names that from_pretrained() looks for (diffusers utils/constants.py, transformers
# utils/__init__.py).
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_SHARD = re.compile(r"[\w.\-]+\.safetensors")
_FULL_PRECISION = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_NARROW = {"F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "I16": 16, "I32": 32, "I64": 64}

# How diffusers and transformers name the configuration classes of torchao.
_TORCHAO_KINDS = {
    "Int8WeightOnlyConfig": "int8wo",
    "Int8DynamicActivationInt8WeightConfig": "int8dq",
    "Float8WeightOnlyConfig": "float8wo",
    "Float8DynamicActivationFloat8WeightConfig": "float8dq",
    "Int4WeightOnlyConfig": "int4wo",
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: its dtype as the file spells it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Bits that it takes in the file."""
        return prod(self.shape) * {**_FULL_PRECISION, **_NARROW, "BOOL": 8}.get(self.dtype, 8)


@dataclass(frozen=True)
class QuantizedFolder:
    """What a folder says of itself.

    Attributes:
        path: The folder.
        library: ``diffusers`` or ``transformers``.
        class_names: The classes that its config names.
        method: ``quant_method`` of its quantization config, like ``auto-round``.
        settings: The quantization config.
        tensors: Every tensor by name.
    """

    path: Path
    library: str
    class_names: tuple[str, ...]
    method: str
    settings: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, StoredTensor] = field(repr=False)

    @property
    def kind(self) -> str:
        """Method and precision as a scheme would name them, like ``bitsandbytes:nf4``."""
        return f"{self.method}:{_precision(self.method, self.settings)}"

    @property
    def stored_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bits for tensor in self.tensors.values()) // 8

    def quantized_layers(self, module: nn.Module) -> tuple[str, ...]:
        """Paths of the linear layers of ``module`` that are stored quantized, in module order.

        Raises:
            InputError: The folder holds another model.
        """
        return _Comparison(self, module).quantized_layers()


def read_quantized_folder(path: str | Path) -> QuantizedFolder:
    """Read config and headers.

    Raises:
        InputError: It is no model folder, not quantized, damaged, or not stored as safetensors.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"There is no folder {path}.")
    if (folder / "model_index.json").is_file():
        raise InputError(
            f"{path} is a whole pipeline; name a model's folder in it, like "
            f"transformer={folder / 'transformer'}."
        )
    try:
        stamp = max(file.stat().st_mtime_ns for file in (folder, *folder.iterdir()))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    return _read(folder, stamp)


@functools.lru_cache(maxsize=_FOLDERS_REMEMBERED)
def _read(folder: Path, stamp: int) -> QuantizedFolder:
    config = _read_json(folder / "config.json")
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        raise InputError(
            f"{folder} is not quantized: its config.json has no quantization_config. Plan without "
            "it; what is not quantized yet is quantized here."
        )
    named = config.get("_class_name")
    library = "diffusers" if isinstance(named, str) else "transformers"
    classes = [named] if isinstance(named, str) else config.get("architectures")
    if not (isinstance(classes, list) and classes and all(isinstance(c, str) for c in classes)):
        raise InputError(
            f"{folder / 'config.json'} names no class: neither _class_name nor architectures."
        )
    return QuantizedFolder(
        path=folder,
        library=library,
        class_names=tuple(classes),
        method=_method(folder, settings),
        settings=settings,
        tensors=_read_tensors(folder, _STEMS[library]),
    )


def _method(folder: Path, settings: Mapping[str, Any]) -> str:
    # bitsandbytes wrote no method once (diffusers quantizers/auto.py from_dict).
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    method = settings.get("quant_method")
    if not isinstance(method, str) or not re.fullmatch(r"[\w\-/]+", method):
        raise InputError(f"{folder / 'config.json'} names the quant_method {method!r}.")
    return {"intel/auto-round": "auto-round"}.get(method, method)


def _precision(method: str, settings: Mapping[str, Any]) -> str:
    if method == "bitsandbytes":
        four = settings.get("load_in_4bit")
        return str(settings.get("bnb_4bit_quant_type", "fp4")) if four else "int8"
    if method == "auto-round":
        return f"int{settings.get('bits', 4)}"
    if method == "nunchaku_lite":
        svdq = settings.get("svdq_w4a4")
        return str(svdq.get("precision", "int4")) if isinstance(svdq, dict) else "int4"
    if method == "torchao":
        types = settings.get("quant_type")
        default = types.get("default") if isinstance(types, dict) else None
        name = default.get("_type") if isinstance(default, dict) else types
        return _TORCHAO_KINDS.get(str(name), "mixed")
    written = settings.get("weights_dtype", settings.get("weights", settings.get("quant_type")))
    return written.lower() if isinstance(written, str) else "unknown"


def _read_tensors(folder: Path, stem: str) -> dict[str, StoredTensor]:
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if index.is_file():
        names = _read_json(index).get("weight_map")
        shards = set(names.values()) if isinstance(names, dict) else set()
        if not shards or not all(isinstance(s, str) and _SHARD.fullmatch(s) for s in shards):
            raise InputError(f"{index} has no sound weight_map; fetch it again.")
        return {
            name: tensor
            for shard in sorted(shards)
            for name, tensor in _read_header(folder / shard).items()
        }
    if single.is_file():
        return _read_header(single)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        raise InputError(
            f"{folder} has no {stem}.safetensors, which its library loads, but {others[0]}: "
            f"rename it. (auto-round 0.16 saves diffusers models under that name.)"
        )
    raise InputError(
        f"{folder} has no {stem}.safetensors. Pickles can run code when they are opened, so they "
        "are not; convert them to safetensors."
    )


def _read_header(file: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(file, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: StoredTensor(part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file} is no sound safetensors file: {error}; fetch it again."
        ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST_JSON:
            raise InputError(f"{file} is larger than any config.")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file.parent} is no model folder: it has no {file.name}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object.")
    return content


class _Comparison:
    """A folder's tensors against the parameters of a model, which may be on the meta device."""

    def __init__(self, folder: QuantizedFolder, module: nn.Module) -> None:
        self._folder = folder
        self._module = module
        self._prefix = self._find_prefix()

    def quantized_layers(self) -> tuple[str, ...]:
        from autoquant.search_spaces.linears import linears

        if type(self._module).__name__ not in self._folder.class_names:
            raise self._misfit(f"it holds a {', '.join(self._folder.class_names)}")
        layers = linears(self._module)
        packed = {path for path in layers if not self._is_full(f"{path}.weight")}
        self._require_every_parameter(packed)
        self._require_nothing_else(packed)
        for path in packed:
            layer = layers[path]
            self._require_payload(path, layer.in_features * layer.out_features)
        if not packed:
            raise self._misfit("none of its linear layers is stored quantized")
        return tuple(path for path in layers if path in packed)

    def _find_prefix(self) -> str:
        """What stands before every name: ``text_model.`` in CLIP checkpoints of transformers 4."""
        for name, _ in self._module.named_parameters():
            if name in self._folder.tensors:
                return ""
            longer = [stored for stored in self._folder.tensors if stored.endswith(f".{name}")]
            if len(longer) == 1:
                return longer[0].removesuffix(name)
        return ""

    def _stored(self, name: str) -> StoredTensor | None:
        return self._folder.tensors.get(self._prefix + name)

    def _is_full(self, name: str) -> bool:
        found = self._stored(name)
        return found is not None and found.dtype in _FULL_PRECISION

    def _is_tied(self, name: str) -> bool:
        """Whether loading ties it; a model that was built without weights is not tied yet."""
        declared = getattr(self._module, "_tied_weights_keys", None) or ()
        return any(re.search(pattern, name) for pattern in declared)

    def _require_every_parameter(self, packed: set[str]) -> None:
        same: dict[int, list[str]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            same.setdefault(id(parameter), []).append(name)
            shapes[name] = tuple(parameter.shape)
        for names in same.values():
            if any(name.removesuffix(".weight") in packed for name in names):
                continue
            stored = next((found for name in names if (found := self._stored(name))), None)
            if stored is None and any(self._is_tied(name) for name in names):
                continue
            if stored is None:
                raise self._misfit(f"it lacks {names[0]}")
            if stored.shape != shapes[names[0]]:
                raise self._misfit(
                    f"its {names[0]} is {list(stored.shape)}, the model's {list(shapes[names[0]])}"
                )

    def _require_nothing_else(self, packed: set[str]) -> None:
        known = {name for name, _ in self._module.named_parameters(remove_duplicate=False)}
        known |= {name for name, _ in self._module.named_buffers()}
        for name in self._folder.tensors:
            own = name.removeprefix(self._prefix)
            parts = own.split(".")
            owners = {".".join(parts[:length]) for length in range(1, len(parts))}
            if own not in known and owners.isdisjoint(packed):
                raise self._misfit(f"the model has no place for its {name}")

    def _require_payload(self, path: str, weights: int) -> None:
        """Codes take between one bit and eight a weight, whatever their layout."""
        start = f"{self._prefix}{path}."
        codes = [
            tensor.bits
            for name, tensor in self._folder.tensors.items()
            if name.startswith(start) and tensor.dtype in _NARROW
        ]
        if not codes:
            raise self._misfit(f"it lacks {path}.weight")
        if not 1 <= max(codes) / weights <= 8:
            raise self._misfit(
                f"it stores {max(codes) // 8} bytes for the {weights} weights of {path}"
            )

    def _misfit(self, reason: str) -> InputError:
        return InputError(
            f"{self._folder.path} holds no weights of this {type(self._module).__name__}: {reason}"
        )
