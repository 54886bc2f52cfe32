"""What a name such as `rainfall@1` stands for: the run, the offset, and all that its model follows from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from headrace.errors import InvalidInput, Missing
from headrace.schemas.control import (
    ALIASES,
    AliasRemoved,
    ModelUpdated,
    PipelineReleased,
    RunSnapshot,
    RunStarted,
    SnapshotTaken,
    TrainingFailed,
)
from headrace.schemas.record import Record
from headrace.schemas.topics import PIPELINE_NAME

FORMS = (
    "PIPELINE@VERSION, PIPELINE@ALIAS, PIPELINE@RUN, any of them with @OFFSET behind for a revision (rainfall@1@1204), "
    "or the address of an artifact (model/…)"
)
URI = re.compile(r"model/[0-9a-f]{2}/[0-9a-f]{64}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Name:
    """A name in its parts. `which` is a version, an alias or a run; `offset` a revision's, `uri` its artifact's."""

    pipeline: str
    which: str
    offset: int | None = None
    uri: str | None = None


@dataclass(frozen=True)
class Roots:
    """One model, `name`, and what it follows from: release, run, offset, what was left out.

    `kept` are the run's snapshots that the log still names, by offset; `told` is the model's own. `releases` are all
    of the pipeline: a parent may be of another one.
    """

    name: str
    offset: int
    uri: str
    started: RunStarted
    released: PipelineReleased
    version: int | None = None
    skipped: tuple[int, ...] = ()
    told: RunSnapshot | None = None
    kept: dict[int, RunSnapshot] = field(default_factory=dict)
    releases: dict[int, PipelineReleased] = field(default_factory=dict)


def parse(text: str) -> Name:
    """`rainfall` is `rainfall@champion`. Raises InvalidInput."""
    pipeline, _, rest = text.partition("@")
    which, at, offset = rest.partition("@")
    if not PIPELINE_NAME.fullmatch(pipeline) or (at and not offset.isdigit()):
        raise InvalidInput(f"{text!r} names no model; one is named {FORMS}")
    return Name(pipeline, which or "champion", int(offset) if at else None)


def named(uri: str, control: Iterable[Record], snapshots: Iterable[Record]) -> Name:
    """The model whose bytes an artifact's address names. Raises Missing where no event does."""
    for record in control:
        event = record.event
        if isinstance(event, ModelUpdated) and event.uri == uri:
            return Name(event.pipeline, str(event.version))
    for record in snapshots:
        event = record.event
        if isinstance(event, SnapshotTaken):
            for run, told in event.runs.items():
                if told.uri == uri:
                    return Name(event.pipeline, run, event.offset, uri)
    raise Missing(f"no event in the log names {uri}", "headrace models lists the versions")


def find(name: Name, control: Iterable[Record], snapshots: Iterable[Record]) -> Roots:
    """The roots of a model, from `control-log` and `<p>.snapshots`. Raises Missing where the log knows none."""
    mine = [record.event for record in control if getattr(record.event, "pipeline", "") == name.pipeline]
    released = {event.release: event for event in mine if isinstance(event, PipelineReleased)}
    if not released:
        raise Missing(f"no pipeline is named {name.pipeline!r}", "headrace status lists them")
    updates = [event for event in mine if isinstance(event, ModelUpdated | AliasRemoved)]
    runs: dict[str, RunStarted] = {}
    for event in mine:
        if isinstance(event, RunStarted):
            runs.setdefault(event.run, event)  # the first one counts
    taken = [record.event for record in snapshots if isinstance(record.event, SnapshotTaken)]
    updated, run = _run_of(name, updates, runs)
    kept = {event.offset: event.runs[run] for event in taken if run in event.runs}
    offset, uri = _place(name, updated, kept)
    if name.uri is not None:  # where a run joins, one offset has two snapshots
        uri = name.uri
        kept |= {event.offset: own for event in taken if (own := event.runs.get(run)) is not None and own.uri == uri}
    started = runs.get(run)
    if started is None:
        raise Missing(f"there is no RunStarted of run {run} in control-log", f"headrace runs {name.pipeline}")
    told = kept.get(offset)
    return Roots(
        name=_shown(name, updated, run, offset),
        offset=offset,
        uri=uri,
        started=started,
        released=released[started.release],
        version=updated.version if updated is not None else None,
        skipped=_skipped(mine, run, offset),
        told=told if told is not None and told.uri == uri else None,
        kept={at: one for at, one in sorted(kept.items()) if at <= offset},
        releases=released,
    )


def _run_of(
    name: Name, updates: Sequence[ModelUpdated | AliasRemoved], runs: dict[str, RunStarted]
) -> tuple[ModelUpdated | None, str]:
    """The newest event that names the version or the alias, and its run; a run by its own name has no such event."""
    which = name.which
    if which in runs:
        return None, which
    if which.isdigit():
        found = [update for update in updates if isinstance(update, ModelUpdated) and str(update.version) == which]
        updated = found[0] if found else None  # the snapshot that passed the gates, whatever alias it got later
    elif which in ALIASES:
        last = next((update for update in reversed(updates) if update.alias == which), None)
        updated = last if isinstance(last, ModelUpdated) else None
    else:
        raise Missing(f"{name.pipeline} has no version, alias or run {which!r}", f"headrace models {name.pipeline}")
    if updated is None:
        what = f"version {which}" if which.isdigit() else which
        raise Missing(f"{name.pipeline} has no {what}", f"headrace models {name.pipeline}")
    return updated, updated.run


def _place(name: Name, updated: ModelUpdated | None, kept: dict[int, RunSnapshot]) -> tuple[int, str]:
    """The offset up to which the model has learned, and the address of its bytes."""
    if name.offset is not None:
        if name.offset in kept:
            return name.offset, kept[name.offset].uri
        near = min(kept, key=lambda at: abs(at - name.offset), default=None)  # type: ignore[operator]
        hint = "" if near is None else f"; the nearest one that the log names is at {near}"
        raise Missing(
            f"no snapshot of {name.pipeline}@{name.which} was taken at offset {name.offset}{hint}",
            f"headrace runs {name.pipeline}" if near is None else f"headrace show {name.pipeline}@{name.which}@{near}",
        )
    if updated is None:
        if not kept:
            raise Missing(f"run {name.which} has no snapshot yet", f"headrace runs {name.pipeline}")
        return max(kept), kept[max(kept)].uri
    newest = max((at for at, one in kept.items() if one.fit), default=-1)
    if updated.follows and not name.which.isdigit() and newest > updated.snapshot_offset:
        return newest, kept[newest].uri
    return updated.snapshot_offset, updated.uri


def _skipped(events: Iterable[object], run: str, before: int) -> tuple[int, ...]:
    """What the run left out because its learn raised twice, as it told."""
    failed = (event for event in events if isinstance(event, TrainingFailed) and event.run == run)
    return tuple(dict.fromkeys(event.offset for event in failed if event.offset is not None and event.offset < before))


def _shown(name: Name, updated: ModelUpdated | None, run: str, offset: int) -> str:
    base = f"{name.pipeline}@{updated.version if updated is not None else run}"
    own = updated is not None and updated.snapshot_offset == offset
    return base if own else f"{base}@{offset}"
