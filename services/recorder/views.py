"""Views over the tables: what people ask first. Definitions as data, with comments on views and columns."""

from __future__ import annotations

from headrace.schemas.contract import ContractSpec
from headrace.services.recorder.columns import PIPELINE, Column, Table, View
from headrace.services.recorder.data_tables import EXAMPLE, TRAINING
from headrace.services.recorder.outcomes import NEWEST_LABEL, OUTCOMES
from headrace.services.recorder.sql import literal, quoted
from headrace.services.recorder.tables import TABLES, identifier


def comments(what: Table | View) -> dict[str, str]:
    """A comment for every column of a table or view."""
    found = {column.name: column.comment for column in what.columns}
    return found if isinstance(what, Table) else _OF_TABLES | found


ALIASES = View(
    "aliases",
    "where each alias points now",
    """
    SELECT * EXCLUDE (log_partition, log_offset) RENAME (known_at AS since)
    FROM alias_history QUALIFY row_number() OVER (PARTITION BY pipeline, alias ORDER BY log_offset DESC) = 1
        AND version IS NOT NULL
""",
    (Column("since", "", "when it moved there"),),
)

MODELS = View(
    "models",
    "one row for each version of a model",
    """
    SELECT h.pipeline, h.version, arg_min(h.run, h.log_offset) AS run, arg_min(h.release, h.log_offset) AS release,
        min(h.known_at) AS since, arg_min(h.uri, h.log_offset) AS uri,
        arg_min(h.snapshot_offset, h.log_offset) AS snapshot_offset, arg_min(h.reason, h.log_offset) AS reason,
        coalesce(any_value(a.aliases), []) AS aliases, any_value(t.trigger) AS trigger,
        any_value(t.recipe) AS recipe, arg_min(v.n_labels, h.log_offset) AS n_labels
    FROM alias_history h
    LEFT JOIN (
        SELECT pipeline, version, list_sort(list(alias)) AS aliases FROM aliases GROUP BY ALL
    ) a USING (pipeline, version)
    LEFT JOIN (
        SELECT pipeline, run, any_value(trigger) AS trigger, any_value(recipe) AS recipe FROM trainings GROUP BY ALL
    ) t ON t.pipeline = h.pipeline AND t.run = h.run
    LEFT JOIN (  -- a run that goes on is judged again and again; the verdict that made it a version names its snapshot
        SELECT pipeline, run, snapshot_uri, max(n_labels) AS n_labels FROM validations
        WHERE stage = 'infra' AND verdict = 'pass' GROUP BY ALL
    ) v ON v.pipeline = h.pipeline AND v.run = h.run AND v.snapshot_uri = h.uri
    WHERE h.version IS NOT NULL GROUP BY h.pipeline, h.version
""",
    (
        PIPELINE,
        Column("version", "", "its number"),
        Column("run", "", "the run that learned it"),
        Column("release", "", "the release whose recipe made it"),
        Column("recipe", "", "the challenger's recipe that made it; NULL for the pipeline's own"),
        Column("since", "", "when an alias first named it"),
        Column("uri", "", "the snapshot it was first served from"),
        Column("snapshot_offset", "", "learned up to here"),
        Column("reason", "", "why it was taken"),
        Column("aliases", "", "the aliases that name it now"),
        Column("trigger", "", "why its training was asked"),
        Column("n_labels", "", "labels it was judged by before it became a version"),
    ),
)

TRAININGS = View(
    "trainings",
    "one row for each training, from its request to its end",
    """
    SELECT r.pipeline, r.request, r.trigger, r.cause, r.release, r.recipe, r.seed, r.parent, r.run,
        CASE WHEN e.ended_at IS NOT NULL THEN 'ended' WHEN r.failed_at IS NOT NULL THEN 'failed'
            WHEN r.completed_at IS NOT NULL THEN 'completed' WHEN r.started_at IS NOT NULL THEN 'learning'
            ELSE 'requested' END AS status,
        r.requested_at, r.started_at, r.completed_at, coalesce(e.ended_at, r.failed_at) AS ended_at,
        r.start_offset, coalesce(e.end_offset, r.end_offset) AS end_offset, r.n_labels,
        coalesce(e.reason, r.reason) AS reason
    FROM (
        SELECT pipeline, request, max(trigger) AS trigger, max(cause) AS cause, max(release) AS release,
            max(recipe) AS recipe, max(seed) AS seed, max(parent) AS parent, max(run) AS run,
            min(known_at) FILTER (event = 'TrainingRequested') AS requested_at,
            min(known_at) FILTER (event = 'RunStarted') AS started_at,
            max(known_at) FILTER (event = 'TrainingCompleted') AS completed_at,
            min(known_at) FILTER (event = 'TrainingFailed' AND end_offset IS NULL) AS failed_at,
            min(start_offset) FILTER (event IN ('RunStarted', 'TrainingCompleted')) AS start_offset,
            max(end_offset) FILTER (event = 'TrainingCompleted') AS end_offset,
            max(n_labels) FILTER (event = 'TrainingCompleted') AS n_labels,
            max(reason) FILTER (event = 'TrainingFailed' AND end_offset IS NULL) AS reason
        FROM run_events WHERE request IS NOT NULL GROUP BY pipeline, request
    ) r
    LEFT JOIN (
        SELECT pipeline, run, min(known_at) AS ended_at, any_value(end_offset) AS end_offset,
            any_value(reason) AS reason
        FROM run_events WHERE event = 'RunEnded' GROUP BY pipeline, run
    ) e ON e.pipeline = r.pipeline AND e.run = r.run
""",
    (
        PIPELINE,
        Column("request", "", "its id"),
        Column("trigger", "", "why it was asked"),
        Column("status", "", "requested, learning, completed, failed or ended"),
        Column("run", "", "the run"),
        Column("start_offset", "", "first offset of labelled-examples"),
        Column("n_labels", "", "labels learned when it last reached the labels asked, or a doubling of them"),
        Column("requested_at", "", "when it was asked"),
        Column("started_at", "", "when its run began"),
        Column("completed_at", "", "when it last reached the labels asked"),
        Column("ended_at", "", "when it ended or failed"),
        Column("reason", "", "why it ended or failed"),
    ),
)

VALIDATION_CHECKS = View(
    "validation_checks",
    "one row for each check of each verdict",
    """
    SELECT pipeline, known_at, run, stage, verdict AS stage_verdict, unnest(checks, recursive := true), log_offset
    FROM validations
""",
    (
        Column("name", "", "the check"),
        Column("stage_verdict", "", "the verdict of the whole gate"),
        Column("detail", "", "in words"),
        Column("verdict", "", "its own verdict"),
        Column("value", "", "what was measured"),
        Column("limit", "", "what it is held against"),
        Column("n", "", "rows it rests on"),
    ),
)

SCORED_PREDICTIONS = View(
    "scored_predictions",
    "predictions of every arm with the newest label that came",
    """
    SELECT p.*, l.label, l.label_value, p.prediction = l.label AS correct, l.labelled_at, l.label_delay_s
    FROM predictions p JOIN outcomes l USING (pipeline, origin_partition, origin_offset)
""",
    (Column("correct", "", "whether this arm's class is the label"), NEWEST_LABEL),
)

WAITING_LABELS = View(
    "waiting_labels",
    "labels that met no example: too early, or with an id nobody published",
    """
    SELECT * FROM labels l WHERE NOT EXISTS (
        FROM labelled_examples e
        WHERE e.pipeline = l.pipeline AND e.id = l.id AND e.entity IS NOT DISTINCT FROM l.entity
    )
""",
    (),
)

DECISIONS = View(
    "decisions",
    "what was refused, paused, superseded, barred or pinned, and why",
    """
    SELECT pipeline, known_at, event, body->>'reason' AS reason, coalesce(body->>'request', body->>'run') AS subject,
        body->>'by' AS "by", body->'numbers' AS numbers, log_offset
    FROM events WHERE event IN ('RequestRefused', 'ChallengerSuperseded', 'ChallengerExpired', 'AutomationPaused',
        'AutomationResumed', 'PipelineDegraded', 'SchemaSkewed', 'RangeBarred', 'RevisionPinned')
""",
    (
        Column("reason", "", "why"),
        Column("subject", "", "the request or run concerned"),
        Column("by", "", "the person, where one did it"),
        Column("numbers", "", "what it rests on"),
    ),
)

DRIFT_ALERTS = View(
    "drift_alerts",
    "changes of data, predictions, performance or the flow of labels",
    """
    SELECT pipeline, known_at, body->>'kind' AS kind, body->>'level' AS level, (body->>'since')::BIGINT AS since,
        body->>'detector' AS detector, body->'features' AS features, body->'evidence' AS evidence,
        body->>'diagnosis' AS diagnosis, log_offset
    FROM events WHERE event = 'DriftDetected'
""",
    (
        Column("kind", "", "input, prediction, performance or labels"),
        Column("level", "", "warning or drift"),
        Column(
            "since",
            "",
            "offset at which the change began: of predictions for inputs and predictions, else labelled-examples",
        ),
        Column("detector", "", "what found it"),
        Column("features", "", "the columns that changed"),
        Column("evidence", "", "its numbers"),
        Column("diagnosis", "", "what it looks like"),
    ),
)

PIPELINES = View(
    "pipelines",
    "every pipeline with its newest release",
    """
    SELECT r.*, e.retired_at
    FROM (FROM releases QUALIFY row_number() OVER (PARTITION BY pipeline ORDER BY release DESC) = 1) r
    LEFT JOIN (
        SELECT pipeline, min(known_at) AS retired_at FROM events WHERE event = 'PipelineRetired' GROUP BY pipeline
    ) e USING (pipeline)
""",
    (Column("retired_at", "", "when it ended; NULL while it lives"),),
)

VIEWS = (
    OUTCOMES,
    ALIASES,
    TRAININGS,
    MODELS,
    VALIDATION_CHECKS,
    SCORED_PREDICTIONS,
    WAITING_LABELS,
    DECISIONS,
    DRIFT_ALERTS,
    PIPELINES,
)


def examples_view(features: dict[str, Table]) -> View:
    """All pipelines' examples, each one's features as one JSON value."""
    common = ", ".join(quoted(column.name) for column in EXAMPLE)
    parts = [
        f"SELECT {literal(pipeline)} AS pipeline, {common}, to_json(struct_pack({_pairs(table)})) AS features "
        f"FROM {quoted(table.name)}"
        if _pairs(table)
        else f"SELECT {literal(pipeline)} AS pipeline, {common}, '{{}}'::JSON AS features FROM {quoted(table.name)}"
        for pipeline, table in features.items()
    ]
    none = ", ".join(f"NULL::{column.type} AS {quoted(column.name)}" for column in EXAMPLE)
    parts = parts or [f"SELECT NULL::VARCHAR AS pipeline, {none}, NULL::JSON AS features WHERE false"]
    return View(
        "examples",
        "one row for each validated example, features as served (typed: the table features_<pipeline>)",
        " UNION ALL ".join(parts),
        (PIPELINE, *EXAMPLE, Column("features", "JSON", "the features as served")),
    )


def training_view(pipeline: str, table: Table, contract: ContractSpec) -> View:
    """A pipeline's features with the label that came and what was served, ready to learn from."""
    label = {"bool": "l.label::BOOLEAN", "float": "l.label_value"}.get(contract.label.type, "l.label")
    features = "".join(f", f.{quoted(column.name)}" for column in table.columns[len(EXAMPLE) :])
    return View(
        f"training_{identifier(pipeline)}",
        f"labelled examples of {pipeline}: features, label, what was served",
        f"SELECT f.id, f.entity, f.event_time, f.known_at, f.release{features}, {label} AS label, l.prediction, "
        f"l.score, l.correct, l.label_delay_s, l.log_offset AS learned_offset "
        f"FROM {quoted(table.name)} f JOIN labelled_examples l ON l.pipeline = {literal(pipeline)} "
        f"AND l.origin_partition = f.origin_partition AND l.origin_offset = f.origin_offset",
        (*table.columns, *TRAINING),
    )


_OF_TABLES = {column.name: column.comment for table in reversed(TABLES.values()) for column in table.columns}


def _pairs(table: Table) -> str:
    return ", ".join(f"{quoted(c.name)} := {quoted(c.name)}" for c in table.columns[len(EXAMPLE) :])
