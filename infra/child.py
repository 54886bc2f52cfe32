"""A process beside this one, for work that must not hold it up: clients of its own, a pipe to its parent.

A fork is ready at once, what the parent imported is there; elsewhere than on Linux it is spawned. It does not outlive
its parent for long: what it says finds no reader.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.infra.bus import Bus
    from headrace.infra.settings import Settings


@dataclass(slots=True)
class Child:
    """A process at work, and this end of the pipe to it."""

    process: BaseProcess
    pipe: Connection

    def end(self) -> int | None:
        """Stop it, if it still works, and return its exit code."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


def start(work: Callable[..., None], *arguments: Any) -> Child:
    """Call `work(pipe, *arguments)` in a process of its own; all of it must be picklable."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_alone, args=(work, theirs, arguments), daemon=True)
    process.start()
    theirs.close()
    return Child(process, ours)


def bus_of(settings: Settings, name: str) -> Bus:
    """A connection of the child's own; `name` says in the broker's logs whose."""
    from headrace.infra.kafka_bus import KafkaBus

    client_id = f"{settings.namespace}headrace-{name}"
    return KafkaBus(settings.bootstrap_servers, security=settings.confluent_security(), client_id=client_id)


def _alone(work: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        _let_go(pipe.fileno())
    work(pipe, *arguments)
    pipe.close()


def _let_go(keep: int) -> None:
    """Close what came through the fork: the parent's lock on its state, its stores and its connections."""
    highest = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, min(highest, 65_536))
