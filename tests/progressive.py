"""River's delayed progressive validation of five recipes on the rainfall data: as pipelines, and by River itself.

`first_model_at=0`, gate and quick checks off, a revision at every label, no other training: where the system is at rest
before each record, every example is answered by a model that has learned just the labels published before it.
"""

import itertools
from datetime import UTC, datetime, timedelta

from river import evaluate, metrics

from headrace import model_bytes
from headrace.demo.stories import rainfall_rows
from headrace.infra import pipeline_files
from headrace.schemas.control import MetricsUpdated, SnapshotTaken
from headrace.schemas.stream import ExampleArrived, LabelArrived, PredictionMade

START = datetime(2026, 1, 1, tzinfo=UTC)
BINARY = {
    "scaler | logistic regression": "preprocessing.StandardScaler() | linear_model.LogisticRegression()",
    "Gaussian naive Bayes": "naive_bayes.GaussianNB()",
    "Hoeffding tree": "tree.HoeffdingTreeClassifier(grace_period=50)",
    "forest of 3": "forest.ARFClassifier(n_models=3, seed=seed)",
}
REGRESSION = {"scaler | linear regression": "preprocessing.StandardScaler() | linear_model.LinearRegression()"}
RECIPES = BINARY | REGRESSION
DELAYS = (0, 50)
CASES = list(itertools.product(RECIPES, DELAYS))
TEMPLATE = '''
from headrace import Contract, Gates, Pipeline, Rollout, Success, Triggers
from river import forest, linear_model, naive_bayes, preprocessing, tree


class Weather(Contract):
    """One day."""

    {columns}


def recipe(seed: int):
    return {recipe}


pipeline = Pipeline(
    name="{name}", contract=Weather, label={label}, recipe=recipe, seed=3,
    triggers=Triggers(first_model_at=0, on_performance_drift=False),
    gates=Gates(first="off", quick="off"), rollout=Rollout(refresh_s=0),
)
'''


def dataset(recipe, rows):
    """Rain or not, or the temperature from the other columns."""
    for features, label in rainfall_rows(rows):
        if recipe in REGRESSION:
            features = dict(features)
            yield features, features.pop("temperature")
        else:
            yield features, label


def source_of(recipe, name):
    """The pipeline's file."""
    first = next(dataset(recipe, 1))[0]
    return TEMPLATE.format(
        name=name,
        columns="\n    ".join(f"{column}: float" for column in first),
        recipe=RECIPES[recipe],
        label="float" if recipe in REGRESSION else "bool",
    ).encode()


def played(recipe, delay, rows):
    """Examples and labels in River's order: each label comes right before the example `delay` rows later."""
    late = []
    for number, (features, label) in enumerate(dataset(recipe, rows)):
        at = START + timedelta(seconds=number)
        if delay and number >= delay:
            yield late.pop(0)
        yield ExampleArrived(id=f"d{number}", time=at, features=features)
        late.append(LabelArrived(id=f"d{number}", time=at, label=label))
        if not delay:
            yield late.pop(0)
    yield from late


def river(recipe, delay, rows, path):
    """What River's own evaluation answers and scores, and the model that it leaves.

    Answers are P(true) or the number, None where the model has none; scores by name, over the rows with an answer.
    """
    model = pipeline_files.load_file(path).recipe(3)
    if recipe in BINARY:
        scores = {"accuracy": metrics.Accuracy(), "logloss": metrics.LogLoss()}
    else:
        scores = {"mae": metrics.MAE(), "rmse": metrics.RMSE()}
    first, second = scores.values()
    steps = evaluate.iter_progressive_val_score(
        dataset(recipe, rows), model, first + second, step=1, delay=delay or None, yield_predictions=True
    )
    answers = [step["Prediction"] for step in steps]
    if recipe in BINARY:
        answers = [answer.get(True, 0.0) if answer else None for answer in answers]
    return answers, {name: score.get() for name, score in scores.items()}, model


def newest_scores(records):
    """The evaluator's last cumulative MetricsUpdated of the champion; None before there is one."""
    told = [
        r.event
        for r in records
        if isinstance(r.event, MetricsUpdated)
        and (r.event.alias, r.event.scope, r.event.slice) == ("champion", "cumulative", None)
    ]
    return told[-1] if told else None


def check(recipe, delay, rows, path, artifacts, predictions, snapshots, told):
    """Hold what the system answered, learned and scored to River's: equal, not near."""
    expected, scores, model = river(recipe, delay, rows, path)
    made = [r.event for r in predictions if isinstance(r.event, PredictionMade)]
    assert [one.id for one in made] == [f"d{number}" for number in range(rows)]
    assert all(arm.error is None for one in made for arm in one.predictions.values())
    answered = [one.predictions["champion"].value for one in made]
    assert answered == expected
    assert [one.served for one in made] == ["champion" if answer is not None else None for answer in expected]

    assert told.n == sum(answer is not None for answer in expected)  # River skips rows a cold model cannot answer
    assert {name: told.metrics[name] for name in scores} == scores

    taken = [r.event for r in snapshots if isinstance(r.event, SnapshotTaken)][-1]
    (snapshot,) = taken.runs.values()
    assert snapshot.n_learned == rows
    learned = model_bytes.loads(artifacts.get(snapshot.uri)[0])
    assert model_bytes.digest(learned) == model_bytes.digest(model)
