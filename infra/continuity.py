"""Whether a fold may go on from where it stands: the state is its own, and the log is the one that it was folded from.

What a commit says of itself is checked at assignment, before anything is written. The last record folded is read
once more and compared: two logs that agree in a record's epoch and bytes agree in all that lies before it, and where
the log was cut back and written anew they do not. Each refusal names the place and the next command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple
from zlib import crc32

from headrace.infra.artifacts import versions
from headrace.infra.bus import Message, Place
from headrace.infra.store import StateForeign, StateRefused
from headrace.services import Fold

PACKAGE = metadata.version("headrace")
CLEAN = "yes"


class HistoryGone(StateRefused):
    """The records that come next are deleted."""


class BeyondLog(StateRefused):
    """The log ends before the place that was folded already: it was cut back."""


class LogDiverged(StateRefused):
    """The log was cut back and written anew: another record stands where the last one folded stood."""


class PartitionsChanged(StateRefused):
    """The topic has another number of partitions, so keys lie elsewhere than before."""


class TopicRecreated(StateForeign):
    """A topic of the same name that is another one."""


class StateNewer(StateForeign):
    """A newer version of this package wrote the state."""


class StateUnclean(StateRefused):
    """Another version wrote the state and did not leave it cleanly."""


class Anchor(NamedTuple):
    """The last record folded: its offset, its leader's epoch, a checksum of its key and value."""

    offset: int
    epoch: int
    checksum: int

    @classmethod
    def of(cls, message: Message) -> Anchor:
        """The anchor that a record is."""
        epoch = message.leader_epoch()
        checksum = crc32(message.value() or b"", crc32(message.key() or b""))
        return cls(message.offset(), -1 if epoch is None else epoch, checksum)

    @classmethod
    def parse(cls, text: str) -> Anchor | None:
        """What `str` gave; None for ""."""
        return cls(*map(int, text.split("/"))) if text else None

    def __str__(self) -> str:
        return "/".join(map(str, self))


class Log(NamedTuple):
    """What the broker says of an input partition, and the group's offset in it (0 where it has none)."""

    partitions: int
    first: int
    end: int
    committed: int


def facts(fold: Fold, place: Place, topic_id: str, partitions: int) -> dict[str, str]:
    """What a commit says of itself: whose state it is, and which versions wrote it."""
    python, river = versions()
    return {
        "fold": fold.id,
        "topic": place[0],
        "partition": str(place[1]),
        "topic_id": topic_id,
        "partitions": str(partitions),
        "headrace": PACKAGE,
        "python": python,
        "river": river if fold.needs_river else "",
    }


def check_owner(fold: Fold, place: Place, topic_id: str, offset: int, meta: Mapping[str, str]) -> None:
    """Raises StateForeign unless the state at `offset`, which `meta` describes, is of this fold, place and topic."""
    at, reset = _at(fold, place, offset)
    owner = (meta.get("fold"), meta.get("topic"), meta.get("partition"))
    if owner != (fold.id, place[0], str(place[1])):
        raise StateForeign(
            f"{at}, but its state belongs to {owner[0]} for {owner[1]} partition {owner[2]}: folders were swapped. Put "
            f"them back, or fold it again from the log: {reset}"
        )
    if meta["topic_id"] != topic_id:
        raise TopicRecreated(
            f"{at}, but {place[0]} was created anew since (its id was {meta['topic_id']}, now {topic_id}). "
            f"To fold the new topic from its start: {reset}"
        )


def check_state(fold: Fold, place: Place, log: Log, offset: int, meta: Mapping[str, str]) -> None:
    """Raises StateRefused unless the fold's own state may be taken up by this version, with the topic as it is."""
    at, reset = _at(fold, place, offset)
    if meta["partitions"] != str(log.partitions):
        raise PartitionsChanged(
            f"{at} of {meta['partitions']} partitions, but {place[0]} has {log.partitions} now: what one key knew lies "
            "in another partition. Release the pipeline under a new name; or fold what there is from the log, "
            f"with keys torn apart: {reset}"
        )
    _check_versions(fold, at, reset, facts(fold, place, "", 0), meta, behind=offset < log.committed)


def check_place(fold: Fold, place: Place, log: Log, offset: int) -> None:
    """Raises StateRefused unless the log holds what comes at `offset` and all that the group folded."""
    where, reset = _named(fold, place), f"headrace reset {fold.service}"
    if offset < log.first:
        raise HistoryGone(
            f"{where} stands at offset {offset}, but the log begins at {log.first}: records {offset} to "
            f"{log.first - 1} are deleted, and nothing is skipped by itself. To begin with an empty state at "
            f"{log.first}: {reset}"
        )
    furthest = max(offset, log.committed)
    if furthest > log.end:
        raise BeyondLog(
            f"{where} folded up to offset {furthest}, but the log ends at {log.end}: the broker lost its tail. To fold "
            f"what it has from the start, silently up to {log.end}: {reset}"
        )


def check_anchor(fold: Fold, place: Place, anchor: Anchor, message: Message) -> None:
    """Raises LogDiverged unless `message` is the record that was folded last."""
    found = Anchor.of(message)
    if found != anchor:
        raise LogDiverged(
            f"{_named(fold, place)}: the record at offset {anchor.offset} is not the one that was folded (leader epoch "
            f"{anchor.epoch} then, {found.epoch} now): the broker lost its tail and wrote on. To fold what it has "
            f"from the start, silently up to where it parts: headrace reset {fold.service}"
        )


def _check_versions(
    fold: Fold, at: str, reset: str, mine: Mapping[str, str], theirs: Mapping[str, str], *, behind: bool
) -> None:
    names = ("headrace", "python", "river")
    if all(mine[name] == theirs.get(name) for name in names):
        return
    if _order(theirs["headrace"]) > _order(mine["headrace"]):
        raise StateNewer(
            f"{at} in a state of {_told(theirs)}, which is newer than this, {_told(mine)}. Install that version again, "
            f"or fold it again from the log: {reset}"
        )
    if theirs.get("clean") != CLEAN or behind:
        raise StateUnclean(
            f"{at} in a state of {_told(theirs)}, which {'others overtook' if behind else 'ended without a clean stop'}"
            f"; this is {_told(mine)}. Only that version can tell again what it had told since: install it, run "
            f"headrace up --drain, then start this one. Or fold it again from the log: {reset}"
        )


def _order(version: str) -> tuple[list[int], int, str]:
    """Sorts versions: 1.0.dev0 and 1.0rc1 come before 1.0, 1.0.post1 and 1.0+local after it."""
    matched = re.match(r"(\d+(?:\.\d+)*)(.*)", version)
    numbers, rest = (matched[1], matched[2]) if matched else ("0", version)
    rank = 1 if not rest else 2 if rest.startswith((".post", "+")) else 0
    return [int(number) for number in numbers.split(".")], rank, rest


def _told(wrote: Mapping[str, str]) -> str:
    river = f", River {wrote['river']}" if wrote.get("river") else ""
    return f"headrace {wrote['headrace']} (Python {wrote['python']}{river})"


def _at(fold: Fold, place: Place, offset: int) -> tuple[str, str]:
    return f"{_named(fold, place)} stands at offset {offset}", f"headrace reset {fold.service}"


def _named(fold: Fold, place: Place) -> str:
    return f"{fold.id} for {place[0]} partition {place[1]}"
