"""A keyed table in log order: rows at growing counters in LMDB, an index in memory, changes written at a commit.

Keys in the order of the log make the store sequential: put and pop cost the same at a thousand rows and at a
million (docs/performance.md). A row put and deleted between two commits is never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import msgspec

Key = str | bytes | int
_ALIVE = b"\x01"


class LogTable(MutableMapping[Any, Any]):
    """A mapping from str, bytes or int to values of one type, iterated oldest first.

    `read` fetches a committed row (key and encoded value) by its counter. A value is never changed in place; a key
    put again moves to the end.
    """

    __slots__ = ("_alive", "_base", "_decode", "_deleted", "_encode", "_fresh", "_index", "_keys", "_next", "_read", "name")

    def __init__(self, name: str, value_type: type, read: Callable[[int], tuple[Key, bytes]]) -> None:
        self.name = name
        self._read = read
        self._index: dict[Key, int] = {}
        self._fresh: dict[int, tuple[Key, Any]] = {}  # put since the last commit, by counter
        self._deleted: list[int] = []  # committed rows deleted since
        self._next = self._base = 0
        self._alive = bytearray()
        if value_type is bytes:
            self._encode: Callable[[Any], bytes] = bytes
            self._decode: Callable[[bytes], Any] = bytes
        else:
            self._encode = msgspec.msgpack.Encoder().encode
            self._decode = msgspec.msgpack.Decoder(value_type).decode

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return key in self._index

    def __getitem__(self, key: Key) -> Any:
        counter = self._index[key]
        fresh = self._fresh.get(counter)
        return fresh[1] if fresh is not None else self._decode(self._read(counter)[1])

    def __setitem__(self, key: Key, value: Any) -> None:
        old = self._index.get(key)
        if old is not None:
            self._drop(old)
        counter = self._next
        self._index[key] = counter
        self._fresh[counter] = (key, value)
        self._alive += _ALIVE
        self._next = counter + 1

    def __delitem__(self, key: Key) -> None:
        self._drop(self._index.pop(key))

    def pop(self, key: Key, *default: Any) -> Any:
        """Remove a key and return its value, or the default."""
        counter = self._index.pop(key, None)
        if counter is None:
            if default:
                return default[0]
            raise KeyError(key)
        fresh = self._fresh.get(counter)
        value = fresh[1] if fresh is not None else self._decode(self._read(counter)[1])
        self._drop(counter)
        return value

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self[key] if key in self._index else default

    def __iter__(self) -> Iterator[Key]:
        at = self._alive.find(_ALIVE)
        while at >= 0:
            counter = self._base + at
            fresh = self._fresh.get(counter)
            yield fresh[0] if fresh is not None else self._read(counter)[0]
            at = self._alive.find(_ALIVE, at + 1)

    def load(self, counter: int, key: Key) -> None:
        """Take one committed row into the index; called in the order of the counters, at opening."""
        if not self._index:
            self._base = self._next = counter
        self._alive += bytes(counter - self._next) + _ALIVE
        self._index[key] = counter
        self._next = counter + 1

    def resume(self, counter: int) -> None:
        """Go on numbering from a counter that is not smaller than any used before."""
        if counter > self._next:
            if not self._index:
                self._base = counter
                self._alive.clear()
            else:
                self._alive += bytes(counter - self._next)
            self._next = counter

    def changes(self) -> tuple[list[tuple[int, Key, bytes]], list[int]]:
        """Rows to write and counters to delete since the last `committed`."""
        return [(n, key, self._encode(value)) for n, (key, value) in self._fresh.items()], self._deleted

    @property
    def next_counter(self) -> int:
        """The counter of the next row put."""
        return self._next

    def committed(self) -> None:
        """What `changes` named is durable; trims what is dead at the front."""
        self._fresh.clear()
        self._deleted = []
        first = self._alive.find(_ALIVE)
        dead = len(self._alive) if first < 0 else first
        if dead > 4_096:
            del self._alive[:dead]
            self._base += dead

    def _drop(self, counter: int) -> None:
        self._alive[counter - self._base] = 0
        if self._fresh.pop(counter, None) is None:
            self._deleted.append(counter)
