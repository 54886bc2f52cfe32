"""What SQL from outside may be: one statement that only reads. The engine holds this too (read-only transaction,
no external access, locked settings); this check gives clear messages and keeps out functions that reach further.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import duckdb

MAX_SQL = 100_000  # characters

# Everything else that stands after FROM with parentheses is refused: files, logs, plug-ins, SQL in strings.
TABLE_FUNCTIONS = {
    "range",
    "generate_series",
    "unnest",
    "json_each",
    "json_tree",
    "repeat",
    "repeat_row",
    "query_table",
    "histogram",
    "histogram_values",
    "summary",
    "duckdb_tables",
    "duckdb_columns",
    "duckdb_views",
    "duckdb_schemas",
    "duckdb_types",
    "duckdb_functions",
    "duckdb_constraints",
    "duckdb_keywords",
    "pragma_table_info",
    "pragma_database_size",
    "pragma_version",
    "pg_timezone_names",
    "icu_calendar_names",
    "test_all_types",
}
EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)


class Refused(ValueError):
    """SQL that may not run here, and why."""


class Guard:
    """Checks statements with a parser of its own, which holds no data."""

    @cached_property
    def _parser(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(":memory:")

    def check(self, sql: str) -> None:
        """Raises Refused unless this is one statement that only reads."""
        if len(sql) > MAX_SQL:
            raise Refused(f"the statement has {len(sql)} characters; at most {MAX_SQL} are taken")
        sql = EXPLAIN.sub("", sql, count=1)
        try:
            (text,) = self._parser.cursor().execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone() or (
                "{}",
            )
            tree = json.loads(text)
        except (duckdb.Error, ValueError, RecursionError) as error:
            raise Refused(str(error)) from error
        if tree.get("error"):
            message = tree.get("error_message", "this cannot be parsed")
            if message.startswith("Only SELECT"):
                message = "only a statement that reads may run here: SELECT, FROM, SHOW, DESCRIBE, SUMMARIZE, EXPLAIN"
            raise Refused(message)
        if len(tree["statements"]) != 1:
            raise Refused(f"one statement at a time, not {len(tree['statements'])}")
        for node in _nodes(tree):
            kind = str(node.get("type", ""))
            if kind.endswith("_QUERY_NODE") and kind.split("_")[0] in ("INSERT", "UPDATE", "DELETE", "MERGE"):
                raise Refused("only a statement that reads may run here; this one would write")
            if kind == "TABLE_FUNCTION":
                name = str((node.get("function") or {}).get("function_name", "")).lower()
                if name not in TABLE_FUNCTIONS:
                    raise Refused(f"the table function {name} may not be used here")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
