"""One owner of a state folder at a time: a lock that the system frees the moment its process is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class StateRefused(RuntimeError):
    """State cannot be used; nothing was written. The message names the folder and the next command."""


class StateLocked(StateRefused):
    """Another process owns the folder."""


class FolderLock:
    """A held lock; kept until `release` or the end of the process, and never by its children."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        _held.add(descriptor)

    def release(self) -> None:
        """Let the folder go; a second call does nothing."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


_held: set[int] = set()


def lock_folder(folder: Path) -> FolderLock:
    """Own a state folder. Raises StateLocked with the owner's process id.

    The lock stays held while its process is stopped and is free at once after a kill; no timeout could tell these
    two apart.
    """
    path = folder / "owner"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StateLocked(
            f"the state in {folder} belongs to process {owner or 'of another owner'}, which is alive. Stop it "
            "(headrace down), or set HEADRACE_INSTANCE to run another instance beside it"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return FolderLock(descriptor)


def _forget_in_child() -> None:
    # A child's copy of the descriptor would keep the folder locked after its parent's end.
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
