"""What would have been served without the policy: the first run going on for ever, its first model for ever.

Both are asked at the cadence of what was served: for each row by the state that had learned what the served model had.
Where an older model came back, they go on at its last age. Pure: the labelled rows in, scores out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from headrace.demo.measure import Measure
from headrace.schemas.stream import Features, Label


class Row(NamedTuple):
    """A labelled row: its offset, and what the served model had learned to and how it scored, if one served."""

    offset: int
    features: Features
    label: Label
    learned_to: int | None
    score: float | None


class Curves(NamedTuple):
    """How each row scored, and would have without replacing the run, without learning on; None before."""

    model: list[float | None]
    replacing: list[float | None]
    learning: list[float | None]


def curves_of(rows: Sequence[Row], new_model: Callable[[], Any], measure: Measure) -> Curves:
    """Fold the rows with River alone."""
    model, first = new_model(), None
    learned, newest, age = 0, 0, 0
    found = Curves([row.score for row in rows], [], [])
    for row in rows:
        if row.learned_to is None:
            found.replacing.append(None)
            found.learning.append(None)
            continue
        if row.learned_to >= newest:
            newest, age = row.learned_to, row.offset - row.learned_to
        learned_to = max(row.learned_to, row.offset - age)
        while learned < len(rows) and rows[learned].offset < learned_to:
            model.learn_one(rows[learned].features, rows[learned].label)
            learned += 1
        if first is None:
            first = copy.deepcopy(model)
        for scores, asked in ((found.replacing, model), (found.learning, first)):
            scores.append(measure.of(measure.ask(asked, row.features), row.label))
    return found
