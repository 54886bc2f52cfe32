"""The writing of one snapshot as a run in lineage: every topic up to its offsets becomes a version of the snapshots."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from headrace.schemas import lineage
from headrace.schemas.control import LineageRecorded, SnapshotPublished

JOB = "recorder.snapshot"


class Run(NamedTuple):
    """A snapshot by its name and its number (milliseconds since 1970), and the offsets it was read at."""

    snapshot: str
    number: int
    offsets: dict[str, int]

    def event(
        self,
        state: lineage.State,
        at_ms: int,
        folder: Path,
        namespace: str = "",
        published: SnapshotPublished | None = None,
        error: str | None = None,
    ) -> LineageRecorded:
        """The run in this state. What it read is told with the next offset of each partition."""
        read: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for place, offset in self.offsets.items():
            topic, _, partition = place.rpartition("/")
            read[topic.removeprefix(namespace)][partition] = offset
        path = folder.resolve()
        rows = {table.name: table.rows for table in published.tables} if published is not None else {}
        return lineage.run_event(
            state,
            JOB,
            lineage.run_id(f"{path.as_uri()}/{self.snapshot}"),
            at_ms,
            inputs=[lineage.topic(topic, offsets=offsets) for topic, offsets in sorted(read.items())],
            outputs=[lineage.file(str(path), version=self.snapshot, **({"rows": rows} if rows else {}))],
            facts={"snapshot": self.snapshot},
            error=error,
        )
