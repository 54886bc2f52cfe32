"""What people ask of models: promote the challenger, go back, keep a snapshot."""

from __future__ import annotations

from dataclasses import replace

from headrace.schemas.control import PinAsked, PromotionAsked, RevisionPinned, RollbackAsked
from headrace.schemas.record import Emit
from headrace.services.registry.models import (
    Models,
    advance,
    freeze,
    has_learned,
    next_share,
    promote,
    roll_back,
)
from headrace.services.registry.releases import UNCHANGED, refusal
from headrace.services.registry.verdicts import told


def asked_to_promote(found: Models, event: PromotionAsked) -> list[Emit]:
    """Only a challenger can be promoted: it has passed the infra gate. What has won goes on to its next step.

    By force it is champion at once, without its online gate and its canary.
    """
    champion, challenger = found.aliases.get("champion"), found.aliases.get("challenger")
    models = f"headrace models {event.pipeline}"
    if champion is None:
        reason = f"{event.pipeline} has no version yet: its first one serves by itself once it passed its gates"
        return [refusal(event, reason, f"headrace status {event.pipeline}")]
    if event.version == champion.version:
        return [refusal(event, f"version {event.version} is the champion already", models)]
    if challenger is None or challenger.version != event.version:
        who = "there is no challenger" if challenger is None else f"the challenger is version {challenger.version}"
        back = f"headrace rollback {event.pipeline} --version {event.version}"
        known = any(version.version == event.version for version in found.versions)
        reason = f"version {event.version} is not the challenger ({who})"
        return [refusal(event, reason, back if known else models)]
    because = f": {event.reason}" if event.reason else ""
    won = found.won
    if event.forced and (won is None or next_share(found) is not None):
        return promote(found, f"forced by {event.by}{because}", forced_by=event.by, request=event.request)
    if won is None:
        has_not = "has not passed its online gate yet"
        if challenger.share is not None:
            has_not = f"serves {challenger.share:.0%} in its canary and has not passed that step yet"
        reason = f"version {event.version} {has_not}; --force promotes it all the same"
        return [refusal(event, reason, f"headrace why {event.pipeline}@{event.version}")]
    return advance(found, f"approved by {event.by}{because}; {told(won)}", request=event.request)


def asked_to_roll_back(found: Models, event: RollbackAsked) -> list[Emit]:
    """Back to the live previous model at once; to a version whose run ended, frozen as its newest snapshot."""
    models = f"headrace models {event.pipeline}"
    champion, previous = found.aliases.get("champion"), found.aliases.get("previous")
    if champion is None:
        return [refusal(event, f"{event.pipeline} has no version yet", f"headrace status {event.pipeline}")]
    because = f"asked by {event.by}{f': {event.reason}' if event.reason else ''}"
    if previous is not None and event.version in (None, previous.version):
        return roll_back(found, because, request=event.request)
    if event.version is None:
        reason = "no previous model stands by: it does from a promotion to the guard's verdict; name a version"
        return [refusal(event, reason, models)]
    if event.version == champion.version:
        return [refusal(event, f"version {event.version} is the champion already", models)]
    version = next((one for one in found.versions if one.version == event.version), None)
    if version is None:
        return [refusal(event, f"{event.pipeline} has no version {event.version}", models)]
    if event.uri is None or event.snapshot_offset is None:
        return [refusal(event, f"the request names no snapshot of version {event.version}'s run", models)]
    if has_learned(found, version.run, event.snapshot_offset, found.barred):
        reason = f"version {version.version} at offset {event.snapshot_offset:,} has learned from a barred range"
        return [refusal(event, reason, models)]
    newest = replace(version, snapshot_offset=event.snapshot_offset, uri=event.uri)
    return freeze(found, newest, because, f"version {version.version} was made champion", request=event.request)


def asked_to_pin(found: Models, event: PinAsked) -> list[Emit]:
    """Keep a snapshot of a run that has a version, or let it go the way of all others."""
    show = f"headrace models {event.pipeline}"
    if event.pinned and not any(version.run == event.run for version in found.versions):
        return [refusal(event, f"run {event.run} of {event.pipeline} has no version", show)]
    if event.pinned == (event.uri in found.pinned):
        what = "is pinned already" if event.pinned else "is not pinned"
        reason = f"the snapshot of run {event.run} at offset {event.snapshot_offset:,} {what}"
        return [refusal(event, reason, show, kind=UNCHANGED)]
    if event.pinned:
        found.pinned[event.uri] = event.run, event.snapshot_offset
    else:
        del found.pinned[event.uri]
    told = RevisionPinned.model_validate(event.model_dump())
    return [Emit("decisions", told, event.pipeline.encode(), partition=0)]
