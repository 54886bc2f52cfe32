"""Publishing a file: at a rate, with progress, and on from where it was interrupted."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from headrace.cli import lineage, output
from headrace.cli.cells import to_feature
from headrace.cli.files import Source, open_source
from headrace.cli.rows import BadRow, Roles, events, missing_columns, resolve_roles, unknown_columns
from headrace.errors import InvalidInput
from headrace.schemas.contract import ContractSpec
from headrace.schemas.lineage import topic as dataset
from headrace.schemas.stream import ExampleArrived, LabelArrived, Scalar

if TYPE_CHECKING:
    from headrace.infra.sdk import Client
    from headrace.schemas.control import LineageRecorded, PipelineReleased

NOTE_EVERY_S = 1.0
BAD_SHOWN = 20


@dataclass(frozen=True)
class How:
    """In what way a file is published: at `rate` rows a second or as fast as it goes, labels `label_delay` rows later.

    `skip_bad` leaves out the rows whose time cannot be read; `history` is learned and never served.
    """

    rate: float | None = None
    label_delay: int = 0
    restart: bool = False
    skip_bad: bool = False
    history: bool = False


@dataclass
class Progress:
    """How far a file was published: `acknowledged` counts its events, in the order of the file."""

    path: str
    size: int
    modified_ns: int
    label_delay: int
    history: bool
    roles: dict[str, str | None]
    acknowledged: int = 0


def publish_file(client: Client, released: PipelineReleased, path: Path, given: Roles, how: How) -> dict[str, Any]:
    """Publish a file's rows and labels; what was done, as data. Raises InvalidInput, Missing, as `publish`.

    Rows that are left out are counted, and the first ones told.
    """
    spec = released.definition.contract
    source = open_source(path)
    roles = resolve_roles(source, spec, given)
    lacking = missing_columns(source, spec)
    if lacking:
        raise InvalidInput(
            f"{path} lacks {', '.join(lacking)}, which the contract {spec.name} requires: no row would pass"
        )
    if roles.label is None and "features" not in source.columns:
        left = ", ".join(unknown_columns(source, spec, roles))
        which = f" The contract does not know {left}." if left else ""
        output.note(f"No label column: only examples are published. --label COLUMN names one.{which}")
    place = note_path(client.settings.home, released.pipeline, path)
    progress = _progress(source, roles, how)
    before = None if how.restart else _read(place)
    if before is not None and asdict(before) | {"acknowledged": 0} == asdict(progress):
        progress.acknowledged = before.acknowledged
        output.note(f"Going on after {before.acknowledged:,} records; --restart begins again.")

    def write(event: LineageRecorded) -> bool:
        client.record_lineage(event)
        return True

    name = released.pipeline
    file, topic = lineage.file(path, columns=source.columns), dataset(f"{name}.data-arrived")
    with lineage.recorded(write, "publish", name, [file], [topic]) as facts:
        done = _publish(client, name, source, roles, spec, how, progress, place)
        facts |= {key: done[key] for key in ("rows", "labels", "skipped_records", "bad_rows")}
    place.unlink(missing_ok=True)
    return done


def _publish(
    client: Client,
    pipeline: str,
    source: Source,
    roles: Roles,
    spec: ContractSpec,
    how: How,
    progress: Progress,
    place: Path,
) -> dict[str, Any]:
    skipped = progress.acknowledged
    counted = {"rows": 0, "labels": 0, "bad_rows": 0}
    bad: list[str] = []

    def skip(row: BadRow) -> None:
        counted["bad_rows"] += 1
        if len(bad) < BAD_SHOWN:
            bad.append(str(row))

    # a bad row is no record, so what was acknowledged is as many records with and without --skip-bad
    found = events(source, spec, roles, how.label_delay, skip=skip if how.skip_bad else None)
    stream = itertools.islice(found, skipped, None)
    began, noted = time.monotonic(), 0.0
    with output.progress("rows") as bar:
        task = bar.add_task(f"publishing to {pipeline}", total=source.count)

        def paced() -> Iterator[ExampleArrived | LabelArrived]:
            for number, event in stream:
                is_row = isinstance(event, ExampleArrived)
                if is_row and how.rate is not None:
                    wait_s = began + counted["rows"] / how.rate - time.monotonic()
                    if wait_s > 0:
                        time.sleep(wait_s)
                counted["rows" if is_row else "labels"] += 1
                if is_row:
                    bar.update(task, completed=number)
                yield replace(event, history=True) if is_row and how.history else event

        def acknowledged(count: int) -> None:
            nonlocal noted
            progress.acknowledged = skipped + count
            if time.monotonic() - noted > NOTE_EVERY_S:
                noted = time.monotonic()
                _write(place, progress)

        try:
            client.publish_many(pipeline, paced(), progress=acknowledged)
        except BadRow as error:
            _write(place, progress)
            output.note(f"{progress.acknowledged:,} records were acknowledged.")
            error.next = (
                "add --skip-bad, which goes on from there and lists the rows that it leaves out; or repair the file "
                "and publish it again: what was sent before is known by its ids and dropped"
            )
            raise
        except BaseException:
            _write(place, progress)
            output.note(f"{progress.acknowledged:,} records were acknowledged; the same command goes on from there.")
            raise
    seconds = time.monotonic() - began
    return {
        "pipeline": pipeline,
        "file": str(source.path),
        **counted,
        "skipped_records": skipped,
        "bad": bad,
        "seconds": seconds,
        "rows_per_s": counted["rows"] / max(seconds, 1e-9),
    }


def features_of(spec: ContractSpec, words: list[str]) -> dict[str, Scalar]:
    """The features that `column=value` words name, by name or alias. Raises InvalidInput naming the nearest column."""
    columns = {name: f for f in spec.features for name in (f.name, f.alias) if name}
    features = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InvalidInput(f"{word!r} is neither a file nor COLUMN=VALUE")
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(f.name for f in spec.features)}"
            raise InvalidInput(f"the contract {spec.name} has no column {name!r}; {hint}")
        value = to_feature(text, columns[name])
        if value is not None:
            features[columns[name].name] = value
    return features


def note_path(home: Path, pipeline: str, path: Path) -> Path:
    """Where the progress of a file is noted while it is being published."""
    mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return home / "publish" / f"{pipeline}-{path.name.split('.')[0][:40]}-{mark}.json"


def _progress(source: Source, roles: Roles, how: How) -> Progress:
    found, path = source.path.stat(), str(source.path.resolve())
    return Progress(path, found.st_size, found.st_mtime_ns, how.label_delay, how.history, asdict(roles))


def _read(place: Path) -> Progress | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Progress(**json.loads(place.read_text(encoding="utf-8")))
    return None


def _write(place: Path, progress: Progress) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    temporary.replace(place)
