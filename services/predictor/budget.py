"""How much arms in shadow may take of the predictor's thread: what is served, and every record behind it, waits.

For each record such an arm may take as much as the champion took, 0.1 ms at least. What it takes beyond that it pays
from an account, which earns a share of the time that passes; with nothing left it is shed. Where many records are at
hand little time passes between two, so there only arms go on that are cheap or as fast as the champion; where few come
a slow one does too.

What an answer takes is the CPU time of this thread. By the clock it would pay for each time that a busy machine lets
the thread wait for a core: an arm as fast as the champion was shed for that in 82 of 200 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

CHEAP_S = 0.0001  # what a row costs the whole chain at full speed (docs/performance.md); most models are cheaper
CALLS = 100  # one that takes longer than so many before it is a pause (a collection, a stolen core): it costs no more


@dataclass(slots=True)
class Account:
    """What one run may still take, when that was last asked, and what a call usually takes."""

    credit_s: float
    seen_s: float
    usual_s: float = 0.0

    def cost(self, took_s: float) -> float:
        """What a call counts for. The first one, which finds nothing warm, is free."""
        cost_s = min(took_s, CALLS * self.usual_s)
        self.usual_s += (took_s - self.usual_s) / CALLS
        return cost_s


class Budget:
    """The accounts of one pipeline's arms. `burst_s` is the most that can be saved, and the first credit.

    `clock` tells the time, `cpu` how much of it this thread has computed; both in seconds.
    """

    def __init__(self, share: float, burst_s: float, clock: Callable[[], float], cpu: Callable[[], float]) -> None:
        self.share, self.burst_s = share, burst_s
        self.shed = 0
        self._clock, self._cpu = clock, cpu
        self._now_s = self._cpu_s = 0.0
        self._served_s = CHEAP_S
        self._accounts: dict[str, Account] = {}

    def retain(self, runs: Iterable[str]) -> None:
        """Forget the accounts of all other runs."""
        self._accounts = {run: self._accounts[run] for run in runs if run in self._accounts}

    def begin(self) -> None:
        """A record is about to be answered, first by the arms that serve."""
        self._now_s, self._cpu_s, self._served_s = self._clock(), self._cpu(), CHEAP_S

    def allows(self, run: str) -> bool:
        """Whether an arm in shadow is to be asked; else it is shed."""
        account = self._accounts.get(run) or self._open(run)
        account.credit_s = min(account.credit_s + self.share * (self._now_s - account.seen_s), self.burst_s)
        account.seen_s = self._now_s
        self.shed += account.credit_s <= 0
        return account.credit_s > 0

    def charge(self, run: str, *, serves: bool) -> None:
        """An arm has answered, or raised; what comes now is the next one's."""
        cpu_s, account = self._cpu(), self._accounts.get(run) or self._open(run)
        cost_s = account.cost(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        if serves:
            self._served_s = max(self._served_s, cost_s)
        else:
            account.credit_s += self._served_s - cost_s

    def _open(self, run: str) -> Account:
        account = self._accounts[run] = Account(self.burst_s, self._now_s)
        return account
