"""`up`, `down`, `status`, `doctor`: the broker and the services of this folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import RUNNING, AnyName, Json, command
from headrace.cli.errors import FAILED
from headrace.errors import HeadraceError, Refused, Unreachable

if TYPE_CHECKING:
    from headrace.infra.settings import Settings

BROKER = "KAFKA_BOOTSTRAP_SERVERS"


@command(RUNNING, "headrace up")
def up(
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long services may take.")
    ] = 60.0,
    drain: Annotated[
        bool, typer.Option("--drain", help="Fold what is in the log, leave the state cleanly, stop: before an upgrade.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a broker (unless one is named), make the shared topics, and start every service in the background.

    The broker: KAFKA_BOOTSTRAP_SERVERS, else Docker, else Kafka's own jars. State and logs go to .headrace/.
    """
    from headrace.cli.starting import wait_for_drain, wait_for_services
    from headrace.infra import processes
    from headrace.infra.local_broker import ensure_broker
    from headrace.infra.subscription import listens
    from headrace.services import SERVICES

    began = time.monotonic()
    settings = with_key()
    named = {BROKER: settings.bootstrap_servers} if "bootstrap_servers" in settings.model_fields_set else {}
    is_there = None if settings.security_protocol == "PLAINTEXT" else listens
    os.environ[BROKER] = address = ensure_broker(settings.home, output.note, named, is_there)
    if drain:
        if processes.is_running(settings.home):
            raise Refused("services of this folder run", "headrace down leaves their state cleanly too")
        processes.up(settings.home, processes.WITH_STATE, drain=True)
        wait_for_drain(settings.home, processes.WITH_STATE, timeout_s)
        if as_json:
            output.print_json({"broker": address, "drained": processes.WITH_STATE})
        else:
            output.say("Every fold is at the end of its log and its state was left cleanly. Next: headrace up")
        return
    prepare_topics()
    processes.up(settings.home)
    wait_for_services(settings.home, tuple(SERVICES), timeout_s)
    seconds = time.monotonic() - began
    if as_json:
        output.print_json({"broker": address, "services": processes.states(settings.home), "seconds": seconds})
        return
    output.say(
        f"{len(SERVICES)} services are up after {seconds:.1f} s; the broker is {address}; logs are in "
        f"{shown(settings.home / 'logs')}/"
    )
    output.say("Next: headrace release pipelines/NAME.py; headrace status; headrace down stops them")


@command(RUNNING, "headrace down")
def down(
    keep_broker: Annotated[bool, typer.Option("--keep-broker", help="Leave the broker that `up` started.")] = False,
    as_json: Json = False,
) -> None:
    """Stop the services of this folder, and the broker that `up` started. Nothing is deleted: `up` goes on."""
    from headrace.infra import processes
    from headrace.infra.local_broker import stop_local_broker

    home = connect.settings().home
    services = processes.down(home)
    broker = False if keep_broker else stop_local_broker(home)
    if as_json:
        output.print_json({"services_stopped": services, "broker_stopped": broker})
        return
    told = [what for what, stopped in (("the services", services), ("the broker", broker)) if stopped]
    output.say(f"Stopped {' and '.join(told)}." if told else "Nothing of this folder was running.")


@command(RUNNING, "headrace status rainfall")
def status(name: AnyName = None, as_json: Json = False) -> None:
    """Show services, pipelines, how far the first model is and why, the last verdict, scores, the newest alert, lag."""
    from headrace.cli import facts, lag
    from headrace.infra import processes
    from headrace.infra.client_errors import check_released

    settings = connect.settings()
    report: dict[str, Any] = {"services": processes.states(settings.home), "pipelines": [], "lag": {}}
    try:
        with connect.client() as client:
            report["broker"] = client.address
            found = facts.read(client)
            check_released(name, found)
            report["pipelines"] = [facts.status_of(client, one) for one in found.values() if name in (None, one.name)]
            learning = {one.name for one in found.values() if any(run.state == "live" for run in one.runs.values())}
            report["lag"] = lag.lags(client, [one for one in found if name in (None, one)], learning)
    except Unreachable as error:
        report["broker"], report["error"] = None, str(error)
    if as_json:
        output.print_json(report)
    else:
        from headrace.cli.status_view import show_status

        show_status(report, settings.home)
    if report["broker"] is None:
        raise Unreachable(report["error"], "headrace up")


@command(RUNNING, "headrace doctor")
def doctor(as_json: Json = False) -> None:
    """Check what Headrace needs, a line for each: libraries, settings, key, disk, broker, topics, services, files.

    Exit status 1: something must be mended; the line says how.
    """
    from headrace.cli.checks import run_checks

    marks = {"ok": "ok  ", "note": "note", "warn": "WARN", "fail": "FAIL"}
    results = []
    for result in run_checks():
        results.append(result)
        if not as_json:
            style = {"ok": None, "note": "yellow", "warn": "bold yellow", "fail": "bold red"}[result.level]
            output.say(f"{marks[result.level]}  {result.what}{f'; {result.next}' if result.next else ''}", style)
    if as_json:
        output.print_json([result._asdict() for result in results])
    if any(result.level == "fail" for result in results):
        raise typer.Exit(FAILED)


def with_key() -> Settings:
    """The settings, with a key made into `.env` where there is none. Raises Refused beside state of another key."""
    from headrace.infra.settings import make_key

    settings = connect.settings()
    if settings.artifact_key is None:
        if settings.state_dir.exists() and any(settings.state_dir.rglob("data.mdb")):
            raise Refused(
                f"no key is set, and the state in {shown(settings.state_dir)} was written with one",
                "set HEADRACE_ARTIFACT_KEY to it, or put the .env back that has it: models are signed with it too",
            )
        make_key(Path())
        output.note("Wrote a key for your models to .env; keep it, and keep it secret.")
        settings = connect.settings()
    return settings


def prepare_topics() -> None:
    """Create the shared topics, or only check them where the settings say so. Raises HeadraceError."""
    from headrace.infra import create_topics

    with connect.bus() as (bus, settings):
        if settings.create_topics:
            create_topics.create(bus, settings.namespace)
        problems = create_topics.check(bus, settings.namespace)
    if problems:
        raise HeadraceError("; ".join(map(str, problems[:3])), problems[0].next)


def shown(path: Path) -> Path:
    """A path as one would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
