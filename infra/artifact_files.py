"""Where artifacts lie: a folder on disk, written durably, or any URL that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Pause = Callable[[float], object]  # waits so many seconds, or less where somebody is in a hurry
CHUNK_BYTES = 1 << 20
DISK_SHARE = 2  # times as long as a gentle writer keeps the disk busy it leaves it to others


def files_at(url: str) -> Folder | Remote:
    """The files at a folder's path or a URL."""
    path = url.removeprefix("file://")
    return Remote(url) if "://" in path else Folder(Path(path))


class Folder:
    """Files below a folder. What `write` took is complete under its name, and stays so after a power cut."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, data: bytes) -> None:
        """Make a file durable. Raises OSError with its name; then it is not there."""
        try:
            self._write(name, [data], None)
        except OSError as error:
            what = f"{os.strerror(error.errno or 0)}, so the artifact is not stored; `headrace doctor` shows the disk"
            raise OSError(error.errno, what, f"{self._root}/{name}") from error

    def take(self, name: str, pieces: Iterable[bytes], stage: Path, pause: Pause | None = None) -> None:
        """Make a large file durable, piece by piece. Raises OSError; then it is not there.

        With `pause` never much of it waits for the disk at once, so that others' fsyncs need not wait for it.
        """
        self._write(name, pieces, pause)

    def _write(self, name: str, pieces: Iterable[bytes], pause: Pause | None) -> None:
        path = f"{self._root}/{name}"
        folder = os.path.dirname(path)
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        try:
            _make(folder)
            _write_durably(temporary, pieces, pause)
            os.replace(temporary, path)
            sync_folder(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file in pieces; none where there is no such file."""
        with contextlib.suppress(FileNotFoundError), open(f"{self._root}/{name}", "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(f"{self._root}/{folder}")
        return []

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        try:
            with open(f"{self._root}/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.exists(f"{self._root}/{name}")

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._root}/{name}")


class Remote:
    """Files below a URL that fsspec knows (S3, GCS, memory, …), as durable as that store's own writes."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._system: Any
        self._system, self._root = fsspec.core.url_to_fs(url)

    def write(self, name: str, data: bytes) -> None:
        """Write a file."""
        path = f"{self._root}/{name}"
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(path, data)

    def take(self, name: str, pieces: Iterable[bytes], stage: Path, pause: Pause | None = None) -> None:
        """Upload a large file: who makes its pieces is done before a slow network is, so it stands in `stage` first."""
        path, temporary = f"{self._root}/{name}", stage / f"upload.{secrets.token_hex(4)}.tmp"
        try:
            _write_durably(str(temporary), pieces, pause)
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(temporary), path)
        finally:
            temporary.unlink(missing_ok=True)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file in pieces; none where there is no such file."""
        with contextlib.suppress(FileNotFoundError), self._system.open(f"{self._root}/{name}", "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder."""
        with contextlib.suppress(FileNotFoundError):
            self._system.invalidate_cache()  # a listing that is remembered lacks what others wrote
            return [str(path).rpartition("/")[2] for path in self._system.ls(f"{self._root}/{folder}", detail=False)]
        return []

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none."""
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._system.exists(f"{self._root}/{name}"))

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")


def _write_durably(path: str, pieces: Iterable[bytes], pause: Pause | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o640)
    try:
        for piece in pieces:
            begun, view = time.monotonic(), memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
            if pause is not None:
                os.fsync(descriptor)
                pause(DISK_SHARE * (time.monotonic() - begun))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: str) -> None:
    """Make a folder and its parents, each one's entry in its parent durable too."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for part in reversed(missing):
        os.makedirs(part, exist_ok=True)
        sync_folder(os.path.dirname(part))


def sync_folder(folder: str | Path) -> None:
    """Make the entries of a folder durable: the files that were made, renamed or deleted there."""
    if os.name == "nt":  # Windows lets nobody open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
