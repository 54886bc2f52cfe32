"""Durable copies of folds' state in the artifact store, for who lost theirs or takes a partition over.

A checkpoint is two files: the compact copy (`.mdb`) and, written after it, a manifest (`.json`) with the copy's
sha256, signed. So it is there as a whole or not at all. Nothing of a copy is read before the signature and every
byte are checked; one that fails is passed over for the one before it. The newest two of each place are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import msgspec
import structlog

from headrace.infra.artifact_files import Pause, files_at, sync_folder
from headrace.infra.bus import Place
from headrace.infra.continuity import CLEAN
from headrace.infra.signed_line import key_id, read_line, sign_line
from headrace.infra.state_copy import CopyGivenUp
from headrace.infra.state_rows import RowDamaged
from headrace.infra.store import StateRefused

if TYPE_CHECKING:
    from headrace.infra.worker import StateStore

ROOT = "checkpoints"
KEPT = 2
PURPOSE = b"headrace-checkpoint-1 "

FolderOf = Callable[[str, Place], Path]


class CheckpointRefused(Exception):
    """A checkpoint is torn, was changed, or has another key's signature."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy is: `offset` is the fold's next one in the topic of this id; `clean` if nothing was told after it."""

    fold: str
    topic: str
    partition: int
    topic_id: str
    offset: int
    clean: bool
    release: str
    headrace: str
    python: str
    river: str
    taken_at: str
    copy: str
    size_bytes: int
    sha256: str
    key_id: str

    @property
    def manifest(self) -> str:
        """The name of the manifest's file."""
        return f"{_folder(self.fold, (self.topic, self.partition))}/{self.offset:020d}-{self.sha256[:16]}.json"


class Checkpoints:
    """The checkpoints in the artifact store at `url`. `folder_of` says where the store of a fold and place lies."""

    def __init__(self, url: str, key: bytes, folder_of: FolderOf) -> None:
        self._key, self._files, self._folder_of = key, files_at(url), folder_of
        self._key_id = key_id(key)
        self._log = structlog.get_logger()

    def save(self, store: StateStore, fold: str, place: Place, pause: Pause | None = None) -> tuple[int, bool] | None:
        """Copy the store's last commit; its offset and cleanness. None, and a line in the log, where that fails.

        Beside a loop that works, `pause` between pieces leaves it the disk.
        """
        try:
            saved = self._save(store, fold, place, pause)
        except (OSError, StateRefused, CopyGivenUp, lmdb.Error, RowDamaged, ValueError) as error:
            self._log.warning("checkpoint failed", fold=fold, topic=place[0], partition=place[1], reason=str(error))
            return None
        return saved.offset, saved.clean

    def newest(self, fold: str, place: Place, topic_id: str) -> Checkpoint | None:
        """The newest checkpoint with an authentic manifest: of this topic's id, else of the topic before it."""
        return next(iter(self._all(fold, place, topic_id)), None)

    def restore(self, fold: str, place: Place, topic_id: str) -> Checkpoint | None:
        """Put the newest good checkpoint in the place of the local state, which nobody has open; None without one."""
        folder = self._folder_of(fold, place)
        for found in self._all(fold, place, topic_id):
            try:
                self._fetch(found, folder)
            except CheckpointRefused as refusal:
                self._log.warning("checkpoint refused", fold=fold, topic=place[0], reason=str(refusal))
                continue
            self._log.info("checkpoint restored", fold=fold, topic=place[0], partition=place[1], offset=found.offset)
            return found
        return None

    def forget(self, fold: str, place: Place) -> int:
        """Delete every checkpoint of a place; how many."""
        names = sorted(self._names(fold, place), key=_copies_last)
        for name in names:
            self._files.delete(name)
        return sum(name.endswith(".json") for name in names)

    def _save(self, store: StateStore, fold: str, place: Place, pause: Pause | None) -> Checkpoint:
        digest, size = hashlib.sha256(), 0

        def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece

        name = f"{_folder(fold, place)}/{secrets.token_hex(16)}.mdb"
        with store.copy() as (head, pieces):
            self._files.take(name, counted(pieces), store.folder, pause)
        meta = head.meta
        made = Checkpoint(
            **{name: meta[name] for name in ("fold", "topic", "topic_id", "headrace", "python", "river", "release")},
            partition=int(meta["partition"]),
            offset=head.offset,
            clean=meta["clean"] == CLEAN,
            taken_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            copy=name,
            size_bytes=size,
            sha256=digest.hexdigest(),
            key_id=self._key_id,
        )
        self._files.write(made.manifest, sign_line(self._key, msgspec.json.encode(made), PURPOSE))
        self._thin(made)
        return made

    def _fetch(self, wanted: Checkpoint, folder: Path) -> None:
        """Make a checked copy durable as the state in a folder; what is there stays until it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        new, digest = folder / "data.mdb.new", hashlib.sha256()
        with contextlib.ExitStack() as ends:
            ends.callback(new.unlink, missing_ok=True)
            with new.open("wb") as file:
                for chunk in self._files.chunks(wanted.copy):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != wanted.sha256:
                raise CheckpointRefused(f"{wanted.copy} is not what was signed")
            (folder / "lock.mdb").unlink(missing_ok=True)
            new.replace(folder / "data.mdb")
        sync_folder(folder)

    def _all(self, fold: str, place: Place, topic_id: str) -> list[Checkpoint]:
        """Those with an authentic manifest; this topic's before others', newest first."""
        found = []
        for name in self._names(fold, place):
            if name.endswith(".json"):
                try:
                    found.append(self._read(name, fold, place))
                except CheckpointRefused as refusal:
                    self._log.warning("checkpoint refused", fold=fold, topic=place[0], reason=str(refusal))
        return sorted(found, key=lambda one: (one.topic_id == topic_id, one.offset, one.clean), reverse=True)

    def _read(self, name: str, fold: str, place: Place) -> Checkpoint:
        content = self._files.read(name) or b""
        signed = read_line(content)
        if signed is None or signed.end != len(content):
            raise CheckpointRefused(f"{name} is torn")
        if not signed.is_authentic(self._key, PURPOSE):
            raise CheckpointRefused(f"{name} is not what was signed with this HEADRACE_ARTIFACT_KEY")
        try:
            found = msgspec.json.decode(signed.body, type=Checkpoint)
        except msgspec.DecodeError as error:
            raise CheckpointRefused(f"{name} was written by another version ({error})") from None
        if (found.fold, found.topic, found.partition) != (fold, *place) or found.manifest != name:
            raise CheckpointRefused(f"{name} is the manifest of {found.manifest}")
        return found

    def _thin(self, made: Checkpoint) -> None:
        place = (made.topic, made.partition)
        kept = [one for one in self._all(made.fold, place, made.topic_id) if one.topic_id == made.topic_id][:KEPT]
        for name in sorted(self._names(made.fold, place), key=_copies_last):
            if name not in {file for one in kept for file in (one.manifest, one.copy)}:
                self._files.delete(name)

    def _names(self, fold: str, place: Place) -> Iterator[str]:
        folder = _folder(fold, place)
        return (f"{folder}/{name}" for name in self._files.names(folder) if name.endswith((".json", ".mdb", ".tmp")))


class Background:
    """Takes checkpoints beside the loop, every so often, in one thread at a time; `inline` in the loop itself."""

    def __init__(self, every_s: float, clock: Callable[[], float], *, inline: bool = False) -> None:
        self._every_s, self._clock, self._inline = every_s, clock, inline
        self._due = clock() + every_s
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()

    def take(self, each: list[Callable[[Pause | None], None]]) -> None:
        """Begin one of each if that is due and the ones before are done."""
        if self._clock() < self._due or self.is_busy():
            return
        self._due = self._clock() + self._every_s
        if self._inline:
            for one in each:
                one(None)
            return
        self._thread = threading.Thread(
            target=lambda: [one(self._hurry.wait) for one in each], name="checkpoints", daemon=True
        )
        self._thread.start()

    def is_busy(self) -> bool:
        """Whether some are under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until those under way are done, which need not be gentle any more."""
        if self._thread is not None:
            self._hurry.set()
            self._thread.join()
            self._hurry.clear()


def _copies_last(name: str) -> bool:
    """Sorts what is to be deleted: what lost its manifest is not there any more."""
    return not name.endswith(".json")


def _folder(fold: str, place: Place) -> str:
    return f"{ROOT}/{fold}/{place[0]}-{place[1]}"
