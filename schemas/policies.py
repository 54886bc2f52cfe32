"""A pipeline's policies with their defaults; where a number was measured, docs/statistics.md says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from headrace.schemas.contract import Declared

Metric = Literal["accuracy", "balanced_accuracy", "logloss", "brier", "f1", "mcc", "auc", "mae", "rmse", "r2"]
LOWER_IS_BETTER = {"logloss", "brier", "mae", "rmse"}


class Success(Declared):
    """The only absolute limit: the first model must meet it, and a champion that no longer does is degraded.

    A challenger must meet it offline, unless what serves misses it on the same rows as well.
    """

    metric: Metric = "accuracy"
    at_least: float | None = None
    at_most: float | None = None

    def __init__(self, /, metric: Metric = "accuracy", **limits: float | None) -> None:
        super().__init__(metric=metric, **limits)  # type: ignore[call-arg]

    @property
    def asked(self) -> str:
        """The limits in words."""
        limits = {"at least": self.at_least, "at most": self.at_most}
        return " and ".join(f"{name} {limit:g}" for name, limit in limits.items() if limit is not None)

    def is_met(self, value: float) -> bool:
        """Whether a score lies within the limits."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Alerts(Declared):
    """Alerts that start a training together: `need` of these signals, each at least once within a time.

    A signal is a kind of alert (`performance`, `input`, `prediction`, `labels`) or the drift of one column
    (`input.pressure`). `need` is "any", "all" or a number.
    """

    of: tuple[str, ...]
    need: Literal["any", "all"] | int = "all"
    within_s: float = Field(86_400, gt=0)

    def __init__(self, /, *of: str, **rule: Any) -> None:
        super().__init__(**{"of": of, **rule})

    @property
    def enough(self) -> int:
        """How many different signals it takes."""
        return {"any": 1, "all": len(self.of)}[self.need] if isinstance(self.need, str) else self.need


class Triggers(Declared):
    """When training starts by itself."""

    first_model_at: int = Field(200, ge=0)
    schedule: str | None = None
    every_labels: int | None = Field(None, ge=1)
    on_performance_drift: bool = True
    on_input_drift: bool = False
    alerts: Alerts | None = None
    cooldown_s: float = Field(3_600, ge=0)
    window_labels: int = Field(2_000, ge=1)


class Gates(Declared):
    """What a model passes before it serves. `first="off"` and `quick="off"` are recorded as forced.

    A challenger that only a clock or a count of labels asked for must gain `scheduled_gain` of mean loss as well.
    """

    first: Literal["on", "off"] = "on"
    quick: Literal["on", "off"] = "on"
    alpha: float = Field(0.05, gt=0, lt=1)
    margin: float = Field(0.0, ge=-1, lt=1)
    scheduled_gain: float = Field(0.01, ge=-1, lt=1)
    min_labels: int = Field(200, ge=1)
    max_labels: int = Field(5_000, ge=1)
    max_age_s: float = Field(14 * 86_400, gt=0)
    guard_alpha: float = Field(0.01, gt=0, lt=1)
    guard_labels: int = Field(2_000, ge=1)
    slices: tuple[str, ...] = ()
    predict_ms: float = Field(50.0, gt=0)
    model_mb: float = Field(200.0, gt=0)
    approval: bool = False


class Drift(Declared):
    """How changes of data, predictions and performance are found."""

    performance_delta: float = Field(1e-4, gt=0, lt=1)
    performance_effect: float = Field(0.05, gt=0)
    window: int = Field(1_000, ge=100)
    psi: float = Field(0.1, gt=0)
    fdr: float = Field(0.01, gt=0, lt=1)
    season: int | None = Field(None, ge=1)


class Rollout(Declared):
    """How a challenger takes over: shadow, then these shares of the traffic, each for a time and labelled requests.

    The champion's newer revisions serve at most every `refresh_s`. An `anchor`, an older revision, answers this share
    of the examples too, so that revisions which learn what is wrong are found out; 0: there is none. It stays for
    `anchor_s` at least. Each arm that serves nobody may take `shadow_share` of the predictor's time, beside as much as
    the champion takes; beyond that it is shed.
    """

    steps: tuple[float, ...] = (0.1, 0.5)
    step_s: float = Field(600, ge=0)
    step_requests: int = Field(200, ge=1)
    refresh_s: float = Field(1.0, ge=0)
    anchor: float = Field(0.0, ge=0, le=1)
    anchor_s: float = Field(3_600, ge=0)
    shadow_share: float = Field(0.1, gt=0, le=1)


class Labels(Declared):
    """How labels come and what happens to those that do not."""

    ttl_s: float = Field(7 * 86_400, gt=0)
    grace_s: float = Field(86_400, ge=0)
    mature_after_s: float | None = Field(None, gt=0)
    min_coverage: float = Field(0.5, ge=0, le=1)
    on_timeout: Literal["missing"] | bool | float | str = "missing"
    influenced: bool = False
    max_pending: int = Field(1_000_000, ge=1)


class Retention(Declared):
    """How much is remembered: ids against repeats (a count), and the least time a data topic is kept."""

    dedupe_ids: int = Field(1_000_000, ge=1)
    data_s: float = Field(30 * 86_400, gt=0)


SLICES, SLICE_VALUES = 5, 50  # bound what the evaluator keeps and tells: at most 250 times the scores of all rows


class Slice(Declared):
    """Scores told apart by the values of one column: of text, bool and whole numbers the values themselves (the first
    50 met, the rest as "other"), or the ranges between `edges`, each from its lower edge on.
    """

    feature: str
    edges: tuple[float, ...] = ()

    def __init__(self, /, feature: str | None = None, edges: Sequence[float] = (), **unknown: Any) -> None:
        super().__init__(feature=feature, edges=edges, **unknown)  # type: ignore[call-arg]  # refuses what is unknown


class Policies(Declared):
    """All policies of one release."""

    success: Success | None = None
    triggers: Triggers = Triggers()
    gates: Gates = Gates()
    drift: Drift = Drift()
    rollout: Rollout = Rollout()
    labels: Labels = Labels()
    retention: Retention = Retention()
    slices: tuple[Slice, ...] = ()
    learning: Literal["online", "frozen"] = "online"
    seed: int = 0
