"""What a model answers and how it learns, as a pipeline's label and signature say; the same for every service.

An answer is what `ArmPrediction.value` holds: P(true) for bool, {class: p} for classes, a number for regression,
the bare class where a recipe has no probabilities, and None where the model has no opinion yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import isfinite
from typing import Any

from headrace.schemas.contract import ContractSpec, LabelSpec
from headrace.schemas.stream import Features, Label

Answer = Callable[[Features], Any]
Learn = Callable[[Features, Label], Any]


class NotFinite(ValueError):
    """A model answered with something that is no finite number."""


class FeatureMissing(ValueError):
    """An example lacks a column that a run's signature requires."""


def verbs(model: Any, label: LabelSpec, has_probabilities: bool) -> tuple[Answer, Learn]:
    """How this model answers and learns. An answer that is not finite raises NotFinite."""
    from headrace.fast_path import fast

    asks_probabilities = has_probabilities and label.task != "regression"
    predict, learn = fast(model, "predict_proba_one" if asks_probabilities else "predict_one")
    if label.task == "regression":
        return _number(predict), _learns_numbers(learn)
    if not asks_probabilities:
        return _bare_class(predict, bool if label.type == "bool" else str), learn
    return (_p_true if label.type == "bool" else _shares)(predict), learn


def signature(spec: ContractSpec) -> dict[str, bool]:
    """The columns that a run is bound to, and whether each is required."""
    return {feature.name: not feature.optional for feature in spec.features}


def project(features: Features, columns: Mapping[str, bool]) -> Features:
    """The features of a run's signature, in the order they came. Raises FeatureMissing."""
    missing = [name for name, required in columns.items() if required and name not in features]
    if missing:
        raise FeatureMissing(f"the example lacks {', '.join(missing)}")
    return {name: value for name, value in features.items() if name in columns}


def same_columns(columns: Collection[str], spec: ContractSpec) -> bool:
    """Whether examples of a contract need no projection onto these columns."""
    return set(columns) == {feature.name for feature in spec.features}


def _p_true(predict: Answer) -> Answer:
    def answer(features: Features) -> float | None:
        shares = predict(features)
        if not shares:
            return None
        p = float(shares.get(True, 0.0))
        if p - p != 0.0:
            raise NotFinite(f"P(true) is {p}")
        return p

    return answer


def _shares(predict: Answer) -> Answer:
    def answer(features: Features) -> dict[str, float] | None:
        shares = {str(name): float(p) for name, p in predict(features).items()}
        if not all(map(isfinite, shares.values())):
            raise NotFinite(f"the probabilities are {shares}")
        return shares or None

    return answer


def _number(predict: Answer) -> Answer:
    def answer(features: Features) -> float | None:
        value = predict(features)
        if value is None:
            return None
        value = float(value)
        if value - value != 0.0:
            raise NotFinite(f"the prediction is {value}")
        return value

    return answer


def _bare_class(predict: Answer, kind: type) -> Answer:
    def answer(features: Features) -> Label | None:
        value = predict(features)
        return None if value is None else kind(value)

    return answer


def _learns_numbers(learn: Learn) -> Learn:
    def learn_number(features: Features, label: Label) -> None:
        learn(features, float(label))

    return learn_number
