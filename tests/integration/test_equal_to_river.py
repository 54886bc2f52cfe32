"""The whole system, stepped to rest after each record, is River's delayed progressive validation: exactly."""

import os

import pytest
from progressive import CASES, START, check, newest_scores, played, source_of

from headrace.infra import pipeline_files
from headrace.infra.system import CHAIN, System
from headrace.schemas.stream import ExampleArrived

MANY = int(os.environ.get("RIVER_ROWS", "3000"))  # all: 18159
MINUTE_MS = 60_000


def streamed(recipe, delay, rows, path):
    """The system after the stream, and after the minute in which the evaluator tells what it has not told yet."""
    services = [service for service in CHAIN if service != "recorder"]
    system = System(path.parent, services=services, start_ms=int(START.timestamp() * 1000))
    source = source_of(recipe, "rain")
    path.write_bytes(source)
    _, uri = system.artifacts.put_source(source)
    pipeline = pipeline_files.load_file(path)
    system.release(pipeline, pipeline_files.definition(pipeline, source, uri))
    for event in played(recipe, delay, rows):
        at_ms = int(event.time.timestamp() * 1000) if isinstance(event, ExampleArrived) else system.now_ms
        system.publish("rain", event, at_ms)
    system.advance(system.now_ms + MINUTE_MS)
    return system


def compare(recipe, delay, rows, tmp_path):
    path = tmp_path / "rain.py"
    system = streamed(recipe, delay, rows, path)
    check(
        recipe,
        delay,
        rows,
        path,
        system.artifacts,
        system.records("<p>.predictions", "rain"),
        system.records("<p>.snapshots", "rain"),
        newest_scores(system.records("metrics")),
    )
    system.close()


@pytest.mark.parametrize(("recipe", "delay"), CASES)
def test_every_served_prediction_and_score_is_rivers(recipe, delay, tmp_path):
    compare(recipe, delay, 150, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "delay"), CASES)
def test_every_served_prediction_and_score_is_rivers_over_many_rows(recipe, delay, tmp_path):
    compare(recipe, delay, MANY, tmp_path)
