"""A run at an offset, made durable: the model's bytes as an artifact, the rest of the state beside its address."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace import model_bytes
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.records import Outgoing
from headrace.schemas.control import RunSnapshot
from headrace.schemas.policies import Policies
from headrace.services.trainer.control import Live
from headrace.services.trainer.core import RECENT, State, World
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
    """A run at work."""

    live: Live
    world: World
    state: State
    outgoing: Outgoing
    history: History = field(default_factory=History)
    base: Base | None = None
    unfit: int = 0


def take(
    run: Run, artifacts: Artifacts, policies: Policies, offset: int, sequences: Mapping[str, int], *, pinned: bool
) -> tuple[RunSnapshot, Base]:
    """Check a run's model as it stands and store it. A pinned one gets its structural digest."""
    state, world, started = run.state, run.world, run.world.started
    if state.model is None:
        raise ValueError(f"run {started.run} has not begun")
    data = model_bytes.dumps(state.model)

    def load() -> Answer:
        return verbs(model_bytes.loads(data), world.label, world.has_probabilities)[0]

    gates = policies.gates
    checks = quick_checks(load, state.recent, run.history, gates.predict_ms) if gates.quick == "on" else ()
    fit = all(check.passed for check in checks)
    run.unfit = 0 if fit else run.unfit + 1
    metrics = state.progress.metrics()
    manifest = Manifest(
        kind="model",
        pipeline=started.pipeline,
        release=started.release,
        run=started.run,
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


def without(start: int, end: int, excluded: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The range from `start` to `end` (exclusive) without its excluded parts."""
    ranges = []
    for first, after in sorted(excluded):
        if start < min(first, end):
            ranges.append((start, min(first, end)))
        start = max(start, after)
    return (*ranges, (start, end)) if start < end else tuple(ranges)
