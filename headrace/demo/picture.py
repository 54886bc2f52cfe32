"""How the models scored as a table, as bars in a terminal, and as a plot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from rich.table import Table

from headrace.demo.curves import Curves
from headrace.demo.measure import Measure
from headrace.demo.observe import BUCKET_ROWS, Observed
from headrace.demo.stories import Story

NUMBER_OF_BARS = 50
FEW = 100  # a mean of fewer rows than that is not drawn


def names_of(story: Story) -> dict[str, str]:
    """The three curves, and what they are called in this story."""
    return {"model": "served model", "replacing": story.otherwise, "learning": "first, frozen"}


def score_table(rows: list[dict[str, Any]], story: Story) -> Table:
    """The mean score per 2,000 rows, of the model and of what it must beat."""
    names, measure = names_of(story), story.measure
    grid = Table(
        title=f"Mean {measure.name}, each prediction made before its label was learned",
        title_justify="left",
        box=None,
        header_style="bold",
        title_style="italic",
    )
    for column in ("rows", "scored", *names.values(), measure.rival, "no change", "age of the model"):
        grid.add_column(column, justify="right")
    for row in rows:
        shown = (*names, "rival", "last")
        cells = ["-" if row[what] is None else f"{row[what]:.3f}" for what in shown]
        age = "-" if row["model_age_rows"] is None else f"{row['model_age_rows']:.0f} rows"
        grid.add_row(f"{row['from_row']:,}–{row['from_row'] + row['rows'] - 1:,}", f"{row['scored']:,}", *cells, age)
    return grid


def bars(rows: list[dict[str, Any]], measure: Measure, width: int = NUMBER_OF_BARS) -> str:
    """The same as bars: `█` the model, `┆` the baseline."""
    lines = []
    low, high = measure.axis
    for row in rows:
        if row["model"] is None:
            continue
        filled = min(width, round((row["model"] - low) / (high - low) * width))
        bar = ["█"] * max(0, filled) + [" "] * (width - max(0, filled))
        mark = min(width - 1, max(0, round((row["rival"] - low) / (high - low) * width)))
        bar[mark] = "┆"
        lines.append(f"{row['from_row']:>7,} {''.join(bar)} {row['model']:.3f}")
    return "\n".join([f"{'row':>7} {low:.1f}{' ' * (width - 6)}{high:.1f}   (┆ {measure.rival})", *lines])


def draw(story: Story, seen: Observed, curves: Curves, path: Path, window: int = 500) -> bool:
    """Draw the three curves as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 4), layout="constrained")
    measure = story.measure
    for what, label in names_of(story).items():
        answered = [(number, score) for number, score in enumerate(getattr(curves, what)) if score is not None]
        sums = list(itertools.accumulate((score for _, score in answered), initial=0.0))
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
    means = [bucket.mean("rival") for bucket in (*seen.buckets, seen.buckets[-1])]
    rival = [float("nan") if mean is None else mean for mean in means]
    axes.step(starts, rival, where="post", label=measure.rival, alpha=0.6, color="grey")
    if story.bad is not None:
        axes.axvspan(story.bad.start, story.bad.stop, color="tab:red", alpha=0.15, label=story.mark)
    else:
        axes.axvline(story.changes_at, color="grey", linestyle=":", label=story.mark)
    if seen.alerts:
        low = [measure.axis[0]] * len(seen.alerts)
        axes.plot(seen.alerts, low, "^", color="tab:red", markersize=8, clip_on=False, label="alert: the loss rose")
    champions = [version for version in seen.versions if version["alias"] == "champion"]
    for version, side in zip(champions, itertools.cycle(("right", "left"))):  # two may be near each other
        axes.axvline(version["row"], color="tab:green", linestyle="--", linewidth=0.8)
        name, at = f"champion is version {version['version']}", (version["row"], measure.axis[1])
        axes.annotate(name, at, rotation=90, fontsize=7, va="top", ha=side)
    axes.set(xlabel="labelled row", ylabel=f"{measure.name}, last {window} rows", title=story.title, ylim=measure.axis)
    axes.legend(loc="lower left", fontsize=8, framealpha=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
