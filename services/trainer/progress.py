"""The scores of a run that predicts each example before it learns it: River's numbers at a fraction of the time."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import Any

from headrace.schemas.stream import Label

EDGE = 1e-15  # River keeps probabilities this far from 0 and 1 before it takes a logarithm


@dataclass(slots=True)
class Progress:
    """Hits and running means over the rows that got an answer; River leaves rows without one out as well.

    A class that an answer does not name has probability 0 (in River's `CrossEntropy` such a row costs nothing).

    `loss` is log-loss for probabilities and absolute error for numbers, `square` Brier (multiclass: halved) or
    squared error. `kind` is set by the first answer.
    """

    kind: str = ""
    n: int = 0
    hits: int = 0
    loss: float = 0.0
    square: float = 0.0

    def score(self, value: Any, label: Label) -> None:
        """Take in one answer and its label."""
        n = self.n = self.n + 1
        if value.__class__ is float:
            if label.__class__ is bool:
                self.kind = "binary"
                self.hits += (value > 0.5) is label
                p = value if EDGE <= value <= 1 - EDGE else min(max(value, EDGE), 1 - EDGE)
                loss = -log(p) if label else -log(1 - p)
                off = value - 1.0 if label else value
            else:
                self.kind = "regression"
                off = value - label  # type: ignore[operator]
                loss = abs(off)
            square = off * off
        elif value.__class__ is dict:
            self.kind = "multiclass"
            self.hits += max(value, key=value.__getitem__) == label
            loss = -log(min(max(value.get(label, 0.0), EDGE), 1 - EDGE))
            square = sum((p - (name == label)) ** 2 for name, p in value.items()) + (label not in value)
            square /= 2
        else:
            self.kind = "classes"
            self.hits += value == label
            return
        weight = 1.0 / n
        self.loss += weight * (loss - self.loss)
        self.square += weight * (square - self.square)

    def metrics(self) -> dict[str, float | None]:
        """The scores by name; empty before the first answer."""
        if not self.n:
            return {}
        if self.kind == "regression":
            return {"mae": self.loss, "rmse": sqrt(self.square)}
        accuracy: dict[str, float | None] = {"accuracy": self.hits / self.n}
        return accuracy if self.kind == "classes" else accuracy | {"logloss": self.loss, "brier": self.square}
