"""`headrace up`: every service as a supervised process, restarted with a growing pause.

On Linux light services are forked from a parent that never imports River, those with a model from a second one
that did, the recorder and the scheduler from a third one that imported what each alone needs (DuckDB, Faust; both in
one, as a parent costs 20 to 30 MB of its own): the imported code is shared memory, and a restart takes no import time.
Kafka clients, LMDB and DuckDB open after the fork (one made before it is dead in the child, without an error). Who is
forked is asked to stop when its parent ends, also by a kill.
Elsewhere each service is a fresh interpreter.
Exit status 3 of a service is a refusal, which no restart cures: it stays down and `headrace status` shows why.
With `--drain` each service folds what is there and ends; when all have, so does the supervisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from headrace.infra.processes import DRAIN, REFUSED, STOP_S, write_run_file
from headrace.services import FOLDS, SERVICES

FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.05, 15.0, 5.0
LOOK_S = 5.0
PR_SET_PDEATHSIG = 1  # of Linux's prctl
AWAITED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)  # blocked on Linux, so that none is missed between two waits
WITH_RIVER = tuple(s for s in SERVICES if any(f.service == s and f.needs_river for f in FOLDS))
GROUPS = {"with-river": WITH_RIVER, "with-libraries": ("recorder", "scheduler")}  # each has a parent
RIVER = ("compose", "drift", "linear_model", "metrics", "naive_bayes", "preprocessing", "tree")


@dataclass
class Child:
    """One supervised process: when it started, how often it was restarted, when to start it again."""

    name: str
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    exit_code: int | None = None
    pause_s: float = FIRST_PAUSE_S
    due: float = 0.0
    refused: bool = False
    done: bool = False


class Supervisor:
    """Keeps children alive until SIGTERM, then stops them in order and waits."""

    def __init__(self, home: Path, names: tuple[str, ...], spawn: dict[str, tuple[str, ...]] | None = None) -> None:
        self._home = home
        self._children = {name: Child(name) for name in names}
        self._groups = spawn or {}
        self._noted: dict[str, dict[str, object]] = {}
        self._stopping = False
        self._drains = DRAIN in sys.argv[1:]
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def start_groups(self) -> None:
        """Start the parents that fork services of their own."""
        for name in self._groups:
            child = self._children[name]
            child.pid, child.started = self._start(name), time.monotonic()

    def run(self) -> None:
        """Start everything and supervise until asked to stop."""
        while not self._stopping and not all(child.done for child in self._children.values()):
            now = time.monotonic()
            for child in self._children.values():
                if not child.pid and not child.refused and not child.done and now >= child.due:
                    child.pid, child.started = self._start(child.name), now
            self._note()
            self._reap(self._wait_s())
        self._note()
        self._end()

    def _wait_s(self) -> float:
        """Until the next start is due; LOOK_S at most."""
        due = [child.due for child in self._children.values() if not (child.pid or child.refused or child.done)]
        return max(0.0, min([due_at - time.monotonic() for due_at in due] + [LOOK_S]))

    def _start(self, name: str) -> int:
        if name in self._groups:
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                _end_with(parent)
                _as_group(self._home, name, self._groups[name])
            return pid
        return start_service(self._home, name)

    def _reap(self, wait_s: float) -> None:
        """Note the children that ended; where none has, wait for the first one so long."""
        if not self._collect() and wait_s > 0:
            if hasattr(signal, "sigtimedwait"):
                found = signal.sigtimedwait(AWAITED, wait_s)
                self._stopping |= found is not None and found.si_signo != signal.SIGCHLD
            else:
                time.sleep(0.1)
            self._collect()

    def _collect(self) -> bool:
        """Note every child that ended; whether there was one."""
        found = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._gone(ended[0], os.waitstatus_to_exitcode(ended[1]))
                found = True
        return found

    def _gone(self, pid: int, code: int) -> None:
        for child in self._children.values():
            if child.pid == pid:
                now = time.monotonic()
                if now - child.started > STEADY_S:
                    child.pause_s = FIRST_PAUSE_S
                child.pid, child.due = 0, now + child.pause_s
                child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)
                child.refused = code == REFUSED
                child.done = self._drains and code in (0, REFUSED)
                child.restarts += 1
                child.exit_code = code

    def _note(self) -> None:
        for child in self._children.values():
            what: dict[str, object] = {
                "pid": child.pid,
                "restarts": child.restarts,
                "refused": child.refused,
                "exit_code": child.exit_code,
            }
            if child.name in SERVICES and self._noted.get(child.name) != what:
                with contextlib.suppress(OSError):  # a full disk: noted at a later turn
                    write_run_file(self._home, f"{child.name}.supervised", what)
                    self._noted[child.name] = what

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _end(self) -> None:
        for child in self._children.values():
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for child in self._children.values():
            while child.pid and time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    pid, status = os.waitpid(child.pid, os.WNOHANG)
                    if pid == 0:
                        time.sleep(0.02)
                        continue
                    child.exit_code = os.waitstatus_to_exitcode(status)
                child.pid = 0
            if child.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                child.exit_code = -signal.SIGKILL
        self._note()


def start_service(home: Path, name: str) -> int:
    """Start one service and return its process id; its output goes to `<home>/logs/<service>.log`."""
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", f"headrace.services.{name}", *_drain_too()],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            ).pid
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    code = 1
    try:
        _end_with(parent)
        _redirect(log)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        importlib.import_module(f"headrace.services.{name}.__main__").main()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """Have this process be asked to stop when its parent ends, however that does: a killed one stops nobody."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that was asked for
        os.kill(os.getpid(), signal.SIGTERM)


def _as_group(home: Path, name: str, members: tuple[str, ...]) -> None:
    """The body of a parent with libraries of its own: a supervisor of the services that need them."""
    try:
        for part in RIVER if name == "with-river" else ():
            importlib.import_module(f"river.{part}")
        _share(members)
        # Arrow's allocator has threads from its import on; it makes them anew in a child by handlers of its own
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        Supervisor(home, members).run()
    finally:
        os._exit(0)


def _share(services: tuple[str, ...]) -> None:
    """Import what these services run, and take it from the collector's sight: forked children share its memory."""
    for module in ("artifacts", "health", "kafka_bus", "logs", "service", "settings", "store"):
        importlib.import_module(f"headrace.infra.{module}")
    for service in services:
        importlib.import_module(f"headrace.services.{service}.__main__")
    gc.collect()
    gc.freeze()


def _drain_too() -> list[str]:
    """What a forked service sees among this process's own arguments."""
    return [DRAIN] if DRAIN in sys.argv[1:] else []


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def main() -> None:
    """The supervisor process: `python -m headrace.infra.supervisor HOME SERVICE… [--drain]`."""
    home = Path(sys.argv[1])
    services = tuple(name for name in sys.argv[2:] if name != DRAIN) or tuple(SERVICES)
    if sys.platform != "linux":
        Supervisor(home, services).run()
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    found = {group: tuple(name for name in services if name in members) for group, members in GROUPS.items()}
    groups = {group: members for group, members in found.items() if members}
    light = tuple(name for name in services if not any(name in members for members in groups.values()))
    supervisor = Supervisor(home, (*groups, *light), groups)
    supervisor.start_groups()  # they import for seconds: first, and beside the light ones
    _share(light)
    supervisor.run()


if __name__ == "__main__":
    main()
