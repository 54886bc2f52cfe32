"""A service as a process says in one line why it does not start, and exits 3 where no restart would help."""

import json
import os
import subprocess
import sys

import pytest

from headrace.infra.store import lock_folder


def start(tmp_path, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "headrace.services.joiner"],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=tmp_path,
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", **environment},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stderr.strip().splitlines()[-1])


def test_a_missing_key_is_refused(tmp_path):
    code, last = start(tmp_path)
    assert (code, last["event"]) == (3, "refused")
    assert "HEADRACE_ARTIFACT_KEY" in last["reason"]


def test_an_unknown_setting_is_refused_with_the_nearest_known_one(tmp_path):
    code, last = start(tmp_path, HEADRACE_ARTIFACT_KEY="k", HEADRACE_LINGER="1")
    assert code == 3
    assert "HEADRACE_LINGER_MS" in last["reason"]


@pytest.mark.kafka
def test_two_owners_of_one_state_folder_are_refused(tmp_path, kafka):
    folder = tmp_path / ".headrace" / "state" / "here" / "joiner"
    folder.mkdir(parents=True)
    lock = lock_folder(folder)
    try:
        code, last = start(tmp_path, HEADRACE_ARTIFACT_KEY="k", HEADRACE_INSTANCE="here", KAFKA_BOOTSTRAP_SERVERS=kafka)
        assert code == 3
        assert str(os.getpid()) in last["reason"]
    finally:
        lock.release()


def test_without_a_broker_it_fails_and_names_the_address(tmp_path):
    code, last = start(tmp_path, HEADRACE_ARTIFACT_KEY="k")
    assert (code, last["event"]) == (1, "failed")
    assert "127.0.0.1:1" in last["reason"]
