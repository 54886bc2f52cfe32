"""The `headrace` command: one file for each group of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli import (
    alerts,
    inspecting,
    models,
    moving,
    releases,
    reproducing,
    resetting,
    stack,
    start,
    streams,
    topics,
    training,
    triggering,
    why,
)
from headrace.cli.app import app as app

GROUPS = (
    start,
    releases,
    streams,
    models,
    inspecting,
    training,
    triggering,
    moving,
    alerts,
    reproducing,
    why,
    stack,
    resetting,
    topics,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"headrace {metadata.version('headrace')}")
        raise typer.Exit


@app.callback()
def headrace(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Keeps machine-learning models trained, validated, watched and served from a stream of events."""


def main() -> None:
    """Run the command line."""
    app()
