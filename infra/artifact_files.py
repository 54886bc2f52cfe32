"""Where artifacts lie: a folder on disk, written durably, or any URL that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any


class Folder:
    """Files below a folder. What `write` took is complete under its name, and stays so after a power cut."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, data: bytes) -> None:
        """Make a file durable. Raises OSError with its name; then it is not there."""
        path = f"{self._root}/{name}"
        folder = os.path.dirname(path)
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        try:
            _make(folder)
            _write_durably(temporary, data)
            os.replace(temporary, path)
            _sync_folder(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            what = f"{os.strerror(error.errno or 0)}, so the artifact is not stored; `headrace doctor` shows the disk"
            raise OSError(error.errno, what, path) from error

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


def _write_durably(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
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
        _sync_folder(os.path.dirname(part))


def _sync_folder(folder: str) -> None:
    if os.name == "nt":  # Windows lets nobody open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
