"""A whole stack of processes on genuine Kafka, in a folder and a namespace of its own."""

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from headrace.infra import create_topics, supervisor
from headrace.infra.artifacts import Artifacts
from headrace.infra.follow import Follower
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.release import release_file
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.topics import full_name
from headrace.services import SERVICES


class Stack:
    """Services of one test, started as `headrace up` starts them."""

    def __init__(self, home: Path, namespace: str, settings: Settings, bus: KafkaBus) -> None:
        self.home, self.namespace, self.settings, self.bus = home, namespace, settings, bus
        self.artifacts = Artifacts(settings.artifact_url, settings.key())
        self._producer = bus.producer("test")

    def release(self, source: bytes, name: str):
        path = self.home / f"{name}.py"
        path.write_bytes(source)
        return release_file(path, self.settings, self.bus, by="test")

    def publish(self, pipeline: str, event) -> None:
        headers = headers_of(TYPE_OF[type(event)], "/test", 0)
        key = (event.entity or event.id).encode()
        self._producer.produce(self.topic("<p>.data-arrived", pipeline), None, key, encode(event), headers, 0)

    def flush(self) -> None:
        self._producer.flush()

    def topic(self, name: str, pipeline: str = "") -> str:
        return full_name(name, pipeline, self.namespace)

    def records(self, name: str, pipeline: str = "") -> list:
        with closing(Follower(self.bus, self.namespace, [self.topic(name, pipeline)])) as follower:
            return follower.read_to_end()

    def raw_count(self, name: str, pipeline: str = "") -> int:
        return self.bus.offsets((self.topic(name, pipeline), 0))[1]

    def pid(self, service: str) -> int:
        return int(supervisor.states(self.home)[service]["pid"] or 0)

    def kill(self, service: str, number: int = signal.SIGKILL) -> bool:
        pid = self.pid(service)
        if not pid:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def log(self, service: str) -> str:
        return (self.home / "logs" / f"{service}.log").read_text(errors="replace")[-4_000:]


@pytest.fixture
def stack(kafka, namespace, tmp_path, monkeypatch):
    """All services, up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "HEADRACE_HOME": str(tmp_path),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_INSTANCE": "e2e",
        "HEADRACE_ARTIFACT_KEY": "e2e-test-key",
        "HEADRACE_QUERY_PORT": str(port),
        "HEADRACE_SESSION_TIMEOUT_S": "6",
        "HEADRACE_TICK_S": "5",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    bus = KafkaBus(kafka)
    create_topics.create(bus, namespace)
    supervisor.up(tmp_path)
    try:
        missing = supervisor.wait_ready(tmp_path, tuple(SERVICES), 60)
        made = Stack(tmp_path, namespace, Settings(), bus)
        assert not missing, "\n".join(f"{name}: {made.log(name)}" for name in missing)
        yield made
    finally:
        supervisor.down(tmp_path)
        bus.close()
