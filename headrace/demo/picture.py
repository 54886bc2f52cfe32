"""Accuracy as a table, as bars in a terminal, and as a plot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from rich.table import Table

from headrace.demo.curves import Curves
from headrace.demo.observe import BUCKET_ROWS, Observed
from headrace.demo.stories import Story

NUMBER_OF_BARS = 50
FEW = 100  # a mean of fewer rows than that is not drawn
CURVES = (("model", "served model"), ("replacing", "never replaced"), ("learning", "first, frozen"))


def accuracy_table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy per 2,000 rows, of the model and of what it must beat."""
    grid = Table(
        title="Accuracy, each prediction made before its label was learned",
        title_justify="left",
        box=None,
        header_style="bold",
        title_style="italic",
    )
    for column in ("rows", "scored", *(label for _, label in CURVES), "majority", "no change", "age of the model"):
        grid.add_column(column, justify="right")
    for row in rows:
        shown = (*(what for what, _ in CURVES), "majority", "last")
        cells = ["-" if row[what] is None else f"{row[what]:.3f}" for what in shown]
        age = "-" if row["model_age_rows"] is None else f"{row['model_age_rows']:.0f} rows"
        grid.add_row(f"{row['from_row']:,}–{row['from_row'] + row['rows'] - 1:,}", f"{row['scored']:,}", *cells, age)
    return grid


def bars(rows: list[dict[str, Any]], width: int = NUMBER_OF_BARS) -> str:
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


def draw(story: Story, seen: Observed, curves: Curves, path: Path, window: int = 500) -> bool:
    """Draw the three curves as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    for what, label in CURVES:
        answered = [(number, hit) for number, hit in enumerate(getattr(curves, what)) if hit is not None]
        sums = list(itertools.accumulate((hit for _, hit in answered), initial=0))
        running = [(sums[n] - sums[max(0, n - window)]) / min(n, window) for n in range(1, len(sums))]
        is_served = what == "model"
        axes.plot(
            [number for number, _ in answered][FEW:],
            running[FEW:],
            label=label,
            linewidth=1.6 if is_served else 0.9,
            zorder=3 if is_served else 2,
        )
    starts = [*(number * BUCKET_ROWS for number in range(len(seen.buckets))), len(seen.rows)]
    majority = [bucket.accuracy("majority") or float("nan") for bucket in (*seen.buckets, seen.buckets[-1])]
    axes.step(starts, majority, where="post", label="majority", alpha=0.6, color="grey")
    axes.axvline(story.changes_at, color="grey", linestyle=":", label=story.mark)
    for version in seen.versions:
        if version["alias"] == "champion":
            axes.axvline(version["row"], color="tab:green", linestyle="--", linewidth=0.8)
            name, at = f"champion is version {version['version']}", (version["row"], 0.99)
            axes.annotate(name, at, rotation=90, fontsize=7, va="top", ha="right")
    axes.set(xlabel="labelled row", ylabel=f"accuracy, last {window} rows", title=story.title, ylim=(0.4, 1))
    axes.legend(loc="lower left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
