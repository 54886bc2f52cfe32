"""Consumer groups of the in-process log: static members, cooperative and sticky as Kafka's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.infra.bus import BusError, Fenced, Message, OnAssign, OnGone, Place
from headrace.infra.memory_log import Topics


class Positions:
    """Where a reader stands in each of its places; takes records in turn from each."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.next: dict[Place, int] = {}

    def take(self, limit: int) -> list[Message]:
        """Up to `limit` records. Raises BusError where an offset is out of range."""
        taken: list[Message] = []
        for place in list(self.next):
            if len(taken) >= limit:
                break
            found = self._topics.log(place).read(place, self.next[place], limit - len(taken))
            self.next[place] += len(found)
            taken += found
        if len(self.next) > 1 and taken:  # the first place must not starve the others
            place = next(iter(self.next))
            self.next[place] = self.next.pop(place)
        return taken


class Group:
    """Committed offsets, members by instance id, and the places that each of them shall have."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.members: dict[str, MemoryGroupConsumer] = {}
        self.share: dict[str, list[Place]] = {}
        self.generation = 0
        self._committed: dict[tuple[str, Place], int] = {}

    def join(self, member: MemoryGroupConsumer) -> None:
        """Take a member in; one of the same instance that was there is fenced."""
        older = self.members.get(member.instance)
        if older is not None and older is not member:
            older.fenced = True
        self.members[member.instance] = member
        self.rebalance()

    def end_session(self, instance: str) -> None:
        """A member was silent for its session: its places go to others. If it lives, it learns so at its next call."""
        if self.members.pop(instance, None) is not None:
            self.rebalance()

    def rebalance(self) -> None:
        """Give each member its share anew; members take it up at their own next poll."""
        counts = {
            topic: len(self.topics.by_name[topic].logs)
            for member in self.members.values()
            for topic in member.topics
            if topic in self.topics.by_name
        }
        self.share = shares({name: member.topics for name, member in self.members.items()}, counts, self.share)
        self.generation += 1

    def committed(self, place: Place) -> int | None:
        """The group's offset; a topic made anew has none."""
        return self._committed.get((self.topics.topic(place[0]).id, place))

    def commit(self, place: Place, offset: int) -> None:
        """Note an offset, never a lower one."""
        key = (self.topics.topic(place[0]).id, place)
        self._committed[key] = max(offset, self._committed.get(key, 0))


def shares(
    subscribed: Mapping[str, Sequence[str]], counts: Mapping[str, int], before: Mapping[str, Sequence[Place]]
) -> dict[str, list[Place]]:
    """Who reads which place: all keep what they had, free places go to who has least, then the fullest gives away."""
    places = [(topic, partition) for topic in sorted(counts) for partition in range(counts[topic])]
    share: dict[str, list[Place]] = {
        name: [place for place in before.get(name, ()) if place in places and place[0] in topics]
        for name, topics in subscribed.items()
    }
    taken = {place for kept in share.values() for place in kept}
    for place in places:
        if place not in taken:
            least = min((name for name in share if place[0] in subscribed[name]), key=lambda name: len(share[name]))
            share[least].append(place)
    while True:
        moves = [
            (len(share[giver]) - len(share[taker]), giver, taker, place)
            for giver in share
            for taker in share
            for place in share[giver]
            if place[0] in subscribed[taker]
        ]
        surplus, giver, taker, place = max(moves, default=(0, "", "", ("", 0)))
        if surplus < 2:
            return share
        share[giver].remove(place)
        share[taker].append(place)


class MemoryGroupConsumer:
    """A member of a group. Its assignment changes in its own calls only, revocations before assignments."""

    def __init__(self, group: Group, instance: str, on_assign: OnAssign, on_revoke: OnGone, on_lost: OnGone) -> None:
        self.instance = instance
        self.topics: list[str] = []
        self.fenced = False
        self._group = group
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost
        self._positions = Positions(group.topics)
        self._generation = -1

    def subscribe(self, topics: Sequence[str]) -> None:
        self._refuse_if_fenced()
        self.topics = list(topics)
        self._group.join(self)

    def poll(self, limit: int, timeout_s: float) -> list[Message]:
        self._refuse_if_fenced()
        if self.topics and self._group.members.get(self.instance) is not self:
            self._lose()
            self._group.join(self)
        for topic in self.topics:
            self._group.topics.topic(topic)
        if self._generation != self._group.generation:
            self._take_up()
        return self._positions.take(limit)

    def committed(self, places: Sequence[Place]) -> dict[Place, int]:
        found = {place: self._group.committed(place) for place in places}
        return {place: offset for place, offset in found.items() if offset is not None}

    def commit(self, offsets: Mapping[Place, int]) -> None:
        self._refuse_if_fenced()
        if self._group.members.get(self.instance) is self:
            for place, offset in offsets.items():
                if place in self._positions.next:
                    self._group.commit(place, offset)

    def seek(self, place: Place, offset: int) -> None:
        if place not in self._positions.next:
            raise BusError(f"{place[0]} partition {place[1]} is not assigned to this member")
        self._positions.next[place] = offset

    def close(self) -> None:
        if self._positions.next and not self.fenced:
            self._revoke(list(self._positions.next))

    def _take_up(self) -> None:
        generation, share = self._group.generation, self._group.share[self.instance]
        self._revoke([place for place in self._positions.next if place not in share])
        held = {
            place for member in self._group.members.values() if member is not self for place in member._positions.next
        }
        new = [place for place in share if place not in self._positions.next and place not in held]
        if new:
            starts = self._on_assign(new)
            self._positions.next |= {place: starts[place] for place in new}
        if all(place in self._positions.next for place in share):  # else the one who has it must poll first
            self._generation = generation

    def _revoke(self, places: list[Place]) -> None:
        if places:
            self._on_revoke(places)
            self._forget(places)

    def _lose(self) -> None:
        lost = list(self._positions.next)
        self._forget(lost)
        if lost:
            self._on_lost(lost)

    def _forget(self, places: list[Place]) -> None:
        for place in places:
            del self._positions.next[place]

    def _refuse_if_fenced(self) -> None:
        if self.fenced:
            raise Fenced(f"another process took the place of {self.instance} in its group; this one ends")
