"""The envelope (CloudEvents 1.0, Kafka binary mode) and the bytes of every event.

Stream events carry five headers, control events two more (`ce_correlationid`, `ce_causationid`), and a copy in
`control-log` one more: `ce_origin`, the place first written, as `topic/topic id/partition/offset`.
Readers look headers up by position and check the name, so the order below is part of the format; another order
is accepted, only slower.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.schemas import control, stream
from headrace.schemas.control import ControlEvent
from headrace.schemas.stream import StreamEvent

Event = StreamEvent | ControlEvent
Headers = list[tuple[str, str | bytes]]

PREFIX, VERSION = "headrace.", ".v1"
ORIGIN = "ce_origin"


class Undecodable(ValueError):
    """The bytes are not the event that the envelope names; the message says where they differ."""


def _events(module: Any, base: type) -> dict[str, type]:
    return {
        name: cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
    }


PARTS = {"ArmPrediction", "Baselines", "Problem"}
STREAM_EVENTS = {n: c for n, c in _events(stream, StreamEvent).items() if n not in PARTS}
CONTROL_EVENTS = _events(control, ControlEvent)
EVENTS: dict[str, type] = STREAM_EVENTS | CONTROL_EVENTS

TYPE_OF: dict[type, str] = {cls: f"{PREFIX}{name}{VERSION}" for name, cls in EVENTS.items()}
_encode_stream = msgspec.json.Encoder().encode


def _control_decoder(cls: Any) -> Callable[[bytes], Any]:
    """What a later release added is ignored, also inside a contract or policy, where a person's typing error is not."""

    def decode_control(body: bytes) -> Any:
        return cls.model_validate_json(body, extra="ignore")

    return decode_control


DECODERS: dict[str, Callable[[bytes], Any]] = {
    f"{PREFIX}{name}{VERSION}": msgspec.json.Decoder(cls).decode for name, cls in STREAM_EVENTS.items()
} | {f"{PREFIX}{name}{VERSION}": _control_decoder(cls) for name, cls in CONTROL_EVENTS.items()}


def encode(event: Event) -> bytes:
    """The event's body: JSON, without fields at their default where it is a stream event."""
    if isinstance(event, StreamEvent):
        return _encode_stream(event)
    return event.model_dump_json().encode()


def decode(type_name: str, body: bytes) -> Any:
    """The event from its body; `type_name` is the envelope's `ce_type`. Raises Undecodable."""
    decoder = DECODERS.get(type_name)
    if decoder is None:
        raise Undecodable(f"no event is named {type_name!r}")
    try:
        return decoder(body)
    except (ValueError, RecursionError) as error:  # JSON deeper than the decoders go
        raise Undecodable(f"{type_name}: {error}") from error


def headers_of(event_type: str, source: str, sequence: int) -> Headers:
    """The five headers of a stream event; the id is the sequence, unique per source."""
    number = str(sequence)
    return [
        ("ce_specversion", "1.0"),
        ("ce_id", number),
        ("ce_source", source),
        ("ce_type", event_type),
        ("ce_sequence", number),
    ]


def numbered(event_type: str, source: str) -> Callable[[int], Headers]:
    """`headers_of` of one type and source by sequence, faster: what does not change is made once, and all is bytes."""
    specversion, written_by, kind = (
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", event_type.encode()),
    )

    def headers(sequence: int) -> Headers:
        number = b"%d" % sequence
        return [specversion, ("ce_id", number), written_by, kind, ("ce_sequence", number)]

    return headers


def lacking(headers: Sequence[tuple[str, bytes]] | None, *names: str) -> str:
    """Which of these headers a record lacks, in words; empty where it has them all."""
    missing = [name for name in names if not header(headers, name, 0)]
    return f"it has no {', '.join(missing)}" if missing else ""


def header(headers: Sequence[tuple[str, bytes]] | None, name: str, position: int) -> str | None:
    """One header's text, by position where it stands there, else by name; None where it is missing."""
    if not headers:
        return None
    if len(headers) > position and headers[position][0] == name:
        value: Any = headers[position][1]
    else:
        value = next((v for k, v in headers if k == name), None)
    if value is None or isinstance(value, str):
        return value
    return bytes(value).decode("utf-8", "replace")
