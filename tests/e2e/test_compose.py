"""The compose file on a real engine: the demo's stream, a crash that heals by itself, a killed trainer."""

import itertools
import json
import secrets
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.demo.run import FIRST_DAY
from headrace.demo.stories import rainfall_rows
from headrace.infra.local_broker import free_port
from headrace.infra.query_client import QueryFailed, ask
from headrace.infra.sdk import Client
from headrace.schemas.control import ModelUpdated, SnapshotTaken
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, RecordRejected

ROOT = Path(__file__).parents[2]
NOT_COPIED = (".git", ".venv", ".headrace", ".env", ".*_cache", "__pycache__", "pipelines", "dist", "build")
FIRST, MIDDLE, LAST = 2_500, 3_250, 4_000  # days; the contract rejects two of them, 3,595 and 3,596
REJECTS = 2


class Stack:
    """A copy of the clone, up as containers."""

    def __init__(self, compose, folder: Path, settings: dict[str, str]) -> None:
        self.compose, self.folder = compose, folder
        self.query_url = f"http://127.0.0.1:{settings['HEADRACE_QUERY_PORT']}"
        self.query_token = settings["HEADRACE_QUERY_TOKEN"]
        self.client = Client(f"127.0.0.1:{settings['KAFKA_PORT']}")

    def run(self, *command: str) -> str:
        """Output of `docker compose COMMAND`."""
        whole = [*self.compose.docker_compose_command(), *command]
        done = subprocess.run(whole, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}"
        return done.stdout

    def cli(self, *command: str):
        return json.loads(self.run("run", "--rm", "-T", "cli", *command, "--json"))

    def publish(self, first: int, last: int) -> None:
        self.client.publish_many("rainfall", itertools.chain.from_iterable(days(first, last)))

    def events(self, topic: str, type_: type) -> list:
        found = self.client.subscribe(topic, "rainfall", start="earliest", follow=False)
        return [record for record in found if isinstance(record.event, type_)]

    def container(self, service: str) -> dict:
        (id,) = self.run("ps", "--all", "--quiet", service).split()
        inspected = subprocess.run(["docker", "inspect", id], capture_output=True, text=True, check=True)
        return json.loads(inspected.stdout)[0]

    def is_healthy(self, service: str) -> bool:
        return self.container(service)["State"].get("Health", {}).get("Status") == "healthy"


def days(first: int, last: int):
    for number, (features, label) in itertools.islice(enumerate(rainfall_rows(last)), first, None):
        day = FIRST_DAY + timedelta(days=number)
        yield (
            ExampleArrived(id=f"day-{number}", time=day, features=features),
            LabelArrived(id=f"day-{number}", time=day, label=label),
        )


def needs_an_engine() -> None:
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if not shutil.which("docker") or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip(f"needs a container engine: `{' '.join(command)}` fails")


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """The services, built from a copy of the clone and up, in a project and with ports of their own."""
    needs_an_engine()
    testcontainers = pytest.importorskip("testcontainers.compose")
    folder = tmp_path / f"headrace-{secrets.token_hex(4)}"  # the folder's name is the project's
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (folder / "pipelines").mkdir()
    shutil.copy2(ROOT / "headrace" / "examples" / "rainfall.py", folder / "pipelines")
    settings = {
        "HEADRACE_ARTIFACT_KEY": secrets.token_hex(32),
        "HEADRACE_QUERY_TOKEN": secrets.token_hex(16),
        "KAFKA_PORT": str(free_port()),
        "HEADRACE_QUERY_PORT": str(free_port()),
    }
    for name in ("COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "COMPOSE_PROFILES", *settings):
        monkeypatch.delenv(name, raising=False)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    with testcontainers.DockerCompose(folder, build=True, wait=True) as compose:
        made = Stack(compose, folder, settings)
        yield made
        made.client.close()


@pytest.mark.containers
@pytest.mark.slow
def test_a_stream_goes_through_the_containers_and_a_killed_trainer_loses_nothing(stack, until):
    released = stack.cli("release", "pipelines/rainfall.py")
    assert (released["released"], released["release"]) == (True, 1)

    stack.publish(FIRST, MIDDLE)
    champion = until(lambda: stack.events("model-updates", ModelUpdated), 60, "a champion")[0].event
    assert champion.alias == "champion"
    until(lambda: joined(stack) == MIDDLE - FIRST, 60, "every row of the first half joined")

    stack.run("exec", "-T", "joiner", "bash", "-c", "kill -9 $(cat /proc/1/task/1/children)")
    until(lambda: stack.container("joiner")["RestartCount"] == 1, 30, "a restart by the engine")

    stack.run("kill", "-s", "KILL", "trainer")
    assert stack.container("trainer")["State"]["ExitCode"] == 128 + 9
    stack.publish(MIDDLE, LAST)
    rows = LAST - FIRST - REJECTS
    until(lambda: joined(stack) == rows, 60, "every row of the second half joined, without a trainer")
    last = stack.events("labelled-examples", ExampleLabelled)[-1].offset
    assert not [s for s in stack.events("snapshots", SnapshotTaken) if s.event.offset > last]

    stack.run("start", "trainer")
    snapshot = until(
        lambda: next((s.event for s in stack.events("snapshots", SnapshotTaken) if s.event.offset > last), None),
        60,
        "a snapshot of the whole log",
    )
    assert [run.n_learned for run in snapshot.runs.values()] == [rows]
    labelled = [record.event.prediction.id for record in stack.events("labelled-examples", ExampleLabelled)]
    rejected = {record.event.id for record in stack.events("data-rejected", RecordRejected)}
    assert rejected == {"day-3595", "day-3596"}
    assert labelled == [f"day-{day}" for day in range(FIRST, LAST) if f"day-{day}" not in rejected]

    until(lambda: recorded(stack) == rows, 60, "every row in the recorder's store")
    with pytest.raises(QueryFailed, match="HEADRACE_QUERY_TOKEN"):
        ask(stack.query_url, "SELECT 1")
    assert stack.cli("query", "SELECT count(*) AS n FROM labelled_examples")["rows"] == [{"n": rows}]
    until(lambda: all(stack.is_healthy(service) for service in ("trainer", "joiner")), 60, "both healthy again")


def joined(stack: Stack) -> int:
    return len(stack.events("labelled-examples", ExampleLabelled))


def recorded(stack: Stack) -> int:
    found = ask(stack.query_url, "SELECT count(*) FROM labelled_examples", token=stack.query_token)
    return found.rows[0][0]
