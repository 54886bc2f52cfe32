"""A service as a process says in one line why it does not start, and exits 3 where no restart would help."""

import json
import os
import subprocess
import sys

import pytest

from headrace.infra.store import lock_folder


def begin(folder, **environment):
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.services.joiner"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**theirs, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", **environment},
    )


def end_of(process):
    _, said = process.communicate(timeout=180)
    assert "Traceback" not in said
    return process.returncode, json.loads(said.strip().splitlines()[-1])


def start(tmp_path, **environment):
    return end_of(begin(tmp_path, **environment))


@pytest.fixture(scope="module", autouse=True)
def without_a_broker(tmp_path_factory):
    """A joiner that waits a quarter of a minute for a broker: it begins before the other tests."""
    process = begin(tmp_path_factory.mktemp("joiner"), HEADRACE_ARTIFACT_KEY="k")
    yield process
    process.kill()
    process.communicate()


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


def test_while_it_waits_for_a_broker_it_ends_when_it_is_asked_to(tmp_path):
    process = begin(tmp_path, HEADRACE_ARTIFACT_KEY="k")
    assert next(line for line in process.stderr if "Connection refused" in line)
    process.terminate()
    assert process.wait(60) == 0
    process.communicate()


def test_without_a_broker_it_fails_and_names_the_address(without_a_broker):
    code, last = end_of(without_a_broker)
    assert (code, last["event"]) == (1, "failed")
    assert "127.0.0.1:1" in last["reason"]
