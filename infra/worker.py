"""One fold on one input partition: what it restores, how it takes a message, what it commits.

At assignment the newest of local state and checkpoint is taken, and checked (`infra.continuity`) before anything is
written. The fold is silent up to the group's offset: what lies before it was flushed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from headrace.infra.beginning import read_beginning
from headrace.infra.bus import Bus, Message, Place, Producer
from headrace.infra.continuity import CLEAN, Anchor, Log, check_anchor, check_owner, check_place, check_state, facts
from headrace.infra.opening import open_state
from headrace.infra.records import DeadLetter, Incoming, Outgoing, source_of
from headrace.infra.store import StateForeign
from headrace.schemas.codec import ORIGIN, header
from headrace.schemas.record import Record
from headrace.schemas.topics import parse_name
from headrace.services import Fold

if TYPE_CHECKING:
    from headrace.infra.artifact_files import Pause
    from headrace.infra.checkpoints import Checkpoints


class StepFailed(RuntimeError):
    """A step raised: the process ends before it commits; the message names the record and what to do."""


class StateStore(Protocol):
    """What a worker needs of a store; `infra.store.Store` keeps it on disk."""

    folder: Path

    def load(self) -> Any: ...
    def table(self, name: str, value_type: type) -> Any: ...
    def commit(self, offset: int, sequences: dict[str, int], fields: dict[str, Any], meta: dict[str, str]) -> None: ...
    def copy(self) -> AbstractContextManager[tuple[Any, Iterator[bytes]]]: ...
    def close(self) -> None: ...


OpenStore = Callable[[str, Place], StateStore | None]
Admit = Callable[[Record], None]


class Worker:
    """One fold on one input partition: its state, its sequences, its next offset. Raises StateRefused.

    `admit` may look at the world before a record is folded, and raise DeadLetter; after a crash it is asked again, and
    may answer otherwise.
    """

    def __init__(
        self,
        fold: Fold,
        core: ModuleType,
        place: Place,
        *,
        bus: Bus,
        producer: Producer,
        namespace: str,
        open_store: OpenStore,
        world: Any = None,
        admit: Admit | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.fold, self.place, self.world = fold, place, world
        self.offset = self.loud_from = self.faults = 0
        self.dirty = self.clean = False
        self.last: Message | None = None
        self._core, self._step, self._bus = core, core.step, bus
        self._tables: dict[str, type] = getattr(core, "TABLES", {})
        self._checkpoints, self._admit = checkpoints, admit
        self._copies: bool = getattr(core, "COPIES", False)
        self.name, self.pipeline = parse_name(place[0], namespace)
        self.topic_id = bus.topic_id(place[0])
        opened = open_state(fold, place, self.topic_id, self._tables, open_store, checkpoints)
        self._store, saved, tables, copied = opened
        self._copied = (copied.offset, copied.clean) if copied is not None else None
        try:
            self._take_up(saved, tables)
        except BaseException:
            self.close()
            raise
        source = source_of(fold.service, self.pipeline, self.topic_id, place[1])
        if self._incarnation:
            source = f"{source.rpartition('/')[0]}.{self._incarnation}/{place[1]}"
        self._incoming = Incoming(
            place[0], namespace, dict(saved.sequences) if saved else None, getattr(core, "DECODERS", None)
        )
        self._outgoing = Outgoing(
            producer,
            source,
            namespace,
            self.pipeline,
            frozenset(fold.outputs),
        )

    def start(self, committed: int | None) -> int:
        """The offset to read from: that of the last record folded, which `first` compares. Raises StateRefused.

        Up to the group's offset `committed` the fold is silent.
        """
        try:
            return self._start(committed or 0)
        except BaseException:
            self.close()
            raise

    def first(self, message: Message) -> bool:
        """Take the first messages after the assignment; False for one that was folded before. Raises StateRefused."""
        if message.offset() < self.offset:
            if self._anchor is not None and message.offset() == self._anchor.offset:
                check_anchor(self.fold, self.place, self._anchor, message)
            return False
        if self.clean:  # from here on things may be told that no commit knows of
            self.commit()
        return True

    def handle(self, message: Message) -> None:
        """Fold one message: drop a repeat, step, publish. Raises StepFailed where the step raises."""
        offset = message.offset()
        self.offset = offset + 1
        self.dirty = True
        self.last = message
        try:
            record = self._incoming.record(message)
            if self._admit is not None and record is not None and offset >= self.loud_from:
                self._admit(record)
        except DeadLetter as fault:
            self.faults += 1
            if offset >= self.loud_from:
                self._outgoing.dead_letter(self.place[0], message, str(fault))
            return
        if record is None:
            return
        try:
            emits = self._step(self.state, record, self.world)
        except Exception as error:
            raise StepFailed(
                f"{self.fold.id} failed at {self.place[0]} partition {self.place[1]} offset {offset}: "
                f"{type(error).__name__}: {error}. Nothing of it is committed; after a fix the service goes on there."
            ) from error
        if emits and offset >= self.loud_from:
            if self._copies:
                self._copy(record, emits)
            else:
                self._outgoing.publish(record, emits)

    def check_topic(self) -> None:
        """Raises TopicRecreated where what was read since the last commit is another topic's."""
        check_owner(self.fold, self.place, self._bus.topic_id(self.place[0]), self.offset, self._facts)

    def commit(self) -> None:
        """Make state, sequences and next offset durable, in one transaction; the producer is flushed already."""
        self._commit(clean=False)

    def leave(self) -> None:
        """At a clean stop, and before the partition goes to another: all is flushed, and nothing is told after it."""
        if self._store is None:
            return
        if not self.clean:
            self._commit(clean=True)
        self.checkpoint()

    def checkpoint(self, pause: Pause | None = None) -> None:
        """Upload a copy of the last commit, unless that was done. From any thread; with `pause` beside a loop."""
        if self._checkpoints is not None and self._store is not None and self._committed not in (None, self._copied):
            saved = self._checkpoints.save(self._store, self.fold.id, self.place, pause)
            self._copied = saved or self._copied

    def close(self) -> None:
        """Let the state go, without a commit."""
        if self._store is not None:
            self._store.close()

    def counts(self) -> dict[str, int]:
        """Numbers for /metrics."""
        own = {f"fold_{name}": count for name, count in getattr(self.state, "counts", {}).items()}
        return {
            "offset": self.offset,
            "published": self._outgoing.published,
            "repeats": self._incoming.repeats,
            "dead_letters": self.faults,
            "checkpoint": self._copied[0] if self._copied else 0,
            **own,
        }

    def _take_up(self, saved: Any, tables: dict[str, Any]) -> None:
        """The state as it was saved, else a fresh one."""
        meta = saved.meta if saved is not None else {}
        self._saved_meta: dict[str, str] | None = meta or None
        begin = read_beginning(self._store.folder if self._store is not None else None, self.topic_id)
        self._incarnation = meta.get("incarnation", "") if saved is not None else begin.incarnation
        self._loud_at_least = int(meta.get("loud_from", 0)) if saved is not None else begin.loud_from
        self._void = int(meta["void"]) if "void" in meta else None
        self._anchor = Anchor.parse(meta.get("last", ""))
        self.offset = saved.offset if saved is not None else begin.offset
        self.clean = meta.get("clean") == CLEAN
        self._committed = (saved.offset, self.clean) if saved is not None else None
        if saved is None:
            fresh = getattr(self._core, "fresh", None)
            self.state: Any = fresh(self.pipeline, self.place[1]) if fresh else self._core.State()
            for name, table in tables.items():
                setattr(self.state, name, table)
            return
        other = ", ".join(sorted(saved.fields.keys() ^ set(_fields_of(self._core.State, self._tables))))
        if other:  # a default in the place of what was folded would be another fold's state
            raise StateForeign(
                f"the state of {self.fold.id} for {self.place[0]} partition {self.place[1]} at offset {saved.offset} "
                f"has other fields than this version knows ({other}); to fold it again from the log: "
                f"headrace reset {self.fold.service}"
            )
        self.state = self._core.State(**saved.fields, **tables)

    def _start(self, committed: int) -> int:
        topic, _ = self.place
        if self._incarnation and self._void is None:
            self._void = committed
        if committed == self._void:  # of the log before it was cut back
            committed = 0
        first, end = self._bus.offsets(self.place, at_least=max(self.offset, committed))
        partitions = self._bus.partitions(topic) or 0
        log = Log(partitions, first, end, committed)
        if self._saved_meta is not None:
            check_state(self.fold, self.place, log, self.offset, self._saved_meta)
        check_place(self.fold, self.place, log, self.offset)
        self.loud_from = max(committed, self._loud_at_least)
        self._facts = facts(self.fold, self.place, self.topic_id, partitions)
        if self._incarnation:
            self._facts |= {
                "incarnation": self._incarnation,
                "loud_from": str(self._loud_at_least),
                "void": str(self._void),
            }
        if self._anchor is not None and self._anchor.offset >= first:
            return self._anchor.offset
        return self.offset

    def _commit(self, *, clean: bool) -> None:
        if self._store is not None:
            if self.last is not None:
                self._anchor = Anchor.of(self.last)
            release = str(getattr(self.state, "release", ""))
            now = {"last": str(self._anchor or ""), "clean": CLEAN if clean else "", "release": release}
            self._store.commit(self.offset, self._incoming.sequences, self._fields(), self._facts | now)
            self._committed = self.offset, clean
        self.dirty, self.clean = False, clean

    def _copy(self, record: Record, emits: list[Any]) -> None:
        origin = (
            header(record.headers, ORIGIN, 7) or f"{record.topic}/{self.topic_id}/{record.partition}/{record.offset}"
        )
        for emit in emits:
            self._outgoing.copy(record, emit, origin)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self.state, name) for name in _fields_of(type(self.state), self._tables)}


def _fields_of(kind: Any, tables: Mapping[str, type]) -> list[str]:
    """The fields of a fold's State that a commit holds: all but its tables."""
    names = getattr(kind, "__struct_fields__", None) or kind.__dataclass_fields__
    return [name for name in names if name not in tables]
