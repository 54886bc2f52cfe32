"""Where a fold without state begins, as `headrace reset` left it beside the state's folder.

Without one a fold begins at offset 0 and is silent up to its group's offset. That is not right where the log's start
is gone, and where the broker lost the log's tail: then the group's offset is void, and offsets are used again, so
what is told from there on needs a source that readers have not seen.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

SUFFIX = ".begin"


class Beginning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Valid for one topic id. `incarnation` marks the source; the group's offset is void where there is one."""

    topic_id: str
    offset: int = 0
    loud_from: int = 0
    incarnation: str = ""

    def write(self, folder: Path) -> None:
        """Leave it for the fold whose state has this folder."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        _path(folder).write_bytes(msgspec.json.encode(self))


def read_beginning(folder: Path | None, topic_id: str) -> Beginning:
    """What was left for this topic, else the usual: everything from offset 0."""
    found = left_beginning(folder) if folder is not None else None
    return found if found is not None and found.topic_id == topic_id else Beginning(topic_id=topic_id)


def left_beginning(folder: Path) -> Beginning | None:
    """What was left, for whichever topic."""
    path = _path(folder)
    return msgspec.json.decode(path.read_bytes(), type=Beginning) if path.exists() else None


def _path(folder: Path) -> Path:
    return folder.with_name(folder.name + SUFFIX)
