"""How often the monitor alarms without a cause, how soon with one, what a row costs: tables of docs/statistics.md.

`python benchmarks/drift.py` (some minutes of one core), or some of its tables: `python benchmarks/drift.py steps`.
Runs the service's own folds over made-up records, at the default policy. `losses` are those of models that learn on as
they answer: the data sets that ship with River, each row drawn anew at random, so that nothing changes but the model,
and River's generators. What another program measured before this service was built stands beside it ("study").
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from math import ceil
from statistics import median
from time import process_time
from typing import Any, Literal, NamedTuple

import numpy as np
from common import made_up, river
from river import datasets, linear_model, naive_bayes, preprocessing, tree
from river.datasets import synth

from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, ReleaseDefinition
from headrace.schemas.policies import Drift, Policies
from headrace.schemas.record import Record
from headrace.schemas.stream import ArmPrediction, PredictionMade
from headrace.services.monitor import inputs, performance
from headrace.services.monitor.lean import Answer, Answered, Labelled, Seen, decode_seen

WARM_LABELS = 10_000  # a model's first labels, whose losses fall; they are not counted
CLEAN_LABELS = 5_000  # before a step
WAITED_LABELS = 20_000  # after it
FIRST_ROWS = 6_000  # of inputs, before a column shifts
COLUMNS = 20
COST_ROWS, ROUNDS = 20_000, 5
WRONG, RIGHT = Answer("r1", 1, 0.0), Answer("r1", 1, 1.0)


def released(columns: dict[str, Literal["float", "str"]], window: int) -> Record:
    """The release of a pipeline with these columns and, but for the window, the default policy."""
    features = tuple(FeatureSpec(name=name, type=kind) for name, kind in columns.items())
    definition = ReleaseDefinition(
        contract=ContractSpec(name="Made", features=features, label=LabelSpec(type="bool")),
        policies=Policies(drift=Drift(window=window)),
        contract_digest="c", policies_digest="p", recipe_digest="r", source_digest="s", source_uri="u",
    )  # fmt: skip
    event = PipelineReleased(pipeline="p", release=1, definition=definition, partitions=1, request="q", by="benchmark")
    return record(event, 0)


def record(event: Any, offset: int) -> Record:
    """One record of the topic that a fold reads, a second after the one before."""
    return Record(event, 1_000 * offset, "<p>.topic", "p", 0, offset, source="/service/p/t/0")


# --- losses -----------------------------------------------------------------------------------------------


def alarms(losses: Iterator[bool]) -> Iterator[int]:
    """The numbers of the labels at which a performance alarm is told; a loss is whether the answer was wrong."""
    state = performance.State()
    performance.step(state, released({"x": "float"}, 1_000), None)
    for number, is_wrong in enumerate(losses, 1):
        at_ms = 1_000 * number
        answered = Answered({"champion": WRONG if is_wrong else RIGHT}, epoch=1)
        labelled = Labelled(answered, True, at_ms, at_ms, partition=0, number=number)
        for emit in performance.step(state, record(labelled, number), None):
            if getattr(emit.event, "level", None) == "drift":
                yield number


def bernoulli(error: Callable[[int], float], seed: int, rows: int) -> Iterator[bool]:
    """Independent losses with this mean at each row."""
    rng = random.Random(seed)
    return (rng.random() < error(number) for number in range(rows))


def drawn(stream: Any) -> Callable[[int], Iterator[tuple[Any, Any]]]:
    """Rows of a data set, each drawn at random, for ever."""

    def rows(seed: int) -> Iterator[tuple[Any, Any]]:
        held, rng = list(stream), random.Random(seed)
        while True:
            yield rng.choice(held)

    return rows


def of_model(make: Callable[[], Any], stream: Iterator[tuple[Any, Any]], labels: int) -> Iterator[bool]:
    """The losses of a model that answers each row and then learns it, when it has learned the first ones."""
    model = make()
    for number, (x, y) in zip(range(WARM_LABELS + labels), stream, strict=False):
        if number >= WARM_LABELS:
            yield model.predict_one(x) != y
        model.learn_one(x, y)


def _logistic() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


LOSSES: dict[str, tuple[Callable[[], Any], Callable[[int], Iterator[tuple[Any, Any]]]]] = {
    "phishing, logistic regression": (_logistic, drawn(datasets.Phishing())),
    "bananas, Hoeffding tree": (tree.HoeffdingTreeClassifier, drawn(datasets.Bananas())),
    "SEA, Gaussian naive Bayes": (naive_bayes.GaussianNB, lambda seed: iter(synth.SEA(seed=seed, noise=0.1))),
    "Agrawal, Hoeffding tree": (tree.HoeffdingTreeClassifier, lambda seed: iter(synth.Agrawal(seed=seed))),
    "shuttle, Gaussian naive Bayes": (naive_bayes.GaussianNB, drawn(datasets.Shuttle())),
}
STEPS: dict[str, tuple[float, Callable[[int], float], str]] = {
    ".05 → .15": (0.05, lambda n: 0.15, "295 / 343"),
    ".2 → .25": (0.2, lambda n: 0.25, "2,743 / 4,001"),
    ".2 → .3": (0.2, lambda n: 0.3, "583 / 893"),
    ".2 → .4": (0.2, lambda n: 0.4, "247 / 282"),
    ".2 → .3 in 2,000 labels": (0.2, lambda n: 0.2 + 0.1 * min(n / 2_000, 1.0), "1,943 / 2,266"),
}


def stationary(seeds: int) -> Iterator[str]:
    """Losses that do not change."""
    yield "| losses that do not change | labels | mean loss | alarms | in 10,000 labels; asked .1, study 0 |"
    yield "|---|---|---|---|---|"
    for name, (make, stream) in LOSSES.items():
        wrong = [list(of_model(make, stream(seed), 20_000)) for seed in range(5)]
        yield _quiet(name, wrong)
    for share in (0.05, 0.2, 0.4):
        wrong = [[rng.random() < share for _ in range(20_000)] for rng in map(random.Random, range(seeds))]
        yield _quiet(f"independent, {share:g}", wrong)


def _quiet(name: str, streams: Sequence[list[bool]]) -> str:
    labels, told = sum(map(len, streams)), sum(len(list(alarms(iter(one)))) for one in streams)
    mean = sum(map(sum, streams)) / labels
    return f"| {name} | {labels:,} | {mean:.3f} | {told} | {10_000 * told / labels:.2f} |"


def steps(seeds: int) -> Iterator[str]:
    """Losses that rise after a while."""
    yield "| loss | found | labels until told, median / p90 / worst | study, median / p90 |\n|---|---|---|---|"
    for name, (before, after, study) in STEPS.items():

        def error(n: int, before: float = before, after: Callable[[int], float] = after) -> float:
            return before if n < CLEAN_LABELS else after(n - CLEAN_LABELS)

        told = [next(alarms(bernoulli(error, seed, CLEAN_LABELS + WAITED_LABELS)), None) for seed in range(seeds)]
        late = sorted(one - CLEAN_LABELS for one in told if one is not None)
        early = sum(one <= 0 for one in late)
        ranks = f"{median(late):,.0f} / {late[ceil(0.9 * len(late)) - 1]:,} / {late[-1]:,}" if late else "-"
        yield f"| {name} | {len(late)} of {seeds}{f', {early} before' if early else ''} | {ranks} | {study} |"


# --- inputs -----------------------------------------------------------------------------------------------

Columns = dict[str, np.ndarray]


class Told(NamedTuple):
    """An alert on inputs: at which row, of which columns."""

    row: int
    columns: tuple[str, ...]


class Watch:
    """The fold over inputs of one pipeline."""

    def __init__(self, columns: Columns, window: int = 1_000) -> None:
        self.state, self.row = inputs.State(), 0
        kinds: dict[str, Literal["float", "str"]] = {
            name: "str" if values.dtype.kind == "U" else "float" for name, values in columns.items()
        }
        inputs.step(self.state, released(kinds, window), None)

    def rows(self, columns: Columns) -> list[Told]:
        """Take rows in; what is told of them."""
        told, listed = [], [values.tolist() for values in columns.values()]
        for values in zip(*listed, strict=True):
            self.row += 1
            seen = Seen(dict(zip(columns, values, strict=True)), {}, epoch=1)
            for emit in inputs.step(self.state, record(seen, self.row), None):
                told.append(Told(self.row, tuple(emit.event.evidence["columns"])))  # type: ignore[attr-defined]
        return told


def mixed(rng: np.random.Generator, rows: int) -> Columns:
    """Twenty independent columns: normal, lognormal, with many zeros, of five categories."""
    columns: Columns = {}
    for place in range(COLUMNS // 4):
        columns[f"normal_{place}"] = rng.normal(size=rows)
        columns[f"lognormal_{place}"] = rng.lognormal(size=rows)
        columns[f"zeros_{place}"] = np.where(rng.random(rows) < 0.7, 0.0, rng.exponential(size=rows))
        columns[f"texts_{place}"] = rng.choice(list("abcde"), rows, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    return columns


def wandering(rng: np.random.Generator, rows: int) -> Columns:
    """Eight columns of which each value is .9 times the one before, and noise."""
    values = rng.normal(size=(rows, 8)) * np.sqrt(1 - 0.9**2)
    for row in range(1, rows):
        values[row] += 0.9 * values[row - 1]
    return {f"x{place}": values[:, place] for place in range(8)}


def columns(seeds: int) -> Iterator[str]:
    """Inputs that do not change, that wander, and of which one column shifts."""
    yield "| inputs | streams of rows | asked | found |\n|---|---|---|---|"
    rows, window = 22_000, 1_000
    told = sum(len(Watch(made).rows(made)) for made in (mixed(np.random.default_rng(s), rows) for s in range(seeds)))
    tests = seeds * (rows - 2 * window) // (window // 4)
    yield (
        f"| {COLUMNS} columns that do not change | {seeds} of {rows:,} | 1 % of windows at most | "
        f"an alert in {told} of {tests:,} windows |"
    )
    yield from _shifted(4 * seeds, window)
    for rows, window in ((20_000, 1_000), (40_000, 5_000)):
        streams = max(seeds // 4, 1)
        told = sum(
            len(Watch(made, window).rows(made))
            for made in (wandering(np.random.default_rng(seed), rows) for seed in range(streams))
        )
        yield f"| autocorrelation .9, 8 columns, windows of {window:,} | {streams} of {rows:,} | | {told} alerts |"


def _shifted(streams: int, window: int) -> Iterator[str]:
    late: dict[float, list[int | None]] = {0.5: [], 0.25: []}
    for seed in range(streams):
        rng = np.random.default_rng(1_000 + seed)
        before = mixed(rng, FIRST_ROWS)
        watch = Watch(before)
        watch.rows(before)
        after = mixed(rng, 2 * window)
        for shift, found in late.items():
            told = copy.deepcopy(watch).rows(after | {"normal_0": after["normal_0"] + shift})
            found.append(next((one.row - FIRST_ROWS for one in told if "normal_0" in one.columns), None))
    for shift, found in late.items():
        known = sorted(one for one in found if one is not None)
        within = sum(one <= window for one in known)
        ranks = f"; median {median(known):,.0f} rows, worst {known[-1]:,}" if known else ""
        yield (
            f"| one of {COLUMNS} shifts by {shift:g} sd | {streams} of {FIRST_ROWS:,} and {2 * window:,} | "
            f"{'95 % within 1,000' if shift == 0.5 else ''} | {within} of {streams} within {window:,} rows, "
            f"{len(known)} within {2 * window:,}{ranks} |"
        )


def cost(seeds: int) -> Iterator[str]:
    """What a row of eight numbers costs the fold over inputs and predictions, from its bytes on."""
    arm, data = ArmPrediction(version=1, run="r1", learned_to=0, value=0.7), made_up(COST_ROWS)
    made = [
        encode(
            PredictionMade(
                id=str(number), time=datetime(2026, 3, 1, tzinfo=UTC), features=features,
                predictions={"champion": arm}, served="champion", release=1, epoch=1, origin=(0, number),
            )
        )
        for number, (features, _) in enumerate(data)
    ]  # fmt: skip
    rounds = [(*_timed(made), river(data).cpu) for _ in range(ROUNDS)]
    yield "| 8 columns and the answer, without Kafka | asked | µs of CPU a row: least, median |\n|---|---|---|"
    names = "decode and fold", "of these decoding", "pure River loop over the same rows, learning"
    for name, asked, found in zip(names, ("8 at most", "", ""), zip(*rounds, strict=True), strict=True):
        yield f"| {name} | {asked} | {min(found):.1f}, {median(found):.1f} |"


def _timed(made: Sequence[bytes]) -> tuple[float, float]:
    state = inputs.State()
    inputs.step(state, released(dict.fromkeys(made_up(1)[0][0], "float"), 1_000), None)
    began = process_time()
    for body in made:
        decode_seen(body)
    between = process_time()
    for offset, body in enumerate(made, 1):
        inputs.step(state, record(decode_seen(body), offset), None)
    micro = 1e6 / len(made)
    return (process_time() - between) * micro, (between - began) * micro


def main() -> None:
    """Print every table as it is found."""
    tables = {"stationary": stationary, "steps": steps, "columns": columns, "cost": cost}
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=20)
    asked.add_argument("tables", nargs="*", help=f"{' '.join(tables)}; all without it")
    options = asked.parse_args()
    for name in options.tables or tables:
        print()
        for line in tables[name](options.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
