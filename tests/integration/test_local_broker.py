"""A broker for this machine: it starts, says what it does, outlives its starter, keeps its data, and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from headrace.infra import kafka_jars, local_broker
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.kafka_jars import NoBroker

pytestmark = pytest.mark.kafka


@pytest.fixture
def home(tmp_path, kafka):
    """A folder of its own; what it started is stopped at the end. (`kafka` has fetched the jars.)"""
    yield tmp_path
    local_broker.stop_local_broker(tmp_path)


@pytest.fixture
def without_docker(monkeypatch):
    monkeypatch.setattr(local_broker, "has_docker", lambda: False)


def test_a_broker_outlives_its_starter_and_keeps_its_topics_over_a_stop(home, without_docker):
    starter = (
        "import sys, pathlib; from headrace.infra import local_broker as b; b.has_docker = lambda: False; "
        "print(b.ensure_broker(pathlib.Path(sys.argv[1]), say=print, environ={}))"
    )
    done = subprocess.run([sys.executable, "-c", starter, str(home)], capture_output=True, text=True, check=True)
    starting, answering, address = done.stdout.splitlines()
    assert starting.startswith("Starting Apache Kafka 4.2.0 on 127.0.0.1:")
    assert answering.startswith("Apache Kafka answers after ")
    assert local_broker.running(home).address == address
    assert local_broker.ensure_broker(home, say=pytest.fail, environ={}) == address, "the second call starts nothing"
    bus = KafkaBus(address)
    bus.create_topics([TopicSpec("t", 1, {})])
    before = bus.topic_id("t")
    assert local_broker.stop_local_broker(home)
    assert not local_broker.answers(address)
    assert local_broker.running(home) is None
    socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))).close()  # the port is free again
    assert not local_broker.stop_local_broker(home)
    again = local_broker.start(home, say=lambda text: None)
    assert again.address == address, "clients remember the port"
    assert KafkaBus(address).topic_id("t") == before


def test_records_on_their_way_survive_a_broker_that_is_killed_and_comes_back(home, until):
    broker = local_broker.start(home, local_broker.free_port(), say=lambda text: None)
    bus = KafkaBus(broker.address)
    bus.create_topics([TopicSpec("t", 1, {})])
    producer = bus.producer("test")
    for number in range(2_000):
        producer.produce("t", 0, b"k", b"%d" % number, [], 0)
        if number == 1_000:
            producer.poll()
            os.kill(broker.pid, signal.SIGKILL)
            until(lambda: not local_broker.answers(broker.address))
    back = threading.Thread(target=local_broker.start, args=(home,), kwargs={"say": lambda text: None})
    back.start()
    producer.flush()
    back.join()
    reader, got = bus.reader(), []
    reader.assign({("t", 0): 0})
    until(lambda: got.extend(reader.poll(500, 0.1)) or len(got) >= 2_000)
    assert [message.value() for message in got] == [b"%d" % number for number in range(2_000)]
    assert bus.offsets(("t", 0)) == (0, 2_000)
    reader.close()
    producer.close()


def test_a_port_that_is_taken_is_said_to_be_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NoBroker, match=f"port {port} is taken by another program"):
            local_broker.start(tmp_path, port)


def test_something_that_is_no_broker_does_not_count_as_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        def greet():
            peer, _ = other.accept()
            peer.sendall(b"220 mail.example ready\r\n")
            peer.close()

        greeter = threading.Thread(target=greet)
        greeter.start()
        assert not local_broker.answers(address)
        greeter.join()
    with pytest.raises(NoBroker, match=f"no broker answers at KAFKA_BOOTSTRAP_SERVERS={address}"):
        local_broker.ensure_broker(tmp_path, environ={"KAFKA_BOOTSTRAP_SERVERS": address})


def test_a_broker_named_in_the_environment_is_taken_and_nothing_started(tmp_path, kafka):
    named = f"127.0.0.1:1,{kafka}"
    found = local_broker.ensure_broker(tmp_path, say=pytest.fail, environ={"KAFKA_BOOTSTRAP_SERVERS": named})
    assert found == named
    assert list(tmp_path.iterdir()) == []


def test_without_broker_docker_and_java_the_three_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoBroker) as refused:
        local_broker.ensure_broker(tmp_path, environ={})
    message = str(refused.value)
    assert "KAFKA_BOOTSTRAP_SERVERS" in message
    assert "start Docker" in message
    assert "install Java 17 and Maven" in message
    assert "Not found: a Docker daemon, java, mvn" in message


def test_maven_that_cannot_fetch_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program = tmp_path / "mvn"
    program.write_text(
        "#!/bin/sh\necho 'Could not transfer artifact org.apache.kafka: Network is unreachable'; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = []
    with pytest.raises(NoBroker, match=r"Maven could not fetch Apache Kafka 4\.2\.0: .*Network is unreachable"):
        kafka_jars.fetch(said.append)
    assert said[0].startswith("Fetching Apache Kafka 4.2.0 through Maven")
    assert not (tmp_path / "cache" / "headrace" / "kafka-4.2.0" / "jars").exists()


@pytest.mark.parametrize(
    ("java", "says"),
    [
        ("echo 'java.lang.UnsupportedClassVersionError: kafka/tools/StorageTool'; exit 1", "needs Java 17 or newer"),
        ("echo 'java.io.IOException: No space left on device'; exit 1", "the disk is full"),
        ("echo 'something else'; exit 1", "its last words: something else"),
    ],
)
def test_a_java_that_cannot_start_it_is_said_so(tmp_path, monkeypatch, java, says):
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{java}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(NoBroker, match=says):
        local_broker.start(tmp_path / "home", local_broker.free_port(), say=lambda text: None)
    assert local_broker.running(tmp_path / "home") is None


def test_a_process_that_got_the_brokers_old_id_is_left_alone(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / "broker").mkdir()
        (tmp_path / "broker" / "broker.json").write_text(json.dumps({"address": "127.0.0.1:1", "pid": other.pid}))
        assert not local_broker.stop_local_broker(tmp_path)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_two_starts_at_once_give_one_broker(home, without_docker):
    found = []
    starts = [
        threading.Thread(target=lambda: found.append(local_broker.ensure_broker(home, lambda text: None, {})))
        for _ in range(2)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(found) == 2
    assert len(set(found)) == 1


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.skipif(not local_broker.has_docker(), reason="no container engine answers")
def test_with_docker_it_runs_in_a_container_and_keeps_its_topics_over_a_stop(tmp_path):
    said = []
    try:
        address = local_broker.ensure_broker(tmp_path, said.append, {})
        assert said[-1].startswith("Starting Apache Kafka 4.2.0 in Docker on 127.0.0.1:")
        assert local_broker.running(tmp_path).container.startswith("headrace-kafka-")
        bus = KafkaBus(address)
        bus.create_topics([TopicSpec("t", 1, {})])
        before = bus.topic_id("t")
        bus.close()
        assert local_broker.stop_local_broker(tmp_path)
        assert not local_broker.answers(address)
        assert KafkaBus(local_broker.ensure_broker(tmp_path, said.append, {})).topic_id("t") == before
    finally:
        broker = local_broker.running(tmp_path)
        local_broker.stop_local_broker(tmp_path)
        if broker:
            subprocess.run(["docker", "volume", "rm", broker.container], check=True, capture_output=True)
