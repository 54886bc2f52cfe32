"""One pipeline's runs in lockstep: every labelled example goes through each of them, snapshots are taken in between.

A snapshot: (1) the bytes of every run are checked and stored, durably; (2) SnapshotTaken is produced; (3) the loop
flushes; (4) the runs' newest artifacts, sequences and offset are committed in one transaction; (5) the group's offset
follows. After a crash the runs go on from (4); what they tell again has the same source and sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from headrace.infra.artifacts import ArtifactForeignKey, ArtifactRefused
from headrace.infra.bus import Message, Place, Producer
from headrace.infra.follow import Pipelines
from headrace.infra.pipeline_files import load_stored
from headrace.infra.records import DeadLetter, Incoming, Outgoing, source_of
from headrace.infra.service import Wiring
from headrace.infra.store import StateForeign
from headrace.infra.worker import StepFailed
from headrace.schemas.control import SnapshotTaken, TrainingFailed
from headrace.schemas.policies import Policies
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.topics import parse_name
from headrace.services.trainer import core
from headrace.services.trainer.control import Live
from headrace.services.trainer.poison import MACHINE_TROUBLE, learn_again
from headrace.services.trainer.saved import Saved
from headrace.services.trainer.snapshots import Run, restore, take
from headrace.services.trainer.thinning import Revision
from headrace.verbs import same_columns, signature

FOLD = "trainer-core"
OUTPUTS = frozenset({"training-completed", "training-runs", "<p>.snapshots"})
SNAPSHOT_SHARE = 0.05  # of the learning thread's work
WAIT_SHARE = 0.2  # of its time, disk and a busy machine included: a slow fsync must not keep it from learning
THIN_S = 60.0


class Runs:
    """The worker of `<p>.labelled-examples` partition 0. Runs only while `follow` says which runs live."""

    def __init__(self, place: Place, producer: Producer, wiring: Wiring, releases: Callable[[], Pipelines]) -> None:
        """Opens the store; loads no model yet, its release may not be known. Raises StateRefused."""
        self.place, self.world = place, cast(Any, None)
        _, self.pipeline = parse_name(place[0], wiring.namespace)
        self.dirty = self.misplaced = False
        self.runs: dict[str, Run] = {}
        self.failed: set[str] = set()
        self._wiring, self._producer, self._releases = wiring, producer, releases
        self._clock = wiring.timing.get("clock", time.monotonic)
        self._topic_id = wiring.bus.topic_id(place[0])
        self._outgoing = self._speaks_as(source_of("trainer", self.pipeline, self._topic_id, place[1]))
        self._saved = Saved(wiring.open_store(FOLD, place), self._topic_id)
        self.offset = self._saved.offset  # for the group; never goes back, though a younger run may stand further back
        self.next_offset, self._joins = self._saved.next_offset, self._saved.joins
        self._incoming = self._listen(self._saved.sequences)
        self._last: Record | None = None
        self._learned_since = False
        self._due = self._thin_at = self._clock()
        self.snapshots = 0

    def follow(self, live: Mapping[str, Live]) -> int | None:
        """Let runs go that ended, begin or resume those that live; where to read on, if that changed.

        A run that starts elsewhere than the others stand waits until they have ended.
        """
        for run in self.runs.keys() - live.keys():
            del self.runs[run]
            self._joins += 1
        if self.runs:
            return None
        begun = self._resume(live) or self._begin(live)
        return self.next_offset if begun else None

    def refresh_worlds(self) -> None:
        """A release was made: runs whose columns it has need no projection of its examples."""
        for run in self.runs.values():
            run.world = self._world(run.live)

    def start(self, committed: int | None) -> int:
        """Where to read from until it is known which runs live."""
        first, end = self._wiring.bus.offsets(self.place)
        return min(max(self.next_offset, first), end)

    def _resume(self, live: Mapping[str, Live]) -> bool:
        bases = {run: base for run, base in self._saved.bases.items() if run in live}
        self._saved.bases = {}
        for run, base in bases.items():
            try:
                state, history = restore(base, self._wiring.artifacts)
            except ArtifactForeignKey as refusal:
                raise StateForeign(str(refusal)) from refusal
            except ArtifactRefused:
                self.runs.clear()
                return False  # the log is the truth: the runs are folded again from their start
            self.runs[run] = Run(live[run], self._world(live[run]), state, self._speaks(run), history, base)
        return bool(bases)

    def _begin(self, live: Mapping[str, Live]) -> bool:
        """The newest run, from its start; its beginning is told where it is to be judged without any label."""
        name, begins = next(((n, one) for n, one in reversed(list(live.items())) if n not in self.failed), ("", None))
        if begins is None:
            return False
        started = begins.started
        try:
            world = self._world(begins)
            run = Run(begins, world, core.begin(world), self._speaks(name))
        except MACHINE_TROUBLE:
            raise
        except Exception as error:  # the author's recipe
            self.failed.add(name)
            self._tell_failure(self._speaks(name), begins, f"it could not begin: {type(error).__name__}: {error}", None)
            return False
        self.runs[name] = run
        self._joins += 1
        self.next_offset, self._last = started.start_offset, None
        self._incoming = self._listen({})
        self._learned_since = False
        if started.end_at_labels == 0:
            emit = core.completed(run.state, started, started.start_offset)
            run.outgoing.send(emit, started.start_offset * SEQUENCES_PER_OFFSET, begins.known_ms, _record_of(begins))
            self.snapshot(pinned=True)
        return True

    def _world(self, live: Live) -> core.World:
        releases = self._releases().releases
        definition = releases[self.pipeline, live.started.release].definition
        columns = signature(definition.contract)
        alike = frozenset(
            number
            for (pipeline, number), known in releases.items()
            if pipeline == self.pipeline and same_columns(columns, known.definition.contract)
        )
        recipe = load_stored(self._wiring.artifacts, definition).recipe
        return core.World(live.started, recipe, definition.contract.label, definition.has_probabilities, columns, alike)

    def handle(self, message: Message) -> None:
        """Let every run learn one message. Raises StepFailed where the machine, not the example, is at fault."""
        offset = message.offset()
        if offset != self.next_offset or not self.runs:
            self.misplaced = bool(self.runs)  # fetched before the place to read from was moved
            return
        self.next_offset = offset + 1
        try:
            record = self._incoming.record(message)
        except DeadLetter as fault:
            self._outgoing.dead_letter(self.place[0], message, str(fault))
            return
        if record is None:
            return
        self._last = record
        is_complete = False
        for run in self.runs.values():
            try:
                emits = core.step(run.state, record, run.world)
            except MACHINE_TROUBLE as error:
                raise self._stopped(record, error) from error
            except Exception:
                emits = self._learn_again(run, record)
            if emits:
                self._publish(run, record, emits)
                is_complete = True
        if record.event.__class__ in core.LEARNED:
            self._learned_since = True
            if is_complete or self._clock() >= self._due:
                self.snapshot(pinned=is_complete)
        elif not self._learned_since:
            self._stand()

    def rest(self) -> int:
        """Take a snapshot that came due while nothing arrived; returns how many."""
        if not self._learned_since or not self.runs or self._clock() < self._due:
            return 0
        self.snapshot(pinned=False)
        return 1

    def _publish(self, run: Run, record: Record, emits: list[Emit]) -> None:
        sequence = record.offset * SEQUENCES_PER_OFFSET
        for number, emit in enumerate(emits, 1):  # 0 is the run's beginning
            run.outgoing.send(emit, sequence + number, record.known_ms, record)

    def _learn_again(self, run: Run, record: Record) -> list[Emit]:
        """Fold the run once more up to here; what it cannot learn then either is told and skipped."""
        wiring = self._wiring
        try:
            emits, why = learn_again(run, record, self.place, wiring.bus, wiring.namespace, wiring.artifacts)
        except Exception as error:
            raise self._stopped(record, error) from error
        if why:
            self._tell_failure(run.outgoing, run.live, why, record)
        return emits

    def _stopped(self, record: Record, error: Exception) -> StepFailed:
        where, why = f"{self.place[0]} offset {record.offset}", f"{type(error).__name__}: {error}"
        return StepFailed(f"{FOLD} failed at {where}: {why}. Nothing of it is committed; a restart goes on there.")

    def snapshot(self, *, pinned: bool) -> None:
        """Store every run at this offset and announce it; the next commit makes it the place to go on from."""
        began, worked = time.perf_counter(), time.thread_time()
        policies, wiring = self._policies(), self._wiring
        now_ms = self._now_ms()
        taken, bases = {}, {}
        for name, run in self.runs.items():
            taken[name], base = take(
                run, wiring.artifacts, policies, self.next_offset, self._incoming.sequences, pinned=pinned
            )
            bases[name] = base
            self._saved.revisions[base.uri] = Revision(name, self.next_offset, now_ms, pinned)
        first = next(iter(self.runs.values()))
        cause = self._last or _record_of(first.live)
        event = SnapshotTaken(pipeline=self.pipeline, offset=self.next_offset, runs=taken)
        emit = Emit("<p>.snapshots", event, self.pipeline.encode(), partition=0)
        sequence = self.next_offset * SEQUENCES_PER_OFFSET + self._joins % SEQUENCES_PER_OFFSET
        self._outgoing.send(emit, sequence, cause.known_ms, cause)
        self._saved.prepare(self.next_offset, dict(self._incoming.sequences), bases, self._joins)
        self.dirty, self._learned_since = True, False
        self.snapshots += 1
        wait_s = policies.rollout.refresh_s
        if wait_s > 0 and wiring.clock_ms is None:  # a simulated clock does not pass while this works
            work_s, took_s = time.thread_time() - worked, time.perf_counter() - began
            wait_s = max(wait_s, work_s / SNAPSHOT_SHARE, took_s / WAIT_SHARE)
        self._due = self._clock() + wait_s if wait_s > 0 else self._clock()

    def _stand(self) -> None:
        """Nothing was learned since the last snapshot: it is the place to go on from, from here on too."""
        bases = {name: run.base for name, run in self.runs.items() if run.base is not None}
        if len(bases) == len(self.runs):
            self._saved.prepare(self.next_offset, dict(self._incoming.sequences), bases, self._joins)
            self.dirty = True

    def commit(self) -> None:
        """Make the last snapshot the place to go on from; its announcement is flushed already."""
        self._saved.commit()
        self.offset, self.dirty = self._saved.offset, False

    def thin(self, kept: set[str]) -> None:
        """Delete superfluous revisions, at most once a minute; `kept` are named by aliases."""
        now = self._clock()
        if now >= self._thin_at:
            self._thin_at = now + THIN_S
            self._saved.thin(self._wiring.artifacts, self._now_ms(), kept)

    def finish(self) -> None:
        """At a clean stop: nothing learned is learned again."""
        if self.runs and self._learned_since:
            self.snapshot(pinned=False)

    def close(self) -> None:
        """Let the state go, without a commit."""
        self._saved.close()

    def counts(self) -> dict[str, int]:
        """Numbers for /metrics."""
        told = {
            "offset": self.next_offset,
            "snapshots": self.snapshots,
            "runs": len(self.runs),
            "revisions": len(self._saved.revisions),
            "repeats": self._incoming.repeats,
        }
        for run in self.runs.values():
            state = run.state
            told |= {
                "learned": state.n_learned,
                "skipped": len(state.skipped),
                "unusable": state.unusable,
                "unfit_in_a_row": run.unfit,
            }
        return told

    def _policies(self) -> Policies:
        return self._releases().released[self.pipeline].definition.policies

    def _now_ms(self) -> int:
        return self._wiring.clock_ms() if self._wiring.clock_ms is not None else int(time.time() * 1000)

    def _listen(self, sequences: Mapping[str, int]) -> Incoming:
        return Incoming(self.place[0], self._wiring.namespace, dict(sequences), core.DECODERS)

    def _speaks(self, run: str) -> Outgoing:
        return self._speaks_as(f"/trainer/{self.pipeline}/{run}")

    def _speaks_as(self, source: str) -> Outgoing:
        return Outgoing(self._producer, source, self._wiring.namespace, self.pipeline, OUTPUTS)

    def _tell_failure(self, outgoing: Outgoing, live: Live, why: str, record: Record | None) -> None:
        started = live.started
        failed = TrainingFailed(
            pipeline=self.pipeline,
            request=started.request,
            run=started.run,
            reason=why,
            offset=record.offset if record is not None else None,
        )
        cause = record if record is not None else _record_of(live)
        offset = record.offset if record is not None else started.start_offset
        emit = Emit("training-runs", failed, self.pipeline.encode(), partition=0)
        outgoing.send(emit, offset * SEQUENCES_PER_OFFSET + 1, cause.known_ms, cause)


def _record_of(live: Live) -> Record:
    """The RunStarted as it stands in `control-log`: what causes the beginning."""
    return Record(live.started, live.known_ms, "control-log", "", 0, live.offset)
