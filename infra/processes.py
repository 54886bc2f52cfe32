"""The processes of a folder: what each noted of itself (`<home>/run`), starting and stopping their supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headrace.services import FOLDS, SERVICES

REFUSED = 3  # a service's exit status
DRAIN = "--drain"  # fold what is there, leave the state cleanly, end: what the next version needs to take it up
STARTING_S = 1.0
STOP_S = 25.0  # a last checkpoint of a million rows takes some seconds; Docker waits 30
WITH_STATE = tuple(s for s in SERVICES if any(f.service == s for f in FOLDS))


def write_run_file(home: Path, name: str, what: dict[str, object]) -> None:
    """Replace `<home>/run/<name>.json` at once; unchanged content is left alone."""
    path = home / "run" / f"{name}.json"
    text = json.dumps(what)
    with contextlib.suppress(OSError):
        if path.read_text() == text:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_run_file(home: Path, name: str) -> dict[str, object] | None:
    """What a process wrote about itself, None where it did not."""
    try:
        found = json.loads((home / "run" / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists that may be asked (another user's is not ours), and is no zombie."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def running_pid(home: Path) -> int:
    """The process id of this folder's supervisor, 0 where none lives; the id that is noted may be another's by now."""
    pid = int(str((read_run_file(home, "supervisor") or {}).get("pid") or 0))
    if pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # where it is this process's child
    return pid if pid and str(home.resolve()) in _command(pid) else 0


def _command(pid: int) -> list[str]:
    """The command line of a process; empty where there is none that we may see."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process, deadline = psutil.Process(pid), time.monotonic() + STARTING_S
        command: list[str] = []
        while not (command := process.cmdline()) and time.monotonic() < deadline:
            time.sleep(0.01)  # one that was started this moment has none yet
        return command
    return []


def is_running(home: Path) -> bool:
    """Whether the supervisor of this folder lives."""
    return running_pid(home) != 0


def up(home: Path, services: tuple[str, ...] = tuple(SERVICES), *, drain: bool = False) -> int:
    """Start the supervisor in a session of its own, unless one runs; return its process id.

    Services that outlived an earlier supervisor are stopped first: they hold the state.
    """
    if running := running_pid(home):
        return running
    down(home)
    (home / "logs").mkdir(parents=True, exist_ok=True)
    for old in (home / "run").glob("*.json") if (home / "run").exists() else ():
        old.unlink()
    with (home / "logs" / "supervisor.log").open("ab") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "headrace.infra.supervisor",
                str(home.resolve()),
                *services,
                *([DRAIN] if drain else []),
            ],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        write_run_file(home, "supervisor", {"pid": process.pid})
    except OSError:
        process.terminate()  # nobody would know of it
        raise
    return process.pid


def down(home: Path, limit_s: float = STOP_S + 5) -> bool:
    """Stop the supervisor and with it every service; False where none ran. Raises TimeoutError past the limit.

    Where the supervisor was killed, the services that outlived it are stopped.
    """
    supervisor = running_pid(home)
    asked = [supervisor] if supervisor else _left_over(home)
    for pid in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while alive := [pid for pid in asked if is_alive(pid)]:
        for pid in alive:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            who = f"the supervisor (process {supervisor})" if supervisor else f"processes {alive}"
            raise TimeoutError(f"{who} did not stop within {limit_s:g} s; see {home}/logs")
        time.sleep(0.05)
    if asked:
        (home / "run" / "supervisor.json").unlink(missing_ok=True)
    return bool(asked)


def _left_over(home: Path) -> list[int]:
    """Services of this folder that run though their supervisor does not."""
    pids = {name: int(str(state.get("pid") or 0)) for name, state in states(home).items() if state["alive"]}
    return [
        pid
        for name, pid in pids.items()
        if not {str(home.resolve()), f"headrace.services.{name}"}.isdisjoint(_command(pid))
    ]


def states(home: Path) -> dict[str, dict[str, object]]:
    """What is known of each service: pid, health address, restarts, refused, alive."""
    found = {}
    for name in SERVICES:
        own, supervised = read_run_file(home, name) or {}, read_run_file(home, f"{name}.supervised") or {}
        pid = int(str(supervised.get("pid") or 0))
        ready = bool(pid) and own.get("pid") == pid
        found[name] = {**own, **supervised, "alive": bool(pid) and is_alive(pid), "ready": ready}
    return found


def wait_ready(home: Path, services: tuple[str, ...], limit_s: float = 60.0) -> list[str]:
    """Wait until every service says it is ready; return those that did not within the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        now = states(home)
        missing = [name for name in services if not (now[name]["ready"] and now[name]["alive"])]
        if not missing or time.monotonic() > deadline or any(now[name].get("refused") for name in missing):
            return missing
        time.sleep(0.05)
