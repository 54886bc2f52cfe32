"""Events that decide: requests, releases, trainings, verdicts, aliases. All but lineage name their pipeline.

Facts are in the past tense; a request ends in `Asked` (a person) or `Requested` (the orchestrator).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from headrace.schemas.contract import ContractSpec
from headrace.schemas.policies import Policies

Verdict = Literal["pass", "fail", "inconclusive", "error"]
Stage = Literal["offline", "infra", "online", "guard", "refresh"]
Alias = Literal["champion", "challenger", "previous", "anchor"]


class ControlEvent(BaseModel):
    """A fact about a pipeline. Fields that a later release added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    pipeline: str


class Detail(BaseModel):
    """A part of an event."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


# --- data quality and scores ------------------------------------------------------------------------------


class FeatureSummary(Detail):
    """One column over one window: counts, and for numbers the moments; for text the most common values."""

    n: int
    missing: int
    mean: float | None = None
    sd: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: tuple[float, ...] | None = None
    top: dict[str, int] | None = None


class WindowValidated(ControlEvent):
    """What the validator saw in one window of one input partition (offsets: first inclusive, last exclusive)."""

    partition: int
    start_offset: int
    end_offset: int
    start_ms: int
    end_ms: int
    release: int
    validated: int
    labels: int
    rejected: int
    duplicates: int
    reasons: dict[str, int]
    extra_columns: dict[str, int]
    features: dict[str, FeatureSummary]
    verdict: Literal["ok", "skewed"]


class MetricsUpdated(ControlEvent):
    """Scores of one arm, by the newest labels. `n` counts the rows scored, `coverage` is the share of predictions whose
    label came; with a `slice` (`station=Cairns`) the scores of its rows, and no coverage: the evaluator does not know
    which slice an unlabelled prediction was in (the store's view `slices` does).
    """

    alias: Alias
    version: int | None
    run: str
    scope: Literal["windowed", "fading", "cumulative"]
    n: int
    coverage: float | None
    metrics: dict[str, float | None]
    slice: str | None = None
    window: tuple[int, int] | None = None


class DriftDetected(ControlEvent):
    """Data, predictions, performance or the flow of labels changed."""

    kind: Literal["input", "prediction", "performance", "labels"]
    level: Literal["warning", "drift"]
    since: int | None
    detector: str
    evidence: dict[str, Any]
    features: tuple[str, ...] = ()
    run: str | None = None
    diagnosis: str | None = None


# --- what people ask for ----------------------------------------------------------------------------------


class ReleaseDefinition(Detail):
    """Everything that a pipeline file says, as data, with the digests of its three parts and of its source."""

    contract: ContractSpec
    policies: Policies
    contract_digest: str
    policies_digest: str
    recipe_digest: str
    source_digest: str
    source_uri: str
    recipe_stable: bool = True
    has_probabilities: bool = True
    description: str | None = None


class ReleaseAsked(ControlEvent):
    """A person asks to release a pipeline definition; `partitions` of its data topics as they were created.

    `topic_id` is the broker's id of `<p>.data-arrived`: who asks has seen that the topics are there.
    """

    request: str
    by: str
    definition: ReleaseDefinition
    partitions: int = 1
    topic_id: str | None = None


class RetireAsked(ControlEvent):
    """A person asks to retire a pipeline; its name is never used again."""

    request: str
    by: str
    reason: str = ""


class TrainingAsked(ControlEvent):
    """A person asks for a training."""

    request: str
    by: str
    reason: str = ""
    seed: int | None = None
    start: int | None = None
    recipe: str | None = None


class PromotionAsked(ControlEvent):
    """A person asks to move `champion` to a version; `forced` skips every gate but infra."""

    request: str
    by: str
    version: int
    reason: str = ""
    forced: bool = False


class RollbackAsked(ControlEvent):
    """A person asks to go back to the previous model, to a version, or to before a bad range (known time, ms)."""

    request: str
    by: str
    reason: str = ""
    version: int | None = None
    bad_from_ms: int | None = None
    bad_to_ms: int | None = None


class PauseAsked(ControlEvent):
    """A person stops automatic promotion."""

    request: str
    by: str
    reason: str = ""


class ResumeAsked(ControlEvent):
    """A person lets automatic promotion go on."""

    request: str
    by: str
    reason: str = ""


# --- releases ---------------------------------------------------------------------------------------------


class PipelineReleased(ControlEvent):
    """A definition is in force from this marker on. Also in band, in every partition of the data topics."""

    release: int
    definition: ReleaseDefinition
    partitions: int
    request: str
    by: str
    signature: str = ""


class PipelineRetired(ControlEvent):
    """The pipeline ended. Also in band."""

    request: str
    by: str
    reason: str = ""
    signature: str = ""


# --- trainings --------------------------------------------------------------------------------------------


class TrainingRequested(ControlEvent):
    """The orchestrator wants a run: `start` is an offset of `<p>.labelled-examples`; `request` its id."""

    request: str
    trigger: Literal["first_model", "person", "schedule", "new_data", "performance", "input", "recipe", "rollback"]
    cause: str
    release: int
    seed: int
    start: int
    end_at_labels: int | None = None
    parent: str | None = None
    excluded: tuple[tuple[int, int], ...] = ()
    alpha: float = 0.05


class RunStarted(ControlEvent):
    """A run exists from here on; this is in the log before its first learn, and the first one counts."""

    run: str
    request: str
    release: int
    seed: int
    start_offset: int
    end_at_labels: int | None = None
    parent: str | None = None
    excluded: tuple[tuple[int, int], ...] = ()


class RunEnded(ControlEvent):
    """A run learns no more; `offset` is the first it did not learn."""

    run: str
    reason: str
    offset: int | None = None


class TrainingFailed(ControlEvent):
    """A requested run could not start, or a learn raised twice."""

    request: str
    run: str | None
    reason: str
    offset: int | None = None


class TrainingCompleted(ControlEvent):
    """A run reached `n_labels` learned labels at `end_offset` (exclusive); the gates judge it there."""

    run: str
    request: str
    release: int
    n_labels: int
    start_offset: int
    end_offset: int


class QuickCheck(Detail):
    """One check of a snapshot that needs no labels."""

    name: str
    passed: bool
    value: float | None = None
    limit: float | None = None


class RunSnapshot(Detail):
    """One run's model at the snapshot's offset. `uri` is relative to the artifact store; unfit: not to be served."""

    uri: str
    digest: str
    n_learned: int
    fit: bool
    checks: tuple[QuickCheck, ...] = ()
    metrics: dict[str, float | None] = {}


class SnapshotTaken(ControlEvent):
    """The models of every run in lockstep, all having learned up to `offset` (exclusive)."""

    offset: int
    runs: dict[str, RunSnapshot]


class Check(Detail):
    """One check of a gate with its numbers: `value` against `limit` over `n` rows."""

    name: str
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    n: int | None = None
    detail: str = ""


class ModelValidated(ControlEvent):
    """A gate's verdict with all its checks."""

    run: str
    request: str
    stage: Stage
    verdict: Verdict
    checks: tuple[Check, ...]
    n_labels: int
    offset: int
    snapshot_uri: str | None = None
    snapshot_offset: int | None = None
    against: str | None = None
    epoch: int = 0
    seconds: float | None = None
    peak_mb: float | None = None


class LabelsCounted(ControlEvent):
    """So many labelled examples stand in the log."""

    n: int
    offset: int


class ModelUpdated(ControlEvent):
    """An alias moved: the run it names and the snapshot from which it serves; `follows` its newer revisions or not."""

    alias: Alias
    version: int
    run: str
    release: int
    snapshot_offset: int
    uri: str
    follows: bool
    epoch: int
    reason: str
    previous_version: int | None = None
    forced_by: str | None = None
    share: float | None = None


# --- other decisions --------------------------------------------------------------------------------------


class RequestRefused(ControlEvent):
    """A request was not carried out, and why; `next` is the command that helps."""

    request: str
    kind: str
    reason: str
    numbers: dict[str, Any] = {}
    next: str | None = None


class ChallengerSuperseded(ControlEvent):
    """A newer cause took the slot."""

    run: str
    by_request: str
    reason: str
    numbers: dict[str, Any] = {}


class ChallengerExpired(ControlEvent):
    """No verdict within the labels or the time allowed."""

    run: str
    reason: str
    numbers: dict[str, Any] = {}


class AutomationPaused(ControlEvent):
    """No automatic promotion until a person resumes it."""

    reason: str
    by: str | None = None
    numbers: dict[str, Any] = {}


class AutomationResumed(ControlEvent):
    """A person let automatic promotion go on."""

    by: str
    reason: str = ""


class PipelineDegraded(ControlEvent):
    """Recent loss is above the reference fixed at promotion, or `Success` fails."""

    reason: str
    numbers: dict[str, Any] = {}


class SchemaSkewed(ControlEvent):
    """Too many rejects: training is paused."""

    reason: str
    numbers: dict[str, Any] = {}


class RangeBarred(ControlEvent):
    """Offsets of `<p>.labelled-examples` that no later run learns (first inclusive, last exclusive)."""

    start_offset: int
    end_offset: int
    request: str
    reason: str = ""


# --- stores and lineage -----------------------------------------------------------------------------------


class TableExported(Detail):
    """One table of a store snapshot."""

    name: str
    rows: int
    uri: str
    sha256: str


class SnapshotPublished(ControlEvent):
    """The recorder wrote a Parquet snapshot, consistent at these offsets (topic/partition → next offset)."""

    snapshot: str
    uri: str
    offsets: dict[str, int]
    tables: tuple[TableExported, ...]


class LineageRecorded(ControlEvent):
    """An OpenLineage run event (https://openlineage.io/spec), unchanged in `run_event`."""

    run_event: dict[str, Any]


class FaultFound(ControlEvent):
    """A record that no retry can fix, on its way to `<topic>-dlq`, with where it stood and why."""

    topic: str
    partition: int
    offset: int
    service: str
    reason: str
    value: str
    key: str | None = None
    headers: dict[str, str] = {}
    at: datetime | None = None
