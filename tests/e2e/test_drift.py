"""On genuine Kafka: a column that breaks is one alert that names it, told once though the monitor was killed twice."""

import json
import random
import signal
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.infra import processes
from headrace.schemas.control import DriftDetected
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Drift, Pipeline
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float
    wind: float
    pressure: float


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe, drift=Drift(window=200))
'''


def publish(stack, numbers, chance, unit):
    for number in numbers:
        at = NOON + timedelta(seconds=number)
        warm = chance.gauss(12, 8)
        features = {"temperature": warm, "wind": chance.gauss(5, 2), "pressure": chance.gauss(1_010, 9) * unit}
        stack.publish("rain", ExampleArrived(id=f"d{number}", time=at, features=features))
        stack.publish("rain", LabelArrived(id=f"d{number}", time=at, label=warm < 12))
    stack.flush()


def alerts(stack, kind):
    """What was decided on: the alerts as the sequencer copied them."""
    told = [record.event for record in stack.records("control-log")]
    return [event for event in told if isinstance(event, DriftDetected) and event.kind == kind]


def asked(*arguments):
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def joined(stack):
    events = [record.event for record in stack.records("<p>.labelled-examples", "rain")]
    return sum(isinstance(event, ExampleLabelled) for event in events)


def killed(stack, until):
    """`kill -9` the monitor and wait for its next process."""
    before = stack.pid("monitor")
    stack.kill("monitor", signal.SIGKILL)
    until(lambda: stack.pid("monitor") not in (0, before), says="another monitor")
    assert not processes.wait_ready(stack.home, ("monitor",), 30)


@pytest.mark.kafka
def test_a_column_that_breaks_is_one_alert_that_names_it_and_where_it_broke(stack, until):
    stack.release(SOURCE, "rain")
    chance = random.Random(4)
    publish(stack, range(600), chance, 1.0)
    until(lambda: joined(stack) == 600, 60, "600 rows joined")
    until(lambda: '"champion"' in stack.health()["predictor"], 60, "a champion that answers")
    killed(stack, until)
    publish(stack, range(600, 900), chance, 1 / 33.8639)
    until(lambda: alerts(stack, "input"), 30, "an alert")
    killed(stack, until)
    publish(stack, range(900, 1_100), chance, 1 / 33.8639)
    until(lambda: joined(stack) == 1_100, 30, "1,100 rows joined")
    answers = [r for r in stack.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
    groups, place = stack.groups(), ("monitor-inputs", stack.topic("<p>.predictions", "rain"), 0)
    until(lambda: stack.group_offsets(groups, place[0]).get(place, 0) > answers[-1].offset, 30, "all is folded")

    (alert,) = alerts(stack, "input")
    assert (alert.features, alert.level, alert.version) == (("pressure",), "warning", 1)
    assert next(answer.event.id for answer in answers if answer.offset == alert.since) == "d600"
    (listed,) = asked("alerts", "rain", "--kind", "input")
    assert listed["features"] == ["pressure"]
    events = [link["event"] for link in asked("why", listed["place"])["story"]]
    assert (events[0], events[-2:]) == ("ReleaseAsked", ["ModelUpdated", "DriftDetected"])
    assert asked("why", "rain/input")["story"][-1]["place"].startswith("control-log/0/")
    assert [one["alert"] is not None for one in asked("status", "rain")["pipelines"]] == [True]
