"""The predictor as a process: `python -m headrace.services.predictor`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.predictor import core
from headrace.services.predictor.arms import Arms


def build(wiring: Wiring) -> list[Tickable]:
    """The fold, and who loads its world."""
    arms = Arms(wiring)
    return [wiring.fold("predictor", core, arms.world), arms]


def main() -> None:
    run_service("predictor", build)


if __name__ == "__main__":
    main()
