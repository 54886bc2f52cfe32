"""Evidence that may be looked at after every pair: bets against a bounded mean.

Who doubts that the newcomer is better bets against it. Each bet stakes a fixed share of its wealth on the next
difference of two losses; while the doubt is right, no bet is expected to win, so the mean wealth E of all bets is a
nonnegative supermartingale that begins at 1. It reaches 1/alpha with probability alpha at most, however often one
looks (Ville 1939). Bets on bounded means: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 86 (2024); mean wealth as evidence: Shafer, "Testing by betting", JRSS A 184 (2021); a paired
comparison of forecasters: Choe and Ramdas, "Comparing sequential forecasters", Operations Research 72 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log, log1p

SOURCE = "bets on a bounded mean, Waudby-Smith and Ramdas 2024"
BETS = 32
STAKES = tuple((k + 0.5) / BETS for k in range(BETS))
BLOCK = 50  # pairs; longer than most runs of luck, short enough for twenty of them within a thousand labels
BLOCKS = 20  # fewer give a variance that is mostly noise
UNSURE = 3.0
LARGEST = log(1e300)  # of a reported E: exp of much more is no float


class LossOutOfBounds(ValueError):
    """A difference of losses outside [-1, 1]: a bet could lose more than it has, and E would say nothing.

    Losses lie in [0, 1]; Brier's sum over several classes is halved first.
    """


@dataclass(slots=True)
class EProcess:
    """The wealth of bets that the mean of `sign` × gain is larger than `margin`; a gain lies in [-1, 1].

    A gain is the old model's loss minus the new one's, whatever is asked. 32 stakes (k + .5) / 32 / (1 + |margin|),
    so no factor 1 + stake × (gain - margin) is ever 0 or less. O(32) a pair.

    >>> evidence = better()
    >>> for gain in [1, 1, 0, 1, 1, 1, 1, 1]:
    ...     evidence.add(gain)
    >>> evidence.n, round(exp(evidence.log_e()), 1)
    (8, 31.9)
    """

    margin: float = 0.0
    sign: int = 1
    n: int = 0
    log_wealths: list[float] = field(default_factory=lambda: [0.0] * BETS)

    def add(self, gain: float) -> None:
        """Bet on one more pair. Raises LossOutOfBounds."""
        if not -1 <= gain <= 1:
            raise LossOutOfBounds(f"a gain of {gain} is no difference of two losses in [0, 1]")
        self.n += 1
        outcome = (self.sign * gain - self.margin) / (1 + abs(self.margin))
        if outcome:
            self.log_wealths = [
                wealth + log1p(stake * outcome) for wealth, stake in zip(self.log_wealths, STAKES, strict=True)
            ]

    def log_e(self) -> float:
        """The logarithm of the mean wealth; 0 before any gain or loss."""
        most = max(self.log_wealths)
        return most + log(sum(exp(wealth - most) for wealth in self.log_wealths) / BETS)

    def reaches(self, log_limit: float) -> bool:
        """Whether log E is this large: it is never larger than the best bet's wealth, which is quicker to see."""
        return max(self.log_wealths) >= log_limit and self.log_e() >= log_limit


def e_of(log_e: float) -> float:
    """E itself, as it is reported: 1e300 at most."""
    return exp(min(log_e, LARGEST))


def better(margin: float = 0.0) -> EProcess:
    """Evidence against "the new model's gain is not larger than `margin`": it grows when the new one is better."""
    return EProcess(margin)


def futile(gain: float = 0.01) -> EProcess:
    """Evidence against "the new model gains `gain` or more": it grows when going on is in vain."""
    return EProcess(-gain, sign=-1)


def worse(by: float = 0.0) -> EProcess:
    """Evidence against "the new model is not worse, or by less than `by`": the guard behind a promotion."""
    return EProcess(by, sign=-1)


def no_worse(by: float = 0.02) -> EProcess:
    """Evidence against "the new model is worse by `by` or more": non-inferiority, for refreshes."""
    return EProcess(-by)


@dataclass(slots=True)
class Inflation:
    """How much more block means vary than those of independent gains would: the variance inflation factor.

    Neighbouring rows share their luck (weather, a campaign), so n pairs say less than n independent ones. E is
    tempered to E ** (1 / factor): a power below 1 of a supermartingale is one too (Jensen), so nothing is lost but
    speed where gains are independent, and where they are not the false alarms are fewer, not none.
    Batch means: Conway, "Some tactical problems in digital simulation", Management Science 10 (1963).
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    open_n: int = 0
    open_sum: float = 0.0
    blocks: int = 0
    block_mean: float = 0.0
    block_squares: float = 0.0

    def add(self, gain: float) -> None:
        """Count one more pair (Welford's sums)."""
        self.n += 1
        change = gain - self.mean
        self.mean += change / self.n
        self.squares += change * (gain - self.mean)
        self.open_n += 1
        self.open_sum += gain
        if self.open_n == BLOCK:
            self.blocks += 1
            mean = self.open_sum / BLOCK
            change = mean - self.block_mean
            self.block_mean += change / self.blocks
            self.block_squares += change * (mean - self.block_mean)
            self.open_n, self.open_sum = 0, 0.0

    def is_known(self) -> bool:
        """Whether there are blocks enough to trust the factor."""
        return self.blocks >= BLOCKS

    def factor(self, before: float | None = None) -> float:
        """1 or more; below 20 blocks at least `before` (what was known of the old model's losses), else 3."""
        if not self.squares:
            return 1.0
        found = 1.0
        if self.blocks > 1:
            found = BLOCK * (self.block_squares / (self.blocks - 1)) / (self.squares / (self.n - 1))
        if self.is_known():
            return max(found, 1.0)
        return max(found, UNSURE if before is None else before, 1.0)
