"""The story behind a model, a run, a request, a verdict or an answer, as it really happened on the in-process log."""

import re

import pytest

from headrace.errors import InvalidInput, Missing
from headrace.schemas.control import PromotionAsked, RunEnded, TrainingAsked, TrainingFailed
from headrace.schemas.stream import ExampleLabelled, PredictionMade
from headrace.why import chain, words

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


@pytest.fixture
def rain(history):
    """Version 1 at 40 labels, 120 learned, and a training that was refused."""
    rain = history().live(120)
    rain.system.ask(TrainingAsked(pipeline="rain", request="t1", by="ann", reason="new sensor"))
    return rain


def story(history, what):
    """As the command reads it: all decisions and snapshots, and the one event of another topic that is asked about."""
    records = history.system.records
    asked = chain.data_place(what)
    beside = [record for record in records(*asked[:2]) if record.offset == asked[3]] if asked else []
    return chain.story(chain.Log.of(records("control-log"), [*records("<p>.snapshots", "rain"), *beside]), what)


def names(links):
    return [type(link.event).__name__ for link in links]


def test_a_version_follows_from_who_asked_what_was_learned_and_the_numbers_that_decided(rain):
    links = story(rain, "rain@1")
    assert names(links) == TO_VERSION_1
    told = words.lines(links)
    run = links[-1].event.run
    assert told[0].endswith("[control-log/0/0, first operator-requests/0/0]")
    assert told[0].startswith("2026-03-01 00:00:00.000  ann asked to release rain (request release-rain-0, source ")
    assert f"Run {run} had learned 40 labelled examples, offsets 0 to 41" in told[4]
    assert f"Run {run} passed in its offline gate at 40 labels, offset 41, on 4 checks." in told[5]
    assert "    accuracy: pass, 1 against 0.6 over 20 rows; rule: policy Success" in told
    assert f"Version 1 (run {run}, snapshot at offset 41) became champion" in told[-1]
    assert words.commands(links)[0] == "headrace reproduce rain@1"


def test_all_names_of_the_champion_tell_its_story(rain):
    links = story(rain, "rain@1")
    for what in ("rain", "rain@champion", links[-1].place, links[-1].origin, "model-updates/0/0"):
        assert story(rain, what) == links
    newest = rain.roots("rain").offset
    assert names(story(rain, f"rain@1@{newest}")) == [*TO_VERSION_1, "SnapshotTaken"]


def test_a_run_is_told_to_its_end_and_what_it_could_not_learn_with_it(history):
    poison = 'class Poisoned(linear_model.LogisticRegression):\n    def learn_one(self, x, y):\n        1 / x["x"]\n'
    recipe = "Poisoned()"
    rain = history(recipe=recipe, helper=poison).live(5, x=lambda n: 0.0 if n == 3 else 1.0)
    run = next(r.event.run for r in rain.system.records("training-runs") if isinstance(r.event, TrainingFailed))
    assert names(story(rain, run)) == [*TO_VERSION_1[:4], "TrainingFailed"]
    told = words.lines(story(rain, run))
    assert f"Run {run} could not learn offset 4, twice, and left it out: ZeroDivisionError" in told[-1]
    rain.system.ask(TrainingAsked(pipeline="rain", request="t1", by="ann", seed=7))
    ended = story(rain, run)
    assert isinstance(ended[-1].event, RunEnded)
    assert {"TrainingAsked", "ChallengerSuperseded"} <= set(names(ended))


def test_a_request_that_was_refused_is_told_with_the_reason(rain):
    told = words.lines(story(rain, "t1"))
    assert len(told) == 2
    assert "ann asked to train rain: new sensor (request t1)." in told[0]
    assert "Request t1 (TrainingAsked) was refused: run r" in told[1]
    rain.system.ask(PromotionAsked(pipeline="rain", request="p1", by="bob", version=1))
    assert "version 1 is the champion already" in words.lines(story(rain, "p1"))[-1]


def test_a_verdict_that_failed_says_which_checks_and_by_how_much(history):
    rain = history().live(60, x=lambda n: 0.0)
    links = story(rain, "rain")
    assert story(rain, f"{links[-1].event.run}/offline") == links
    told = words.lines(links)
    assert re.search(r"failed in its offline gate at 40 labels, offset 41, on 4 checks; not passed: 0/1", told[5])
    assert any(re.match(r"    0/1 loss below majority: fail, 0\.\d+ against 0\.\d+ over 20", line) for line in told)


def test_an_answer_follows_from_the_alias_of_its_epoch_and_the_snapshot_that_gave_it(rain):
    made = [r for r in rain.system.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
    links = story(rain, f"rain.predictions/0/{made[-1].offset}")
    assert names(links) == [*TO_VERSION_1, "SnapshotTaken", "PredictionMade"]
    (arm,) = made[-1].event.predictions.values()
    assert links[-2].event.offset == arm.learned_to
    assert "the answer of champion was served (epoch 1, release 1)" in words.lines(links)[-1]
    cold = words.lines(story(rain, f"rain.predictions/0/{made[0].offset}"))
    assert len(cold) == 1
    assert "Example d0 was answered by no model: none served yet. It came in as data-arrived/0/" in cold[0]
    labelled = [r for r in rain.system.records("<p>.labelled-examples", "rain") if isinstance(r.event, ExampleLabelled)]
    links = story(rain, f"rain.labelled-examples/0/{labelled[-1].offset}")
    assert names(links)[-2:] == ["SnapshotTaken", "ExampleLabelled"]
    assert re.search(r"Its label is (True|False), known 0 s later", words.lines(links)[-1])


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("rain@2", Missing, "rain has no version 2"),
        ("rain@1@3", Missing, "no snapshot of rain@1 was taken at offset 3"),
        ("control-log/0/999", Missing, "no event that decides stands at control-log/0/999"),
        ("nothing", InvalidInput, "nothing in the log is named 'nothing'; ask about a model"),
        ("r1/offline", InvalidInput, "nothing in the log is named 'r1/offline'; ask about a model"),
    ],
)
def test_what_is_not_there_is_said(rain, what, error, says):
    with pytest.raises(error, match=re.escape(says)):
        story(rain, what)
