"""How long a service is away after `kill -9`, each service in turn at 200 rows/s: from the kill to its next output.

`python benchmarks/bench_recovery.py [--rate 200] [--rounds 10] [--json]`. The output of a service of the data path is
its next record; any other is back when it stands where it stood or further (the scheduler: when it gives a tick). The
floor is a plain static member that passes records on, killed and forked again at once, in the same rounds. At the end
the broker is killed and started again, where it is one of this folder: from its first answer to the next output of all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from common import Child, Line, arguments, broker, made_up, note, quantile, tell
from stack import Encoded, Stack, encoded, stack, wait

from headrace.infra import local_broker, processes
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.service import tidy_memory
from headrace.services import SERVICES

OUTPUT = {
    "validator": "<p>.data-validated",
    "predictor": "<p>.predictions",
    "joiner": "<p>.labelled-examples",
    "trainer": "<p>.snapshots",
}
IN_FLIGHT_S = 0.03  # what was produced before the kill is visible by then
HOME = Path(".headrace")  # of the broker that `common.broker` starts
APART_S = 6.0  # a service that lived less is started again with a growing pause


def relay(address: str, source: str, target: str, pipe: Any) -> None:
    """A static member without state: it goes on from the end of what is there."""
    bus = KafkaBus(address, linger_ms=0)
    member = bus.group_consumer(
        "bench-floor", "bench", lambda places: {place: bus.offsets(place)[1] for place in places},
        lambda places: None, lambda places: None,
    )  # fmt: skip
    member.subscribe([source])
    producer = bus.producer("bench-floor")
    tidy_memory()
    while True:
        for message in member.poll(50, 0.1):
            producer.produce(target, 0, message.key(), message.value(), [], 0)
        producer.poll()


class Stream:
    """Publishes rows at a rate and looks when each output grew, in a thread of its own."""

    def __init__(self, made: Stack, rate: int, hops: tuple[str, str]) -> None:
        self.grew: dict[str, float] = {}
        self._made, self._rate, self._hops = made, rate, hops
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        bus = KafkaBus(self._made.settings.bootstrap_servers, linger_ms=0)
        producer, reader = bus.producer("bench-publisher"), bus.reader()
        names = {self._made.topic(topic): service for service, topic in OUTPUT.items()} | {self._hops[1]: "floor"}
        reader.assign({(topic, 0): bus.offsets((topic, 0))[1] for topic in names})
        began, sent = time.monotonic(), 0
        for batch in count():
            for kind, key, body, headers in batch_of(batch, self._rate):
                while not self._ended.is_set() and time.monotonic() < began + sent / self._rate / 2:
                    for message in reader.poll(100, 0.002):
                        self.grew[names[message.topic()]] = time.monotonic()
                if self._ended.is_set():
                    return
                producer.produce(self._made.topic("<p>.data-arrived"), None, key, body, headers, 0)
                if kind == "example":
                    producer.produce(self._hops[0], 0, key, body, headers, 0)
                producer.poll()
                sent += 1


def batch_of(number: int, rows: int) -> list[Encoded]:
    return encoded(made_up(rows, number), 0, f"r{number}")


def standing(made: Stack, service: str) -> tuple[int, int]:
    """A service's process and how far it is: the sum of its offsets, or the ticks it gave."""
    pid = int(str((processes.read_run_file(made.home, service) or {}).get("pid") or 0))
    numbers = [part for told in made.health(service) for part in told.values() if isinstance(part, dict)]
    return pid, sum(int(part.get("offset", part.get("ticks", 0))) for part in numbers)


def recovery(made: Stack, stream: Stream, service: str) -> float:
    """Seconds from the kill of a service to its next output."""
    killed = int(str(processes.states(made.home)[service]["pid"]))
    stood = 0 if service in OUTPUT else 1 if service == "scheduler" else standing(made, service)[1]
    began = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    if service in OUTPUT:
        return grown(stream, service, began) - began

    def goes_on() -> bool:
        with suppress(OSError, KeyError):
            pid, stands = standing(made, service)
            return pid != killed and stands >= stood
        return False

    wait(goes_on, f"the next output of {service}", every_s=0.005)
    return time.monotonic() - began


def grown(stream: Stream, name: str, since: float) -> float:
    wait(lambda: stream.grew.get(name, 0.0) > since + IN_FLIGHT_S, f"the next output of {name}", every_s=0.002)
    return stream.grew[name]


def main() -> None:
    asked = arguments(__doc__, rate=200, outages=5)
    address = broker()
    found: dict[str, list[float]] = {name: [] for name in (*SERVICES, "floor")}
    with stack() as made:
        made.release(refresh_s=0.2)
        hops = made.namespace + "hop-a", made.namespace + "hop-b"
        made.bus.create_topics([TopicSpec(name, 1, {}) for name in hops])
        floor = Child(relay, address, *hops)
        stream = Stream(made, asked.rate, hops)
        wait(lambda: stream.grew.keys() >= {*OUTPUT, "floor"}, "the first outputs")
        last: dict[str, float] = {}
        for number in range(asked.rounds):
            for service in SERVICES:
                wait(lambda name=service: time.monotonic() > last.get(name, 0.0) + APART_S, "")  # type: ignore[misc]
                found[service].append(recovery(made, stream, service))
                last[service] = time.monotonic()
                settle(made, stream)
            began = time.monotonic()
            os.kill(floor.process.pid or 0, signal.SIGKILL)
            floor = Child(relay, address, *hops)
            found["floor"].append(grown(stream, "floor", began) - began)
            note(f"round {number + 1} of {asked.rounds}: " + ", ".join(f"{k} {v[-1]:.2f}" for k, v in found.items()))
        outages = [outage(made, stream) for _ in range(asked.outages) if local_broker.running(HOME) is not None]
        note("the broker: " + ", ".join(f"{seconds:.2f}" for seconds in outages))
        stream.end()
        floor.end()
    tell(f"Recovery after kill -9 at {asked.rate} rows/s", report(found, outages), asked.json)


def outage(made: Stack, stream: Stream) -> float:
    """Seconds from a killed broker's first answer to the moment every output grew again."""
    ran = local_broker.running(HOME)
    assert ran is not None
    broker_process = psutil.Process(ran.pid)
    broker_process.kill()
    broker_process.wait(30)  # to the last thread: until then its port is taken
    local_broker.start(HOME, say=note)
    began = time.monotonic()
    wait(lambda: all(stream.grew[name] > began for name in OUTPUT), "all outputs after the broker's restart")
    seconds = max(stream.grew[name] for name in OUTPUT) - began
    settle(made, stream)
    return seconds


def settle(made: Stack, stream: Stream) -> None:
    """All services are ready and every output grows again."""
    wait(lambda: all(state["ready"] and state["alive"] for state in processes.states(made.home).values()), "all ready")
    now = time.monotonic()
    wait(lambda: all(stream.grew[name] > now for name in OUTPUT), "all outputs")


def report(found: dict[str, list[float]], outages: list[float]) -> list[Line]:
    floor = found.pop("floor")
    every = [seconds for values in found.values() for seconds in values]
    data = [seconds for name in OUTPUT for seconds in found[name]]

    def spread(values: list[float]) -> str:
        return f"p50 {quantile(values, 0.5):.2f} s, p95 {quantile(values, 0.95):.2f} s, {len(values)} kills"

    def times(values: list[float]) -> float:
        return round(quantile(values, 0.5) / quantile(floor, 0.5), 2)

    return [
        Line("any service, p95", round(quantile(every, 0.95), 3), "s", "< 1.5", spread(every)),
        Line("data path, p95", round(quantile(data, 0.95), 3), "s", "< 1.5", spread(data)),
        Line("data path, p50", times(data), "× a plain member", "", f"the floor: {spread(floor)}"),
        *(
            Line("broker back → all outputs, most", round(s, 3), "s", "< 5", spread(outages))
            for s in sorted(outages)[-1:]
        ),
        *(Line(name, times(values), "× a plain member", "", spread(values)) for name, values in found.items()),
    ]


if __name__ == "__main__":
    main()
