"""One pipeline's runs, versions and aliases, and how an alias moves. History is only ever appended to."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from headrace.ranges import Ranges, meet, without
from headrace.schemas.control import (
    Alias,
    AliasRemoved,
    Check,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    TrainingRequested,
)
from headrace.schemas.record import Emit


@dataclass(slots=True)
class Run:
    """A run: its release, what it learns, why and with which alpha it was asked for, what its gates found, its version.

    It learns from `start` on without `excluded`, beginning with the model `parent` or with none; `recipe` is as in
    RunStarted.
    """

    release: int
    start: int = 0
    excluded: Ranges = ()
    parent: str | None = None
    recipe: str | None = None
    trigger: str = "first_model"
    alpha: float | None = None
    version: int | None = None
    passed_to: int | None = None
    checks: tuple[Check, ...] = ()
    n_labels: int = 0


@dataclass(slots=True)
class Version:
    """A snapshot that passed its offline and infra gates."""

    version: int
    run: str
    release: int
    snapshot_offset: int
    uri: str
    n_labels: int
    since_ms: int
    reason: str


@dataclass(slots=True)
class Models:
    """One pipeline: releases, runs, versions, aliases. `won` is the verdict of a challenger that may take over.

    `barred` are the offsets of labelled examples that no run is to learn any more, `pinned` the snapshots that are kept
    for ever, each with its run and offset.
    """

    released: PipelineReleased
    retired: bool = False
    paused: bool = False
    epoch: int = 0
    requests: dict[str, TrainingRequested] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    aliases: dict[Alias, ModelUpdated] = field(default_factory=dict)
    history: list[ModelUpdated | AliasRemoved] = field(default_factory=list)
    won: ModelValidated | None = None
    answered: list[str] = field(default_factory=list)
    barred: Ranges = ()
    pinned: dict[str, tuple[str, int]] = field(default_factory=dict)


def add_version(
    found: Models, run: str, release: int, snapshot: tuple[int, str], n_labels: int, known_ms: int, reason: str
) -> Version:
    """The next version: a snapshot (offset, address) of a run."""
    version = Version(len(found.versions) + 1, run, release, *snapshot, n_labels, known_ms, reason)
    found.versions.append(version)
    return version


def has_learned(found: Models, run: str, upto: int, ranges: Ranges) -> bool:
    """Whether a run's model at an offset has learned from these ranges: by itself, or the model that it began with.

    A parent is a snapshot that an alias has named. Of what is not known any more the worst is assumed.
    """
    while True:
        known = found.runs.get(run)
        if known is None or meet(without(known.start, upto, known.excluded), ranges):
            return True
        if known.parent is None:
            return False
        parent = next((one for one in found.history if getattr(one, "uri", None) == known.parent), None)
        if not isinstance(parent, ModelUpdated):
            return True
        run, upto = parent.run, parent.snapshot_offset


def learned_to(update: ModelUpdated) -> int:
    """Up to where an alias's model may have learned: one that follows its run, whatever stands in the log."""
    return update.snapshot_offset if not update.follows else sys.maxsize


def point(
    found: Models,
    alias: Alias,
    at: Version | ModelUpdated,
    reason: str,
    *,
    follows: bool,
    forced_by: str | None = None,
    request: str | None = None,
    share: float | None = None,
    barred: Ranges = (),
) -> Emit:
    """Let an alias name what a version or another alias names, in the epoch as it is."""
    before = found.aliases.get(alias)
    updated = ModelUpdated(
        pipeline=found.released.pipeline,
        alias=alias,
        version=at.version,
        run=at.run,
        release=at.release,
        snapshot_offset=at.snapshot_offset,
        uri=at.uri,
        follows=follows,
        epoch=found.epoch,
        reason=reason,
        previous_version=before.version if before is not None else None,
        forced_by=forced_by,
        request=request,
        share=share,
        barred=barred,
    )
    found.aliases[alias] = updated
    found.history.append(updated)
    return Emit("model-updates", updated, updated.pipeline.encode(), partition=0)


def remove(found: Models, alias: Alias, reason: str) -> list[Emit]:
    """Take an alias away, where it is."""
    named = found.aliases.pop(alias, None)
    if named is None:
        return []
    removed = AliasRemoved(
        pipeline=found.released.pipeline, alias=alias, run=named.run, epoch=found.epoch, reason=reason
    )
    found.history.append(removed)
    if alias == "challenger":
        found.won = None
    return [Emit("model-updates", removed, removed.pipeline.encode(), partition=0)]


def next_share(found: Models) -> float | None:
    """The share of units of the challenger's next canary step, by the policies in force; None after the last one."""
    now = found.aliases["challenger"].share or 0.0
    return next((step for step in found.released.definition.policies.rollout.steps if step > now), None)


def advance(found: Models, reason: str, *, request: str | None = None) -> list[Emit]:
    """The challenger that has won goes on to its next canary step; after the last one it becomes champion."""
    share = next_share(found)
    if share is None:
        return promote(found, reason, request=request)
    found.epoch += 1
    found.won = None
    challenger = found.aliases["challenger"]
    return [point(found, "challenger", challenger, reason, follows=challenger.follows, request=request, share=share)]


def back_to_shadow(found: Models, reason: str) -> list[Emit]:
    """Another model serves: what the challenger won was won against the one before, so it serves nobody again."""
    found.won = None
    challenger = found.aliases.get("challenger")
    if challenger is None or challenger.share is None:
        return []
    return [point(found, "challenger", challenger, reason, follows=challenger.follows)]


def promote(found: Models, reason: str, *, forced_by: str | None = None, request: str | None = None) -> list[Emit]:
    """The challenger becomes champion, and the champion previous.

    `previous` moves first, so that the old champion's run has a name all the time and goes on learning.
    """
    challenger, champion = found.aliases["challenger"], found.aliases["champion"]
    found.epoch += 1
    return [
        point(found, "previous", champion, f"version {challenger.version} takes its place", follows=champion.follows),
        point(found, "champion", challenger, reason, follows=challenger.follows, forced_by=forced_by, request=request),
        *remove(found, "challenger", f"it became champion as version {challenger.version}"),
    ]


def roll_back(found: Models, reason: str, *, request: str | None = None) -> list[Emit]:
    """The previous model serves again; it learned on in shadow. The champion's run loses its name, and ends."""
    previous = found.aliases["previous"]
    found.epoch += 1
    return [
        point(found, "champion", previous, reason, follows=previous.follows, request=request),
        *remove(found, "previous", f"it is champion again as version {previous.version}"),
        *back_to_shadow(found, f"version {previous.version} is champion again, and it has to win against that one"),
    ]


def freeze(found: Models, at: Version, reason: str, what: str, *, request: str | None = None) -> list[Emit]:
    """A snapshot becomes champion and learns no more; previous goes, and what a challenger won was against another."""
    found.epoch += 1
    return [
        point(found, "champion", at, reason, follows=False, request=request),
        *remove(found, "previous", f"{what}, {reason}"),
        *back_to_shadow(found, f"{what}, and it has to win against that one"),
    ]


def numbers(checks: tuple[Check, ...]) -> str:
    """Every check with its value and limit, for people."""
    return "; ".join(_told(check) for check in checks)


def _told(check: Check) -> str:
    if check.value is None or check.limit is None:
        return check.detail or check.name
    return f"{check.name} {check.value:.4g} against {check.limit:.4g}"
