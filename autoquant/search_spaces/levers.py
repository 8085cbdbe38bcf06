"""What may be tried for the pipeline as a whole: offload, compile, VAE tiling, attention kernels.

Reading a space needs no torch; only ``open_levers`` looks at modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoquant.errors import InputError
from autoquant.search_spaces.compatibility import conflicts

if TYPE_CHECKING:
    from torch import nn

ComputeDtype = Literal["bfloat16", "float16", "float32"]
Offload = Literal[
    "none",
    "model",
    "sequential",
    "group_block",
    "group_leaf",
    "group_block_stream",
    "group_leaf_stream",
    "group_block_disk",
    "group_leaf_disk",
    "group_block_stream_disk",
    "group_leaf_stream_disk",
]
"""Where weights wait until they are needed.

``model`` and ``sequential`` are ``enable_model_cpu_offload`` and ``enable_sequential_cpu_offload``
of diffusers, ``group_block`` and ``group_leaf`` its group offload at that level; ``stream`` copies
ahead of the computation, ``disk`` keeps the weights in files.
"""
Compile = Literal["none", "regional", "whole"]
"""``regional`` compiles the denoiser's repeated blocks, ``whole`` the denoiser."""
Attention = str
"""A name of diffusers' ``set_attention_backend``; ``default`` leaves it alone."""

# From the most memory to the least, and from the least waiting to the most.
_OFFLOADS: tuple[Offload, ...] = (
    "none",
    "model",
    "group_block_stream",
    "group_leaf_stream",
    "group_leaf",
    "sequential",
)
# diffusers' names for kernels of packages that a user installs on purpose.
_ATTENTION_PACKAGES = {
    "flash": "flash_attn",
    "sage": "sageattention",
    "xformers": "xformers",
}
_COPIES_AHEAD = frozenset({"cuda", "xpu"})


ConflictingLever = Literal["compute_dtype", "offload", "compile"]
"""The levers that the compatibility table knows."""

CONFLICTING_LEVERS: tuple[ConflictingLever, ...] = get_args(ConflictingLever)


LEVERS = ("offload", "compile", "vae_tiling", "vae_slicing", "attention")
"""The levers that a runtime leaves alone unless they are pulled."""


class LeverSpace(BaseModel):
    """What is open to the pipeline as a whole.

    Every field is named as the lever is in ``Runtime``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compute_dtype: tuple[ComputeDtype, ...] = Field(default=("bfloat16",), min_length=1)
    offload: tuple[Offload, ...] = Field(default=("none",), min_length=1)
    compile: tuple[Compile, ...] = Field(default=("none",), min_length=1)
    vae_tiling: tuple[bool, ...] = Field(default=(False,), min_length=1)
    vae_slicing: tuple[bool, ...] = Field(default=(False,), min_length=1)
    attention: tuple[Attention, ...] = Field(default=("default",), min_length=1)


class AskedLevers(BaseModel):
    """The values that a user wants tried, instead of those that are open by themselves.

    Every field is named as the lever is in ``Runtime``; None leaves the lever to autoquant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compute_dtype: tuple[ComputeDtype, ...] | None = Field(default=None, min_length=1)
    offload: tuple[Offload, ...] | None = Field(default=None, min_length=1)
    compile: tuple[Compile, ...] | None = Field(default=None, min_length=1)
    vae_tiling: tuple[bool, ...] | None = Field(default=None, min_length=1)
    vae_slicing: tuple[bool, ...] | None = Field(default=None, min_length=1)
    attention: tuple[Attention, ...] | None = Field(default=None, min_length=1)

    def over(self, other: AskedLevers) -> AskedLevers:
        """These, and what ``other`` asks of the levers that are left alone here."""
        return self.model_copy(
            update={
                lever: getattr(other, lever)
                for lever in type(self).model_fields
                if getattr(self, lever) is None
            }
        )


def asked_levers(levers: Mapping[str, Iterable[Any]]) -> AskedLevers:
    """Check what a user asks of the levers.

    Raises:
        InputError: A lever or a value is unknown.
    """
    try:
        return AskedLevers.model_validate({name: tuple(v) for name, v in levers.items()})
    except ValidationError as error:
        first = error.errors()[0]
        lever = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            known = ", ".join(AskedLevers.model_fields)
            raise InputError(f"There is no lever {lever!r}; there are: {known}.") from error
        raise InputError(f"{lever}: {first['msg']}, got {first['input']!r}.") from error


class LeverStruck(BaseModel):
    """A value of a lever that is not tried, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lever: str
    value: str
    reason: str


class LeverConflict(BaseModel):
    """A scheme that cannot be combined with a value of a lever for one component, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    component: str
    scheme: str
    lever: ConflictingLever
    value: str
    reason: str


class LeverValue(NamedTuple):
    """A value beside the usual one; what speaks against trying it, and whether it can be tried."""

    value: Any
    reason: str | None
    possible: bool = True


def open_levers(
    modules: Mapping[str, nn.Module],
    device_type: str,
    image_size: tuple[int, int],
    batch_size: int,
    asked: AskedLevers,
) -> tuple[LeverSpace, tuple[LeverStruck, ...]]:
    """Find out which levers can change anything here.

    Args:
        modules: The pipeline's torch modules by component name; they may be on the meta device.
        device_type: Where the pipeline will run, like ``cuda`` or ``cpu``.
        image_size: Height and width in pixels.
        batch_size: Images per pipeline call.
        asked: What to try instead.

    Returns:
        What is open, and what is not with the reason.

    Raises:
        InputError: A value that was asked for cannot be had here.
    """
    usual = LeverSpace()
    options: dict[str, tuple[Any, ...]] = {"compute_dtype": asked.compute_dtype or ("bfloat16",)}
    struck: list[LeverStruck] = []
    for lever, known in (
        ("offload", [*_offloads(device_type)]),
        ("compile", [*_compiles(modules, device_type)]),
        ("vae_tiling", [*_tilings(modules, image_size)]),
        ("vae_slicing", [*_slicings(modules, batch_size)]),
        ("attention", [*_attentions(modules, device_type)]),
    ):
        wanted = getattr(asked, lever)
        if wanted is None:
            wanted = (*getattr(usual, lever), *(it.value for it in known if it.reason is None))
        else:
            _require_possible(lever, wanted, known)
        options[lever] = tuple(dict.fromkeys(wanted))
        struck += [
            LeverStruck(lever=lever, value=str(it.value).lower(), reason=it.reason)
            for it in known
            if it.reason is not None and it.value not in wanted
        ]
    return LeverSpace.model_validate(options), tuple(struck)


def denoisers(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The components that run once a step: diffusers models that do not decode."""
    return {
        name: module
        for name, module in modules.items()
        if hasattr(module, "compile_repeated_blocks") and not hasattr(module, "decode")
    }


def lever_conflicts(
    schemes: Mapping[str, tuple[str, ...]],
    classes: Mapping[str, str],
    levers: LeverSpace,
    device_type: str,
    capability: tuple[int, int] | None = None,
) -> tuple[LeverConflict, ...]:
    """What the compatibility table says against the combinations that are open.

    Args:
        schemes: The open schemes of each component.
        classes: Library and class of each component, like ``transformers.T5EncoderModel``.
        levers: The open levers.
        device_type: torch's device type.
        capability: CUDA compute capability of the device, if it has one.
    """
    found = []
    for component, open_schemes in schemes.items():
        for scheme, lever in product(open_schemes, CONFLICTING_LEVERS):
            conditions: dict[str, Any] = {
                "component": classes[component],
                "capability": capability,
            }
            anyway = conflicts(scheme, device_type, **conditions)
            for value in getattr(levers, lever):
                if value == "none":
                    continue
                against = conflicts(scheme, device_type, **conditions, **{lever: value})
                reason = next((it.reason for it in against if it not in anyway), None)
                if reason is not None:
                    found.append(
                        LeverConflict(
                            component=component,
                            scheme=scheme,
                            lever=lever,
                            value=value,
                            reason=reason,
                        )
                    )
    return tuple(found)


def tile_pixels(vae: Any) -> int | None:
    """Edge in pixels above which a VAE of diffusers decodes in tiles; None if it does not say."""
    for name in ("tile_sample_min_size", "tile_sample_min_height"):
        value = getattr(vae, name, None)
        if isinstance(value, int):
            return value
    return None


def _require_possible(lever: str, wanted: Iterable[Any], known: Iterable[LeverValue]) -> None:
    for it in known:
        if it.value in wanted and not it.possible:
            value = str(it.value).lower()
            raise InputError(f"{lever} {value} was asked for but cannot be used here: {it.reason}.")


def _offloads(device_type: str) -> Iterator[LeverValue]:
    for offload in dict.fromkeys((*_OFFLOADS, *get_args(Offload))):
        if offload == "none":
            continue
        reason = None
        if device_type == "cpu":
            reason = "a CPU's weights are already where an offload would put them"
        elif device_type == "mps":
            reason = "mps has no memory of its own: weights that are offloaded stay in the same"
        elif "stream" in offload and device_type not in _COPIES_AHEAD:
            reason = f"diffusers copies ahead on {' and '.join(sorted(_COPIES_AHEAD))} only"
        possible = reason is None
        if possible and offload not in _OFFLOADS:
            reason = "off unless it is asked for: the same memory as another, and slower"
        yield LeverValue(offload, reason, possible)


def _compiles(modules: Mapping[str, nn.Module], device_type: str) -> Iterator[LeverValue]:
    slow = "off on a CPU unless it is asked for: it takes minutes" if device_type == "cpu" else None
    found = denoisers(modules).values()
    absent = None if found else "there is no denoiser of diffusers"
    if absent is None and not any(getattr(module, "_repeated_blocks", None) for module in found):
        yield LeverValue("regional", "the denoiser names no repeated blocks", False)
    else:
        yield LeverValue("regional", absent or slow, absent is None)
    yield LeverValue("whole", absent or slow, absent is None)


def _tilings(modules: Mapping[str, nn.Module], image_size: tuple[int, int]) -> Iterator[LeverValue]:
    vae = modules.get("vae")
    if not hasattr(vae, "enable_tiling"):
        yield LeverValue(True, "the VAE cannot decode in tiles", False)
        return
    tile, edge = tile_pixels(vae), max(image_size)
    single = tile is not None and edge <= tile
    yield LeverValue(True, f"{edge} pixels are one tile of {tile}" if single else None)


def _slicings(modules: Mapping[str, nn.Module], batch_size: int) -> Iterator[LeverValue]:
    if not hasattr(modules.get("vae"), "enable_slicing"):
        yield LeverValue(True, "the VAE cannot decode image by image", False)
    else:
        yield LeverValue(True, "a call draws one image" if batch_size == 1 else None)


def _attentions(modules: Mapping[str, nn.Module], device_type: str) -> Iterator[LeverValue]:
    import importlib.util

    chooses = any(
        hasattr(getattr(part, "processor", None), "_attention_backend")
        for module in denoisers(modules).values()
        for part in module.modules()
    )
    for name, package in _ATTENTION_PACKAGES.items():
        reason = None
        if not chooses:
            reason = "the denoiser's attention has one kernel"
        elif device_type != "cuda":
            reason = "its kernels are for cuda"
        elif importlib.util.find_spec(package) is None:
            reason = f"{package} is not installed"
        yield LeverValue(name, reason, reason is None)
