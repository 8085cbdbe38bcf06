"""The Optuna study in memory that a search asks where its own proposals end."""

from __future__ import annotations

import warnings

import optuna


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
