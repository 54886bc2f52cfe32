"""The supervisor of a folder is known by more than a number that was noted."""

import subprocess
import sys

import pytest

from headrace.infra import processes


@pytest.fixture
def sleeper():
    """A process that is no supervisor."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n", timeout=10)


def test_a_noted_id_that_is_another_process_by_now_is_no_supervisor_and_is_not_stopped(tmp_path, sleeper):
    processes.write_run_file(tmp_path, "supervisor", {"pid": sleeper.pid})
    assert not processes.is_running(tmp_path)
    assert processes.down(tmp_path) is False
    assert sleeper.poll() is None


def test_nothing_noted_or_nobody_there_is_no_supervisor(tmp_path):
    assert processes.running_pid(tmp_path) == 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(10)
    processes.write_run_file(tmp_path, "supervisor", {"pid": gone.pid})
    assert processes.running_pid(tmp_path) == 0
