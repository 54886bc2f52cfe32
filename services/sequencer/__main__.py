"""The sequencer as a process: `python -m headrace.services.sequencer`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.sequencer import core
from headrace.services.sequencer.admission import admission


def build(wiring: Wiring) -> list[Tickable]:
    """One runner for all control topics: each partition has a fold of its own."""
    return [wiring.fold("sequencer", core, admit=admission(wiring.bus, wiring.namespace))]


def main() -> None:
    run_service("sequencer", build)


if __name__ == "__main__":
    main()
