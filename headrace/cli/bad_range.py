"""What a range of known time means for a rollback: the examples that came in it, and the newest model without them.

The registry folds `control-log` alone and can turn no time into offsets. So who asks reads them, where they stand for
good, and puts them into the request: from there on every decision follows from the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from headrace.cli import facts
from headrace.cli.offsets import labelled
from headrace.errors import Missing
from headrace.infra.artifacts import ArtifactForeignKey, ArtifactRefused, Artifacts
from headrace.infra.bus import Bus
from headrace.ranges import Ranges, covering, union
from headrace.reproduce import log
from headrace.schemas.control import ModelUpdated, SnapshotTaken
from headrace.schemas.record import Record
from headrace.services.registry.models import Models, has_learned
from headrace.why.sentences import moment

RANGES_AT_MOST = 100  # in one event; of labels that come late in any order, what stands between is barred as well


@dataclass(frozen=True)
class Good:
    """A snapshot that may serve."""

    version: int
    offset: int
    uri: str

    @property
    def name(self) -> str:
        """For people."""
        return f"version {self.version} as it was at offset {self.offset:,}"


@dataclass(frozen=True)
class BadRange:
    """So many examples of a time, their offsets, and the newest snapshot without them, if any is kept."""

    from_ms: int
    to_ms: int
    examples: int
    ranges: Ranges
    good: Good | None

    def fields(self) -> dict[str, Any]:
        """What a RollbackAsked says of it."""
        told: dict[str, Any] = {"bad_from_ms": self.from_ms, "bad_to_ms": self.to_ms, "bad_ranges": self.ranges}
        if self.good is not None:
            told |= {"version": self.good.version, "uri": self.good.uri, "snapshot_offset": self.good.offset}
        return told


def look_up(pipeline: str, from_ms: int, to_ms: int, bus: Bus, artifacts: Artifacts, namespace: str = "") -> BadRange:
    """Read a pipeline's labelled examples and snapshots. Raises Missing where no example came between the two times."""
    parts: list[tuple[int, int]] = []
    examples, goes_on, began_ms, ended_ms = 0, False, None, 0
    for offset, times in labelled(pipeline, bus, namespace):
        began_ms = times.predicted_at_ms if began_ms is None else min(began_ms, times.predicted_at_ms)
        ended_ms = max(ended_ms, times.labelled_at_ms)
        if from_ms <= times.predicted_at_ms < to_ms or from_ms <= times.labelled_at_ms < to_ms:
            first = parts.pop()[0] if goes_on else offset  # between two examples nothing but ticks may stand
            parts.append((first, offset + 1))
            examples, goes_on = examples + 1, True
        else:
            goes_on = False
    if not parts:
        what = f"no labelled example of {pipeline} came from {moment(from_ms)} to {moment(to_ms)}"
        if began_ms is None:
            raise Missing(f"{what}: there is none yet", f"headrace status {pipeline}")
        some = f"--from {_iso(began_ms)} --to {_iso(ended_ms)}"
        raise Missing(
            f"{what}, so no model learned from it; they came from {moment(began_ms)} to {moment(ended_ms)}",
            f"headrace rollback {pipeline} with times between {some}",
        )
    ranges = covering(parts, RANGES_AT_MOST)
    models = _models(pipeline, bus, namespace)
    served = {one.version for one in models.history if isinstance(one, ModelUpdated) and one.alias == "champion"}
    found = _newest_good(models, served, ranges, log.records(bus, namespace, "<p>.snapshots", pipeline))
    kept = next((good for good in found if _is_kept(good.uri, artifacts)), None)
    return BadRange(from_ms, to_ms, examples, ranges, kept)


def of_a_version(pipeline: str, version: int, bus: Bus, namespace: str = "") -> Good | None:
    """The newest snapshot of a version's run that learned from no barred range."""
    models = _models(pipeline, bus, namespace)
    taken = log.records(bus, namespace, "<p>.snapshots", pipeline)
    return next(_newest_good(models, {version}, (), taken), None)


def _newest_good(models: Models, among: set[int], ranges: Ranges, taken: Iterable[Record]) -> Iterator[Good]:
    """The snapshots of some versions' runs that learned from none of the ranges nor a barred one, newest first.

    Before a run passed its gates it has none that may serve; a frozen version has but the one that passed.
    """
    bad = union(models.barred, ranges)
    versions = {one.run: one for one in models.versions if one.version in among}
    found = {(one.snapshot_offset, one.version): one.uri for one in versions.values()}
    if models.released.definition.policies.learning == "online":
        for record in taken:
            event = record.event
            if not isinstance(event, SnapshotTaken):
                continue
            for run in event.runs.keys() & versions.keys():
                own, snapshot = versions[run], event.runs[run]
                if snapshot.fit and event.offset >= own.snapshot_offset:
                    found[event.offset, own.version] = snapshot.uri
    runs = {one.version: one.run for one in versions.values()}
    for (offset, version), uri in sorted(found.items(), reverse=True):
        if not has_learned(models, runs[version], offset, bad):
            yield Good(version, offset, uri)


def _models(pipeline: str, bus: Bus, namespace: str) -> Models:
    return facts.fold(log.records(bus, namespace, "control-log"))[pipeline].models


def _is_kept(uri: str, artifacts: Artifacts) -> bool:
    """Revisions are thinned out as time goes by. Raises ArtifactForeignKey: with another key nothing would be."""
    try:
        artifacts.verify(uri)
    except ArtifactForeignKey:
        raise
    except ArtifactRefused:
        return False
    return True


def _iso(known_ms: int) -> str:
    return moment(known_ms).replace(" ", "T") + "Z"
