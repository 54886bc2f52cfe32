"""`headrace demo` as a newcomer runs it, on genuine Kafka; fewer rows than theirs."""

import json
import os
import subprocess
import sys

import pytest

ROWS = 4_000


@pytest.mark.kafka
def test_the_demo_tells_what_happened(kafka, tmp_path):
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka}
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "demo", "--rows", str(ROWS), "--rate", "400", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    report = json.loads(done.stdout)
    assert {reject["id"] for reject in report["rejected"]} == {"day-3595", "day-3596"}
    assert report["rows"] == ROWS
    assert report["predicted"] == report["joined"] == ROWS - 2
    assert [version["version"] for version in report["versions"]] == [1]
    assert report["verdicts"][-1]["verdict"] == "pass"
    assert sum(row["rows"] for row in report["accuracy"]) == ROWS - 2
    assert report["accuracy"][1]["model"] > report["accuracy"][1]["majority"]
    assert report["revisions_served"] > 5
    served = {answer["question"]: answer["rows"] for answer in report["answers"]}
    counts = next(iter(served.values()))
    assert sum(row[1] for row in counts) == ROWS - 2
    assert (tmp_path / ".headrace" / "demo" / "accuracy.png").stat().st_size > 10_000
    assert not [line for line in done.stderr.splitlines() if "Traceback" in line]
