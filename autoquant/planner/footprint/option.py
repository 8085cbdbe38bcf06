"""The ways to run a pipeline that an estimate compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.footprint.family import denoiser_of, encoders_of
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.storage_formats import KNOWN_SCHEMES, storage_format
from autoquant.planner.footprint.weights import is_prequantized, quantized_parts
from autoquant.search_spaces.backends import backends
from autoquant.search_spaces.levers import Offload
from autoquant.search_spaces.scheme import NONE, Choice
from autoquant.search_spaces.sensitivity import generic


@dataclass(frozen=True)
class Arrangement:
    """What lies where.

    Attributes:
        offload: Where the weights wait, as in ``Runtime``.
        vae_tiling: Whether images are decoded one by one, in tiles.
    """

    offload: Offload = "none"
    vae_tiling: bool = False

    @property
    def label(self) -> str:
        """Words for a table; empty if everything is as usual."""
        mode = self.offload.replace("_", " ")
        words = [] if self.offload == "none" else [f"{mode} offload"]
        return " + ".join([*words, *(["VAE tiling"] if self.vae_tiling else [])])


# From the least intrusive to the most.
ARRANGEMENTS = (
    Arrangement(),
    Arrangement(vae_tiling=True),
    Arrangement("model"),
    Arrangement("model", vae_tiling=True),
    Arrangement("group_block_stream"),
    Arrangement("group_block_stream", vae_tiling=True),
    Arrangement("group_leaf"),
    Arrangement("group_leaf", vae_tiling=True),
    Arrangement("sequential", vae_tiling=True),
)


@dataclass(frozen=True)
class Option:
    """Choices by component, and the arrangement."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    arrangement: Arrangement = Arrangement()

    def choice(self, component: str) -> Choice:
        """The choice for one component."""
        return self.choices.get(component, Choice())

    def label(self, request: Request) -> str:
        """One line that a person can read."""
        runtime = Runtime.model_validate({"compute_dtype": request.compute_dtype})
        return Candidate(components=dict(self.choices), runtime=runtime).label


def schemes(asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """The schemes to compare: those asked for, or all that a search would try.

    Raises:
        InputError: One asked for is no scheme, or its storage is not known.
    """
    if asked:
        for scheme in asked:
            if scheme != NONE:
                storage_format(scheme)
        return tuple(scheme for scheme in asked if scheme != NONE)
    off = generic().off_by_default
    return tuple(
        f"{name}:{precision}"
        for name, backend in backends().items()
        for precision in backend.precisions
        if f"{name}:{precision}" not in off and _is_known(f"{name}:{precision}")
    )


def ladder(
    model: ModelShapes, request: Request, asked: Sequence[str] | None = None
) -> Iterator[dict[str, Choice]]:
    """Nothing quantized; then each scheme on the denoiser, and on the text encoders too."""
    yield {}
    denoiser = denoiser_of(model)
    main = [denoiser.name] if denoiser else []
    encoders = list(encoders_of(model))
    for scheme in schemes(asked):
        choice = Choice(scheme=scheme)
        able = [
            name
            for name in (*main, *encoders)
            if not is_prequantized(model.components[name])
            and quantized_parts(model.components[name], choice, request.compute_dtype)
        ]
        for names in dict.fromkeys((tuple(n for n in able if n in main), tuple(able))):
            if names:
                yield dict.fromkeys(names, choice)


def _is_known(scheme: str) -> bool:
    """Backends of other packages bring schemes whose storage is not known here."""
    return scheme in KNOWN_SCHEMES
