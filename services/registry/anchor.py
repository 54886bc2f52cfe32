"""The anchor: an older revision of the champion's run that answers a sample beside its newer ones.

The champion's revisions serve without a gate that needs labels; the anchor shows whether they got worse. It begins with
what an alias move made champion, and moves on to the revision from which a refresh test began, once that test passed.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.schemas.control import ModelUpdated, ModelValidated
from headrace.schemas.record import Emit
from headrace.services.registry.models import Models, freeze, has_learned, numbers, point, remove


def anchored(found: Models, emits: list[Emit]) -> list[Emit]:
    """Where the champion moved, so does the anchor; one that serves frozen needs none."""
    moved = [emit.event for emit in emits if isinstance(emit.event, ModelUpdated) and emit.event.alias == "champion"]
    if not moved:
        return []
    champion = moved[-1]
    if champion.follows and found.released.definition.policies.rollout.anchor:
        return [point(found, "anchor", champion, f"version {champion.version} as it became champion", follows=False)]
    return remove(found, "anchor", f"version {champion.version} became champion")


def name_of(anchor: ModelUpdated) -> str:
    """A revision, as the verdicts of the refresh test name it."""
    return f"{anchor.run}@{anchor.snapshot_offset}"


def refreshed(found: Models, event: ModelValidated) -> list[Emit]:
    """Passed: the anchor moves on, once the snapshot is found. Failed: the anchor serves, and a fork is to follow."""
    anchor, champion = found.aliases.get("anchor"), found.aliases.get("champion")
    if anchor is None or champion is None or (champion.run, name_of(anchor)) != (event.run, event.against):
        return []  # a verdict about revisions of before
    over = f"over {event.n_labels:,} labels"
    version = next(one for one in found.versions if one.version == champion.version)
    if event.verdict == "pass":
        if event.snapshot_uri is None or event.snapshot_offset is None:
            return []  # the evaluator looks for it, and says so in a verdict of its own
        newer = replace(version, snapshot_offset=event.snapshot_offset, uri=event.snapshot_uri)
        found.epoch += 1
        return [point(found, "anchor", newer, "its newer revisions passed the refresh test", follows=False)]
    if event.verdict != "fail" or has_learned(found, anchor.run, anchor.snapshot_offset, found.barred):
        return []
    bad = numbers(tuple(check for check in event.checks if check.verdict != "pass"))
    back = replace(version, snapshot_offset=anchor.snapshot_offset, uri=anchor.uri)
    reason = f"its revisions since offset {anchor.snapshot_offset:,} are worse {over}: {bad}"
    return freeze(found, back, reason, f"version {version.version} went back to its anchor")
