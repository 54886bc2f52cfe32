"""What a trial's pairs decide, with every check and its numbers. The rules' reasons: docs/statistics.md."""

from __future__ import annotations

from math import log
from typing import NamedTuple

from headrace.schemas.control import Check, Verdict
from headrace.services.evaluator.gates import MISSING_ALLOWED, OWN_RULE, overall
from headrace.services.evaluator.trial import Trial
from headrace.statistics.alpha_spending import log_limit, next_rung
from headrace.statistics.e_process import SOURCE, e_of
from headrace.statistics.proportions import SOURCE as PROPORTIONS
from headrace.statistics.proportions import against_the_rest, bonferroni

RAREST = 50
UNEVEN = 0.001
LOOKS_WORSE = 0.02  # of mean loss: a guard that has not proven it goes on for as long as a challenger may
LAST_RUNG = 1_000  # the challenger that would need more evidence is the thousandth since an alert


class Decision(NamedTuple):
    """A verdict and its checks; after one that is final nothing more is told."""

    verdict: Verdict
    checks: tuple[Check, ...]
    final: bool


def decide(trial: Trial, clock_ms: int) -> Decision | None:
    """What the pairs so far decide, at a known time: asked after each."""
    if trial.is_over:
        return None
    if trial.kind == "refresh":
        decision = _refreshed(trial, clock_ms)
    else:
        decision = {"online": _promoted, "canary": _stepped, "guard": _guarded}[trial.kind](trial)
    return None if decision is None else _told(trial, decision)


def expire(trial: Trial, clock_ms: int) -> Decision | None:
    """A challenger that has not convinced in time is given up."""
    age_s = (clock_ms - trial.began_ms) / 1000
    if trial.is_over or trial.watches or age_s <= trial.gates.max_age_s:
        return None
    limit = trial.gates.max_age_s
    aged = Check(
        name="age", verdict="inconclusive", value=age_s, limit=limit, detail="seconds since the first",
        source="policy Gates(max_age_s=…)",
    )  # fmt: skip
    return _told(trial, Decision("inconclusive", (*_checks(trial), aged), final=True))


def _told(trial: Trial, decision: Decision) -> Decision:
    if trial.labels.influenced:
        why = "the prediction changes who gets a label, so these labels do not compare the two: report only"
        influenced = Check(
            name="influenced", verdict="inconclusive", detail=why, source="policy Labels(influenced=True)"
        )
        checks = (*decision.checks, influenced)
        decision = Decision("inconclusive", checks, final=True)
    trial.is_over = decision.final
    return decision


def _promoted(trial: Trial) -> Decision | None:
    gates = trial.gates
    is_full = trial.n >= gates.max_labels
    if trial.n < gates.min_labels and not is_full:
        return None
    surprise = log(1 / gates.alpha)
    if trial.reaches(trial.futility, surprise) or trial.misses((0, 1)) or trial.is_worse_in_a_slice():
        return Decision("fail", _checks(trial), final=True)
    if trial.rung <= LAST_RUNG and trial.reaches(trial.evidence, log_limit(gates.alpha, trial.rung)):
        checks = _checks(trial)
        if all(check.verdict == "pass" for check in checks):
            while trial.rung <= LAST_RUNG and trial.reaches(trial.evidence, log_limit(gates.alpha, trial.rung)):
                trial.rung = next_rung(trial.rung)
            return Decision("pass", checks, final=False)
        if _coverage(trial).verdict != "pass":
            return Decision("inconclusive", checks, final=True)
    if not is_full:
        return None
    enough = Check(
        name="labels", verdict="inconclusive", value=trial.n, limit=gates.max_labels, n=trial.n,
        source="policy Gates(max_labels=…)",
    )  # fmt: skip
    return Decision("inconclusive", (*_checks(trial), enough), final=True)


def _stepped(trial: Trial) -> Decision | None:
    """A canary: that it is worse ends it at any time; a step is judged once, when it has lasted long enough."""
    step = trial.step
    if step is None:
        return None
    is_due = not step.is_told and step.is_due(trial.rollout, trial.n)
    if not is_due and not _is_worse(trial):
        return None
    step.is_told = True
    checks = (*step.checks(trial.rollout, trial.gates.predict_ms), *_checks(trial))
    if not is_due:
        return Decision("fail", checks, final=True)
    verdict = overall(checks)
    return Decision(verdict, checks, final=verdict != "pass")


def _is_worse(trial: Trial) -> bool:
    gates = trial.gates
    if trial.n < gates.min_labels:
        return False
    if trial.reaches(trial.evidence, log(1 / gates.guard_alpha)) or trial.misses((1,)):
        return True
    return trial.is_worse_in_a_slice()


def _guarded(trial: Trial) -> Decision | None:
    gates = trial.gates
    if trial.n < gates.min_labels:
        return None
    if _is_worse(trial):
        return Decision("fail", _checks(trial), final=True)
    looks_worse = (trial.sums[1] - trial.sums[0]) / trial.n > LOOKS_WORSE
    if trial.n < (max(gates.guard_labels, gates.max_labels) if looks_worse else gates.guard_labels):
        return None
    checks = _checks(trial)
    verdict: Verdict = "inconclusive" if looks_worse or _coverage(trial).verdict != "pass" else "pass"
    return Decision(verdict, checks, final=True)


def _refreshed(trial: Trial, clock_ms: int) -> Decision | None:
    """Worse than the anchor by the margin, or not worse by it: one of the two is found in the end."""
    gates = trial.gates
    if trial.n < gates.min_labels:
        return None
    if _is_worse(trial):
        return Decision("fail", _checks(trial), final=True)
    is_old_enough = clock_ms - trial.began_ms >= trial.rollout.anchor_s * 1000
    if is_old_enough and trial.reaches(trial.futility, log(1 / gates.alpha)):
        return Decision("pass", (*_checks(trial), _no_worse(trial)), final=True)
    return None


def _checks(trial: Trial) -> tuple[Check, ...]:
    if trial.watches:
        told = (_evidence(trial), _missing(trial), _coverage(trial), _metric(trial), _rivals(trial))
        return told + _slices(trial)
    return (
        _evidence(trial), _gain(trial), _futility(trial), _missing(trial), _coverage(trial), _metric(trial),
        _rarest(trial), _rivals(trial), *_slices(trial),
    )  # fmt: skip


def _evidence(trial: Trial) -> Check:
    log_e = trial.log_e(trial.evidence)
    alpha = trial.gates.guard_alpha if trial.watches else trial.gates.alpha
    is_found = log_e >= log(1 / alpha)
    n = max(trial.n, 1)
    detail = (
        f"of {trial.n} pairs the new run is better in {trial.wins}, worse in {trial.losses}, equal in "
        f"{trial.n - trial.wins - trial.losses}; mean {trial.loss.told} {trial.sums[1] / n:.4f}, the old run's "
        f"{trial.sums[0] / n:.4f}, gain {_mean_gain(trial):+.4f}; variance inflation "
        f"{trial.inflation.factor(trial.inflated):.2f} of {trial.inflation.blocks} blocks; "
        f"E that it is {'worse' if trial.watches else 'better'} by more than {trial.evidence.margin:g}"
    )
    verdict: Verdict = "pass" if is_found else "inconclusive"
    if trial.watches:
        verdict = "fail" if is_found else "pass"
    return Check(
        name="evidence", verdict=verdict, value=e_of(log_e), limit=1 / alpha, n=trial.n, detail=detail,
        source=SOURCE, looks=_looks(trial),
    )  # fmt: skip


def _mean_gain(trial: Trial) -> float:
    return (trial.sums[0] - trial.sums[1]) / max(trial.n, 1)


def _gain(trial: Trial) -> Check:
    detail = (
        f"mean {trial.loss.told} of the old run minus the new one's; the limit is for one that only a schedule or a "
        "count of labels asked for"
    )
    return Check(
        name="gain", verdict="pass", value=_mean_gain(trial), limit=trial.gates.scheduled_gain, n=trial.n,
        detail=detail, source="policy Gates(scheduled_gain=…)",
    )  # fmt: skip


def _no_worse(trial: Trial) -> Check:
    log_e = trial.log_e(trial.futility)
    detail = f"E that it is not worse by {-trial.futility.margin:g}"
    return Check(
        name="no worse", verdict="pass", value=e_of(log_e), limit=1 / trial.gates.alpha, n=trial.n, detail=detail,
        source=SOURCE,
    )  # fmt: skip


def _futility(trial: Trial) -> Check:
    log_e = trial.log_e(trial.futility)
    limit = 1 / trial.gates.alpha
    detail = f"E that it does not gain {-trial.futility.margin:g}"
    verdict: Verdict = "fail" if log_e >= log(limit) else "pass"
    return Check(
        name="futility", verdict=verdict, value=e_of(log_e), limit=limit, n=trial.n, detail=detail,
        source=SOURCE, looks=_looks(trial),
    )  # fmt: skip


def _missing(trial: Trial) -> Check:
    judged = (1,) if trial.watches else (0, 1)
    share = max(trial.missing[arm] for arm in judged) / max(trial.n, 1)
    old, new = trial.shed
    shed = f"; not asked, as too slow to run in shadow: the new run in {new} of these, the old one in {old} rows more"
    return Check(
        name="missing answers",
        verdict="fail" if trial.misses(judged) else "pass",
        value=share,
        limit=MISSING_ALLOWED,
        n=trial.n,
        detail=f"without a usable answer: {trial.missing[1]} of the new run, {trial.missing[0]} of the old one, "
        f"each a loss of 1; {trial.unequal} rows more, answered from unequal offsets, are no evidence"
        + (shed if old or new else ""),
        source=OWN_RULE,
        looks=_looks(trial),
    )


def _coverage(trial: Trial) -> Check:
    share, ripening = trial.ripening.coverage(), trial.ripening
    p = _unevenness(trial)
    is_low = share is not None and share < trial.labels.min_coverage
    mature = "when every earlier prediction has its label"
    if ripening.mature_ms is not None:
        mature += f", or after {ripening.mature_ms / 1000:,.0f} s"
    detail = f"labels that came in time; a pair counts {mature}; {ripening.late} came later and are missing"
    if ripening.halvings:
        detail += f"; one row in {2**ripening.halvings} counts, by a hash"
    if p < UNEVEN:
        detail += f"; they come late more often for one predicted class than for the others (p = {p:.1g})"
    return Check(
        name="coverage",
        verdict="inconclusive" if is_low or p < UNEVEN else "pass",
        value=share,
        limit=trial.labels.min_coverage,
        n=ripening.came,
        detail=detail,
        source=f"policy Labels(min_coverage=…); {PROPORTIONS}",
    )


def _metric(trial: Trial) -> Check:
    old, new = trial.metrics
    is_worse = trial.kind == "online" and old.metric != "auc" and not new.is_no_worse_than(old)
    detail = "on the same rows; limit: the old run's"
    if old.metric == "auc":
        detail += "; told, not decided by: it may disagree in sign with the loss that decides"
    elif trial.watches:
        detail += "; told, not decided by"
    return Check(
        name=old.metric,
        verdict="inconclusive" if is_worse else "pass",
        value=new.get(),
        limit=old.get(),
        n=new.n,
        detail=detail,
        source=OWN_RULE,
    )


def _rarest(trial: Trial) -> Check:
    rarest = min(trial.classes.values(), default=None)
    is_few = rarest is not None and rarest < RAREST
    detail = "labels of the rarest class" if rarest is not None else "no classes"
    return Check(
        name="rarest class",
        verdict="inconclusive" if is_few else "pass",
        value=rarest,
        limit=RAREST if rarest is not None else None,
        n=trial.n,
        detail=detail,
        source=OWN_RULE,
    )


def _rivals(trial: Trial) -> Check:
    n = max(trial.n, 1)
    name = "mean" if trial.loss.task == "regression" else "majority"
    detail = f"mean {trial.loss.told} of {name} {trial.sums[2] / n:.4f}, of no-change {trial.sums[3] / n:.4f}; told"
    return Check(name="baselines", verdict="pass", value=trial.sums[1] / n, n=trial.n, detail=detail, source=OWN_RULE)


def _slices(trial: Trial) -> tuple[Check, ...]:
    inflated = trial.inflation.factor(trial.inflated)
    kind, looks = trial.loss.told, _looks(trial)
    return tuple(doubt.check(trial.slice_alpha, inflated, kind, name, looks) for name, doubt in trial.slices.items())


def _looks(trial: Trial) -> int:
    """How often a rule that is asked after each pair was: from `min_labels` pairs on, or at the last one allowed."""
    first = trial.gates.min_labels
    if not trial.watches:
        first = min(first, trial.gates.max_labels)
    return max(trial.n - first + 1, 0)


def _unevenness(trial: Trial) -> float:
    """p that the labels of every predicted class, of both arms, come as late as those of the other classes."""
    p_values: list[float] = []
    for arm in (0, 1):
        late = {said: n for (one, said), n in trial.late.items() if one == arm}
        timely = {said: n for (one, said), n in trial.timely.items() if one == arm}
        p_values += against_the_rest(late, timely, RAREST)
    return bonferroni(p_values)
