"""Every decision made again from `control-log` is the one that stands; the first that is not is named."""

import json

import pytest

from headrace.cli.reproducing import told_decisions
from headrace.reproduce.decisions import replay
from headrace.schemas.control import PromotionAsked, RetireAsked, TrainingAsked


def again(history):
    return replay("rain", history.bus, history.artifacts, history.system.key)


def folded(replayed, fold):
    return next(one for one in replayed.folds if one.fold == fold)


@pytest.fixture
def rain(history):
    """Version 1, and requests that were refused."""
    rain = history().live(120)
    rain.system.ask(TrainingAsked(pipeline="rain", request="t1", by="ann"))
    rain.system.ask(PromotionAsked(pipeline="rain", request="p1", by="ann", version=3))
    return rain


def altered(history, topic, number, **fields):
    """Change a decision where it stands."""
    message = history.bus.read((topic, 0), number, 1)[0]
    message._value = json.dumps(json.loads(message.value()) | fields).encode()


def test_every_decision_is_made_again_with_its_numbers(rain):
    rain.system.ask(RetireAsked(pipeline="rain", request="r1", by="ann"))
    replayed = again(rain)
    assert replayed.is_equal
    assert folded(replayed, "registry-core").equal == {"pipelines": 2, "model-updates": 1, "decisions": 1}
    assert folded(replayed, "orchestrator-core").equal == {"training-requests": 1, "decisions": 1}
    assert folded(replayed, "trainer-control").equal == {"training-runs": 2}
    assert [(gate.offset, gate.verdict, gate.outcome) for gate in replayed.gates] == [(41, "pass", "equal")]


def test_a_forced_verdict_and_one_that_failed_are_made_again(history):
    replayed = again(history(more='gates=Gates(first="off"), ').live(60))
    assert replayed.is_equal
    assert folded(replayed, "evaluator-offline").equal == {"model-validations": 1}
    assert replayed.gates == []


def test_a_model_that_failed_its_gate_fails_again(history):
    replayed = again(history().live(100, x=lambda n: 0.0))
    assert replayed.is_equal
    assert [gate.verdict for gate in replayed.gates] == ["fail", "fail"]


@pytest.mark.parametrize(
    ("topic", "fold", "fields"),
    [
        ("model-updates", "registry-core", {"version": 2}),
        ("training-requests", "orchestrator-core", {"seed": 9}),
        ("decisions", "orchestrator-core", {"reason": "because"}),
        ("training-runs", "trainer-control", {"start_offset": 1}),
    ],
)
def test_a_decision_that_does_not_follow_from_the_log_is_named_with_its_cause(rain, topic, fold, fields):
    altered(rain, topic, 0, **fields)
    replayed = again(rain)
    assert not replayed.is_equal
    first = folded(replayed, fold).first_difference
    ((name, value),) = fields.items()
    assert (first["topic"], first["stands"][name]) == (topic, value)
    assert first["made_again"][name] != value
    assert first["cause"].startswith("control-log/0/")
    told = told_decisions(replayed)
    assert any(f"{topic}" in line and str(value) in line for line in told)


def test_a_decision_that_nobody_wrote_yet_and_one_that_nothing_caused_are_told_apart(rain):
    missing = rain.bus._topics.log(("model-updates", 0)).records.pop()
    first = folded(again(rain), "registry-core").first_difference
    assert (first["stands"], first["made_again"]["version"]) == (None, 1)
    headers = [*missing.headers()[:4], ("ce_sequence", b"1")]
    rain.bus.append("model-updates", 0, b"rain", missing.value(), headers, 0)
    first = folded(again(rain), "registry-core").first_difference
    assert (first["made_again"], first["stands"]["version"]) == (None, 1)
    assert any("nothing in control-log causes it" in line for line in told_decisions(again(rain)))


def test_what_a_fold_tells_in_a_later_incarnation_is_compared_too(rain):
    message = rain.bus.read(("model-updates", 0), 0, 1)[0]
    written_by, _, partition = dict(message.headers())["ce_source"].rpartition(b"/")
    later = [
        (name, b"%b.6a1b2c3d/%b" % (written_by, partition) if name == "ce_source" else value)
        for name, value in message.headers()
    ]
    message._headers = later
    assert folded(again(rain), "registry-core").equal["model-updates"] == 1


def test_a_verdict_whose_examples_changed_is_another_one(rain):
    for message in rain.bus.read(("rain.labelled-examples", 0), 0, 38):
        event = json.loads(message.value())
        if "label" in event:
            message._value = json.dumps(event | {"label": False}).encode()
    (gate,) = again(rain).gates
    assert gate.outcome == "different"
    assert "verdict" in gate.why


def test_a_verdict_whose_examples_are_gone_is_said_to_be_left_out(rain):
    rain.bus.delete_records(("rain.labelled-examples", 0), 10)
    replayed = again(rain)
    (gate,) = replayed.gates
    assert (gate.outcome, replayed.is_equal) == ("skipped", True)
    assert "holds offsets 10 to" in gate.why
