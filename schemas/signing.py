"""Signatures of the in-band events, which stand among users' records: HMAC-SHA256 over the rest of the event."""

from __future__ import annotations

import hashlib
import hmac
from typing import TypeVar

import msgspec

from headrace.schemas.codec import TYPE_OF, encode
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.stream import Tick

InBand = TypeVar("InBand", Tick, PipelineReleased, PipelineRetired)


def sign(key: bytes, event: InBand) -> InBand:
    """The event with its signature; the same key and event always give the same one."""
    return _with_signature(event, _signature(key, event))


def is_signed(key: bytes, event: InBand) -> bool:
    """Whether the event was signed with this key and not changed since."""
    return hmac.compare_digest(_signature(key, event).encode(), event.signature.encode("utf-8", "replace"))


def _signature(key: bytes, event: InBand) -> str:
    message = TYPE_OF[type(event)].encode() + b"\n" + encode(_with_signature(event, ""))
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def _with_signature(event: InBand, signature: str) -> InBand:
    if isinstance(event, Tick):
        return msgspec.structs.replace(event, signature=signature)
    return event.model_copy(update={"signature": signature})
