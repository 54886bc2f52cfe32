"""A run outside the lockstep: learns its range by itself, up to the offset at which it joins the others."""

from __future__ import annotations

from collections.abc import Iterable

from headrace import model_bytes
from headrace.infra.bus import Bus, Message, Place
from headrace.infra.follow import read_range
from headrace.infra.records import DeadLetter, Incoming
from headrace.schemas.record import Record
from headrace.services.trainer import core, telling
from headrace.services.trainer.control import Live
from headrace.services.trainer.poison import MACHINE_TROUBLE, Restored, learn_again
from headrace.services.trainer.telling import Told


class CatchUp:
    """A run as it stands at `offset`, with the `sequences` of its own that tell it what is a repeat.

    `said_complete`: it reached an end at which it is to be judged. `data` are the state's bytes, where there are any.
    """

    def __init__(
        self,
        live: Live,
        world: core.World,
        restored: Restored,
        place: Place,
        bus: Bus,
        namespace: str,
        data: bytes = b"",
    ) -> None:
        self.live, self.world = live, world
        self.state, self.offset, self.sequences = restored.state, restored.offset, dict(restored.sequences)
        self.said_complete = False
        self._kept = (data or model_bytes.dumps(self.state), self.offset, dict(self.sequences))
        self._place, self._bus, self._namespace = place, bus, namespace
        self._incoming = Incoming(place[0], namespace, self.sequences, core.DECODERS)

    @property
    def run(self) -> str:
        """Its name."""
        return self.live.started.run

    def begun(self) -> list[Told]:
        """What it says before it learned anything."""
        told = telling.begun(self.live, self.state)
        self.said_complete = bool(told)
        return told

    def learn(self, messages: Iterable[Message]) -> list[Told]:
        """Learn the messages that come next. Raises BusError and whatever is the machine's fault."""
        told: list[Told] = []
        for message in messages:
            try:
                record = self._incoming.record(message)
            except DeadLetter:  # the lockstep, which reads the same log, says so
                record = None
            if record is not None:
                told += self._step(record)
            self.offset = message.offset() + 1
        return told

    def learn_up_to(self, end: int) -> list[Told]:
        """Learn what the log holds up to an offset (exclusive)."""
        told: list[Told] = []
        for record in read_range(
            self._bus, self._place, self.offset, end, self._namespace, sequences=self.sequences, decoders=core.DECODERS
        ):
            told += self._step(record)
        self.offset = end
        return told

    def _step(self, record: Record) -> list[Told]:
        try:
            told = telling.learned(record, core.step(self.state, record, self.world))
        except MACHINE_TROUBLE:
            raise
        except Exception:
            told = self._learn_again(record)
        self.said_complete = self.said_complete or any(one.emit.topic == "training-completed" for one in told)
        return told

    def _learn_again(self, record: Record) -> list[Told]:
        """Twice the work at most, however many records are poison: each second try begins where the last one did."""
        data, offset, sequences = self._kept
        restored = Restored(model_bytes.loads(data), offset, sequences)
        again = learn_again(restored, self.state.skipped, record, self.world, self._place, self._bus, self._namespace)
        self.state = again.state
        before = {**self.sequences, record.source: record.sequence - 1}
        self._kept = (again.before, record.offset, before)
        told = telling.learned(record, again.emits)
        return [*told, telling.failed(self.live, again.why, record)] if again.why else told
