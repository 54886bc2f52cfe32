"""`headrace demo` as a newcomer runs it, on genuine Kafka; with fewer rows."""

import json
import os
import subprocess
import sys

import pytest

from headrace.demo.stories import ANOTHER_RULE_AT, BAD_ROWS, FLIPS_AT

ROWS = 4_000


@pytest.fixture
def told(kafka, tmp_path):
    """Runs the demo with these words and gives its report; nothing may go wrong beside."""

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "headrace", "demo", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        assert not [line for line in done.stderr.splitlines() if "Traceback" in line]
        assert (tmp_path / ".headrace" / "demo" / "accuracy.png").stat().st_size > 10_000
        return json.loads(done.stdout)

    return run


@pytest.mark.kafka
def test_the_demo_tells_what_happened(told):
    report = told("--rows", str(ROWS), "--rate", "400")
    assert {reject["id"] for reject in report["rejected"]} == {"day-3595", "day-3596"}
    assert report["rows"] == ROWS
    assert report["predicted"] == report["joined"] == ROWS - 2
    assert report["versions"][0]["version"] == 1
    assert report["verdicts"][0]["stage"] == "offline"
    assert sum(row["rows"] for row in report["scores"]) == ROWS - 2
    assert report["scores"][1]["model"] > report["scores"][1]["rival"]
    assert report["revisions_served"] > 5
    answers = {answer["question"]: answer["rows"] for answer in report["answers"]}
    assert sum(row[1] for row in next(iter(answers.values()))) == ROWS - 2
    assert any("came into force" in line for line in report["why"])


@pytest.mark.kafka
@pytest.mark.slow
def test_where_the_rule_changes_a_challenger_takes_over_and_the_report_shows_what_that_was_worth(told):
    report = told("--story", "flip", "--rows", "7200")  # at its own pace, slow through the change
    champions = [one["version"] for one in report["versions"] if one["alias"] == "champion"]
    assert champions == [1, 2], report["decisions"]
    promoted = next(one["row"] for one in report["decisions"] if one["what"].startswith("champion is version 2"))
    assert promoted > FLIPS_AT
    before = [row for row in report["scores"] if row["from_row"] + row["rows"] <= FLIPS_AT and row["scored"]]
    assert [row["model"] for row in before] == [row["replacing"] for row in before]  # River itself, at this cadence
    since = report["since_the_change"]
    assert since["model"] > since["replacing"] > since["learning"]
    assert any("in its online gate" in line for line in report["why"])


@pytest.mark.kafka
def test_a_bad_hour_is_taken_back_and_the_report_shows_what_that_was_worth(told):
    report = told("--story", "poison", "--rows", "5300")
    assert {reject["code"] for reject in report["rejected"]} == {"float_type_small_float"}
    assert len(report["rejected"]) == len([row for row in BAD_ROWS if row % 30 == 0])
    rows = {one["event"]: one["row"] for one in report["decisions"]}
    assert BAD_ROWS.stop < rows["RollbackAsked"] < rows["ModelUpdated"]
    alarms = [one["row"] for one in report["decisions"] if one["event"] == "DriftDetected"]
    assert any(BAD_ROWS.start <= row <= rows["RollbackAsked"] for row in alarms), report["decisions"]
    assert any("did not learn from a bad range" in one["what"] for one in report["decisions"])
    champions = [one["what"] for one in report["decisions"] if one["what"].startswith("champion is ")]
    assert champions[-1].startswith("champion is version 3")  # the fork; no order holds between topics
    since = report["since_the_change"]
    assert since["model"] > since["replacing"] + 0.02
    assert any("are barred from every later run" in line for line in report["why"])


@pytest.mark.kafka
@pytest.mark.slow
def test_under_another_rule_a_tree_that_begins_anew_takes_over_and_its_errors_are_smaller(told):
    report = told("--story", "regression", "--rows", "8000")
    promoted = next(one["row"] for one in report["decisions"] if one["what"].startswith("champion is version 2"))
    assert promoted > ANOTHER_RULE_AT
    assert report["measure"] == "absolute error"
    since = report["since_the_change"]
    assert since["model"] < since["replacing"] < since["learning"]
