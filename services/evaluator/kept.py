"""The newest labelled rows, kept so that a label which is corrected later is scored anew.

Nearly no row is ever corrected, so a row costs an append here, and a correction a search: rows are kept in blocks,
beside the checksums of their keys: 1.2 µs a row and up to 0.5 ms a search (a table keyed by id: 3.3 µs a row).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from headrace.schemas.stream import ArmPrediction, Baselines, Label

BLOCK_ROWS = 250
BLOCK_BYTES = 256 << 10  # answers may name a thousand classes: of such rows a block holds fewer
BLOCKS = 200  # 50,000 rows, about 10 MB of disk: one with so many behind it moves no cumulative share by 1 / 50,000
MARK_BYTES = 4


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row by its key and offset: its newest label, what was answered, the slices it is in.

    `places` holds, for each arm that was scored, the number of the row among those of its run.
    """

    key: str
    offset: int
    label: Label
    predictions: dict[str, ArmPrediction]
    baselines: Baselines
    places: dict[str, int]
    slices: tuple[str, ...]


Blocks = MutableMapping[int, bytes]
_decode_rows = msgspec.msgpack.Decoder(list[Row]).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Kept:
    """The rows of the open block, `size` bytes of the log; the closed ones lie in two tables, by growing numbers."""

    rows: list[Row] = field(default_factory=list)
    size: int = 0
    closed: int = 0

    def add(self, row: Row, size: int, marks: Blocks, blocks: Blocks) -> None:
        """Keep one more row; the oldest block makes room."""
        self.rows.append(row)
        self.size += size
        if len(self.rows) < BLOCK_ROWS and self.size < BLOCK_BYTES:
            return
        marks[self.closed] = b"".join(_mark(row.key) for row in self.rows)
        blocks[self.closed] = _encode(self.rows)
        for table in (marks, blocks) if self.closed >= BLOCKS else ():
            del table[self.closed - BLOCKS]
        self.rows, self.size, self.closed = [], 0, self.closed + 1

    def find(self, key: str, marks: Blocks, blocks: Blocks) -> Row | None:
        """The newest row with this key, None where it is too old."""
        found = next((row for row in reversed(self.rows) if row.key == key), None)
        if found is not None:
            return found
        number, at = self._place(key, marks, blocks)
        return _decode_rows(blocks[number])[at] if number >= 0 else None

    def newest(self, n: int, blocks: Blocks) -> list[Row]:
        """The newest rows, `n` at most, oldest first."""
        found, number = list(self.rows), self.closed - 1
        while len(found) < n and number in blocks:
            found = _decode_rows(blocks[number]) + found
            number -= 1
        return found[-n:]

    def correct(self, row: Row, label: Label, marks: Blocks, blocks: Blocks) -> None:
        """From now on this label counts for a row that was found."""
        corrected = msgspec.structs.replace(row, label=label)
        if row in self.rows:
            self.rows[self.rows.index(row)] = corrected
            return
        number, at = self._place(row.key, marks, blocks)
        rows = _decode_rows(blocks[number])
        rows[at] = corrected
        blocks[number] = _encode(rows)

    def _place(self, key: str, marks: Blocks, blocks: Blocks) -> tuple[int, int]:
        """The newest closed block that holds the key, and where in it; -1, -1 where none does."""
        wanted = _mark(key)
        for number in range(self.closed - 1, max(-1, self.closed - 1 - BLOCKS), -1):
            known = marks[number]
            if wanted not in known:
                continue
            rows = _decode_rows(blocks[number])
            for at in range(len(rows) - 1, -1, -1):
                if rows[at].key == key:
                    return number, at
        return -1, -1


def _mark(key: str) -> bytes:
    return crc32(key.encode("utf-8", "surrogatepass")).to_bytes(MARK_BYTES, "big")
