"""What users do in a life of models: the rule that labels follow turns round, and people ask for what comes of it.

A person asks for a training where the rule turned. Its run joins, is judged, becomes a challenger and takes over by its
evidence or by force; the guard watches, and the rule may turn back. Some ask for another training meanwhile, which
supersedes the first, some to go back: to the model that stands by, or to version 1, long after its run ended. Where a
row broke the model, they ask to go back to before it, or, where there is an anchor, that is found worse and gives way.
"""

import random
from contextlib import contextmanager
from datetime import timedelta
from unittest.mock import patch

from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.services.evaluator import evidence, verdicts
from tests.simulation import pipeline_source as rain
from tests.simulation.faults import has_anchor
from tests.simulation.script import START, Item

EXAMPLES = 150
MORE = 60  # where the anchor is to be found better twice
STORIES = ("by evidence", "by evidence, back", "by force", "by force, back", "by force, and return", "barred")
ANCHORED = ("by evidence", "by force", "by force, and return", "broken", "broken", "broken", "barred", "barred")
FEWEST, RAREST = 12, 2  # labels before a trial, and of the rarest class: 200 and 50 are more than a schedule has


@contextmanager
def short():
    """Two limits of the evidence that no policy sets, as small as a life is short; its rules are untouched."""
    with patch.object(evidence, "FEWEST", FEWEST), patch.object(verdicts, "RAREST", RAREST):
        yield


def script(seed, partitions):
    """About 250 items, in order."""
    chance = random.Random(f"life {seed}")
    turns = [chance.randrange(32, 42)]
    story = chance.choice(ANCHORED if has_anchor(seed) else STORIES)
    if story.endswith("back"):
        after = 36 if story.startswith("by evidence") else 20
        turns.append(turns[0] + after + chance.randrange(14))
    asked, breaks = _asked(chance, story, turns), None
    if story in ("broken", "barred"):
        (asked, breaks), turns = _broken(chance, story), []
    items, late = [], []
    examples = EXAMPLES + (MORE if story == "broken" else 0)
    for number in range(examples):
        items += [Item(what) for at, what in asked if at == number]
        if number % 12 == 5:
            items.append(Item("tick"))
        is_turned = sum(turn <= number for turn in turns) % 2
        items += _example(chance, number, bool(is_turned), chance.randrange(partitions), late, number == breaks)
        items += [item for at, item in late if at == number]
    return items + [item for at, item in late if at >= examples]


def _asked(chance, story, turns):
    """What people ask for, each with the number of the example before which they do."""
    turn = turns[0]
    asked = [(turn + chance.randrange(1, 4), "train")]
    if chance.random() < 0.3:
        asked.append((turn + chance.randrange(4, 12), "train"))
    if story == "by force":
        asked.append((turn + chance.randrange(10, 30), "promote"))
        asked.append((turn + chance.randrange(20, 60), "roll back"))
    elif story.startswith("by force"):
        asked.append((turn + chance.randrange(10, 20), "promote"))
    if story == "by force, and return":
        asked.append((turn + chance.randrange(30, 50), "return"))
    if chance.random() < 0.2:
        asked.append((chance.randrange(90, EXAMPLES), "train"))
    if chance.random() < 0.2:
        asked.append((chance.randrange(20, EXAMPLES), "release"))
    return asked


def _broken(chance, story):
    """What people ask for where a row breaks what learns it, and the number of that row."""
    first = chance.randrange(24, 40)
    asked = []
    is_beside = chance.random() < 0.5  # what competes, or what stands by, is broken as well
    if is_beside:
        asked.append((first - chance.randrange(8, 20), "train"))
        if chance.random() < 0.4:
            asked.append((first - chance.randrange(2), "promote"))
    if story == "broken":
        asked.append((first + 20, "break"))
    else:
        asked.append((first + chance.randrange(8, 34), "bar beside" if is_beside else "bar"))
        if chance.random() < 0.3:  # it was no longer than that: what came since is barred too
            asked.append((first + chance.randrange(34, 70), "bar"))
    if chance.random() < 0.2:
        asked.append((chance.randrange(90, EXAMPLES), "train"))
    if chance.random() < 0.2:
        asked.append((chance.randrange(20, EXAMPLES), "release"))
    return asked, first


def _example(chance, number, is_turned, partition, late, breaks):
    """One example; two of three have their label with them, so that evidence is there soon."""
    wind = rain.UNLEARNABLE if chance.random() < 0.02 else chance.uniform(0, 100)
    if breaks:
        wind = rain.BREAKING
    t, id_ = chance.uniform(-20, 30), f"d{number}"
    label, at = (t + wind / 10 > 8) != is_turned, START + timedelta(seconds=number)
    kind = chance.random() / 2 if breaks else chance.random()
    features = {"t": t, "wind": wind}
    example = ExampleArrived(id=id_, time=at, features=features, label=label if kind < 0.7 else None)
    if 0.7 <= kind < 0.97:  # the rest never get one
        answer = Item("record", LabelArrived(id=id_, time=at, label=label), partition)
        late.append((number + chance.choice((0, 1, 2, 4, 8)), answer))
    item = Item("record", example, partition)
    return [item, item] if kind < 0.08 else [item]
