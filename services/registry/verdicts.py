"""What verdicts do to the aliases: first champion, challenger, canary steps, promotion, rollback by the guard."""

from __future__ import annotations

import sys
from typing import get_args

from headrace.schemas.control import Check, ModelUpdated, ModelValidated, RequestRefused
from headrace.schemas.policies import Metric
from headrace.schemas.record import Emit
from headrace.services.registry.anchor import refreshed
from headrace.services.registry.models import (
    Models,
    Run,
    add_version,
    advance,
    has_learned,
    numbers,
    point,
    remove,
    roll_back,
)

BY_CLOCKWORK = ("schedule", "new_data")


def judged(found: Models, event: ModelValidated, known_ms: int) -> list[Emit]:
    """Act on one verdict; one that is stale is refused where somebody waits for it, else passed over."""
    match event.stage:
        case "offline" | "infra" if event.verdict == "pass":
            return _gated(found, event, known_ms)
        case "online":
            return _online(found, event)
        case "guard":
            return _guarded(found, event)
        case "refresh":
            return refreshed(found, event)
        case _:
            return []


def _gated(found: Models, event: ModelValidated, known_ms: int) -> list[Emit]:
    run = found.runs.get(event.run)
    if run is None or run.version is not None:  # it ended, or was judged before
        return []
    if event.stage == "offline":
        run.passed_to, run.checks, run.n_labels = event.offset, event.checks, event.n_labels
        return []
    champion = found.aliases.get("champion")
    if run.passed_to != event.offset:
        return []
    if champion is None and event.epoch != found.epoch:
        return [_stale(event, f"the verdict is of alias epoch {event.epoch}, the aliases are at {found.epoch}")]
    if champion is not None and event.against != champion.run:
        reason = f"it was compared with {event.against or 'no champion'}, and version {champion.version} serves"
        return [_stale(event, f"{reason} (run {champion.run})")]
    if event.snapshot_uri is None or event.snapshot_offset is None:
        return [_stale(event, "the verdict names no snapshot that could serve")]
    # the snapshot may be from before a range that was barred since, and the run, which began before too, learns on
    learns_to = sys.maxsize if found.released.definition.policies.learning == "online" else event.snapshot_offset
    if has_learned(found, event.run, learns_to, found.barred):
        return [_stale(event, "it has learned from a range that is barred, or is about to")]
    return _new_version(found, run, event, (event.snapshot_offset, event.snapshot_uri), known_ms)


def _new_version(
    found: Models, run: Run, event: ModelValidated, snapshot: tuple[int, str], known_ms: int
) -> list[Emit]:
    """The first one serves; later ones are challengers, but for the fork that a rollback asked for."""
    passed = numbers(tuple(check for check in run.checks if check.name != "answered" and check.slice is None))
    champion = found.aliases.get("champion")
    what = "first model" if champion is None else "offline and infra gates passed"
    version = add_version(
        found, event.run, run.release, snapshot, run.n_labels, known_ms, f"{what} after {run.n_labels} labels: {passed}"
    )
    run.version = version.version
    found.epoch += 1
    follows = found.released.definition.policies.learning == "online"
    if champion is not None and run.trigger != "rollback":
        return [point(found, "challenger", version, version.reason, follows=follows)]
    forced = any(check.name == "forced" for check in run.checks)
    forced_by = f"gates.first=off in release {run.release}" if forced else None
    return [point(found, "champion", version, version.reason, follows=follows, forced_by=forced_by)]


def _online(found: Models, event: ModelValidated) -> list[Emit]:
    challenger, champion = found.aliases.get("challenger"), found.aliases.get("champion")
    if challenger is None or champion is None or challenger.run != event.run or champion.run != event.against:
        return []  # a verdict about who is not in this race any more
    in_canary = challenger.share is not None
    if in_canary != (event.share is not None):
        return []
    if event.verdict != "pass":
        # of an earlier step too: that the challenger is worse, or gives no answers, holds at any share
        if event.epoch < challenger.epoch and not in_canary:
            return []
        found.epoch += 1
        return remove(found, "challenger", _lost(event))
    if event.share != challenger.share or event.epoch < challenger.epoch or found.won is not None:
        return []
    if not in_canary and not (_is_enough(event, alpha_of(found, challenger)) and _is_worth_it(found, event)):
        return []
    found.won = event
    if found.paused or _waits_for_approval(found):
        why = "automatic promotion is paused" if found.paused else "this pipeline's policy asks for a person's approval"
        command = f"headrace promote {event.pipeline} {challenger.version}"
        return [_stale(event, f"{why}: {_deciding(event)}", command)]
    return take_over(found)


def take_over(found: Models) -> list[Emit]:
    """Let the challenger that has won go on, if one has: to its next canary step, or to be champion."""
    return [] if found.won is None or _waits_for_approval(found) else advance(found, told(found.won))


def _waits_for_approval(found: Models) -> bool:
    """A person is asked once, before the challenger serves anybody: the canary's steps then go by themselves."""
    return found.released.definition.policies.gates.approval and found.aliases["challenger"].share is None


def told(won: ModelValidated) -> str:
    """What a challenger has passed, with the numbers."""
    what = "online gate" if won.share is None else f"canary step of {won.share:.0%}"
    return f"{what} passed over {won.n_labels:,} labels: {_deciding(won)}"


def _lost(event: ModelValidated) -> str:
    gate = "online gate" if event.share is None else f"canary step of {event.share:.0%}"
    what = {"fail": f"failed its {gate}", "error": f"broke in its {gate}"}.get(
        event.verdict, "came to no verdict online" if event.share is None else f"came to no verdict in its {gate}"
    )
    return f"it {what} over {event.n_labels:,} labels: {_deciding(event)}"


def _guarded(found: Models, event: ModelValidated) -> list[Emit]:
    champion, previous = found.aliases.get("champion"), found.aliases.get("previous")
    if champion is None or previous is None or (champion.run, previous.run) != (event.run, event.against):
        return []
    over = f"over {event.n_labels:,} labels: {_deciding(event)}"
    if event.verdict == "fail":
        return roll_back(found, f"the guard found version {champion.version} worse {over}")
    if event.verdict == "error":
        return []
    found.epoch += 1
    return remove(found, "previous", f"version {champion.version} stood the guard {over}")


def _deciding(event: ModelValidated) -> str:
    """The checks that were not passed; where all were, E and the scores of both arms. The verdict has them all."""
    bad = tuple(check for check in event.checks if check.verdict != "pass")
    named = tuple(check for check in event.checks if check.name == "evidence" or check.name in get_args(Metric))
    return numbers(bad or named or event.checks)


def alpha_of(found: Models, challenger: ModelUpdated) -> float:
    """How often this challenger may be promoted wrongly."""
    run = found.runs.get(challenger.run)
    own = run.alpha if run is not None else None
    return found.released.definition.policies.gates.alpha if own is None else own


def _is_enough(event: ModelValidated, alpha: float) -> bool:
    """Whether the evidence reaches 1 / alpha; a gate without such a check decided by itself."""
    evidence = _named(event, "evidence")
    return evidence is None or (evidence.value is not None and evidence.value >= 1 / alpha)


def _named(event: ModelValidated, name: str) -> Check | None:
    return next((check for check in event.checks if check.name == name), None)


def _is_worth_it(found: Models, event: ModelValidated) -> bool:
    """Whether it gains enough for one that only a clock or a count of labels asked for: each such move is a cost."""
    run = found.runs.get(event.run)
    gain = _named(event, "gain")
    if run is None or run.trigger not in BY_CLOCKWORK or gain is None or gain.value is None:
        return True
    return gain.value >= found.released.definition.policies.gates.scheduled_gain


def _stale(event: ModelValidated, reason: str, command: str | None = None) -> Emit:
    refused = RequestRefused(
        pipeline=event.pipeline,
        request=event.request,
        kind="ModelValidated",
        reason=f"run {event.run} passed but does not serve: {reason}",
        numbers={"run": event.run, "offset": event.offset},
        next=command or f"headrace runs {event.pipeline}",
    )
    return Emit("decisions", refused, event.pipeline.encode(), partition=0)
