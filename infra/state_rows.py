"""How a commit is written: the head (a MAC over offset, facts, tables and pickled fields) and the rows of tables.

Rows lie together in pages of msgpack, because LMDB asks as much for a put of one row as for thirty. Once written, a
page stays as it is: marks beside it say which of its rows still live. A checksum of both starts from the page's number,
so that a page in another one's place is noticed too. Rows are never unpickled: a checksum is enough.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from zlib import crc32

import msgspec

Key = str | bytes | int

FORMAT = b"headrace-state-2"
_KEY_ID_BYTES, _MAC_BYTES = 8, 32
_MASK = 0xFFFFFFFF
MARKS = b"m"
_decode_page = msgspec.msgpack.Decoder(list[tuple[int, Any, msgspec.Raw]]).decode

SIGNATURE_BYTES = len(FORMAT) + _KEY_ID_BYTES + _MAC_BYTES


class RowDamaged(Exception):
    """The bytes are not those that were written."""


class OtherKey(ValueError):
    """Another key wrote it."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a commit holds beside rows. `tables`: how many rows each has; `pickled`: sequences and fields."""

    offset: int
    meta: dict[str, str]
    tables: dict[str, int]
    pickled: bytes


def pack_head(key: bytes, head: Head) -> bytes:
    """The head's bytes, authenticated with the key."""
    body = msgspec.msgpack.encode(head)
    return FORMAT + _key_id(key) + _mac(key, body) + body


def unpack_head(key: bytes, stored: bytes) -> Head:
    """The authentic head. Raises RowDamaged, OtherKey, or ValueError saying how another version wrote it."""
    if not stored.startswith(FORMAT):
        if stored.startswith(FORMAT[:-1]):
            raise ValueError(f"in another format ({stored[:16].decode(errors='replace')})")
        raise RowDamaged("its head is no head")
    key_id, rest = stored[len(FORMAT) :][:_KEY_ID_BYTES], stored[len(FORMAT) + _KEY_ID_BYTES :]
    if key_id != _key_id(key):
        raise OtherKey
    if not hmac.compare_digest(rest[:_MAC_BYTES], _mac(key, rest[_MAC_BYTES:])):
        raise RowDamaged("its head is not what was signed")
    return msgspec.msgpack.decode(rest[_MAC_BYTES:], type=Head)


def page_of(page: int, rows: list[tuple[int, Key, Any]], encode: Callable[[Any], bytes]) -> tuple[bytes, bytes]:
    """Place and bytes of a page: its rows, each where it stands within the page, its key and its value."""
    body = encode(rows)
    return page.to_bytes(8, "big"), crc32(body, page & _MASK).to_bytes(4, "big") + body


def rows_of(page: int, stored: bytes) -> list[tuple[int, Key, msgspec.Raw]]:
    """The rows of a page whose bytes are those that were written. Raises RowDamaged."""
    body = _checked(page, stored)
    try:
        return _decode_page(body)
    except msgspec.DecodeError as error:
        raise RowDamaged(f"page {page} is no page ({error})") from None


def marks_of(page: int, flags: bytes) -> tuple[bytes, bytes]:
    """Place and bytes of what says which rows of a page are alive; it comes right after the page."""
    return page.to_bytes(8, "big") + MARKS, crc32(flags, page & _MASK).to_bytes(4, "big") + flags


def flags_of(page: int, stored: bytes) -> bytes:
    """Which rows of a page are alive, one byte each. Raises RowDamaged."""
    return _checked(page, stored)


def _checked(page: int, stored: bytes) -> bytes:
    body = stored[4:]
    if len(stored) < 5 or crc32(body, page & _MASK).to_bytes(4, "big") != stored[:4]:
        raise RowDamaged(f"page {page} is not what was written")
    return body


@functools.lru_cache(maxsize=8)
def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"headrace state key id " + key).digest()[:_KEY_ID_BYTES]


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, FORMAT + body, "sha256")
