"""The supervisor of a folder is known by more than a number that was noted; no service outlives it unnoticed."""

import os
import signal
import subprocess
import sys

import pytest

from headrace.infra import processes, supervisor
from headrace.infra.local_broker import free_port


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


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere `down` finds them")
def test_no_service_outlives_a_supervisor_that_was_killed(tmp_path, monkeypatch, until):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY", "a key of this test")
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    pid = processes.up(tmp_path, ("sequencer", "recorder"))  # a light one, and one with a parent of its own
    try:
        until(lambda: all(processes.states(tmp_path)[name]["alive"] for name in ("sequencer", "recorder")), 60)
        services = [int(processes.states(tmp_path)[name]["pid"]) for name in ("sequencer", "recorder")]
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        until(lambda: not any(processes.is_alive(one) for one in services), 30)
    finally:
        processes.down(tmp_path)


def test_services_whose_supervisor_is_gone_are_stopped(tmp_path, sleeper):
    left = subprocess.Popen([sys.executable, "-c", "input()", str(tmp_path.resolve())], stdin=subprocess.PIPE)
    processes.write_run_file(tmp_path, "sequencer.supervised", {"pid": left.pid})
    processes.write_run_file(tmp_path, "joiner.supervised", {"pid": sleeper.pid})  # the number is another's by now
    assert processes.down(tmp_path)
    assert left.wait(10) == -signal.SIGTERM
    assert sleeper.poll() is None
    assert not processes.down(tmp_path)
    left.stdin.close()


def test_a_full_disk_ends_no_supervisor_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # those of the test's own process stay
    watches = supervisor.Supervisor(tmp_path, ("sequencer",))
    with monkeypatch.context() as disk:
        disk.setattr(type(tmp_path), "replace", full)
        watches._note()
    assert list((tmp_path / "run").iterdir()) == []
    watches._note()
    assert processes.read_run_file(tmp_path, "sequencer.supervised")["pid"] == 0
