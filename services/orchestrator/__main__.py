"""The orchestrator as a process: `python -m headrace.services.orchestrator`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.orchestrator import core


def build(wiring: Wiring) -> list[Tickable]:
    """The fold over `control-log`."""
    return [wiring.fold("orchestrator", core)]


def main() -> None:
    run_service("orchestrator", build)


if __name__ == "__main__":
    main()
