"""The closing report: what went in and came out, the models against baselines, answers by SQL, delays, what next."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.demo.curves import Curves, curves_of
from headrace.demo.live import quantile
from headrace.demo.observe import BUCKET_ROWS, Observed
from headrace.demo.picture import bars, draw, names_of, score_table
from headrace.demo.stories import STORIES

QUESTIONS = (
    (
        "How good was the served model, and what was never served?",
        "SELECT served IS NOT NULL AS served, count(*) AS rows, {score}, "
        "round(median(label_delay_s), 3) AS median_label_delay_s FROM labelled_examples GROUP BY ALL ORDER BY ALL",
    ),
    (
        "What was rejected, where does it stand, and why?",
        'SELECT id, topic, partition, "offset", code, message FROM rejects ORDER BY "offset"',
    ),
    (
        "Which gates were passed, on what evidence?",
        "SELECT stage, verdict, n_labels, "
        "list_aggregate(list_transform(list_filter(checks, lambda c: c.value IS NOT NULL), lambda c: "
        " format('{} {:.4g}', c.name, c.value) || coalesce(format(' (limit {:.4g})', c.\"limit\"), '')), "
        "'string_agg', '; ') AS checks FROM validations ORDER BY known_at",
    ),
)

EXAMPLE = "headrace/examples/rainfall"
NEXT = (
    ("other stories", "demo --story {others}"),
    ("at full speed", "demo --rate max    (rows are then served by an older model: honest, but another story)"),
    ("labels 50 rows late", "demo --label-delay 50"),
    ("the same without Kafka", f"try {EXAMPLE}.py {EXAMPLE}.csv.xz --label rain"),
    ("your own stream", "init mine --csv FILE.csv --label COLUMN"),
)


def make_report(
    settings: Any, bus: Any, choices: Any, seen: Observed, progress: Any, seconds: float, say: Console
) -> dict[str, Any]:
    """Show the report and return the same as data."""
    published_s = max(1e-9, progress.ended - progress.began)
    curves = fold_again(choices.file(), seen)
    report: dict[str, Any] = {
        "story": choices.story.name,
        "rows": progress.published,
        "predicted": seen.counts["predictions"],
        "served": seen.counts["served"],
        "joined": seen.counts["labelled"],
        "rejected": seen.rejects,
        "measure": seen.measure.name,
        "scores": score_rows(seen, curves),
        "since_the_change": since_the_change(curves, choices.story.changes_at),
        "decisions": [decision._asdict() for decision in seen.decisions],
        "versions": seen.versions,
        "verdicts": seen.verdicts,
        "revisions_taken": seen.revisions,
        "revisions_served": len(seen.revisions_served),
        "publish_to_prediction_ms": {
            "p50": quantile(seen.prediction_delay_ms, 0.5),
            "p99": quantile(seen.prediction_delay_ms, 0.99),
        },
        "label_to_served_model_ms": {
            "p50": quantile(seen.served_delay_ms, 0.5),
            "p99": quantile(seen.served_delay_ms, 0.99),
        },
        "rows_per_s": round(progress.published / published_s, 1),
        "seconds": round(seconds, 1),
        "answers": answers(settings, seen),
        "why": why_champion(settings, bus, choices.story.name) if seen.versions else [],
    }
    png = choices.home / "accuracy.png"
    report["plot"] = str(png) if draw(choices.story, seen, curves, png) else None
    show(report, seen, choices, say)
    return report


def fold_again(file: Path, seen: Observed) -> Curves:
    """What was served, and what would have been served without the policy, folded here from the labelled rows."""
    from headrace.infra.pipeline_files import load_file

    pipeline = load_file(file)
    return curves_of(seen.rows, lambda: pipeline.recipe(0), seen.measure)


def since_the_change(curves: Curves, changes_at: int) -> dict[str, float | None]:
    """The mean score from the change on, of what was served and of what would have been."""
    return {what: mean(scores[changes_at:]) for what, scores in curves._asdict().items()}


def mean(scores: Sequence[float | None]) -> float | None:
    """The mean score of the rows that were answered; None where none was."""
    told = [score for score in scores if score is not None]
    return sum(told) / len(told) if told else None


def score_rows(seen: Observed, curves: Curves) -> list[dict[str, Any]]:
    """One row per `BUCKET_ROWS` labelled rows."""
    rows = []
    for number, bucket in enumerate(seen.buckets):
        part = slice(number * BUCKET_ROWS, (number + 1) * BUCKET_ROWS)
        rows.append(
            {
                "from_row": number * BUCKET_ROWS,
                "rows": bucket.rows,
                "scored": bucket.scored,
                **{what: mean(scores[part]) for what, scores in curves._asdict().items()},
                **{what: bucket.mean(what) for what in ("rival", "last")},
                "model_age_rows": bucket.age_rows / bucket.scored if bucket.scored else None,
            }
        )
    return rows


def why_champion(settings: Any, bus: Any, pipeline: str) -> list[str]:
    """The chain of events that made the newest champion, as `headrace why` tells it."""
    from headrace.reproduce import log as kept
    from headrace.why import chain, words

    read = [
        kept.records(bus, settings.namespace, "control-log"),
        kept.records(bus, settings.namespace, "<p>.snapshots", pipeline),
    ]
    return words.lines(chain.story(chain.Log.of(*read), f"{pipeline}@champion"))


def answers(settings: Any, seen: Observed, limit_s: float = 20.0) -> list[dict[str, Any]]:
    """The three questions, asked of DuckDB once the recorder has caught up."""
    from headrace.infra.query_client import query

    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        stored = query(settings, "SELECT count(*) FROM labelled_examples").rows[0][0]
        if stored >= seen.counts["labelled"]:
            break
        time.sleep(0.1)
    found = []
    for question, template in QUESTIONS:
        sql = template.replace("{score}", seen.measure.in_store)
        answer = query(settings, sql)
        found.append({"question": question, "sql": sql, "columns": answer.columns, "rows": answer.rows})
    return found


def show(report: dict[str, Any], seen: Observed, choices: Any, say: Console) -> None:
    """Print the report."""
    rejected = len({reject["id"] for reject in report["rejected"]})
    say.rule("[bold]What happened")
    say.print(
        f"{report['rows']:,} rows in: {report['predicted']:,} predicted before their label was known, "
        f"{report['joined']:,} joined and learned, {rejected} rejected."
    )
    for reject in report["rejected"]:
        say.print(
            f"  rejected {reject['id']} ({reject['topic']} partition {reject['partition']} offset {reject['offset']}): "
            f"{reject['message']}"
        )
    for code, count in Counter(reject["code"] for reject in report["rejected"]).items():
        say.print(f"  reason {code}: {count}")
    say.print(score_table(report["scores"], choices.story))
    say.print(bars(report["scores"], seen.measure))
    say.print(f"[dim]{choices.story.told}[/]")
    since = report["since_the_change"]
    if since["model"] is not None:
        told = ", ".join(f"{label} {since[what]:.3f}" for what, label in names_of(choices.story).items())
        say.print(f"Mean {seen.measure.name} from row {choices.story.changes_at:,} on, all at one cadence: {told}.")
    say.rule("[bold]What was decided")
    for decision in report["decisions"]:
        if decision["event"] != "RecordRejected":
            say.print(f"row {decision['row']:>6,}  {decision['what']}", highlight=False)
    if report["why"]:
        say.rule("[bold]Why the champion serves")
        for told in report["why"]:
            say.print(told, highlight=False, markup=False)
    say.rule("[bold]How fast it was")
    say.print(f"{report['revisions_taken']:,} revisions taken, {report['revisions_served']:,} of them served.")
    for title, name in (
        ("publish → prediction visible", "publish_to_prediction_ms"),
        ("label → served model", "label_to_served_model_ms"),
    ):
        delay = report[name]
        if delay["p50"] is not None:
            say.print(f"{title}: p50 {delay['p50']:.0f} ms, p99 {delay['p99']:.0f} ms")
    rate = f"{report['rows_per_s']:,} rows/s (each an example and a label)"
    say.print(f"Published {choices.pace()}: {rate} on average; {report['seconds']} s in all.")
    say.rule("[bold]Three questions, answered by SQL on DuckDB")
    for answer in report["answers"]:
        grid = Table(
            *[str(column) for column in answer["columns"]],
            title=answer["question"],
            title_justify="left",
            box=None,
            header_style="bold",
            title_style="italic",
        )
        for row in answer["rows"][:12]:
            grid.add_row(*["-" if cell is None else str(cell) for cell in row])
        say.print(grid)
    say.rule("[bold]What to try next")
    if report["plot"]:
        say.print(f"look at the plot            {report['plot']}")
    command = "headrace" if shutil.which("headrace") else ".venv/bin/headrace"
    others = " | ".join(name for name in STORIES if name != choices.story.name)
    for what, arguments in NEXT:
        say.print(f"{what:<28}{command} {arguments.format(others=others)}", markup=False)
