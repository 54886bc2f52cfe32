"""One comparison of two runs on the same rows, and what its pairs add up to.

`online`: is the challenger better than the champion? `canary`: is it worse, now that it serves some units? `guard`: is
the new champion worse than the previous model? `refresh`: are the champion's newer revisions worse than its anchor?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from headrace.schemas.policies import Gates, Labels, Metric, Policies, Rollout
from headrace.schemas.stream import Label
from headrace.services.evaluator.canary import Step
from headrace.services.evaluator.doubt import Doubt
from headrace.services.evaluator.gates import MISSING_ALLOWED
from headrace.services.evaluator.paired_loss import PairedLoss
from headrace.services.evaluator.ripening import Pair, Ripening
from headrace.services.evaluator.running_metric import RunningMetric
from headrace.statistics.e_process import EProcess, Inflation, better, futile, no_worse, worse

Kind = Literal["online", "guard", "canary", "refresh"]
MARGIN = 0.02  # of mean loss, between an anchor and newer revisions of its run
GAIN_WORTH = 0.01  # going on for less is in vain
RARE_SHARE = 0.01  # of several classes, those with a smaller share cannot decide anything


@dataclass(slots=True)
class Trial:
    """The sums over the pairs of an old and a new run. Gains are the old run's loss minus the new one's.

    `epoch` is the newest of its rows; frozen arms learn no more, so what they had learned may differ.
    `inflated` is the inflation of the old run's own losses, None where it is not known. `rung`: the next of the
    ladder of limits to tell a pass at. `timely` and `late` count rows by arm and by the class that it had said. `step`
    is the canary's, `pinned` the offset of the revision that a refresh test began with. `slices` holds the slices that
    are judged, fixed when the trial begins: how many there are sets their limit. `shed` counts by
    arm the rows in which it had used up its time in shadow: the old one's are no pairs, the new one's missing answers.
    """

    kind: Kind
    old: str
    new: str
    epoch: int
    began_epoch: int
    began_ms: int
    gates: Gates
    labels: Labels
    rollout: Rollout
    is_frozen: bool
    loss: PairedLoss
    classes: dict[Label, int]
    inflated: float | None
    ripening: Ripening
    metrics: tuple[RunningMetric, RunningMetric]
    evidence: EProcess
    futility: EProcess
    inflation: Inflation = field(default_factory=Inflation)
    n: int = 0
    wins: int = 0
    losses: int = 0
    unequal: int = 0
    missing: list[int] = field(default_factory=lambda: [0, 0])
    shed: list[int] = field(default_factory=lambda: [0, 0])
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    timely: Counter[tuple[int, Label]] = field(default_factory=Counter)
    late: Counter[tuple[int, Label]] = field(default_factory=Counter)
    rung: int = 0
    step: Step | None = None
    pinned: int | None = None
    slices: dict[str, Doubt] = field(default_factory=dict)
    is_over: bool = False

    @property
    def watches(self) -> bool:
        """Whether it asks if the new run is worse, and not if it is better."""
        return self.kind != "online"

    def add(self, pair: Pair) -> None:
        """Count one pair."""
        old, new = pair.losses
        gain = old - new
        self.n += 1
        self.wins += gain > 0
        self.losses += gain < 0
        self.evidence.add(gain)
        self.futility.add(gain)
        self.inflation.add(gain)
        for name in pair.slices:
            if name in self.slices:
                self.slices[name].add(old, new)
        for index, loss in enumerate((*pair.losses, *pair.rivals)):
            self.sums[index] += loss
        if pair.label in self.classes:
            self.classes[pair.label] += 1
        for arm, (said, part) in enumerate(zip(pair.said, pair.parts, strict=True)):
            if said is None:
                self.missing[arm] += 1
            else:
                self.metrics[arm].add(pair.label, said, part)
        self.shed[1] += pair.shed
        self._say(self.timely, pair)

    def came_late(self, pair: Pair) -> None:
        """A pair whose label came after the maturity mark is no evidence, but tells whose labels come late."""
        self._say(self.late, pair)

    def log_e(self, process: EProcess) -> float:
        """The logarithm of a process's E, tempered by what neighbouring rows share."""
        return process.log_e() / self.inflation.factor(self.inflated)

    def reaches(self, process: EProcess, log_limit: float) -> bool:
        """Whether its tempered log E is this large."""
        return process.reaches(log_limit * self.inflation.factor(self.inflated))

    @property
    def slice_alpha(self) -> float:
        """How often a slice may be found worse wrongly: all together as often as all rows."""
        alpha = self.gates.guard_alpha if self.watches else self.gates.alpha
        return alpha / max(len(self.slices), 1)

    def is_worse_in_a_slice(self) -> bool:
        """Whether the new run is clearly worse in one."""
        if not self.slices:
            return False
        inflated = self.inflation.factor(self.inflated)
        return any(doubt.is_borne_out(self.slice_alpha, inflated) for doubt in self.slices.values())

    def misses(self, arms: tuple[int, ...]) -> bool:
        """Whether one of these arms left more rows without an answer than a model may."""
        return any(self.missing[arm] > MISSING_ALLOWED * self.n for arm in arms)

    def _say(self, counter: Counter[tuple[int, Label]], pair: Pair) -> None:
        if self.loss.task == "regression":
            return
        for arm, said in enumerate(pair.said):
            if said is not None:
                counter[arm, said] += 1


def begin(
    kind: Kind,
    old: str,
    new: str,
    *,
    epoch: int,
    known_ms: int,
    policies: Policies,
    loss: PairedLoss,
    metric: Metric,
    slices: Iterable[str],
    classes: Counter[Label],
    inflated: float | None,
    ripening: Ripening,
) -> Trial:
    """A trial without a pair. `classes` counts the labels from before it; of several, rare ones are no condition."""
    gates = policies.gates
    is_refresh = kind == "refresh"
    judged: list[Label] = [label for label, n in classes.items() if n >= RARE_SHARE * classes.total()]
    return Trial(
        kind=kind,
        old=old,
        new=new,
        epoch=epoch,
        began_epoch=epoch,
        began_ms=known_ms,
        gates=gates,
        labels=policies.labels,
        rollout=policies.rollout,
        is_frozen=policies.learning == "frozen",
        loss=loss,
        classes=dict.fromkeys([True, False] if loss.task == "binary" else judged, 0),
        inflated=inflated,
        ripening=ripening,
        metrics=(RunningMetric(metric), RunningMetric(metric)),
        evidence=better(gates.margin) if kind == "online" else worse(MARGIN if is_refresh else 0.0),
        futility=no_worse(MARGIN) if is_refresh else futile(max(gates.margin, GAIN_WORTH)),
        slices={name: Doubt() for name in slices},
    )
