"""A rise of the mean of bounded losses, found by ADWIN and confirmed by its size."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from river import drift

RECENT = 200  # rows whose mean says how large the rise is
SUSPECT_ROWS = 1_000  # rows that a detection has to prove its size


class Rise(NamedTuple):
    """A confirmed rise: the mean before it, and of the newest rows."""

    before: float
    recent: float


@dataclass(slots=True)
class RisingMean:
    """Tells when the mean of losses in [0, 1] rose by `effect` or more.

    ADWIN (Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, SDM 2007; River's) finds any
    change of the mean at confidence 1 - `delta`. It forgets the old rows with the detection that they proved, so a
    detection whose rise is still too small would be lost: the mean before it is kept, and for the next `SUSPECT_ROWS`
    the mean of the newest `RECENT` rows may still confirm it.
    """

    delta: float
    effect: float
    adwin: Any = field(init=False)
    recent: array[float] = field(default_factory=lambda: array("d"))
    before: float | None = None
    suspect_for: int = 0
    quiet_for: int = 0

    def __post_init__(self) -> None:
        self.adwin = drift.ADWIN(delta=self.delta)  # type: ignore[no-untyped-call]

    def update(self, loss: float) -> Rise | None:
        """Take the next loss in; the rise, once, where it is confirmed."""
        recent = self.recent
        recent.append(loss)
        if len(recent) > 2 * RECENT:
            del recent[:RECENT]
        adwin = self.adwin
        mean = adwin.estimation
        adwin.update(loss)
        if self.quiet_for:
            self.quiet_for -= 1
            return None
        if adwin.drift_detected and adwin.estimation > mean:
            self.before = mean if self.before is None else min(self.before, mean)
            self.suspect_for = SUSPECT_ROWS
        if self.before is None:
            return None
        newest = recent[-RECENT:]
        rise = Rise(self.before, sum(newest) / len(newest))
        if rise.recent - rise.before >= self.effect:
            self.before, self.suspect_for = None, 0
            return rise
        self.suspect_for -= 1
        if not self.suspect_for:
            self.before = None
        return None

    def be_quiet(self, rows: int) -> None:
        """Tell nothing of the next rows: the cool-down after an alarm."""
        self.quiet_for, self.before = rows, None
