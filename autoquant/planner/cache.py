"""Where measurements are kept for other searches of the same model, on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from autoquant.planner.content import KnownHashes
from autoquant.planner.identity import Identity
from autoquant.planner.measurement_store import MeasurementStore

VARIABLE = "AUTOQUANT_CACHE"


def cache_directory() -> Path:
    """``$AUTOQUANT_CACHE``, else the user's cache directory."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("autoquant"))


def known_hashes(*, use_cache: bool = True) -> KnownHashes:
    """The hashes of local weight files that are known already."""
    return KnownHashes(cache_directory() / "hashes.json" if use_cache else None)


def cached_measurements(identity: Identity) -> MeasurementStore:
    """The measurements of one model, workload, metric, device and versions.

    What may be tried (backends, a space file) is no part of a measurement.
    """
    key = identity.key(without=("request",))
    return MeasurementStore(cache_directory() / "measurements" / key[:32])
