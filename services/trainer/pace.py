"""How often snapshots are taken: as the pipeline says, but they may take only a small share of the learning thread."""

from __future__ import annotations

import time
from collections.abc import Callable

SNAPSHOT_SHARE = 0.05  # of the learning thread's work
WAIT_SHARE = 0.2  # of its time, disk and a busy machine included: a slow fsync must not keep it from learning


class Pace:
    """`clock` gives seconds; where it is `simulated` it does not pass while this process works."""

    def __init__(self, clock: Callable[[], float], *, simulated: bool) -> None:
        self._clock, self._simulated = clock, simulated
        self._due = clock()
        self._began = self._worked = 0.0

    def is_due(self) -> bool:
        """Whether the next snapshot may be taken."""
        return self._clock() >= self._due

    def begin(self) -> None:
        """A snapshot begins."""
        self._began, self._worked = time.perf_counter(), time.thread_time()

    def end(self, refresh_s: float) -> None:
        """It is stored; the next one is due after `refresh_s`, or later if this one was costly. 0: at once."""
        wait_s = refresh_s
        if wait_s > 0 and not self._simulated:
            work_s, took_s = time.thread_time() - self._worked, time.perf_counter() - self._began
            wait_s = max(wait_s, work_s / SNAPSHOT_SHARE, took_s / WAIT_SHARE)
        self._due = self._clock() + max(wait_s, 0.0)
