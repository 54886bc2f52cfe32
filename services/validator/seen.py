"""Ids of accepted records, in log order and bounded by count: what makes a repeat a repeat.

An example is remembered with the offset and a fingerprint of its features: the same id again is a repeat, with other
features (its time may differ) a conflict. A label is remembered with its value: the same value again is a repeat,
another one is news for the joiner.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from hashlib import blake2b
from itertools import islice

from headrace.schemas.stream import key_of

Seen = MutableMapping[str, bytes]

SAME = -1
KEY_LENGTH = 64  # longer ids are remembered by their digest
TRIM = 10_000  # forgotten at once, at most: more than a window can add, and still a short step


def seen_key(record_id: str, entity: str | None) -> str:
    """The key of an id and its entity, of a bounded length."""
    key = key_of(record_id, entity)
    return key if len(key) <= KEY_LENGTH else "#" + blake2b(key.encode(), digest_size=16).hexdigest()


def remember_example(seen: Seen, key: str, mark: int, offset: int) -> int | None:
    """None for a new example, SAME for a repeat, the first one's offset where its features were others.

    `mark` is the contract's layout and the fingerprint, 32 bits each. Fingerprints of two layouts cannot be compared:
    an example of an earlier contract that comes again is taken for a repeat.
    """
    if key not in seen:
        seen[key] = (offset << 64 | mark).to_bytes(16, "big")
        return None
    first = int.from_bytes(seen[key], "big")
    differs = (first ^ mark) & 0xFFFF_FFFF_FFFF_FFFF
    return first >> 64 if 0 < differs <= 0xFFFF_FFFF else SAME


def remember_label(seen: Seen, key: str, value: bytes) -> bool:
    """Whether the label is news: there was none with this key, or the newest had another value."""
    if key in seen and seen[key] == value:
        return False
    seen[key] = value
    return True


def forget(seen: Seen, bound: int) -> None:
    """Drop the oldest beyond the bound."""
    for key in list(islice(seen, min(TRIM, max(0, len(seen) - bound)))):
        del seen[key]
