"""A study that several processes measure together, in any Optuna storage.

The storage is a ledger: a trial is a claim on a candidate while it runs, and a record when it has
ended. Everything is stored as JSON text. What to measure next is decided by each process for
itself, from what is in the ledger.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel, ConfigDict, ValidationError

from autoquant.errors import InputError, StudyDiffers
from autoquant.planner.budget import Budget
from autoquant.planner.candidate import Candidate
from autoquant.planner.identity import Identity
from autoquant.planner.measurement_store import ComparedRecord, Record
from autoquant.planner.request import Preparation, Request
from autoquant.planner.search_settings import SearchSettings
from autoquant.planner.workload import Workload

_TERMS = "autoquant.terms"
_CANDIDATE = "candidate"
_CLAIM = "claim"
_BEAT = "beat"
_RECORD = "record"
_ABANDONED = "abandoned"
# A candidate that took its worker with it this many times, machine and all, is a failed one.
_MOST_LOSSES = 2

_logger = logging.getLogger(__name__)


class Terms(BaseModel):
    """What everyone who measures for a study must agree on.

    Attributes:
        identity: Model, workload, metric and versions.
        request: What was asked for.
        budget: The limits.
        trials: Most candidates to measure, by all together.
        preparation: What was known before the search, the device among it.
    """

    model_config = ConfigDict(frozen=True)

    identity: Identity
    request: Request
    budget: Budget
    trials: int
    seed: int
    stop_early: bool = True
    preparation: Preparation

    @property
    def settings(self) -> SearchSettings:
        """How much to spend."""
        return SearchSettings(trials=self.trials, seed=self.seed, stop_early=self.stop_early)

    def differences(self, identity: Identity, preparation: Preparation) -> list[str]:
        """What keeps measurements made there and here from being compared.

        The machine around an accelerator may be another one; the device itself may not.
        """
        return [
            *(
                text
                for text in self.identity.differences(identity)
                if not text.startswith("device ")
            ),
            *_differences("device", self.preparation.device, preparation.device),
            *(
                f"metric {then} there, {now} here"
                for then, now in [(_metric(self.preparation), _metric(preparation))]
                if then != now
            ),
        ]


class SharedStudy:
    """One process's view of the ledger; it is also the ``Others`` of a search.

    Args:
        storage: Where the ledger is.
        name: The study's name in it.
        heartbeat_s: Seconds between two signs of life of a worker.
        grace_s: Seconds without one after which a worker counts as dead, by our own clock.

    Raises:
        InputError: The storage holds no such study, or one that is not of autoquant.
    """

    def __init__(
        self, storage: BaseStorage, name: str, heartbeat_s: float = 10.0, grace_s: float = 60.0
    ) -> None:
        try:
            self._study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            raise InputError(f"The storage holds no study {name!r}.") from error
        self.name = name
        self._heartbeat_s = heartbeat_s
        self._grace_s = grace_s
        self._beats: dict[int, tuple[object, float]] = {}
        self._mine: set[str] = set()
        self._known: dict[int, Record] = {}

    @classmethod
    def create(cls, storage: BaseStorage, name: str, terms: Terms, **pace: float) -> SharedStudy:
        """Open the study ``name`` for ``terms``, making it if there is none.

        Raises:
            StudyDiffers: There is one of another model, workload, metric, device or versions.
        """
        with contextlib.suppress(DuplicatedStudyError):
            optuna.create_study(study_name=name, storage=storage, direction="minimize")
        shared = cls(storage, name, **pace)
        if shared._study.user_attrs.get(_TERMS) is not None:
            shared.require_same(terms.identity, terms.preparation)
            # The device measured the reference once for all.
            terms = terms.model_copy(update={"preparation": shared.terms.preparation})
        shared._study.set_user_attr(_TERMS, terms.model_dump_json())
        return shared

    @property
    def terms(self) -> Terms:
        """What everyone agrees on.

        Raises:
            InputError: The study is not one of autoquant, or of another version of it.
        """
        try:
            return Terms.model_validate_json(self._study.user_attrs[_TERMS])
        except (KeyError, ValidationError) as error:
            raise InputError(
                f"The study {self.name!r} was not made by this version of autoquant."
            ) from error

    def require_same(self, identity: Identity, preparation: Preparation) -> None:
        """Refuse measurements that cannot be compared with the study's.

        Raises:
            StudyDiffers: The message names each difference.
        """
        differences = self.terms.differences(identity, preparation)
        if differences:
            raise StudyDiffers(
                f"The study {self.name!r} is measured with something else: "
                f"{'; '.join(differences)}. Its measurements and ours cannot be mixed."
            )

    def record(self, candidate: Candidate) -> Record | None:
        """What became of a candidate, if someone has finished it."""
        return self._records().get(candidate.key)

    def claim(self, candidate: Candidate) -> int | None:
        """Claim a candidate; returns the trial's number, or ``None`` if it is someone else's."""
        claim = uuid.uuid4().hex
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                user_attrs={_CANDIDATE: candidate.model_dump_json(), _CLAIM: claim, _BEAT: 0},
            )
        )
        trials = self._trials()
        mine = next(trial for trial in trials if trial.user_attrs.get(_CLAIM) == claim)
        # Of several claims at one moment the first in the storage's own order holds.
        earlier = [trial for trial in trials if trial.number < mine.number and _stands(trial)]
        if any(trial.user_attrs[_CANDIDATE] == mine.user_attrs[_CANDIDATE] for trial in earlier):
            self._study.tell(mine.number, state=TrialState.FAIL)
            return None
        self._mine.add(claim)
        return mine.number

    @contextmanager
    def beating(self, number: int) -> Iterator[None]:
        """Show signs of life for a claimed trial while its candidate is measured."""
        stop = threading.Event()
        beats = threading.Thread(target=self._beat, args=(number, stop), daemon=True)
        beats.start()
        try:
            yield
        finally:
            stop.set()
            beats.join()

    def finish(self, number: int | None, record: Record) -> None:
        """Put a record into the ledger: under its claim, or without one."""
        text = record.model_dump_json()
        loss = None if record.answer is None else record.answer.measured.loss
        state = TrialState.FAIL if loss is None else TrialState.COMPLETE
        if number is not None:
            try:
                self._study._storage.set_trial_user_attr(self._id_of(number), _RECORD, text)
                self._study.tell(number, loss, state=state)
                return
            except (UpdateFinishedTrialError, ValueError):
                # Somebody took us for dead; what was measured is true all the same.
                _logger.warning("Trial %d was given up by others while it was measured.", number)
        self._study.add_trial(
            create_trial(
                state=state,
                value=loss,
                user_attrs={_CANDIDATE: record.candidate.model_dump_json(), _RECORD: text},
            )
        )

    def release(self, number: int) -> None:
        """Give a claim back, for others to measure."""
        with contextlib.suppress(ValueError):
            self._study.tell(number, state=TrialState.FAIL)

    def comparison(
        self, candidate: Candidate, workload: Workload, timed: bool = True
    ) -> ComparedRecord | None:
        """How a candidate did on a workload, if someone has drawn it; timed does in any case."""
        wanted = ComparedRecord(candidate=candidate, workload=workload, timed=timed)
        text = self._study.user_attrs.get(_comparison_key(wanted))
        if text is None:
            return None if timed else self.comparison(candidate, workload)
        try:
            return ComparedRecord.model_validate_json(text)
        except ValidationError:
            _logger.warning("The study holds a damaged comparison of %s.", candidate.label)
            return None

    def keep_comparison(self, record: ComparedRecord) -> None:
        """Let everybody know how a candidate did on a workload."""
        self._study.set_user_attr(_comparison_key(record), record.model_dump_json())

    def finished(self) -> Collection[Candidate]:
        """See ``Others``."""
        return [record.candidate for record in self._records().values()]

    def under_way(self) -> Collection[Candidate]:
        """See ``Others``."""
        return [
            _candidate(trial)
            for trial in self._trials()
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(_CLAIM) not in self._mine
        ]

    def abandoned(self) -> Collection[Candidate]:
        """See ``Others``."""
        trials = self._trials()
        records = self._records()
        losses = Counter(
            trial.user_attrs[_CANDIDATE] for trial in trials if trial.user_attrs.get(_ABANDONED)
        )
        given_up = []
        for trial in trials:
            if not (self._is_dead(trial) and self._give_up(trial)):
                continue
            candidate = _candidate(trial)
            if candidate.key in records:
                continue
            if losses[trial.user_attrs[_CANDIDATE]] + 1 >= _MOST_LOSSES:
                reason = f"its worker was lost {_MOST_LOSSES} times"
                self.finish(None, Record(candidate=candidate, failure=reason))
            else:
                given_up.append(candidate)
        return given_up

    def wait(self) -> None:
        """See ``Others``."""
        time.sleep(min(1.0, self._heartbeat_s))

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether a running trial's beat has stood still for the grace period, as we saw it."""
        if trial.state != TrialState.RUNNING or trial.user_attrs.get(_CLAIM) in self._mine:
            return False
        beat, now = trial.user_attrs.get(_BEAT), time.monotonic()
        known = self._beats.get(trial.number)
        if known is None or known[0] != beat:
            self._beats[trial.number] = beat, now
            return False
        return now - known[1] > self._grace_s

    def _give_up(self, trial: FrozenTrial) -> bool:
        """Fail a dead worker's trial; returns whether it was we who did."""
        try:
            self._study._storage.set_trial_user_attr(trial._trial_id, _ABANDONED, True)
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def _beat(self, number: int, stop: threading.Event) -> None:
        trial_id, beat = self._id_of(number), 0
        while not stop.wait(self._heartbeat_s):
            beat += 1
            try:
                self._study._storage.set_trial_user_attr(trial_id, _BEAT, beat)
            except UpdateFinishedTrialError:
                return
            # A storage that cannot be reached for a while is no reason to stop measuring; the
            # drivers' errors have no common root.
            except Exception as error:  # noqa: BLE001
                _logger.warning("No sign of life could be stored: %s", error)

    def _id_of(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(
            self._study._study_id, number
        )

    def _trials(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if _CANDIDATE in trial.user_attrs]

    def _records(self) -> dict[str, Record]:
        for trial in self._trials():
            text = trial.user_attrs.get(_RECORD)
            if text is None or trial.number in self._known or not trial.state.is_finished():
                continue
            try:
                self._known[trial.number] = Record.model_validate_json(text)
            except ValidationError:
                _logger.warning("Trial %d holds a damaged record.", trial.number)
        return {record.candidate.key: record for record in self._known.values()}


def _stands(trial: FrozenTrial) -> bool:
    """Whether a trial is a claim or a record, and not given up."""
    return trial.state == TrialState.RUNNING or _RECORD in trial.user_attrs


def _candidate(trial: FrozenTrial) -> Candidate:
    return Candidate.model_validate_json(trial.user_attrs[_CANDIDATE])


def _comparison_key(record: ComparedRecord) -> str:
    return " ".join(("comparison", *record.question))


def _differences(what: str, there: BaseModel, here: BaseModel) -> Iterator[str]:
    then, now = there.model_dump(), here.model_dump()
    for name in then:
        if then[name] != now[name]:
            yield f"{what} {name} {then[name]} there, {now[name]} here"


def _metric(preparation: Preparation) -> str:
    measured = preparation.reference.measured
    return f"{measured.metric} {measured.metric_identity}".strip()
