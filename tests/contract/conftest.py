"""A history of every topic, made once a session by the whole system in one process."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.infra import pipeline_files
from headrace.infra.system import CHAIN, System
from headrace.schemas.control import PromotionAsked, RetireAsked, TrainingAsked
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.services.registry.core import example_world

START = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Drift, Gates, Pipeline, Rollout, Slice, Success, Triggers, feature
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=100)


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6),
    triggers=Triggers(first_model_at=50, window_labels=100), slices=[Slice("wind", edges=(20, 40))],
    gates=Gates(min_labels=40, guard_labels=200), rollout=Rollout(steps=()), drift=Drift(window=100),
)
'''
UNGATED = SOURCE.replace(b'"rain"', b'"snow"').replace(b"Gates(", b'Gates(first="off", quick="off", ')

AT_ONCE = 8  # rows appended before the services are stepped
SKEWED = range(100, 130)  # a minute in which most rows lack what the contract asks for
TURNED, WINDY = 310, 330  # from then on labels follow the opposite rule, and the wind blows harder
SILENT = 720  # from then on no label comes, and rows ten times slower
ROWS = 770


def make_system(home: Path) -> System:
    """The system after examples and their labels, some late, some repeated, some wrong.

    The rule that labels follow turns round, the wind changes, a challenger takes over, labels stop; a second pipeline
    has no gates. Ticks and markers are signed with the key of the folds' example worlds.
    """
    services = [service for service in CHAIN if service != "recorder"]  # nobody reads what it writes; half the time
    system = System(home, services=services, start_ms=int(START.timestamp() * 1000), key=example_world().key)
    for name, source in (("rain", SOURCE), ("snow", UNGATED)):
        path = home / f"{name}.py"
        path.write_bytes(source)
        pipeline = pipeline_files.load_file(path)
        _, uri = system.artifacts.put_source(source)
        system.release(pipeline, pipeline_files.definition(pipeline, source, uri))
    chance = random.Random(7)
    late: list[LabelArrived] = []
    at = START
    for number in range(ROWS):
        at += timedelta(seconds=2 if number < SILENT else 20)
        system.advance(int(at.timestamp() * 1000))
        temperature, wind = chance.uniform(-20, 30), chance.uniform(0, 60)
        if number >= WINDY:
            wind += 25
        if number % 40 == 17 or (number in SKEWED and number % 3):
            wind = -1.0
        example = ExampleArrived(id=f"d{number}", time=at, features={"temperature": temperature, "wind": wind})
        system.append("rain", example)
        if number % 25 == 3:
            system.append("rain", example)
        if number < 80:
            system.append("snow", example)
            system.append("snow", LabelArrived(id=f"d{number}", time=at, label=temperature > 0))
        if number < SILENT:
            is_true = (temperature + wind / 10 > 8) != (number >= TURNED)
            late.append(LabelArrived(id=f"d{number}", time=at, label=is_true))
            if number % 30 == 5:
                system.append("rain", LabelArrived(id=f"d{number - 1}", time=at, label=False))
            if len(late) > 3:
                system.append("rain", late.pop(0))
        if number % AT_ONCE == 0:
            system.settle()
    for label in late:
        system.append("rain", label)
    system.ask(TrainingAsked(pipeline="rain", request="again", by="a test"))
    system.ask(PromotionAsked(pipeline="rain", request="none", by="a test", version=9))
    system.ask(RetireAsked(pipeline="snow", request="enough", by="a test"))
    system.advance(system.now_ms + 120_000)
    return system


@pytest.fixture(scope="session")
def system(tmp_path_factory):
    """The system with its history, at rest."""
    made = make_system(tmp_path_factory.mktemp("history"))
    yield made
    made.close()
