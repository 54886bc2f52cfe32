"""One pipeline's runs in lockstep: every labelled example goes through each of them, snapshots are taken in between.

A snapshot: (1) the bytes of every run are checked and stored, durably; (2) SnapshotTaken is produced; (3) the loop
flushes; (4) the runs' newest artifacts, sequences and offset are committed in one transaction; (5) the group's offset
follows. After a crash the runs go on from (4); what they tell again has the same source and sequence. A run joins the
others by such a snapshot, committed before anything else is learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from headrace.infra.artifacts import ArtifactForeignKey, ArtifactRefused
from headrace.infra.bus import Message, Place, Producer
from headrace.infra.follow import Pipelines
from headrace.infra.records import DeadLetter, Incoming
from headrace.infra.service import Wiring
from headrace.infra.store import StateForeign
from headrace.infra.worker import StepFailed
from headrace.schemas.control import SnapshotTaken
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Emit, Record
from headrace.schemas.topics import parse_name
from headrace.services.trainer import core, telling
from headrace.services.trainer.beginning import world_of
from headrace.services.trainer.control import Live
from headrace.services.trainer.outside import NEVER, Outside
from headrace.services.trainer.pace import Pace
from headrace.services.trainer.poison import MACHINE_TROUBLE, learn_again
from headrace.services.trainer.saved import Saved
from headrace.services.trainer.snapshots import Run, apart, back, counts_of, own_sequences, restore, stand, take
from headrace.services.trainer.telling import Voice
from headrace.services.trainer.thinning import Revision

FOLD = "trainer-core"


class Runs:
    """The worker of `<p>.labelled-examples` partition 0. Runs only while `follow` says which runs live."""

    def __init__(
        self,
        place: Place,
        producer: Producer,
        wiring: Wiring,
        releases: Callable[[], Pipelines],
        processes: Callable[[], int],
    ) -> None:
        """Opens the store; loads no model yet, its release may not be known. Raises StateRefused.

        `processes` counts the catch-ups of all pipelines.
        """
        self.place, self.world = place, cast(Any, None)
        _, self.pipeline = parse_name(place[0], wiring.namespace)
        self.dirty = self.misplaced = False
        self.runs: dict[str, Run] = {}
        self._wiring, self._producer, self._releases = wiring, producer, releases
        clock = wiring.timing.get("clock", time.monotonic)
        self._topic_id = wiring.bus.topic_id(place[0])
        self._voice = Voice(producer, wiring.namespace, self.pipeline)
        self._outgoing = self._voice.together(self._topic_id, place[1])
        self._saved = Saved(wiring.open_store(FOLD, place), self._topic_id, clock)
        self.offset = self._saved.offset  # for the group; never goes back, though a younger run may stand further back
        self.next_offset, self._joins = self._saved.next_offset, self._saved.joins
        if self._saved.is_new:
            self._joins = telling.joins_told(wiring.bus, wiring.namespace, self.pipeline, self._outgoing.source)
        self._incoming = self._listen(self._saved.sequences)
        self.outside = Outside(wiring, place, lambda: releases().releases, self._voice.say, processes)
        self._last: Record | None = None
        self._learned_since = False
        self._simulated = wiring.clock_ms is not None
        self._pace = Pace(clock, simulated=self._simulated)
        self.snapshots = 0

    def follow(self, live: Mapping[str, Live], ending: Collection[str]) -> int:
        """Let runs go that ended, resume or begin those that live; returns how many of all these.

        Beside runs that are about to end none begins: it would have to catch up to what is gone in a moment.
        """
        gone = self.runs.keys() - live.keys()
        for run in gone:
            del self.runs[run]
            self._joins += 1
        if gone:
            self._hear_each(self._seen())
        done = len(gone) + self.outside.keep(live) + self._resume(live)
        if self.runs and not self.runs.keys() - ending:
            return done
        known = {*self.runs, *self.outside.names, *ending}
        new = [one for name, one in live.items() if name not in known]
        for one in new:
            if one.started.parent is not None:
                self._saved.pin(one.started.parent)
            self.outside.approach(one, self.next_offset if self.runs else None)
        return done + len(new) + self.meet()

    def is_known(self, live: Collection[str]) -> bool:
        """Whether there is nothing to follow."""
        return {*self.runs, *self.outside.names} == set(live)

    def look_after(self) -> int:
        """Hear of the runs that catch up, and let those join that arrived; returns how much of both."""
        done = self.outside.look_after(self.next_offset if self.runs else None)
        return done + self.meet() if done else 0

    def meet(self) -> int:
        """Let every run join that stands where the others do; returns how many.

        Without others the runs that stand furthest back are the lockstep.
        """
        if self.outside.meeting == NEVER:
            return 0
        if not self.runs:
            end = self._wiring.bus.offsets(self.place, at_least=self.outside.meeting)[1]
            self.next_offset, self._last, self.misplaced = min(self.outside.meeting, end), None, True
        if self.outside.meeting > self.next_offset:
            return 0
        beside = bool(self.runs)
        arrived = self.outside.arrived(self.next_offset)
        own = self._seen()
        for one in arrived:
            self.runs[one.run] = Run(one.live, one.world, one.state)
            own[one.run] = one.sequences
            self._joins += 1
        self._hear_each(own)
        complete = {one.run for one in arrived if one.said_complete}
        if beside or complete or any(one.state.n_learned for one in arrived):
            self.snapshot(pinned=complete)
            self._producer.flush()
            self.commit()
        else:
            self._learned_since = False
        return len(arrived)

    def refresh_worlds(self) -> None:
        """A release was made: runs whose columns it has need no projection of its examples."""
        for run in self.runs.values():
            run.world = self._world(run.live)

    def start(self, committed: int | None) -> int:
        """Where to read from until it is known which runs live."""
        first, end = self._wiring.bus.offsets(self.place, at_least=self.next_offset)
        return min(max(self.next_offset, first), end)

    def _resume(self, live: Mapping[str, Live]) -> int:
        """Runs go on from the last commit; one whose artifact is gone is folded again from its start."""
        bases = {run: base for run, base in self._saved.bases.items() if run in live}
        self._saved.bases = {}
        for run, base in bases.items():
            try:
                state, history = restore(base, self._wiring.artifacts)
            except ArtifactForeignKey as refusal:
                raise StateForeign(str(refusal)) from refusal
            except ArtifactRefused:
                continue  # the log is the truth
            self.runs[run] = Run(live[run], self._world(live[run]), state, history, base)
            self.misplaced = True
        if bases:
            self._hear_each({name: run.base.sequences for name, run in self.runs.items() if run.base is not None})
        return len(self.runs) if bases else 0

    def _hear_each(self, own: Mapping[str, Mapping[str, int]]) -> None:
        """What is a repeat to all runs is dropped at once; a run that has seen more of a source drops more of it."""
        repeats = self._incoming.repeats
        self._incoming = self._listen(apart(own, self.runs))
        self._incoming.repeats = repeats

    def _seen(self) -> dict[str, dict[str, int]]:
        return {name: own_sequences(run, self._incoming.sequences) for name, run in self.runs.items()}

    def _world(self, live: Live) -> core.World:
        return world_of(live.started, self._releases().releases, self._wiring.artifacts)

    def handle(self, message: Message) -> None:
        """Let every run learn one message. Raises StepFailed where the machine, not the example, is at fault."""
        offset = message.offset()
        outside = self.outside
        if offset != self.next_offset or not (self.runs or outside.meeting != NEVER):
            self.misplaced = bool(self.runs)  # fetched before the place to read from was moved
            return
        if offset >= outside.meeting:
            self.meet()
        if outside.recent is not None:
            outside.recent.append(message)
        self.next_offset = offset + 1
        if not self.runs:
            return
        try:
            record = self._incoming.record(message)
        except DeadLetter as fault:
            self._outgoing.dead_letter(self.place[0], message, str(fault))
            return
        if record is None:
            return
        self._last = record
        complete: tuple[str, ...] = ()
        for name, run in self.runs.items():
            if run.ahead and run.has_seen(record):
                continue
            try:
                emits = core.step(run.state, record, run.world)
            except MACHINE_TROUBLE as error:
                raise self._stopped(record, error) from error
            except Exception:
                emits = self._learn_again(run, record)
            if emits:
                self._voice.say(run.live, telling.learned(record, emits))
                complete += (name,)
        if record.event.__class__ in core.LEARNED:
            self._learned_since = True
            if complete or self._pace.is_due():
                self.snapshot(pinned=complete)
        elif not self._learned_since:
            self._stand()

    def rest(self) -> int:
        """Take a snapshot that came due while nothing arrived; returns how many."""
        if not self._learned_since or not self.runs or not self._pace.is_due():
            return 0
        self.snapshot(pinned=())
        return 1

    def _learn_again(self, run: Run, record: Record) -> list[Emit]:
        """Fold the run once more up to here; what it cannot learn then either is told and skipped."""
        wiring, skipped = self._wiring, run.state.skipped
        try:
            restored = back(run, self._releases().releases, wiring.artifacts)
            again = learn_again(restored, skipped, record, run.world, self.place, wiring.bus, wiring.namespace)
        except Exception as error:
            raise self._stopped(record, error) from error
        run.state = again.state
        if again.why:
            self._voice.say(run.live, [telling.failed(run.live, again.why, record)])
        return again.emits

    def _stopped(self, record: Record, error: Exception) -> StepFailed:
        where, why = f"{self.place[0]} offset {record.offset}", f"{type(error).__name__}: {error}"
        return StepFailed(f"{FOLD} failed at {where}: {why}. Nothing of it is committed; a restart goes on there.")

    def snapshot(self, *, pinned: Collection[str]) -> None:
        """Store every run at this offset and announce it; the next commit makes it the place to go on from.

        `pinned` are kept for ever: gates judge them.
        """
        self._pace.begin()
        policies, wiring = self._releases().released[self.pipeline].definition.policies, self._wiring
        now_ms = self._now_ms()
        taken, bases = {}, {}
        for name, run in self.runs.items():
            own = own_sequences(run, self._incoming.sequences)
            taken[name], base = take(
                run,
                wiring.artifacts,
                policies,
                self.next_offset,
                own,
                pinned=name in pinned,
                judge_time=not self._simulated,
            )
            bases[name] = base
            self._saved.note(base.uri, Revision(name, self.next_offset, now_ms, name in pinned))
        first = next(iter(self.runs.values()))
        cause = self._last or telling.record_of(first.live)
        event = SnapshotTaken(pipeline=self.pipeline, offset=self.next_offset, runs=taken)
        emit = Emit("<p>.snapshots", event, self.pipeline.encode(), partition=0)
        sequence = self.next_offset * SEQUENCES_PER_OFFSET + self._joins % SEQUENCES_PER_OFFSET
        self._outgoing.send(emit, sequence, cause.known_ms, cause)
        self._saved.prepare(self.next_offset, dict(self._incoming.sequences), bases, self._joins)
        self.dirty, self._learned_since = True, False
        self.snapshots += 1
        self._pace.end(policies.rollout.refresh_s)

    def _stand(self) -> None:
        """Nothing was learned since the last snapshot: it is the place to go on from, from here on too."""
        bases = stand(self.runs, self.next_offset, self._incoming.sequences)
        if bases:
            self._saved.prepare(self.next_offset, dict(self._incoming.sequences), bases, self._joins)
            self.dirty = True

    def commit(self) -> None:
        """Make the last snapshot the place to go on from; its announcement is flushed already."""
        self._saved.commit()
        self.offset, self.dirty = self._saved.offset, False

    def thin(self, kept: Callable[[], Collection[str]]) -> None:
        """Delete superfluous revisions, now and then; `kept` gives those that stay."""
        self._saved.thin(self._wiring.artifacts, self._now_ms, kept)

    def finish(self) -> None:
        """At a clean stop: nothing learned is learned again."""
        if self.runs and self._learned_since:
            self.snapshot(pinned=())

    def close(self) -> None:
        """Let the state go, without a commit; runs that catch up begin again."""
        self.outside.close()
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
        return told | self.outside.counts() | counts_of(self.runs.values())

    def _now_ms(self) -> int:
        return self._wiring.clock_ms() if self._wiring.clock_ms is not None else int(time.time() * 1000)

    def _listen(self, sequences: Mapping[str, int]) -> Incoming:
        return Incoming(self.place[0], self._wiring.namespace, dict(sequences), core.DECODERS)
