"""A stack of services under a stream of rows while it is killed and frozen at random, and what must hold afterwards."""

import contextlib
import json
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter

import rain
from aftermath import beyond_state
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from headrace.infra import processes
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
    """Looks at the broker all the time: when each output grew, whether a group's offset ever went back, or beyond the
    state that its fold had committed.
    """

    def __init__(self, stack):
        self.grew = {name: [] for name in OUTPUT}
        self.went_back, self.beyond, self.stopped, self.looks = [], [], threading.Event(), 0
        self._stack, self._ends, self._groups = stack, {}, {}
        self._admin, self._asked = stack.admin(), None
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
                self._asked = self._asked or self._stack.groups()
                groups = self._stack.group_offsets(self._asked, *GROUPS)
            except Exception:  # the broker is away; a client that saw it go may have lost it for good
                with contextlib.suppress(Exception):
                    self._asked.close()
                self._admin, self._asked = self._stack.admin(), None
                continue
            self.looks += 1
            now = time.monotonic()
            for name, end in ends.items():
                if end > self._ends.get(name, end):
                    self.grew[name].append(now)
            self._ends = ends
            self.went_back += [key for key, offset in groups.items() if offset < self._groups.get(key, -1)]
            self._groups |= groups
            self.beyond += beyond_state(self._stack, groups)


class Chaos:
    """What is done to the stack, and when; every incident is drawn from one seed.

    `brokers` restarts its brokers; what that leaves to do it returns, as (seconds from now, what to do).
    """

    def __init__(self, stack, brokers, seed):
        self._stack, self._brokers, self._chance = stack, brokers, random.Random(seed)
        self.killed, self.when, self.incidents = Counter(), [], Counter()
        self._later = []

    def incident(self):
        """Something bad happens now."""
        kind = self._chance.choices(("one", "several", "twice", "freeze", "broker"), (80, 8, 8, 2, 2))[0]
        if kind in ("freeze", "broker") and not self.is_over():
            kind = "one"  # the last freeze is not over
        self.incidents[kind] += 1
        names = self._chance.sample(sorted(SERVICES), len(SERVICES))
        names.sort(key=lambda name: self.killed[name] > 0)  # first those that were not hit yet
        if kind == "freeze":
            self.freeze(names[0])
        elif kind == "broker":
            self.put_off(self._brokers.restart())
        else:
            for name in names[: 3 if kind == "several" else 1]:
                self.kill(name, alone=kind == "one")
            if kind == "twice":
                self.put_off([(0.15, lambda: self.kill(names[0]))])

    def kill(self, name, alone=False):
        if self._stack.kill(name):
            self.killed[name] += 1
            if alone:
                self.when.append((name, time.monotonic()))

    def freeze(self, name):
        """Longer than its session lasts."""
        pid = self._stack.pid(name)
        if pid and self._stack.kill(name, signal.SIGSTOP):
            self.put_off([(FREEZE_S, lambda: go_on(pid))])

    def put_off(self, acts):
        self._later += [(time.monotonic() + in_s, act) for in_s, act in acts]

    def due(self):
        """Do what was put off to now."""
        for at, act in list(self._later):
            if time.monotonic() >= at:
                self._later.remove((at, act))
                act()

    def is_over(self):
        return not self._later and self._brokers.is_whole()


def go_on(pid):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def stream(stack, chaos, certain, every_s=EVERY_S, stations=0):
    """Publish rows until KILLS services were killed and each of `certain` has happened; how many rows it were."""
    rows, began = 0, time.monotonic()
    next_incident, parts = began + 1, len(certain) + 1
    while chaos.killed.total() < KILLS or certain or not chaos.is_over():
        now = time.monotonic()
        while rows < (now - began) * ROWS_A_SECOND:
            rain.publish(stack, rows, stations)
            rows += 1
        stack.poll()
        chaos.due()
        if now >= next_incident:
            next_incident = now + every_s * (0.5 + random.Random(rows).random())
            is_due = certain and chaos.killed.total() * parts >= KILLS * (parts - len(certain))
            if is_due and chaos.is_over():
                chaos.put_off(certain.pop(0)() or [])
            elif chaos.killed.total() < KILLS:
                chaos.incident()
        time.sleep(0.002)  # the pace of the stream, not a wait for anything
    stack.flush()
    return rows


def groups_caught_up(stack):
    """Every group stands at the end of its topics, time that goes on aside."""
    groups, deadline = stack.groups(), time.monotonic() + 60
    while (behind := lag(stack, groups)) and time.monotonic() < deadline:
        pass  # each look asks the broker
    assert behind == {}, f"a group is not at the end of its topics; {stack.health()}"


def repeats_of(stack):
    """How many records of each output are repeats, which readers drop. Some there must be."""
    found = {name: stack.raw_count(name, "rain") - len(stack.records(name, "rain")) for name in OUTPUT.values()}
    assert sum(found.values()) > 0, "a run without repeats proves nothing"
    return found


def lag(stack, groups):
    """By how much each group is behind; only those that are."""
    found = {}
    for (group, topic, partition), offset in stack.group_offsets(groups, *GROUPS).items():
        behind = stack.bus.offsets((topic, partition))[1] - offset
        if behind > TICKS_AT_MOST:  # time goes on while we look
            found[group, topic] = behind
    return found


def report(rows, chaos, watch, repeats, stack, **more):
    recovered = [s for name, at in chaos.when if name in OUTPUT and (s := watch.recovery_s(name, at)) is not None]
    restarts = sum(int(state["restarts"]) for state in processes.states(stack.home).values())
    told = {
        "rows": rows, "kills": chaos.killed.total(), "restarts": restarts, "by_service": dict(chaos.killed),
        "incidents": dict(chaos.incidents), "repeats_dropped": repeats, "looks": watch.looks,
        "recovery_s": {
            "n": len(recovered), "p50": round(statistics.median(recovered), 2) if recovered else None,
            "p95": round(sorted(recovered)[int(len(recovered) * 0.95)], 2) if recovered else None,
        },
        **more,
    }  # fmt: skip
    print("\n" + json.dumps(told, indent=2))
