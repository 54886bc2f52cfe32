"""A whole stack of processes on genuine Kafka, in a folder and a namespace of its own."""

import os
import shutil
import signal
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cluster import NODES, Cluster
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient

from headrace.infra import create_topics, local_broker, processes
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

    def release(self, source: bytes, name: str, partitions: int | None = None):
        path = self.home / f"{name}.py"
        path.write_bytes(source)
        return release_file(path, self.settings, self.bus, by="test", partitions=partitions)

    def publish(self, pipeline: str, event) -> None:
        headers = headers_of(TYPE_OF[type(event)], "/test", 0)
        key = (event.entity or event.id).encode()
        self._producer.produce(self.topic("<p>.data-arrived", pipeline), None, key, encode(event), headers, 0)

    def poll(self) -> None:
        self._producer.poll()

    def flush(self) -> None:
        self._producer.flush()

    def topic(self, name: str, pipeline: str = "") -> str:
        return full_name(name, pipeline, self.namespace)

    def records(self, name: str, pipeline: str = "") -> list:
        with closing(Follower(self.bus, self.namespace, [self.topic(name, pipeline)])) as follower:
            return follower.read_to_end()

    def raw_count(self, name: str, pipeline: str = "") -> int:
        topic = self.topic(name, pipeline)
        return sum(self.bus.offsets((topic, number))[1] for number in range(self.bus.partitions(topic)))

    def admin(self) -> AdminClient:
        """A client of one's own: one that two threads share may keep both waiting."""
        return AdminClient({"bootstrap.servers": self.settings.bootstrap_servers, "log_level": 0})

    def groups(self) -> KafkaAdminClient:
        """A client that asks for the offsets of groups; librdkafka's crashes where their coordinator is away."""
        return KafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)

    def group_offsets(self, groups: KafkaAdminClient, *folds: str) -> dict[tuple[str, str, int], int]:
        """The offsets of these folds' groups by fold and place."""
        names = {f"{self.namespace}headrace-{fold}": fold for fold in folds}
        found = groups.list_group_offsets(list(names))
        return {
            (fold, place.topic, place.partition): at.offset
            for name, fold in names.items()
            for place, at in (found.get(name) or {}).items()
        }

    def pid(self, service: str) -> int:
        return int(processes.states(self.home)[service]["pid"] or 0)

    def kill(self, service: str, number: int = signal.SIGKILL) -> bool:
        pid = self.pid(service)
        if not pid:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def health(self) -> dict[str, str]:
        """What each service says of itself, or why it says nothing."""
        found = {}
        for name, state in processes.states(self.home).items():
            try:
                with urllib.request.urlopen(str(state["health"]), timeout=5) as answer:
                    found[name] = answer.read().decode()
            except (OSError, KeyError) as error:
                found[name] = f"{error!r}; {self.log(name)[-600:]}"
        return found

    def log(self, service: str) -> str:
        return (self.home / "logs" / f"{service}.log").read_text(errors="replace")[-4_000:]


@pytest.fixture
def stack(kafka, namespace, tmp_path, monkeypatch):
    """All services, up, on the broker of the session."""
    with running(kafka, namespace, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def own_broker(tmp_path_factory):
    """The home of a broker that a test may kill."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("needs Java 17 and Maven for a genuine Kafka broker")
    home = tmp_path_factory.mktemp("own-broker")
    local_broker.start(home, local_broker.free_port())
    yield home
    local_broker.stop_local_broker(home)


@pytest.fixture
def own_stack(own_broker, namespace, tmp_path, monkeypatch):
    """All services, up, on a broker of their own."""
    with running(local_broker.running(own_broker).address, namespace, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def stack_at(namespace, tmp_path, monkeypatch):
    """All services, up, at a broker's address: `with stack_at(address) as stack`."""
    return lambda address: running(address, namespace, tmp_path, monkeypatch)


@pytest.fixture
def cluster(tmp_path_factory):
    """Three brokers that a test may kill."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("needs Java 17 and Maven for a genuine Kafka broker")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start(*NODES)
        yield made
    finally:
        made.close()


@pytest.fixture
def replicated_stack(cluster, namespace, tmp_path, monkeypatch):
    """All services, up, on three brokers."""
    with running(cluster.address, namespace, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def some_services(kafka, namespace, tmp_path, monkeypatch):
    """Only the services named, up: `with some_services("trainer") as stack`; the test plays the others."""

    def start(*names):
        return running(kafka, namespace, tmp_path, monkeypatch, names)

    return start


@contextmanager
def running(address, namespace, home, monkeypatch, services=tuple(SERVICES)):
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "HEADRACE_HOME": str(home),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_INSTANCE": "e2e",
        "HEADRACE_ARTIFACT_KEY": "e2e-test-key",
        "HEADRACE_QUERY_PORT": str(local_broker.free_port()),
        "HEADRACE_SESSION_TIMEOUT_S": "6",
        "HEADRACE_TICK_S": "5",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    bus = KafkaBus(address)
    create_topics.create(bus, namespace)
    processes.up(home, services)
    try:
        missing = processes.wait_ready(home, services, 60)
        made = Stack(home, namespace, Settings(), bus)
        assert not missing, "\n".join(f"{name}: {made.log(name)}" for name in missing)
        yield made
    finally:
        processes.down(home)
        bus.close()
