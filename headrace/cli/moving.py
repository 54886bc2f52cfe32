"""`promote`, `rollback`, `pin`, `pause` and their opposites: what a person decides about models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, Json, Name, command, operator
from headrace.cli.inspecting import Model
from headrace.cli.releases import Wait
from headrace.errors import InvalidInput

if TYPE_CHECKING:
    from headrace.schemas.control import ControlEvent, RollbackAsked

Reason = Annotated[str, typer.Option(help="Why, for the log.")]


@command(MODELS, "headrace promote rainfall 2")
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The challenger's version.")],
    reason: Reason = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also before its online gate has passed; recorded as forced, by you.")
    ] = False,
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Let a challenger serve: where a policy asks for your approval, or by force.

    It has passed its offline and infra gates. The model that served until now becomes previous and learns on behind it
    until the guard's verdict. Exit status 3: refused, with the reason.
    """
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import PromotionAsked

    asked = PromotionAsked(
        pipeline=name, request=new_request("promote"), by=operator(), version=version, reason=reason, forced=force
    )
    _ask(asked, timeout_s, as_json)


@command(MODELS, "headrace rollback rainfall --from 2026-01-31T11:00Z --to 2026-01-31T12:00Z")
def rollback(
    name: Name,
    version: Annotated[
        int | None, typer.Option("--version", metavar="VERSION", min=1, help="Another than the previous one.")
    ] = None,
    bad_from: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="When bad data began to come (UTC).")
    ] = None,
    bad_to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="When good data came again.")] = None,
    reason: Reason = "",
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Go back to the previous model, at once; to an older version; or to before bad data, which is learned no more.

    From a promotion to the guard's verdict the previous model learns on and stands by. A version whose run ended serves
    as its newest snapshot and learns no more, until a training that begins with it has passed its gates.

    With --from and --to, examples that came in that time, or whose label did, are barred from every later run. The
    newest snapshot that did not learn from them serves, frozen; a run that begins with it learns all others since,
    ahead of every other training, and takes over when it has passed its gates. Where no such snapshot is kept, the
    champion serves on until a run from the log's start has. Labels that come later for examples of that time need the
    command once more. Exit status 3: refused, with the reason.
    """
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import RollbackAsked

    asked = RollbackAsked(pipeline=name, request=new_request("rollback"), by=operator(), reason=reason, version=version)
    if bad_from is not None or bad_to is not None:
        _ask(_of_a_range(asked, bad_from, bad_to), timeout_s, as_json)
    else:
        _ask(asked if version is None else _of_a_version(asked), timeout_s, as_json)


@command(MODELS, 'headrace pin rainfall@1@1204 --reason "served on the day of the audit"')
def pin(model: Model, reason: Reason = "", timeout_s: Wait = 30.0, as_json: Json = False) -> None:
    """Keep one revision of a model for ever: others are thinned out, to one an hour, then one a day, for 30 days.

    MODEL is named as in `headrace reproduce`. Exit status 3: refused, with the reason.
    """
    _pin(model, reason, timeout_s, as_json, pinned=True)


@command(MODELS, "headrace unpin rainfall@1@1204")
def unpin(model: Model, reason: Reason = "", timeout_s: Wait = 30.0, as_json: Json = False) -> None:
    """Let a pinned revision be thinned out like the others; a version's own snapshot stays in any case."""
    _pin(model, reason, timeout_s, as_json, pinned=False)


@command(MODELS, 'headrace pause rainfall --reason "sensor exchange"')
def pause(name: Name, reason: Reason = "", timeout_s: Wait = 30.0, as_json: Json = False) -> None:
    """Stop automatic promotion of a pipeline's challengers; trainings and gates go on."""
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import PauseAsked

    _ask(PauseAsked(pipeline=name, request=new_request("pause"), by=operator(), reason=reason), timeout_s, as_json)


@command(MODELS, "headrace resume rainfall")
def resume(name: Name, reason: Reason = "", timeout_s: Wait = 30.0, as_json: Json = False) -> None:
    """Let automatic promotion go on; a challenger that has won meanwhile takes over now."""
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import ResumeAsked

    _ask(ResumeAsked(pipeline=name, request=new_request("resume"), by=operator(), reason=reason), timeout_s, as_json)


def _pin(model: str, reason: str, timeout_s: float, as_json: bool, *, pinned: bool) -> None:
    """Ask, and see that the bytes are there: before, and after, as they may have been thinned out meanwhile."""
    from headrace.infra.artifacts import Artifacts
    from headrace.infra.user_events import new_request
    from headrace.reproduce import log
    from headrace.schemas.control import PinAsked

    with connect.bus() as (bus, settings):
        roots = log.find(model, bus, settings.namespace)
    artifacts = Artifacts(settings.artifact_url, settings.key())
    if pinned:
        artifacts.verify(roots.uri)
    asked = PinAsked(
        pipeline=roots.started.pipeline,
        request=new_request("pin"),
        by=operator(),
        run=roots.started.run,
        snapshot_offset=roots.offset,
        uri=roots.uri,
        reason=reason,
        pinned=pinned,
    )
    _ask(asked, timeout_s, as_json)
    if pinned:
        artifacts.verify(roots.uri)


def _of_a_version(asked: RollbackAsked) -> RollbackAsked:
    """With the newest snapshot of the version's run that learned from no barred range, if there is one."""
    from headrace.cli import bad_range
    from headrace.reproduce import log

    with connect.bus() as (bus, settings):
        log.check_released(asked.pipeline, bus, settings.namespace)
        good = bad_range.of_a_version(asked.pipeline, asked.version or 0, bus, settings.namespace)
    return asked if good is None else asked.model_copy(update={"uri": good.uri, "snapshot_offset": good.offset})


def _of_a_range(asked: RollbackAsked, bad_from: str | None, bad_to: str | None) -> RollbackAsked:
    """With the range's offsets and the newest snapshot without them. Raises InvalidInput, Missing."""
    from headrace.cli import bad_range
    from headrace.cli.cells import to_time
    from headrace.infra.artifacts import Artifacts
    from headrace.reproduce import log

    again = f"headrace rollback {asked.pipeline} --from 2026-01-31T11:00Z --to 2026-01-31T12:00Z"
    if bad_from is None or bad_to is None or asked.version is not None:
        what = "--version is found by itself" if asked.version is not None else "one of them is missing"
        raise InvalidInput(f"bad data is named by --from and --to: {what}", again)
    from_ms, to_ms = (
        round(to_time(text, option).timestamp() * 1000) for text, option in ((bad_from, "--from"), (bad_to, "--to"))
    )
    if from_ms >= to_ms:
        raise InvalidInput(f"--from {bad_from} is not before --to {bad_to}", again)
    with connect.bus() as (bus, settings):
        log.check_released(asked.pipeline, bus, settings.namespace)
        artifacts = Artifacts(settings.artifact_url, settings.key())
        found = bad_range.look_up(asked.pipeline, from_ms, to_ms, bus, artifacts, settings.namespace)
    output.note(
        f"{found.examples:,} labelled examples came from {bad_from} to {bad_to}, or their labels did; "
        + ("no snapshot from before them is kept." if found.good is None else f"going back to {found.good.name}.")
    )
    return asked.model_copy(update=found.fields())


def _ask(asked: ControlEvent, timeout_s: float, as_json: bool) -> None:
    from headrace.infra.client_errors import check_released
    from headrace.why.sentences import sentence

    with connect.client() as client:
        check_released(asked.pipeline, client.pipelines(), client.retired)
        answer = client.request(asked, timeout_s=timeout_s)
    if as_json:
        output.print_json(answer)
    else:
        output.say(sentence(answer))
