"""The demo's steps: a broker, the services, a release, a stream, a report, a clean stop."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.demo.observe import Observed
from headrace.demo.stories import FAST, SLOW, STORIES, Story
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.schemas.topics import full_name

SERVICES_START_S = 90.0  # a slow laptop imports River for half a minute
FIRST_DAY = datetime(1949, 1, 1, tzinfo=UTC)
WATCHED = (
    "<p>.predictions",
    "<p>.labelled-examples",
    "<p>.data-rejected",
    "<p>.snapshots",
    "drift-alerts",
    "training-requests",
    "training-runs",
    "model-updates",
    "model-validations",
    "pipelines",
)


@dataclass(frozen=True)
class Choices:
    """What a person may choose. `rate` is rows a second: None as the story is told, infinite as fast as it goes."""

    story: Story = STORIES["rainfall"]
    rate: float | None = None
    rows: int = STORIES["rainfall"].rows
    label_delay_rows: int = 0
    home: Path = Path(".headrace/demo")
    keep: bool = False

    def file(self) -> Path:
        """Where the pipeline lies, as a user's own would."""
        return self.home / "pipelines" / f"{self.story.name}.py"

    def pace(self) -> str:
        """How fast the rows go, in words."""
        if self.rate is None:
            slow = self.story.slow
            return f"at {FAST:g} rows/s, from row {slow.start:,} to {slow.stop:,} at {SLOW:g} so that one can watch"
        return "as fast as it goes" if self.rate == float("inf") else f"at {self.rate:g} rows/s"


@dataclass
class Progress:
    """What the publisher has done so far."""

    published: int = 0
    bad_ms: tuple[int, int] = (0, 0)
    began: float = 0.0
    ended: float = 0.0
    error: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)


def events(choices: Choices) -> Iterator[ExampleArrived | LabelArrived]:
    """The stream as the demo publishes it: each example, and its label `label_delay_rows` rows later."""
    late: list[LabelArrived] = []
    for number, (features, label) in enumerate(itertools.islice(choices.story.stream(), choices.rows)):
        day = FIRST_DAY + timedelta(days=number)
        yield ExampleArrived(id=f"{choices.story.unit}-{number}", time=day, features=features)
        late.append(LabelArrived(id=f"{choices.story.unit}-{number}", time=day, label=label))
        if len(late) > choices.label_delay_rows:
            yield late.pop(0)
    yield from late


def run(choices: Choices, say: Any) -> dict[str, Any]:
    """Run the demo and return its report as data; `say` (rich Console) shows it as it goes."""
    from headrace.cli.starting import wait_for_services
    from headrace.demo.live import watch_live
    from headrace.demo.report import make_report
    from headrace.infra import processes
    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.local_broker import ensure_broker, running, stop_local_broker
    from headrace.infra.settings import Settings
    from headrace.services import SERVICES

    began = time.monotonic()
    home = choices.home.resolve()
    with contextlib.suppress(OSError):
        processes.down(home)
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
    processes.up(home)
    try:
        wait_for_services(home, tuple(SERVICES), SERVICES_START_S)
        say.print(f"[dim]Services are up after {time.monotonic() - began:.1f} s[/]")
        release_story(settings, bus, choices)
        progress, seen = Progress(), Observed(choices.story.measure)
        publisher = threading.Thread(target=publish, args=(bus, namespace, choices, progress), daemon=True)
        watch_live(bus, namespace, choices, seen, progress, publisher, say)
        if progress.error is not None:
            raise progress.error
        report = make_report(settings, bus, choices, seen, progress, time.monotonic() - began, say)
    finally:
        if not choices.keep:
            say.print("[dim]Stopping the services[/]")
            processes.down(home)
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


def release_story(settings: Any, bus: Any, choices: Choices) -> None:
    """Release the example as a user would, from a file of one's own."""
    from headrace.infra.release import release_file

    choices.file().parent.mkdir(parents=True, exist_ok=True)
    choices.file().write_bytes(choices.story.source())
    release_file(choices.file(), settings, bus, by="demo")


def publish(bus: Any, namespace: str, choices: Choices, progress: Progress) -> None:
    """Publish the stream at the chosen rate; the body of the publisher's thread."""
    try:
        producer = bus.producer("demo-publisher")
        topic = full_name("<p>.data-arrived", choices.story.name, namespace)
        progress.began = time.monotonic()
        rows, due_s = 0, 0.0
        for event in events(choices):
            if isinstance(event, ExampleArrived):
                _keep_pace(progress, due_s, producer)
                _note_bad_time(progress, choices.story.bad, rows, producer)
                due_s += 1 / (choices.rate or choices.story.rate(rows))
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


def _note_bad_time(progress: Progress, bad: range | None, row: int, producer: Any) -> None:
    """Between which times the bad rows come, none of the others: what a person would find in the alert's time."""
    if bad is not None and row in (bad.start, bad.stop):
        producer.flush()
        now_ms = time.time_ns() // 1_000_000
        began_ms, _ = progress.bad_ms
        progress.bad_ms = (now_ms, now_ms) if row == bad.start else (began_ms, now_ms)


def _keep_pace(progress: Progress, due_s: float, producer: Any) -> None:
    ahead = progress.began + due_s - time.monotonic()
    if ahead > 0.002:
        producer.poll()
        progress.stop.wait(ahead)
