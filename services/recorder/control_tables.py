"""Tables of what is found out and decided: windows, scores, revisions, releases, verdicts, aliases, events."""

from __future__ import annotations

from headrace.services.recorder.columns import (
    ARM,
    CHECK,
    KNOWN_AT,
    PIPELINE,
    PLACE,
    QUICK_CHECK,
    RELEASE,
    Column,
    Table,
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
        Column("quantiles", "DOUBLE[]", "of numbers: 1, 5, 25, 50, 75, 95 and 99 %"),
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
        Column("recipe", "VARCHAR", "the challenger's recipe; NULL for the pipeline's own"),
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
    "one row for each move of an alias, never changed; without a version where it was removed",
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
