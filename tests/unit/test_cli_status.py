"""The champion's scores in `status`: given these metrics, then those numbers."""

from headrace.cli import facts
from headrace.cli.status_view import show_pipeline
from headrace.schemas.control import MetricsUpdated


def told(scope, n, slice=None, run="a", alias="champion"):
    return MetricsUpdated(
        pipeline="rain", alias=alias, version=1, run=run, scope=scope, n=n, coverage=None,
        metrics={"accuracy": 0.5, "auc": None}, slice=slice,
    )  # fmt: skip


def test_the_newest_window_of_all_rows_and_the_newest_sums_of_each_slice():
    found = facts.scores([
        told("windowed", 10), told("windowed", 20), told("cumulative", 99), told("windowed", 7, "hour=3"),
        told("cumulative", 5, "hour=3"), told("cumulative", 8, "hour=3"), told("cumulative", 2, "hour=1"),
        told("windowed", 1, alias="challenger"),
    ])  # fmt: skip
    assert found["scores"]["n"] == 20
    assert {name: one["n"] for name, one in found["slices"].items()} == {"hour=1": 2, "hour=3": 8}


def test_slices_of_a_run_that_no_longer_serves_are_left_out():
    found = facts.scores([told("cumulative", 5, "hour=3"), told("windowed", 10, run="b")])
    assert (found["scores"]["n"], found["slices"]) == (10, {})


def test_slices_are_shown_as_a_table(capsys):
    metrics = facts.scores([told("windowed", 20), told("cumulative", 1_234, "station=Cairns")])
    show_pipeline(
        {
            "pipeline": "rain", "release": 1, "retired": False, "partitions": 1, "file": "no file here",
            "verdict": None, "refused": None, "labels": 3, **metrics,
            "champion": {"version": 1, "revision": "1@3", "reason": "first"},
        }
    )  # fmt: skip
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "station=Cairns" in line]
    assert row.split() == ["station=Cairns", "1,234", "0.5000", "-"]
