"""A keyed table in log order: rows at growing counters, in pages in LMDB; an index in memory; changes at a commit.

Keys in the order of the log make the store sequential: a put and a pop cost the same at a thousand rows and at a
million (benchmarks/bench_store.py). A row put and deleted between two commits is never written.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from headrace.infra.state_rows import MARKS, Key, marks_of, page_of

_ALIVE, _DEAD = 1, 0
_BITS = 12
_CHUNK = 1 << _BITS  # flags a chunk: what is dead at either end or in between costs no memory
_WITHIN = _CHUNK - 1
_PAGE_BITS = 5
PAGE = 1 << _PAGE_BITS  # rows of a page: more make a put cheaper, and a look at a row out of order dearer
_IN_PAGE = PAGE - 1
_PAGES = 8  # pages kept decoded: rows are taken out nearly in the order they came
_SHORT = 40  # longer keys stand in the index by their digest, so that an index entry is bounded
_DIGEST = 16
_NOTHING: Any = object()


Stored = dict[int, tuple[Key, Any]]  # a page's rows by counter, their values encoded


class Changes(NamedTuple):
    """Pages and marks of one table as LMDB keeps them. `added` come after all others; they and `deleted` are in order.

    Of `deleted` some may not exist.
    """

    added: list[tuple[bytes, bytes]]
    replaced: list[tuple[bytes, bytes]]
    deleted: list[bytes]


class LogTable(MutableMapping[Any, Any]):
    """A mapping from str, bytes or int to values of one type, iterated oldest first.

    `read` gives the rows of a committed page (`state_rows`); without it the table lives in memory only.
    As in a dict, a key put again keeps its place, and a new or deleted key while iterating raises RuntimeError at the
    next step. A value is never changed in place. A committed value comes back as msgpack tells it: times in UTC, and
    lists where a field of type Any held tuples. Values of type `bytes` are stored raw.
    """

    __slots__ = (
        "_chunks", "_decode", "_decoded", "_deleted", "_encode", "_fresh", "_index", "_new_from", "_next", "_open",
        "_pages", "_read", "name",
    )  # fmt: skip

    def __init__(
        self, name: str, value_type: type, read: Callable[[int], list[tuple[int, Key, Any]]] | None = None
    ) -> None:
        self.name = name
        self._read = _nothing_committed if read is None else read
        self._index: dict[Key, int] = {}
        self._fresh: dict[int, tuple[Key, Any]] = {}  # put since the last commit, by counter
        self._deleted: list[int] = []  # committed rows deleted since then
        self._next = self._new_from = 0  # the next row's counter; the first one that no commit has seen
        self._chunks: dict[int, bytearray] = {}  # which counters are alive, oldest chunk first
        self._open = self._chunk(0)  # the newest chunk
        self._pages: dict[int, Stored] = {}
        self._decoded: tuple[int, Any] = (-1, None)  # who expires rows looks at the oldest one again and again
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[Any], Any] = msgspec.msgpack.Decoder(value_type).decode

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: object) -> bool:
        return (key if type(key) is str and len(key) <= _SHORT else _slot(key)) in self._index

    def __getitem__(self, key: Key) -> Any:
        counter = self._index.get(_slot(key))
        if counter is None:
            raise KeyError(key)
        return self._value(counter)

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of a key, or the default."""
        counter = self._index.get(key if type(key) is str and len(key) <= _SHORT else _slot(key))
        return default if counter is None else self._value(counter)

    def __setitem__(self, key: Key, value: Any) -> None:
        slot = key if type(key) is str and len(key) <= _SHORT else _slot(key)  # a call less for most keys
        old = self._index.get(slot)
        if old is not None:
            self._fresh[old] = (key, value)
            return
        counter = self._next
        within = counter & _WITHIN
        if not within:
            self._open = self._chunk(counter)
        self._open[within] = _ALIVE
        self._index[slot] = counter
        self._fresh[counter] = (key, value)
        self._next = counter + 1

    def __delitem__(self, key: Key) -> None:
        counter = self._index.pop(_slot(key), None)
        if counter is None:
            raise KeyError(key)
        self._drop(counter)

    def pop(self, key: Key, default: Any = _NOTHING) -> Any:
        """Remove a key and return its value, or the default."""
        counter = self._index.pop(_slot(key), None)
        if counter is None:
            if default is _NOTHING:
                raise KeyError(key)
            return default
        self._chunks[counter >> _BITS][counter & _WITHIN] = _DEAD
        fresh = self._fresh.pop(counter, None)
        if counter < self._new_from:
            self._deleted.append(counter)
        return fresh[1] if fresh is not None else self._decode(self._row(counter)[1])

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the newest item, as a dict does."""
        for key in reversed(self):
            return key, self.pop(key)
        raise KeyError("popitem(): the table is empty")

    def clear(self) -> None:
        """Remove all rows."""
        for counter in list(self._index.values()):
            self._drop(counter)
        self._index.clear()

    def __iter__(self) -> Iterator[Any]:
        return map(self._key, self._counters())

    def items(self) -> ItemsView[Any, Any]:
        """Keys with their values, oldest first; a row is read once for both."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """The values, oldest first."""
        return _Values(self)

    def __reversed__(self) -> Iterator[Any]:
        unchanged = (self._next, len(self._index))
        for number, chunk in reversed(self._chunks.items()):
            at = chunk.rfind(_ALIVE)
            while at >= 0:
                yield self._key((number << _BITS) + at)
                self._still(unchanged)
                at = chunk.rfind(_ALIVE, 0, at)

    def load(self, page: int, rows: list[tuple[int, Key, Any]], flags: bytes | None) -> None:
        """Take a committed page into the index; called in the order of the pages, at opening."""
        base = page << _PAGE_BITS
        self._open = self._chunk(base)
        for within, key, _ in rows:
            if flags is None or flags[within] == _ALIVE:
                self._open[base + within & _WITHIN] = _ALIVE
                self._index[_slot(key)] = base + within
        self._next = self._new_from = base + rows[-1][0] + 1

    def changes(self) -> Changes:
        """What to write since the last `committed`."""
        pages: dict[int, list[tuple[int, Key, Any]]] = {}
        for counter, (key, value) in self._fresh.items():
            rows = pages.get(counter >> _PAGE_BITS)
            if rows is None:
                rows = pages[counter >> _PAGE_BITS] = []
            rows.append((counter & _IN_PAGE, key, value))
        changes = Changes([], [], [])
        first_new = self._new_from + _IN_PAGE >> _PAGE_BITS
        for page in sorted(pages):
            if page >= first_new:
                changes.added.append(page_of(page, pages[page], self._encode))
            else:  # it holds committed rows, those that live are written again
                changes.replaced.append(page_of(page, self._with_old(page, pages[page]), self._encode))
                changes.deleted.append(page.to_bytes(8, "big") + MARKS)
        self._mark(changes, sorted({counter >> _PAGE_BITS for counter in self._deleted} - pages.keys()))
        changes.deleted.sort()
        return changes

    def committed(self) -> None:
        """What `changes` named is durable. Forgets it, and the chunks in which nothing is alive."""
        self._fresh.clear()
        self._deleted.clear()
        self._new_from = self._next
        self._pages.clear()
        self._decoded = (-1, None)
        for number in [n for n, chunk in self._chunks.items() if chunk is not self._open and chunk.find(_ALIVE) < 0]:
            del self._chunks[number]

    def _with_old(self, page: int, fresh: list[tuple[int, Key, Any]]) -> list[tuple[int, Key, Any]]:
        """The new rows of a page, and its committed ones that live, in order."""
        new, flags = {within for within, _, _ in fresh}, self._flags(page)
        if flags.count(_ALIVE) == len(new):  # there may be no such page: all it held was gone before a commit
            return sorted(fresh, key=_within)
        old = [
            (counter & _IN_PAGE, key, value)
            for counter, (key, value) in self._stored(page).items()
            if flags[counter & _IN_PAGE] == _ALIVE and counter & _IN_PAGE not in new
        ]
        return sorted(old + fresh, key=_within)

    def _flags(self, page: int) -> bytes:
        start = page << _PAGE_BITS & _WITHIN
        return bytes(self._chunks[page >> _BITS - _PAGE_BITS][start : start + PAGE])

    def _mark(self, changes: Changes, pages: list[int]) -> None:
        """Pages that lost rows: those without any go, the others get new marks."""
        for page in pages:
            flags = self._flags(page)
            if _ALIVE in flags:
                changes.replaced.append(marks_of(page, flags))
            else:
                place = page.to_bytes(8, "big")
                changes.deleted.extend((place, place + MARKS))

    def _counters(self) -> Iterator[int]:
        """The rows, oldest first."""
        unchanged = (self._next, len(self._index))
        for number, chunk in self._chunks.items():
            at = chunk.find(_ALIVE)
            while at >= 0:
                yield (number << _BITS) + at
                self._still(unchanged)
                at = chunk.find(_ALIVE, at + 1)

    def _item(self, counter: int) -> tuple[Key, Any]:
        fresh = self._fresh.get(counter)
        return fresh if fresh is not None else (self._key(counter), self._value(counter))

    def _chunk(self, counter: int) -> bytearray:
        number = counter >> _BITS
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = bytearray(_CHUNK)
        return chunk

    def _still(self, unchanged: tuple[int, int]) -> None:
        if (self._next, len(self._index)) != unchanged:
            raise RuntimeError(f"table {self.name} changed during iteration")

    def _key(self, counter: int) -> Key:
        fresh = self._fresh.get(counter)
        return fresh[0] if fresh is not None else self._row(counter)[0]

    def _value(self, counter: int) -> Any:
        fresh = self._fresh.get(counter)
        if fresh is not None:
            return fresh[1]
        if self._decoded[0] != counter:
            self._decoded = (counter, self._decode(self._row(counter)[1]))
        return self._decoded[1]

    def _row(self, counter: int) -> tuple[Key, Any]:
        """A committed row, its value encoded."""
        page = counter >> _PAGE_BITS
        return (self._pages.get(page) or self._stored(page))[counter]

    def _stored(self, page: int) -> Stored:
        base = page << _PAGE_BITS
        if len(self._pages) >= _PAGES:
            del self._pages[next(iter(self._pages))]
        rows = self._pages[page] = {base + within: (key, value) for within, key, value in self._read(page)}
        return rows

    def _drop(self, counter: int) -> None:
        self._chunks[counter >> _BITS][counter & _WITHIN] = _DEAD
        self._fresh.pop(counter, None)
        if counter < self._new_from:
            self._deleted.append(counter)


class _Items(ItemsView[Any, Any]):
    """The generic view would look every key up again."""

    _mapping: LogTable

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return map(self._mapping._item, self._mapping._counters())


class _Values(ValuesView[Any]):
    """Likewise."""

    _mapping: LogTable

    def __iter__(self) -> Iterator[Any]:
        return map(self._mapping._value, self._mapping._counters())


def _within(row: tuple[int, Key, Any]) -> int:
    return row[0]


def _nothing_committed(page: int) -> list[tuple[int, Key, Any]]:
    raise LookupError(f"a table in memory was committed: page {page} is gone")


def _slot(key: Any) -> Any:
    """What stands for a key in the index. Bytes as long as a digest are digested too, so that none poses as one."""
    if type(key) is str:
        return key if len(key) <= _SHORT else blake2b(key.encode(), digest_size=_DIGEST).digest()
    if type(key) is bytes and (len(key) > _SHORT or len(key) == _DIGEST):
        return blake2b(key, digest_size=_DIGEST, person=b"bytes").digest()
    return key
