"""`kill -9` of every service at random moments, on genuine Kafka: nothing lost, nothing learned twice."""

import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived
from headrace.services import SERVICES

ROWS, KILLS = 3_000, 20
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
KILLABLE = [service for service in SERVICES if service != "scheduler"]


def rows():
    chance = random.Random(11)
    for number in range(ROWS):
        features = {"temperature": chance.uniform(-20, 30), "wind": chance.uniform(0, 60)}
        yield f"d{number}", features, features["temperature"] + features["wind"] / 10 > 8


@pytest.mark.kafka
def test_nothing_is_lost_or_learned_twice_when_every_service_is_killed_at_random(stack, until):
    stack.release(SOURCE, "rain")
    chance = random.Random(5)
    kill_at = sorted(chance.sample(range(50, ROWS - 50), KILLS))
    victims = (KILLABLE * 3)[:KILLS]
    chance.shuffle(victims)
    killed = []
    for number, (id, features, label) in enumerate(rows()):
        at = NOON + timedelta(seconds=number)
        stack.publish("rain", ExampleArrived(id=id, time=at, features=features))
        stack.publish("rain", LabelArrived(id=id, time=at, label=label))
        if number % 10 == 0:
            stack.flush()
            time.sleep(0.02)  # the pace of the stream, not a wait for anything
        while kill_at and number >= kill_at[0]:
            kill_at.pop(0)
            victim = victims.pop()
            until(lambda victim=victim: stack.kill(victim), says=f"a living {victim}")
            killed.append(victim)
    stack.flush()
    assert len(killed) == KILLS

    def joined():
        return [r for r in stack.records("<p>.labelled-examples", "rain") if isinstance(r.event, ExampleLabelled)]

    until(lambda: len(joined()) >= ROWS, limit_s=60, says="every row joined")
    records = joined()
    expected = list(rows())
    assert [(r.event.prediction.id, r.event.prediction.features, r.event.label) for r in records] == expected

    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for _, features, label in expected:
        model.predict_proba_one(features)
        model.learn_one(features, label)
    last = records[-1].offset + 1
    taken = until(
        lambda: next((r.event for r in stack.records("<p>.snapshots", "rain") if r.event.offset >= last), None),
        limit_s=60,
        says="a snapshot of the whole log",
    )
    (snapshot,) = taken.runs.values()
    served = model_bytes.loads(stack.artifacts.get(snapshot.uri)[0])
    assert model_bytes.digest(served) == model_bytes.digest(model)
    assert snapshot.n_learned == ROWS

    repeats = sum(
        stack.raw_count(topic, "rain") - len(stack.records(topic, "rain"))
        for topic in ("<p>.data-validated", "<p>.predictions", "<p>.labelled-examples")
    )
    assert repeats > 0, "a run without repeats proves nothing"
