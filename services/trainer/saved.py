"""What a pipeline's runs go on from after a crash: their newest artifacts, sequences and offset, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass

from msgspec.structs import replace

from headrace.infra.artifacts import Artifacts
from headrace.infra.store import StateForeign
from headrace.infra.worker import StateStore
from headrace.services.trainer.snapshots import Base
from headrace.services.trainer.thinning import Revision, superfluous

THIN_S = 60.0
FIELDS = ("next_offset", "bases", "joins")


@dataclass(frozen=True, slots=True)
class Pending:
    """What the next commit makes durable: the runs at one offset."""

    next_offset: int
    sequences: dict[str, int]
    bases: dict[str, Base]
    joins: int


class Saved:
    """The committed place of the runs, and the table of their revisions. Without a store it lives in memory only."""

    def __init__(self, store: StateStore | None, topic_id: str, clock: Callable[[], float]) -> None:
        """`clock` gives seconds. Raises StateRefused where the store cannot be used or belongs to another topic."""
        self._store, self._topic_id = store, topic_id
        self._clock, self._thin_at = clock, clock()
        self._pending: Pending | None = None
        self.offset = self.next_offset = self.joins = 0
        self.is_new = True
        self.sequences: dict[str, int] = {}
        self.bases: dict[str, Base] = {}
        self.revisions: MutableMapping[str, Revision] = {}
        if store is None:
            return
        saved = store.load()
        self.revisions = store.table("revisions", Revision)
        if saved is None:
            return
        if saved.meta["topic_id"] != topic_id:
            raise StateForeign(
                "the labelled examples that these runs learned are gone: their topic was created anew; "
                "`headrace reset trainer` lets the runs begin again"
            )
        self.is_new = False
        self.offset, self.sequences = saved.offset, saved.sequences
        try:
            self.next_offset, self.bases, self.joins = (saved.fields[name] for name in FIELDS)
        except KeyError as error:
            raise StateForeign(
                f"the state of the training runs lacks {error}, so another version of the code wrote it; "
                "`headrace reset trainer` lets the runs begin again"
            ) from error

    def prepare(self, next_offset: int, sequences: dict[str, int], bases: dict[str, Base], joins: int) -> None:
        """Name what the next commit makes durable."""
        self._pending = Pending(next_offset, sequences, bases, joins)

    def commit(self) -> None:
        """Make it durable. Raises StateRefused."""
        pending = self._pending
        if pending is None:
            return
        self.offset = max(self.offset, pending.next_offset)
        if self._store is not None:
            fields = dict(zip(FIELDS, (pending.next_offset, pending.bases, pending.joins), strict=True))
            self._store.commit(self.offset, pending.sequences, fields, {"topic_id": self._topic_id})
        self._pending = None

    def note(self, uri: str, revision: Revision) -> None:
        """Remember a revision; one that is stored again, because a run joined at its offset, stays pinned."""
        known = self.revisions.get(uri)
        self.revisions[uri] = replace(revision, pinned=revision.pinned or (known is not None and known.pinned))

    def pin(self, uri: str) -> None:
        """Keep a revision for ever: another run's model follows from it."""
        if uri in self.revisions:
            self.revisions[uri] = replace(self.revisions[uri], pinned=True)

    def thin(self, artifacts: Artifacts, now_ms: Callable[[], int], kept: Callable[[], Collection[str]]) -> None:
        """Delete superfluous revisions, at most once a minute.

        The table forgets them with the next commit, a second delete does no harm.
        """
        now = self._clock()
        if now < self._thin_at:
            return
        self._thin_at = now + THIN_S
        for uri in superfluous(self.revisions, now_ms(), kept()):
            artifacts.delete(uri)
            del self.revisions[uri]

    def close(self) -> None:
        """Let the store go, without a commit."""
        if self._store is not None:
            self._store.close()
