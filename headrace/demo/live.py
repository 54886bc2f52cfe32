"""The live view: what flows where, the accuracy as it develops, and what was decided."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from headrace.demo.observe import Observed
from headrace.demo.operator import is_due, roll_back
from headrace.infra.follow import Follower
from headrace.schemas.control import PipelineReleased
from headrace.schemas.topics import full_name

QUIET_S = 20.0


def watch_live(
    bus: Any, namespace: str, choices: Any, seen: Observed, progress: Any, publisher: threading.Thread, say: Console
) -> None:
    """Start the publisher and show the stream until every published row is accounted for, or nothing moves."""
    from headrace.demo.run import WATCHED

    story = choices.story
    follower = Follower(bus, namespace, [full_name(name, story.name, namespace) for name in WATCHED])
    _await_release(follower, seen)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(40),
        TextColumn("{task.completed:,}/{task.total:,} rows"),
        TimeRemainingColumn(),
    )
    task = bar.add_task(f"{story.name} {choices.pace()}", total=choices.rows)
    publisher.start()
    moved = time.monotonic()
    plain = not say.is_terminal
    shown, is_asked = 0.0, False
    with Live(console=say, refresh_per_second=8, transient=plain, auto_refresh=not plain) as live:
        try:
            while True:
                records = follower.poll(0.05)
                now_ms = time.time() * 1000
                for record in records:
                    seen.see(record, now_ms)
                if not is_asked and is_due(story, seen):
                    is_asked = True
                    roll_back(story, seen, progress, bus)
                now = time.monotonic()
                if records:
                    moved = now
                bar.update(task, completed=progress.published)
                if not plain and now - shown > 0.12:
                    shown = now
                    live.update(Group(bar, table(seen, story.name), decisions(seen)))
                elif plain and now - shown > 10:
                    shown = now
                    say.print(line(seen, progress.published))
                if progress.error is not None or (progress.ended and is_complete(seen, progress.published)):
                    break
                if progress.ended and now - moved > QUIET_S:
                    break
        finally:
            progress.stop.set()
            publisher.join(10)
            follower.close()


def _await_release(follower: Follower, seen: Observed) -> None:
    """Wait until the release came through the chain: then everybody reads, this one too, and no delay is a start's."""
    waits, deadline = {"<p>.predictions", "<p>.labelled-examples"}, time.monotonic() + QUIET_S
    while waits and time.monotonic() < deadline:
        for record in follower.poll(0.05):
            seen.see(record, time.time() * 1000)
            if isinstance(record.event, PipelineReleased):
                waits.discard(record.topic)


def is_complete(seen: Observed, published: int) -> bool:
    """Whether every published row was predicted and joined, or rejected."""
    rejected = len({reject["id"] for reject in seen.rejects})
    return seen.counts["labelled"] + rejected >= published


def table(seen: Observed, pipeline: str) -> Table:
    """What flows where."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("topic")
    grid.add_column("records", justify="right")
    grid.add_column("what it says now")
    score, name = seen.score(), seen.measure.name
    newest = seen.versions[-1] if seen.versions else None
    rows = [
        (
            f"{pipeline}.predictions",
            seen.counts["predictions"],
            f"{seen.counts['served']:,} served; p50 {_ms(seen.prediction_delay_ms, 0.5)} after publish",
        ),
        (
            f"{pipeline}.labelled-examples",
            seen.counts["labelled"],
            f"{name} {score:.3f} over the last {len(seen.newest_scores())} rows"
            if score is not None
            else "no model serves yet",
        ),
        (
            f"{pipeline}.data-rejected",
            seen.counts["rejected"],
            ", ".join(sorted({r["code"] for r in seen.rejects})) or "-",
        ),
        (
            f"{pipeline}.snapshots",
            seen.revisions,
            f"{len(seen.revisions_served):,} served; p50 {_ms(seen.served_delay_ms, 0.5)} from label to served model",
        ),
        (
            "drift-alerts",
            seen.counts["alerts"],
            next((d.what for d in reversed(seen.decisions) if d.event == "DriftDetected"), "performance holds"),
        ),
        (
            "model-validations",
            len(seen.verdicts),
            f"{seen.verdicts[-1]['stage']}: {seen.verdicts[-1]['verdict']}" if seen.verdicts else "-",
        ),
        (
            "model-updates",
            len(seen.versions),
            f"{newest['alias']} is version {newest['version']}" if newest else "no champion yet",
        ),
    ]
    for name, count, says in rows:
        grid.add_row(name, f"{count:,}", says)
    return grid


def decisions(seen: Observed) -> Panel:
    """The newest decisions."""
    return Panel(
        Text("\n".join(f"row {d.row:>6,}  {d.what}" for d in seen.decisions[-8:]) or "-"),
        title="what was decided",
        title_align="left",
    )


def line(seen: Observed, published: int) -> str:
    """One line for output that is no terminal."""
    score = seen.score()
    return (
        f"published {published:,}  predicted {seen.counts['predictions']:,}  joined {seen.counts['labelled']:,}  "
        f"revisions {seen.revisions:,}  {seen.measure.name} (last 500) {'-' if score is None else f'{score:.3f}'}"
    )


def quantile(values: list[float], share: float) -> float | None:
    """The value below which a share of the values lies; None where there is none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def _ms(values: list[float], share: float) -> str:
    found = quantile(values[-2_000:], share)
    return "-" if found is None else f"{found:.0f} ms"
