"""Events that decide: requests, releases, trainings, verdicts, aliases. All but lineage name their pipeline.

Facts are in the past tense; a request ends in `Asked` (a person) or `Requested` (the orchestrator).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from headrace.schemas.contract import ContractSpec
from headrace.schemas.policies import Policies

Verdict = Literal["pass", "fail", "inconclusive", "error"]
Stage = Literal["offline", "infra", "online", "guard", "refresh"]
Alias = Literal["champion", "challenger", "previous", "anchor"]
ALIASES: tuple[str, ...] = get_args(Alias)
OWN_RECIPE = "own"  # what people call the pipeline's `recipe=`, which events do not name


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
    """Data, predictions, performance or the flow of labels changed.

    `since` is the offset of `topic` (its `partition`) from which on it did, `since_ms` the known time there, and
    `offset` where it was found. `evidence` holds the numbers with their limits. `run`, `version` and `epoch` are the
    champion's; `diagnosis` says what it looks like, where the evidence allows. `degraded` is of performance: whether
    the champion is worse than it was; what was said last of a run holds.
    """

    kind: Literal["input", "prediction", "performance", "labels"]
    level: Literal["warning", "drift"]
    since: int | None
    detector: str
    evidence: dict[str, Any]
    features: tuple[str, ...] = ()
    run: str | None = None
    diagnosis: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    since_ms: int | None = None
    version: int | None = None
    epoch: int | None = None
    degraded: bool | None = None


# --- what people ask for ----------------------------------------------------------------------------------


class ChallengerSpec(Detail):
    """Another recipe of a pipeline: its name, its digest, and whether its models can be made again."""

    name: str
    recipe_digest: str
    stable: bool = True


class ReleaseDefinition(Detail):
    """Everything that a pipeline file says, as data, with the digests of its three parts and of its source.

    `challengers` are recipes beside the pipeline's own, in the order of the file; all answer in the same way.
    """

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
    challengers: tuple[ChallengerSpec, ...] = ()

    def recipe_digests(self) -> dict[str | None, str]:
        """The digest of each recipe by its name, None for the pipeline's own, which is the first."""
        return {None: self.recipe_digest, **{one.name: one.recipe_digest for one in self.challengers}}

    def is_stable(self, recipe: str | None) -> bool:
        """Whether the models of a recipe can be made again."""
        if recipe is None:
            return self.recipe_stable
        return any(one.name == recipe and one.stable for one in self.challengers)


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
    """A person asks for a training; `recipe` is a challenger's name, or none for the pipeline's own.

    `start` is an offset of `<p>.labelled-examples`, the log's start where there is none. A run that is to begin with a
    `version`'s model names its artifact as `parent`, and the run and the offset that made it, as who asks found them.
    """

    request: str
    by: str
    reason: str = ""
    seed: int | None = None
    start: int | None = None
    recipe: str | None = None
    version: int | None = None
    parent: str | None = None
    parent_run: str | None = None
    parent_offset: int | None = None


class PromotionAsked(ControlEvent):
    """A person asks to move `champion` to a version; `forced` skips every gate but infra."""

    request: str
    by: str
    version: int
    reason: str = ""
    forced: bool = False


class RollbackAsked(ControlEvent):
    """A person asks to go back to the previous model, to a version, or to before a bad range (known time, ms).

    `uri` and `snapshot_offset` are the newest snapshot of that version's run that the log names, as who asks found it.
    `bad_ranges` are the offsets of `<p>.labelled-examples` that the range of time stands for, as who asks read them
    (first inclusive, last exclusive, in order); then version and snapshot are the newest that did not learn from them.
    """

    request: str
    by: str
    reason: str = ""
    version: int | None = None
    uri: str | None = None
    snapshot_offset: int | None = None
    bad_from_ms: int | None = None
    bad_to_ms: int | None = None
    bad_ranges: tuple[tuple[int, int], ...] = ()


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


class PinAsked(ControlEvent):
    """A person wants a snapshot of a run kept for ever, or no longer (`pinned` False)."""

    request: str
    by: str
    run: str
    snapshot_offset: int
    uri: str
    reason: str = ""
    pinned: bool = True


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
    """The orchestrator wants a run: `start` is an offset of `<p>.labelled-examples`; `request` its id.

    `recipe` names one of the release's challengers, or none for the pipeline's own. `alerts` are the offsets in
    `control-log` of those that started it together.
    """

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
    recipe: str | None = None
    alerts: tuple[int, ...] = ()


class RunStarted(ControlEvent):
    """A run exists from here on; this is in the log before its first learn, and the first one counts.

    `recipe` names one of the release's challengers, or none for the pipeline's own.
    """

    run: str
    request: str
    release: int
    seed: int
    start_offset: int
    end_at_labels: int | None = None
    parent: str | None = None
    excluded: tuple[tuple[int, int], ...] = ()
    recipe: str | None = None


class RunEnded(ControlEvent):
    """A run learns no more; `offset` is the first it did not learn. It `failed` where it could not go on."""

    run: str
    reason: str
    offset: int | None = None
    failed: bool = False


class TrainingFailed(ControlEvent):
    """A requested run could not start, or a learn raised twice."""

    request: str
    run: str | None
    reason: str
    offset: int | None = None


class TrainingCompleted(ControlEvent):
    """A run reached `n_labels` learned labels at `end_offset` (exclusive); the gates judge it there.

    `skipped` are the offsets before it whose learn raised: a TrainingFailed about one may stand behind this.
    """

    run: str
    request: str
    release: int
    n_labels: int
    start_offset: int
    end_offset: int
    skipped: tuple[int, ...] = ()


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
    """One check of a gate with its numbers: `value` against `limit` over `n` rows.

    `slice` names the slice of the rows that it is about, or their column; None: all rows. `source`: where the rule is
    from, a paper, a field of the policy, or Headrace itself. `looks`: how often the rule was asked, None: once.
    """

    name: str
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    n: int | None = None
    detail: str = ""
    slice: str | None = None
    source: str | None = None
    looks: int | None = None


class ModelValidated(ControlEvent):
    """A gate's verdict with all its checks; `share` is the canary step that it judges, None for any other gate."""

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
    share: float | None = None


class LabelsCounted(ControlEvent):
    """So many labelled examples stand in the log.

    `newest`: the offset at which the newest `window_labels` of them begin, and how many they are.
    """

    n: int
    offset: int
    newest: tuple[int, int] | None = None


class ModelUpdated(ControlEvent):
    """An alias moved: the run it names and the snapshot from which it serves; `follows` its newer revisions or not.

    `share` is the part of the units that a challenger in its canary serves. `request` where a person asked for it.
    `barred` are the ranges of examples for whose sake it moved back, if any.
    """

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
    request: str | None = None
    barred: tuple[tuple[int, int], ...] = ()


class AliasRemoved(ControlEvent):
    """An alias names no run any more; the run that it named may have another alias, or has ended."""

    alias: Alias
    run: str
    epoch: int
    reason: str


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
    """No automatic promotion until a person resumes it. `request` where a person asked."""

    reason: str
    by: str | None = None
    request: str | None = None
    numbers: dict[str, Any] = {}


class AutomationResumed(ControlEvent):
    """A person let automatic promotion go on."""

    by: str
    reason: str = ""
    request: str | None = None


class PipelineDegraded(ControlEvent):
    """The loss of what serves rose and stays above what it was; told once a day. `over`: it is so no longer."""

    reason: str
    numbers: dict[str, Any] = {}
    over: bool = False


class SchemaSkewed(ControlEvent):
    """Too many rejects: nothing is trained that no person asked for. `over`: they are accepted again."""

    reason: str
    numbers: dict[str, Any] = {}
    over: bool = False


class RangeBarred(ControlEvent):
    """Offsets of `<p>.labelled-examples` that no later run learns (first inclusive, last exclusive).

    `ranges` are its parts, where good examples stand between bad ones. A run is to learn again without them: of
    `release`, from `again_from` on, beginning with the model `parent` (which `recipe` made, as in RunStarted) or with
    none; where `again_from` is None what serves has not learned from them, and no run is needed.
    """

    start_offset: int
    end_offset: int
    request: str
    reason: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    again_from: int | None = None
    parent: str | None = None
    release: int | None = None
    recipe: str | None = None

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """The ranges; the whole where it names none."""
        return self.ranges or ((self.start_offset, self.end_offset),)


class RevisionPinned(ControlEvent):
    """A snapshot is kept for ever from now on, or no longer (`pinned` False)."""

    run: str
    snapshot_offset: int
    uri: str
    request: str
    by: str
    reason: str = ""
    pinned: bool = True


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
