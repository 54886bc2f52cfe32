"""Files of rows: CSV, JSON lines and Parquet, the first two also compressed."""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace.errors import InvalidInput, Missing

PACKED = {".gz": gzip.open, ".xz": lzma.open}
LOOK_LINES = 50_000  # of JSON lines, each of which may leave out what it does not know


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
        _refuse_twice_named(path, file.schema_arrow.names)
        return Source(path, tuple(file.schema_arrow.names), file.metadata.num_rows)
    is_table = suffix in (".csv", ".tsv")
    rows = list(itertools.islice(READERS[suffix](path), 1 if is_table else LOOK_LINES))
    if not rows:
        raise InvalidInput(f"{path} has no rows")
    return Source(path, tuple(dict.fromkeys(itertools.chain(*rows))), _lines(path) - is_table)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix.lower()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    """The file's text. Raises InvalidInput, also while it is read, for bytes that are none."""
    unpack: Any = PACKED.get(path.suffix, open)
    try:
        with unpack(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        wrong = error.object[error.start]
        raise InvalidInput(f"{path} is not in UTF-8: the byte 0x{wrong:02x} is no character there") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InvalidInput(f"{path} cannot be unpacked: {error}") from error


def _lines(path: Path) -> int:
    with _open(path) as file:
        return sum(1 for line in file if line.strip())


def _refuse_twice_named(path: Path, columns: Iterable[str]) -> None:
    """Of two columns of one name only the last would be read; those without a name are read by nobody."""
    twice = [name for name, times in Counter(columns).items() if times > 1 and name]
    if twice:
        raise InvalidInput(f"{path} has two columns named {', '.join(map(repr, twice))}: which one is meant?")


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        reader = csv.DictReader(file, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
        try:
            _refuse_twice_named(path, reader.fieldnames or ())
            for row in reader:
                if None in row or None in row.values():
                    wanted = len(reader.fieldnames or ())
                    raise InvalidInput(f"{path}, line {reader.line_num}: not {wanted} columns as in the first line")
                yield row
        except csv.Error as error:
            raise InvalidInput(f"{path}, after line {reader.line_num}: not CSV: {error}") from error


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
    import pyarrow as pa

    file = _parquet_file(path)
    schema = file.schema_arrow
    for number, field in enumerate(schema):
        if pa.types.is_timestamp(field.type):  # Python's times have no nanoseconds
            schema = schema.set(number, field.with_type(pa.timestamp("us", field.type.tz)))
    for batch in file.iter_batches():
        yield from pa.Table.from_batches([batch]).cast(schema, safe=False).to_pylist()


READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
