"""Measure for a study that is shared, and share one."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoquant.errors import InputError, StudyDiffers
from autoquant.planner.budget import Budget
from autoquant.planner.cache import cached_measurements, known_hashes
from autoquant.planner.evaluator import Recorder
from autoquant.planner.events import logged
from autoquant.planner.footprint.searched import bound_for
from autoquant.planner.identity import Identity, identify
from autoquant.planner.layer_study import layer_study
from autoquant.planner.measurement_store import Record
from autoquant.planner.measuring_process import WORKER
from autoquant.planner.optuna_storage import open_storage
from autoquant.planner.parameters import unquantized
from autoquant.planner.progress import OnProgress, Progress, silent
from autoquant.planner.request import Preparation, Request
from autoquant.planner.search import search
from autoquant.planner.search_result import SearchResult
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.shared_evaluator import SharedEvaluator
from autoquant.planner.shared_study import SharedStudy, Terms
from autoquant.planner.starting import start_measuring
from autoquant.planner.stored_evaluator import StoredEvaluator
from autoquant.planner.study_directory import STUDY, StudyDirectory


@dataclass(frozen=True)
class Sharing:
    """Where a study is shared.

    Attributes:
        storage: URL of an Optuna storage.
        study: The study's name there.
        heartbeat_s: Seconds between two signs of life.
        grace_s: Seconds without one after which a worker counts as dead.
    """

    storage: str
    study: str
    heartbeat_s: float = 10.0
    grace_s: float = 60.0

    @property
    def pace(self) -> dict[str, float]:
        """How ``SharedStudy`` takes the heartbeats."""
        return {"heartbeat_s": self.heartbeat_s, "grace_s": self.grace_s}


def share(
    sharing: Sharing,
    identity: Identity | None,
    request: Request,
    budget: Budget,
    settings: SearchSettings,
    preparation: Preparation,
) -> SharedStudy:
    """Open a shared study, making it if there is none.

    Raises:
        StudyDiffers: There is one of something else.
        InputError: The pipeline is an object in memory, or the storage cannot be used.
    """
    if identity is None:
        raise InputError("A pipeline in memory cannot be shared; pass a directory or a hub id.")
    source = preparation.source
    terms = Terms(
        identity=identity,
        # Whoever joins decides for themselves whether to run a pipeline's code.
        request=request.model_copy(
            update={
                "pipeline": source.location,
                "revision": source.revision,
                "space_file": None,
                "device": None,
                "trust_remote_code": False,
            }
        ),
        budget=budget,
        trials=settings.trials,
        seed=settings.seed,
        stop_early=settings.stop_early,
        preparation=preparation,
    )
    shared = SharedStudy.create(open_storage(sharing.storage), sharing.study, terms, **sharing.pace)
    preparation = shared.terms.preparation
    reference = unquantized(preparation.space, preparation.runtime)
    if shared.record(reference) is None:
        shared.finish(None, Record(candidate=reference, answer=preparation.reference))
    return shared


def join(
    sharing: Sharing,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    cache: bool = True,
    on_progress: OnProgress = silent,
    worker: str = WORKER,
) -> SearchResult:
    """Measure candidates of a shared study until it has its trials.

    Raises:
        StudyDiffers: Model, workload, metric, device or versions differ from the study's.
        InputError: There is no such study, or its model cannot be found here.
    """
    shared = SharedStudy(open_storage(sharing.storage), sharing.study, **sharing.pace)
    terms = shared.terms
    request = terms.request.model_copy(
        update={"device": device, "trust_remote_code": trust_remote_code}
    )
    with ExitStack() as stack:
        identity = _identity(request, cache=cache)
        _require_same_before_measuring(shared, identity)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autoquant-")))
        study = stack.enter_context(StudyDirectory(root / STUDY, identity))
        on_progress(Progress("reference"))
        evaluator = StoredEvaluator(
            study.store,
            partial(start_measuring, request, study, stack, terms.budget.vram_gb, worker),
            cached_measurements(identity) if cache else None,
            preparation_key=identity.key(),
            vram_gb=terms.budget.vram_gb,
            on_event=study.events,
        )
        shared.require_same(identity, evaluator.preparation)
        bound, _ = bound_for(request.pipeline, evaluator.preparation)
        answering = SharedEvaluator(shared, evaluator)
        chance = random.SystemRandom()
        return search(
            Recorder(answering),
            terms.preparation.space,
            terms.budget,
            # Of two that propose at random, each proposes something else.
            replace(terms.settings, seed=chance.randrange(2**31)),
            terms.preparation.runtime,
            logged(on_progress, study.events),
            bound,
            layer_study(answering, terms.preparation, chance),
            shared,
        )


def _identity(request: Request, *, cache: bool) -> Identity:
    known = known_hashes(use_cache=cache)
    identity = identify(request, known)
    known.save()
    assert identity is not None
    return identity


def _require_same_before_measuring(shared: SharedStudy, identity: Identity) -> None:
    """Say at once what need not be measured to be told."""
    differences = [
        text
        for text in shared.terms.identity.differences(identity)
        if not text.startswith(("device ", "request "))
    ]
    if differences:
        raise StudyDiffers(
            f"The study {shared.name!r} is measured with something else: {'; '.join(differences)}."
        )
