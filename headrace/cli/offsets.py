"""What a person says of labels and times, as offsets of `<p>.labelled-examples`.

A fold of `control-log` alone can turn neither into offsets. So who asks reads them, and puts them into the request.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.errors import InvalidInput, Missing
from headrace.infra.bus import Bus
from headrace.infra.follow import read_range
from headrace.schemas.stream import StreamEvent
from headrace.schemas.topics import full_name
from headrace.why.sentences import moment

_STATUS = "headrace status "


class Times(StreamEvent, frozen=True):
    """When an example, and when its label, was known."""

    predicted_at_ms: int
    labelled_at_ms: int


def labelled(pipeline: str, bus: Bus, namespace: str = "", start: int = 0) -> Iterator[tuple[int, Times]]:
    """The offset and the times of each labelled example, from an offset or from where the log begins."""
    place = (full_name("<p>.labelled-examples", pipeline, namespace), 0)
    decoders = {"ExampleLabelled": msgspec.json.Decoder(Times).decode}
    first, end = bus.offsets(place)
    for record in read_range(
        bus, place, min(max(first, start), end), end, namespace, sequences=_Forgetful(), decoders=decoders
    ):
        if isinstance(record.event, Times):
            yield record.offset, record.event


def of_the_newest(pipeline: str, n: int, bus: Bus, namespace: str = "") -> int:
    """Where the newest `n` labelled examples begin. Raises InvalidInput where there are fewer."""
    found = _newest(pipeline, n, bus, namespace)
    if len(found) < n:
        raise InvalidInput(f"there are {len(found):,} labelled examples of {pipeline}, not {n:,}", _STATUS + pipeline)
    return found[0]


def since(pipeline: str, from_ms: int, bus: Bus, namespace: str = "") -> int:
    """Where the first labelled example stands that came at a known time or later. Raises Missing where none did."""
    newest_ms = None
    for offset, times in labelled(pipeline, bus, namespace):
        if times.predicted_at_ms >= from_ms:
            return offset
        newest_ms = max(newest_ms or 0, times.predicted_at_ms)
    what = f"no labelled example of {pipeline} came since {moment(from_ms)}"
    told = ": there is none yet" if newest_ms is None else f"; the newest came {moment(newest_ms)}"
    raise Missing(what + told, _STATUS + pipeline)


def of_a_window(pipeline: str, window: int, bus: Bus, namespace: str = "") -> int | None:
    """Where the newest `window` labelled examples begin; of fewer than twice as many the newer half. None without any.

    So a run from there is another than one that learned them all.
    """
    found = _newest(pipeline, 2 * window, bus, namespace)
    return found[-((len(found) + 1) // 2)] if found else None


def given(pipeline: str, start: str, bus: Bus, namespace: str = "") -> int:
    """An offset as it was typed, or `earliest`. Raises InvalidInput, also beyond the end: its labels may never come."""
    if start == "earliest":
        return 0
    if not start.isdecimal():
        raise InvalidInput(f"--start is an offset of {pipeline}.labelled-examples, or earliest; not {start!r}")
    _, end = bus.offsets((full_name("<p>.labelled-examples", pipeline, namespace), 0))
    if int(start) > end:
        raise InvalidInput(
            f"--start {int(start):,} is beyond the end of {pipeline}.labelled-examples, which is {end:,}"
        )
    return int(start)


def _newest(pipeline: str, n: int, bus: Bus, namespace: str) -> list[int]:
    """The offsets of the newest `n` labelled examples, or of all; ticks stand between them."""
    first, end = bus.offsets((full_name("<p>.labelled-examples", pipeline, namespace), 0))
    reach = 2 * n
    while True:
        found = [offset for offset, _ in labelled(pipeline, bus, namespace, end - reach)]
        if len(found) >= n or end - reach <= first:
            return found[-n:]
        reach *= 4


class _Forgetful(dict[str, int]):
    """Remembers no sequence: a repeat is barred as well, a run that begins after its first takes it as new."""

    def __setitem__(self, source: str, sequence: int) -> None:
        """Nothing."""
