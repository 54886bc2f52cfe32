"""Loads the arms: follows the aliases and the snapshots, and moves all arms of a pipeline at once, between records.

A snapshot is taken up where it holds every arm that follows its run, each fit to serve. What cannot be loaded leaves
the old arm serving; `counts` says so, and after a minute the new arm is an error in the predictions.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace import model_bytes
from headrace.infra.follow import Follower
from headrace.infra.pipeline_files import load_stored
from headrace.infra.service import Wiring
from headrace.schemas.control import AliasRemoved, ModelUpdated, PipelineReleased, SnapshotTaken
from headrace.schemas.policies import Policies
from headrace.schemas.stream import Features
from headrace.schemas.topics import full_name
from headrace.services.predictor.budget import Budget
from headrace.services.predictor.core import ANCHOR, CANARY, Arm, World
from headrace.verbs import same_columns, signature, verbs

TAIL = 200  # snapshots read at start: the newest one that is fit is among them, else the alias' own serves
RECENT = 20  # snapshots kept: one taken before an alias moved may still be the newest
POLL_S = 0.005  # asking the tables after each batch would cost a record 0.8 µs
LOAD_SHARE = 0.05  # of this thread's work; a model that loads slowly is refreshed less often
RETRY_S = 1.0
ERROR_AFTER_S = 60.0
NO_ARMS = World()


class Revision(NamedTuple):
    """One run's model at one offset."""

    run: str
    offset: int
    uri: str


class NotLoadable(RuntimeError):
    """What an arm raises whose model could not be loaded for a minute."""


@dataclass(slots=True)
class Table:
    """What is known of one pipeline, and what of it is loaded. `troubled_since` begins with a failed load.

    `budget` is what the arms that serve nobody may take; None in the in-process system, where runs must repeat.
    """

    aliases: dict[str, ModelUpdated] = field(default_factory=dict)
    snapshots: deque[SnapshotTaken] = field(default_factory=lambda: deque(maxlen=RECENT))
    releases: dict[int, PipelineReleased] = field(default_factory=dict)
    loaded: dict[str, Revision] = field(default_factory=dict)
    epoch: int = 0
    world: World = NO_ARMS
    changed: bool = False
    not_before: float = -math.inf  # a simulated clock may stand before 1970
    troubled_since: float | None = None
    trouble: str = ""
    budget: Budget | None = None


def wanted(
    aliases: Mapping[str, ModelUpdated], snapshots: Sequence[SnapshotTaken], loaded: Mapping[str, Revision]
) -> dict[str, Revision]:
    """The revision that each alias should answer with; those that follow their runs all come from one snapshot."""
    following = [update for update in aliases.values() if update.follows]
    joint = next((taken for taken in reversed(snapshots) if _holds(taken, following)), None)
    found = {}
    for alias, update in aliases.items():
        own = Revision(update.run, update.snapshot_offset, update.uri)
        now = loaded.get(alias)
        if not update.follows:
            found[alias] = own
        elif joint is not None:
            found[alias] = Revision(update.run, joint.offset, joint.runs[update.run].uri)
        elif now is not None and now.run == update.run and now.offset >= update.snapshot_offset:
            found[alias] = now
        else:
            found[alias] = own
    return found


def _holds(taken: SnapshotTaken, following: list[ModelUpdated]) -> bool:
    return all(
        update.run in taken.runs and taken.runs[update.run].fit and taken.offset >= update.snapshot_offset
        for update in following
    )


class Arms:
    """The arms of every pipeline. Reads its tables to their ends, and loads, before it returns from the constructor."""

    def __init__(
        self, wiring: Wiring, now: Callable[[], float] = time.perf_counter, cpu: Callable[[], float] = time.thread_time
    ) -> None:
        """Connects; raises BusError where the tables cannot be read. The clocks are for arms in shadow."""
        self._artifacts, self._namespace = wiring.artifacts, wiring.namespace
        self._simulated = wiring.clock_ms is not None
        self._clock = wiring.timing.get("clock", time.monotonic)
        self._now, self._cpu = now, cpu
        topics = [full_name(name, namespace=self._namespace) for name in ("pipelines", "model-updates")]
        self._control = Follower(wiring.bus, self._namespace, topics)
        self._snapshots = Follower(wiring.bus, self._namespace)
        self._tables: dict[str, Table] = {}
        self.loads = self.failures = 0
        self._poll_at = self._clock()
        self._take(self._control.read_to_end())
        self._take(self._snapshots.read_to_end())
        self._refresh()

    def world(self, pipeline: str) -> World:
        """The arms of a pipeline as they are now."""
        table = self._tables.get(pipeline)
        return table.world if table is not None else NO_ARMS

    def tick(self, timeout_s: float = 0.0) -> int:
        """Take in what the tables say, load what is newer; returns how much of both."""
        now = self._clock()
        if now < self._poll_at and not self._simulated:
            return 0
        self._poll_at = now + POLL_S
        return self._take(self._control.poll()) + self._take(self._snapshots.poll()) + self._refresh()

    def close(self) -> None:
        """Release the connections."""
        self._control.close()
        self._snapshots.close()

    def counts(self) -> dict[str, Any]:
        """Numbers for /metrics; for /health also what each alias answers with, and what could not be loaded."""
        told: dict[str, Any] = {"loads": {"done": self.loads, "failed": self.failures}}
        for name, table in self._tables.items():
            arms = {alias: f"{arm.version}@{arm.learned_to}" for alias, arm in table.world.arms.items()}
            shed = {} if table.budget is None else {"shed": table.budget.shed}
            told[name] = arms | shed | ({"trouble": table.trouble} if table.trouble else {})
        return told

    def _take(self, records: list[Any]) -> int:
        for record in records:
            event = record.event
            table = self._tables.setdefault(event.pipeline, Table())
            if isinstance(event, PipelineReleased):
                table.releases[event.release] = event
                self._allow(table, event.definition.policies)
            elif isinstance(event, ModelUpdated):
                known = table.aliases.get(event.alias)
                if known is None or event.epoch > known.epoch:
                    table.aliases[event.alias] = event
                table.epoch = max(table.epoch, event.epoch)
                self._snapshots.add(full_name("<p>.snapshots", event.pipeline, self._namespace), last=TAIL)
            elif isinstance(event, AliasRemoved):
                known = table.aliases.get(event.alias)
                if known is not None and event.epoch >= known.epoch:
                    del table.aliases[event.alias]
                table.epoch = max(table.epoch, event.epoch)
            elif isinstance(event, SnapshotTaken) and all(event.offset >= s.offset for s in table.snapshots):
                table.snapshots.append(event)
            table.changed = True
        return len(records)

    def _allow(self, table: Table, policies: Policies) -> None:
        """Arms in shadow may take so much; what can be saved up is what a policy lets one answer take."""
        share, burst_s = policies.rollout.shadow_share, policies.gates.predict_ms / 1000
        if table.budget is not None:
            table.budget.share, table.budget.burst_s = share, burst_s
        elif not self._simulated:
            table.budget = Budget(share, burst_s, self._now, self._cpu)

    def _refresh(self) -> int:
        now = self._clock()
        return sum(
            self._load(table, now) for table in self._tables.values() if table.changed and now >= table.not_before
        )

    def _load(self, table: Table, now: float) -> int:
        """Load what is wanted and not there; then move all arms of the pipeline together, or none."""
        table.changed = False
        target = wanted(table.aliases, table.snapshots, table.loaded)
        if target == table.loaded and table.world.epoch == table.epoch and not table.trouble:
            return 0
        began = time.thread_time()
        try:
            arms = {alias: self._arm(table, alias, revision) for alias, revision in target.items()}
        except Exception as error:  # whatever the bytes or the author's code do, the old arms serve on
            self._failed(table, now, f"{type(error).__name__}: {error}")
            return 0
        table.world, table.loaded = self._world(table, arms), target
        table.trouble, table.troubled_since = "", None
        if not self._simulated:
            table.not_before = now + (time.thread_time() - began) / LOAD_SHARE
        self.loads += 1
        return 1

    def _arm(self, table: Table, alias: str, revision: Revision) -> Arm:
        update = table.aliases[alias]
        if table.loaded.get(alias) == revision and table.world.arms[alias].version == update.version:
            return table.world.arms[alias]
        definition = table.releases[update.release].definition
        load_stored(self._artifacts, definition)  # the classes that the author's file defines
        model = model_bytes.loads(self._artifacts.get(revision.uri)[0])
        columns = signature(definition.contract)
        answer, _ = verbs(model, definition.contract.label, definition.has_probabilities)
        alike = frozenset(
            number for number, known in table.releases.items() if same_columns(columns, known.definition.contract)
        )
        return Arm(update.version, update.run, revision.offset, columns, alike, answer)

    def _failed(self, table: Table, now: float, why: str) -> None:
        self.failures += 1
        table.trouble, table.changed, table.not_before = why, True, now + RETRY_S
        if table.troubled_since is None:
            table.troubled_since = now
        if now - table.troubled_since < ERROR_AFTER_S:
            return
        arms = dict(table.world.arms)
        for alias, update in table.aliases.items():
            if alias not in arms or arms[alias].run != update.run:
                arms[alias] = Arm(update.version, update.run, update.snapshot_offset, {}, frozenset(), _raising(why))
                table.loaded.pop(alias, None)
        table.world = self._world(table, arms)

    def _world(self, table: Table, arms: dict[str, Arm]) -> World:
        challenger, anchor = table.aliases.get(CANARY), table.aliases.get(ANCHOR)
        share = None if challenger is None else challenger.share
        sample = table.releases[anchor.release].definition.policies.rollout.anchor if anchor is not None else 0.0
        is_timed = share is not None and not self._simulated
        budget = table.budget if len(arms) > 1 else None
        if budget is not None:
            budget.retain(arm.run for arm in arms.values())
        return World(_in_order(arms), table.epoch, share, sample, _clock_us if is_timed else None, budget)


def _clock_us() -> int:
    return time.perf_counter_ns() // 1000


def _in_order(arms: dict[str, Arm]) -> dict[str, Arm]:
    """The champion first: it is served even where a later arm is slow."""
    return dict(sorted(arms.items(), key=lambda item: item[0] != "champion"))


def _raising(why: str) -> Any:
    def answer(features: Features) -> Any:
        raise NotLoadable(why)

    return answer
