"""Over genuine Kafka, by the command line: what a run learned that was killed on its way is folded again to the same
model; the decisions are made again, and told; a model comes back where its bytes are lost.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest
import rain
from typer.testing import CliRunner

from headrace.cli import app
from headrace.schemas.control import ModelUpdated, SnapshotTaken
from headrace.schemas.stream import ExampleArrived, LabelArrived, PredictionMade

ROWS = 400
TO_VERSION_1 = [
    "ReleaseAsked",
    "PipelineReleased",
    "TrainingRequested",
    "RunStarted",
    "TrainingCompleted",
    "ModelValidated",
    "ModelValidated",
    "ModelUpdated",
]
START = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = rain.of_one_number('success=Success("accuracy", at_least=0.6), triggers=Triggers(first_model_at=50),')


def run(*arguments, status=0):
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout or done.stderr)


def served(stack):
    """Ask once more; the first answer that a model gave."""
    rows = stack.raw_count("<p>.data-arrived", "rain")
    stack.publish("rain", ExampleArrived(id=f"later{rows}", time=START + timedelta(days=1), features={"x": 1.0}))
    stack.flush()
    answers = (r for r in stack.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade))
    return next((record for record in answers if record.event.served), None)


@pytest.mark.kafka
def test_what_kafka_holds_is_folded_again_to_the_same_model_and_the_same_decisions(stack, until, tmp_path):
    stack.release(SOURCE, "rain")
    for n in range(ROWS):
        if n == ROWS // 2:
            stack.flush()
            until(lambda: len(stack.records("<p>.snapshots", "rain")) > 1, says="a snapshot to go on from")
            assert stack.kill("trainer")
        at = START + timedelta(seconds=n)
        stack.publish("rain", ExampleArrived(id=f"d{n}", time=at, features={"x": (n * 37) % 11 - 5.0}))
        stack.publish("rain", LabelArrived(id=f"d{n}", time=at, label=(n * 37) % 11 > 5))
    stack.flush()

    def learned():
        taken = [r.event for r in stack.records("<p>.snapshots", "rain") if isinstance(r.event, SnapshotTaken)]
        return bool(taken) and max(run.n_learned for run in taken[-1].runs.values()) == ROWS

    until(learned, limit_s=60, says="every row learned")
    until(lambda: stack.records("model-updates"), limit_s=60, says="version 1")
    (updated,) = [r.event for r in stack.records("model-updates") if isinstance(r.event, ModelUpdated)]
    for name in ("rain@1", "rain@champion", updated.uri):
        done = run("reproduce", name)
        assert (done["outcome"], done["evidence"]) == ("equal", "structural digest")
    assert run("reproduce", "rain@2", status=1)["error"] == "rain has no version 2"

    decisions = run("reproduce", "rain", "--decisions")
    assert decisions["equal"]
    told = {topic: n for fold in decisions["folds"] for topic, n in fold["equal"].items()}
    assert told == {"training-requests": 1, "training-runs": 1, "model-updates": 1, "pipelines": 1}
    assert [gate["outcome"] for gate in decisions["gates"]] == ["equal"]

    for what in ("rain@1", "model-updates/0/0"):
        told = run("why", what)
        assert [link["event"] for link in told["story"]] == TO_VERSION_1
        assert told["story"][-1]["body"]["reason"] == updated.reason
    answer = until(lambda: served(stack), limit_s=60, says="an answer by version 1")
    told = run("why", f"rain.predictions/0/{answer.offset}")["story"]
    assert (told[0]["event"], told[-1]["event"]) == ("ReleaseAsked", "PredictionMade")
    assert "no event that decides stands at" in run("why", "control-log/0/9999", status=1)["error"]

    shown = run("show", "rain@1")
    assert (shown["run"], shown["version"], shown["offset"]) == (updated.run, 1, updated.snapshot_offset)
    assert [(v["stage"], v["verdict"]) for v in shown["verdicts"]] == [("offline", "pass"), ("infra", "pass")]
    assert shown["parameters"]["LogisticRegression.l2"] == "0.0"
    assert shown["weights"].keys() == {"LogisticRegression.x"}
    assert shown["aliases"][0].startswith("champion from ")
    apart = run("diff", "rain@1", "rain@champion")
    assert apart["facts"].keys() >= {"learned", "accuracy", "artifact"}
    assert apart["weights"]["LogisticRegression.x"][0] == shown["weights"]["LogisticRegression.x"]
    assert (apart["parameters"], apart["source"]) == ({}, [])
    decided = run("decisions", "rain")
    once = [kind for kind in TO_VERSION_1 if kind != "TrainingCompleted"]  # told again at twice as many labels
    assert [link["event"] for link in decided if link["event"] != "TrainingCompleted"] == once
    assert run("decisions", "rain", "--last", "2") == decided[-2:]

    (triggers,) = run("triggers", "rain")
    armed = {row["trigger"]: row["armed"] for row in triggers["triggers"]}
    assert (armed["first_model"], armed["performance"], armed["schedule"]) == (False, True, False)
    (fired,) = [row for row in triggers["triggers"] if row["last"]]
    assert (fired["trigger"], triggers["now"]) == ("first_model", ["No training is under way."])

    stack.artifacts.delete(updated.uri)
    assert "rain@1" in run("show", "rain@1")["model"]
    assert updated.uri in run("show", "rain@1")["lost"]
    model = tmp_path / "model.pickle"
    done = run("reproduce", "rain@1", "--restore", "--artifact", str(model))
    assert (done["outcome"], done["restored"]) == ("equal", True)
    assert stack.artifacts.verify(updated.uri).run == updated.run
    assert model.stat().st_size > 100
    assert run("reproduce", "rain@1")["evidence"] == "structural digest"
