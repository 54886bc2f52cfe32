"""Known times as datetimes, and which event times can be true."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=1)  # clocks and time zones are wrong by less
MINUTE_MS = 60_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = (
    -2_208_988_800_000,
    253_370_764_800_000,
)  # 1900 and 9999: datetimes are safe between them


def to_datetime(ms: int) -> datetime:
    """A known time, cut to the years 1900 to 9999."""
    return _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))


def minute_end(known_ms: int) -> int:
    """The end of the minute, in milliseconds."""
    return known_ms - known_ms % MINUTE_MS + MINUTE_MS
