"""The Optuna study in memory: told of every trial, asked where the search's own proposals end."""

from __future__ import annotations

import warnings

import optuna
from optuna.trial import TrialState

from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate, Runtime
from autoquant.planner.measurement import Trial, image_losses
from autoquant.planner.parameters import parameters_of, suggest
from autoquant.planner.selection import excess, objective_value
from autoquant.search_spaces.space import SearchSpace


class Sampler:
    """Gives the candidates that are queued, and then those of Optuna's sampler.

    Args:
        seed: Equal seeds give equal proposals.
        runtime: The reference's.
        budget: Its limits are the study's constraints.
    """

    def __init__(self, seed: int, runtime: Runtime, budget: Budget) -> None:
        self._study = new_study(seed)
        self._runtime = runtime
        self._budget = budget

    def enqueue(self, candidate: Candidate, space: SearchSpace, *, again: bool = False) -> None:
        """Queue a candidate, unless it was given before; ``again`` queues it in any case."""
        parameters = dict(parameters_of(candidate, space))
        self._study.enqueue_trial(parameters, skip_if_exists=not again)

    def ask(self, space: SearchSpace) -> tuple[optuna.Trial, Candidate]:
        """The next candidate, and the proposal to tell its outcome to."""
        proposal = self._study.ask()
        return proposal, suggest(proposal, space, self._runtime)

    def withdraw(self, proposal: optuna.Trial, state: TrialState) -> None:
        """Nothing was measured."""
        self._study.tell(proposal, state=state)

    def tell(self, proposal: optuna.Trial, trial: Trial) -> None:
        """What was measured, or why nothing was."""
        measured = trial.measured
        if trial.bound_gb is not None and self._budget.vram_gb is not None:
            proposal.set_constraint("vram_gb", trial.bound_gb - self._budget.vram_gb)
            self._study.tell(proposal, state=TrialState.PRUNED)
            return
        if measured is None:
            proposal.set_user_attr("failure", trial.failure)
            self._study.tell(proposal, state=TrialState.FAIL)
            return
        for name, missed in excess(measured, self._budget).items():
            proposal.set_constraint(name, missed)
        proposal.set_user_attr("peak_gb", measured.peak_gb)
        proposal.set_user_attr("latency_s", measured.latency_s.median)
        value = objective_value(measured, self._budget)
        if measured.is_whole:
            self._study.tell(proposal, value)
        else:
            proposal.report(value, step=len(image_losses(measured)))
            self._study.tell(proposal, state=TrialState.PRUNED)


def new_study(seed: int) -> optuna.Study:
    """An empty study that says nothing on the console; equal seeds give equal proposals."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="minimize", sampler=_sampler(seed))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # `group` keeps what is asked only of quantized components apart; it is marked experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, group=True)
