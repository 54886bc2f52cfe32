"""A pipeline whose stream is known row by row, for the tests that stop, kill and freeze services over genuine Kafka."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Pipeline, Rollout, Success, feature
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=100)


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6),
    rollout=Rollout(refresh_s=0.2),
)
'''

BY_STATION = SOURCE.replace(b"label=bool, ", b"label=bool, entity=True, ")  # rows of one station keep their order
STATIONS = 30

OF_ONE_NUMBER = '''
from headrace import Contract, Gates, Pipeline, Success, Triggers
from river import linear_model, preprocessing


class Weather(Contract):
    """One number that tells the label."""

    x: float


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe,
    {policies}
)
'''


def of_one_number(policies):
    """The file of a pipeline over one number, with these policies."""
    return OF_ONE_NUMBER.format(policies=policies).encode()


def row(number):
    chance = random.Random(number)
    features = {"temperature": chance.uniform(-20, 30), "wind": chance.uniform(0, 60)}
    return f"d{number}", features, features["temperature"] + features["wind"] / 10 > 8


def publish(stack, number, stations=0):
    """One example and its label; of so many stations, where there are any."""
    id, features, label = row(number)
    at, entity = NOON + timedelta(seconds=number), f"s{number % stations}" if stations else None
    stack.publish("rain", ExampleArrived(id=id, time=at, features=features, entity=entity))
    stack.publish("rain", LabelArrived(id=id, time=at, label=label, entity=entity))


def numbers(rows):
    """When each id was published."""
    return {row(number)[0]: number for number in range(rows)}


def joined(stack):
    """The joined rows, without repeats."""
    found = stack.records("<p>.labelled-examples", "rain")
    return [record for record in found if isinstance(record.event, ExampleLabelled)]


def every_row_is_joined_once_and_learned(stack, rows, until):
    """In the order and with the values of an undisturbed run, and the model is the plain loop's."""
    until(lambda: len(joined(stack)) >= rows, limit_s=60, says="every row joined")
    records = joined(stack)
    expected = [row(number) for number in range(rows)]
    assert [(r.event.prediction.id, r.event.prediction.features, r.event.label) for r in records] == expected
    _learned(stack, records, until)


def every_row_is_joined_once_in_some_order_and_learned(stack, rows, until):
    """With the values of an undisturbed run, and the model is the plain loop's over `labelled-examples`."""
    until(lambda: len(joined(stack)) >= rows, limit_s=60, says="every row joined")
    records = joined(stack)
    found = {r.event.prediction.id: (r.event.prediction.features, r.event.label) for r in records}
    assert Counter(r.event.prediction.id for r in records).most_common(1)[0][1] == 1
    assert found == {id: (features, label) for id, features, label in map(row, range(rows))}
    _learned(stack, records, until)


def _learned(stack, records, until):
    """The newest model has learned each of these records once, in their order."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for record in records:
        model.predict_proba_one(record.event.prediction.features)
        model.learn_one(record.event.prediction.features, record.event.label)
    last = records[-1].offset + 1
    taken = until(
        lambda: next((r.event for r in stack.records("<p>.snapshots", "rain") if r.event.offset >= last), None),
        limit_s=60,
        says="a snapshot of the whole log",
    )
    (snapshot,) = taken.runs.values()
    served = model_bytes.loads(stack.artifacts.get(snapshot.uri)[0])
    assert (snapshot.n_learned, model_bytes.digest(served)) == (len(records), model_bytes.digest(model))
