"""One worker of each data fold, then three, then two, under load: each row is joined once and learned once, and the
rows of a key in their order.
"""

import json
import threading
import time
import urllib.request
from itertools import count

import pytest
import rain
from aftermath import out_of_order

from headrace.infra import processes

MOVED = ("validator", "predictor", "joiner")
ROWS_A_SECOND = 200


class Feed:
    """Publishes rows at a rate until it is ended, in a thread with a producer of its own."""

    def __init__(self, stack):
        self.rows = 0
        self._ended, self._stack = threading.Event(), stack
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        """How many rows were published, all of them acknowledged."""
        self._ended.set()
        self._thread.join(30)
        self._stack.flush()
        return self.rows

    def _run(self):
        began = time.monotonic()
        for number in count():
            while time.monotonic() < began + number / ROWS_A_SECOND:
                self._stack.poll()
                if self._ended.wait(0.002):
                    return
            rain.publish(self._stack, number, rain.STATIONS)
            self.rows = number + 1


@pytest.fixture
def further(stack, monkeypatch, tmp_path_factory):
    """Start one more instance of the moved services, on a disk of its own; returns its home."""
    homes = []

    def start(instance):
        home = tmp_path_factory.mktemp(instance)
        homes.append(home)
        monkeypatch.setenv("HEADRACE_HOME", str(home))
        monkeypatch.setenv("HEADRACE_INSTANCE", instance)
        monkeypatch.setenv("HEADRACE_ARTIFACT_URL", stack.settings.artifact_url)
        processes.up(home, MOVED)
        assert processes.wait_ready(home, MOVED, 60) == []
        return home

    yield start
    for home in homes:
        processes.down(home)


@pytest.mark.kafka
@pytest.mark.slow
def test_rows_are_joined_and_learned_once_while_workers_come_and_go(stack, further, until):
    stack.release(rain.BY_STATION, "rain", partitions=3)
    feed = Feed(stack)
    until(lambda: len(rain.joined(stack)) > 200, limit_s=60, says="rows joined by one worker")

    homes = [stack.home, further("two"), further("three")]
    until(lambda: shares(homes) == [[1, 1, 1]] * 3, limit_s=90, says="a partition of each fold for each of three")
    grows(stack, until, "rows joined by three workers")

    processes.down(homes.pop())
    until(lambda: sorted(map(sum, zip(*shares(homes), strict=True))) == [3, 3, 3], limit_s=90, says="two have all")
    grows(stack, until, "rows joined by two workers")

    rows = feed.end()
    rain.every_row_is_joined_once_in_some_order_and_learned(stack, rows, until)
    assert out_of_order(stack, "rain", rain.numbers(rows)) == []


def shares(homes):
    """How many partitions of data each worker folds: a list for each instance, in the order of MOVED."""
    return [[len(places(home, service)) for service in MOVED] for home in homes]


def places(home, service):
    """The partitions that a service's fold has, as /health says; none where it does not answer yet."""
    try:
        with urllib.request.urlopen(str(processes.states(home)[service]["health"]), timeout=2) as answer:
            return list(json.load(answer)["parts"][0])
    except (OSError, KeyError):
        return []


def grows(stack, until, what):
    """Wait for 300 rows more than there are."""
    before = len(rain.joined(stack))
    until(lambda: len(rain.joined(stack)) > before + 300, limit_s=60, says=what)
