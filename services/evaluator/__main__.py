"""The evaluator as a process: `python -m headrace.services.evaluator`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.evaluator import offline, online
from headrace.services.evaluator.jobs import Jobs


def build(wiring: Wiring) -> list[Tickable]:
    """The scores, the gates' open jobs, and who does them."""
    gates = wiring.fold("evaluator", offline)
    return [wiring.fold("evaluator", online), gates, Jobs(wiring, gates)]


def main() -> None:
    run_service("evaluator", build)


if __name__ == "__main__":
    main()
