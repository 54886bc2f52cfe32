"""How a commit is written: the head (a MAC over offset, facts, tables and pickled fields) and the rows of tables.

A row is a CRC-32 (4 bytes), the length of the key (2), the key (msgpack), the value. The checksum starts from the
row's counter, so that a row in another one's place is noticed too. Rows are never unpickled: a checksum is enough.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

import msgspec

Key = str | bytes | int

FORMAT = b"headrace-state-1"
_KEY_ID_BYTES, _MAC_BYTES = 8, 32
_MASK = 0xFFFFFFFF
_encode_key = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder().decode


SIGNATURE_BYTES = len(FORMAT) + _KEY_ID_BYTES + _MAC_BYTES


class RowDamaged(Exception):
    """The bytes are not those that were written."""


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
    """The authentic head. Raises RowDamaged, or ValueError saying how another key or version wrote it."""
    if not stored.startswith(FORMAT):
        if stored.startswith(FORMAT[:-1]):
            raise ValueError(f"in another format ({stored[:16].decode(errors='replace')})")
        raise RowDamaged("its head is no head")
    key_id, rest = stored[len(FORMAT) :][:_KEY_ID_BYTES], stored[len(FORMAT) + _KEY_ID_BYTES :]
    if key_id != _key_id(key):
        raise ValueError("with another HEADRACE_ARTIFACT_KEY")
    if not hmac.compare_digest(rest[:_MAC_BYTES], _mac(key, rest[_MAC_BYTES:])):
        raise RowDamaged("its head is not what was signed")
    return msgspec.msgpack.decode(rest[_MAC_BYTES:], type=Head)


def pack_rows(rows: Iterable[tuple[int, tuple[Key, Any]]], encode: Callable[[Any], bytes]) -> list[tuple[bytes, bytes]]:
    """Places and bytes of rows, each a counter with its key and value."""
    packed = []
    for counter, (key, value) in rows:
        encoded = _encode_key(key)
        body = len(encoded).to_bytes(2, "big") + encoded + encode(value)
        packed.append((counter.to_bytes(8, "big"), crc32(body, counter & _MASK).to_bytes(4, "big") + body))
    return packed


def checked_key(counter: int, row: bytes) -> Key:
    """The key of a row whose bytes are those that were written. Raises RowDamaged."""
    if crc32(row[4:], counter & _MASK).to_bytes(4, "big") != row[:4] or len(row) < 7:
        raise RowDamaged(f"row {counter} is not what was written")
    return key_of(row)


def key_of(row: bytes) -> Key:
    """The key of a row."""
    return _decode_key(row[6 : 6 + (row[4] << 8 | row[5])])  # type: ignore[no-any-return]


def value_of(row: bytes) -> bytes:
    """The encoded value of a row."""
    return row[6 + (row[4] << 8 | row[5]) :]


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"headrace state key id " + key).digest()[:_KEY_ID_BYTES]


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, FORMAT + body, "sha256")
