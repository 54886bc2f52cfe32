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
    temporary.write_text(text)
    temporary.replace(path)


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
    import psutil

    pid = int(str((read_run_file(home, "supervisor") or {}).get("pid") or 0))
    if not pid:
        return 0
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # where it is this process's child
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process, deadline = psutil.Process(pid), time.monotonic() + STARTING_S
        while not (command := process.cmdline()) and time.monotonic() < deadline:
            time.sleep(0.01)  # one that was started this moment has none yet
        return pid if str(home.resolve()) in command else 0
    return 0


def is_running(home: Path) -> bool:
    """Whether the supervisor of this folder lives."""
    return running_pid(home) != 0


def up(home: Path, services: tuple[str, ...] = tuple(SERVICES), *, drain: bool = False) -> int:
    """Start the supervisor in a session of its own, unless one runs; return its process id."""
    if running := running_pid(home):
        return running
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
    write_run_file(home, "supervisor", {"pid": process.pid})
    return process.pid


def down(home: Path, limit_s: float = STOP_S + 5) -> bool:
    """Stop the supervisor and with it every service; False where none ran. Raises TimeoutError past the limit."""
    pid = running_pid(home)
    if not pid:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while is_alive(pid):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the supervisor (process {pid}) did not stop within {limit_s:g} s; see its log")
        time.sleep(0.05)
    (home / "run" / "supervisor.json").unlink(missing_ok=True)
    return True


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
