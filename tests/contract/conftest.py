"""A history of every topic, made once a session by the whole system in one process."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.infra import pipeline_files
from headrace.infra.system import System
from headrace.schemas.control import TrainingAsked
from headrace.schemas.stream import ExampleArrived, LabelArrived

START = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Pipeline, Slice, Success, Triggers, feature
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=100)


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6),
    triggers=Triggers(first_model_at=50), slices=[Slice("wind", edges=(20, 40))],
)
'''


def make_system(home: Path, rows: int = 160, **options) -> System:
    """The system after `rows` examples and their labels, some late, some repeated, some wrong."""
    system = System(home, start_ms=int(START.timestamp() * 1000), **options)
    path = home / "rain.py"
    path.write_bytes(SOURCE)
    pipeline = pipeline_files.load_file(path)
    _, uri = system.artifacts.put_source(SOURCE)
    system.release(pipeline, pipeline_files.definition(pipeline, SOURCE, uri))
    chance = random.Random(7)
    late: list[LabelArrived] = []
    for number in range(rows):
        at = START + timedelta(seconds=20 * (number + 1))
        temperature, wind = chance.uniform(-20, 30), chance.uniform(0, 60)
        if number % 40 == 17:
            wind = -1.0
        example = ExampleArrived(id=f"d{number}", time=at, features={"temperature": temperature, "wind": wind})
        system.publish("rain", example)
        if number % 25 == 3:
            system.publish("rain", example)
        late.append(LabelArrived(id=f"d{number}", time=at, label=temperature + wind / 10 > 8))
        if number % 30 == 5:
            system.publish("rain", LabelArrived(id=f"d{number - 1}", time=at, label=False))
        while len(late) > 3:
            system.publish("rain", late.pop(0), at_ms=system.now_ms)
    for label in late:
        system.publish("rain", label, at_ms=system.now_ms)
    system.ask(TrainingAsked(pipeline="rain", request="again", by="a test"))
    system.advance(system.now_ms + 120_000)
    return system


@pytest.fixture(scope="session")
def system(tmp_path_factory):
    """The system with its history, at rest."""
    made = make_system(tmp_path_factory.mktemp("history"))
    yield made
    made.close()
