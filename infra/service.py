"""A service as a process: what its parts are made with, the loop that drives them, its health, its end."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus, Place
from headrace.infra.runtime import FoldRunner, fold_runner
from headrace.infra.settings import Settings
from headrace.infra.worker import Admit, OpenStore
from headrace.services import folds_of

if TYPE_CHECKING:
    from headrace.infra.checkpoints import Checkpoints

# How long the first part waits when none had work (a record ends the wait); the others are asked in between. It grows
# while nothing happens, which takes idle services from 1 % of a core each to a third of that.
IDLE_S, LONGEST_IDLE_S = 0.02, 0.2
# after a burst of so many records and so long without any, what they took and left of memory is given back
BURST, QUIET_S = 1_000, 0.5
FAILED = 1


class Tickable(Protocol):
    """A part of a service. `tick` never waits longer than its timeout and returns how much it did."""

    def tick(self, timeout_s: float = 0.0) -> int: ...
    def close(self) -> None: ...
    def counts(self) -> dict[str, Any]: ...


@dataclass
class Wiring:
    """What the parts of a service are made with. The in-process system makes them with a bus and stores of its own.

    Without `checkpoints` state is kept on this disk only. `timing` are the runner's settings (`commit_s`,
    `commit_records`, `batch`, `follow_s`); `inline_jobs` runs gate jobs in this process instead of a child, and takes
    checkpoints in the loop instead of a thread.
    """

    settings: Settings
    bus: Bus
    artifacts: Artifacts
    key: bytes
    open_store: OpenStore
    timing: dict[str, Any] = field(default_factory=dict)
    inline_jobs: bool = False
    clock_ms: Callable[[], int] | None = None
    checkpoints: Checkpoints | None = None

    @property
    def namespace(self) -> str:
        """What stands before every topic and group."""
        return self.settings.namespace

    def fold(self, service: str, core: ModuleType, world: Any = None, admit: Admit | None = None) -> FoldRunner:
        """The runner of one fold of a service; `core` is the fold's module, `admit` as `Worker` has it."""
        name = core.__name__.rpartition(".")[2]
        folds = [fold for fold in folds_of(service) if fold.name == name]
        background = None
        if self.checkpoints is not None:
            from headrace.infra.checkpoints import Background

            clock = self.timing.get("clock", time.monotonic)
            background = Background(self.settings.checkpoint_s, clock, inline=self.inline_jobs)
        return fold_runner(
            folds,
            core,
            self.bus,
            namespace=self.namespace,
            instance=self.settings.instance,
            open_store=self.open_store,
            world=world,
            admit=admit,
            checkpoints=self.checkpoints,
            background=background,
            **self.timing,
        )


Build = Callable[[Wiring], Sequence[Tickable]]


class Stop:
    """Set by SIGTERM and SIGINT: the loop ends after the batch at hand.

    Until the loop begins there is nothing to leave cleanly, and a service may wait long for a broker: it ends at once.
    """

    def __init__(self) -> None:
        self.asked = self.in_loop = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self.in_loop:
            sys.exit(0)


def run_service(name: str, build: Build) -> None:
    """Run a service until SIGTERM: the body of every `__main__.py`. Exits 3 on a refusal, 1 on a failure.

    With `--drain` among the program's arguments it ends by itself, its state left cleanly, once every record is
    folded that was there when it began.
    """
    import structlog

    from headrace.infra.artifacts import ArtifactRefused
    from headrace.infra.bus import BusError
    from headrace.infra.health import HealthServer
    from headrace.infra.logs import configure_logs
    from headrace.infra.processes import DRAIN, REFUSED, write_run_file
    from headrace.infra.settings import SettingsError
    from headrace.infra.store import StateRefused
    from headrace.infra.worker import StepFailed

    stop = Stop()
    faulthandler.enable()  # a crash in a library's own code would end the process without a word
    configure_logs()
    log = structlog.get_logger(service=name)
    parts: list[Tickable] = []
    try:
        settings = Settings(principal=name)
        configure_logs(settings.log_format)
        log = structlog.get_logger(service=name)
        wiring = live_wiring(settings, name)
        parts += build(wiring)
        stop.in_loop = True
        health = HealthServer(name, settings, parts)
        write_run_file(settings.home, name, {"pid": os.getpid(), "health": health.url})
        log.info("started", health=health.url, bootstrap_servers=settings.bootstrap_servers)
        tidy_memory()
        if DRAIN in sys.argv[1:]:
            drain(parts, stop, health.beat, settings.session_timeout_s)
        else:
            loop(parts, stop, health.beat)
        for part in parts:
            part.close()
        health.close()
        log.info("stopped")
    except (StateRefused, ArtifactRefused, SettingsError) as refusal:
        log.error("refused", reason=str(refusal))
        sys.exit(REFUSED)
    except (BusError, StepFailed, OSError) as error:
        log.error("failed", reason=str(error), kind=type(error).__name__)
        sys.exit(FAILED)


def loop(parts: Sequence[Tickable], stop: Stop, beat: Callable[[], None]) -> None:
    """Tick every part; wait in the first one only when none had work. `beat` is called at each turn."""
    first, others = parts[0], parts[1:]
    shortest_s = IDLE_S if others else LONGEST_IDLE_S
    idle_s, busy = shortest_s, True
    worked_at, since = time.monotonic(), 0
    while not stop.asked:
        done = first.tick(0.0 if busy and others else idle_s)
        for part in others:
            done += part.tick(0.0)
        busy = done > 0
        idle_s = shortest_s if busy else min(idle_s * 1.5, LONGEST_IDLE_S)
        if busy:
            worked_at, since = time.monotonic(), since + done
        elif since >= BURST and time.monotonic() > worked_at + QUIET_S:
            since = 0
            give_back_memory()
        beat()


def drain(parts: Sequence[Tickable], stop: Stop, beat: Callable[[], None], settled_s: float) -> None:
    """Tick every part until all folds among them have folded what there was. Parts that are no fold need no drain."""
    # one that wraps a runner keeps it to itself: the trainer's runs leave with a last snapshot at any offset
    folds = [part for part in parts if isinstance(part, FoldRunner)]
    while not stop.asked:
        done = sum([part.tick(0.0) for part in parts])
        beat()
        if not done:
            if all(fold.drained(settled_s) for fold in folds):
                return
            parts[0].tick(IDLE_S)


def live_wiring(settings: Settings, service: str) -> Wiring:
    """The wiring of a process of its own: Kafka, LMDB, the artifact store."""
    from headrace.infra.checkpoints import Checkpoints
    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.store import Store, lock_folder

    key = settings.key()
    folder = settings.state_dir / settings.instance / service
    folder.mkdir(parents=True, exist_ok=True)
    lock_folder(folder)

    def folder_of(fold: str, place: Place) -> Path:
        return folder / fold / f"{place[0]}-{place[1]}"

    def open_store(fold: str, place: Place) -> Store:
        return Store.open(folder_of(fold, place), key)

    bus = KafkaBus(
        settings.bootstrap_servers,
        linger_ms=settings.linger_ms,
        session_timeout_s=settings.session_timeout_s,
        security=settings.confluent_security(),
        client_id=f"{settings.namespace}headrace-{service}",
    )
    return Wiring(
        settings,
        bus,
        Artifacts(settings.artifact_url, key),
        key,
        open_store,
        timing={"commit_s": settings.commit_s, "commit_records": settings.commit_records},
        checkpoints=Checkpoints(settings.artifact_url, key, folder_of),
    )


def give_back_memory() -> None:
    """What is free goes back to the system; glibc, the only one to be asked, keeps it: 3 to 16 MB a service."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tidy_memory() -> None:
    """Start-up objects leave the garbage collector's sight: 0.6 to 2.3 µs less a record (docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
