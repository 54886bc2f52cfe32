"""What was before the pipeline began: learned and gated, never served, scored or alarmed about."""

import pytest
import side

from headrace.schemas.control import DriftDetected, MetricsUpdated, ModelUpdated, SnapshotTaken

POLICIES = "triggers=Triggers(first_model_at=200), rollout=Rollout(refresh_s=3, steps=()),"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """400 rows of history, 100 rows, 1,200 more of history, 100 rows."""
    life = side.Life(tmp_path_factory.mktemp("history"), side.source(POLICIES))
    life.live(400, history=True).live(100).live(1_200, history=True).live(100)
    yield life
    life.system.close()


def test_a_first_model_passes_its_gate_on_history_and_every_live_row_is_served(begun):
    made = begun.predictions()
    assert [bool(one.served) for one in made] == [not one.history for one in made]
    assert [one.history for one in made] == [True] * 400 + [False] * 100 + [True] * 1_200 + [False] * 100
    assert begun.moves() == [("champion", 1)]


def test_it_is_learned(begun):
    taken = begun.system.records("<p>.snapshots", "side")
    newest = [record.event for record in taken if isinstance(record.event, SnapshotTaken)][-1]
    (run,) = newest.runs.values()
    assert run.n_learned >= 1_795
    assert begun.events(ModelUpdated)[0].reason.startswith("first model after 200 labels")


def test_it_is_neither_scored_nor_alarmed_about(begun):
    told = [record.event for record in begun.system.records("metrics", "side")]
    last = [event for event in told if isinstance(event, MetricsUpdated) and event.scope == "cumulative"][-1]
    assert 100 < last.n <= 200
    assert begun.events(DriftDetected) == []
