"""The table of topics as data: topic creation, AsyncAPI, ACLs and tests are made from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

PIPELINE_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
DLQ = "-dlq"
DAY_S = 86_400


@dataclass(frozen=True)
class Topic:
    """One topic: `events` in it, who writes and reads it, and how the broker keeps it.

    `partitions` "pipeline" means the count fixed at the pipeline's first release. `retention_s` None keeps for
    ever, 0 means: at least as long as the pipeline's policies need (`infra.create_topics`).
    """

    name: str
    events: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    what: str
    partitions: int | Literal["pipeline"] = 1
    append_time: bool = False
    retention_s: int | None = None
    retention_bytes: int | None = None
    decides: bool = False

    @property
    def per_pipeline(self) -> bool:
        """Whether each pipeline has a topic of its own."""
        return self.name.startswith("<p>.")

    @property
    def by_users(self) -> bool:
        """Whether users write it: then only event ids count against repeats, never source and sequence."""
        return "users" in self.producers


IN_BAND = ("PipelineReleased", "PipelineRetired", "Tick")

TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(
            "<p>.data-arrived",
            ("ExampleArrived", "LabelArrived", *IN_BAND),
            ("users", "registry", "scheduler"),
            ("validator", "operators"),
            "examples and labels as users published them",
            partitions="pipeline",
            append_time=True,
            retention_s=0,
        ),
        Topic(
            "<p>.data-validated",
            ("ExampleArrived", "LabelArrived", *IN_BAND),
            ("validator",),
            ("features", "predictor"),
            "what met the contract, once per id, keyed by entity, else id",
            partitions="pipeline",
            retention_s=0,
        ),
        Topic(
            "<p>.data-rejected",
            ("RecordRejected",),
            ("validator", "joiner"),
            ("recorder", "users"),
            "what did not, with its original bytes, place and reason codes",
            partitions="pipeline",
            retention_s=0,
        ),
        Topic(
            "<p>.features",
            ("FeaturesComputed", "LabelArrived", *IN_BAND),
            ("features",),
            ("predictor",),
            "examples with their windowed features, where a pipeline declares some",
            partitions="pipeline",
            retention_s=0,
        ),
        Topic(
            "<p>.predictions",
            ("PredictionMade", "LabelArrived", *IN_BAND),
            ("predictor",),
            ("joiner", "monitor", "recorder", "users"),
            "one prediction for every validated example, before its label",
            partitions="pipeline",
            retention_s=0,
        ),
        Topic(
            "<p>.labelled-examples",
            ("ExampleLabelled", "LabelCorrected", *IN_BAND),
            ("joiner",),
            ("trainer", "evaluator", "monitor", "recorder", "operators"),
            "predictions with their labels, in the order of learning",
        ),
        Topic(
            "<p>.snapshots",
            ("SnapshotTaken",),
            ("trainer",),
            ("predictor", "evaluator", "recorder", "operators"),
            "the models of all runs at one offset",
            retention_bytes=64 << 20,
        ),
        Topic(
            "validation-results",
            ("WindowValidated",),
            ("validator",),
            ("sequencer", "recorder"),
            "counts by reason code and per-feature summaries of each window",
            decides=True,
        ),
        Topic(
            "metrics",
            ("MetricsUpdated",),
            ("evaluator",),
            ("recorder", "users"),
            "windowed, fading and cumulative scores by arm",
            retention_s=365 * DAY_S,
        ),
        Topic(
            "drift-alerts",
            ("DriftDetected",),
            ("monitor",),
            ("sequencer", "users"),
            "input, prediction, performance and label drift with its evidence",
            decides=True,
        ),
        Topic(
            "operator-requests",
            (
                "ReleaseAsked",
                "RetireAsked",
                "TrainingAsked",
                "PromotionAsked",
                "RollbackAsked",
                "PauseAsked",
                "ResumeAsked",
                "PinAsked",
            ),
            ("users",),
            ("sequencer",),
            "what people ask for",
            append_time=True,
            decides=True,
        ),
        Topic("ticks", ("Tick",), ("scheduler",), ("sequencer",), "minutes and due schedules", decides=True),
        Topic(
            "training-requests",
            ("TrainingRequested",),
            ("orchestrator",),
            ("sequencer", "users"),
            "trainings to start",
            decides=True,
        ),
        Topic(
            "training-runs",
            ("RunStarted", "RunEnded", "TrainingFailed"),
            ("trainer",),
            ("sequencer", "operators"),
            "runs and their ends",
            decides=True,
        ),
        Topic(
            "training-completed",
            ("TrainingCompleted",),
            ("trainer",),
            ("sequencer", "users"),
            "runs that reached the end of their range",
            decides=True,
        ),
        Topic(
            "model-validations",
            ("ModelValidated", "LabelsCounted"),
            ("evaluator",),
            ("sequencer", "users"),
            "every gate's verdict with all its numbers",
            decides=True,
        ),
        Topic(
            "model-updates",
            ("ModelUpdated", "AliasRemoved"),
            ("registry",),
            ("sequencer", "predictor", "users"),
            "where each alias points",
            decides=True,
        ),
        Topic(
            "pipelines",
            ("PipelineReleased", "PipelineRetired"),
            ("registry",),
            ("sequencer", "validator", "predictor", "joiner", "trainer", "evaluator", "monitor", "scheduler", "users"),
            "the definitions in force",
            decides=True,
        ),
        Topic(
            "control-log",
            (),
            ("sequencer",),
            ("orchestrator", "registry", "trainer", "evaluator", "recorder", "users"),
            "every deciding event, in the order of decisions",
        ),
        Topic(
            "decisions",
            (
                "RequestRefused",
                "ChallengerSuperseded",
                "ChallengerExpired",
                "AutomationPaused",
                "AutomationResumed",
                "PipelineDegraded",
                "SchemaSkewed",
                "RangeBarred",
                "RevisionPinned",
            ),
            ("orchestrator", "registry"),
            ("sequencer", "users"),
            "what was refused, paused, superseded, barred or pinned, and why",
            decides=True,
        ),
        Topic(
            "store-snapshots",
            ("SnapshotPublished",),
            ("recorder",),
            ("users",),
            "Parquet snapshots of the store",
            retention_s=30 * DAY_S,
        ),
        Topic(
            "lineage",
            ("LineageRecorded",),
            ("trainer", "features", "recorder", "users"),
            ("recorder", "users"),
            "OpenLineage run events",
            retention_s=365 * DAY_S,
        ),
    )
}


def control_log_events() -> tuple[str, ...]:
    """The names of all events that the sequencer may copy into `control-log`."""
    return tuple(dict.fromkeys(event for topic in TOPICS.values() if topic.decides for event in topic.events))


def full_name(name: str, pipeline: str = "", namespace: str = "") -> str:
    """The topic as the broker knows it: `<p>.x` of rainfall in namespace `t1-` is `t1-rainfall.x`."""
    if name.startswith("<p>."):
        if not PIPELINE_NAME.fullmatch(pipeline):
            raise ValueError(f"{name} needs a pipeline's name ([a-z][a-z0-9-]*), not {pipeline!r}")
        return f"{namespace}{pipeline}{name[3:]}"
    return namespace + name


def parse_name(full: str, namespace: str = "") -> tuple[str, str]:
    """The name in `TOPICS` and the pipeline ("" for control topics) of a topic as the broker knows it."""
    if not full.startswith(namespace):
        raise ValueError(f"topic {full!r} is not in namespace {namespace!r}")
    pipeline, dot, rest = full[len(namespace) :].partition(".")
    return (f"<p>.{rest}", pipeline) if dot else (pipeline, "")


def pipeline_topics() -> list[Topic]:
    """The topics that every pipeline has of its own."""
    return [topic for topic in TOPICS.values() if topic.per_pipeline]


def control_topics() -> list[Topic]:
    """The topics that all pipelines share."""
    return [topic for topic in TOPICS.values() if not topic.per_pipeline]
