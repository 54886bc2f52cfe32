"""SIGTERM under load: every service ends in order and in time, and nothing of it is folded again."""

import json
import signal
import time
import urllib.request

import pytest
import rain

from headrace.infra import processes
from headrace.services import SERVICES

ROWS_A_SECOND, BURST = 300, 15_000
DERIVED = (
    "<p>.data-validated", "<p>.predictions", "<p>.labelled-examples", "<p>.snapshots", "<p>.data-rejected",
    "validation-results", "metrics", "model-validations", "training-requests", "training-runs", "training-completed",
    "model-updates", "pipelines", "control-log", "decisions", "lineage", "store-snapshots",
)  # fmt: skip


class Load:
    """Rows at a steady pace for as long as something is waited for; and many at once."""

    def __init__(self, stack):
        self.rows, self._stack, self._began, self._more = 0, stack, time.monotonic(), 0

    def until(self, condition, limit_s=60.0, says="the condition"):
        deadline = time.monotonic() + limit_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{says} did not come true within {limit_s:g} s"
            self.publish_due()
            time.sleep(0.005)  # the pace of the stream, not a wait for anything
        return value

    def publish_due(self):
        while self.rows < (time.monotonic() - self._began) * ROWS_A_SECOND + self._more:
            rain.publish(self._stack, self.rows)
            self.rows += 1
        self._stack.poll()

    def burst(self):
        """More than the services can fold before they are asked to stop."""
        self._more += BURST
        self.publish_due()
        self._stack.flush()


def state(stack, service):
    return processes.states(stack.home)[service]


def everything_is_there_once(stack, rows, until):
    """All rows joined in order, the model is River's, and no derived topic holds anything twice."""
    until(lambda: stack.raw_count("<p>.labelled-examples", "rain") >= rows, limit_s=180, says="as many records joined")
    rain.every_row_is_joined_once_and_learned(stack, rows, until)
    ends = {topic: stack.raw_count(topic, "rain") for topic in DERIVED}
    assert {topic: count for topic in DERIVED if (count := ends[topic] - len(stack.records(topic, "rain"))) > 0} == {}
    assert {name: found for name in SERVICES if (found := dropped(stack, name))} == {}


def dropped(stack, service):
    """How many records a service says it dropped as told before."""
    with urllib.request.urlopen(str(state(stack, service)["health"]), timeout=5) as answer:
        return [n for part in json.load(answer)["parts"] for n in _numbers(part, "repeats") if n]


def _numbers(told, name):
    if isinstance(told, dict):
        for key, value in told.items():
            if key == name and isinstance(value, int):
                yield value
            else:
                yield from _numbers(value, name)


@pytest.mark.kafka
def test_services_that_are_asked_to_stop_in_the_middle_of_work_end_with_0_in_time_and_nothing_is_folded_again(
    stack, until
):
    stack.release(rain.SOURCE, "rain")
    load = Load(stack)
    load.until(lambda: stack.raw_count("model-updates") > 0, says="a first model")
    took_s = {service: one_stops(stack, load, service) for service in SERVICES}
    for _ in range(2):
        all_stop(stack, load)
    stack.flush()
    print("\n" + json.dumps({"rows": load.rows, "stopped_after_s": took_s}))
    everything_is_there_once(stack, load.rows, until)


def one_stops(stack, load, service):
    """One service gets SIGTERM while the others work on; returns the seconds until it had ended."""
    load.until(lambda: state(stack, service)["ready"], says=f"{service} is ready")
    pid, began = stack.pid(service), time.monotonic()
    assert stack.kill(service, signal.SIGTERM)
    ended = load.until(
        lambda: (now := state(stack, service))["pid"] != pid and now,
        limit_s=processes.STOP_S,
        says=f"the end of {service}",
    )
    assert ended["exit_code"] == 0, (service, ended, stack.log(service))
    return round(time.monotonic() - began, 2)


def all_stop(stack, load):
    """`headrace down` in the middle of a burst, then `headrace up`."""
    load.until(lambda: not processes.wait_ready(stack.home, tuple(SERVICES), 0), says="all services are ready")
    load.burst()
    assert processes.down(stack.home)
    codes = {name: state(stack, name)["exit_code"] for name in SERVICES}
    assert set(codes.values()) == {0}, codes
    assert len(rain.joined(stack)) < load.rows, "nothing was left to do: that was no stop in the middle of work"
    processes.up(stack.home)
