"""The scheduler as a process: `python -m headrace.services.scheduler`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.scheduler.ticker import Ticker


def build(wiring: Wiring) -> list[Tickable]:
    """Faust, watched over."""
    return [Ticker(wiring)]


def main() -> None:
    run_service("scheduler", build)


if __name__ == "__main__":
    main()
