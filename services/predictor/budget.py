"""How much time arms that serve nobody may take: the served answer, and every record behind it, waits for them.

Each such arm may take as long as the arm that serves took, 0.1 ms at least. What it takes beyond that it pays from an
account, which earns a share of the time that passes; with nothing left it is shed. Where many records are at hand
little time passes between two, so there only arms go on that are cheap or as fast as the champion; where few come a
slow one does too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

CHEAP_US = 100  # what a row costs the whole chain at full speed (docs/performance.md); most models are cheaper
CALLS = 100  # one that takes longer than so many before it is a pause of the machine, and costs no more than those


@dataclass(slots=True)
class Account:
    """What one run may still take, what a call usually takes, and when it was last asked for."""

    credit_us: float
    seen_us: int
    usual_us: float = 0.0


class Budget:
    """The accounts of one pipeline's arms in shadow. `burst_us` is the most that can be saved, and the first credit."""

    def __init__(self, clock_us: Callable[[], int], share: float, burst_us: float) -> None:
        self.share, self.burst_us = share, burst_us
        self.shed = 0
        self._clock_us = clock_us
        self._accounts: dict[str, Account] = {}
        self._began = self._served_us = 0
        self._asked: Account | None = None

    def retain(self, runs: Iterable[str]) -> None:
        """Forget the accounts of all other runs."""
        self._accounts = {run: self._accounts[run] for run in runs if run in self._accounts}

    def begin(self, run: str, *, serves: bool) -> bool:
        """An arm is about to be asked; False where it is to be shed. The arm that serves comes first."""
        now = self._began = self._clock_us()
        self._asked = None
        if serves:
            return True
        account = self._accounts.get(run)
        if account is None:
            account = self._accounts[run] = Account(self.burst_us, now)
        account.credit_us = min(account.credit_us + self.share * (now - account.seen_us), self.burst_us)
        account.seen_us = now
        if account.credit_us <= 0:
            self.shed += 1
            return False
        self._asked = account
        return True

    def end(self) -> None:
        """The arm that was asked has answered, or raised."""
        took_us = self._clock_us() - self._began
        account = self._asked
        if account is None:
            self._served_us = took_us
            return
        # signed: a busy machine halts both arms now and then, and one that is as fast must not pay for its half alone
        account.credit_us += max(self._served_us, CHEAP_US) - min(took_us, CALLS * account.usual_us)
        account.usual_us += (took_us - account.usual_us) / CALLS
