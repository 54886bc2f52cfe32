"""The demo's steps: a broker, the services, a release, 18,159 days of weather, a report, a clean stop."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import lzma
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from headrace.demo.observe import Observed
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import ExampleArrived, Features, LabelArrived
from headrace.schemas.topics import full_name

PIPELINE = "rainfall"
SERVICES_START_S = 90.0  # a slow laptop imports River for half a minute
DATA_SHA256 = "57e305c4ee2f8b9f2bf3216497a37f76fd12381b3e0e87ed0862d61660308971"
FIRST_DAY = datetime(1949, 1, 1, tzinfo=UTC)
WATCHED = (
    "<p>.predictions",
    "<p>.labelled-examples",
    "<p>.data-rejected",
    "<p>.snapshots",
    "model-updates",
    "model-validations",
    "pipelines",
)


@dataclass(frozen=True)
class Choices:
    """What a person may choose: rows a second (None: as fast as it goes), rows, refresh, where the state lives."""

    rate: float | None = 400.0
    rows: int = 18_159
    refresh_s: float = 0.1
    label_delay_rows: int = 0
    home: Path = Path(".headrace/demo")
    keep: bool = False
    json: bool = False


@dataclass
class Progress:
    """What the publisher has done so far."""

    published: int = 0
    began: float = 0.0
    ended: float = 0.0
    error: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)


def rainfall_rows(limit: int | None = None) -> Iterator[tuple[Features, bool]]:
    """Features and label of each day, in order. Raises ValueError where the shipped file is not the recorded one."""
    packed = resources.files("headrace.examples").joinpath("rainfall.csv.xz").read_bytes()
    plain = lzma.decompress(packed)
    if hashlib.sha256(plain).hexdigest() != DATA_SHA256:
        raise ValueError("headrace/examples/rainfall.csv.xz is not the file that was shipped; install again")
    for number, row in enumerate(csv.DictReader(io.StringIO(plain.decode()))):
        if number == limit:
            return
        row.pop("day")
        label = row.pop("rain") == "1"
        yield {name: float(value) for name, value in row.items()}, label


def rainfall_source(refresh_s: float) -> bytes:
    """The example pipeline's source, refreshed as often as the demo asks."""
    text = resources.files("headrace.examples").joinpath("rainfall.py").read_text()
    text = text.replace(
        "from headrace import Contract, Pipeline, Success,",
        "from headrace import Contract, Pipeline, Rollout, Success,",
    )
    return text.replace("success=Success(", f"rollout=Rollout(refresh_s={refresh_s:g}), success=Success(").encode()


def events(choices: Choices) -> Iterator[ExampleArrived | LabelArrived]:
    """The stream as the demo publishes it: each example, and its label `label_delay_rows` rows later."""
    late: list[LabelArrived] = []
    for number, (features, label) in enumerate(rainfall_rows(choices.rows)):
        day = FIRST_DAY + timedelta(days=number)
        yield ExampleArrived(id=f"day-{number}", time=day, features=features)
        late.append(LabelArrived(id=f"day-{number}", time=day, label=label))
        if len(late) > choices.label_delay_rows:
            yield late.pop(0)
    yield from late


def run(choices: Choices, say: Any) -> dict[str, Any]:
    """Run the demo and return its report as data; `say` (rich Console) shows it as it goes."""
    from headrace.cli.starting import wait_for_services
    from headrace.demo.live import watch_live
    from headrace.demo.report import make_report
    from headrace.infra import supervisor
    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.local_broker import ensure_broker, running, stop_local_broker
    from headrace.infra.settings import Settings
    from headrace.services import SERVICES

    began = time.monotonic()
    home = choices.home.resolve()
    with contextlib.suppress(OSError):
        supervisor.down(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    had_broker = bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS")) or running(home.parent) is not None
    bootstrap = ensure_broker(home.parent, say=lambda text: say.print(f"[dim]{text}[/]"))
    namespace = f"demo{int(time.time())}-"
    environment(home, namespace, bootstrap)
    settings = Settings()
    bus = KafkaBus(bootstrap, linger_ms=1)
    say.print(
        f"[dim]Starting {len(SERVICES)} services (topics begin with {namespace!r}; state and logs in {choices.home})[/]"
    )
    prepare_topics(bus, namespace)
    supervisor.up(home)
    try:
        wait_for_services(home, tuple(SERVICES), SERVICES_START_S)
        say.print(f"[dim]Services are up after {time.monotonic() - began:.1f} s[/]")
        release_rainfall(settings, bus, choices)
        progress, seen = Progress(), Observed()
        publisher = threading.Thread(target=publish, args=(bus, namespace, choices, progress), daemon=True)
        watch_live(bus, namespace, choices, seen, progress, publisher, say)
        if progress.error is not None:
            raise progress.error
        report = make_report(settings, choices, seen, progress, time.monotonic() - began, say)
    finally:
        if not choices.keep:
            say.print("[dim]Stopping the services[/]")
            supervisor.down(home)
        bus.close()
        if not had_broker and not choices.keep:
            stop_local_broker(home.parent)
    return report


def environment(home: Path, namespace: str, bootstrap: str) -> None:
    """Settings of the services that the demo starts, as environment variables of this process and its children."""
    from headrace.infra.local_broker import free_port
    from headrace.infra.settings import make_key

    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        if name != "HEADRACE_DEBUG":
            del os.environ[name]
    os.environ |= {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "HEADRACE_HOME": str(home),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_INSTANCE": "demo",
        "HEADRACE_ARTIFACT_KEY": make_key(home),
        "HEADRACE_QUERY_PORT": str(free_port()),
    }


def prepare_topics(bus: Any, namespace: str) -> None:
    """Create the control topics."""
    from headrace.infra import create_topics

    create_topics.create(bus, namespace)


def release_rainfall(settings: Any, bus: Any, choices: Choices) -> None:
    """Release the example as a user would, from a file of one's own."""
    from headrace.infra.release import release_file

    path = choices.home / "pipelines" / f"{PIPELINE}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rainfall_source(choices.refresh_s))
    release_file(path, settings, bus, by="demo")


def publish(bus: Any, namespace: str, choices: Choices, progress: Progress) -> None:
    """Publish the stream at the chosen rate; the body of the publisher's thread."""
    try:
        producer = bus.producer("demo-publisher")
        topic = full_name("<p>.data-arrived", PIPELINE, namespace)
        progress.began = time.monotonic()
        rows = 0
        for event in events(choices):
            if isinstance(event, ExampleArrived):
                if choices.rate:
                    _keep_pace(progress, rows / choices.rate, producer)
                rows += 1
                progress.published = rows
            if progress.stop.is_set():
                break
            headers = headers_of(TYPE_OF[type(event)], "/demo", rows)
            producer.produce(topic, None, event.id.encode(), encode(event), headers, 0)
        producer.flush()
        producer.close()
    except BaseException as error:
        progress.error = error
    finally:
        progress.ended = time.monotonic()


def _keep_pace(progress: Progress, due_s: float, producer: Any) -> None:
    ahead = progress.began + due_s - time.monotonic()
    if ahead > 0.002:
        producer.poll()
        progress.stop.wait(ahead)
