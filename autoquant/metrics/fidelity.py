"""The metrics that compare images with the reference, and which of them can be had here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from types import MappingProxyType
from typing import cast

import numpy as np

from autoquant.errors import CandidateFailed, MetricUnavailable, first_line
from autoquant.metrics.images import Images, check_shape
from autoquant.metrics.metric import (
    DEFAULT_CLIP_MODEL,
    Metric,
    MetricFactory,
    MetricSettings,
)
from autoquant.metrics.score import (
    GUARDS,
    LOSS,
    PSNR_CAP_DB,
    MetricScore,
    loss_of,
    losses_of,
)
from autoquant.metrics.statistics import mean_interval

__all__ = [
    "AUTO",
    "GUARDS",
    "LOSS",
    "PSNR_CAP_DB",
    "Metric",
    "MetricScore",
    "MetricSettings",
    "available_metrics",
    "deciding_metric",
    "loss_of",
    "losses_of",
    "score",
]

AUTO = "auto"
ENTRY_POINTS = "autoquant.metrics"

_BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "lpips": "autoquant.metrics.lpips",
        "flip": "autoquant.metrics.flip",
        "ssim": "autoquant.metrics.ssim",
        "psnr": "autoquant.metrics.psnr",
        "clip": "autoquant.metrics.clip",
    }
)


def available_metrics(
    requested: Sequence[str] | None,
    image_size: tuple[int, int],
    allow_download: bool,
    clip_model: str = DEFAULT_CLIP_MODEL,
) -> tuple[dict[str, Metric], dict[str, str]]:
    """Make the metrics that can be had here.

    Other packages add a metric through the entry point group ``autoquant.metrics``: the name of a
    family and a ``MetricFactory``. Their metrics must be losses already (lower is better).

    Args:
        requested: Families (``clip``) or metrics (``clip_delta``); None is everything.
        image_size: Height and width in pixels.
        allow_download: Whether missing weights may be fetched.
        clip_model: Which CLIP model the ``clip`` family uses.

    Returns:
        The usable metrics by name, and for each family that cannot be had the reason.

    Raises:
        MetricUnavailable: A requested name is unknown.
    """
    settings = MetricSettings(image_size, allow_download, clip_model)
    factories = _factories()
    usable: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    for family in _families(requested, factories):
        try:
            metrics = factories[family]()(settings)
            for metric in metrics:
                _require_loss(metric)
                usable[metric.name] = metric
        except (MetricUnavailable, ImportError) as error:
            missing[family] = str(error)
    return usable, missing


def require_can_decide(requested: str) -> None:
    """Check a metric's name before anything is loaded; its weights may still be missing.

    Raises:
        MetricUnavailable: The metric is unknown, or is a guard and no loss.
    """
    known = [name for name in _factories() if name != "clip"]
    if requested in GUARDS or requested == "clip":
        raise MetricUnavailable(
            f"Metric {requested!r} reacts to damage only and cannot decide a study; it is reported "
            f"beside the deciding one. Choose one of: {', '.join([AUTO, *known])}."
        )
    if requested not in {AUTO, *known}:
        raise MetricUnavailable(_unknown(requested, [*known, AUTO]))


def deciding_metric(
    requested: str, usable: Mapping[str, Metric], missing: Mapping[str, str]
) -> str:
    """Name the metric that the study minimises.

    ``auto`` is LPIPS where it can be had, else FLIP. Another name is that metric or an error, never
    another metric.

    Raises:
        MetricUnavailable: The metric is unknown, cannot be had, or is a guard and no loss.
    """
    if requested == AUTO:
        requested = "lpips" if "lpips" in usable else "flip"
    else:
        require_can_decide(requested)
    if requested not in usable:
        reason = missing.get(requested, "it was not among the metrics that were made.")
        raise MetricUnavailable(f"Metric {requested!r} cannot be had: {reason}")
    return requested


def score(
    metric: Metric, reference: Images, candidate: Images, prompts: Sequence[str]
) -> MetricScore:
    """Compare the images of one candidate with the reference.

    Args:
        metric: What to compare with.
        reference: Images of the unquantized pipeline, shape (N, H, W, 3).
        candidate: Images of the same prompts and seeds, same shape.
        prompts: The N prompts.

    Raises:
        InputError: The shapes do not fit.
        CandidateFailed: The candidate's images have another size, the metric cannot take one of
            them, or a value is not finite.
    """
    check_shape(reference, len(prompts))
    check_shape(candidate, len(prompts))
    if candidate.shape != reference.shape:
        raise CandidateFailed(
            f"The images have the shape {candidate.shape}, the reference has {reference.shape}."
        )
    try:
        values = metric.per_image(_clipped(reference), _clipped(candidate), prompts)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # A metric may come from another package: what it cannot take is one failed candidate.
        raise CandidateFailed(
            f"Metric {metric.name!r} failed: {type(error).__name__}: {first_line(error)}"
        ) from error
    for index, value in enumerate(values):
        if not np.isfinite(value):
            raise CandidateFailed(
                f"Metric {metric.name!r} is {value} for prompt {index} ({prompts[index]!r})."
            )
    return summarized(values, lower_is_better=metric.lower_is_better)


def summarized(values: Sequence[float], *, lower_is_better: bool) -> MetricScore:
    """The scores of each image as one ``MetricScore``.

    Raises:
        InputError: There is none, or one is not finite.
    """
    mean, low, high = mean_interval(values)
    worst = max(values) if lower_is_better else min(values)
    return MetricScore(
        mean=mean,
        low=low,
        high=high,
        worst=worst,
        worst_index=values.index(worst),
        per_image=tuple(values),
    )


def _factories() -> dict[str, Callable[[], MetricFactory]]:
    """How to load each family's factory; nothing is imported yet."""
    factories: dict[str, Callable[[], MetricFactory]] = {
        family: partial(_built_in, module) for family, module in _BUILT_IN.items()
    }
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        if entry_point.name in factories:
            raise MetricUnavailable(
                f"Metric {entry_point.name!r} of {entry_point.value!r} has a name that is taken; "
                "uninstall that package or give its entry point another name."
            )
        factories[entry_point.name] = entry_point.load
    return factories


def _built_in(module: str) -> MetricFactory:
    return cast(MetricFactory, import_module(module).make)


def _clipped(images: Images) -> Images:
    return np.clip(images, 0, 1).astype(np.float32)


def _families(requested: Sequence[str] | None, factories: Iterable[str]) -> list[str]:
    known = list(factories)
    if requested is None:
        return known
    families = []
    for name in requested:
        family = "clip" if name in GUARDS else name
        if family not in known:
            raise MetricUnavailable(_unknown(name, known))
        families.append(family)
    return list(dict.fromkeys(families))


def _require_loss(metric: Metric) -> None:
    if not metric.lower_is_better and metric.name not in LOSS and metric.name not in GUARDS:
        raise MetricUnavailable(
            f"Metric {metric.name!r} is better when larger; a metric from another package must be "
            "a loss (0 is identical, lower is better)."
        )


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
    return f"Metric {name!r} is unknown; {hint or 'known: ' + ', '.join(sorted(known)) + '.'}"
