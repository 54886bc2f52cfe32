"""What every benchmark shares: the pure River loop, processes of their own, interleaved rounds, ratios and targets.

A cost is the CPU of a whole process (its Kafka threads included) and the wall time, µs a row. The machine may be
busy, so a ratio is taken between neighbours in time, and the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

COLUMNS = tuple(f"column_{n}" for n in range(8))
WEIGHTS = (1.0, -2.0, 0.5, 0.0, 1.5, -0.5, 0.0, 0.25)
WINDOW = 1_000
ROUNDS = 5

Row = tuple[dict[str, float], bool]


class Cost(NamedTuple):
    """µs a row."""

    cpu: float
    wall: float


# --- the baseline -----------------------------------------------------------------------------------------


def made_up(rows: int, seed: int = 0) -> list[Row]:
    """Eight numbers and a truth that follows from them, with noise."""
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        x = {name: round(rng.gauss(0, 1), 4) for name in COLUMNS}
        made.append((x, sum(map(float.__mul__, WEIGHTS, x.values())) + rng.gauss(0, 1) > 0))
    return made


def make_model() -> Any:
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def river(data: Sequence[Row]) -> Cost:
    """The pure loop in memory: predict, score over a window (accuracy and log-loss), learn."""
    model = make_model()
    predict, learn = model.predict_proba_one, model.learn_one
    window: deque[tuple[bool, float]] = deque()
    hits, loss = 0, 0.0
    gc.collect()
    begin = Clock()
    for x, y in data:
        p = predict(x)[True]
        score = (p >= 0.5) is y, -math.log(max(p if y else 1 - p, 1e-15))
        window.append(score)
        hits += score[0]
        loss += score[1]
        if len(window) > WINDOW:
            old = window.popleft()
            hits -= old[0]
            loss -= old[1]
        learn(x, y)
    return begin.cost(len(data))


class Clock:
    """CPU of this process and wall time since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = process_time(), perf_counter()

    def cost(self, rows: int) -> Cost:
        return Cost((process_time() - self.cpu) / rows * 1e6, (perf_counter() - self.wall) / rows * 1e6)


# --- rounds -----------------------------------------------------------------------------------------------


def interleaved(ways: Mapping[str, Callable[[], Cost]], rounds: int = ROUNDS) -> dict[str, list[Cost]]:
    """The cost of each way in each round, all ways of a round one after the other."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            costs[name].append(measure())
            note(f"round {number + 1} of {rounds}: {name} {costs[name][-1].cpu:.2f} µs CPU")
    return costs


def ratio(base: Sequence[Cost], costs: Sequence[Cost], what: str = "cpu", times: float = 1.0) -> float:
    """How many times cheaper than the base, `times` rows of it: median over the rounds."""
    return statistics.median(times * getattr(b, what) / getattr(c, what) for b, c in zip(base, costs, strict=True))


def median(costs: Iterable[Cost], what: str = "cpu") -> float:
    return statistics.median(getattr(cost, what) for cost in costs)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# --- processes of their own -------------------------------------------------------------------------------

PRELOAD = (
    "river.linear_model", "river.preprocessing", "headrace.infra.kafka_bus", "headrace.infra.service",
    "headrace.infra.artifacts", "headrace.infra.store", "headrace.services.trainer.__main__",
    "headrace.services.predictor.__main__", "headrace.services.validator.__main__",
    "headrace.services.joiner.__main__", "headrace.services.evaluator.online",
)  # fmt: skip
_fork = get_context("forkserver")
_fork.set_forkserver_preload(list(PRELOAD))


class Child:
    """A function at work in a process of its own, forked from one that holds no Kafka client."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._ours, theirs = _fork.Pipe()
        self.process = _fork.Process(target=_at_work, args=(theirs, work, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, what: Any) -> None:
        self._ours.send(what)

    def result(self) -> Any:
        """What the function returned, or the next thing it said. Raises RuntimeError where it failed."""
        try:
            done, value = self._ours.recv()
        except EOFError:
            raise RuntimeError(f"the process {self.process.pid} ended without a result") from None
        if not done:
            raise RuntimeError(value)
        return value

    def end(self) -> None:
        self.process.terminate()
        self.process.join()


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    child = Child(work, *arguments)
    try:
        return child.result()
    finally:
        child.process.join()


def _at_work(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import traceback

    try:
        wants_pipe = "pipe" in work.__code__.co_varnames[: work.__code__.co_argcount]
        pipe.send((True, work(*arguments, pipe) if wants_pipe else work(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))


# --- what is told -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One number of the report. `must` is `>= 0.78`, `< 550` or empty where it is reported only."""

    what: str
    value: float
    unit: str
    must: str = ""
    detail: str = ""

    def met(self) -> bool | None:
        if not self.must:
            return None
        sign, _, limit = self.must.partition(" ")
        return {">=": self.value >= float(limit), "<=": self.value <= float(limit), "<": self.value < float(limit)}[
            sign
        ]


def beside(
    name: str, base: Sequence[Cost], costs: Sequence[Cost], must: str = "", per: str = "record", base_rows: float = 1.0
) -> Line:
    """The CPU ratio of a way to its base, with the numbers behind it."""
    cpu, wall = (ratio(base, costs, what, base_rows) for what in ("cpu", "wall"))
    rounds = ", ".join(f"{base_rows * b.cpu / c.cpu:.2f}" for b, c in zip(base, costs, strict=True))
    detail = f"{median(costs):.1f} µs CPU a {per}; wall {wall:.2f}; rounds {rounds}"
    return Line(name, round(cpu, 3), "× pure River, CPU", must, detail)


def tell(title: str, lines: Sequence[Line], as_json: bool) -> None:
    """Print a benchmark's lines, for people or as JSON."""
    if as_json:
        print(json.dumps({"title": title, "lines": [asdict(line) for line in lines]}))
        return
    print(title)
    for line in lines:
        print("  " + text_of(line))


def text_of(line: Line) -> str:
    verdict = {None: "", True: f"(must {line.must}: reached)", False: f"(must {line.must}: MISSED)"}[line.met()]
    return f"{line.what:<46} {line.value:>10,.3f} {line.unit:<18} {verdict} {line.detail}"


def note(text: str) -> None:
    """Say on standard error how far it is."""
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)


def arguments(doc: str, **more: Any) -> argparse.Namespace:
    """`--rounds`, `--json`, and an integer option for each further name."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    for name, default in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def broker() -> str:
    """The broker of KAFKA_BOOTSTRAP_SERVERS, or one started for this folder and left running."""
    from headrace.infra.local_broker import ensure_broker

    address = ensure_broker(Path.cwd() / ".headrace", say=note)
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = address
    return address
