"""A whole stack of services on genuine Kafka for one benchmark: a folder, a namespace and a pipeline of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from common import COLUMNS, Row, broker

from headrace.infra import create_topics, processes
from headrace.infra.bus import Bus
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.local_broker import free_port
from headrace.infra.release import release_file
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.schemas.topics import full_name
from headrace.services import SERVICES

KEY = "benchmark"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOURCE = '''
from headrace import Contract, Pipeline, Rollout, Triggers
from river import linear_model, naive_bayes, preprocessing, tree

class Bench(Contract):
    """Eight numbers."""
{columns}

def recipe(seed):
    return {recipe}

pipeline = Pipeline(
    name="{name}", contract=Bench, label=bool, recipe=recipe, rollout=Rollout(refresh_s={refresh_s}),
    triggers=Triggers(first_model_at=200, cooldown_s=0),
)
'''
LINEAR = "preprocessing.StandardScaler() | linear_model.LogisticRegression()"
Encoded = tuple[str, bytes, bytes, list[tuple[str, str | bytes]]]  # kind, key, body, headers


def encoded(data: Sequence[Row], late: int, prefix: str) -> list[Encoded]:
    """The stream as users publish it: an example for each row, and its label so many rows later."""
    ids = [f"{prefix}-{uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC834 & (1 << 128) - 1)}"[:40]
           for number in range(len(data))]  # fmt: skip
    made: list[Encoded] = []

    def add(kind: str, event: Any) -> None:
        headers = headers_of(TYPE_OF[type(event)], "/bench", len(made))
        made.append((kind, event.id.encode(), encode(event), headers))

    for n in range(len(data) + late):
        if n < len(data):
            add("example", ExampleArrived(id=ids[n], time=NOON, features=data[n][0]))
        if n >= late:
            add("label", LabelArrived(id=ids[n - late], time=NOON, label=data[n - late][1]))
    return made


class Stack:
    """Every service as `headrace up` starts it."""

    def __init__(self, home: Path, namespace: str, bus: KafkaBus, settings: Settings) -> None:
        self.home, self.namespace, self.bus, self.settings = home, namespace, bus, settings

    def release(self, name: str = "bench", refresh_s: float = 1.0, recipe: str = LINEAR) -> None:
        columns = "\n".join(f"    {column}: float" for column in COLUMNS)
        path = self.home / f"{name}.py"
        path.write_text(SOURCE.format(name=name, columns=columns, refresh_s=refresh_s, recipe=recipe))
        release_file(path, self.settings, self.bus, by="bench")

    def topic(self, name: str, pipeline: str = "bench") -> str:
        return full_name(name, pipeline, self.namespace)

    def end(self, name: str, pipeline: str = "bench") -> int:
        """How many records a topic of one partition holds."""
        return self.bus.offsets((self.topic(name, pipeline), 0))[1]

    def processes(self) -> dict[str, psutil.Process]:
        """The supervisors and services by name."""
        found = {name: psutil.Process(int(str(state["pid"]))) for name, state in processes.states(self.home).items()}
        noted = processes.read_run_file(self.home, "supervisor") or {}
        top = psutil.Process(int(str(noted["pid"])))
        known = {one.pid for one in found.values()}
        others = [one for one in top.children(recursive=True) if one.pid not in known]
        return found | {"supervisor": top} | {f"with-river or helper {one.pid}": one for one in others}

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of every process so far."""
        spent = {}
        for name, process in self.processes().items():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent[name] = times.user + times.system
        return spent

    def health(self, service: str) -> list[Any]:
        """The counts of a service's parts."""
        url = str((processes.read_run_file(self.home, service) or {})["health"])
        with urllib.request.urlopen(url, timeout=10) as answer:
            parts: list[Any] = json.load(answer)["parts"]
        return parts


@contextlib.contextmanager
def stack(
    *, services: tuple[str, ...] = tuple(SERVICES), keep_topics: bool = False, **settings: str
) -> Iterator[Stack]:
    """Services that are up; stopped, and their topics deleted, at the end. `settings` are more HEADRACE_… variables."""
    with prepared(**settings) as made:
        processes.up(made.home, services)
        try:
            missing = processes.wait_ready(made.home, services, 120)
            if missing:
                raise RuntimeError(f"{', '.join(missing)} did not start; see {made.home}/logs")
            yield made
        finally:
            processes.down(made.home)


@contextlib.contextmanager
def prepared(**settings: str) -> Iterator[Stack]:
    """The folder, the settings (also in the environment) and the control topics of a stack."""
    address, home = broker(), Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    namespace = f"b{uuid.uuid4().hex[:8]}-"
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        del os.environ[name]
    os.environ |= {
        "HEADRACE_HOME": str(home), "HEADRACE_NAMESPACE": namespace, "HEADRACE_INSTANCE": "bench",
        "HEADRACE_ARTIFACT_KEY": KEY, "HEADRACE_QUERY_PORT": str(free_port()), **settings,
    }  # fmt: skip
    bus = KafkaBus(address)
    create_topics.create(bus, namespace)
    try:
        yield Stack(home, namespace, bus, Settings())
    finally:
        delete_topics(address, namespace)
        bus.close()
        shutil.rmtree(home, ignore_errors=True)


def delete_topics(address: str, namespace: str) -> None:
    """Delete what a benchmark wrote."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": address})
    ours = [name for name in admin.list_topics(timeout=15).topics if name.startswith(namespace)]
    for future in admin.delete_topics(ours).values() if ours else ():
        with contextlib.suppress(Exception):
            future.result(15)


def publish(address: str, topic: str, stream: Sequence[Encoded]) -> float:
    """Publish at full speed; returns the seconds it took until all was acknowledged."""
    bus: Bus = KafkaBus(address, linger_ms=5)
    producer = bus.producer("bench-publisher")
    began = time.perf_counter()
    produce, poll = producer.produce, producer.poll
    for number, (_, key, body, headers) in enumerate(stream):
        produce(topic, None, key, body, headers, 0)
        if number % 500 == 0:
            poll()
    producer.flush()
    producer.close()
    return time.perf_counter() - began


def broker_s(address: str) -> float:
    """CPU seconds of the broker so far, 0 where it is no process of this machine that we may see."""
    port = int(address.rpartition(":")[2])
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            times = psutil.Process(connection.pid).cpu_times()
            return float(times.user + times.system)
    return 0.0


def wait(condition: Callable[[], bool], what: str, limit_s: float = 120.0, every_s: float = 0.05) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {limit_s:g} s")
        time.sleep(every_s)
