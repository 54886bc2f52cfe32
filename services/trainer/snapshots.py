"""A run at an offset, made durable: the model's bytes as an artifact, the rest of the state beside its address."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from headrace import model_bytes
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.ranges import without
from headrace.schemas.control import QuickCheck, RunSnapshot
from headrace.schemas.policies import Policies
from headrace.schemas.record import Record
from headrace.services.trainer.beginning import Releases, begin
from headrace.services.trainer.control import Live
from headrace.services.trainer.core import RECENT, State, World
from headrace.services.trainer.poison import Restored
from headrace.services.trainer.quick_checks import History, quick_checks
from headrace.verbs import Answer, verbs


@dataclass(frozen=True, slots=True)
class Base:
    """The newest snapshot of a run: what it goes on from after a crash. `rest` is its state without the model."""

    uri: str
    offset: int
    sequences: dict[str, int]
    rest: bytes


@dataclass(slots=True)
class Run:
    """A run at work. `ahead` are the sources of which it has seen more than another run that learns beside it."""

    live: Live
    world: World
    state: State
    history: History = field(default_factory=History)
    base: Base | None = None
    unfit: int = 0
    ahead: dict[str, int] = field(default_factory=dict)

    def has_seen(self, record: Record) -> bool:
        """Whether a record is a repeat to this run, though not to every other."""
        if record.sequence <= self.ahead.get(record.source, -1):
            return True
        self.ahead.pop(record.source, None)
        return False


def apart(own: Mapping[str, Mapping[str, int]], runs: Mapping[str, Run]) -> dict[str, int]:
    """The sequences that every run has seen; what a run has seen beyond them goes into its `ahead`."""
    seen = list(own.values())
    common = {
        source: min(each[source] for each in seen)
        for source in (seen[0] if seen else ())
        if all(source in each for each in seen)
    }
    for name, each in own.items():
        runs[name].ahead = {source: n for source, n in each.items() if n > common.get(source, -1)}
    return common


def own_sequences(run: Run, common: Mapping[str, int]) -> dict[str, int]:
    """The largest sequence that a run has seen of each source."""
    return {**common, **{source: max(n, common.get(source, -1)) for source, n in run.ahead.items()}}


def take(
    run: Run,
    artifacts: Artifacts,
    policies: Policies,
    offset: int,
    sequences: Mapping[str, int],
    *,
    pinned: bool,
    judge_time: bool,
) -> tuple[RunSnapshot, Base]:
    """Check a run's model as it stands and store it. A pinned one gets its structural digest."""
    state, world, started = run.state, run.world, run.world.started
    if state.model is None:
        raise ValueError(f"run {started.run} has not begun")
    data = model_bytes.dumps(state.model)

    def load() -> Answer:
        return verbs(model_bytes.loads(data), world.label, world.has_probabilities)[0]

    gates = policies.gates
    checks: tuple[QuickCheck, ...] = ()
    if gates.quick == "on":
        checks = quick_checks(load, state.recent, run.history, gates.predict_ms, judge_time=judge_time)
    fit = all(check.passed for check in checks)
    run.unfit = 0 if fit else run.unfit + 1
    metrics = state.progress.metrics()
    manifest = Manifest(
        kind="model",
        pipeline=started.pipeline,
        release=started.release,
        run=started.run,
        recipe=started.recipe,
        seed=started.seed,
        parent=started.parent,
        learned=without(started.start_offset, offset, started.excluded),
        skipped=tuple(state.skipped),
        sequences=dict(sequences),
        offset=offset,
        n_learned=state.n_learned,
        structural_digest=model_bytes.digest(state.model) if pinned else None,
        metrics=metrics,
    )
    uri = artifacts.put(data, manifest)
    rest = model_bytes.dumps((replace(state, model=None, recent=deque(maxlen=RECENT)), run.history))
    run.base = Base(uri, offset, dict(sequences), rest)
    taken = RunSnapshot(
        uri=uri,
        digest=hashlib.sha256(data).hexdigest(),
        n_learned=state.n_learned,
        fit=fit,
        checks=checks,
        metrics=metrics,
    )
    return taken, run.base


def restore(base: Base, artifacts: Artifacts) -> tuple[State, History]:
    """The run's state at its newest snapshot. Raises ArtifactRefused."""
    data, _ = artifacts.get(base.uri)
    state, history = model_bytes.loads(base.rest)
    state.model = model_bytes.loads(data)
    return state, history


def back(run: Run, releases: Releases, artifacts: Artifacts) -> Restored:
    """A run as it was at its newest snapshot, else at its start. Raises ArtifactRefused."""
    if run.base is None:
        return begin(run.world, releases, artifacts)
    state, run.history = restore(run.base, artifacts)
    return Restored(state, run.base.offset, run.base.sequences)


def stand(runs: Mapping[str, Run], offset: int, common: Mapping[str, int]) -> dict[str, Base]:
    """Nothing was learned since the newest snapshots: the runs go on from them as from `offset`.

    Empty where a run has none.
    """
    bases = {}
    for name, run in runs.items():
        if run.base is None:
            return {}
        bases[name] = run.base = replace(run.base, offset=offset, sequences=own_sequences(run, common))
    return bases


def counts_of(runs: Collection[Run]) -> dict[str, int]:
    """What all runs together did not learn, and the most that one learned; nothing where there is none."""
    if not runs:
        return {}
    return {
        "learned": max(run.state.n_learned for run in runs),
        "skipped": sum(len(run.state.skipped) for run in runs),
        "unusable": sum(run.state.unusable for run in runs),
        "unfit_in_a_row": max(run.unfit for run in runs),
    }
