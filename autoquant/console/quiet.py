"""Keep the libraries' own logs off the screen, and pickles out of the process."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """Set up this process as the command line's own; to be called before torch is imported."""
    # torch.load then refuses to unpickle even where a library asks it to
    # (torch/serialization.py, TORCH_FORCE_WEIGHTS_ONLY_LOAD).
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("torch", "torchao", "bitsandbytes", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
