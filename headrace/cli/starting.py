"""Waiting for the services that `up` started, and why one did not start."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, InvalidInput, Missing, Refused
from headrace.services import SERVICES

if TYPE_CHECKING:
    from headrace.infra.settings import Settings

RESTARTS = 3  # a service that ended so often while it should start will not start
SLICE_S = 0.5


def wait_for_services(home: Path, services: tuple[str, ...], timeout_s: float) -> None:
    """Wait until every service is ready. Raises HeadraceError with the reason of the first that is not."""
    from headrace.infra import processes

    deadline = time.monotonic() + timeout_s
    while missing := processes.wait_ready(home, services, min(SLICE_S, timeout_s)):
        states = processes.states(home)
        refused = [name for name in missing if states[name].get("refused")]
        hopeless = [name for name in missing if int(str(states[name].get("restarts") or 0)) >= RESTARTS]
        for name in refused:
            reason, log = last_words(home, name)
            raise Refused(f"{name} refused to start: {reason}", f"{log} says more; headrace down stops the others")
        if hopeless or time.monotonic() > deadline:
            name = (hopeless or missing)[0]
            reason, log = last_words(home, name)
            others = f" (nor did {', '.join(other for other in missing if other != name)})" if len(missing) > 1 else ""
            raise HeadraceError(
                f"{name} did not start: {reason}{others}", f"{log} says more; headrace down stops the others"
            )


def last_words(home: Path, service: str) -> tuple[str, Path]:
    """The last reason in a service's log (a log line's, else the last line of a traceback), and the log's path."""
    log = home / "logs" / f"{service}.log"
    shown = log.relative_to(Path.cwd()) if log.is_relative_to(Path.cwd()) else log
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it wrote no log", shown
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            if line and not line[0].isspace():
                return line, shown
            continue
        if isinstance(found, dict) and found.get("reason"):
            return str(found["reason"]), shown
    return "it is still starting", shown


def state_folder(settings: Settings, what: str) -> Path:
    """The folder with the state of a service, or the one named.

    Raises InvalidInput for what is neither, Missing, and Refused for a folder elsewhere.
    """
    if what in SERVICES:
        # the recorder's state stands beside its rows, in the store's own file
        found = settings.store_path.parent if what == "recorder" else settings.state_dir / settings.instance / what
    else:
        found = Path(what).expanduser().absolute()
        if len(Path(what).parts) == 1 and not found.exists():
            raise InvalidInput(f"{what!r} is neither a service nor a folder; services are {', '.join(SERVICES)}")
        if settings.state_dir not in found.parents:
            raise Refused(f"{found} is not in {settings.state_dir}, where services keep their state")
    if not found.is_dir():
        raise Missing(f"there is no state in {found}", "headrace status")
    return found


def wait_for_drain(home: Path, services: tuple[str, ...], timeout_s: float) -> None:
    """Wait until every service has folded what there was and ended. Raises HeadraceError with the reason."""
    from headrace.infra import processes

    deadline = time.monotonic() + timeout_s
    while processes.is_running(home):
        if time.monotonic() > deadline:
            alive = [name for name, state in processes.states(home).items() if state["alive"]]
            raise HeadraceError(
                f"{', '.join(alive)} did not come to the end of the log within {timeout_s:g} s",
                "it goes on in the background: headrace status; or headrace down, then with a larger --timeout",
            )
        time.sleep(0.1)
    for name in services:
        if processes.states(home)[name].get("refused"):
            reason, log = last_words(home, name)
            raise Refused(f"{name} refused to start: {reason}", f"{log} says more")
