"""The durable state of one fold on one input partition: one LMDB environment, one transaction a commit.

State, sequences, next offset and all changed rows of the keyed tables become durable together, so a reader after a
crash sees the old commit or the new one. What would be unpickled is authenticated first. LMDB runs without
WRITEMAP: a full disk must be an error, not a signal.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from headrace.infra.log_table import Key, LogTable

FIRST_MAP_BYTES = 64 << 20
FORMAT = b"headrace-state-1"
_HEAD = b"head"
_MAC_BYTES = 32


class StateRefused(RuntimeError):
    """State cannot be used; nothing was written. The message names the folder and the next command."""


class StateLocked(StateRefused):
    """Another process owns the folder."""


class StateCorrupt(StateRefused):
    """The state cannot be read back."""


class StateForeign(StateRefused):
    """Another key, topic, format or release wrote the state."""


class StateDiskFull(StateRefused):
    """There is no room for a commit; the last one stands."""


class StateBehind(StateRefused):
    """A commit would take the state back: another process went on with it."""


@dataclass(frozen=True)
class Saved:
    """What the last commit holds: next offset, sequences, the fields of the fold's State but its tables, facts."""

    offset: int
    sequences: dict[str, int]
    fields: dict[str, Any]
    meta: dict[str, str]


class Store:
    """Opens or makes the environment in `folder`; `key` authenticates. Raises StateRefused."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self.folder = folder
        self._key = hashlib.sha256(FORMAT + key).digest()
        self._tables: dict[str, tuple[LogTable, Any]] = {}
        self._offset = -1
        folder.mkdir(parents=True, exist_ok=True)
        size = max(FIRST_MAP_BYTES, 2 * sum(f.stat().st_size for f in folder.glob("data.mdb")))
        try:
            self._env = lmdb.open(str(folder), map_size=size, max_dbs=16, subdir=True, metasync=True, readahead=False)
            self._head = self._env.open_db(b"head")
        except lmdb.Error as error:
            raise StateCorrupt(self._says(f"cannot be opened ({error})")) from error

    @classmethod
    def open(cls, folder: Path, key: bytes) -> Store:
        """The store in a folder. Raises StateRefused."""
        return cls(folder, key)

    def load(self) -> Saved | None:
        """What the last commit holds, None where there was none. Raises StateCorrupt, StateForeign."""
        try:
            with self._env.begin(db=self._head) as txn:
                data = txn.get(_HEAD)
        except lmdb.Error as error:
            raise StateCorrupt(self._says(f"cannot be read ({error})")) from error
        if data is None:
            return None
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise StateForeign(self._says("is damaged or was written with another HEADRACE_ARTIFACT_KEY"))
        saved = Saved(**pickle.loads(body))
        self._offset = saved.offset
        return saved

    def table(self, name: str, value_type: type) -> LogTable:
        """The keyed table of a name, as it was at the last commit. Raises StateCorrupt."""
        db = self._env.open_db(b"table-" + name.encode())

        def read(counter: int) -> tuple[Key, bytes]:
            with self._env.begin(db=db) as txn:
                row = txn.get(counter.to_bytes(8, "big"))
            if row is None:
                raise StateCorrupt(self._says(f"lacks row {counter} of {name}"))
            return _unpack(row)

        table = LogTable(name, value_type, read)
        try:
            with self._env.begin(db=db, buffers=True) as txn:
                for counter, row in txn.cursor():
                    table.load(int.from_bytes(counter, "big"), _unpack_key(row))
                resumed = txn.get(f"next-{name}".encode(), db=self._head)
        except (lmdb.Error, ValueError, msgspec.DecodeError) as error:
            raise StateCorrupt(self._says(f"has unreadable rows of {name} ({error})")) from error
        table.resume(int.from_bytes(resumed, "big") if resumed is not None else 0)
        self._tables[name] = (table, db)
        return table

    def commit(self, offset: int, sequences: dict[str, int], fields: dict[str, Any], meta: dict[str, str]) -> None:
        """Make everything durable in one transaction. Raises StateDiskFull, StateBehind; then nothing is written."""
        if offset < self._offset:
            raise StateBehind(self._says(f"stands at offset {self._offset}, a commit of {offset} would take it back"))
        body = pickle.dumps(
            {"offset": offset, "sequences": sequences, "fields": fields, "meta": meta}, protocol=pickle.HIGHEST_PROTOCOL
        )
        changes = [(db, table, *table.changes()) for table, db in self._tables.values()]
        while True:
            try:
                self._write(self._mac(body) + body, changes)
                break
            except lmdb.MapFullError:
                self._grow()
            except lmdb.Error as error:
                if isinstance(error, lmdb.DiskError) or "No space left" in str(error):
                    raise StateDiskFull(self._says("has no room on its disk; free some, the service goes on by itself")) from error
                raise StateCorrupt(self._says(f"cannot be written ({error})")) from error
        for _, table, _, _ in changes:
            table.committed()
        self._offset = offset

    def copy(self, to: Path) -> None:
        """Copy the last commit into a new folder, compacted; complete under its name or not there."""
        temporary = to.with_name(to.name + ".tmp")
        temporary.mkdir(parents=True)
        self._env.copy(str(temporary), compact=True)
        os.replace(temporary, to)

    def close(self) -> None:
        """Let the environment go, without a commit."""
        self._env.close()

    def _write(self, head: bytes, changes: list[tuple[Any, LogTable, list[tuple[int, Key, bytes]], list[int]]]) -> None:
        with self._env.begin(write=True) as txn:
            for db, table, rows, deleted in changes:
                for counter in deleted:
                    txn.delete(counter.to_bytes(8, "big"), db=db)
                for counter, key, value in rows:
                    txn.put(counter.to_bytes(8, "big"), _pack(key, value), db=db, append=True)
                txn.put(f"next-{table.name}".encode(), table.next_counter.to_bytes(8, "big"), db=self._head)
            txn.put(_HEAD, head, db=self._head)

    def _grow(self) -> None:
        size = self._env.info()["map_size"]
        free = os.statvfs(self.folder)
        if free.f_bavail * free.f_frsize < 1 << 20:
            raise StateDiskFull(self._says("has no room on its disk; free some, the service goes on by itself"))
        self._env.set_mapsize(size * 2)

    def _mac(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()

    def _says(self, what: str) -> str:
        return f"the state in {self.folder} {what}. To fold it again from the log: headrace reset {self.folder}"


def _pack(key: Key, value: bytes) -> bytes:
    packed = msgspec.msgpack.encode(key)
    return len(packed).to_bytes(2, "big") + packed + value


def _unpack(row: bytes) -> tuple[Key, bytes]:
    end = 2 + int.from_bytes(row[:2], "big")
    return msgspec.msgpack.decode(row[2:end]), row[end:]


def _unpack_key(row: Any) -> Key:
    return msgspec.msgpack.decode(bytes(row[2 : 2 + int.from_bytes(row[:2], "big")]))  # type: ignore[no-any-return]


def lock_folder(folder: Path) -> int:
    """Own a state folder until the process ends; returns the descriptor. Raises StateLocked with the owner's id.

    A lock is held while a process is stopped and is free at once after a kill, which no timeout could tell.
    """
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            owner = path.read_text().strip()
        os.close(descriptor)
        raise StateLocked(
            f"the state in {folder} belongs to process {owner or 'of another owner'}, which is alive; set HEADRACE_INSTANCE "
            "to run a second instance beside it"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    os.register_at_fork(after_in_child=lambda: _close(descriptor))
    return descriptor


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
