"""What would have been served without the policy: the first run going on for ever, its first model for ever.

Both are asked at the cadence of what was served: for each row by the state that had learned what the served model had.
Pure: the labelled rows in, hits out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from headrace.schemas.stream import Features, Label


class Row(NamedTuple):
    """A labelled row: its offset, and what the served model had learned to and whether it was right, if one served."""

    offset: int
    features: Features
    label: Label
    learned_to: int | None
    hit: bool | None


class Curves(NamedTuple):
    """Whether each row was right, and would have been without replacing the run, without learning on; None before."""

    model: list[bool | None]
    replacing: list[bool | None]
    learning: list[bool | None]


def curves_of(rows: Sequence[Row], new_model: Callable[[], Any], answer: Callable[[Any], Any]) -> Curves:
    """Fold the rows with River alone. `answer` turns a model's probabilities into a label as the service does."""
    model, first = new_model(), None
    learned = 0
    found = Curves([row.hit for row in rows], [], [])
    for row in rows:
        if row.learned_to is None:
            found.replacing.append(None)
            found.learning.append(None)
            continue
        while learned < len(rows) and rows[learned].offset < row.learned_to:
            model.learn_one(rows[learned].features, rows[learned].label)
            learned += 1
        if first is None:
            first = copy.deepcopy(model)
        for hits, asked in ((found.replacing, model), (found.learning, first)):
            hits.append(answer(asked.predict_proba_one(row.features)) == row.label)
    return found
