"""The validator as a process: `python -m headrace.services.validator`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.validator import core


def build(wiring: Wiring) -> list[Tickable]:
    """One runner; each partition of each pipeline's `data-arrived` has a fold of its own."""
    return [wiring.fold("validator", core, core.World(wiring.key))]


def main() -> None:
    run_service("validator", build)


if __name__ == "__main__":
    main()
