"""What follows where the predictor had no time to ask an arm in shadow.

A challenger that is too slow to keep up in shadow could not serve either: such a row is an answer that is missing. A
previous model or an anchor is what another one is measured by, so there the row compares nothing.
"""

from __future__ import annotations

from headrace.schemas.control import Check
from headrace.services.evaluator.gates import MISSING_ALLOWED
from headrace.services.evaluator.trial import Trial


def pairs_of_guard(trial: Trial, looks_worse: bool) -> int:
    """How many pairs a guard takes."""
    gates = trial.gates
    return max(gates.min_labels, gates.guard_labels, gates.max_labels if looks_worse else 0)


def is_shed_too_often(trial: Trial) -> bool:
    """Whether a guard waits in vain: its previous model was shed for as many rows as it would watch at most."""
    return trial.kind == "guard" and trial.shed[0] >= pairs_of_guard(trial, looks_worse=True)


def shed_checks(trial: Trial) -> tuple[Check, ...]:
    """For how many rows an arm was shed; nothing where it never was."""
    old, new = trial.shed
    if not old and not new:
        return ()
    rows = trial.n + old
    verdict = "fail" if new > MISSING_ALLOWED * trial.n else "inconclusive" if is_shed_too_often(trial) else "pass"
    detail = (
        f"shed: the {'new' if new else 'old'} run was too slow to run in shadow and not asked in {max(old, new):,} of "
        f"{rows:,} rows, {'each a loss of 1' if new else 'which are no pairs'}; its time: "
        f"Rollout(shadow_share={trial.rollout.shadow_share:g})"
    )
    return (Check(name="shed", verdict=verdict, value=max(old, new) / rows, n=rows, detail=detail),)
