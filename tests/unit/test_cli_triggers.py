"""`headrace triggers`: given this control-log, then what it says has the slot."""

import json
from contextlib import nullcontext

import orchestrated
import pytest
from definitions import definition_of
from typer.testing import CliRunner

from headrace.cli import app, connect
from headrace.infra.subscription import Subscription
from headrace.schemas.control import ReleaseAsked
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.record import Record
from headrace.services.orchestrator import core


class Log(nullcontext):
    """A `control-log` that clients read as they read a broker's."""

    def __init__(self, records):
        super().__init__(self)
        self.records = records

    def subscribe(self, topic, pipeline="", **how):
        return Subscription.chosen(self, pipeline, (), follow=False)

    def read_to_end(self):
        return self.records


def by_hand(**triggers):
    """The request that the registry takes for a release."""
    definition = definition_of(policies=Policies(triggers=Triggers(**triggers)))
    asked = ReleaseAsked(pipeline="rain", request="q", by="ann", definition=definition, topic_id="1")
    return Record(asked, 0, "control-log", "", 0, 0)


@pytest.fixture
def log(monkeypatch):
    """What an orchestrator reads, from a release by hand on."""
    found = Log([by_hand()])

    def step(state, record, world):
        found.records.append(record)
        return core.step(state, record, world)

    monkeypatch.setattr(orchestrated, "step", step)
    monkeypatch.setattr(connect, "client", lambda: found)
    return found


def test_a_training_that_a_minute_began_is_under_way_also_where_one_pipeline_is_named(log):
    told = orchestrated.Told((), schedule="0 * * * *")
    told.win(1)
    told.count(5_000)
    told.wait(hours=1)
    shown = [CliRunner().invoke(app, ["triggers", *name, "--json"]).stdout for name in ((), ("rain",))]
    all_of_them, one = map(json.loads, shown)
    assert one == all_of_them
    assert "run-schedule-2026-01-01T01:00 (schedule: " in one[0]["now"][0]


@pytest.mark.parametrize(("counted", "says"), [(5_000, "next at 8,000; 5,000 at"), (8_000, "next at 12,000; 8,000 at")])
def test_the_next_count_is_named_and_not_how_far_it_is_from_one_that_may_be_old(log, counted, says):
    log.records[:] = [by_hand(every_labels=4_000)]
    told = orchestrated.Told((), every_labels=4_000)
    told.win(1)
    told.count(counted)
    (shown,) = json.loads(CliRunner().invoke(app, ["triggers", "--json"]).stdout)
    (new_data,) = [row for row in shown["triggers"] if row["trigger"] == "new_data"]
    assert new_data["when"] == f"every 4,000 labels, {says} the last count"


@pytest.mark.parametrize(("failed", "says"), [(1, "1 challenger failed"), (2, "2 challengers failed")])
def test_challengers_that_failed_in_a_row_are_counted(log, failed, says):
    told = orchestrated.Told((), schedule="0 * * * *")
    told.win(1)
    told.count(5_000)
    for _ in range(failed):
        told.wait(hours=2)
        told.lose()
    shown = json.loads(CliRunner().invoke(app, ["triggers", "--json"]).stdout)
    assert any(line.startswith(says) for line in shown[0]["now"])
