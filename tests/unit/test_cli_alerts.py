"""What is listed as an alert, and which inputs are named beside a loss that rose."""

import pytest
from msgspec.structs import replace

from headrace.cli import alerts
from headrace.schemas.control import DriftDetected, PipelineDegraded, RequestRefused, SchemaSkewed
from headrace.schemas.record import Record
from headrace.why import chain


def input_alert(since_ms, **changes):
    """Inputs drifted."""
    told = {"kind": "input", "level": "warning", "features": ("x",), "since_ms": since_ms, "run": "r"}
    return DriftDetected(pipeline="rain", since=3, detector="d", evidence={}, **told | changes)


@pytest.mark.parametrize(
    ("inputs", "told_ms", "is_beside"),
    [
        (input_alert(100), 500, True),
        (input_alert(100), 299, False),  # over before the loss rose
        (input_alert(600), 900, True),  # told later, of the same time
        (input_alert(601), 900, False),
        (input_alert(None), 500, True),
        (input_alert(100, run="other"), 500, False),
        (input_alert(100, kind="prediction"), 500, False),
    ],
)
def test_inputs_that_drifted_while_the_loss_rose_are_named_beside_it(inputs, told_ms, is_beside):
    rose = input_alert(300, kind="performance", level="drift", features=())
    records = [
        Record(inputs, told_ms, "drift-alerts", "", 0, 0), Record(rose, 600, "drift-alerts", "", 0, 1),
    ]  # fmt: skip
    other, performance = alerts.listed(records)
    assert performance.get("beside", []) == (["drift-alerts/0/0"] if is_beside else [])
    assert ("in the same time inputs drifted: x (drift-alerts/0/0)" in performance["says"]) == is_beside
    assert "beside" not in other
    story = chain.story(chain.Log.of(replace(one, topic="control-log") for one in records), "rain/performance")
    assert len(story) == (2 if is_beside else 1)


def test_states_are_listed_among_the_alerts_and_other_decisions_are_not():
    degraded = {"pipeline": "rain", "reason": "loss 0.2 -> 0.4", "numbers": {"run": "r"}}
    events = [
        input_alert(100),
        PipelineDegraded(**degraded),
        RequestRefused(pipeline="rain", request="q", kind="TrainingAsked", reason="a twin"),
        SchemaSkewed(pipeline="rain", reason="9 of 60 records were rejected"),
        PipelineDegraded(**degraded | {"reason": "the loss came back"}, over=True),
    ]
    told = alerts.listed(Record(one, 1_000, "decisions", "", 0, at) for at, one in enumerate(events))
    assert [(one["place"], one["kind"], one["level"], one["says"]) for one in told[1:]] == [
        ("decisions/0/1", "degraded", "state", "loss 0.2 -> 0.4"),
        ("decisions/0/3", "skewed", "state", "9 of 60 records were rejected"),
        ("decisions/0/4", "degraded", "over", "no longer degraded: the loss came back"),
    ]
    assert told[1]["numbers"] == {"run": "r"}
