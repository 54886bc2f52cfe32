"""Predictor and trainer together are River's delayed progressive validation, exactly: predictions, scores, model."""

import math
import random
from datetime import UTC, datetime, timedelta

import pytest
from river import compose, evaluate, forest, linear_model, metrics, naive_bayes, preprocessing, tree

from headrace import model_bytes
from headrace.schemas.contract import LabelSpec
from headrace.schemas.control import RunStarted
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived, ExampleLabelled
from headrace.services.predictor import core as predictor
from headrace.services.trainer import core as trainer
from headrace.verbs import verbs

START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 600
BOOL, FLOAT = LabelSpec(type="bool"), LabelSpec(type="float")


def scaled(model):
    return preprocessing.StandardScaler() | model


RECIPES = {
    "scaler | logistic regression": (BOOL, lambda seed: scaled(linear_model.LogisticRegression())),
    "Gaussian naive Bayes": (BOOL, lambda seed: naive_bayes.GaussianNB()),
    "Hoeffding tree": (BOOL, lambda seed: tree.HoeffdingTreeClassifier(grace_period=50)),
    "forest of 3": (BOOL, lambda seed: forest.ARFClassifier(n_models=3, seed=seed)),
    "scaler | linear regression": (FLOAT, lambda seed: scaled(linear_model.LinearRegression())),
    "classes": (
        LabelSpec(type="classes", values=("dry", "wet", "snow")),
        lambda seed: compose.Select("a", "b") | naive_bayes.GaussianNB(),
    ),
}
every_recipe = pytest.mark.parametrize("name", RECIPES)
every_delay = pytest.mark.parametrize("delay", [0, 50])


def dataset(label):
    chance = random.Random(11)
    for _ in range(ROWS):
        x = {"a": chance.gauss(0, 1), "b": chance.gauss(5, 3), "c": chance.uniform(-1, 1)}
        y = x["a"] - x["b"] / 4 + 1 + chance.gauss(0, 0.4)
        yield x, {"bool": y > 0, "float": y, "classes": "wet" if y > 0.5 else "dry" if y > -0.5 else "snow"}[label.type]


def world_of(name, seed=7):
    label, recipe = RECIPES[name]
    started = RunStarted(pipeline="p", run="r", request="q", release=0, seed=seed, start_offset=0)
    return trainer.World(started, recipe, label, label.task != "regression", {}, frozenset({0}))


def played(name, delay):
    """The events in the order of `stream.simulate_qa`: a label comes right before the example `delay` rows later."""
    waiting, data = [], list(dataset(RECIPES[name][0]))
    for number, (x, y) in enumerate(data):
        while waiting and number >= waiting[0][0] + delay:
            yield "label", *waiting.pop(0)
        yield "example", number, x, y
        waiting.append((number, x, y))
    for rest in waiting:
        yield "label", *rest


def system(name, delay):
    """Both cores driven by a plain loop, a revision at every label: what each arm answered, and the run."""
    world, label = world_of(name), RECIPES[name][0]
    state, asked, learned = trainer.begin(world), predictor.State(), 0
    made, scored = {}, []
    for kind, number, x, y in played(name, delay):
        if kind == "example":
            answer, _ = verbs(state.model, label, world.has_probabilities)
            arms = {"champion": predictor.Arm(1, "r", learned, {}, frozenset({0}), answer)}
            event = ExampleArrived(id=str(number), time=START + timedelta(days=number), features=x)
            record = Record(
                event, 0, "<p>.data-validated", "p", 0, number, source="/validator/p/t/0", sequence=number << 16
            )
            (emit,) = predictor.step(asked, record, predictor.World(arms, 1))
            made[number] = emit.event
        else:
            labelled = ExampleLabelled(
                prediction=made[number],
                label=y,
                predicted_at_ms=0,
                labelled_at_ms=0,
                partition=0,
                number=number,
                pending_from=0,
                known_to=learned,
            )
            trainer.step(state, Record(labelled, 0, "<p>.labelled-examples", "p", 0, learned), world)
            learned += 1
            scored.append((made[number].predictions["champion"].value, y))
    return scored, state


def plain(name, delay):
    """The plain River loop over the same labelled examples: predict, then learn, in the order of the labels."""
    label, recipe = RECIPES[name]
    model = recipe(7)
    for kind, _, x, y in played(name, delay):
        if kind == "label":
            (model.predict_one if label.task == "regression" else model.predict_proba_one)(x)
            model.learn_one(x, y)
    return model


@every_recipe
@every_delay
def test_predictions_and_scores_are_those_of_rivers_progressive_validation(name, delay):
    label, recipe = RECIPES[name]
    metric = {"binary": metrics.LogLoss, "multiclass": metrics.CrossEntropy, "regression": metrics.MAE}[label.task]()
    steps = evaluate.iter_progressive_val_score(
        dataset(label), recipe(7), metric, delay=delay or None, step=1, yield_predictions=True
    )
    theirs = [(step["Prediction"], next(iter(step.values())).get()) for step in steps]
    ours, _ = system(name, delay)
    mine = {"binary": metrics.LogLoss, "multiclass": metrics.CrossEntropy, "regression": metrics.MAE}[label.task]()
    for number, ((value, y), (prediction, score)) in enumerate(zip(ours, theirs, strict=True)):
        if label.task == "binary":
            assert value == (prediction.get(True, 0.0) if prediction else None), f"row {number}"
        else:
            assert value == (prediction if prediction not in ({}, None) else None), f"row {number}"
        if value is not None:
            mine.update(y, value)
        assert mine.get() == score
    assert len(ours) == ROWS


@every_recipe
@every_delay
def test_the_model_is_that_of_the_plain_loop(name, delay):
    _, state = system(name, delay)
    assert state.n_learned == ROWS
    assert model_bytes.digest(state.model) == model_bytes.digest(plain(name, delay))


class WholeCrossEntropy(metrics.CrossEntropy):
    """River's, of answers that name every class: in its own a class that is not named costs nothing."""

    def update(self, y_true, y_pred):
        super().update(y_true, {y_true: 0.0, **y_pred})


@every_recipe
def test_the_runs_own_scores_are_rivers_without_delay(name):
    label, recipe = RECIPES[name]
    made = {
        "binary": {"accuracy": metrics.Accuracy(), "logloss": metrics.LogLoss()},
        "multiclass": {"accuracy": metrics.Accuracy(), "logloss": WholeCrossEntropy()},
        "regression": {"mae": metrics.MAE(), "rmse": metrics.RMSE()},
    }[label.task]
    for metric in made.values():
        for _ in evaluate.iter_progressive_val_score(dataset(label), recipe(7), metric):
            pass
    _, state = system(name, 0)
    ours = state.progress.metrics()
    for key, metric in made.items():
        assert ours[key] == metric.get(), key
    assert ours.keys() >= made.keys()
    assert all(math.isfinite(value) for value in ours.values())


@every_recipe
def test_a_run_saved_and_loaded_half_way_ends_in_the_same_model(name):
    world = world_of(name)
    state = trainer.begin(world)
    for n, (x, y) in enumerate(dataset(RECIPES[name][0])):
        if n % 200 == 100:
            state = model_bytes.loads(model_bytes.dumps(state))
        made = predictor.PredictionMade(
            id=str(n), time=START, features=x, predictions={}, served=None, release=0, epoch=0, origin=(0, n)
        )
        labelled = ExampleLabelled(
            prediction=made,
            label=y,
            predicted_at_ms=0,
            labelled_at_ms=0,
            partition=0,
            number=n,
            pending_from=0,
            known_to=n,
        )
        trainer.step(state, Record(labelled, 0, "<p>.labelled-examples", "p", 0, n), world)
    assert model_bytes.digest(state.model) == model_bytes.digest(plain(name, 0))
