"""One owner of a folder at a time: a lock that the system frees the moment its process is gone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_held: set[int] = set()


class Held(Exception):
    """Another process, whose id the message is, owns the folder."""


class FolderLock:
    """Owns a folder until `release` or the end of the process; children do not inherit it. Raises Held.

    The lock stays held while its process is stopped and is free at once after a kill; no timeout could tell these
    two apart.
    """

    def __init__(self, folder: Path) -> None:
        import fcntl  # not on Windows, where no service runs

        descriptor = os.open(folder / "owner", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise Held(owner) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        _held.add(descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the folder go; a second call does nothing."""
        if self._descriptor in _held:
            import fcntl

            _held.discard(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # a child that is being forked may hold a copy still
            os.close(self._descriptor)


def _forget_in_child() -> None:
    # A child's copy of the descriptor would keep the folder locked after its parent's end.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
