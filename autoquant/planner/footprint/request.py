"""What is asked of the pipeline, as far as memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoquant.errors import InputError
from autoquant.planner.footprint.family import default_pixels, family_of
from autoquant.planner.footprint.shapes import COMPUTE_BYTES, ModelShapes

_LARGEST_SIDE = 65536
_LARGEST_BATCH = 4096
_LONGEST_PROMPT = 131_072


@dataclass(frozen=True)
class Request:
    """One pipeline call.

    Attributes:
        height: Pixels. width: Pixels.
        batch: Images drawn at once.
        text_tokens: Tokens of the long-prompt encoder.
        joint_tokens: Text tokens that the denoiser sees.
        denoised: Latents that the denoiser sees at once: guidance doubles them.
    """

    height: int
    width: int
    batch: int
    text_tokens: int
    joint_tokens: int
    denoised: int
    compute_dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of one number in the compute dtype."""
        return COMPUTE_BYTES[self.compute_dtype]

    def with_call(self, text_tokens: int | None, *, unguided: bool) -> Request:
        """The same with what a call asks for: a longest prompt, or no guidance."""
        asked = self.text_tokens if text_tokens is None else min(text_tokens, _LONGEST_PROMPT)
        beside = self.joint_tokens - self.text_tokens
        return replace(
            self,
            text_tokens=asked,
            joint_tokens=asked + beside,
            denoised=self.batch if unguided else self.denoised,
        )


def request_for(
    model: ModelShapes,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    compute_dtype: str = "bfloat16",
) -> Request:
    """Fill in what the pipeline does by default.

    Raises:
        InputError: A size is not a whole number that can be meant.
    """
    pixels = default_pixels(model)
    family = family_of(model.class_name)
    if compute_dtype not in COMPUTE_BYTES:
        raise InputError(
            f"compute_dtype must be one of {', '.join(COMPUTE_BYTES)}, got {compute_dtype!r}."
        )
    return Request(
        height=_checked("height", pixels if height is None else height, _LARGEST_SIDE),
        width=_checked("width", pixels if width is None else width, _LARGEST_SIDE),
        batch=_checked("batch", batch, _LARGEST_BATCH),
        text_tokens=family.text_tokens,
        joint_tokens=family.joint_tokens,
        denoised=batch * (2 if family.doubles_batch else 1),
        compute_dtype=compute_dtype,
    )


def _checked(name: str, number: int, largest: int) -> int:
    if not 1 <= number <= largest:
        raise InputError(f"{name} must be between 1 and {largest}, got {number}.")
    return number
