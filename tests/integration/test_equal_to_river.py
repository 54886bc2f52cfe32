"""The whole system, stepped to rest after each record, is River's delayed progressive validation: exactly.

`first_model_at=0`, gate and quick checks off, a revision at every label: every example is answered by a model that
has learned just the labels published before it.
"""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from river import evaluate, metrics

from headrace import model_bytes
from headrace.demo.stories import rainfall_rows
from headrace.infra import pipeline_files
from headrace.infra.system import CHAIN, System
from headrace.schemas.control import SnapshotTaken
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade

START = datetime(1980, 1, 1, tzinfo=UTC)
BINARY = {
    "scaler | logistic regression": "preprocessing.StandardScaler() | linear_model.LogisticRegression()",
    "Gaussian naive Bayes": "naive_bayes.GaussianNB()",
    "Hoeffding tree": "tree.HoeffdingTreeClassifier(grace_period=50)",
    "forest of 3": "forest.ARFClassifier(n_models=3, seed=seed)",
}
REGRESSION = {"scaler | linear regression": "preprocessing.StandardScaler() | linear_model.LinearRegression()"}
RECIPES = BINARY | REGRESSION
TEMPLATE = '''
from headrace import Contract, Gates, Pipeline, Rollout, Success, Triggers
from river import forest, linear_model, naive_bayes, preprocessing, tree


class Weather(Contract):
    """One day."""

    {columns}


def recipe(seed: int):
    return {recipe}


pipeline = Pipeline(
    name="rain", contract=Weather, label={label}, recipe=recipe, triggers=Triggers(first_model_at=0),
    gates=Gates(first="off", quick="off"), rollout=Rollout(refresh_s=0), seed=3,
)
'''


def dataset(name, rows):
    """Rain or not, or the temperature from the other columns."""
    for features, label in rainfall_rows(rows):
        if name in REGRESSION:
            features = dict(features)
            yield features, features.pop("temperature")
        else:
            yield features, label


def source_of(name):
    first = next(dataset(name, 1))[0]
    columns = "\n    ".join(f"{column}: float" for column in first)
    return TEMPLATE.format(
        columns=columns, recipe=RECIPES[name], label="float" if name in REGRESSION else "bool"
    ).encode()


def streamed(name, delay, rows, tmp_path):
    """The system after the stream: each label comes right before the example `delay` rows later, as in River."""
    services = [service for service in CHAIN if service != "recorder"]
    system = System(tmp_path, services=services, start_ms=int(START.timestamp() * 1000))
    source = source_of(name)
    path = tmp_path / "rain.py"
    path.write_bytes(source)
    _, uri = system.artifacts.put_source(source)
    pipeline = pipeline_files.load_file(path)
    system.release(pipeline, pipeline_files.definition(pipeline, source, uri))
    late = []
    for number, (features, label) in enumerate(dataset(name, rows)):
        at = START + timedelta(seconds=number)
        if delay and number >= delay:
            system.publish("rain", late.pop(0), at_ms=int(at.timestamp() * 1000))
        system.publish("rain", ExampleArrived(id=f"d{number}", time=at, features=features))
        late.append(LabelArrived(id=f"d{number}", time=at, label=label))
        if not delay:
            system.publish("rain", late.pop(0))
    for label in late:
        system.publish("rain", label, at_ms=system.now_ms)
    return system, pipeline


def river(name, delay, rows, model, metric):
    """Predictions of `iter_progressive_val_score`, and the metric at the end."""
    predicted = []
    for step in evaluate.iter_progressive_val_score(
        dataset(name, rows), model, metric, step=1, delay=delay or None, yield_predictions=True
    ):
        predicted.append(step["Prediction"])
    return predicted


def check(name, delay, rows, tmp_path):
    system, pipeline = streamed(name, delay, rows, tmp_path)
    predictions = [r.event for r in system.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
    served = [p.predictions["champion"].value for p in predictions]
    assert len(served) == rows
    assert all(arm.error is None for p in predictions for arm in p.predictions.values())

    model = pipeline.recipe(3)
    is_binary = name in BINARY
    metric = metrics.LogLoss() if is_binary else metrics.MAE()
    expected = river(name, delay, rows, model, metric)
    if is_binary:
        expected = [p.get(True, 0.0) if p else None for p in expected]
    assert served == expected

    ours = metrics.LogLoss() if is_binary else metrics.MAE()
    labelled = [
        r.event for r in system.records("<p>.labelled-examples", "rain") if isinstance(r.event, ExampleLabelled)
    ]
    for event in labelled:
        value = event.prediction.predictions["champion"].value
        if value is not None:  # River skips rows that a cold model has no answer for
            ours.update(event.label, value)
    assert ours.get() == metric.get()

    (taken,) = [r.event for r in system.records("<p>.snapshots", "rain") if isinstance(r.event, SnapshotTaken)][-1:]
    (snapshot,) = taken.runs.values()
    assert snapshot.n_learned == rows
    learned = model_bytes.loads(system.artifacts.get(snapshot.uri)[0])
    assert model_bytes.digest(learned) == model_bytes.digest(model)
    system.close()


@pytest.mark.parametrize(("name", "delay"), list(itertools.product(RECIPES, (0, 50))))
def test_every_served_prediction_is_rivers(name, delay, tmp_path):
    check(name, delay, 150, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "delay"), list(itertools.product(RECIPES, (0, 50))))
def test_every_served_prediction_is_rivers_over_many_rows(name, delay, tmp_path):
    check(name, delay, 3_000, tmp_path)
