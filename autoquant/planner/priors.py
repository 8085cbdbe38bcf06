"""What is expected of a space's options before anything is measured.

Effects are shares of the reference's figure; for the loss they are logarithms. The priors are wide:
what is measured decides, and they only say which options are likely to be alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.planner.axes import Axis
from autoquant.planner.effects import Effects, Spread, prior_covariance

# The likenesses that say which layers are left out, or stored in another width.
_LAYERS = ("exclusions", "overrides")
_WEIGHTS = Spread(
    {"scheme": 0.05, "width": 0.03, **dict.fromkeys(_LAYERS, 0.1)}, own=0.02, level=0.1
)
_LEVERS = {
    **dict.fromkeys(("compile", "vae_tiling", "vae_slicing", "attention", "compute_dtype"), 0.4),
    "offload": 1.0,
}
_ACTIVATIONS = Spread(
    {"scheme": 0.1, "width": 0.05, **dict.fromkeys(_LAYERS, 0.05), "fuse_qkv": 0.1, **_LEVERS},
    own=0.03,
)
_RAM = Spread(
    {"scheme": 0.1, "width": 0.05, **dict.fromkeys(_LAYERS, 0.02), "fuse_qkv": 0.02, **_LEVERS},
    own=0.03,
)
_SECONDS = Spread(
    {"scheme": 0.3, "width": 0.15, **dict.fromkeys(_LAYERS, 0.05), "fuse_qkv": 0.05, **_LEVERS},
    own=0.02,
    level=0.2,
)
_LOSS = Spread(
    {"scheme": 0.25, "width": 0.25, **dict.fromkeys(_LAYERS, 0.25), "fuse_qkv": 0.03},
    own=0.08,
    level=1.5,
    slope=0.2,
)
# What an 8-bit choice does, and what one bit more does to that.
_LOG_LOSS_OF_8_BITS = np.log(0.02)
_LOG_LOSS_A_BIT = -0.35


class Priors:
    """Gives effects that know nothing yet; their covariances are made once."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self._changes = [np.arange(len(axis.options)) > 0 for axis in axes]
        self._damages = [axis.damages for axis in axes]
        self._zero = [np.zeros(len(axis.options)) for axis in axes]
        pairs = list(zip(axes, self._changes, strict=True))
        self._activations = [prior_covariance(axis, _ACTIVATIONS, on) for axis, on in pairs]
        self._ram = [prior_covariance(axis, _RAM, on) for axis, on in pairs]
        self._seconds = [prior_covariance(axis, _SECONDS, on) for axis, on in pairs]
        self._weights = [prior_covariance(axis, _WEIGHTS, axis.damages) for axis in axes]
        self._losses = [prior_covariance(axis, _LOSS, axis.damages) for axis in axes]
        self._log_losses = [
            np.where(on, _LOG_LOSS_OF_8_BITS + _LOG_LOSS_A_BIT * (axis.bits - 8), 0.0)
            for axis, on in zip(axes, self._damages, strict=True)
        ]

    def weights(self, place: int) -> Effects:
        """What the options of one axis save of its component's bytes, as shares."""
        active = self._damages[place]
        saved = np.where(active, self.axes[place].bits / 16.0 - 1.0, 0.0)
        return Effects([saved], [self._weights[place]], [active])

    def activations(self) -> Effects:
        """What options add to the activations; also to the peak while loading."""
        return Effects(self._zero, self._activations, self._changes)

    def ram(self) -> Effects:
        """What options add to the host memory, beside the weights that lie there."""
        return Effects(self._zero, self._ram, self._changes)

    def seconds(self) -> Effects:
        """What options add to a call's seconds."""
        return Effects(self._zero, self._seconds, self._changes)

    def losses(self, power: float) -> Effects:
        """Logarithms of what options lose alone, which combine as a p-norm with this p."""
        return Effects(self._log_losses, self._losses, self._damages, power)
