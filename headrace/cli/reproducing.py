"""`reproduce`: a model, or every decision about a pipeline, again from the log."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, Json, command
from headrace.cli.errors import FAILED, REFUSED
from headrace.errors import InvalidInput

if TYPE_CHECKING:
    from headrace.infra.artifacts import Artifacts
    from headrace.reproduce.decisions import Folded, Gate, Replayed
    from headrace.reproduce.model import Reproduced


@command(MODELS, "headrace reproduce rainfall@1")
def reproduce(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="rainfall@1, rainfall@champion, rainfall@1@1204 …")],
    artifact: Annotated[
        Path | None, typer.Option("--artifact", metavar="FILE", help="Write the model folded again to a file.")
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Write it back into the artifact store, where its bytes are lost.")
    ] = False,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Instead: every decision about a pipeline, MODEL being its name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold a model again from the log, with the stored source of its release, and compare it with the one kept.

    MODEL is PIPELINE@VERSION, PIPELINE@ALIAS (the newest revision that it serves) or PIPELINE@RUN, with @OFFSET behind
    for a revision, or an artifact's address. Equal is decided by the structural digest. A model that differs is
    compared at every snapshot kept, which says between which offsets it first does. --restore also makes a model anew
    whose bytes another Python or River minor version wrote. --decisions folds control-log again and compares every
    release, request, run, refusal and alias with what stands, and judges the offline gates again. Exit status: 0 equal,
    1 different, 3 a root is missing (the log's segments, the source, a parent) or the recipe has no stable digest.
    """
    if decisions:
        _decisions(name, as_json)
        return
    from headrace.infra.artifacts import Artifacts
    from headrace.reproduce import log
    from headrace.reproduce import model as again

    if artifact is not None and artifact.exists():
        raise InvalidInput(f"{artifact} exists already", "name another file")
    with connect.bus() as (bus, settings), output.progress("offsets") as bar:
        artifacts = Artifacts(settings.artifact_url, settings.key())
        found = log.find(name, bus, settings.namespace)
        task = bar.add_task(f"folding {found.name}", total=None)
        done = again.reproduce(
            found,
            bus,
            artifacts,
            settings.namespace,
            progress=lambda at, of: bar.update(task, completed=at, total=of),
            any_version=restore,
        )
    if artifact is not None:
        _write(artifact, done)
    _tell(done, artifacts, restore, as_json)


def _write(path: Path, done: Reproduced) -> None:
    from headrace import model_bytes

    path.write_bytes(model_bytes.dumps(done.model))
    output.note(f"The model is in {path}: pickle.load reads it where its release's classes can be imported.")


def _tell(done: Reproduced, artifacts: Artifacts, restore: bool, as_json: bool) -> None:
    from headrace.reproduce import model as again

    written = again.restore(done, artifacts) if restore else False
    if as_json:
        output.print_json(as_data(done))
    else:
        for line in sentences(done):
            output.say(line)
        if restore and not written:
            output.say("Its bytes are in the artifact store, so nothing was written.")
    if done.outcome != "equal" and not done.restored:
        raise typer.Exit(REFUSED if done.outcome == "incomparable" else FAILED)


def as_data(done: Reproduced) -> dict[str, Any]:
    """The result without the model itself."""
    fields = (field.name for field in dataclasses.fields(done) if field.name not in ("model", "manifest"))
    return {name: getattr(done, name) for name in fields}


def sentences(done: Reproduced) -> list[str]:
    """The result for people."""
    start = f" from {done.root}" if done.root else ""
    skipped = f", {len(done.skipped)} left out as their learn raised" if done.skipped else ""
    told = [
        f"{done.name}: {_OUTCOMES[done.outcome]}, by {done.evidence}.",
        f"Run {done.run} folded again{start}: offsets {done.began:,} to {done.offset:,}, {done.rows:,} labelled "
        f"examples{skipped}, {done.seconds:.1f} s.",
        f"digest    {done.digest}",
    ]
    if done.expected is not None and done.expected != done.digest:
        told.append(f"expected  {done.expected}")
    if done.lost and not done.restored:
        told.append(f"Its bytes are lost: {done.lost}")
    if done.other_version:
        told.append(f"Its bytes were of another version: {done.other_version}.")
    first = done.first_difference
    if first is not None and "differs_at" in first:
        why = f": {first['why']}" if "why" in first else ""
        told.append(
            f"It is equal up to offset {first['equal_to']:,} of labelled-examples and differs at "
            f"{first['differs_at']:,}{why}."
        )
    elif first is not None:
        told.append(first["why"])
    if done.restored:
        told.append(f"Written back to {done.uri}.")
    return told


_OUTCOMES = {"equal": "equal", "different": "different", "incomparable": "nothing is left to compare it with"}


# --- decisions --------------------------------------------------------------------------------------------


def _decisions(name: str, as_json: bool) -> None:
    from headrace.infra.artifacts import Artifacts
    from headrace.reproduce import log
    from headrace.reproduce.decisions import replay

    with connect.bus() as (bus, settings), output.progress("") as bar:
        log.check_released(name, bus, settings.namespace)
        key = settings.key()
        task = bar.add_task("reading", total=None)
        replayed = replay(
            name,
            bus,
            Artifacts(settings.artifact_url, key),
            key,
            settings.namespace,
            progress=lambda doing: bar.update(task, description=doing),
        )
    if as_json:
        output.print_json({"equal": replayed.is_equal, **dataclasses.asdict(replayed)})
    else:
        for line in told_decisions(replayed):
            output.say(line)
    if not replayed.is_equal:
        raise typer.Exit(FAILED)


def told_decisions(replayed: Replayed) -> list[str]:
    """The result for people."""
    what = "every decision follows from the log" if replayed.is_equal else "not every decision follows from the log"
    told = [f"{replayed.pipeline}: {what}."]
    for folded in replayed.folds:
        equal = ", ".join(f"{n:,} of {topic}" for topic, n in folded.equal.items())
        outcome = f"{equal} equal" if equal else "nothing to compare"
        told.append(f"{folded.fold}: {folded.records:,} records of control-log folded again: {outcome}")
        told += _told_difference(folded)
    return told + [_told_gate(gate) for gate in replayed.gates]


def _told_difference(folded: Folded) -> list[str]:
    first = folded.first_difference
    if first is None:
        return []
    made, stands = first["made_again"], first["stands"]
    where = f"  the first that differs is in {first['topic']}, caused by {first['cause']}"
    if stands is None:
        return [
            f"{where}: {_event(made)} is made again and does not stand there; if the services are at work, try again"
        ]
    if made is None:
        return [f"{where}: {_event(stands)} stands there and nothing in control-log causes it"]
    names = [name for name in stands | made if stands.get(name) != made.get(name)]
    pairs = "; ".join(f"{name} is {stands.get(name)!r} and made again {made.get(name)!r}" for name in names)
    return [f"{where}: {stands['event']}: {pairs}"]


def _event(told: dict[str, Any]) -> str:
    names = ("request", "run", "version", "alias", "reason")
    return f"{told['event']} ({', '.join(f'{name} {told[name]}' for name in names if told.get(name) is not None)})"


def _told_gate(gate: Gate) -> str:
    why = f": {gate.why}" if gate.why else ""
    return f"offline gate of run {gate.run} at offset {gate.offset:,}, {gate.verdict}: {gate.outcome}{why}"
