"""The runs of one pipeline that live but are not in lockstep yet: each waits for its offset or catches up to it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from headrace import model_bytes
from headrace.infra import child
from headrace.infra.bus import BusError, Message, Place
from headrace.infra.child import Child
from headrace.infra.service import Wiring
from headrace.services.trainer import catch_up_process, core, telling
from headrace.services.trainer.beginning import Releases, begin, world_of
from headrace.services.trainer.catch_up import CatchUp
from headrace.services.trainer.catch_up_process import NEAR, NEARER, PAUSE_S, TROUBLED, HandedOver
from headrace.services.trainer.control import Live
from headrace.services.trainer.poison import MACHINE_TROUBLE, Restored
from headrace.services.trainer.telling import Told

AT_ONCE = 2  # processes in one trainer
ATTEMPTS = 3  # a process that dies without a word may have been somebody's mistake
RETRY_S = 1.0
TRIES = 10  # handovers that came too late to be folded within the pause; then a longer one is taken
NEVER = 1 << 62


@dataclass(slots=True)
class Begun:
    """A run that catches up in a process, or is about to."""

    live: Live
    world: core.World
    child: Child | None = None
    not_before: float = 0.0
    deaths: int = 0
    handovers: int = 0


class Outside:
    """`meeting` is the lowest offset at which a run waits. `recent` are the messages that a handover may lack.

    `say` publishes what a run tells; `running` counts the processes of all pipelines.
    """

    def __init__(
        self,
        wiring: Wiring,
        place: Place,
        releases: Callable[[], Releases],
        say: Callable[[Live, Iterable[Told]], None],
        running: Callable[[], int],
    ) -> None:
        self.meeting = NEVER
        self.recent: deque[Message] | None = None
        self.failed: set[str] = set()
        self._wiring, self._place, self._releases, self._say, self._running = wiring, place, releases, say, running
        self._waiting: dict[str, CatchUp] = {}
        self._begun: dict[str, Begun] = {}

    @property
    def names(self) -> set[str]:
        """All that need not be begun."""
        return {*self._waiting, *self._begun, *self.failed}

    @property
    def processes(self) -> int:
        """How many work now."""
        return sum(one.child is not None for one in self._begun.values())

    def counts(self) -> dict[str, int]:
        """Numbers for /metrics."""
        return {"waiting": len(self._waiting), "catching_up": len(self._begun)}

    def approach(self, live: Live, lockstep_at: int | None) -> None:
        """Let a run begin: from where the lockstep is or will be, else it catches up. Without a lockstep it waits."""
        started, wiring = live.started, self._wiring
        try:
            releases = self._releases()
            world = world_of(started, releases, wiring.artifacts)
            run = CatchUp(
                live, world, begin(world, releases, wiring.artifacts), self._place, wiring.bus, wiring.namespace
            )
            if lockstep_at is not None:
                self._check_start(started.start_offset)
        except (*MACHINE_TROUBLE, BusError):
            raise
        except Exception as error:  # the author's recipe
            self._fail(live, f"it could not begin: {type(error).__name__}: {error}")
            return
        if lockstep_at is None or run.offset >= lockstep_at:
            self._say(live, run.begun())
            self._wait(run)
        elif wiring.inline_jobs:
            self._say(live, [*run.begun(), *run.learn_up_to(lockstep_at)])
            self._wait(run)
        else:
            self._begun[run.run] = Begun(live, world)

    def arrived(self, at: int) -> list[CatchUp]:
        """The runs that stand exactly there; they belong to the lockstep now."""
        found = [run for run in self._waiting.values() if run.offset == at]
        for run in found:
            del self._waiting[run.run]
        self._look()
        return found

    def look_after(self, lockstep_at: int | None) -> int:
        """Hear what processes say, start those that are due; returns how much of both. Waits for nothing."""
        if not self._begun:
            return 0
        done = sum([self._hear(name, one, lockstep_at) for name, one in list(self._begun.items()) if one.child])
        now = time.monotonic()
        for one in self._begun.values():
            if one.child is None and now >= one.not_before and self._running() < AT_ONCE:
                self._start(one)
                done += 1
        return done

    def keep(self, names: Collection[str]) -> int:
        """Let go of all others; returns how many."""
        gone = [name for name in self.names if name not in names]
        for name in gone:
            self._waiting.pop(name, None)
            self.failed.discard(name)
            self._leave(name)
        self._look()
        return len(gone)

    def close(self) -> None:
        """Stop the processes; their runs begin again at the next start."""
        self.keep(())

    # --- processes ----------------------------------------------------------------------------------------

    def _start(self, one: Begun) -> None:
        wiring = self._wiring
        if self.recent is None:
            self.recent = deque(maxlen=2 * NEAR)
        one.child = child.start(
            catch_up_process.work, one.live, dict(self._releases()), wiring.settings, wiring.key, self._place
        )

    def _hear(self, name: str, one: Begun, lockstep_at: int | None) -> int:
        assert one.child is not None
        said: Any = None
        try:
            if not one.child.pipe.poll():
                return 0
            said = one.child.pipe.recv()
        except (EOFError, OSError):
            self._died(name, one)
            return 1
        if isinstance(said, list):
            self._say(one.live, said)
        elif isinstance(said, HandedOver):
            self._take(name, one, said, lockstep_at)
        else:
            self._leave(name)
            self._fail(one.live, f"it could not begin: {said}")
        return 1

    def _take(self, name: str, one: Begun, handed: HandedOver, lockstep_at: int | None) -> None:
        """Take over a run, and let it learn what came since; or send it on, if that would take too long."""
        assert one.child is not None
        one.handovers += 1
        rest: list[Message] = []
        if lockstep_at is not None and handed.offset < lockstep_at:
            rest = [message for message in self.recent or () if handed.offset <= message.offset() < lockstep_at]
            is_short = len(rest) * handed.a_record_s <= PAUSE_S or one.handovers > TRIES
            if len(rest) != lockstep_at - handed.offset or not is_short:
                one.child.pipe.send(NEARER)
                return
        restored = Restored(model_bytes.loads(handed.data), handed.offset, handed.sequences)
        wiring = self._wiring
        run = CatchUp(one.live, one.world, restored, self._place, wiring.bus, wiring.namespace, handed.data)
        run.said_complete = handed.said_complete
        self._say(one.live, run.learn(rest))
        self._leave(name)
        self._wait(run)

    def _died(self, name: str, one: Begun) -> None:
        assert one.child is not None
        code, one.child = one.child.end(), None
        one.not_before, one.handovers = time.monotonic() + RETRY_S, 0
        one.deaths += code != TROUBLED
        if one.deaths >= ATTEMPTS:
            self._leave(name)
            self._fail(one.live, f"its catch-up ended {ATTEMPTS} times without a word, at last with exit code {code}")

    def _leave(self, name: str) -> None:
        one = self._begun.pop(name, None)
        if one is not None and one.child is not None:
            one.child.end()
        if not self._begun:
            self.recent = None

    # --- waiting ------------------------------------------------------------------------------------------

    def _wait(self, run: CatchUp) -> None:
        self._waiting[run.run] = run
        self._look()

    def _look(self) -> None:
        self.meeting = min((run.offset for run in self._waiting.values()), default=NEVER)

    def _fail(self, live: Live, why: str) -> None:
        self.failed.add(live.started.run)
        self._say(live, [telling.failed(live, why)])

    def _check_start(self, start: int) -> None:
        first = self._wiring.bus.offsets(self._place)[0]
        if start < first:
            raise ValueError(f"it starts at offset {start} of {self._place[0]}, which begins at {first}")
