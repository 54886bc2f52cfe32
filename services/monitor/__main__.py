"""The monitor as a process: `python -m headrace.services.monitor`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.monitor import inputs, performance


def build(wiring: Wiring) -> list[Tickable]:
    """What the models are asked and answer, and what the labels say of it."""
    return [wiring.fold("monitor", inputs), wiring.fold("monitor", performance)]


def main() -> None:
    run_service("monitor", build)


if __name__ == "__main__":
    main()
