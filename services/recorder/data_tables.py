"""Tables of what passes through a pipeline: examples, predictions, labels, rejects."""

from __future__ import annotations

from headrace.services.recorder.columns import (
    ARM,
    ENTITY,
    EVENT_TIME,
    ID,
    KNOWN_AT,
    ORIGIN,
    PIPELINE,
    PLACE,
    PROBLEM,
    RELEASE,
    Column,
    Table,
)

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

TRAINING = (  # what the view training_<pipeline> has beside the features
    Column("label", "", "the first label, in the contract's type"),
    Column("prediction", "VARCHAR", "the class that was served"),
    Column("score", "DOUBLE", "P(true) for a bool label, the probability of the answer for classes, else the number"),
    Column("correct", "BOOLEAN", "whether the served class is the label"),
    Column("label_delay_s", "DOUBLE", "time from the example to its label"),
    Column("learned_offset", "BIGINT", "offset in labelled-examples: the order of learning"),
)
