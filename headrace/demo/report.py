"""The closing report: what went in and came out, accuracy against baselines, answers by SQL, delays, what next."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.demo.live import quantile
from headrace.demo.observe import BUCKET_ROWS, Observed

ROTATION = (
    "From row 12,000 on each column of this published file holds its right neighbour's values (dew_point holds "
    "pressure, and so on): a broken column mapping, not climate. An online model recovers in part by itself; the cure "
    "is to mend the mapping."
)
QUESTIONS = (
    (
        "How often was the served model right, and what was never served?",
        "SELECT served IS NOT NULL AS served, count(*) AS rows, round(avg(correct::INT), 4) AS accuracy, "
        "round(median(label_delay_s), 3) AS median_label_delay_s FROM labelled_examples GROUP BY ALL ORDER BY ALL",
    ),
    (
        "What was rejected, where does it stand, and why?",
        'SELECT id, topic, partition, "offset", code, message FROM rejects ORDER BY "offset"',
    ),
    (
        "Which gates were passed, on what evidence?",
        'SELECT stage, verdict, n_labels, c.name AS "check", round(c.value, 4) AS value, '
        'round(c."limit", 4) AS "limit" '
        "FROM (SELECT stage, verdict, n_labels, known_at, unnest(checks) AS c FROM validations) "
        "ORDER BY known_at, c.name",
    ),
)

EXAMPLE = "headrace/examples/rainfall"
NEXT = (
    ("at full speed", "demo --rate max    (rows are then served by an older model: honest, but another story)"),
    ("labels 50 rows late", "demo --label-delay 50"),
    ("the same without Kafka", f"try {EXAMPLE}.py {EXAMPLE}.csv.xz --label rain"),
    ("your own stream", "init mine --csv FILE.csv --label COLUMN"),
)


def make_report(
    settings: Any, choices: Any, seen: Observed, progress: Any, seconds: float, say: Console
) -> dict[str, Any]:
    """Show the report and return the same as data."""
    published_s = max(1e-9, progress.ended - progress.began)
    report: dict[str, Any] = {
        "rows": progress.published,
        "predicted": seen.counts["predictions"],
        "served": seen.counts["served"],
        "joined": seen.counts["labelled"],
        "rejected": seen.rejects,
        "accuracy": accuracy_rows(seen),
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
    }
    png = choices.home / "accuracy.png"
    report["plot"] = str(png) if draw(seen, png) else None
    show(report, seen, choices, say)
    return report


def accuracy_rows(seen: Observed) -> list[dict[str, Any]]:
    """One row per `BUCKET_ROWS` labelled rows."""
    rows = []
    for number, bucket in enumerate(seen.buckets):
        rows.append(
            {
                "from_row": number * BUCKET_ROWS,
                "rows": bucket.rows,
                "scored": bucket.scored,
                **{what: bucket.accuracy(what) for what in ("model", "majority", "last")},
                "model_age_rows": bucket.age_rows / bucket.scored if bucket.scored else None,
            }
        )
    return rows


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
    for question, sql in QUESTIONS:
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
    say.print(accuracy_table(report["accuracy"]))
    say.print(curve(report["accuracy"]))
    say.print(f"[dim]{ROTATION}[/]")
    for version in report["versions"]:
        say.print(f"{version['alias']} → version {version['version']}: {version['reason']}")
    say.print(f"{report['revisions_taken']:,} revisions taken, {report['revisions_served']:,} of them served.")
    for title, name in (
        ("publish → prediction visible", "publish_to_prediction_ms"),
        ("label → served model", "label_to_served_model_ms"),
    ):
        delay = report[name]
        if delay["p50"] is not None:
            say.print(f"{title}: p50 {delay['p50']:.0f} ms, p99 {delay['p99']:.0f} ms")
    pace = "as fast as it went" if choices.rate is None else f"at {choices.rate:g} rows/s, so that revisions keep up"
    rate = f"{report['rows_per_s']:,} rows/s (each an example and a label)"
    say.print(f"Published {pace}: {rate}; {report['seconds']} s in all.")
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
    for what, arguments in NEXT:
        say.print(f"{what:<28}{command} {arguments}")


def accuracy_table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy per 2,000 rows, of the model and of what it must beat."""
    grid = Table(
        title="Accuracy, each prediction made before its label was learned",
        title_justify="left",
        box=None,
        header_style="bold",
        title_style="italic",
    )
    for column in ("rows", "scored", "served model", "majority", "no change", "age of the model"):
        grid.add_column(column, justify="right")
    for row in rows:
        cells = ["-" if row[what] is None else f"{row[what]:.3f}" for what in ("model", "majority", "last")]
        age = "-" if row["model_age_rows"] is None else f"{row['model_age_rows']:.0f} rows"
        grid.add_row(f"{row['from_row']:,}–{row['from_row'] + row['rows'] - 1:,}", f"{row['scored']:,}", *cells, age)
    return grid


def curve(rows: list[dict[str, Any]], width: int = 50) -> str:
    """The same as bars: `█` the model, `┆` the majority."""
    lines = []
    for row in rows:
        if row["model"] is None:
            continue
        low, high = 0.4, 1.0
        filled = round((row["model"] - low) / (high - low) * width)
        bar = ["█"] * max(0, filled) + [" "] * (width - max(0, filled))
        mark = min(width - 1, max(0, round((row["majority"] - low) / (high - low) * width)))
        bar[mark] = "┆"
        lines.append(f"{row['from_row']:>7,} {''.join(bar)} {row['model']:.3f}")
    return "\n".join([f"{'row':>7} 0.4{' ' * (width - 6)}1.0   (┆ majority)", *lines])


def draw(seen: Observed, path: Path) -> bool:
    """Draw the accuracy as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    window = 500
    hits, running, total = seen.recent, [], 0
    for number, hit in enumerate(hits):
        total += hit - (hits[number - window] if number >= window else 0)
        running.append(total / min(number + 1, window))
    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    first = seen.counts["labelled"] - len(hits)
    axes.plot(range(first, first + len(running)), running, label=f"served model, last {window} rows")
    starts = [number * BUCKET_ROWS for number in range(len(seen.buckets))]
    for what, label in (("majority", "majority"), ("last", "no change")):
        axes.step(
            starts,
            [bucket.accuracy(what) or float("nan") for bucket in seen.buckets],
            where="post",
            label=label,
            alpha=0.7,
        )
    axes.axvline(12_000, color="grey", linestyle=":", label="column mapping breaks in the file")
    axes.set(
        xlabel="labelled row",
        ylabel="accuracy",
        title="Rain on the day, predicted before the label was known",
        ylim=(0.4, 1),
    )
    axes.legend(loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
