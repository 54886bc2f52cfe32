"""A pipeline as its author writes it: one object at the end of one file, checked as it is made."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, get_args

from headrace.challengers import Challenger, by_name
from headrace.contract import Contract, Extra, InvalidDefinition, contract_spec
from headrace.schemas.contract import ContractSpec, Declared, LabelSpec
from headrace.schemas.policies import (
    LOWER_IS_BETTER,
    SLICE_VALUES,
    SLICES,
    Drift,
    Gates,
    Labels,
    Metric,
    Policies,
    Retention,
    Rollout,
    Slice,
    Success,
    Triggers,
)
from headrace.schemas.topics import PIPELINE_NAME

Recipe = Callable[[int], Any]

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "balanced_accuracy", "logloss", "brier", "f1", "mcc", "auc"),
    "multiclass": ("accuracy", "balanced_accuracy", "logloss", "brier"),
    "regression": ("mae", "rmse", "r2"),
}
NEED_PROBABILITIES = ("logloss", "brier", "auc")
SHARES = ("accuracy", "balanced_accuracy", "brier", "f1", "auc")  # lie within 0..1
LEARNING = ("online", "frozen")
CRON_FIELD = re.compile(r"[\w*/,-]+")


class Pipeline:
    """Data to learn from, what to predict, how to make a model, and the policies, each with a default.

    `recipe(seed)` returns an untrained River model. `label` is bool, Literal texts, str or float and names the
    task. `challengers` are other recipes, which take the place of what serves where they pass the gates against it.
    Raises InvalidDefinition, which names the field, for settings that cannot stand or contradict each other.
    """

    def __init__(
        self,
        *,
        name: str,
        contract: type[Contract],
        label: Any,
        recipe: Recipe,
        challengers: Iterable[Challenger] = (),
        success: Success | None = None,
        triggers: Triggers | None = None,
        gates: Gates | None = None,
        drift: Drift | None = None,
        rollout: Rollout | None = None,
        labels: Labels | None = None,
        retention: Retention | None = None,
        slices: Iterable[str | Slice] = (),
        learning: str = "online",
        entity: bool = False,
        extra: Extra = "drop",
        seed: int = 0,
    ) -> None:
        """Check the settings; import nothing and build no model."""
        if not isinstance(name, str) or not PIPELINE_NAME.fullmatch(name):
            raise InvalidDefinition("name", f"a-z, 0-9 and -, at most 41, a letter first; not {name!r}")
        self.name = name
        self.contract = contract
        self.recipe = _recipe(recipe)
        self.challengers = by_name(challengers)
        self.spec: ContractSpec = contract_spec(contract, label, entity, extra)
        if learning not in LEARNING:
            raise InvalidDefinition("learning", f'"online" or "frozen", not {learning!r}')
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise InvalidDefinition("seed", f"a whole number, not {seed!r}")
        self._policies = Policies(
            success=_of(Success, "success", success) if success is not None else None,
            triggers=_of(Triggers, "triggers", triggers),
            gates=_of(Gates, "gates", gates),
            drift=_of(Drift, "drift", drift),
            rollout=_of(Rollout, "rollout", rollout),
            labels=_of(Labels, "labels", labels),
            retention=_of(Retention, "retention", retention),
            slices=_slices(slices),
            learning=learning,
            seed=seed,
        )
        _check(self.spec, self._policies)

    def policies(self) -> Policies:
        """All policies, defaults included."""
        return self._policies

    def recipe_named(self, name: str | None) -> Recipe:
        """A challenger's recipe, or the pipeline's own for None. Raises KeyError where none has that name."""
        return self.recipe if name is None else self.challengers[name].recipe

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {self.spec.name}, {self.spec.label.task})"


def check_schedule(schedule: str | None) -> None:
    """Refuse a cron expression that means nothing, or no time at all, by the library that the scheduler goes by.

    At a release, not when a pipeline is made: the SDK alone does not bring the library. Raises InvalidDefinition.
    """
    if schedule is None:
        return
    from croniter import CroniterBadDateError, croniter

    try:
        croniter(schedule, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
    except CroniterBadDateError as error:
        raise InvalidDefinition("triggers.schedule", f"{schedule!r} names no time that ever comes") from error
    except ValueError as error:
        raise InvalidDefinition("triggers.schedule", f"{schedule!r} is no cron expression: {error}") from error


def _recipe(recipe: Any) -> Recipe:
    wanted = "a function of one argument, the seed, that returns an untrained model"
    if not callable(recipe):
        raise InvalidDefinition("recipe", f"{wanted}; not {recipe!r}")
    try:
        inspect.signature(recipe).bind(0)
    except TypeError as error:
        raise InvalidDefinition("recipe", f"{wanted} ({error})") from error
    return recipe  # type: ignore[no-any-return]


def _of(kind: type[Declared], field: str, given: Any) -> Any:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise InvalidDefinition(field, f"needs headrace.{kind.__name__}(...), not {given!r}")
    return given


def _slices(given: Any) -> tuple[Slice, ...]:
    wanted = f'at most {SLICES} columns, each as "station" or headrace.Slice("wind", edges=(5, 20))'
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidDefinition("slices", f"{wanted}; not {given!r}")
    slices = tuple(Slice(one) if isinstance(one, str) else one for one in given)
    if len(slices) > SLICES or not all(isinstance(one, Slice) for one in slices):
        raise InvalidDefinition("slices", f"{wanted}; not {given!r}")
    return slices


def _check(spec: ContractSpec, policies: Policies) -> None:
    if policies.success is not None:
        _check_success(policies.success, spec.label.task)
    _check_labels(policies.labels, spec.label)
    _check_gates(policies.gates, policies.slices)
    _check_slices(policies.slices, spec)
    steps = policies.rollout.steps
    if any(not 0 < step < 1 for step in steps) or list(steps) != sorted(set(steps)):
        raise InvalidDefinition("rollout.steps", f"growing shares between 0 and 1, not {steps}")
    _check_alerts(policies.triggers, spec)
    schedule = policies.triggers.schedule
    if schedule is not None and [bool(CRON_FIELD.fullmatch(part)) for part in schedule.split()] != [True] * 5:
        raise InvalidDefinition("triggers.schedule", f'five cron fields in UTC such as "0 3 * * *", not {schedule!r}')


def _check_alerts(triggers: Triggers, spec: ContractSpec) -> None:
    rule, field = triggers.alerts, "triggers.alerts"
    if rule is None:
        return
    kinds = ("performance", "input", "prediction", "labels")
    known = {*kinds, *(f"input.{feature.name}" for feature in spec.features)}
    unknown = [name for name in rule.of if name not in known]
    if unknown or not rule.of or len(set(rule.of)) < len(rule.of):
        wanted = f"different ones of {', '.join(kinds)} or input.COLUMN"
        raise InvalidDefinition(field, f"{wanted}, not {', '.join(unknown or rule.of) or 'none'}")
    if not 1 <= rule.enough <= len(rule.of):
        raise InvalidDefinition(field, f"need={rule.need} of {len(rule.of)} alerts can never be, or always is")
    alone = [("performance", triggers.on_performance_drift), ("input", triggers.on_input_drift)]
    for kind, trains in alone:
        if trains and any(name.partition(".")[0] == kind for name in rule.of):
            raise InvalidDefinition(
                field, f"{kind} trains alone already; with on_{kind}_drift=False only together with others"
            )


def _check_success(success: Success, task: str) -> None:
    metric, low, high = success.metric, success.at_least, success.at_most
    if metric not in METRICS[task]:
        wanted = ", ".join(m for m in get_args(Metric) if m in METRICS[task])
        raise InvalidDefinition("success", f"{metric} does not measure {task}; choose one of {wanted}")
    if low is None and high is None:
        raise InvalidDefinition("success", f"needs a limit: Success({metric!r}, at_least=…) or at_most=…")
    if any(limit is not None and not math.isfinite(limit) for limit in (low, high)):
        raise InvalidDefinition("success", "the limit must be a finite number")
    if low is not None and high is not None and low > high:
        raise InvalidDefinition("success", f"at_least={low:g} is above at_most={high:g}")
    lower = metric in LOWER_IS_BETTER
    if (high if lower else low) is None:
        better, wanted = ("lower", "at_most") if lower else ("higher", "at_least")
        raise InvalidDefinition("success", f"a {better} {metric} is better, so its limit is {wanted}")
    if metric in SHARES and any(limit is not None and not 0 <= limit <= 1 for limit in (low, high)):
        raise InvalidDefinition("success", f"{metric} lies between 0 and 1")


def _check_labels(labels: Labels, label: LabelSpec) -> None:
    if labels.mature_after_s is not None and labels.mature_after_s > labels.ttl_s:
        raise InvalidDefinition(
            "labels.mature_after_s",
            f"{labels.mature_after_s:g} is longer than ttl_s={labels.ttl_s:g}: labels expire then",
        )
    value = labels.on_timeout
    if value == "missing":
        return
    fits = {
        "bool": isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "str": isinstance(value, str),
        "classes": label.values is not None and value in label.values,
    }
    if not fits[label.type]:
        raise InvalidDefinition("labels.on_timeout", f'"missing" or a value of the label, not {value!r}')


def _check_gates(gates: Gates, slices: tuple[Slice, ...]) -> None:
    if gates.min_labels > gates.max_labels:
        raise InvalidDefinition("gates.min_labels", f"{gates.min_labels} is above max_labels={gates.max_labels}")
    unknown = sorted(set(gates.slices) - {one.feature for one in slices})
    if unknown:
        raise InvalidDefinition("gates.slices", f"{', '.join(unknown)} is not among the pipeline's slices=")


def _check_slices(slices: tuple[Slice, ...], spec: ContractSpec) -> None:
    features = {feature.name: feature for feature in spec.features}
    for number, one in enumerate(slices):
        if one.feature not in features:
            raise InvalidDefinition("slices", f"{one.feature} is no column of {spec.name}")
        if one.feature in [other.feature for other in slices[:number]]:
            raise InvalidDefinition("slices", f"{one.feature} is named twice")
        kind, edges = features[one.feature].type, one.edges
        if kind == "float" and not edges:
            raise InvalidDefinition("slices", f"{one.feature} is a number: name the edges of its ranges, edges=(5, 20)")
        if kind in ("str", "bool") and edges:
            raise InvalidDefinition("slices", f"{one.feature} is {kind} and has no ranges; leave its edges out")
        if not all(map(math.isfinite, edges)) or list(edges) != sorted(set(edges)) or len(edges) >= SLICE_VALUES:
            raise InvalidDefinition("slices", f"{one.feature}: fewer than {SLICE_VALUES} growing edges, not {edges}")
