"""The durable state of one fold on one input partition: one LMDB environment, one transaction a commit.

State, sequences, next offset and all changed rows of the keyed tables become durable together, so a reader after a
crash sees the old commit or the new one. What is unpickled is authenticated first; rows carry checksums. LMDB runs
without WRITEMAP, because a full disk must be an error and not a signal, and with metasync, because a commit that a
power cut undoes would stand behind what the consumer group was told.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import lmdb
import msgspec

from headrace.infra.log_table import Changes, LogTable
from headrace.infra.state_copy import pieces_of
from headrace.infra.state_fields import lacking
from headrace.infra.state_lock import FolderLock, Held
from headrace.infra.state_rows import (
    MARKS,
    SIGNATURE_BYTES,
    Head,
    Key,
    OtherKey,
    RowDamaged,
    flags_of,
    pack_head,
    rows_of,
    unpack_head,
)

MAP_BYTES = 256 << 20  # address space, not memory; doubled when full
MAX_TABLES = 32
HEAD = b"head"
LITTLE_ROOM_BYTES = 1 << 20
PAGE_BYTES = 4096  # of most machines; only an estimate of how full the map is


class StateRefused(RuntimeError):
    """State cannot be used; nothing was written. The message names the folder and the next command."""


class StateLocked(StateRefused):
    """Another process owns the folder."""


class StateCorrupt(StateRefused):
    """The state cannot be read back."""


class StateForeign(StateRefused):
    """Another key or another version wrote the state."""


class StateDiskFailed(StateRefused):
    """The disk refuses a read or a write; the last commit stands."""


class StateDiskFull(StateDiskFailed):
    """There is no room for a commit; the last one stands."""


class StateBehind(StateRefused):
    """A commit would take the state back: its offset falls, or another process went on with the state."""


@dataclass(frozen=True)
class Saved:
    """What the last commit holds: next offset, sequences, the fields of the fold's State but its tables, facts."""

    offset: int
    sequences: dict[Any, int]
    fields: dict[str, Any]
    meta: dict[str, str]


class Store:
    """The state in a folder, made where there is none and owned by this process until `close`.

    `key` authenticates what was saved. Raises StateRefused, naming the folder and the next command.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self._key = key
        self._tables: dict[str, tuple[LogTable, Any]] = {}
        self._copying = threading.Lock()  # a new map, or none, under a copy in another thread would end the process
        self._needs_map = False
        # stands from opening to the first commit: LMDB aborts the process on some damage instead of raising
        self._suspect, self._is_suspect = folder / "opening", True
        self._reading: Any = None  # one read transaction between two commits: half the price of one for each row
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(folder)
        try:
            self._env = self._open()
        except BaseException:
            self._lock.release()
            raise
        try:
            self._signature, self._head = self._read_head()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, folder: Path, key: bytes) -> Store:
        """The store in a folder."""
        return cls(folder, key)

    def load(self) -> Saved | None:
        """What the last commit holds, None where there was none. Raises StateForeign."""
        if self._head is None:
            return None
        try:
            sequences, fields = pickle.loads(self._head.pickled)
        except Exception as error:  # authentic bytes: whatever they raise, other code wrote them
            raise self._of_other_code(f"{type(error).__name__}: {error}") from error
        lack = lacking(fields)
        if lack is not None:
            raise self._of_other_code(f"it has no {lack}")
        return Saved(self._head.offset, sequences, fields, self._head.meta)

    def table(self, name: str, value_type: type) -> LogTable:
        """The keyed table of a name, as it was at the last commit. Raises StateCorrupt, StateForeign."""
        self._end_reading()  # which would not know a table opened after its begin
        with self._refusals(f"cannot be read in table {name}"):
            db = self._env.open_db(b"table-" + name.encode())

            def read(page: int) -> list[tuple[int, Key, Any]]:
                try:
                    if self._reading is None:
                        self._reading = self._env.begin()
                    stored: bytes | None = self._reading.get(page.to_bytes(8, "big"), None, db)
                    if stored is not None:
                        return rows_of(page, stored)
                except (lmdb.Error, RowDamaged) as error:
                    self._refuse(f"cannot be read in table {name}", error)
                raise StateCorrupt(self._says(f"lacks page {page} of table {name}"))

            table = LogTable(name, value_type, read)
            with self._env.begin(db=db) as txn:
                for page, rows, flags in _pages(txn.cursor()):
                    table.load(page, rows, flags)
        expected = self._head.tables.get(name, 0) if self._head is not None else 0
        if len(table) != expected:
            raise StateCorrupt(self._says(f"has {len(table)} rows in table {name}, the last commit had {expected}"))
        try:
            next(iter(table.values()), None)  # the oldest row, which the oldest code wrote
        except msgspec.ValidationError as error:
            raise self._of_other_code(f"table {name}: {error}") from error
        self._tables[name] = (table, db)
        return table

    def commit(self, offset: int, sequences: dict[Any, int], fields: dict[str, Any], meta: dict[str, str]) -> None:
        """Make everything durable in one transaction. Raises StateDiskFull, StateBehind: then nothing is written."""
        if self._head is not None and offset < self._head.offset:
            raise StateBehind(
                self._says(f"stands at offset {self._head.offset}, a commit of {offset} would take it back")
            )
        tables = dict(self._head.tables) if self._head is not None else {}
        tables |= {name: len(table) for name, (table, _) in self._tables.items()}
        head = Head(offset, meta, tables, pickle.dumps((sequences, fields), protocol=pickle.HIGHEST_PROTOCOL))
        stored = pack_head(self._key, head)
        changes = [(db, table.changes()) for table, db in self._tables.values()]
        self._end_reading()  # which would keep LMDB from using freed pages again
        with self._refusals("cannot be written"):
            self._write(stored, changes)
        for table, _ in self._tables.values():
            table.committed()
        self._signature = stored[:SIGNATURE_BYTES]
        self._head = msgspec.structs.replace(head, pickled=b"")  # may be megabytes, and `load` is for the start
        self._trust()
        self._make_room()

    @contextlib.contextmanager
    def copy(self) -> Iterator[tuple[Head, Iterator[bytes]]]:
        """The last commit's head and, in pieces, a compact copy of exactly that commit.

        From any thread: commits go on meanwhile. Raises StateRefused where there is no commit, lmdb.Error, CopyGivenUp.
        """
        with self._copying, self._env.begin(db=self._db) as txn:
            stored = txn.get(HEAD)
            if stored is None:
                raise StateRefused(self._says("holds no commit to copy"))
            self._needs_map = False
            with pieces_of(self._env, txn, lambda: self._needs_map) as pieces:
                yield unpack_head(self._key, stored), pieces

    def close(self) -> None:
        """Let the folder go, without a commit."""
        with self._copying:
            self._env.close()
        self._trust()
        self._lock.release()

    def _trust(self) -> None:
        if self._is_suspect:
            self._suspect.unlink(missing_ok=True)
            self._is_suspect = False

    def _open(self) -> lmdb.Environment:
        path = self.folder / "data.mdb"
        size = path.stat().st_size if path.exists() else 0
        if self._suspect.exists() and size:
            self._check_pages(path)
        self._suspect.touch()
        with self._refusals("cannot be opened"):
            env = lmdb.open(str(self.folder), map_size=max(MAP_BYTES, 2 * size), max_dbs=MAX_TABLES, readahead=False)
        used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if path.stat().st_size < used:
            # Reading a mapped page beyond the file's end would be a SIGBUS; as zeros it is an error. A page that LMDB
            # freed before it was ever written may lie there rightly, so the size alone proves no damage.
            os.truncate(path, used)
        return env

    def _check_pages(self, path: Path) -> None:
        """Every page, by a reader that no damage can end: 1.6 s a million rows, so only where one is suspected."""
        from lmdb.verify import VerifyError, verify

        try:
            problems = verify(str(path))  # type: ignore[no-untyped-call]
        except VerifyError as error:
            problems = [str(error)]
        if problems:
            raise StateCorrupt(self._says(f"is damaged ({problems[0]})"))

    def _read_head(self) -> tuple[bytes, Head | None]:
        with self._refusals("cannot be read"):
            self._db = self._env.open_db(HEAD)
            with self._env.begin(db=self._db) as txn:
                stored = txn.get(HEAD)
        if stored is None:
            return b"", None
        try:
            return stored[:SIGNATURE_BYTES], unpack_head(self._key, stored)
        except RowDamaged as error:
            raise StateCorrupt(self._says(f"is damaged ({error})")) from None
        except OtherKey:
            raise StateForeign(
                f"the state in {self.folder} was written with another HEADRACE_ARTIFACT_KEY: set that one. Models and "
                "the marks of releases are signed with it too, so folding the log again would not help"
            ) from None
        except ValueError as error:
            raise StateForeign(self._says(f"was written {error}")) from None

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.abort()
            self._reading = None

    def _write(self, stored: bytes, changes: list[tuple[Any, Changes]]) -> None:
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    if txn.get(HEAD, b"", db=self._db)[:SIGNATURE_BYTES] != self._signature:
                        raise StateBehind(self._says("was taken over by another process, so this one must end"))
                    try:
                        for db, (added, replaced, deleted) in changes:
                            _delete(txn.cursor(db), deleted)
                            txn.cursor(db).putmulti(replaced)
                            txn.cursor(db).putmulti(added, append=True)
                        txn.put(HEAD, stored, db=self._db)
                    except lmdb.MapFullError:
                        self._needs_map = True  # before the abort, which waits for a copy
                        raise
                return
            except lmdb.MapFullError:
                with self._copying:
                    self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def _make_room(self) -> None:
        """Double a map that is half full while nobody copies it, so that no commit has to wait for a copy's end."""
        info = self._env.info()
        if info["last_pgno"] * PAGE_BYTES * 2 > info["map_size"] and self._copying.acquire(blocking=False):
            try:
                self._env.set_mapsize(info["map_size"] * 2)
            finally:
                self._copying.release()

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """Turn what LMDB raises into refusals."""
        try:
            yield
        except (lmdb.Error, RowDamaged, msgspec.DecodeError, OSError) as error:
            self._refuse(what, error)

    def _refuse(self, what: str, error: Exception) -> NoReturn:
        is_of_disk = isinstance(error, lmdb.DiskError | OSError) or type(error) is lmdb.Error
        if not is_of_disk:
            raise StateCorrupt(self._says(f"{what} ({error})")) from error
        disk = os.statvfs(self.folder)
        # LMDB calls a write that was cut short an input/output error, also where the disk was merely full.
        if isinstance(error, lmdb.DiskError) or disk.f_bavail * disk.f_frsize < LITTLE_ROOM_BYTES:
            raise StateDiskFull(
                f"the state in {self.folder} {what}: its disk is full. The last commit stands; free some room "
                "and start again"
            ) from error
        raise StateDiskFailed(
            f"the state in {self.folder} {what}: {error}. The last commit stands; see to its disk and start again"
        ) from error

    def _of_other_code(self, what: str) -> StateForeign:
        return StateForeign(self._says(f"was written by another version of the code ({what})"))

    def _says(self, what: str) -> str:
        return f"the state in {self.folder} {what}. To fold it again from the log: headrace reset {self.folder}"


def lock_folder(folder: Path) -> FolderLock:
    """Own a folder until the lock is released or the process ends. Raises StateLocked with the owner's process id."""
    try:
        return FolderLock(folder)
    except Held as owner:
        raise StateLocked(
            f"the state in {folder} belongs to process {owner}, which is alive. Stop it (headrace down), or set "
            "HEADRACE_INSTANCE to run another instance beside it"
        ) from None


def _pages(cursor: Any) -> Iterator[tuple[int, list[tuple[int, Key, Any]], bytes | None]]:
    """A table's pages in order, each with the marks that follow it. Raises RowDamaged."""
    page, rows = -1, None
    for place, stored in cursor:
        number = int.from_bytes(place[:8], "big")
        if rows is not None:
            is_marks = place[8:] == MARKS and number == page
            yield page, rows, flags_of(page, stored) if is_marks else None
            rows = None
            if is_marks:
                continue
        page, rows = number, rows_of(number, stored)
    if rows is not None:
        yield page, rows, None


def _delete(cursor: Any, places: list[bytes]) -> None:
    """Delete ascending places: a deletion leaves the cursor at the next row, often the next one to go."""
    for place in places:
        if cursor.key() == place or cursor.set_key(place):
            cursor.delete()
