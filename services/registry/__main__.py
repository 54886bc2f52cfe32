"""The registry as a process: `python -m headrace.services.registry`."""

from __future__ import annotations

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.registry import core


def build(wiring: Wiring) -> list[Tickable]:
    """The fold over `control-log`, with the key that signs markers."""
    return [wiring.fold("registry", core, core.World(wiring.key))]


def main() -> None:
    run_service("registry", build)


if __name__ == "__main__":
    main()
