"""Which rows are evidence for which pair of runs, and what is told of them.

A row is a pair where both arms answered from the same offset: a model that knows more labels than its rival wins by
that alone. Evidence is of two runs; it begins anew when either changes, and rows of an earlier epoch stay with theirs.
With the first row of a canary the question is no longer whether the challenger is better, but whether it is worse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.schemas.control import ModelValidated
from headrace.schemas.policies import Labels, Metric, Policies
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import SHED, ArmPrediction, ExampleLabelled, Label
from headrace.services.evaluator import trial as trials
from headrace.services.evaluator.canary import step_of
from headrace.services.evaluator.doubt import SLICE_ROWS
from headrace.services.evaluator.kept import Row
from headrace.services.evaluator.lean import Labelled
from headrace.services.evaluator.paired_loss import PairedLoss, fixed_by, usable
from headrace.services.evaluator.ripening import Pair, Ripening, Table, Waiting
from headrace.services.evaluator.running_metric import part_of
from headrace.services.evaluator.scores import Task, decided, metric_of
from headrace.services.evaluator.trial import Kind, Trial
from headrace.services.evaluator.verdicts import Decision, decide, expire
from headrace.statistics.delays import Delays
from headrace.statistics.e_process import Inflation

ARMS: dict[Kind, tuple[str, str]] = {
    "online": ("champion", "challenger"),
    "guard": ("previous", "champion"),
    "canary": ("champion", "challenger"),
    "refresh": ("anchor", "champion"),
}
ANYWHERE = ("guard", "refresh")  # whether a canary is under way or not
REFERENCE = 5_000  # rows from before, by which a loss is fixed and the old run's inflation is known
FEWEST = 200
MATURE = 4  # times the delay of 99 % of the labels
ENOUGH = 25  # delays, before they tell how long labels take
SHORTEST_MS = 60_000  # known time passes in ticks of a minute

Newest = Callable[[int], Sequence[Row]]
Both = tuple[ArmPrediction, ArmPrediction]


@dataclass(slots=True)
class Evidence:
    """The rules in force, how long labels take, and the trials; `is_open` while one of them has no verdict."""

    task: Task | None = None
    policies: Policies = field(default_factory=Policies)
    delays: Delays = field(default_factory=Delays)
    trials: dict[Kind, Trial] = field(default_factory=dict)
    is_open: bool = False

    def take_up(self, task: Task, policies: Policies) -> None:
        """The rules of a release: for the next trial, never inside one."""
        self.task, self.policies = task, policies


def weigh(
    evidence: Evidence,
    waiting: Table,
    event: Labelled | ExampleLabelled,
    slices: tuple[str, ...],
    record: Record,
    newest: Newest,
) -> list[Emit]:
    """Take a labelled row of these slices in; `newest` gives the rows kept before. Returns the verdicts it led to."""
    told: list[Emit] = []
    made = event.prediction
    arms, epoch = made.predictions, made.epoch
    for kind, (old, new) in ARMS.items():
        trial = evidence.trials.get(kind)
        both = (arms[old], arms[new]) if old in arms and new in arms else None
        if both is not None and kind == "refresh" and not _is_newer(both):
            both = None  # one revision twice, or an anchor that has not followed its champion to another run yet
        if both is not None and kind not in ANYWHERE and (kind == "canary") != (made.share is not None):
            if trial is not None and epoch > trial.epoch:
                _close(evidence, trial, waiting)
            both = None
        if both is not None and not _is_of(trial, both, epoch):
            if trial is None or epoch > trial.epoch:
                trial = _begin(evidence, waiting, kind, both, epoch, record, newest)
            else:
                both = None  # a late row of runs that came before
        if trial is None or trial.is_over or (event.inferred and trial.labels.on_timeout == "missing"):
            continue
        pair = None
        if both is not None:
            trial.epoch = max(trial.epoch, epoch)
            if kind == "canary":
                _count(trial, event, both)
            if both[0].error == SHED:
                trial.shed[0] += 1  # what another one is measured by must not lose by it
            elif both[0].learned_to == both[1].learned_to or trial.is_frozen or kind == "refresh":
                pair = _pair(trial, event, both, slices)
            else:
                trial.unequal += 1
        place, row = (event.partition, event.number), Waiting(event.predicted_at_ms, pair)
        is_late = trial.ripening.put(waiting, place, row, event.pending_from, record.known_ms)
        if is_late and pair is not None:
            trial.came_late(pair)
        told += _judge(evidence, trial, waiting, record)
    return told


def pass_time(evidence: Evidence, waiting: Table, partition: int, pending_from: int, record: Record) -> list[Emit]:
    """A tick of one partition: from where its predictions still wait, and how late it is."""
    told: list[Emit] = []
    for trial in evidence.trials.values():
        if not trial.is_over:
            trial.ripening.pass_on(partition, pending_from, record.known_ms)
            told += _judge(evidence, trial, waiting, record)
    return told


def _count(trial: Trial, event: Labelled | ExampleLabelled, both: Both) -> None:
    """A request of a canary step; one of a step that is past is a pair like any other and no more."""
    step = step_of(trial.step, event.prediction, event.predicted_at_ms, trial.n)
    if step is not None:
        trial.step = step
        answered = [usable(trial.loss.task, arm.value) is not None for arm in both]
        step.count(event.prediction, trial.new, answered, _slow(trial, both), event.predicted_at_ms)


def _slow(trial: Trial, both: Both) -> list[bool] | None:
    """Whether each answer took longer than the policy allows; None where they were not timed."""
    old, new = (arm.took_us for arm in both)
    if old is None or new is None:
        return None
    return [took / 1000 > trial.gates.predict_ms for took in (old, new)]


def _close(evidence: Evidence, trial: Trial, waiting: Table) -> None:
    trial.is_over = True
    trial.ripening.clear(waiting)
    evidence.is_open = any(not one.is_over for one in evidence.trials.values())


def _is_newer(both: Both) -> bool:
    old, new = both
    return old.run == new.run and old.learned_to < new.learned_to


def _is_of(trial: Trial | None, both: Both, epoch: int) -> bool:
    if trial is None or (trial.old, trial.new) != _names(trial.kind, both) or epoch < trial.began_epoch:
        return False
    return trial.kind != "refresh" or not trial.is_over or epoch <= trial.epoch  # each anchor is tested again


def _names(kind: Kind, both: Both) -> tuple[str, str]:
    """The two that are compared: runs, or an older revision and the run that it is of."""
    old, new = both
    return (f"{old.run}@{old.learned_to}" if kind == "refresh" else old.run), new.run


def _begin(
    evidence: Evidence, waiting: Table, kind: Kind, both: Both, epoch: int, record: Record, newest: Newest
) -> Trial | None:
    """Evidence for two runs begins, with the loss that the labels before it fix; None while there are too few."""
    before = evidence.trials.pop(kind, None)
    if before is not None:
        before.ripening.clear(waiting)
    rows, policies, task = newest(REFERENCE), evidence.policies, evidence.task
    if task is None or len(rows) < FEWEST:
        return None
    metric = metric_of(task, policies.success)
    loss = fixed_by(task, metric, rows)
    old, new = _names(kind, both)
    evidence.trials[kind] = begun = trials.begin(
        kind,
        old,
        new,
        epoch=epoch,
        known_ms=record.known_ms,
        policies=policies,
        loss=loss,
        metric=metric,
        slices=() if kind == "refresh" else _of_enough_rows(rows),
        classes=Counter() if task == "regression" else Counter(row.label for row in rows),
        inflated=_inflated(loss, rows, both[0].run),
        ripening=Ripening(list(ARMS).index(kind), _mature_ms(evidence.delays, policies.labels)),
    )
    begun.pinned = both[1].learned_to if kind == "refresh" else None
    evidence.is_open = True
    return begun


def _judge(evidence: Evidence, trial: Trial, waiting: Table, record: Record) -> list[Emit]:
    """Count what is ripe by now, and tell what it decides: of several passes the last, which says all."""
    told: list[Emit] = []
    for pair in trial.ripening.take(waiting):
        trial.add(pair)
        decision = decide(trial, record.known_ms)
        if decision is not None:
            told = [_told(trial, decision, record)]
        if trial.is_over:
            break
    if trial.kind == "canary":  # its step may be due by time, without a pair
        decision = decide(trial, record.known_ms)
        if decision is not None:
            told = [_told(trial, decision, record)]
    aged = expire(trial, record.known_ms)
    if aged is not None:
        told.append(_told(trial, aged, record))
    if trial.is_over:
        _close(evidence, trial, waiting)
    return told


def _told(trial: Trial, decision: Decision, record: Record) -> Emit:
    event = ModelValidated(
        pipeline=record.pipeline,
        run=trial.new,
        request="",
        stage="online" if trial.kind == "canary" else trial.kind,
        verdict=decision.verdict,
        checks=decision.checks,
        n_labels=trial.n,
        offset=record.offset + 1,
        against=trial.old,
        epoch=trial.epoch,
        snapshot_offset=trial.pinned,
        share=None if trial.step is None else trial.step.share,
    )
    return Emit("model-validations", event, record.pipeline.encode(), partition=0)


def _of_enough_rows(rows: Sequence[Row]) -> list[str]:
    """The slices of which something can be said: those that are no rarer among the coming rows."""
    counts = Counter(name for row in rows for name in row.slices)
    return sorted(name for name, n in counts.items() if n >= SLICE_ROWS)


def _pair(trial: Trial, event: Labelled | ExampleLabelled, both: Both, slices: tuple[str, ...]) -> Pair:
    loss, label, metric = trial.loss, event.label, trial.metrics[0].metric
    old, new = (usable(loss.task, arm.value) for arm in both)
    baselines = event.prediction.baselines
    usual = baselines.mean if loss.task == "regression" else baselines.majority
    return Pair(
        label,
        losses=(loss.of(old, label), loss.of(new, label)),
        said=(_said(loss.task, old), _said(loss.task, new)),
        parts=(_part(metric, loss.task, old, label), _part(metric, loss.task, new, label)),
        rivals=(loss.of(usual, label), loss.of(baselines.last, label)),
        slices=slices,
        shed=both[1].error == SHED,
    )


def _said(task: Task, value: Any) -> Label | None:
    return None if value is None else decided(task, value)


def _part(metric: Metric, task: Task, value: Any, label: Label) -> float:
    return 0.0 if value is None else part_of(metric, task, value, label)


def _inflated(loss: PairedLoss, rows: Sequence[Row], run: str) -> float | None:
    """How much the losses of a run varied from block to block before, None where too few rows tell."""
    inflation = Inflation()
    for row in rows:
        arm = next((arm for arm in row.predictions.values() if arm.run == run), None)
        if arm is not None and arm.error != SHED:
            inflation.add(loss.of(usable(loss.task, arm.value), row.label))
    return inflation.factor() if inflation.is_known() else None


def _mature_ms(delays: Delays, labels: Labels) -> int | None:
    """After what time a label counts as missing; None where every prediction gets one (`Labels(on_timeout=value)`)."""
    if labels.on_timeout != "missing":
        return None
    if labels.mature_after_s is not None:
        return int(min(labels.mature_after_s, labels.ttl_s) * 1000)
    ttl_ms = int(labels.ttl_s * 1000)
    return ttl_ms if delays.n < ENOUGH else min(max(MATURE * delays.quantile_ms(0.99), SHORTEST_MS), ttl_ms)
