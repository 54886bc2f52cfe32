"""The real code, broken on purpose in one place: each a rule taken away, of delivery (DESIGN.md, section 4) or of what
models do.
"""

import dataclasses
from contextlib import contextmanager
from unittest.mock import patch
from weakref import WeakKeyDictionary

from headrace.infra import worker as workers
from headrace.infra.follow import Pipelines
from headrace.infra.memory_log import MemoryTopic
from headrace.infra.records import Incoming, Outgoing
from headrace.infra.runtime import FoldRunner
from headrace.infra.worker import Worker
from headrace.schemas.codec import header
from headrace.services.evaluator import judge
from headrace.services.evaluator.ripening import Ripening
from headrace.services.orchestrator import core as orchestrator
from headrace.services.predictor import arms
from headrace.services.predictor import core as predictor
from headrace.services.registry import barring
from headrace.services.registry import core as registry
from headrace.services.registry.anchor import name_of
from headrace.services.trainer import core as trainer
from headrace.services.trainer import runs
from headrace.services.validator import core as validator

MUTANTS = {}


def mutant(make):
    """Name a mutant by its function, which gives what to patch with what."""

    @contextmanager
    def broken():
        owner, name, replacement = make()
        with patch.object(owner, name, replacement):
            yield

    MUTANTS[make.__name__] = broken
    return make


@mutant
def commit_before_flush():
    def commit(self):
        self._next_commit = self._clock() + self._commit_s
        self._uncommitted = 0
        dirty = [worker for worker in self.workers.values() if worker.dirty]
        for worker in dirty:
            worker.commit()
        if dirty:
            self._producer.flush()
        self._consumer.commit({worker.place: worker.offset for worker in self.workers.values()})

    return FoldRunner, "commit", commit


@mutant
def no_drop_by_sequence():
    real = Incoming.record

    def record(self, message):
        self.sequences.clear()
        return real(self, message)

    return Incoming, "record", record


@mutant
def one_number_for_a_source_wherever_it_is_read():
    real, numbers = Worker.__init__, WeakKeyDictionary()

    def init(self, *args, **more):
        real(self, *args, **more)
        shared = numbers.setdefault(more["producer"], {})  # all partitions of a process
        for source, number in self._incoming.sequences.items():
            shared[source] = max(number, shared.get(source, -1))
        self._incoming.sequences = shared

    return Worker, "__init__", init


@mutant
def drop_by_id_alone():
    real = Incoming.record

    def record(self, message):
        id_ = header(message.headers(), "ce_id", 1)
        if id_ in self.sequences and not self._by_offset:
            self.repeats += 1
            return None
        before = dict(self.sequences)
        self.sequences.clear()
        try:
            return real(self, message)
        finally:
            self.sequences.clear()
            self.sequences.update(before | {id_: 0})

    return Incoming, "record", record


@mutant
def sequence_is_the_offset_without_an_index():
    real = Outgoing.publish

    def publish(self, record, emits):
        for emit in emits:
            real(self, record, [emit])

    return Outgoing, "publish", publish


@mutant
def catch_up_speaks_aloud():
    real = Worker.start

    def start(self, committed):
        starts_at = real(self, committed)
        self.loud_from = 0
        return starts_at

    return Worker, "start", start


@mutant
def group_offset_runs_ahead_of_the_state():
    real = FoldRunner.tick

    def tick(self, timeout_s=0.0):
        done = real(self, timeout_s)
        self._consumer.commit({worker.place: worker.offset for worker in self.workers.values()})
        return done

    return FoldRunner, "tick", tick


@mutant
def source_without_the_topics_id():
    return workers, "source_of", lambda service, pipeline, id_, number: f"/{service}/{pipeline or '-'}/-/{number}"


@mutant
def predictor_writes_nothing_when_a_model_raises():
    real = predictor.step

    def step(state, record, world):
        emits = real(state, record, world)
        raised = [arm for emit in emits for arm in getattr(emit.event, "predictions", {}).values() if arm.error]
        return [] if raised else emits

    return predictor, "step", step


@mutant
def append_time_of_derived_topics_is_the_clock():
    real = MemoryTopic.__post_init__

    def stamped(self):
        real(self)
        self.stamps = True

    return MemoryTopic, "__post_init__", stamped


@mutant
def a_definition_is_taken_up_at_restart():
    real = Worker.__init__

    def init(self, fold, core, place, **more):
        real(self, fold, core, place, **more)
        if core is validator and self.offset:
            pipelines = Pipelines(more["bus"])
            pipelines.poll()
            if (newest := pipelines.released[self.pipeline]).release > self.state.release:
                validator._take_up(self.state, newest)

    return Worker, "__init__", init


@mutant
def a_failed_learn_is_tried_again_on_what_it_left():
    def learn_again(run, record, *_):
        try:
            return trainer.step(run.state, record, run.world), ""
        except Exception as error:
            run.state.skipped.append(record.offset)
            return [], str(error)

    return runs, "learn_again", learn_again


@mutant
def rebuilt_from_a_horizon():
    real = Worker.start

    def start(self, committed):
        if self.offset == 0:
            self.offset = max(0, (committed or 0) - 8)
        return real(self, committed)

    return Worker, "start", start


@mutant
def goes_on_at_the_groups_offset_without_its_state():
    real = Worker.start

    def start(self, committed):
        self.offset = max(self.offset, committed or 0)
        return real(self, committed)

    return Worker, "start", start


@mutant
def sequences_are_forgotten_at_restart():
    real = Incoming.__init__

    def init(self, topic, namespace, sequences=None, decoders=None):
        real(self, topic, namespace, None, decoders)

    return Incoming, "__init__", init


@mutant
def evidence_is_taken_as_labels_come():
    real = Ripening.take

    def take(self, table):
        for lane in self.lanes.values():
            lane.pending_from = max(lane.pending_from, lane.top + 1)
        return real(self, table)

    return Ripening, "take", take


@mutant
def a_stale_verdict_is_applied():
    real = registry.judged

    def judged(found, event, known_ms):
        old, new = {"online": ("champion", "challenger"), "guard": ("previous", "champion")}.get(event.stage, ("", ""))
        if old in found.aliases and new in found.aliases:
            moved = {"against": found.aliases[old].run, "run": found.aliases[new].run, "epoch": found.epoch}
            event = event.model_copy(update=moved)
        return real(found, event, known_ms)

    return registry, "judged", judged


@mutant
def arms_move_one_after_the_other():
    real = arms.wanted

    def wanted(aliases, snapshots, loaded):
        target = real(aliases, snapshots, loaded)
        first = next((alias for alias in target if target[alias] != loaded.get(alias)), None)
        return {alias: one if alias == first else loaded.get(alias, one) for alias, one in target.items()}

    return arms, "wanted", wanted


@mutant
def a_refresh_verdict_is_applied_to_whatever_serves():
    real = registry.judged

    def judged(found, event, known_ms):
        if event.stage == "refresh" and {"anchor", "champion"} <= found.aliases.keys():
            moved = {"against": name_of(found.aliases["anchor"]), "run": found.aliases["champion"].run}
            event = event.model_copy(update=moved)
        return real(found, event, known_ms)

    return registry, "judged", judged


@mutant
def the_next_anchor_is_the_newest_revision():
    real = judge._next_anchor

    def next_anchor(job, *where):
        return real(dataclasses.replace(job, snapshot_offset=1 << 62), *where)

    return judge, "_next_anchor", next_anchor


@mutant
def the_fork_learns_what_made_the_revisions_worse():
    real = orchestrator.on_frozen

    def on_frozen(training, event, known_ms, unlearn_to):
        return real(training, event, known_ms, None if unlearn_to is None else 0)

    return orchestrator, "on_frozen", on_frozen


@mutant
def the_fork_learns_the_range():
    return trainer, "_is_left_out", lambda offset, excluded, skipped: offset in skipped


@mutant
def a_range_is_barred_for_the_champion_alone():
    return barring, "_freed", lambda found, alias, ranges: []
