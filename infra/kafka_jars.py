"""Apache Kafka from its own jars: fetched once per user through Maven, formatted, started."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

VERSION = "4.2.0"
POM = Path(__file__).parent / "kafka" / "pom.xml"
LOG4J = Path(__file__).parent / "kafka" / "log4j2.yaml"
NEW_ARCHIVE = "classes.jsa"
FETCH_S, FORMAT_S = 600.0, 60.0
# without the optimising compiler a short-lived broker uses half the processor time (300,000 records: 0.6 s, not 1.2)
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
# one node, loopback, no surprises: topics are never made by asking for them, groups do not wait for company
NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # one that was killed may register again after its session only: 9 s by default
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}
Say = Callable[[str], None]


class NoBroker(RuntimeError):
    """There is no broker and none could be started; the message says what to do."""


def cache() -> Path:
    """The folder of one user's Kafka: `jars`, and archives of loaded classes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / f"kafka-{VERSION}"


def fetch(say: Say) -> Path:
    """The folder with Kafka's jars, through Maven where they are not there yet. Raises NoBroker."""
    jars = cache() / "jars"
    if jars.is_dir():
        return jars
    if not shutil.which("mvn"):
        raise NoBroker("Maven (mvn) is not installed; it fetches Apache Kafka's jars")
    say(f"Fetching Apache Kafka {VERSION} through Maven into {jars} (once; 90 MB)")
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as temporary:
        command = ["mvn", "-B", "-q", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
        try:
            done = _run([*command, f"-DoutputDirectory={temporary}/jars"], FETCH_S)
        except subprocess.TimeoutExpired as error:
            raise NoBroker(f"Maven could not fetch Apache Kafka {VERSION}; is the network up?") from error
        if done.returncode != 0:
            raise NoBroker(f"Maven could not fetch Apache Kafka {VERSION}: {_last_words(done.stdout + done.stderr)}")
        with contextlib.suppress(OSError):  # another process was quicker, and its folder is as good
            os.rename(f"{temporary}/jars", jars)
    return jars


def launch(
    jars: Path, folder: Path, port: int, controller_port: int, more: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a broker with its data, settings and log in `folder`, in a session of its own; it does not answer yet.

    `more` are broker settings by Kafka's own names. Raises NoBroker where the data folder cannot be formatted.
    """
    properties = folder / "server.properties"
    properties.write_text(_properties(folder / "data", port, controller_port, more))
    java = ["java", *JVM, f"-Dlog4j2.configurationFile={LOG4J}", "-cp", f"{jars}/*"]
    archive, new_archive = _class_archive(), folder / NEW_ARCHIVE
    new_archive.unlink(missing_ok=True)
    if archive.exists():
        java.insert(1, f"-XX:SharedArchiveFile={archive}")
    if not (folder / "data" / "meta.properties").exists():
        tool = ["kafka.tools.StorageTool", "format", *_cluster(more), "-c", str(properties)]
        done = _run([*java, *tool], FORMAT_S)
        if done.returncode != 0:
            raise NoBroker(explain(done.stdout + done.stderr))
    if not archive.exists():
        java.insert(1, f"-XX:ArchiveClassesAtExit={new_archive}")
        java.insert(1, "-Xlog:cds=error,cds+dynamic=error,class+load=error")
    with (folder / "kafka.log").open("wb") as log:
        return subprocess.Popen(
            [*java, "kafka.Kafka", str(properties)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def keep_class_archive(folder: Path) -> None:
    """After a broker's clean end: what it loaded, ready-made, lets the next one start in 0.9 s instead of 1.9."""
    if (folder / NEW_ARCHIVE).exists():
        with contextlib.suppress(OSError):
            shutil.move(folder / NEW_ARCHIVE, temporary := _class_archive().with_suffix(f".{os.getpid()}"))
            os.replace(temporary, _class_archive())


def _class_archive() -> Path:
    """Its name says for which Java it was made; another one would not take it."""
    java = Path(shutil.which("java") or "java").resolve()
    made = f"{java} {java.stat().st_mtime_ns if java.exists() else 0} {' '.join(JVM)}"
    return cache() / f"classes-{hashlib.sha256(made.encode()).hexdigest()[:12]}.jsa"


def explain(output: str) -> str:
    """What a broker's or Java's last words mean, in one sentence where they are known."""
    if "UnsupportedClassVersionError" in output:
        return f"Apache Kafka {VERSION} needs Java 17 or newer; `java -version` shows which one is found first"
    if "BindException" in output or "Address already in use" in output:
        return "its port was taken by another program while it started; try again"
    if "No space left on device" in output:
        return "the disk is full"
    return f"Apache Kafka did not start; its last words: {_last_words(output)}"


def _properties(data: Path, port: int, controller_port: int, more: Mapping[str, str]) -> str:
    settings = (
        NODE
        | {
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "log.dirs": str(data),
            "num.network.threads": "2",
            "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": str(16 << 20),
        }
        | dict(more)
    )
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _run(command: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL
    )


def _cluster(more: Mapping[str, str]) -> list[str]:
    """What a node is formatted as: one by itself, or one of the voters that are named, who must have one id."""
    voters = more.get("controller.quorum.voters")
    id_ = uuid.uuid5(uuid.NAMESPACE_OID, voters) if voters else uuid.uuid4()
    # as Kafka writes it; one that begins with a dash would look like an option
    written = base64.urlsafe_b64encode(id_.bytes).decode().rstrip("=").replace("-", "A")
    return [*([] if voters else ["--standalone"]), "-t", written]


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
    return " | ".join(lines[-6:])[-600:]
