"""What commands print: results to standard output (or JSON for programs), all else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

STAGE_WIDTH = 120
PIPED_WIDTH = 10_000  # a table in a file or a pipe is not folded


def out() -> Console:
    """The console of results."""
    return Console(highlight=False, markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def err() -> Console:
    """The console of progress, hints and errors."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def stage(to_error: bool = False) -> Console:
    """The console of the demo: with markup, and as wide as a page where there is no terminal."""
    stream = sys.stderr if to_error else sys.stdout
    return Console(stderr=to_error, highlight=False, width=None if stream.isatty() else STAGE_WIDTH)


def say(text: str, style: str | None = None) -> None:
    """One line of a result."""
    out().print(text, style=style)


def note(text: str) -> None:
    """One line about what is going on; not a result."""
    err().print(text, style="dim")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON document on one line, at once: for streams."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` are aligned right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("-" if cell is None else str(cell) for cell in row))
    return made


def progress(unit: str = "rows") -> Progress:
    """A progress bar on standard error; it leaves nothing behind where that is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err(),
        transient=not sys.stderr.isatty(),
        disable=not sys.stderr.isatty(),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "__struct_fields__"):
        import msgspec

        return msgspec.to_builtins(value)
    return str(value)
