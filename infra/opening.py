"""Opening a fold's state at assignment: the newest of what lies here and what was uploaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.infra.bus import Place
from headrace.infra.continuity import check_owner
from headrace.infra.store import StateCorrupt
from headrace.services import Fold

if TYPE_CHECKING:
    from headrace.infra.checkpoints import Checkpoint, Checkpoints
    from headrace.infra.worker import OpenStore, StateStore


class Opened(NamedTuple):
    """An open store, its last commit, its tables; the checkpoint that is known to hold that or older state."""

    store: StateStore | None
    saved: Any
    tables: dict[str, Any]
    checkpoint: Checkpoint | None


def open_state(
    fold: Fold,
    place: Place,
    topic_id: str,
    tables: Mapping[str, type],
    open_store: OpenStore,
    checkpoints: Checkpoints | None,
) -> Opened:
    """The local state, or a newer checkpoint put in its place; also where local state is damaged.

    State of another fold, place or topic is never replaced. Raises StateRefused.
    """
    newest = checkpoints.newest(fold.id, place, topic_id) if checkpoints is not None else None
    if checkpoints is None or newest is None:
        return _open(fold, place, topic_id, tables, open_store)
    damage = None
    try:
        local = _open(fold, place, topic_id, tables, open_store, newer=newest.offset)
        if local.store is None or (local.saved is not None and local.saved.offset >= newest.offset):
            return local._replace(checkpoint=newest)
        local.store.close()
    except StateCorrupt as error:
        damage = error
    its = {"fold": newest.fold, "topic": newest.topic, "partition": str(newest.partition), "topic_id": newest.topic_id}
    check_owner(fold, place, topic_id, newest.offset, its)
    restored = checkpoints.restore(fold.id, place, topic_id)
    if restored is None and damage is not None:
        raise damage
    return _open(fold, place, topic_id, tables, open_store)._replace(checkpoint=restored)


def _open(
    fold: Fold, place: Place, topic_id: str, tables: Mapping[str, type], open_store: OpenStore, newer: int = -1
) -> Opened:
    """The state as it lies here; its tables are left unread where something `newer` will take its place."""
    store = open_store(fold.id, place)
    if store is None:
        return Opened(None, None, {}, None)
    try:
        saved = store.load()
        if saved is not None:
            check_owner(fold, place, topic_id, saved.offset, saved.meta)
        reads = newer < 0 or (saved is not None and saved.offset >= newer)
        return Opened(store, saved, {name: store.table(name, kind) for name, kind in tables.items() if reads}, None)
    except BaseException:
        store.close()
        raise
