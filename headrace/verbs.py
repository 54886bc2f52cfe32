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
Train = Callable[[Features, Label], Any]


class NotFinite(ValueError):
    """A model answered with something that is no finite number."""


class FeatureMissing(ValueError):
    """An example lacks a column that a run's signature requires."""


def verbs(model: Any, label: LabelSpec, has_probabilities: bool) -> tuple[Answer, Learn]:
    """How this model answers and learns. An answer that is not finite raises NotFinite."""
    from headrace.fast_path import fast

    predict, learn = fast(model, _verb(label, has_probabilities))
    read = _reader(label, has_probabilities)

    def answer(features: Features) -> Any:
        return read(predict(features))

    return answer, _learns_numbers(learn) if label.task == "regression" else learn


def answer_then_learn(model: Any, label: LabelSpec, has_probabilities: bool) -> Train:
    """How this model answers an example and then learns it, in one call; None for an answer that cannot be used."""
    from headrace.fast_path import fast_test_then_train

    train = fast_test_then_train(model, _verb(label, has_probabilities))
    read = _reader(label, has_probabilities)
    is_number = label.task == "regression"

    def answer_and_learn(features: Features, y: Label) -> Any:
        value = train(features, float(y) if is_number else y)
        try:
            return read(value) if value is not None else None
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            return None

    return answer_and_learn


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


def _verb(label: LabelSpec, has_probabilities: bool) -> str:
    return "predict_proba_one" if has_probabilities and label.task != "regression" else "predict_one"


def _reader(label: LabelSpec, has_probabilities: bool) -> Callable[[Any], Any]:
    """From what River's verb returns to an answer; raises NotFinite."""
    if label.task == "regression":
        return _number
    if not has_probabilities:
        return _truth if label.type == "bool" else _name
    return _p_true if label.type == "bool" else _shares


def _p_true(shares: Any) -> float | None:
    if not shares:
        return None
    p = float(shares.get(True, 0.0))
    if p - p != 0.0:
        raise NotFinite(f"P(true) is {p}")
    return p


def _shares(shares: Any) -> dict[str, float] | None:
    told = {str(name): float(p) for name, p in shares.items()}
    if not all(map(isfinite, told.values())):
        raise NotFinite(f"the probabilities are {told}")
    return told or None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    value = float(value)
    if value - value != 0.0:
        raise NotFinite(f"the prediction is {value}")
    return value  # type: ignore[no-any-return]


def _truth(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _learns_numbers(learn: Learn) -> Learn:
    def learn_number(features: Features, label: Label) -> None:
        learn(features, float(label))

    return learn_number
