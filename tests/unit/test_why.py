"""Chains of causes over hand-written histories; every event that decides has a sentence of its own."""

import re
from pathlib import Path

import pytest

from headrace.errors import Missing
from headrace.schemas.codec import ORIGIN, TYPE_OF, decode, headers_of
from headrace.schemas.control import (
    ChallengerSuperseded,
    Check,
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    PipelineDegraded,
    RunEnded,
    RunStarted,
    TrainingCompleted,
    TrainingRequested,
)
from headrace.schemas.record import Record
from headrace.schemas.topics import control_log_events
from headrace.why import chain, words
from headrace.why.sentences import pairs, sentence

EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"
ID = "0123456789abcdef" * 2


def history(*events):
    """`control-log` with these events; each is (event, place first written, place of its cause)."""
    return chain.Log.of(
        Record(
            event,
            1_000 * (len(events) - offset),  # known times fall: a run may be told what has long been known
            "control-log",
            "",
            0,
            offset,
            headers=[
                *headers_of(TYPE_OF[type(event)], "/test", offset),
                ("ce_correlationid", ""),
                ("ce_causationid", cause),
                (ORIGIN, origin),
            ],
        )
        for offset, (event, origin, cause) in enumerate(events)
    )


def place(topic, offset):
    return f"{topic}/{ID}/0/{offset}"


def run(name, request):
    return RunStarted(pipeline="rain", run=name, request=request, release=1, seed=0, start_offset=0)


def verdict(name, stage, offset, result="pass"):
    checks = (Check(name="log loss", verdict=result, value=0.31, limit=0.35, n=2_000),)
    return ModelValidated(
        pipeline="rain",
        run=name,
        request="q",
        stage=stage,
        verdict=result,
        checks=checks,
        n_labels=2_000,
        offset=offset,
    )


def requested(request, trigger, cause):
    return TrainingRequested(
        pipeline="rain", request=request, trigger=trigger, cause=cause, release=1, seed=0, start=500
    )


DRIFT = DriftDetected(
    pipeline="rain",
    kind="performance",
    level="drift",
    since=480,
    detector="ADWIN",
    evidence={"before": 0.2, "after": 0.4},
)
STORY = history(
    (run("other", "o"), place("training-runs", 0), ""),
    (DRIFT, place("drift-alerts", 0), "rain.labelled-examples/0/520"),
    (requested("q", "performance", "log loss rose"), place("training-requests", 0), place("drift-alerts", 0)),
    (
        ChallengerSuperseded(
            pipeline="rain", run="other", by_request="q", reason="a later change", numbers={"since": 480}
        ),
        place("decisions", 0),
        place("drift-alerts", 0),
    ),
    (RunEnded(pipeline="rain", run="other", reason="a later change"), place("training-runs", 1), place("decisions", 0)),
    (run("r", "q"), place("training-runs", 2), place("training-requests", 0)),
    (
        TrainingCompleted(
            pipeline="rain", run="r", request="q", release=1, n_labels=2_000, start_offset=0, end_offset=2_500
        ),
        place("training-completed", 0),
        "rain.labelled-examples/0/2499",
    ),
    (verdict("r", "offline", 2_500), place("model-validations", 0), place("training-completed", 0)),
    (verdict("other", "offline", 2_500), place("model-validations", 1), ""),
    (verdict("r", "online", 2_600), place("model-validations", 2), "rain.labelled-examples/0/2600"),
    (
        ModelUpdated(
            pipeline="rain",
            alias="champion",
            version=2,
            run="r",
            release=1,
            snapshot_offset=2_500,
            uri="model/x",
            follows=True,
            epoch=3,
            reason="log loss -4.1 % over 2,000 paired labels",
            previous_version=1,
        ),
        place("model-updates", 0),
        place("model-validations", 2),
    ),
)


def places(what):
    return [link.record.offset for link in chain.story(STORY, what)]


def test_a_promotion_leads_back_to_the_drift_and_leaves_out_what_it_does_not_follow_from():
    assert places("rain@2") == [1, 2, 5, 6, 7, 9, 10]


def test_the_order_is_that_of_the_log_whatever_the_known_times_say():
    told = words.lines(chain.story(STORY, "rain@champion"))
    assert "The monitor told a drift of performance: ADWIN: before 0.2, after 0.4, since offset 480." in told[0]
    assert told[1] == "    measured: before 0.2, after 0.4"
    assert "A training of rain was requested for worse performance: log loss rose" in told[2]
    assert "Version 2 (run r, snapshot at offset 2,500) became champion instead of version 1" in told[-1]
    assert "    log loss: pass, 0.31 against 0.35 over 2,000 rows" in told


def test_a_check_says_how_often_it_was_looked_at_and_where_its_rule_is_from():
    one = Check(name="evidence", verdict="pass", value=25.0, limit=20.0, n=231, source="bets on a mean", looks=32)
    assert words.check(one) == ("evidence: pass, 25 against 20 over 231 rows, looked at 32 times; rule: bets on a mean")


def test_a_run_that_gave_way_leads_to_the_request_that_took_its_place():
    assert places("other") == [0, 1, 3, 4, 8]


def alert(kind="performance", since=480, **more):
    return DriftDetected(
        pipeline="rain", kind=kind, level="drift", since=since, detector="d", evidence={}, run="r", version=1, epoch=2,
        topic="<p>.labelled-examples", partition=0, offset=520, **more,
    )  # fmt: skip


def served(run, version, epoch):
    return ModelUpdated(
        pipeline="rain", alias="champion", version=version, run=run, release=1, snapshot_offset=9, uri="model/x",
        follows=True, epoch=epoch, reason="first",
    )  # fmt: skip


def test_an_alert_leads_to_the_champion_it_was_told_of_and_to_what_was_told_of_the_same_change_before():
    log = history(
        (run("r", "q"), place("training-runs", 0), ""),
        (run("s", "p"), place("training-runs", 1), ""),
        (served("r", 1, 2), place("model-updates", 0), ""),
        (alert("input", 100, features=("x",)), place("drift-alerts", 0), ""),
        (alert(), place("drift-alerts", 1), ""),
        (alert(since=900), place("drift-alerts", 2), ""),
        (alert(), place("drift-alerts", 3), ""),
        (served("s", 2, 5), place("model-updates", 1), ""),
        (requested("t", "performance", "it rose"), place("training-requests", 0), place("drift-alerts", 3)),
    )

    def offsets(what):
        return [link.record.offset for link in chain.story(log, what)]

    assert offsets("rain/performance") == offsets("drift-alerts/0/3") == [0, 2, 4, 6]
    assert offsets("rain/input") == [0, 2, 3]
    assert offsets("t") == [4, 6, 8]  # a cause among causes: without the story of the champion before
    with pytest.raises(Missing, match="no labels alert"):
        chain.story(log, "rain/labels")
    assert words.commands(chain.story(log, "rain/input"))[:2] == [
        "headrace alerts rain --kind input",
        "headrace why rain.labelled-examples/0/520",
    ]


def test_places_are_found_with_the_id_of_their_topic_and_without():
    assert places("drift-alerts/0/0") == places(place("drift-alerts", 0)) == places("control-log/0/1") == [1]


def test_programs_get_every_number_and_the_threads_that_lead_back():
    told = words.as_data(chain.story(STORY, "control-log/0/2")[-1])
    assert (told["place"], told["first_written"], told["cause"]) == (
        "control-log/0/2",
        "training-requests/0/0",
        "drift-alerts/0/0",
    )
    assert told["time"] == "1970-01-01 00:00:09.000"
    assert told["body"].start == 500


OF_A_ROW = {"ExampleArrived", "LabelArrived", "RecordRejected", "PredictionMade", "ExampleLabelled"}


@pytest.mark.parametrize("name", sorted(set(control_log_events()) - {"Tick"} | OF_A_ROW))
def test_every_event_that_decides_or_became_of_a_row_has_a_sentence_of_its_own(name):
    for path in sorted((EXAMPLES / name).rglob("*.json")):
        event = decode(f"headrace.{name}.v1", path.read_bytes())
        told = sentence(event)
        assert re.fullmatch(r"[^\n]+\.", told), told
        assert not told.startswith(name), told
        assert "None" not in told, told


def test_a_record_that_only_its_producer_could_read_is_said_to_be_one():
    assert sentence(None) == "A record as its producer wrote it: the validator says what it is."


def test_numbers_beside_a_sentence_are_rounded():
    assert pairs({"loss": 0.07001321003963012, "n": 2272, "none": None}) == "loss 0.0700132, n 2272"


def test_a_training_that_was_tried_again_leads_to_what_was_told_and_to_the_alert():
    rose = DriftDetected(
        pipeline="rain", kind="performance", level="drift", since=7, detector="ADWIN", evidence={}, run="a",
        degraded=True,
    )  # fmt: skip
    again = TrainingRequested(
        pipeline="rain", request="performance-a-7-again-1", trigger="performance", cause="degraded for 1 days, try 1",
        release=1, seed=0, start=7,
    )  # fmt: skip
    other = rose.model_copy(update={"run": "b"})
    degraded = PipelineDegraded(pipeline="rain", reason="loss", numbers={"run": "a"})
    tick = place("ticks", 5)  # what caused the request, and decides nothing by itself
    log = history((rose, "", ""), (other, "", ""), (degraded, "", tick), (again, "", tick))
    assert [link.record.offset for link in chain.story(log, again.request)] == [0, 2, 3]
    assert [link.record.offset for link in chain.story(log, "rain/degraded")] == [0, 2]
    with pytest.raises(Missing, match="rain was never told to be skewed"):
        chain.story(log, "rain/skewed")
