"""The trainer as a process: `python -m headrace.services.trainer`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.trainer import control
from headrace.services.trainer.lockstep import Lockstep


def build(wiring: Wiring) -> list[Tickable]:
    """The runs, and the fold that decides which of them live."""
    return [Lockstep(wiring), wiring.fold("trainer", control)]


def main() -> None:
    run_service("trainer", build)


if __name__ == "__main__":
    main()
