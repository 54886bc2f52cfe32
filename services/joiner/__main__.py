"""The joiner as a process: `python -m headrace.services.joiner`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.joiner import core


def build(wiring: Wiring) -> list[Tickable]:
    """The fold over `<p>.predictions`."""
    return [wiring.fold("joiner", core)]


def main() -> None:
    run_service("joiner", build)


if __name__ == "__main__":
    main()
