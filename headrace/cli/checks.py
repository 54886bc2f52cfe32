"""What `doctor` checks: each gives a line, and where something must be mended, how."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from headrace.cli import connect
from headrace.cli.errors import SERVICES_EXTRA, tell
from headrace.errors import HeadraceError

OLDEST = (3, 11)
SERVICES_NEED = (
    "confluent_kafka",
    "lmdb",
    "river",
    "duckdb",
    "pyarrow",
    "fsspec",
    "fastapi",
    "uvicorn",
    "faust",
    "structlog",
)
SPACE_GB = 1.0


class Result(NamedTuple):
    """One line: ok, a note, a warning, or a failure with what to do."""

    level: str
    what: str
    next: str = ""


def run_checks() -> Iterator[Result]:
    """Every check in order; one that depends on another that failed is left out."""
    for checks in ((python, libraries, settings), (key, disk, broker), (topics, services, store)):
        failed = False
        for check in checks:
            for result in _guarded(check):
                failed = failed or result.level == "fail"
                yield result
        if failed:
            break
    yield from pipeline_files()


def python() -> Iterator[Result]:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST:
        yield Result("fail", f"Python {version}", f"use Python {'.'.join(map(str, OLDEST))} or newer")
    else:
        yield Result("ok", f"Python {version}")


def libraries() -> Iterator[Result]:
    """What services import."""
    missing = [name for name in SERVICES_NEED if name not in sys.modules and importlib.util.find_spec(name) is None]
    if missing:
        yield Result("note", f"without {', '.join(missing)} only publishing and reading work", SERVICES_EXTRA)
    else:
        yield Result("ok", "all libraries of the services are installed")


def settings() -> Iterator[Result]:
    """Environment variables and `.env`."""
    from headrace.infra.settings import SettingsError

    try:
        found = connect.settings()
    except SettingsError as error:
        yield Result("fail", str(error))
        return
    given = sorted(name for name in found.model_fields_set if "key" not in name and "password" not in name)
    told = ", ".join(f"{name}={getattr(found, name)}" for name in given)
    yield Result("ok", f"settings: {told or 'all at their defaults'}")


def key() -> Iterator[Result]:
    """The key that signs models, and who can read it."""
    from headrace.infra.settings import SettingsError

    try:
        connect.settings().key()
    except SettingsError as error:
        yield Result("fail", str(error), "headrace up writes one to .env")
        return
    path = Path(".env")
    if path.exists() and path.stat().st_mode & 0o077:
        yield Result("fail", "others can read .env, which holds the key that signs models", "chmod 600 .env")
    else:
        yield Result("ok", "a key for artifacts is set")


def disk() -> Iterator[Result]:
    """Room and rights where state and artifacts go."""
    found = connect.settings()
    folders = {"HEADRACE_HOME": found.home}
    if "://" not in found.artifact_url and not Path(found.artifact_url).is_relative_to(found.home):
        folders["HEADRACE_ARTIFACT_URL"] = Path(found.artifact_url)
    for setting, folder in folders.items():
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free_gb = shutil.disk_usage(place).free / 1e9
        try:
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            yield Result("fail", f"{place}: {error.strerror}", f"set {setting} to a folder that can be written")
            continue
        if free_gb < SPACE_GB:
            yield Result(
                "fail", f"only {free_gb:.1f} GB are free in {place}, for state, models and the store", "free some"
            )
        else:
            yield Result("ok", f"{free_gb:.0f} GB are free in {place}")


def broker() -> Iterator[Result]:
    """Whether a broker answers, or what one could be started with."""
    from headrace.infra.local_broker import THREE_WAYS, answers, has_docker
    from headrace.infra.subscription import broker_address

    found = connect.settings()
    address = broker_address(found)
    if found.security_protocol != "PLAINTEXT" or any(answers(server.strip()) for server in address.split(",")):
        try:
            with connect.client():
                yield Result("ok", f"a broker answers at {address}")
        except HeadraceError as error:
            yield Result("fail", str(error), error.next or "")
        return
    if "bootstrap_servers" in found.model_fields_set:
        yield Result(
            "fail", f"no broker answers at KAFKA_BOOTSTRAP_SERVERS={address}", "start it or unset the variable"
        )
        return
    ways = [
        name
        for name, there in (
            ("Docker", has_docker()),
            ("Java and Maven", bool(shutil.which("java") and shutil.which("mvn"))),
        )
        if there
    ]
    if ways:
        yield Result("fail", f"no broker runs; {' and '.join(ways)} could start one", "headrace up")
    else:
        yield Result("fail", THREE_WAYS)


def topics() -> Iterator[Result]:
    """Whether every topic is as it must be."""
    from headrace.cli.topics import check_all

    with connect.bus() as (bus, found):
        if f"{found.namespace}control-log" not in bus.topics():
            yield Result("note", "there are no topics of Headrace yet", "headrace up makes them")
            return
        problems, weak = check_all(bus, found)
    for found_wrong in problems[:5]:
        yield Result("fail", str(found_wrong))
    if len(problems) > 5:
        yield Result("fail", f"{len(problems) - 5} more topic settings are wrong", "headrace topics --check lists them")
    if not problems:
        yield Result("ok", "all topics are there and as they must be")
    for one in weak:
        yield Result("warn", one.says, one.next)


def services() -> Iterator[Result]:
    """Which services of this folder run."""
    from headrace.infra import processes

    home = connect.settings().home
    states = processes.states(home)
    down = [name for name, state in states.items() if not state["alive"]]
    if len(down) == len(states):
        yield Result("note", "no services of this folder run (they may run elsewhere)", "headrace up")
    elif down:
        yield Result(
            "fail", f"{', '.join(down)} {'does' if len(down) == 1 else 'do'} not run", f"read {home}/logs/{down[0]}.log"
        )
    else:
        yield Result("ok", f"{len(states)} services run")


def store() -> Iterator[Result]:
    """Whether the recorder answers, and what no service could read."""
    from headrace.infra.query_client import StoreUnreachable, query

    try:
        answer = query(connect.store(), "SELECT count(*) FROM dead_letters")
    except StoreUnreachable as error:
        yield Result("note", str(error), "headrace up")
    else:
        yield Result("ok", f"the recorder answers queries ({answer.seconds * 1000:.0f} ms)")
        ((unread,),) = answer.rows
        if unread:
            look = 'headrace query "SELECT * FROM dead_letters"'
            yield Result("note", f"{unread:,} records could not be read, and nothing was made of them", look)


def pipeline_files() -> Iterator[Result]:
    """Whether the pipeline files of this folder can be loaded."""
    from headrace.infra.pipeline_files import PipelineFileError, load_file

    for path in sorted(Path("pipelines").glob("*.py")):
        try:
            yield Result("ok", f"{path} defines {load_file(path).name}")
        except PipelineFileError as error:
            yield Result("fail", str(error))


def _guarded(check: Callable[[], Iterator[Result]]) -> Iterator[Result]:
    """A check's lines; what it raises becomes a line of its own."""
    try:
        yield from check()
    except Exception as error:
        told = tell(error)
        yield Result("fail", told.message, told.next or "")
