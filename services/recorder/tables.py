"""The store's tables as data: DDL, Arrow schemas, comments and Parquet files are made from them.

Times are TIMESTAMPTZ (UTC). `log_partition` and `log_offset` are a row's place in the topic it came from;
`origin_partition` and `origin_offset` the place of the example in `<p>.data-arrived`, which joins examples,
predictions and labels. Names that begin with `features_` and `training_` are kept for the pipelines' own tables.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.schemas.contract import ContractSpec, FeatureSpec
from headrace.services.recorder.columns import Column, Table
from headrace.services.recorder.control_tables import (
    ALIAS_HISTORY,
    DEAD_LETTERS,
    EVENTS,
    FEATURE_WINDOWS,
    LINEAGE,
    METRICS,
    RELEASES,
    REVISIONS,
    RUN_EVENTS,
    VALIDATIONS,
    WINDOWS,
)
from headrace.services.recorder.data_tables import (
    EXAMPLE,
    LABEL_CORRECTIONS,
    LABELLED_EXAMPLES,
    LABELS,
    PREDICTIONS,
    REJECTS,
    TRAINING,
)

LAYOUT = "1"  # of the file; another one is refused, and the store is rebuilt from the log


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
