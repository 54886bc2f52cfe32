"""One owner of a folder at a time: a lock that the system frees the moment its process is gone.

It holds among all processes of one machine, containers with a common volume among them (the lock is the file's, not
its path's). Two machines that mount one folder are not kept apart everywhere: NFS 4 passes the lock on, other file
systems may not, and LMDB's memory map is for one machine anyway. Then the commit itself notices: it checks that the
state still is what this process wrote last, and ends the process where it is not (`StateBehind`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

_held: set[int] = set()


class Held(Exception):
    """Another process owns the folder; the message is its id, with its host's name where that is another one."""


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
            owner, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
            os.close(descriptor)
            raise Held(f"{owner} on {host}" if host not in ("", socket.gethostname()) else owner) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)
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
