"""The search as an Optuna study in a file, for optuna-dashboard and for Optuna's own plots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Trial, image_losses
from autoquant.planner.search_result import SearchResult
from autoquant.planner.selection import describe, excess, is_feasible
from autoquant.search_spaces.scheme import NONE, Choice

NAME = "optuna.log"
_MOST_NAMED = 3

Value = str | bool


def write_study(
    result: SearchResult, budget: Budget, class_name: str, metric: str, path: Path
) -> None:
    """Write every trial, in the order in which they were tried, as one study of a journal file.

    Parameters are named as in a plan (``transformer.scheme``, ``pipeline.offload``); the value is
    the loss; the excess over each limit is a constraint; other figures are user attributes. What
    was ruled out before it was loaded is pruned, and so is what was stopped early, with the loss of
    each image that was drawn.

    Args:
        result: The search.
        budget: Its limits.
        class_name: The pipeline's class.
        metric: The deciding metric.
        path: The file, replaced whole if it is there.
    """
    trials = [*result.trials, *result.pruned]
    parameters = [_parameters(trial.candidate) for trial in trials]
    distributions = _distributions(parameters)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(unfinished))),
            study_name=f"{class_name} within {describe(budget)}",
            direction="minimize",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([f"{metric} loss"])
        for trial, values in zip(trials, parameters, strict=True):
            study.add_trial(_as_optuna(trial, values, distributions, budget))
        for name, value in _summary(result, budget, class_name).items():
            study.set_user_attr(name, value)
    finally:
        optuna.logging.set_verbosity(verbosity)
    unfinished.replace(path)


def _summary(result: SearchResult, budget: Budget, class_name: str) -> dict[str, str]:
    """What optuna-dashboard shows beside its best trial, which it picks without the limits."""
    kept = [
        (trial.measured.loss, trial)
        for trial in result.trials
        if trial.measured is not None
        and trial.measured.is_whole
        and is_feasible(trial.measured, budget)
    ]
    best = min(kept, key=lambda entry: (entry[0], entry[1].number), default=None)
    return {
        "pipeline": class_name,
        "budget": describe(budget),
        "least loss within the budget": best[1].candidate.label if best else "nothing",
    }


def _parameters(candidate: Candidate) -> dict[str, Value]:
    parameters: dict[str, Value] = {}
    for name, choice in candidate.components.items():
        parameters[f"{name}.scheme"] = choice.scheme
        parameters[f"{name}.fuse_qkv"] = choice.fuse_qkv
        if choice.scheme != NONE:
            parameters[f"{name}.exclusions"] = _paths(choice.exclusions)
            parameters[f"{name}.overrides"] = _overrides(choice)
    for lever in Runtime.model_fields:
        parameters[f"pipeline.{lever}"] = getattr(candidate.runtime, lever)
    return parameters


def _overrides(choice: Choice) -> str:
    return "; ".join(f"{it.scheme}: {_paths(it.layers)}" for it in choice.overrides) or "none"


def _paths(paths: Sequence[str]) -> str:
    named = ", ".join(paths[:_MOST_NAMED]) or "none"
    more = len(paths) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _distributions(
    parameters: Sequence[Mapping[str, Value]],
) -> dict[str, CategoricalDistribution]:
    """What was tried of each parameter, in the order of the trials; what never varied has none."""
    tried: dict[str, dict[Value, None]] = {}
    for each in parameters:
        for name, value in each.items():
            tried.setdefault(name, {})[value] = None
    return {
        name: CategoricalDistribution(tuple(values))
        for name, values in tried.items()
        if len(values) > 1
    }


def _as_optuna(
    trial: Trial,
    parameters: Mapping[str, Value],
    distributions: Mapping[str, CategoricalDistribution],
    budget: Budget,
) -> FrozenTrial:
    varied = {name: value for name, value in parameters.items() if name in distributions}
    asked: dict[str, Any] = {
        "params": varied,
        "distributions": {name: distributions[name] for name in varied},
    }
    label = {"candidate": trial.candidate.label}
    measured = trial.measured
    if measured is None and trial.bound_gb is not None:
        ruled_out = label | {"peak_gb is at least": trial.bound_gb}
        return create_trial(state=TrialState.PRUNED, user_attrs=ruled_out, **asked)
    if measured is None:
        failed = label | {"failure": trial.failure or ""}
        return create_trial(state=TrialState.FAIL, user_attrs=failed, **asked)
    missed = excess(measured, budget)
    figures = {
        "peak_gb": measured.peak_gb,
        "weights_gb": measured.weights_gb,
        "load_peak_gb": measured.load_peak_gb,
        "latency_s": measured.latency_s.median,
        **{name: score.mean for name, score in measured.fidelity.items()},
    }
    ended: dict[str, Any] = {"value": measured.loss}
    if not measured.is_whole:
        figures["loss of all images, estimated"] = measured.loss
        label |= {"stopped": measured.stopped}
        ended = {
            "state": TrialState.PRUNED,
            "intermediate_values": dict(enumerate(image_losses(measured))),
        }
    return create_trial(
        **ended,
        user_attrs=label | figures,
        constraints=missed,
        # Where optuna-dashboard 0.21 looks for them.
        system_attrs={"constraints": list(missed.values())},
        **asked,
    )
