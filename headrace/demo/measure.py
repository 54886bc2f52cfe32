"""How a row of the demo is scored: right or not, or how far off. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headrace.schemas.stream import Features, Label
from headrace.services.evaluator.scores import decided


@dataclass(frozen=True)
class Measure:
    """The mean of its scores is told; `rival` is the baseline that is drawn, `axis` from where to where.

    `ask` gets from a River model what the service would serve, `of` scores a served answer against the label.
    """

    name: str
    rival: str
    axis: tuple[float, float]
    ask: Callable[[Any, Features], Any]
    of: Callable[[Any, Label], float]
    in_store: str


def _odds(model: Any, features: Features) -> float:
    return float(model.predict_proba_one(features).get(True, 0.0))


def _number(model: Any, features: Features) -> float:
    return float(model.predict_one(features))


def _right(value: Any, label: Label) -> float:
    return float(value is not None and decided("binary", value) == label)


def _off(value: Any, label: Label) -> float:
    return abs(float(value) - float(label))


ACCURACY = Measure("accuracy", "majority", (0.4, 1.0), _odds, _right, "round(avg(correct::INT), 4) AS accuracy")
ERROR = Measure("absolute error", "mean", (0.0, 5.0), _number, _off, "round(avg(abs(error)), 4) AS absolute_error")
