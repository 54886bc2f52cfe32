"""Scores by the slices that pipelines declare, from the store itself: with the examples whose label never came.

The evaluator tells scores by slice as time passes, of every arm; which slice an unlabelled example was in only the
store knows. A column's values all keep their names here, also beyond the first ones that the evaluator tells apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headrace.schemas.contract import ContractSpec
from headrace.schemas.policies import Slice
from headrace.schemas.slices import MISSING, TEXT, range_names
from headrace.services.recorder.columns import PIPELINE, Column, View
from headrace.services.recorder.sql import literal, quoted
from headrace.services.recorder.tables import feature_columns


class Sliced(NamedTuple):
    """A slice, and the column and type of its feature in the table that holds the pipeline's examples."""

    slice: Slice
    table: str
    column: str
    type: str


def sliced(slices: Sequence[Slice], contracts: list[ContractSpec], table: str) -> tuple[Sliced, ...]:
    """Where the declared slices are in the pipeline's table."""
    columns = {found.feature: found for found in feature_columns(contracts)}
    return tuple(
        Sliced(one, table, columns[one.feature].column.name, columns[one.feature].type)
        for one in slices
        if one.feature in columns
    )


def slices_view(pipelines: Mapping[str, Sequence[Sliced]]) -> View:
    """Every slice of every pipeline by its newest release."""
    parts = [_select(pipeline, one) for pipeline, slices in pipelines.items() for one in slices]
    none = "SELECT NULL::VARCHAR AS pipeline, NULL::VARCHAR AS slice, NULL::VARCHAR AS value, NULL::VARCHAR AS label, "
    none += "NULL::BOOLEAN AS correct, NULL::DOUBLE AS log_loss, NULL::DOUBLE AS error WHERE false"
    return View(
        "slices",
        "one row for each value of each slice that a pipeline declares: served scores by the newest labels",
        f"""
    SELECT pipeline, slice || '=' || value AS slice, count(*) AS examples, count(label) AS labelled,
        count(label) / count(*) AS coverage, avg(correct::INTEGER) AS accuracy, avg(log_loss) AS log_loss,
        avg(abs(error)) AS mae
    FROM ({" UNION ALL ".join(parts) or none}) GROUP BY ALL
""",
        (
            PIPELINE,
            Column("slice", "", "the column and its value, or the range it is in"),
            Column("examples", "", "validated examples"),
            Column("labelled", "", "those whose label came"),
            Column("coverage", "", "labelled / examples"),
            Column("accuracy", "", "share of the labelled ones whose served class is the newest label"),
            Column("log_loss", "", "mean -ln of the probability given to the newest label"),
            Column("mae", "", "mean absolute error, in regression"),
        ),
    )


def _select(pipeline: str, one: Sliced) -> str:
    return (
        f"SELECT {literal(pipeline)} AS pipeline, {literal(one.slice.feature)} AS slice, {_value(one)} AS value, "
        f"o.label, o.correct, o.log_loss, o.error FROM {quoted(one.table)} f "
        f"LEFT JOIN (FROM outcomes WHERE pipeline = {literal(pipeline)} AND NOT inferred) o "
        "ON o.origin_partition = f.origin_partition AND o.origin_offset = f.origin_offset"
    )


def _value(one: Sliced) -> str:
    column = f"f.{quoted(one.column)}"
    if one.slice.edges:
        names = range_names(one.slice.edges)
        below = " ".join(
            f"WHEN {column} < {edge!r} THEN {literal(name)}" for edge, name in zip(one.slice.edges, names, strict=False)
        )
        return f"CASE WHEN {column} IS NULL THEN {literal(MISSING)} {below} ELSE {literal(names[-1])} END"
    text = f"{column}::VARCHAR"
    if one.type == "str":
        text = f"CASE WHEN length({column}) > {TEXT} THEN left({column}, {TEXT - 1}) || '…' ELSE {column} END"
    return f"coalesce({text}, {literal(MISSING)})"
