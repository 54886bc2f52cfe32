"""Which revisions are let go: the last ten stay, then one an hour for a day, one a day for a month, pinned always.

Nothing goes before a newer one of its run has stood in the log for an hour: a predictor that lags must find what it
reads of. So the last one of a run that ended stays as well: a rollback may serve it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

KEPT_LAST = 10
STANDS_MS = 3_600_000
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DAYS = 30


class Revision(msgspec.Struct, frozen=True):
    """One run's model at one offset, and when it was taken. `pinned`: a gate judges it."""

    run: str
    offset: int
    taken_ms: int
    pinned: bool = False


def superfluous(revisions: Mapping[str, Revision], now_ms: int, kept: Collection[str]) -> list[str]:
    """The URIs to delete of revisions by URI, oldest first; `kept` are those that became versions."""
    old = list(_old_enough(revisions, now_ms))
    runs = {revision.run for _, revision in old}  # runs in lockstep are snapped together
    filled: set[tuple[str, str, int]] = set()
    gone = []
    for uri, revision in old[: max(len(revisions) - KEPT_LAST * len(runs), 0)]:
        if revision.pinned or uri in kept:
            continue
        slot = _slot(revision, now_ms)
        if slot is None or slot in filled:
            gone.append(uri)
        else:
            filled.add(slot)
    return gone


def _old_enough(revisions: Mapping[str, Revision], now_ms: int) -> Iterable[tuple[str, Revision]]:
    """Those of which the same run has had a newer one for an hour.

    They are in the order they were taken, so the rest is not read.
    """
    before: dict[str, tuple[str, Revision]] = {}
    for uri in revisions:
        revision = revisions[uri]
        if revision.taken_ms > now_ms - STANDS_MS:
            return
        if revision.run in before:
            yield before[revision.run]
        before[revision.run] = uri, revision


def _slot(revision: Revision, now_ms: int) -> tuple[str, str, int] | None:
    """The hour or day for which a revision stands; the oldest in it stays. None: past its time."""
    age = now_ms - revision.taken_ms
    if age < DAY_MS:
        return revision.run, "hour", revision.taken_ms // HOUR_MS
    if age < DAYS * DAY_MS:
        return revision.run, "day", revision.taken_ms // DAY_MS
    return None
