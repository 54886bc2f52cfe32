"""A network that refuses, loses and delays requests between all services and a genuine broker: nothing is lost."""

import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from contextlib import closing

import pytest
import rain
from network import LATE, LOST, PRODUCE, REFUSED, UNANSWERED, Network, place_of

from headrace.infra import local_broker, processes

pytestmark = pytest.mark.kafka
SEED = int(os.environ.get("CHAOS_SEED", "5"))
ROWS = 100 * int(os.environ.get("CHAOS_KILLS", "20"))
ROWS_A_SECOND = 200
ONE_OF = {True: 25, False: 150}  # produce requests (each may cost a record), all others (of which there are far more)


class Faults:
    """What becomes of a service's requests, drawn from one seed; and of the publisher's."""

    def __init__(self, namespace):
        self._services, self._chance, self._lock = f"{namespace}headrace-", random.Random(SEED), threading.Lock()
        self.seen, self.is_on = Counter(), False

    def __call__(self, request):
        produces = request.api == PRODUCE
        if not self.is_on or not (produces or request.client.startswith(self._services)):
            return None
        with self._lock:
            if self._chance.randrange(ONE_OF[produces]):
                return None
            fault = self._chance.choice([REFUSED, LOST, UNANSWERED, LATE] if produces else [LOST, UNANSWERED, LATE])
            if fault == REFUSED and place_of(request) is None:
                return None
            self.seen["produce" if produces else "other", fault] += 1
            return fault


@pytest.fixture
def stack_behind(stack_at, namespace, tmp_path_factory):
    """All services, up, behind a network, and its faults, which are off."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("needs Java 17 and Maven for a genuine Kafka broker")
    home, port, faults = tmp_path_factory.mktemp("broker"), local_broker.free_port(), Faults(namespace)
    with closing(Network(port, faults)) as network:
        local_broker.start(home, port, settings=network.settings())
        try:
            with stack_at(network.address) as stack:
                yield stack, faults
        finally:
            faults.is_on = False
            local_broker.stop_local_broker(home)


def test_whatever_a_network_does_to_requests_every_row_is_learned_once_and_in_order(stack_behind, until):
    stack, faults = stack_behind
    stack.release(rain.SOURCE, "rain")
    faults.is_on = True
    began = time.monotonic()
    for number in range(ROWS):
        rain.publish(stack, number)
        stack.poll()
        while number > (time.monotonic() - began) * ROWS_A_SECOND:
            time.sleep(0.002)  # the pace of the stream, not a wait for anything
    stack.flush()
    faults.is_on = False
    rain.every_row_is_joined_once_and_learned(stack, ROWS, until)
    assert min(faults.seen["produce", fault] for fault in (REFUSED, LOST, UNANSWERED, LATE)) > 0, faults.seen
    assert min(faults.seen["other", fault] for fault in (LOST, UNANSWERED, LATE)) > 0, faults.seen
    report(stack, faults)


def report(stack, faults):
    restarts = sum(int(state["restarts"]) for state in processes.states(stack.home).values())
    seen = {f"{what} {fault}": count for (what, fault), count in sorted(faults.seen.items())}
    print("\n" + json.dumps({"rows": ROWS, "faults": seen, "restarts": restarts}, indent=2))
