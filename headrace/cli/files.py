"""Files of rows: CSV, JSON lines and Parquet, the first two also compressed."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace.errors import InvalidInput, Missing

PACKED = {".gz": gzip.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Source:
    """A file of rows: its columns, and how many rows it has (lines, where counting rows would mean reading them)."""

    path: Path
    columns: tuple[str, ...]
    count: int

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in order, each by column. Raises InvalidInput naming the line."""
        return READERS[_suffix(self.path)](self.path)


def open_source(path: Path) -> Source:
    """A file's columns. Raises Missing, and InvalidInput for a format that is not known or a file without rows."""
    suffix = _suffix(path)
    if suffix not in READERS:
        raise InvalidInput(f"{path}: {', '.join(READERS)} can be read (also .gz, .xz), not {suffix or 'this'}")
    if not path.is_file():
        raise Missing(f"there is no file {path}")
    if suffix == ".parquet":
        file = _parquet_file(path)
        return Source(path, tuple(file.schema_arrow.names), file.metadata.num_rows)
    first = next(READERS[suffix](path), None)
    if first is None:
        raise InvalidInput(f"{path} has no rows")
    return Source(path, tuple(first), _lines(path) - (suffix in (".csv", ".tsv")))


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix.lower()


def _open(path: Path) -> IO[str]:
    unpack: Any = PACKED.get(path.suffix)
    if unpack is not None:
        return unpack(path, "rt", encoding="utf-8-sig", newline="")  # type: ignore[no-any-return]
    return path.open(encoding="utf-8-sig", newline="")


def _lines(path: Path) -> int:
    with _open(path) as file:
        return sum(1 for line in file if line.strip())


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        try:
            reader = csv.DictReader(file, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
            for row in reader:
                if None in row or None in row.values():
                    wanted = len(reader.fieldnames or ())
                    raise InvalidInput(f"{path}, line {reader.line_num}: not {wanted} columns as in the first line")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} is no CSV file in UTF-8: {error}") from error


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInput(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise InvalidInput(f"{path}, line {number}: a JSON object is needed")
            yield row


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{path} is no Parquet file: {error}") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    for batch in _parquet_file(path).iter_batches():
        yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
