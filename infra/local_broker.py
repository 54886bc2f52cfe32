"""A genuine Apache Kafka on this machine: from Docker where a daemon answers, else from Kafka's own jars through Maven."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "4.2.0"
PORT = 9092
POM = Path(__file__).parent / "kafka" / "pom.xml"
LOG4J = Path(__file__).parent / "kafka" / "log4j2.yaml"
FETCH_S, START_S, STOP_S = 600.0, 60.0, 20.0
CONTAINER = "headrace-kafka"
THREE_WAYS = (
    "No broker: set KAFKA_BOOTSTRAP_SERVERS to one that runs, or start Docker (then apache/kafka is used), or install Java 17 "
    "and Maven (then Apache Kafka's own jars are fetched and started here)"
)
Say = Callable[[str], None]


class NoBroker(RuntimeError):
    """There is no broker and none could be started; the message says what to do."""


@dataclass(frozen=True)
class Broker:
    """A broker that this machine runs: its address, and its process id (0: a container)."""

    address: str
    pid: int


def ensure_broker(home: Path, say: Say = lambda text: None, environ: Mapping[str, str] = os.environ) -> str:
    """The address of a broker: the one named in the environment, the one this folder runs, or a new one. Raises NoBroker."""
    named = environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        if not answers(named.split(",")[0]):
            raise NoBroker(f"no broker answers at KAFKA_BOOTSTRAP_SERVERS={named}; start it, or unset the variable to use a local one")
        return named
    running = local_broker(home)
    if running is not None:
        return running.address
    if has_docker():
        return _start_container(home, say).address
    if shutil.which("java") and shutil.which("mvn"):
        return start(home, say=say).address
    raise NoBroker(THREE_WAYS)


def local_broker(home: Path) -> Broker | None:
    """The broker that this folder runs, if it answers."""
    try:
        noted = json.loads((home / "broker" / "broker.json").read_text())
    except (OSError, ValueError):
        return None
    broker = Broker(str(noted["address"]), int(noted["pid"]))
    return broker if answers(broker.address) else None


def start(home: Path, port: int | None = None, say: Say = lambda text: None, settings: Mapping[str, str] | None = None) -> Broker:
    """Start Apache Kafka from its jars with its data under `<home>/broker`; returns when it answers. Raises NoBroker.

    `settings` are further broker settings, by Kafka's own names.
    """
    jars = fetch_jars(say)
    folder = home / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    port = port or (PORT if _is_free(PORT) else _free_port())
    if not _is_free(port):
        raise NoBroker(f"port {port} is taken by another program; choose another, or stop it")
    properties = folder / "server.properties"
    properties.write_text(_properties(folder / "data", port, _free_port(), settings or {}))
    classpath = f"{jars}/*"
    if not (folder / "data" / "meta.properties").exists():
        _java(classpath, ["kafka.tools.StorageTool", "format", "--standalone", "-t", _cluster_id(), "-c", str(properties)], folder)
    began = time.monotonic()
    with (folder / "kafka.log").open("ab") as log:
        process = subprocess.Popen(
            [
                "java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                f"-Dlog4j2.configurationFile={LOG4J}", "-cp", classpath, "kafka.Kafka", str(properties),
            ],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )
    address = f"127.0.0.1:{port}"
    while not answers(address):
        if process.poll() is not None or time.monotonic() - began > START_S:
            process.kill()
            raise NoBroker(f"Apache Kafka did not start on port {port}; its last words:\n{_tail(folder / 'kafka.log')}")
        time.sleep(0.05)
    (folder / "broker.json").write_text(json.dumps({"address": address, "pid": process.pid}))
    say(f"Apache Kafka {VERSION} answers at {address} after {time.monotonic() - began:.1f} s (process {process.pid})")
    return Broker(address, process.pid)


def stop(home: Path) -> bool:
    """Stop the broker that this folder started; False where none runs."""
    path = home / "broker" / "broker.json"
    try:
        noted = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    pid = int(noted["pid"])
    if pid:
        _end(pid)
    else:
        subprocess.run(["docker", "rm", "-f", CONTAINER], capture_output=True, check=False)
    path.unlink(missing_ok=True)
    return True


def fetch_jars(say: Say = lambda text: None) -> Path:
    """The folder with Kafka's jars, fetched once per user through Maven. Raises NoBroker."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / f"kafka-{VERSION}"
    if cache.is_dir():
        return cache
    for program in ("java", "mvn"):
        if not shutil.which(program):
            raise NoBroker(f"{program} is not installed. {THREE_WAYS}")
    say(f"Fetching Apache Kafka {VERSION} through Maven (once; about 120 MB)")
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
        done = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={temporary}/jars"],
            capture_output=True, text=True, timeout=FETCH_S, check=False, stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise NoBroker(f"Maven could not fetch Apache Kafka {VERSION}: {(done.stdout + done.stderr)[-600:]}")
        with contextlib.suppress(OSError):  # another process may have been quicker
            os.rename(f"{temporary}/jars", cache)
    return cache


def has_docker() -> bool:
    """Whether a container engine answers."""
    if not shutil.which("docker"):
        return False
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        return subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False).returncode == 0
    return False


def answers(address: str) -> bool:
    """Whether a Kafka broker answers at host:port: it says which requests it takes (ApiVersions, the first of all)."""
    host, _, port = address.rpartition(":")
    # size, api key 18 (ApiVersions), version 0, correlation id 1, client id of length 0
    request = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\x00\x00"
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host or "127.0.0.1", int(port)), 1) as connection:
        connection.settimeout(1)
        connection.sendall(request)
        return len(connection.recv(8)) == 8
    return False


def _start_container(home: Path, say: Say) -> Broker:
    port = PORT if _is_free(PORT) else _free_port()
    say(f"Starting Apache Kafka {VERSION} in Docker on port {port}")
    subprocess.run(["docker", "rm", "-f", CONTAINER], capture_output=True, check=False)
    variables = {
        "KAFKA_NODE_ID": "1", "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:29093",
        "KAFKA_LISTENERS": "HOST://:9092,CONTROLLER://:29093",
        "KAFKA_ADVERTISED_LISTENERS": f"HOST://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "HOST:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "HOST", "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1", "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    done = subprocess.run(
        ["docker", "run", "-d", "--name", CONTAINER, "-p", f"127.0.0.1:{port}:9092",
         *[part for name, value in variables.items() for part in ("-e", f"{name}={value}")], f"apache/kafka:{VERSION}"],
        capture_output=True, text=True, check=False,
    )
    if done.returncode != 0:
        raise NoBroker(f"Docker could not start apache/kafka:{VERSION}: {done.stderr.strip()[-400:]}. {THREE_WAYS}")
    address, deadline = f"127.0.0.1:{port}", time.monotonic() + START_S
    while not answers(address):
        if time.monotonic() > deadline:
            raise NoBroker(f"apache/kafka:{VERSION} does not answer at {address}; `docker logs {CONTAINER}` says why")
        time.sleep(0.1)
    (home / "broker").mkdir(parents=True, exist_ok=True)
    (home / "broker" / "broker.json").write_text(json.dumps({"address": address, "pid": 0}))
    return Broker(address, 0)


def _properties(data: Path, port: int, controller_port: int, more: Mapping[str, str]) -> str:
    settings = {
        "process.roles": "broker,controller", "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data), "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4", "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1", "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2", "num.io.threads": "4", "log.cleaner.dedupe.buffer.size": "16777216",
    } | dict(more)
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _java(classpath: str, arguments: list[str], folder: Path) -> None:
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={LOG4J}", "-cp", classpath, *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder, stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise NoBroker(f"{arguments[0]} failed: {(done.stdout + done.stderr).strip()[-400:]}")


def _cluster_id() -> str:
    import base64
    import uuid

    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def _tail(path: Path, lines: int = 8) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
