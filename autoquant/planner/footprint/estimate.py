"""Which options fit a budget, ranked: pure functions over predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autoquant.planner.budget import Budget
from autoquant.planner.footprint.bands import PEAK_BAND, RAM_BAND, Band
from autoquant.planner.footprint.denoiser import is_counted
from autoquant.planner.footprint.family import denoiser_of, is_known
from autoquant.planner.footprint.layers import eligible_layers
from autoquant.planner.footprint.option import ARRANGEMENTS, Option, ladder
from autoquant.planner.footprint.prediction import Prediction, Predictor
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import COMPUTE_BYTES, ComponentShapes, ModelShapes
from autoquant.planner.footprint.storage_formats import storage_format
from autoquant.planner.footprint.tape import Tape
from autoquant.planner.footprint.weights import (
    JOINT,
    is_prequantized,
    quantized_parts,
    scheme_of,
)
from autoquant.planner.measurement import GIB
from autoquant.search_spaces.scheme import Choice

Verdict = Literal["fits", "fits with offload", "does not fit"]


@dataclass(frozen=True)
class Row:
    """One option with its verdict.

    Attributes:
        bits: Mean nominal bits of a weight, over all components: how close to the original.
        certain: Whether the verdict holds over the whole error band.
        nearest: Where it does not fit, the option that does and gives up least.
    """

    option: Option
    prediction: Prediction
    bits: float
    verdict: Verdict
    certain: bool
    nearest: Option | None = None


@dataclass(frozen=True)
class Estimate:
    """All options of one pipeline for one request, the best that fits first."""

    model: ModelShapes
    request: Request
    budget: Budget
    rows: tuple[Row, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before believing the numbers."""
        notes = list(self.model.notes)
        if self.model.class_name and not is_known(self.model.class_name):
            notes.append(
                f"{self.model.class_name} is not known: prompt lengths and guidance are assumed, "
                "and activations may be further off than the band says."
            )
        denoiser = denoiser_of(self.model)
        if denoiser is not None and not is_counted(denoiser):
            notes.append(
                f"Nobody has traced {denoiser.class_name}: the most of any denoiser is assumed."
            )
        prequantized = [
            name for name, part in self.model.components.items() if is_prequantized(part)
        ]
        if prequantized:
            notes.append(f"Quantized in the checkpoint already: {', '.join(prequantized)}.")
        return tuple(notes)

    @property
    def fits(self) -> bool:
        """Whether anything fits."""
        return any(row.verdict != "does not fit" for row in self.rows)


def estimate(
    model: ModelShapes,
    request: Request,
    budget: Budget,
    asked: Sequence[str] | None = None,
    traced: Mapping[str, list[Tape]] | None = None,
) -> Estimate:
    """Predict every option and rank them.

    Options that fit come first, those without offload before those with it, then by how many bits
    of each weight they keep. How an option looks is not predicted: bits stand in for it.

    Args:
        model: Its shapes.
        request: The pipeline call.
        budget: ``vram_gb`` and, if stated, ``ram_gb``.
        asked: Schemes to compare; None compares all that a search would try.
        traced: What each stage allocates, if that was traced.

    Raises:
        InputError: A scheme asked for is none.
        BackendUnavailable: The storage of a scheme asked for is not known.
    """
    predictor = Predictor(model, request, traced)
    rows = [
        _row(model, request, budget, predictor, choices)
        for choices in ladder(model, request, asked)
    ]
    ranked = sorted(rows, key=_rank)
    return Estimate(model, request, budget, tuple(_with_nearest(row, ranked) for row in ranked))


def _row(
    model: ModelShapes,
    request: Request,
    budget: Budget,
    predictor: Predictor,
    choices: dict[str, Choice],
) -> Row:
    """The least intrusive arrangement that fits, or the one that misses the budget least."""
    nearest: tuple[Option, Prediction] | None = None
    for arrangement in ARRANGEMENTS:
        option = Option(choices, arrangement)
        found = option, predictor.predict(option)
        if nearest is None or excess_bytes(found[1], budget) < excess_bytes(nearest[1], budget):
            nearest = found
        if excess_bytes(found[1], budget) <= 0:
            break
    assert nearest is not None
    option, prediction = nearest
    missed = excess_bytes(prediction, budget)
    verdict: Verdict = "does not fit"
    if missed <= 0:
        verdict = "fits" if option.arrangement.offload == "none" else "fits with offload"
    low, high = (excess_bytes(prediction, budget, at=end) for end in ("low", "high"))
    return Row(
        option=option,
        prediction=prediction,
        bits=mean_bits(model, choices, request),
        verdict=verdict,
        certain=(low <= 0) == (high <= 0),
    )


def excess_bytes(prediction: Prediction, budget: Budget, at: str = "middle") -> float:
    """By how many bytes the budget is missed; 0 or less means that it is kept.

    Args:
        prediction: What is needed.
        budget: ``vram_gb`` and ``ram_gb``; a limit that is not stated is kept.
        at: ``low``, ``middle`` or ``high`` end of the error bands.
    """
    needs: list[tuple[float | None, Band, int]] = [
        (budget.vram_gb, PEAK_BAND, prediction.peak.reserved),
        (budget.ram_gb, RAM_BAND, prediction.peak_ram_bytes),
    ]
    return max(
        (band.at(at, n_bytes) - limit * GIB for limit, band, n_bytes in needs if limit is not None),
        default=0.0,
    )


def mean_bits(model: ModelShapes, choices: dict[str, Choice], request: Request) -> float:
    """Nominal bits of a weight, averaged over every stored number of every component."""
    bits = numbers = 0.0
    for name, component in model.components.items():
        elements = sum(tensor.elements for tensor in component.tensors.values())
        numbers += elements
        bits += elements * 8 * COMPUTE_BYTES[request.compute_dtype]
        choice = choices.get(name, Choice())
        bits -= _bits_given_up(component, choice, request)
    return bits / numbers if numbers else 0.0


def _bits_given_up(component: ComponentShapes, choice: Choice, request: Request) -> float:
    layers = eligible_layers(component)
    full = 8 * COMPUTE_BYTES[request.compute_dtype]
    return sum(
        (full - storage_format(scheme_of(path, choice)).bits) * layers[part].elements
        for path in quantized_parts(component, choice, request.compute_dtype)
        for part in path.split(JOINT)
    )


_ORDER = {"fits": 0, "fits with offload": 1, "does not fit": 2}


def _rank(row: Row) -> tuple[float, float, float, float]:
    if row.verdict == "does not fit":
        return (2, row.prediction.peak.reserved, 0, 0)
    intrusive = ARRANGEMENTS.index(row.option.arrangement)
    return (_ORDER[row.verdict], -row.bits, intrusive, row.prediction.peak.reserved)


def _with_nearest(row: Row, ranked: Sequence[Row]) -> Row:
    if row.verdict != "does not fit":
        return row
    fitting = [other for other in ranked if other.verdict != "does not fit"]
    if not fitting:
        return row
    nearest = max(fitting, key=lambda other: (other.bits, -_rank(other)[0]))
    return Row(row.option, row.prediction, row.bits, row.verdict, row.certain, nearest.option)
