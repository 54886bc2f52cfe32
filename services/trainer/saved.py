"""What a pipeline's runs go on from after a crash: their newest artifacts, sequences and offset, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from dataclasses import dataclass

from headrace.infra.artifacts import Artifacts
from headrace.infra.store import StateForeign
from headrace.infra.worker import StateStore
from headrace.services.trainer.snapshots import Base
from headrace.services.trainer.thinning import Revision, superfluous


@dataclass(frozen=True, slots=True)
class Pending:
    """What the next commit makes durable: the runs at one offset."""

    next_offset: int
    sequences: dict[str, int]
    bases: dict[str, Base]
    joins: int


class Saved:
    """The committed place of the runs, and the table of their revisions. Without a store it lives in memory only."""

    def __init__(self, store: StateStore | None, topic_id: str) -> None:
        """Raises StateRefused where the store cannot be used or belongs to another topic."""
        self._store, self._topic_id = store, topic_id
        self._pending: Pending | None = None
        self.offset = self.next_offset = self.joins = 0
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
                "`headrace reset` lets the runs begin again"
            )
        self.offset, self.sequences = saved.offset, saved.sequences
        self.next_offset, self.bases, self.joins = (saved.fields[name] for name in ("next_offset", "bases", "joins"))

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
            fields = {"next_offset": pending.next_offset, "bases": pending.bases, "joins": pending.joins}
            self._store.commit(self.offset, pending.sequences, fields, {"topic_id": self._topic_id})
        self._pending = None

    def thin(self, artifacts: Artifacts, now_ms: int, kept: Collection[str]) -> None:
        """Delete superfluous revisions; the table forgets them with the next commit, a second delete does no harm."""
        for uri in superfluous(self.revisions, now_ms, kept):
            artifacts.delete(uri)
            del self.revisions[uri]

    def close(self) -> None:
        """Let the store go, without a commit."""
        if self._store is not None:
            self._store.close()
