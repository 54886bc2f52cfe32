"""Whether records outlive a broker: how many copies topics have, and how many of them acknowledge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.infra.bus import Bus

ENOUGH = 3  # brokers, and copies: two acknowledge, and one may be away
SHOWN = 5  # topics


@dataclass(frozen=True)
class Weakness:
    """Topics of which a lost broker takes records with it: what is so, of which, and what mends it."""

    what: str
    topics: list[str]
    next: str

    def __str__(self) -> str:
        return f"{self.says}; {self.next}"

    @property
    def says(self) -> str:
        """What is weak, without what mends it; a long list of topics is cut short."""
        more = len(self.topics) - SHOWN
        return f"{self.what}: {', '.join(self.topics[:SHOWN])}{f' and {more} more' if more > 0 else ''}"


def weak_copies(bus: Bus, names: Iterable[str]) -> list[Weakness]:
    """What is weak of those of these topics that exist; nothing where there are too few brokers for better."""
    brokers, copies = bus.copies()
    if brokers < ENOUGH:
        return []
    there = [name for name in names if name in copies]
    single = [name for name in there if copies[name] == 1]
    alone = [
        name
        for name in there
        if copies[name] >= ENOUGH and int(bus.topic_config(name).get("min.insync.replicas", 1)) == 1
    ]
    found = []
    if single:
        found.append(
            Weakness(
                f"one copy on {brokers} brokers, so a broker that is lost takes the records with it",
                single,
                "kafka-reassign-partitions.sh --bootstrap-server … --execute --reassignment-json-file FILE, where FILE "
                "names three replicas of each partition; and default.replication.factor=3 for topics to come",
            )
        )
    if alone:
        found.append(
            Weakness(
                "one copy is enough to acknowledge, so a broker that is lost may take acknowledged records with it",
                alone,
                f"kafka-configs.sh --bootstrap-server … --alter --topic {alone[0]} --add-config min.insync.replicas=2"
                f"{', and so for each' if len(alone) > 1 else ''}",
            )
        )
    return found
