"""Labelled examples as reports count them: by the newest label, where a label was corrected.

`labelled_examples` itself and `training_<pipeline>` keep the first label: it decided, and models learned it.
"""

from __future__ import annotations

from headrace.services.recorder.columns import Column, View

NEWEST_LABEL = Column("label", "", "the newest label as text")

OUTCOMES = View(
    "outcomes",
    "one row for each labelled example by its newest label: what reports count (labelled_examples: what was learned)",
    """
    WITH corrections AS (  -- each one's row: the newest before it with its id
        SELECT c.pipeline, c.log_offset, any_value(c.corrected_label) AS label, any_value(c.labelled_at) AS labelled_at,
            max(l.log_offset) AS row_offset
        FROM label_corrections c JOIN labelled_examples l ON l.pipeline = c.pipeline AND l.id = c.id
            AND l.entity IS NOT DISTINCT FROM c.entity AND l.log_offset < c.log_offset
        GROUP BY c.pipeline, c.log_offset
    ), newest AS (
        SELECT pipeline, row_offset, arg_max(label, log_offset) AS label,
            arg_max(labelled_at, log_offset) AS corrected_at
        FROM corrections GROUP BY pipeline, row_offset
    ), scored AS (  -- `p`: the probability given to the newest label; of two classes the score says it
        SELECT n.*,
            CASE WHEN n.label IN ('true', 'false') THEN (n.label = 'true')::INTEGER::DOUBLE
                ELSE TRY_CAST(n.label AS DOUBLE) END AS label_value,
            CASE WHEN p.probabilities IS NOT NULL
                THEN coalesce((p.probabilities::MAP(VARCHAR, DOUBLE))[n.label], 0)
                WHEN n.label = 'true' THEN l.score ELSE 1 - l.score END AS p
        FROM newest n JOIN labelled_examples l ON l.pipeline = n.pipeline AND l.log_offset = n.row_offset
        LEFT JOIN predictions p ON p.pipeline = l.pipeline AND p.origin_partition = l.origin_partition
            AND p.origin_offset = l.origin_offset AND p.alias = l.served
    )
    SELECT l.* REPLACE (
            coalesce(n.label, l.label) AS label,
            CASE WHEN n.label IS NULL OR l.label_value IS NULL THEN l.label_value ELSE n.label_value END AS label_value,
            CASE WHEN n.label IS NULL THEN l.correct ELSE l.prediction = n.label END AS correct,
            CASE WHEN n.label IS NULL OR l.log_loss IS NULL THEN l.log_loss
                ELSE -ln(greatest(least(n.p, 1 - 1e-15), 1e-15)) END AS log_loss,
            CASE WHEN n.label IS NULL OR l.error IS NULL THEN l.error ELSE l.score - n.label_value END AS error
        ), l.label AS first_label, n.corrected_at
    FROM labelled_examples l
    LEFT JOIN scored n ON n.pipeline = l.pipeline AND n.row_offset = l.log_offset
""",
    (
        NEWEST_LABEL,
        Column("label_value", "", "the newest label as a number (true is 1); NULL for classes"),
        Column("correct", "", "whether the served class is the newest label; NULL in regression and without an answer"),
        Column(
            "log_loss",
            "",
            "-ln of the probability given to the newest label, clipped at 1e-15 (34.5, as for a class that the answer "
            "does not name); NULL without one",
        ),
        Column("error", "", "served number minus the newest label, in regression"),
        Column("first_label", "", "the label that decided, and was learned"),
        Column("corrected_at", "", "known time of the newest correction; NULL where there was none"),
    ),
)
