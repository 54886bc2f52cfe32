"""How often the online gate and the guard err, and how soon they find what is so: the tables of docs/statistics.md.

`python benchmarks/error_rates.py --runs 2000` (on two cores about an hour; 200 runs say it roughly). Runs the service's
own trial, maturity mark and verdicts over made-up pairs with labels that come late, or never; beside them what people
do without: a z-test looked at every 100 labels, and a canary with a fixed threshold. Intervals are exact binomial ones
(Clopper and Pearson 1934), of 95 %.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from heapq import heappop, heappush
from math import sqrt
from statistics import median
from typing import Literal, NamedTuple

from scipy.stats import binomtest

from headrace.schemas.policies import Policies, Rollout
from headrace.services.evaluator.paired_loss import PairedLoss
from headrace.services.evaluator.ripening import Pair, Ripening, Waiting
from headrace.services.evaluator.trial import Kind, Trial, begin
from headrace.services.evaluator.verdicts import decide

Loss = Literal["0/1 loss", "Brier", "absolute error"]
NOISE = {"Brier": 0.5, "absolute error": 0.35}  # what one arm's answer has for itself
ROW_MS = 1_000  # between two predictions
LATE = 500
LUCK = 0.3  # who has it wins .5 + this of the rows where the two arms differ
LOOK_EACH, Z = 100, 1.645


@dataclass(frozen=True)
class World:
    """Two arms on one stream. `gain`: how much less the new one loses; `delay` of a label in rows, by its class.

    `tilt`: so much more is gained where the label is True, so much less where it is False. `regime`: one arm has the
    luck, then the other, for a number of rows that is geometric with this mean; which one begins is chance, so there is
    no gain in the mean over all runs, but in most runs there is. `seeds`: where they begin; worlds that share them see
    the same pairs.
    """

    name: str
    loss: Loss = "0/1 loss"
    discordance: float = 0.1
    gain: float = 0.0
    tilt: float = 0.0
    delay: tuple[int, int] = (0, 0)
    missing: float = 0.0
    regime: int = 0
    seeds: int = 0


class Result(NamedTuple):
    """A verdict after so many labels."""

    verdict: str
    n: int


def pairs_of(world: World, rng: random.Random) -> Iterator[tuple[bool, float, float]]:
    """Labels, and the losses of the old and of the new arm, for ever."""
    luck_of_new = 2 * LUCK * world.discordance if world.regime else 0.0
    if world.regime and rng.random() < 0.5:
        luck_of_new = -luck_of_new
    while True:
        if world.regime and rng.random() < 1 / world.regime:
            luck_of_new = -luck_of_new
        label = rng.random() < 0.5
        gain = world.gain + luck_of_new + (world.tilt if label else -world.tilt)
        if world.loss == "0/1 loss":
            luck = rng.random()
            if luck < world.discordance:
                new_is_right = luck < (world.discordance + gain) / 2
                yield label, float(new_is_right), float(not new_is_right)
            else:
                both = float(luck > 1 - 0.2)
                yield label, both, both
            continue
        shared, noise = rng.gauss(0, 1), NOISE[world.loss]
        old, new = (shared + noise * rng.gauss(0, 1) for _ in range(2))
        if world.loss == "Brier":
            losses = [(min(max(0.3 + 0.2 * error, 0.0), 1.0)) ** 2 for error in (old, new)]
        else:
            losses = [min(abs(error) / 4, 1.0) for error in (old, new)]
        yield label, losses[0], min(max(losses[1] - gain, 0.0), 1.0)


def arrivals(world: World, rng: random.Random, rows: int) -> Iterator[tuple[int, int, int, Pair]]:
    """When each label comes, the number of its row, the first that still waits, its pair: in the order of coming."""
    due: list[tuple[int, int, Pair]] = []
    came, oldest = set[int](), 0
    stream = pairs_of(world, rng)
    for now in range(rows + max(world.delay) + 1):
        if now < rows:
            label, old, new = next(stream)
            if rng.random() >= world.missing:
                pair = Pair(label, (old, new), (label, label), (1 - old, 1 - new), (1.0, 1.0))
                heappush(due, (now + world.delay[label], now, pair))
        while due and due[0][0] <= now:
            at, number, pair = heappop(due)
            came.add(number)
            while oldest in came:
                came.discard(oldest)
                oldest += 1
            yield at, number, oldest, pair


def trial_of(kind: Kind, world: World) -> Trial:
    """A comparison that begins, by the defaults."""
    policies = Policies(rollout=Rollout(anchor_s=0))
    longest = max(world.delay)
    return begin(
        kind, "old", "new", epoch=1, known_ms=0, policies=policies, metric="accuracy", slices=(), classes=Counter(),
        loss=PairedLoss(world.loss, "binary", {}), inflated=None if world.regime else 1.0,
        ripening=Ripening(0, max(4 * longest * ROW_MS, 60_000)),
    )  # fmt: skip


def judged(kind: Kind, world: World, seed: int, horizon: int) -> Result:
    """The first verdict; "none" where the horizon ends before."""
    seed += world.seeds
    trial, table = trial_of(kind, world), dict[int, Waiting]()
    for at, number, oldest, pair in arrivals(world, random.Random(seed), horizon):
        trial.ripening.put(table, (0, number), Waiting(number * ROW_MS, pair), oldest, at * ROW_MS)
        for ripe in trial.ripening.take(table):
            trial.add(ripe)
            decision = decide(trial, at * ROW_MS)
            if decision is not None:
                return Result(decision.verdict, trial.n)
    return Result("none", trial.n)


def as_they_come(world: World, seed: int, horizon: int) -> Result:
    """The online gate without the order of predictions: each pair counts when its label comes."""
    trial = trial_of("online", world)
    for at, _, _, pair in arrivals(world, random.Random(seed + world.seeds), horizon):
        trial.add(pair)
        decision = decide(trial, at * ROW_MS)
        if decision is not None:
            return Result(decision.verdict, trial.n)
    return Result("none", trial.n)


def z_test(world: World, seed: int, horizon: int) -> Result:
    """A one-sided z-test of the mean gain at 5 %, looked at after every 100 labels."""
    n, total, squares = 0, 0.0, 0.0
    for _, old, new in pairs_of(world, random.Random(seed)):
        n, total, squares = n + 1, total + old - new, squares + (old - new) ** 2
        if n % LOOK_EACH == 0 and n >= Policies().gates.min_labels:
            spread = sqrt(max(squares / n - (total / n) ** 2, 1e-12) / n)
            if total / n / spread > Z:
                return Result("pass", n)
        if n >= horizon:
            break
    return Result("inconclusive", n)


def canary(world: World, seed: int, horizon: int) -> Result:
    """A tenth of the rows for the new arm: promoted where after 1,000 of them its loss is below that of the others."""
    rng, sums, counts = random.Random(seed + 1), [0.0, 0.0], [0, 0]
    for n, (_, old, new) in enumerate(pairs_of(world, random.Random(seed)), 1):
        arm = int(rng.random() < 0.1)
        sums[arm] += (old, new)[arm]
        counts[arm] += 1
        if counts[1] >= 1_000:
            return Result("pass" if sums[1] / counts[1] < sums[0] / counts[0] else "fail", n)
    raise AssertionError("the stream has no end")


def online(world: World, seed: int, horizon: int) -> Result:
    """The online gate."""
    return judged("online", world, seed, horizon)


def guard(world: World, seed: int, horizon: int) -> Result:
    """The guard behind a promotion."""
    return judged("guard", world, seed, horizon)


def refresh(world: World, seed: int, horizon: int) -> Result:
    """The refresh test of newer revisions beside their anchor."""
    return judged("refresh", world, seed, horizon)


Rule = Callable[[World, int, int], Result]

EQUAL = [
    *(World(f"0/1, discordance {d:g}", discordance=d) for d in (0.02, 0.05, 0.1, 0.2, 0.3)),
    World("Brier", "Brier"),
    World("absolute error", "absolute error"),
    World("0/1 .1, 5 % of labels never", delay=(20, 20), missing=0.05),
]
LUCKY = [World(f"0/1 .1, luck that lasts {rows} rows in the mean", regime=rows) for rows in (20, 50, 200)]
BY_CLASS = [
    World(
        f"0/1 .2, one class after {soon} rows, where the new one gains {gain + tilt:+.0%}, the other after {late}, "
        f"where it gains {gain - tilt:+.0%}: {gain:+.0%} in all",
        discordance=0.2, gain=gain, tilt=tilt, delay=(late, soon), seeds=seeds,
    )
    for seeds, (soon, late) in ((20_000, (5, LATE)), (30_000, (20, 2_000)))
    for gain, tilt in ((0.0, 0.05), (-0.05, 0.1))
]  # fmt: skip
BETTER = [
    World(f"0/1, discordance {d:g}, {gain:+.0%}", discordance=d, gain=gain)
    for d in (0.05, 0.1, 0.2)
    for gain in (-0.02, 0.01, 0.02, 0.05)
] + [
    World("Brier, +.02", "Brier", gain=0.02),
    World("absolute error, +.02", "absolute error", gain=0.02),
]
NO_WORSE = [
    World("0/1, discordance .2", discordance=0.2),
    World("Brier", "Brier"),
    World("absolute error", "absolute error"),
]
WORSE = [World(f"0/1, discordance .2, {gain:+.0%}", discordance=0.2, gain=gain) for gain in (-0.02, -0.05, -0.1)]
WORSE.append(World("0/1, discordance .3, -20%", discordance=0.3, gain=-0.2))


REVISIONS = [
    World(f"0/1, discordance {d:g}, {gain:+.0%}", discordance=d, gain=gain)
    for d, gain in ((0.01, 0), (0.05, 0), (0.1, 0), (0.05, -0.02), (0.1, -0.05), (0.1, -0.1), (0.2, -0.2))
]


def table(title: str, rule: Rule, worlds: list[World], finding: str, runs: int, horizon: int) -> Iterator[str]:
    """A row for each world: how often the rule found it, with its interval, and after how many labels."""
    yield f"\n| {title} | {finding} | interval | median labels | other verdicts |\n|---|---|---|---|---|"
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for world in worlds:
            jobs = [rule] * runs, [world] * runs, range(runs), [horizon] * runs
            results = list(pool.map(_call, *jobs, chunksize=max(runs // 40, 1)))
            found = [result.n for result in results if result.verdict == finding]
            low, high = binomtest(len(found), runs).proportion_ci()
            others = Counter(result.verdict for result in results if result.verdict != finding)
            told = ", ".join(f"{verdict} {count / runs:.3f}" for verdict, count in sorted(others.items()))
            middle = f"{median(found):,.0f}" if found else "-"
            yield f"| {world.name} | {len(found) / runs:.4f} | {low:.4f} to {high:.4f} | {middle} | {told} |"


def _call(rule: Rule, world: World, seed: int, horizon: int) -> Result:
    return rule(world, seed, horizon)


def main() -> None:
    """Print every table as it is found."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=200)
    asked.add_argument("--horizon", type=int, default=5_000, help="labels after which nothing more is looked at")
    asked.add_argument(
        "tables", nargs="*", help="equal luck byclass arrival unequal false guard fail pass z canary; all without it"
    )
    options = asked.parse_args()
    runs, horizon = options.runs, options.horizon
    naive = [*EQUAL[:5], *BETTER[4:8]]
    tables = {
        "equal": ("online gate, equal models", online, EQUAL, "pass"),
        "luck": ("online gate, equal models, lasting luck", online, LUCKY, "pass"),
        "byclass": ("online gate, delays by class", online, BY_CLASS, "pass"),
        "arrival": ("the same in the order in which labels come", as_they_come, BY_CLASS, "pass"),
        "unequal": ("online gate, unequal models", online, BETTER, "pass"),
        "false": ("guard, equal models", guard, NO_WORSE, "fail"),
        "guard": ("guard, worse models", guard, WORSE, "fail"),
        "fail": ("refresh test: newer revisions fail", refresh, REVISIONS, "fail"),
        "pass": ("refresh test: newer revisions pass", refresh, REVISIONS, "pass"),
        "z": ("z-test, looked at every 100 labels", z_test, naive, "pass"),
        "canary": ("canary of 10 %, fixed threshold", canary, naive, "pass"),
    }
    for name in options.tables or tables:
        for line in table(*tables[name], runs, horizon):
            print(line, flush=True)


if __name__ == "__main__":
    main()
