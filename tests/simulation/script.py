"""What users publish, drawn from a seed: examples, their labels, repeats, conflicts, corrections, bad records, time."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace.schemas.stream import ExampleArrived, LabelArrived
from tests.simulation import pipeline_source as rain

START = datetime(2026, 3, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
SERVED_FROM = 36  # by then a model serves: none would that cannot answer what it was asked lately
NIGHT_MS = 3 * 3_600_000  # longer than TTL and grace


@dataclass(frozen=True)
class Item:
    """One act of a user: an event for a partition, or `what` ("tick", "night", "release") without one."""

    what: str
    event: object = None
    partition: int = 0


def script(seed, partitions, examples=66):
    """About 150 items, in order. All that concerns one id goes to one partition but prompt repeats, which may stray.

    With one partition a night may pass in between, so that labels come too late and predictions expire.
    """
    chance = random.Random(f"script {seed}")
    items, late = [], []
    release_at = chance.randrange(examples // 3, examples)
    night_at = chance.randrange(examples) if partitions == 1 and chance.random() < 0.3 else -1
    for number in range(examples):
        if number == release_at:
            items.append(Item("release"))
        if number == night_at:
            items.append(Item("night"))
        if number % 7 == 3:
            items.append(Item("tick"))
        items += _example(chance, number, partitions, late)
        late.sort(key=lambda due: due[0])
        while late and late[0][0] <= number:
            items += late.pop(0)[1]
    for _, group in late:
        items += group
    return items


def _example(chance, number, partitions, late):
    """One example now, what follows it later."""
    partition = chance.randrange(partitions)
    wind = chance.uniform(0, 100)
    if chance.random() < 0.05:
        wind = rain.UNANSWERABLE if number > SERVED_FROM and chance.random() < 0.6 else rain.UNLEARNABLE
    if chance.random() < 0.08:
        wind = chance.uniform(101, 199)  # for the second release only
    t, id_ = chance.uniform(-20, 30), f"d{number}"
    label, at = t + wind / 10 > 8, START + timedelta(seconds=number)
    kind = chance.random()
    example = ExampleArrived(id=id_, time=at, features={"t": t, "wind": wind}, label=label if kind < 0.12 else None)
    items = [Item("record", example, partition)]
    answer = Item("record", LabelArrived(id=id_, time=at, label=label), partition)
    if kind < 0.12:  # inline
        return items
    if kind < 0.20:  # the user repeats himself, perhaps elsewhere
        stray = chance.randrange(partitions)
        return [*items, answer, Item("record", example, stray)] if chance.random() < 0.5 else [*items, items[0], answer]
    if kind < 0.25:  # the same id with other features
        other = ExampleArrived(id=id_, time=at, features={"t": t + 1, "wind": 1.0})
        return [*items, Item("record", other, partition), answer]
    if kind < 0.30:  # the label changes its mind
        late.append((number + 1, [answer]))
        late.append((number + 3, [Item("record", LabelArrived(id=id_, time=at, label=not label), partition)]))
    elif kind < 0.34:  # the label is first
        return [answer, *items]
    elif kind < 0.38:
        bad = ExampleArrived(id=f"bad{number}", time=at, features={"t": 1e9, "wind": 1.0})
        return [*items, Item("record", bad, partition), answer]
    elif kind < 0.94:
        late.append((number + chance.choice((0, 1, 2, 4, 8, 20)), [answer]))
    return items  # the rest never get a label
