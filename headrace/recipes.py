"""Trying a recipe before its release: built twice with one seed and taught the same made-up examples."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace import model_bytes
from headrace.contract import InvalidDefinition
from headrace.pipeline import NEED_PROBABILITIES, Pipeline, Recipe
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.stream import Features, Label, Scalar

EXAMPLES = 200
ABSENT = 0.1  # share of optional values left out
WORDS = ("amber", "birch", "cedar", "dune", "elm")


@dataclass(frozen=True)
class RecipeReport:
    """What a recipe turned out to be.

    `stable`: two builds with one seed predict alike and, one of them saved and loaded half way, end in one digest, so
    that its models can be reproduced. `problems` forbid a release; each is a sentence.
    """

    stable: bool
    has_probabilities: bool
    problems: tuple[str, ...] = ()


@dataclass
class _Trial:
    predictions: list[Any]
    has_probabilities: bool
    problems: list[str]


def check_recipe(pipeline: Pipeline) -> RecipeReport:
    """The report of `try_recipe`. Raises InvalidDefinition naming the field where the recipe cannot be released."""
    report = try_recipe(pipeline)
    if report.problems:
        raise InvalidDefinition("recipe", "; ".join(report.problems))
    success = pipeline.policies().success
    if success is not None and success.metric in NEED_PROBABILITIES and not report.has_probabilities:
        raise InvalidDefinition(
            "success", f"{success.metric} needs probabilities, and the recipe's model has no predict_proba_one"
        )
    return report


def check_challengers(pipeline: Pipeline, own: RecipeReport) -> dict[str, RecipeReport]:
    """The report of each challenger's recipe, by name. Raises InvalidDefinition naming one that cannot be released.

    `own` is the pipeline's: answers of two kinds, probabilities and bare classes, have no losses that can be paired.
    """
    found = {}
    for name, challenger in pipeline.challengers.items():
        report = found[name] = try_recipe(pipeline, challenger.recipe)
        problems = list(report.problems)
        if not problems and report.has_probabilities != own.has_probabilities:
            mine, other = ("no ", "") if own.has_probabilities else ("", "no ")
            problems = [
                f"its model gives {mine}probabilities and that of the pipeline's own recipe gives {other}"
                "probabilities: the two could not be compared"
            ]
        if problems:
            raise InvalidDefinition(f"challengers.{name}", "; ".join(problems))
    return found


def try_recipe(pipeline: Pipeline, recipe: Recipe | None = None) -> RecipeReport:
    """Build, teach and compare two models; whatever the author's code raises becomes a problem.

    `recipe` is another than the pipeline's own.
    """
    recipe = recipe or pipeline.recipe
    examples = list(made_up_examples(pipeline.spec, EXAMPLES, pipeline.policies().seed))
    first = _try_once(pipeline, recipe, examples)
    if first.problems:
        return RecipeReport(False, first.has_probabilities, tuple(first.problems))
    second = _try_once(pipeline, recipe, examples)
    if second.problems:
        return RecipeReport(False, first.has_probabilities, tuple(second.problems))
    try:
        stable = model_bytes.is_stable(lambda: recipe(pipeline.policies().seed), examples)
    except Exception as error:
        problem = f"learning on after the model was saved and loaded raised {type(error).__name__}: {error}"
        return RecipeReport(False, first.has_probabilities, (problem,))
    return RecipeReport(stable and first.predictions == second.predictions, first.has_probabilities)


def made_up_examples(spec: ContractSpec, n: int, seed: int = 0) -> Iterator[tuple[Features, Label]]:
    """Features and labels that meet the contract and mean nothing; the same seed gives the same ones."""
    rng = random.Random(seed)
    for _ in range(n):
        features = {f.name: _value(f, rng) for f in spec.features if not (f.optional and rng.random() < ABSENT)}
        yield features, _label(spec.label, rng)


def _value(f: FeatureSpec, rng: random.Random) -> Scalar:
    if f.type == "bool":
        return rng.random() < 0.5
    if f.type == "str":
        return rng.choice(f.values) if f.values else rng.choice(WORDS)[: f.max_length]
    low, high = f.gt if f.ge is None else f.ge, f.lt if f.le is None else f.le
    if low is None:
        low = -10.0 if high is None else high - 20.0
    if high is None:
        high = low + 20.0
    if f.type == "float":
        share = rng.uniform(0.01, 0.99)  # off the ends, which may be excluded
        return low * (1 - share) + high * share  # not high - low, which may overflow
    least = math.floor(low) + 1 if f.gt is not None else math.ceil(low)
    most = math.ceil(high) - 1 if f.lt is not None else math.floor(high)
    return rng.randint(least, max(least, most))


def _label(label: LabelSpec, rng: random.Random) -> Label:
    if label.type == "bool":
        return rng.random() < 0.5
    if label.type == "float":
        return rng.gauss(0.0, 1.0)
    return rng.choice(label.values or WORDS[:3])


def _try_once(pipeline: Pipeline, recipe: Recipe, examples: list[tuple[Features, Label]]) -> _Trial:
    trial = _Trial([], False, [])
    label = pipeline.spec.label
    doing = "building the model"
    try:
        model = recipe(pipeline.policies().seed)
        trial.problems += _wrong_kind(model, label)
        if trial.problems:
            return trial
        doing = "predicting a made-up example"
        trial.has_probabilities = label.task != "regression" and _has_probabilities(model, dict(examples[0][0]))
        predict = model.predict_proba_one if trial.has_probabilities else model.predict_one
        for n, (features, y) in enumerate(examples):
            doing = f"predicting made-up example {n}"
            trial.predictions.append(predict(dict(features)))
            doing = f"learning made-up example {n}"
            model.learn_one(dict(features), y)
        if not all(_is_finite(value) for value in trial.predictions):
            trial.problems.append(
                f"its predictions are not finite after {EXAMPLES} made-up examples; does it scale its features?"
            )
        doing = "saving and loading the model"
        model_bytes.digest(model)
        model_bytes.loads(model_bytes.dumps(model))
    except Exception as error:
        hint = ""
        if isinstance(error, TypeError) and any(f.type == "str" for f in pipeline.spec.features):
            hint = ". Text columns must be encoded or left out: river.preprocessing.OneHotEncoder, river.compose.Select"
        elif isinstance(error, KeyError) and any(f.optional and f.name in error.args for f in pipeline.spec.features):
            hint = (
                ", a column that a row need not have. river.compose.Select raises there; SelectType and Discard do not"
            )
        trial.problems.append(f"{doing} raised {type(error).__name__}: {error}{hint}")
    return trial


def _wrong_kind(model: Any, label: LabelSpec) -> list[str]:
    missing = [verb for verb in ("learn_one", "predict_one") if not callable(getattr(model, verb, None))]
    if missing:
        return [f"it returns {type(model).__name__}, which has no {' and no '.join(missing)}"]
    last = getattr(model, "_last_step", model)
    name = type(last).__name__
    # River marks what a model is by its base classes; other libraries' models are judged by what they answer.
    kinds = {base.__name__ for base in type(last).__mro__ if base.__module__.startswith("river.")}
    if label.task == "regression" and "Classifier" in kinds:
        return [f"{name} tells classes apart, and the label is a number"]
    if label.task != "regression" and "Regressor" in kinds and "Classifier" not in kinds:
        return [f"{name} predicts numbers, and the label is {label.type}"]
    classes = label.values or WORDS[:3]
    if label.task == "multiclass" and len(classes) > 2 and kinds and not getattr(last, "_multiclass", True):
        return [f"{name} tells two classes apart, and the label has more; see river.multiclass.OneVsRestClassifier"]
    return []


def _has_probabilities(model: Any, features: Features) -> bool:
    if not callable(getattr(model, "predict_proba_one", None)):
        return False
    try:
        model.predict_proba_one(features)
    except NotImplementedError:  # how River says that a classifier has none
        return False
    return True


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(part) for part in value.values())
    return not isinstance(value, float) or math.isfinite(value)
