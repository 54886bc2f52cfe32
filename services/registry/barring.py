"""A bad range of examples: what learned from it serves no more, and what is learned later leaves it out.

Who asks has read the range's offsets, and the newest snapshot that did not learn from it; the runs that stand in the
log say whether that is so.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.ranges import Ranges, union
from headrace.schemas.control import Alias, ModelUpdated, RangeBarred, RollbackAsked
from headrace.schemas.record import Emit
from headrace.services.registry.models import Models, Version, back_to_shadow, has_learned, learned_to, point, remove
from headrace.services.registry.releases import refusal


def is_about_a_range(event: RollbackAsked) -> bool:
    """Whether a rollback is asked for because of what was learned, not of who learned it."""
    return bool(event.bad_ranges) or event.bad_from_ms is not None or event.bad_to_ms is not None


def asked_to_bar(found: Models, event: RollbackAsked) -> list[Emit]:
    """Bar the range; the champion, if it learned from it, gives way to the snapshot that is named, served frozen.

    Where none is, the champion serves on until a run from the log's start has passed its gates. A challenger or a
    previous model that learned from the range loses its name.
    """
    ranges, before = union(event.bad_ranges), found.barred
    problem, command = _problem(found, event, ranges)
    if problem:
        return [refusal(event, problem, command)]
    found.barred = union(before, ranges)
    because = f"asked by {event.by}{f': {event.reason}' if event.reason else ''}"
    barred = RangeBarred(
        pipeline=event.pipeline,
        start_offset=ranges[0][0],
        end_offset=ranges[-1][1],
        request=event.request,
        reason=because,
        ranges=ranges if len(ranges) > 1 else (),
    )
    told, moved = _learned_again(found, event, barred, because)
    for alias in ("challenger", "previous"):
        moved += _freed(found, alias, ranges)
    return [Emit("decisions", told, event.pipeline.encode(), partition=0), *moved]


def _problem(found: Models, event: RollbackAsked, ranges: Ranges) -> tuple[str, str]:
    again = f"headrace rollback {event.pipeline} --from TIME --to TIME"
    if not ranges or any(first < 0 or first >= after for first, after in event.bad_ranges):
        return "the request names no offsets of labelled examples: nothing would be left out", again
    if union(found.barred, ranges) == found.barred:
        return "the range is barred already: no run learns it", f"headrace runs {event.pipeline}"
    if (event.uri is None) != (event.snapshot_offset is None) or (event.uri is None) != (event.version is None):
        return "the request names a version or a snapshot, but not both", again
    if event.version is None or event.snapshot_offset is None:
        return "", ""
    version = next((one for one in found.versions if one.version == event.version), None)
    if version is None:
        return f"{event.pipeline} has no version {event.version}", f"headrace models {event.pipeline}"
    if has_learned(found, version.run, event.snapshot_offset, union(found.barred, ranges)):
        what = f"version {event.version} at offset {event.snapshot_offset:,}"
        return f"{what} has learned from the range itself, or from one that was barred before", again
    return "", ""


def _learned_again(
    found: Models, event: RollbackAsked, barred: RangeBarred, because: str
) -> tuple[RangeBarred, list[Emit]]:
    """What a run is to learn again without the range, and the champion's move."""
    champion = found.aliases.get("champion")
    anew = {"again_from": 0, "release": found.released.release}
    if champion is None:
        return barred.model_copy(update=anew), []
    if not has_learned(found, champion.run, learned_to(champion), found.barred):
        is_stand_in = not champion.follows and found.released.definition.policies.learning == "online"
        fork = _fork(found, champion)
        return barred.model_copy(update=fork) if is_stand_in else barred, []
    version = next((one for one in found.versions if one.version == event.version), None)
    if version is None or event.uri is None or event.snapshot_offset is None:
        return barred.model_copy(update=anew), []
    good = replace(version, snapshot_offset=event.snapshot_offset, uri=event.uri)
    fork = _fork(found, good)
    found.epoch += 1
    reason = f"its newest snapshot that did not learn from a bad range, {because}"
    moved = [
        point(found, "champion", good, reason, follows=False, barred=barred.parts),
        *back_to_shadow(found, f"version {version.version} was made champion, and it has to win against that one"),
    ]
    return barred.model_copy(update=fork), moved


def _fork(found: Models, good: Version | ModelUpdated) -> dict[str, int | str | None]:
    """The run that is to begin with a good model: of the same release, by the same recipe."""
    run = found.runs.get(good.run)
    recipe = None if run is None else run.recipe
    return {"again_from": good.snapshot_offset, "parent": good.uri, "release": good.release, "recipe": recipe}


def _freed(found: Models, alias: Alias, ranges: Ranges) -> list[Emit]:
    """Take the alias from a model that learned from the range, or would: its run does not leave it out."""
    named = found.aliases.get(alias)
    if named is None or not has_learned(found, named.run, learned_to(named), ranges):
        return []
    found.epoch += 1
    return remove(found, alias, f"version {named.version} has learned from a range that was barred")
