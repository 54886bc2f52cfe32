"""Letting folds begin again: what each would begin with, as the log stands, and forgetting what they have.

Usually that is offset 0, silently up to the group's offset. Where the log's start is deleted, or where the broker
lost its tail, a `Beginning` says what to do instead; who asks for it is told what that means.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.infra.beginning import Beginning, left_beginning, read_beginning
from headrace.infra.bus import Bus, Message, Place
from headrace.infra.checkpoints import Checkpoints
from headrace.infra.continuity import Anchor
from headrace.infra.settings import Settings
from headrace.infra.store import StateRefused, Store, lock_folder

RUNS = "trainer-core"  # begins where its RunStarted says, whatever is kept here
READ_S = 15.0


class Again(NamedTuple):
    """One place of one fold that shall begin again; `says` is what that means beyond folding all of it once more."""

    fold: str
    place: Place
    folder: Path
    beginning: Beginning | None
    says: str


def again(settings: Settings, what: Path, bus: Bus | None) -> list[Again]:
    """How each place with state in the folder of a service, a fold or a place would begin. Raises StateLocked.

    Without a bus it is not known where a log begins and ends; then all begin as they did before.
    """
    instance, *service = what.relative_to(settings.state_dir).parts[:2]
    services = [settings.state_dir / instance / service[0]] if service else sorted(what.iterdir())
    for one in services:
        lock_folder(one).release()
    key = settings.key() if settings.artifact_key is not None else None
    return [
        _again(fold, place, folder, bus, key, settings.namespace)
        for one in services
        for fold, place, folder in _places(one)
        if folder.is_relative_to(what)
    ]


def forget(settings: Settings, what: Path, places: list[Again]) -> None:
    """Delete the state in a folder and the checkpoints of its places, and leave word where that is needed."""
    shutil.rmtree(what)
    if settings.artifact_key is not None:
        checkpoints = Checkpoints(settings.artifact_url, settings.key(), lambda fold, place: what)
        for one in places:
            checkpoints.forget(one.fold, one.place)
    for one in places:
        if one.beginning is not None:
            one.beginning.write(one.folder)


def _places(service: Path) -> Iterator[tuple[str, Place, Path]]:
    for folder in sorted(service.glob("*/*/")):
        topic, _, partition = folder.name.rpartition("-")
        if topic and partition.isdigit():
            yield folder.parent.name, (topic, int(partition)), folder


def _again(fold: str, place: Place, folder: Path, bus: Bus | None, key: bytes | None, namespace: str) -> Again:
    if bus is None:
        return Again(fold, place, folder, left_beginning(folder), "")
    if fold == RUNS or (bus.partitions(place[0]) or 0) <= place[1]:
        return Again(fold, place, folder, None, "")
    topic_id = bus.topic_id(place[0])
    first, end = bus.offsets(place)
    usual = read_beginning(folder, topic_id)
    begin = msgspec.structs.replace(usual, offset=first)
    says = []
    if first:
        says.append(f"the records of {place[0]} partition {place[1]} before offset {first} are deleted: unknown to it")
    offset, anchor = _saved(folder, key, topic_id)
    if not usual.incarnation:
        offset = max(offset, _committed(bus, f"{namespace}headrace-{fold}", place))
    parts_at = _parts_at(bus, place, first, end, offset, anchor)
    if parts_at is not None:
        begin = msgspec.structs.replace(begin, loud_from=parts_at, incarnation=f"{int(time.time()):x}")
        says.append(
            f"{place[0]} partition {place[1]} lost its tail and was written anew from offset {parts_at}: what is told "
            "of it from there is told under a new source"
        )
    needed = begin if begin.offset or begin.incarnation else None
    return Again(fold, place, folder, needed, "; ".join(says))


def _saved(folder: Path, key: bytes | None, topic_id: str) -> tuple[int, Anchor | None]:
    """Offset and last record of the state, if it can be read and is of this topic."""
    if key is None or not (folder / "data.mdb").exists():
        return 0, None
    try:
        with contextlib.closing(Store.open(folder, key)) as store:
            saved = store.load()
    except StateRefused:
        return 0, None
    if saved is None or saved.meta.get("topic_id") != topic_id:
        return 0, None
    return saved.offset, Anchor.parse(saved.meta.get("last", ""))


def _parts_at(bus: Bus, place: Place, first: int, end: int, offset: int, anchor: Anchor | None) -> int | None:
    """Where the log is not the one that was folded up to `offset`; None where it is, as far as can be seen."""
    if anchor is not None and first <= anchor.offset < end:
        if Anchor.of(_read(bus, place, anchor.offset)) == anchor:
            return None
    elif offset <= end:
        return None
    if anchor is None:
        return end
    low, high = first, end  # the first offset of a newer epoch: all before it is what was folded
    while low < high:
        middle = (low + high) // 2
        if Anchor.of(_read(bus, place, middle)).epoch > anchor.epoch:
            high = middle
        else:
            low = middle + 1
    return low


def _committed(bus: Bus, group: str, place: Place) -> int:
    member = bus.group_consumer(group, "reset", lambda places: {}, lambda places: None, lambda places: None)
    try:
        return member.committed([place]).get(place, 0)
    finally:
        member.close()


def _read(bus: Bus, place: Place, offset: int) -> Message:
    """The record at an offset. Raises TimeoutError."""
    reader = bus.reader()
    try:
        reader.assign({place: offset})
        deadline = time.monotonic() + READ_S
        while time.monotonic() < deadline:
            for message in reader.poll(1, 0.2):
                return message
        raise TimeoutError(f"{place[0]} partition {place[1]}: no record at offset {offset} within {READ_S:g} s")
    finally:
        reader.close()
