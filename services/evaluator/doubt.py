"""The doubt whether a new run is worse than an old one on some rows: all of them, or those of one slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

from headrace.schemas.control import Check
from headrace.statistics.e_process import SOURCE, EProcess, Inflation, e_of, worse

SLICE_ROWS = 200  # of fewer nothing can be said
NOT_WORSE = "not worse"


@dataclass(slots=True)
class Doubt:
    """The bets that the new run is worse, what neighbouring rows share, and the sums of both runs' losses."""

    evidence: EProcess = field(default_factory=worse)
    inflation: Inflation = field(default_factory=Inflation)
    old: float = 0.0
    new: float = 0.0

    def add(self, old: float, new: float) -> None:
        """Count the losses of one more row. Raises LossOutOfBounds."""
        self.evidence.add(old - new)
        self.inflation.add(old - new)
        self.old += old
        self.new += new

    def is_borne_out(self, alpha: float, inflated: float | None) -> bool:
        """Whether E reaches 1 / alpha, tempered; `inflated` is what is known of the factor from other rows."""
        return self.evidence.reaches(-log(alpha) * self.inflation.factor(inflated))

    def check(
        self, alpha: float, inflated: float | None, kind: str, slice: str | None = None, looks: int | None = None
    ) -> Check:
        """The same with its numbers; `kind` is the loss."""
        factor, n = self.inflation.factor(inflated), self.evidence.n
        return Check(
            name=NOT_WORSE if slice is None else f"{NOT_WORSE} at {slice}",
            verdict="fail" if self.is_borne_out(alpha, inflated) else "pass",
            value=e_of(self.evidence.log_e() / factor),
            limit=1 / alpha,
            n=n,
            detail=f"mean {kind} {self.new / max(n, 1):.4f}, the old run's {self.old / max(n, 1):.4f}, over {n} rows; "
            f"variance inflation {factor:.2f}",
            slice=slice,
            source=SOURCE,
            looks=looks,
        )
