"""One step of a canary: who was served by which arm, for how long, and who was left without an answer.

Both arms answer every request, so the quality is compared on all of them (trial.py). What the step adds is whether
the machinery held at this share: the arms' sizes, and the errors of the challenger's units beside those of as many
others, whom the champion served at the same time; and how often each arm took too long over the same requests. Counted
are labelled requests, at the time of their predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.canary import place_of, unit_of
from headrace.schemas.control import Check
from headrace.schemas.policies import Rollout
from headrace.schemas.stream import PredictionMade
from headrace.services.evaluator.lean import Answered
from headrace.statistics.distances import MORE_OFTEN_SOURCE, more_often
from headrace.statistics.sample_ratio import SOURCE as RATIO_SOURCE
from headrace.statistics.sample_ratio import sample_ratio

UNLIKELY = 0.001
UNITS = 5_000  # entities whose arm is remembered: at a share of 10 % they show an arm that is a fifth too small


@dataclass(slots=True)
class Step:
    """What was seen at one share. Lists hold the champion's number, then the challenger's.

    `units` counts by the arm that served; of entities each counts once, `seen` holds the places of those that did.
    `asked` and `failed` count requests: of the challenger's units, and of an equal slice of the champion's.
    `pairs_before`: how many pairs the comparison had when the step began.
    """

    share: float
    epoch: int
    first_ms: int
    pairs_before: int
    last_ms: int = 0
    requests: int = 0
    units: list[int] = field(default_factory=lambda: [0, 0])
    seen: set[float] = field(default_factory=set)
    asked: list[int] = field(default_factory=lambda: [0, 0])
    failed: list[int] = field(default_factory=lambda: [0, 0])
    timed: int = 0
    slow: list[int] = field(default_factory=lambda: [0, 0])
    is_told: bool = False

    def count(
        self,
        made: Answered | PredictionMade,
        challenger: str,
        answered: Sequence[bool],
        slow: Sequence[bool] | None,
        predicted_at_ms: int,
    ) -> None:
        """One request of this step; whether champion and challenger had a usable answer, and took too long for it."""
        self.requests += 1
        self.first_ms, self.last_ms = min(self.first_ms, predicted_at_ms), max(self.last_ms, predicted_at_ms)
        place = place_of(challenger, unit_of(made.id, made.entity))
        is_due = place < self.share
        if made.entity is None or (place not in self.seen and len(self.seen) < UNITS):
            # a unit whose challenger had no answer is the challenger's all the same: that is an error, not a lost unit
            self.units[made.served == "challenger" or (is_due and not answered[1])] += 1
            if made.entity is not None:
                self.seen.add(place)
        if slow is not None:
            self.timed += 1
            self.slow = [known + one for known, one in zip(self.slow, slow, strict=True)]
        if is_due:
            self.asked[1] += 1
            self.failed[1] += not answered[1]
        elif place >= 1 - min(self.share, 1 - self.share):
            self.asked[0] += 1
            self.failed[0] += not answered[0]

    def is_due(self, rollout: Rollout, pairs: int) -> bool:
        """Whether the step has lasted, with requests and with pairs of the comparison, as long as it must."""
        new = pairs - self.pairs_before
        return min(self.requests, new) >= rollout.step_requests and self.seconds() >= rollout.step_s

    def seconds(self) -> float:
        """From the first prediction of the step to the last one."""
        return (self.last_ms - self.first_ms) / 1000

    def checks(self, rollout: Rollout, predict_ms: float) -> tuple[Check, ...]:
        """How long the step was, whether the arms had their shares, the errors, and where it was timed the latency."""
        told = (self._time(rollout), self._requests(rollout), self._ratio(), self._errors())
        return (*told, self._latency(predict_ms)) if self.timed else told

    def _time(self, rollout: Rollout) -> Check:
        is_enough = self.seconds() >= rollout.step_s
        detail = f"seconds from the first prediction at a share of {self.share:.0%} to the last"
        return _limit("step time", "step_s", self.seconds(), rollout.step_s, is_enough, self.requests, detail)

    def _requests(self, rollout: Rollout) -> Check:
        is_enough = self.requests >= rollout.step_requests
        detail = f"labelled requests at a share of {self.share:.0%}"
        return _limit(
            "step requests", "step_requests", self.requests, rollout.step_requests, is_enough, self.requests, detail
        )

    def _ratio(self) -> Check:
        n = sum(self.units)
        p = sample_ratio(self.units[1], n, self.share) if n else 1.0
        detail = (
            f"p that a share of {self.share:.0%} gives the challenger {self.units[1]} of {n} units; "
            "two-sided; a broken ratio makes the step no experiment"
        )
        return Check(
            name="sample ratio", verdict="error" if p < UNLIKELY else "pass", value=p, limit=UNLIKELY, n=n,
            detail=detail, source=RATIO_SOURCE,
        )  # fmt: skip

    def _errors(self) -> Check:
        (old, new), (old_n, new_n) = self.failed, self.asked
        p = more_often(old, old_n, new, new_n)
        detail = (
            f"p that {new} of {new_n} of the challenger's requests without a usable answer are no more than the "
            f"champion's {old} of {old_n}, of a slice as large at the same time"
        )
        return Check(
            name="errors", verdict="fail" if p < UNLIKELY else "pass", value=p, limit=UNLIKELY, n=old_n + new_n,
            detail=detail, source=MORE_OFTEN_SOURCE,
        )  # fmt: skip

    def _latency(self, predict_ms: float) -> Check:
        """A machine that stands still for a while hits both arms alike."""
        old, new = self.slow
        p = more_often(old, self.timed, new, self.timed)
        detail = (
            f"p that {new} of {self.timed} answers of the challenger that took more than {predict_ms:g} ms are no more "
            f"than the champion's {old} to the same requests"
        )
        return Check(
            name="latency", verdict="fail" if p < UNLIKELY else "pass", value=p, limit=UNLIKELY, n=self.timed,
            detail=detail, source=MORE_OFTEN_SOURCE,
        )  # fmt: skip


def step_of(step: Step | None, made: Answered | PredictionMade, predicted_at_ms: int, pairs: int) -> Step | None:
    """The step that a request of a canary counts for: a new one where the share moved on; None for a past share."""
    assert made.share is not None
    if step is None or (made.share != step.share and made.epoch > step.epoch):
        return Step(made.share, made.epoch, predicted_at_ms, pairs, predicted_at_ms)
    if made.share != step.share:
        return None
    step.epoch = max(step.epoch, made.epoch)
    return step


def _limit(name: str, policy: str, value: float, limit: float, is_enough: bool, n: int, detail: str) -> Check:
    return Check(
        name=name, verdict="pass" if is_enough else "inconclusive", value=value, limit=limit, n=n, detail=detail,
        source=f"policy Rollout({policy}=…)",
    )  # fmt: skip
