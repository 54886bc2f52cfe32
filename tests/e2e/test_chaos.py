"""Kills, freezes and broker outages at random on genuine Kafka: nothing lost, nothing learned twice.

`make chaos KILLS=1000` runs the same for longer and prints the report.
"""

import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter

import pytest
import rain
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from headrace.infra import local_broker, processes
from headrace.services import FOLDS, SERVICES

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "5"))
FREEZE_S = float(os.environ.get("CHAOS_FREEZE_S", "10"))
ROWS_A_SECOND, EVERY_S, TICKS_AT_MOST = 300, 0.5, 4
OUTPUT = {
    "validator": "<p>.data-validated",
    "predictor": "<p>.predictions",
    "joiner": "<p>.labelled-examples",
    "trainer": "<p>.snapshots",
}
GROUPS = sorted({fold.id for fold in FOLDS if fold.service != "scheduler"})


class Watch:
    """Looks at the broker all the time: when each output grew, and whether a group's offset ever went back."""

    def __init__(self, stack):
        self.grew = {name: [] for name in OUTPUT}
        self.went_back, self.stopped = [], threading.Event()
        self._stack, self._ends, self._groups = stack, {}, {}
        self._admin, self._asked = stack.admin(), stack.groups()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self):
        self.stopped.set()
        self._thread.join(20)

    def recovery_s(self, service, at):
        """Seconds from a kill to the service's next output, None where there was none."""
        return next((when - at for when in self.grew[service] if when > at + 0.05), None)

    def _run(self):
        places = {TopicPartition(self._stack.topic(topic, "rain"), 0): name for name, topic in OUTPUT.items()}
        while not self.stopped.wait(0.05):
            try:
                ends = {
                    name: self._admin.list_offsets({place: OffsetSpec.latest()})[place].result(2).offset
                    for place, name in places.items()
                }
                groups = self._stack.group_offsets(self._asked, *GROUPS)
            except Exception:  # the broker is away; a client that saw it go may have lost it for good
                self._admin = self._stack.admin()
                continue
            now = time.monotonic()
            for name, end in ends.items():
                if end > self._ends.get(name, end):
                    self.grew[name].append(now)
            self._ends = ends
            self.went_back += [key for key, offset in groups.items() if offset < self._groups.get(key, -1)]
            self._groups |= groups


class Chaos:
    """What is done to the stack, and when; every incident is drawn from one seed."""

    def __init__(self, stack, broker_home, seed):
        self._stack, self._home, self._chance = stack, broker_home, random.Random(seed)
        self.killed, self.when, self.incidents = Counter(), [], Counter()
        self._later = []

    def incident(self):
        """Something bad happens now."""
        kind = self._chance.choices(("one", "several", "twice", "freeze", "broker"), (80, 8, 8, 2, 2))[0]
        if self._later and kind in ("freeze", "broker"):
            kind = "one"  # the last freeze is not over
        self.incidents[kind] += 1
        names = self._chance.sample(sorted(SERVICES), 3)
        if kind == "freeze":
            self.freeze(names[0])
        elif kind == "broker":
            self.restart_broker()
        else:
            for name in names[: 3 if kind == "several" else 1]:
                self.kill(name, alone=kind == "one")
            if kind == "twice":
                self._later.append((time.monotonic() + 0.15, lambda: self.kill(names[0])))

    def kill(self, name, alone=False):
        if self._stack.kill(name):
            self.killed[name] += 1
            if alone:
                self.when.append((name, time.monotonic()))

    def freeze(self, name):
        """Longer than its session lasts."""
        pid = self._stack.pid(name)
        if pid and self._stack.kill(name, signal.SIGSTOP):
            self._later.append((time.monotonic() + FREEZE_S, lambda: _continue(pid)))

    def freeze_broker(self):
        pid = local_broker.running(self._home).pid
        os.kill(pid, signal.SIGSTOP)
        self._later.append((time.monotonic() + FREEZE_S, lambda: _continue(pid)))

    def restart_broker(self):
        broker = local_broker.running(self._home)
        os.kill(broker.pid, signal.SIGKILL)
        os.waitpid(broker.pid, 0)
        self._later.append((time.monotonic() + 1, lambda: local_broker.start(self._home, say=lambda text: None)))

    def due(self):
        """Do what was put off to now."""
        for at, act in list(self._later):
            if time.monotonic() >= at:
                self._later.remove((at, act))
                act()

    def is_over(self):
        return not self._later


def _continue(pid):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


@pytest.mark.kafka
def test_whatever_is_killed_or_frozen_nothing_is_lost_or_learned_twice(own_stack, own_broker, until):
    stack, chaos = own_stack, Chaos(own_stack, own_broker, SEED)
    stack.release(rain.SOURCE, "rain")
    watch = Watch(stack)
    certain = [
        lambda: chaos.freeze("joiner"),
        chaos.restart_broker,
        lambda: chaos.freeze("trainer"),
        chaos.freeze_broker,
    ]
    rows, began = 0, time.monotonic()
    next_incident = began + 1
    while chaos.killed.total() < KILLS or not chaos.is_over() or certain:
        now = time.monotonic()
        while rows < (now - began) * ROWS_A_SECOND:
            rain.publish(stack, rows)
            rows += 1
        stack.poll()
        chaos.due()
        if now >= next_incident:
            next_incident = now + EVERY_S * (0.5 + random.Random(rows).random())
            if certain and chaos.is_over() and chaos.killed.total() * 5 >= KILLS * (5 - len(certain)):
                certain.pop(0)()
            elif chaos.killed.total() < KILLS:
                chaos.incident()
        time.sleep(0.002)  # the pace of the stream, not a wait for anything
    stack.flush()

    rain.every_row_is_joined_once_and_learned(stack, rows, until)

    watch.stop()
    groups, deadline = stack.groups(), time.monotonic() + 60
    while (behind := lag(stack, groups)) and time.monotonic() < deadline:
        pass  # each look asks the broker
    assert behind == {}, f"a group is not at the end of its topics; {stack.health()}"
    assert watch.went_back == []
    repeats = {topic: stack.raw_count(topic, "rain") - len(stack.records(topic, "rain")) for topic in OUTPUT.values()}
    assert sum(repeats.values()) > 0, "a run without repeats proves nothing"
    report(rows, chaos, watch, repeats, stack)


def lag(stack, groups):
    """By how much each group is behind; only those that are."""
    found = {}
    for (group, topic, partition), offset in stack.group_offsets(groups, *GROUPS).items():
        behind = stack.bus.offsets((topic, partition))[1] - offset
        if behind > TICKS_AT_MOST:  # time goes on while we look
            found[group, topic] = behind
    return found


def report(rows, chaos, watch, repeats, stack):
    recovered = [s for name, at in chaos.when if name in OUTPUT and (s := watch.recovery_s(name, at)) is not None]
    restarts = sum(int(state["restarts"]) for state in processes.states(stack.home).values())
    told = {
        "rows": rows, "kills": chaos.killed.total(), "restarts": restarts, "by_service": dict(chaos.killed),
        "incidents": dict(chaos.incidents), "repeats_dropped": repeats,
        "recovery_s": {
            "n": len(recovered), "p50": round(statistics.median(recovered), 2) if recovered else None,
            "p95": round(sorted(recovered)[int(len(recovered) * 0.95)], 2) if recovered else None,
        },
    }  # fmt: skip
    print("\n" + json.dumps(told, indent=2))
