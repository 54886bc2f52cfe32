"""The whole system in one thread, stepped by a seed and struck by faults; then brought to rest without any.

A step lets users publish or one service tick. Who is next, how much it reads, which records arrive and how much time
passes follow from the seed and the step alone, so leaving one fault out moves nothing but what that fault caused.
"""

import shutil
import traceback
from collections import Counter

from headrace.infra import create_topics, reset
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import TopicSpec
from headrace.infra.continuity import TopicRecreated
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.runtime import FoldRunner
from headrace.infra.worker import StepFailed
from tests.simulation import pipeline_source as rain
from tests.simulation.chance import Chance
from tests.simulation.fates import Fates
from tests.simulation.faults import SERVICES, has_anchor, is_life
from tests.simulation.log import Log
from tests.simulation.process import KEY, Killed, Process, settings_of
from tests.simulation.script import NIGHT_MS, START_MS
from tests.simulation.users import Users

REST_ROUNDS = 400


class Plant:
    """The system of one seed; `run` lets the schedule happen. `violations` are what must never be seen on the way."""

    def __init__(self, home, seed, partitions, faults):
        self.home, self.partitions, self.is_life = home, partitions, is_life(seed)
        self.kind = rain.ANCHORED if has_anchor(seed) else rain.LIFE if self.is_life else ""
        self.chance = chance = Chance(seed)
        self.commit_s, self.steps = chance.commit_s, len(chance.order)
        self.step = 0
        self.now_ms = START_MS
        self.at_rest = self.is_settling = False
        self.bus = MemoryBus(clock=lambda: self.now_ms, choose=self._arrive)
        self.artifacts = Artifacts(str(home / "artifacts"), KEY)
        self.struck, self.violations = Counter(), []
        self.fates = Fates(self, faults)
        self.live = self.fates.live
        self.erased, self._durable, self._group_at = [], {}, {}
        self.users = Users(self, seed)
        create_topics.create(self.bus)
        policies = rain.pipeline_and_definition(1, self.kind)[0].policies()
        create_topics.create_pipeline(self.bus, rain.NAME, partitions, policies)
        self.users.release()
        for service in SERVICES:
            self.fates.start(service, "a")
        if chance.starts_calmly:
            self.at_rest = True
            self._settle()
            self.at_rest = False

    def _arrive(self, waiting):
        """How many of the records that wait for a partition reach it now."""
        if self.at_rest or not waiting:
            return waiting
        if any(process.awaits("flush") for process in self.live):
            return 0  # who is to die before a flush has something to lose
        return 0 if self.chance.below(100) < self.chance.stalls else self.chance.below(waiting + 1)

    def batch(self, limit):
        """How many records a poll may take."""
        return limit if self.at_rest else 1 + self.chance.below(12)

    # --- the steps ----------------------------------------------------------------------------------------

    def run(self):
        """Let everything happen, then come to rest. Returns self."""
        while self.step < self.steps:
            if not self.erased and self.step >= (self.chance.recreates_at or self.steps):
                self._recreate()
            self.go_on()
        self.at_rest = True
        while self.users.publish():
            pass
        self.fates.heal()
        self._settle()
        self.now_ms += NIGHT_MS
        self.users.tick()
        self._settle()
        return self

    def go_on(self):
        """One step; who stands still is left out."""
        actor = self.chance.order[self.step]
        self.step += 1
        self.chance.enter(self.step)
        self.now_ms += 50 + self.chance.below(700)
        self.fates.unfold(self.step)
        if actor == "users":
            for _ in range(1 + self.chance.below(3)):
                self.users.publish()
        else:
            for process in [p for p in self.live if p.service == actor and not p.frozen]:
                self._tick(process)

    def _tick(self, process):
        """One turn of a process. Returns how much it did; whatever ends it unexpectedly is a violation."""
        try:
            return process.tick() if process in self.live else 0
        except Killed:
            self.fates.bury(process)
        except Exception as error:
            if isinstance(error, StepFailed) and process.service == "trainer" and self.struck["trainer", "stumble"]:
                self.struck["trainer", "ended"] += 1  # it stumbled while it folded again: no example is at fault
            else:
                self.wrong(f"{process.service} {process.instance} ended:\n{traceback.format_exc()}")
            self.fates.bury(process)
            self.fates.start_later(5, process)
        return 1

    def _recreate(self):
        """An operator stops the system, makes `data-arrived` anew, resets what refuses that, releases, goes on."""
        self.at_rest = True
        self.fates.heal()
        self._settle()
        holder = next(p for p in self.live if p.service == "validator" and p.parts[0].workers)
        for process in list(self.live):
            process.stop()
            process.end_sessions()
        self.live.clear()
        self.erased.append((self.bus.topic_id(rain.ARRIVED), Log(self.bus, rain.ARRIVED).all))
        spec = TopicSpec(rain.ARRIVED, self.partitions, self.bus.topic_config(rain.ARRIVED))
        self.bus.delete_topic(rain.ARRIVED)
        self.bus.create_topics([spec])
        refusing = Process(self, "validator", holder.instance)
        try:
            refusing.tick()
            self.wrong("the validator goes on with a topic that was made anew")
        except TopicRecreated:
            self.struck["validator", "refusal"] += 1
        refusing.die()
        refusing.end_sessions()
        for home in self.home.glob("state/*/validator"):
            settings = settings_of(self, home.parent.name)
            reset.forget(settings, home, reset.again(settings, home, self.bus))
        for home in self.home.glob("backups/*/validator"):
            shutil.rmtree(home)
        for service in SERVICES:
            self.fates.start(service, "a")
        self.users.release()
        self.at_rest = False

    def _settle(self):
        self.is_settling = True
        self._tick_to_rest()
        self.is_settling = False

    def _tick_to_rest(self):
        idle = 0
        for _ in range(REST_ROUNDS):
            self.now_ms += 10_000
            done = sum([self._tick(process) for process in list(self.live)])
            self.fates.start_all()
            idle = 0 if done else idle + 1
            if idle == 2:
                return
        self.wrong("the system does not come to rest")

    def runners(self):
        """The folds at work."""
        return [part for process in self.live for part in process.parts if isinstance(part, FoldRunner)]

    # --- what is watched ----------------------------------------------------------------------------------

    def is_durable(self, group, place, offset):
        """A state was committed."""
        key = group, place, self.bus.topic_id(place[0])
        self._durable[key] = max(offset, self._durable.get(key, 0))

    def sample(self, consumer, places):
        """A group's offsets never pass what some state holds, and never go back."""
        for place, offset in consumer.committed(places).items():
            key = consumer.group, place, self.bus.topic_id(place[0])
            held, before = self._durable.get(key, 0), self._group_at.get(key, 0)
            self._group_at[key] = offset
            if not before <= offset <= held:
                self.wrong(f"{consumer.group} went from {before} to {offset} of {place}, its state stands at {held}")

    def wrong(self, what):
        """Note what must never be."""
        self.violations.append(what)
