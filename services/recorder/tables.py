"""The store's tables as data: DDL, Arrow schemas, comments and Parquet files are made from them.

Times are TIMESTAMPTZ (UTC). `log_partition` and `log_offset` are a row's place in the topic it came from;
`origin_partition` and `origin_offset` the place of the example in `<p>.data-arrived`, which joins examples,
predictions and labels. Names that begin with `features_` and `training_` are kept for the pipelines' own tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.schemas.contract import ContractSpec, FeatureSpec

LAYOUT = "1"  # of the file; another one is refused, and the store is rebuilt from the log


@dataclass(frozen=True)
class Column:
    """One column; `text` marks a time that rows hold as RFC 3339 text, all others hold milliseconds since 1970."""

    name: str
    type: str
    comment: str
    text: bool = False


@dataclass(frozen=True)
class Table:
    """One table with a sentence about its rows."""

    name: str
    comment: str
    columns: tuple[Column, ...]


PIPELINE = Column("pipeline", "VARCHAR", "the pipeline's name")
ID = Column("id", "VARCHAR", "the example's id as published, or its place in data-arrived")
ENTITY = Column("entity", "VARCHAR", "what the example is about, where the pipeline has entities")
EVENT_TIME = Column("event_time", "TIMESTAMPTZ", "when it happened", text=True)
KNOWN_AT = Column("known_at", "TIMESTAMPTZ", "when the log first had what this row came from")
RELEASE = Column("release", "BIGINT", "the pipeline's release in force")
PLACE = (
    Column("log_partition", "BIGINT", "partition of the row's topic"),
    Column("log_offset", "BIGINT", "offset in the row's topic"),
)
ORIGIN = (
    Column("origin_partition", "BIGINT", "partition of the example in data-arrived"),
    Column("origin_offset", "BIGINT", "offset of the example in data-arrived"),
)
ARM = (
    Column("version", "BIGINT", "the model's version; NULL before it passed its first gate"),
    Column("run", "VARCHAR", "the run that learned the model"),
    Column("learned_to", "BIGINT", "offset of labelled-examples up to which (exclusive) the model had learned"),
    Column("prediction", "VARCHAR", "the answer where it is a class (true, false or its name); NULL in regression"),
    Column("score", "DOUBLE", "P(true) for a bool label, the probability of the answer for classes, else the number"),
)
CHECK = 'STRUCT(name VARCHAR, verdict VARCHAR, value DOUBLE, "limit" DOUBLE, n BIGINT, detail VARCHAR)[]'
QUICK_CHECK = 'STRUCT(name VARCHAR, passed BOOLEAN, value DOUBLE, "limit" DOUBLE)[]'
PROBLEM = "STRUCT(code VARCHAR, feature VARCHAR, message VARCHAR)[]"

EXAMPLE = (
    ID,
    ENTITY,
    EVENT_TIME,
    KNOWN_AT,
    RELEASE,
    Column("served", "VARCHAR", "the alias whose answer was served; NULL where no model served yet"),
    Column("cold", "BOOLEAN", "no champion stood when the example came"),
    Column("history", "BOOLEAN", "published as history: learned, never served"),
    *PLACE,
    *ORIGIN,
    Column("other", "JSON", "features that the released contract does not name, or with a value it does not allow"),
)

PREDICTIONS = Table(
    "predictions",
    "one row for each example and arm, as answered before the label was known",
    (
        PIPELINE,
        ID,
        ENTITY,
        KNOWN_AT,
        Column("alias", "VARCHAR", "the arm: champion, challenger, previous or anchor"),
        *ARM,
        Column("probabilities", "JSON", "{class: probability} where the label has more than two classes"),
        Column("error", "VARCHAR", "why the arm did not answer"),
        Column("served", "BOOLEAN", "whether this answer was served"),
        RELEASE,
        Column("epoch", "BIGINT", "count of the changes of the pipeline's aliases"),
        *PLACE,
        *ORIGIN,
    ),
)

LABELLED_EXAMPLES = Table(
    "labelled_examples",
    "one row for each label that met its prediction, in the order of learning",
    (
        PIPELINE,
        ID,
        ENTITY,
        EVENT_TIME,
        Column("label", "VARCHAR", "the label as text"),
        Column("label_value", "DOUBLE", "the label as a number (true is 1); NULL for classes"),
        Column("served", "VARCHAR", "the alias whose answer was served; NULL where no model served yet"),
        *ARM,
        Column("correct", "BOOLEAN", "whether the served class is the label; NULL in regression and without an answer"),
        Column("log_loss", "DOUBLE", "-ln of the probability given to the label, clipped at 1e-15; NULL without one"),
        Column("error", "DOUBLE", "served number minus label, in regression"),
        Column("predicted_at", "TIMESTAMPTZ", "known time of the example"),
        Column("labelled_at", "TIMESTAMPTZ", "known time of the label"),
        Column("label_delay_s", "DOUBLE", "labelled_at - predicted_at"),
        Column("inferred", "BOOLEAN", "the label never came; this one is the policy's"),
        Column("history", "BOOLEAN", "published as history: learned, never served"),
        Column("cold", "BOOLEAN", "no champion stood when the example came"),
        RELEASE,
        Column("epoch", "BIGINT", "count of the changes of the pipeline's aliases"),
        Column("majority", "VARCHAR", "most frequent label before the prediction"),
        Column("mean", "DOUBLE", "mean label before the prediction, where labels are numbers"),
        Column("last", "VARCHAR", "last label before the prediction"),
        Column("number", "BIGINT", "running number of the prediction in its partition"),
        Column("pending_from", "BIGINT", "number of the oldest prediction that still waited for its label"),
        Column(
            "known_to", "BIGINT", "sequence of the last row joined in its partition before the prediction; -1: none"
        ),
        *PLACE,
        *ORIGIN,
    ),
)

LABELS = Table(
    "labels",
    "one row for each label that met the contract, whether or not its example is known",
    (
        PIPELINE,
        ID,
        ENTITY,
        EVENT_TIME,
        KNOWN_AT,
        Column("label", "VARCHAR", "the label as text"),
        Column("label_value", "DOUBLE", "the label as a number (true is 1); NULL for classes"),
        *PLACE,
    ),
)

LABEL_CORRECTIONS = Table(
    "label_corrections",
    "later labels that differ from the first; models do not learn them",
    (
        PIPELINE,
        ID,
        ENTITY,
        Column("first_label", "VARCHAR", "the label that was learned"),
        Column("corrected_label", "VARCHAR", "the later one"),
        Column("labelled_at", "TIMESTAMPTZ", "known time of the later one"),
        *PLACE,
    ),
)

REJECTS = Table(
    "rejects",
    "one row for each record that no model will see, with every reason",
    (
        PIPELINE,
        ID,
        KNOWN_AT,
        Column("code", "VARCHAR", "the first reason's code"),
        Column("message", "VARCHAR", "the first reason, a sentence for people"),
        Column("problems", PROBLEM, "every reason: code, column and a sentence for people"),
        Column("topic", "VARCHAR", "the topic the record stood in"),
        Column("partition", "BIGINT", "its partition there"),
        Column("offset", "BIGINT", "its offset there"),
        Column("key", "BLOB", "its key"),
        Column("value", "BLOB", "its bytes, unchanged"),
        RELEASE,
        *PLACE,
    ),
)

WINDOWS = Table(
    "windows",
    "what the validator counted in one window of one partition of data-arrived",
    (
        PIPELINE,
        Column("data_partition", "BIGINT", "partition of data-arrived"),
        Column("start_offset", "BIGINT", "first offset"),
        Column("end_offset", "BIGINT", "offset after the last"),
        Column("started_at", "TIMESTAMPTZ", "known time of the first record"),
        Column("ended_at", "TIMESTAMPTZ", "known time of the last record"),
        RELEASE,
        Column("validated", "BIGINT", "examples that met the contract"),
        Column("labels", "BIGINT", "labels passed on"),
        Column("rejected", "BIGINT", "records rejected"),
        Column("duplicates", "BIGINT", "repeats dropped by id"),
        Column("reasons", "JSON", "{reason code: count}"),
        Column("extra_columns", "JSON", "{unknown column: count}"),
        Column("verdict", "VARCHAR", "ok, or skewed: too many rejects"),
        *PLACE,
    ),
)

FEATURE_WINDOWS = Table(
    "feature_windows",
    "one row for each window and feature: the snapshot of its distribution",
    (
        PIPELINE,
        Column("feature", "VARCHAR", "the feature's name"),
        Column("data_partition", "BIGINT", "partition of data-arrived"),
        Column("start_offset", "BIGINT", "first offset"),
        Column("end_offset", "BIGINT", "offset after the last"),
        Column("started_at", "TIMESTAMPTZ", "known time of the first record"),
        Column("ended_at", "TIMESTAMPTZ", "known time of the last record"),
        Column("n", "BIGINT", "values seen"),
        Column("missing", "BIGINT", "examples without it"),
        Column("mean", "DOUBLE", "of numbers"),
        Column("sd", "DOUBLE", "of numbers"),
        Column("min", "DOUBLE", "of numbers"),
        Column("max", "DOUBLE", "of numbers"),
        Column("quantiles", "DOUBLE[]", "of numbers, at equal steps"),
        Column("top", "JSON", "{value: count} of the most common text values"),
        *PLACE,
    ),
)

METRICS = Table(
    "metrics",
    "one row for each score of an arm as the evaluator published it",
    (
        PIPELINE,
        KNOWN_AT,
        Column("alias", "VARCHAR", "the arm"),
        *ARM[:2],
        Column("scope", "VARCHAR", "windowed, fading or cumulative"),
        Column("slice", "VARCHAR", "part of the rows; NULL: all"),
        Column("metric", "VARCHAR", "its name, such as accuracy"),
        Column("value", "DOUBLE", "NULL where it is undefined"),
        Column("n", "BIGINT", "labelled rows scored"),
        Column("coverage", "DOUBLE", "share of the predictions whose label came"),
        Column("window_from", "BIGINT", "first offset of labelled-examples scored"),
        Column("window_to", "BIGINT", "offset after the last"),
        *PLACE,
    ),
)

REVISIONS = Table(
    "revisions",
    "one row for each run in each snapshot the trainer took",
    (
        PIPELINE,
        Column("run", "VARCHAR", "the run"),
        Column("snapshot_offset", "BIGINT", "learned up to here (exclusive)"),
        KNOWN_AT,
        Column("uri", "VARCHAR", "its bytes in the artifact store"),
        Column("digest", "VARCHAR", "its digest"),
        Column("n_learned", "BIGINT", "labels learned"),
        Column("fit", "BOOLEAN", "whether it may be served"),
        Column("checks", QUICK_CHECK, "quick checks without labels"),
        Column("metrics", "JSON", "the run's own scores"),
        *PLACE,
    ),
)

RELEASES = Table(
    "releases",
    "one row for each release of a pipeline",
    (
        PIPELINE,
        RELEASE,
        KNOWN_AT,
        Column("released_by", "VARCHAR", "who asked"),
        Column("request", "VARCHAR", "the request"),
        Column("partitions", "BIGINT", "partitions of the data topics"),
        Column("description", "VARCHAR", "in the file's words"),
        Column("contract", "JSON", "columns and label"),
        Column("policies", "JSON", "all policies"),
        Column("contract_digest", "VARCHAR", "changes with the contract"),
        Column("recipe_digest", "VARCHAR", "changes with the recipe"),
        Column("source_digest", "VARCHAR", "changes with the file"),
        Column("source_uri", "VARCHAR", "the file in the artifact store"),
    ),
)

RUN_EVENTS = Table(
    "run_events",
    "requests, starts, ends and failures of trainings; the view trainings sums them up",
    (
        PIPELINE,
        KNOWN_AT,
        Column("event", "VARCHAR", "TrainingRequested, RunStarted, TrainingCompleted, RunEnded, …"),
        Column("request", "VARCHAR", "the training's id"),
        Column("run", "VARCHAR", "the run"),
        Column("trigger", "VARCHAR", "why it was asked"),
        Column("cause", "VARCHAR", "the event that caused it"),
        RELEASE,
        Column("seed", "BIGINT", "the recipe's seed"),
        Column("parent", "VARCHAR", "the snapshot it starts from"),
        Column("start_offset", "BIGINT", "first offset of labelled-examples"),
        Column("end_offset", "BIGINT", "offset after the last learned"),
        Column("n_labels", "BIGINT", "labels, asked or learned"),
        Column("reason", "VARCHAR", "why it ended or failed"),
        *PLACE,
    ),
)

VALIDATIONS = Table(
    "validations",
    "one row for each verdict of a gate, with every check and its numbers",
    (
        PIPELINE,
        KNOWN_AT,
        Column("run", "VARCHAR", "the run judged"),
        Column("request", "VARCHAR", "the training's id"),
        Column("stage", "VARCHAR", "offline, infra, online, guard or refresh"),
        Column("verdict", "VARCHAR", "pass, fail, inconclusive or error"),
        Column("checks", CHECK, "each check"),
        Column("n_labels", "BIGINT", "labelled rows it rests on"),
        Column("learned_to", "BIGINT", "offset of labelled-examples judged (exclusive)"),
        Column("snapshot_uri", "VARCHAR", "the snapshot judged"),
        Column("snapshot_offset", "BIGINT", "its offset"),
        Column("against", "VARCHAR", "the rival run"),
        Column("epoch", "BIGINT", "count of the changes of the aliases"),
        Column("seconds", "DOUBLE", "time the gate took"),
        Column("peak_mb", "DOUBLE", "memory it took"),
        *PLACE,
    ),
)

ALIAS_HISTORY = Table(
    "alias_history",
    "one row for each move of an alias, never changed",
    (
        PIPELINE,
        KNOWN_AT,
        Column("alias", "VARCHAR", "champion, challenger, previous or anchor"),
        *ARM[:2],
        RELEASE,
        Column("previous_version", "BIGINT", "where it pointed before"),
        Column("follows", "BOOLEAN", "whether newer revisions of the run are served"),
        Column("snapshot_offset", "BIGINT", "the revision it starts with"),
        Column("uri", "VARCHAR", "that revision's bytes"),
        Column("epoch", "BIGINT", "count of the changes of the aliases"),
        Column("reason", "VARCHAR", "why it moved"),
        Column("forced_by", "VARCHAR", "who skipped the gates"),
        Column("share", "DOUBLE", "share of the traffic in a canary"),
        *PLACE,
    ),
)

EVENTS = Table(
    "events",
    "control-log: every deciding event in the order of decisions (without ticks)",
    (
        PIPELINE,
        KNOWN_AT,
        Column("event", "VARCHAR", "its name"),
        Column("first_place", "VARCHAR", "where it was first written: topic/topic id/partition/offset"),
        Column("correlation", "VARCHAR", "id of the whole story"),
        Column("causation", "VARCHAR", "place of the direct parent"),
        Column("body", "JSON", "the event"),
        *PLACE,
    ),
)

LINEAGE = Table(
    "lineage",
    "OpenLineage run events",
    (
        PIPELINE,
        KNOWN_AT,
        Column("run_event", "JSON", "as https://openlineage.io/spec says"),
        *PLACE,
    ),
)

DEAD_LETTERS = Table(
    "dead_letters",
    "records that no retry can fix, of every service",
    (
        PIPELINE,
        KNOWN_AT,
        Column("service", "VARCHAR", "who could not read it"),
        Column("topic", "VARCHAR", "where it stood"),
        Column("topic_partition", "BIGINT", "its partition there"),
        Column("topic_offset", "BIGINT", "its offset there"),
        Column("reason", "VARCHAR", "why"),
        Column("value", "BLOB", "its bytes"),
        *PLACE,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        PREDICTIONS,
        LABELS,
        LABELLED_EXAMPLES,
        LABEL_CORRECTIONS,
        REJECTS,
        WINDOWS,
        FEATURE_WINDOWS,
        METRICS,
        REVISIONS,
        RELEASES,
        RUN_EVENTS,
        VALIDATIONS,
        ALIAS_HISTORY,
        EVENTS,
        LINEAGE,
        DEAD_LETTERS,
    )
}

TRAINING = (  # what the view training_<pipeline> has beside the features
    Column("label", "", "the first label, in the contract's type"),
    Column("prediction", "VARCHAR", "the class that was served"),
    Column("score", "DOUBLE", "P(true) for a bool label, the probability of the answer for classes, else the number"),
    Column("correct", "BOOLEAN", "whether the served class is the label"),
    Column("label_delay_s", "DOUBLE", "time from the example to its label"),
    Column("learned_offset", "BIGINT", "offset in labelled-examples: the order of learning"),
)

SQL_TYPE = {"float": "DOUBLE", "int": "BIGINT", "bool": "BOOLEAN", "str": "VARCHAR"}


@dataclass(frozen=True)
class FeatureColumn:
    """A feature and the column that holds it; the names differ where the feature's is taken."""

    feature: str
    type: str
    column: Column


def feature_columns(contracts: list[ContractSpec]) -> tuple[FeatureColumn, ...]:
    """The columns of every feature that any of these contracts (oldest first) names; the first type counts."""
    taken = {column.name for column in (*EXAMPLE, *TRAINING)}
    found: dict[str, FeatureColumn] = {}
    for contract in contracts:
        for spec in contract.features:
            if spec.name not in found:
                name = _free_name(spec.name, taken)
                taken.add(name.casefold())
                found[spec.name] = FeatureColumn(spec.name, spec.type, Column(name, SQL_TYPE[spec.type], _about(spec)))
    return tuple(found.values())


def features_table(pipeline: str, features: tuple[FeatureColumn, ...]) -> Table:
    """The typed table of a pipeline's examples: one row for each validated example."""
    return Table(
        f"features_{identifier(pipeline)}",
        f"one row for each validated example of {pipeline}, features as served",
        (*EXAMPLE, *(feature.column for feature in features)),
    )


def identifier(pipeline: str) -> str:
    """A pipeline's name as part of a table's: no pipeline's name has an underscore, so no two are alike."""
    return pipeline.replace("-", "_")


def _free_name(name: str, taken: set[str]) -> str:
    name = name.replace("\0", "") or "feature"
    candidate, n = name, 1
    while candidate.casefold() in taken:  # DuckDB's names ignore case, Python's and a contract's do not
        candidate, n = f"{name}_{n}", n + 1
    return candidate


def _about(spec: FeatureSpec) -> str:
    unit = f"[{spec.unit}]" if spec.unit else ""
    return " ".join(part for part in (spec.description or "", unit) if part) or f"feature {spec.name}"
