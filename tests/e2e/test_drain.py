"""The whole stack on genuine Kafka: killed, drained, upgraded as it were; then with all of its state lost."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from headrace.infra import processes
from headrace.infra.store import StateLocked, Store, lock_folder
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived
from headrace.services import FOLDS, SERVICES

ROWS = 400
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = b'''
from headrace import Contract, Pipeline, feature
from river import linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)


def recipe(seed: int):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe)
'''


def publish(stack, first, count):
    for number in range(first, first + count):
        at = NOON + timedelta(seconds=number)
        stack.publish("rain", ExampleArrived(id=f"d{number}", time=at, features={"temperature": number % 40 - 10.0}))
        stack.publish("rain", LabelArrived(id=f"d{number}", time=at, label=number % 40 > 15))
    stack.flush()


def joined(stack):
    records = stack.records("<p>.labelled-examples", "rain")
    return [record.event.prediction.id for record in records if isinstance(record.event, ExampleLabelled)]


def kill_all(stack, until):
    """The machine loses its power: the supervisor and all that it started are gone at once."""
    noted = processes.read_run_file(stack.home, "supervisor")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(noted["pid"], signal.SIGKILL)
    until(lambda: not processes.is_running(stack.home))
    until(lambda: not any(state["alive"] for state in processes.states(stack.home).values()))
    for service in SERVICES:  # a process is gone for its parent a moment before its last thread let its files go
        if (folder := stack.home / "state" / "e2e" / service).exists():
            until(lambda folder=folder: is_free(folder))


def is_free(folder):
    try:
        lock_folder(folder).release()
    except StateLocked:
        return False
    return True


def up(stack, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "up", "--timeout", "120", "--json", *arguments],
        capture_output=True, text=True, timeout=180, cwd=stack.home, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + "".join(stack.log(name) for name in SERVICES if name != "scheduler")
    return json.loads(done.stdout)


def left(stack):
    """Whether each fold's state was left cleanly, by fold."""
    found = {}
    for folder in (stack.home / "state" / "e2e").glob("*/*/*/"):
        if folder.parent.name != "trainer-core":  # its newest snapshot is its state
            with closing(Store.open(folder, stack.settings.key())) as store:
                saved = store.load()
            if saved is not None:
                found[folder.parent.name, folder.name] = saved.meta["clean"] == "yes"
    return found


@pytest.mark.kafka
def test_a_stack_that_was_killed_is_drained_and_one_that_lost_its_state_goes_on(stack, until):
    stack.release(SOURCE, "rain")
    publish(stack, 0, ROWS)
    until(lambda: len(joined(stack)) >= ROWS // 2, limit_s=90, says="half of the rows joined")
    groups = stack.groups()
    until(lambda: any(stack.group_offsets(groups, "joiner-core").values()), limit_s=30, says="a first commit")
    kill_all(stack, until)
    assert not all(left(stack).values())

    assert set(up(stack, "--drain")["drained"]) == {fold.service for fold in FOLDS}
    assert not processes.is_running(stack.home)
    clean = left(stack)
    assert {fold for fold, _ in clean} >= {"validator-core", "predictor-core", "joiner-core", "sequencer-core"}
    assert all(clean.values()), clean

    up(stack)
    publish(stack, ROWS, 100)
    until(lambda: len(joined(stack)) >= ROWS + 100, limit_s=90, says="every row joined")
    assert processes.down(stack.home)
    shutil.rmtree(stack.home / "state")

    up(stack)
    publish(stack, ROWS + 100, 100)
    until(lambda: len(joined(stack)) >= ROWS + 200, limit_s=90, says="every row joined")
    assert joined(stack) == [f"d{number}" for number in range(ROWS + 200)]
    for service in ("validator", "predictor", "joiner", "registry", "orchestrator", "evaluator"):
        assert "checkpoint restored" in stack.log(service)
