"""Over genuine Kafka, one record after the other: served predictions and the model equal the plain River loop's."""

import json
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from river import evaluate, linear_model, metrics, preprocessing

from headrace import model_bytes
from headrace.demo.stories import rainfall_rows
from headrace.infra import processes
from headrace.infra.follow import Follower
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade

ROWS = 300
START = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = '''
from headrace import Contract, Gates, Pipeline, Rollout, Triggers
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    {columns}


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe, triggers=Triggers(first_model_at=0),
    gates=Gates(first="off", quick="off"), rollout=Rollout(refresh_s=0),
)
'''


@pytest.mark.kafka
def test_three_hundred_served_predictions_are_rivers(stack, until):
    rows = list(rainfall_rows(ROWS))
    source = SOURCE.format(columns="\n    ".join(f"{name}: float" for name in rows[0][0])).encode()
    stack.release(source, "rain")
    health = processes.states(stack.home)["predictor"]["health"]

    def serves(learned_to):
        with urllib.request.urlopen(str(health), timeout=5) as answer:
            parts = json.load(answer)["parts"]
        return any(part.get("rain", {}).get("champion") == f"1@{learned_to}" for part in parts)

    until(lambda: serves(_first(stack)), limit_s=60, says="a champion before the first label")
    with_labels = Follower(stack.bus, stack.namespace, [stack.topic("<p>.labelled-examples", "rain")])
    for number, (features, label) in enumerate(rows):
        at = START + timedelta(seconds=number)
        stack.publish("rain", ExampleArrived(id=f"d{number}", time=at, features=features))
        stack.publish("rain", LabelArrived(id=f"d{number}", time=at, label=label))
        stack.flush()
        found = until(
            lambda: next((r for r in with_labels.poll(0.1) if isinstance(r.event, ExampleLabelled)), None),
            says=f"row {number} joined",
        )
        until(lambda at=found.offset + 1: serves(at), says=f"a revision that learned row {number}")
    with_labels.close()

    predictions = [r.event for r in stack.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
    model, metric = preprocessing.StandardScaler() | linear_model.LogisticRegression(), metrics.Accuracy()
    steps = evaluate.iter_progressive_val_score(rows, model, metric, step=1, yield_predictions=True)
    expected = [step["Prediction"] for step in steps]
    served = [p.predictions["champion"].value > 0.5 for p in predictions]
    assert served == expected

    taken = stack.records("<p>.snapshots", "rain")[-1].event
    (snapshot,) = taken.runs.values()
    learned = model_bytes.loads(stack.artifacts.get(snapshot.uri)[0])
    assert model_bytes.digest(learned) == model_bytes.digest(model)


def _first(stack):
    """The offset of the first snapshot: what the untrained model of version 1 has learned to."""
    snapshots = stack.records("<p>.snapshots", "rain")
    return snapshots[0].event.offset if snapshots else -1
