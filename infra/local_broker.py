"""A genuine Apache Kafka for this machine: one that is named, else in Docker, else from Kafka's own jars.

A broker started here belongs to a folder (`<home>/broker`: data, log, settings, who runs) and outlives the command
that started it, until `stop_local_broker`. Its data stay, so topics and the state folded from them still agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.infra import kafka_jars
from headrace.infra.kafka_jars import NODE, VERSION, NoBroker, Say

LISTENED = range(20_000, 32_000)  # below what Linux (32768 on) and macOS (49152 on) give to connections
PORT = 9092
START_S, STOP_S = 180.0, 60.0
IMAGE = f"apache/kafka:{VERSION}"
THREE_WAYS = (
    "No broker. Three ways: set KAFKA_BOOTSTRAP_SERVERS to the address of one; or start Docker (apache/kafka is run); "
    "or install Java 17 and Maven (Apache Kafka's own jars are fetched and run)"
)


@dataclass(frozen=True)
class Broker:
    """A broker that this machine runs: its address and its process id, or the name of its container."""

    address: str
    pid: int = 0
    container: str = ""


def ensure_broker(
    home: Path, say: Say = print, environ: Mapping[str, str] = os.environ, is_there: Callable[[str], bool] | None = None
) -> str:
    """The address of a broker that answers: the one named in the environment, that of this home, or a new one.

    `is_there` tells whether a named one answers, where it is not asked in plain text. Raises NoBroker, which names the
    three ways to get one.
    """
    named = environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        if not any((is_there or answers)(address.strip()) for address in named.split(",")):
            raise NoBroker(f"no broker answers at KAFKA_BOOTSTRAP_SERVERS={named}; start it, or unset the variable")
        return named
    with _locked(home):
        found = running(home)
        if found is not None:
            return found.address
        # data that exist decide: the other kind of broker would start without the topics
        if not (_folder(home) / "data").exists() and has_docker():
            return _start_container(home, say).address
        missing = [program for program in ("java", "mvn") if not shutil.which(program)]
        if missing:
            raise NoBroker(f"{THREE_WAYS}. Not found: a Docker daemon, {', '.join(missing)}")
        return _start(home, None, say, {}).address


def start(home: Path, port: int | None = None, say: Say = print, settings: Mapping[str, str] | None = None) -> Broker:
    """Start Apache Kafka from its jars and return when it answers. Raises NoBroker, also where the port is taken.

    Without a `port` it takes the one it had, else 9092, else a free one. `settings` are further broker settings.
    """
    with _locked(home):
        return _start(home, port, say, settings or {})


def running(home: Path) -> Broker | None:
    """The broker that this home started, if it answers."""
    broker = _noted(home)
    return broker if broker is not None and answers(broker.address) else None


def stop_local_broker(home: Path) -> bool:
    """Stop the broker that this home started and wait for its end; False where none ran. Its data stay."""
    with _locked(home):
        broker = _noted(home)
        if broker is None:
            return False
        stopped = _stop_container(broker.container) if broker.container else _end(broker.pid, _folder(home))
        (_folder(home) / "broker.json").unlink(missing_ok=True)
        kafka_jars.keep_class_archive(_folder(home))
        return stopped


def has_docker() -> bool:
    """Whether a Docker daemon answers."""
    if not shutil.which("docker"):
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        return _docker("info", limit_s=5).returncode == 0
    return False


def answers(address: str) -> bool:
    """Whether a Kafka broker answers at host:port: it says which requests it takes (ApiVersions, the first of all)."""
    host, _, port = address.rpartition(":")
    # size 10, api key 18 (ApiVersions), version 0, correlation id 1, client id of length 0
    request = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\x00\x00"
    with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), 1) as peer:
        peer.settimeout(1)
        peer.sendall(request)
        return peer.recv(8)[4:] == b"\x00\x00\x00\x01"
    return False


def free_port() -> int:
    """A port of the loopback address that nobody listens on.

    Not one of those that outgoing connections are given: one of these may take it before it is used.
    """
    return next(port for port in random.sample(LISTENED, len(LISTENED)) if _is_free(port))


def _start(home: Path, port: int | None, say: Say, settings: Mapping[str, str]) -> Broker:
    folder = _folder(home)
    if port is not None and not _is_free(port):
        raise NoBroker(f"port {port} is taken by another program; stop that one or choose another port")
    kept = _kept_ports(folder)
    port = port or _first_free(kept.get("PLAINTEXT"), PORT)
    controller_port = _first_free(kept.get("CONTROLLER"))
    jars = kafka_jars.fetch(say)
    say(f"Starting Apache Kafka {VERSION} on 127.0.0.1:{port}")
    began = time.monotonic()
    process = kafka_jars.launch(jars, folder, port, controller_port, settings)
    address, log = f"127.0.0.1:{port}", folder / "kafka.log"

    def has_ended() -> bool:
        return process.poll() is not None

    if not _wait(lambda: answers(address), has_ended):
        _end(process.pid, folder)
        raise NoBroker(f"{kafka_jars.explain(log.read_text(errors='replace'))} (the whole log: {log})")
    say(f"Apache Kafka answers after {time.monotonic() - began:.1f} s (process {process.pid}, log {log})")
    return _note(home, Broker(address, pid=process.pid))


def _start_container(home: Path, say: Say) -> Broker:
    name = f"headrace-kafka-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]}"
    port = _first_free(PORT)
    if _docker("image", "inspect", IMAGE).returncode != 0:
        say(f"Fetching {IMAGE} (once)")
    say(f"Starting Apache Kafka {VERSION} in Docker on 127.0.0.1:{port}")
    settings = NODE | {
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:29093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": "1@localhost:29093",
        "log.dirs": "/var/lib/kafka/data",
    }
    variables = {f"KAFKA_{setting.upper().replace('.', '_')}": value for setting, value in settings.items()}
    heap, other = kafka_jars.JVM[:2], kafka_jars.JVM[2:]
    variables |= {"KAFKA_HEAP_OPTS": " ".join(heap), "KAFKA_JVM_PERFORMANCE_OPTS": " ".join(other)}
    _docker("rm", "-fv", name)
    done = _docker(
        "run",
        "-d",
        "--name",
        name,
        "-p",
        f"127.0.0.1:{port}:9092",
        "-v",
        f"{name}:/var/lib/kafka/data",
        *(part for variable, value in variables.items() for part in ("-e", f"{variable}={value}")),
        IMAGE,
    )
    if done.returncode != 0:
        raise NoBroker(f"Docker could not run {IMAGE}: {done.stderr.strip()[-400:]}. {THREE_WAYS}")
    address = f"127.0.0.1:{port}"

    def has_ended() -> bool:
        return "true" not in _docker("inspect", "-f", "{{.State.Running}}", name).stdout

    if not _wait(lambda: answers(address), has_ended):
        raise NoBroker(f"{IMAGE} does not answer at {address}; `docker logs {name}` says why")
    return _note(home, Broker(address, container=name))


def _stop_container(name: str) -> bool:
    return _docker("stop", name).returncode == 0 and _docker("rm", "-fv", name).returncode == 0


def _docker(*arguments: str, limit_s: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL
    )


def _end(pid: int, folder: Path) -> bool:
    """End the broker of this folder, by force after STOP_S; False where that process is not it (any more)."""
    if str(folder) not in _command_of(pid):
        return False
    for number, limit_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _wait(lambda: not _command_of(pid), lambda: False, limit_s):
            return True
    raise NoBroker(f"the broker (process {pid}) does not end")


def _command_of(pid: int) -> str:
    """The command line of a process; "" where there is none, or only its remains."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    asked = ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)]
    ps = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "" if ps.stdout.startswith("Z") else ps.stdout


def _wait(condition: Callable[[], bool], hopeless: Callable[[], bool], limit_s: float = START_S) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if hopeless() or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return not hopeless()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _first_free(*wanted: int | None) -> int:
    return next((port for port in wanted if port and _is_free(port)), None) or free_port()


def _kept_ports(folder: Path) -> dict[str, int]:
    """The ports of the last start, by listener: clients and the quorum remember them."""
    with contextlib.suppress(OSError, ValueError):
        lines = (folder / "server.properties").read_text().splitlines()
        listeners = next(line.partition("=")[2] for line in lines if line.startswith("listeners="))
        return {part.partition(":")[0]: int(part.rpartition(":")[2]) for part in listeners.split(",")}
    return {}


def _folder(home: Path) -> Path:
    return home.resolve() / "broker"


def _noted(home: Path) -> Broker | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Broker(**json.loads((_folder(home) / "broker.json").read_text()))
    return None


def _note(home: Path, broker: Broker) -> Broker:
    _folder(home).mkdir(parents=True, exist_ok=True)
    (_folder(home) / "broker.json").write_text(json.dumps(asdict(broker)))
    return broker


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One start or stop at a time in a home."""
    import fcntl  # not on Windows, where the SDK asks this module only for what a home has noted

    _folder(home).mkdir(parents=True, exist_ok=True)
    with (_folder(home) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
