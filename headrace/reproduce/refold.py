"""The fold of one model, made again: its world, where it begins, what it is given, what was kept to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headrace import model_bytes
from headrace.errors import Refused
from headrace.infra.artifacts import ArtifactForeignKey, ArtifactOtherVersion, ArtifactRefused, Artifacts, Manifest
from headrace.infra.bus import Bus, Place
from headrace.infra.follow import read_range
from headrace.infra.pipeline_files import load_stored
from headrace.reproduce.roots import Roots
from headrace.schemas.record import Record
from headrace.schemas.topics import full_name
from headrace.services.trainer import core
from headrace.services.trainer.beginning import ParentRefused, begin
from headrace.verbs import signature

Progress = Callable[[int, int], None]  # offsets done, offsets in all
TOLD_EVERY = 500


class RootMissing(Refused):
    """Something that the model follows from is no longer there; the message names it."""


@dataclass
class Kept:
    """What there is to compare with: manifest, bytes and digest, unless they are lost (`lost` says why)."""

    manifest: Manifest | None = None
    digest: str | None = None
    lost: str = ""
    other_version: str = ""


@dataclass
class Begin:
    """Where a fold begins: an offset, a state, the sequences seen by then; `what` is a root other than the start."""

    offset: int
    state: core.State
    sequences: dict[str, int]
    what: str = ""


class Again:
    """The fold of one model, made again. `place` is where its examples stand."""

    def __init__(self, roots: Roots, bus: Bus, artifacts: Artifacts, namespace: str = "") -> None:
        """Raises RootMissing where its source cannot be had, or its recipe has no stable digest."""
        self.roots, self._bus, self._artifacts, self._namespace = roots, bus, artifacts, namespace
        self.place: Place = (full_name("<p>.labelled-examples", roots.started.pipeline, namespace), 0)
        definition = roots.released.definition
        release = f"release {roots.started.release} of {roots.started.pipeline}"
        recipe_name = roots.started.recipe
        which = "" if recipe_name is None else f" {recipe_name}"
        if not definition.is_stable(recipe_name):
            raise RootMissing(
                f"the recipe{which} of {release} has no stable digest: two models that it built and taught alike "
                "already differ, so that no fold can show that they are equal"
            )
        try:
            artifacts.get_source(definition.source_uri)  # it must be there, also where this process knows it already
            recipe = load_stored(artifacts, definition).recipe_named(recipe_name)
        except ArtifactForeignKey:
            raise
        except ArtifactRefused as error:
            raise RootMissing(f"the source of {release} is missing: {error}", "restore the artifact store") from error
        columns = signature(definition.contract)
        own = frozenset({roots.started.release})  # examples of other releases are projected, which gives the same
        self.world = core.World(
            roots.started, recipe, definition.contract.label, definition.has_probabilities, columns, own
        )

    def kept(self) -> Kept:
        """The model as it was kept. Raises ArtifactForeignKey; all else that is wrong with it is said in the result."""
        uri, artifacts = self.roots.uri, self._artifacts
        try:
            data, manifest = artifacts.get(uri)
        except ArtifactForeignKey:
            raise
        except ArtifactOtherVersion as error:
            manifest = artifacts.manifest(uri)
            return Kept(manifest, manifest.structural_digest, other_version=str(error))
        except ArtifactRefused as error:
            return Kept(lost=str(error))
        return Kept(manifest, manifest.structural_digest or model_bytes.digest(model_bytes.loads(data)))

    def begin(self) -> Begin:
        """The run's start; where the log is gone there, its oldest kept snapshot that the log reaches.

        Raises RootMissing.
        """
        roots, started = self.roots, self.roots.started
        first, end = self._bus.offsets(self.place)
        if end < roots.offset:
            raise RootMissing(
                f"{self.place[0]} ends at {end}, the model has learned up to {roots.offset}: the topic was created "
                "anew or lost its end"
            )
        if first <= started.start_offset:
            return self._from_start()
        for offset in roots.kept:
            if first <= offset < roots.offset and (begin := self._from_kept(offset)) is not None:
                return begin
        raise RootMissing(
            f"{self.place[0]} no longer holds what run {started.run} learned: it began at offset "
            f"{started.start_offset}, the log begins at {first}, and none of its snapshots from there on is kept",
            "restore the topic's older segments, or the artifact of an older snapshot",
        )

    def _from_start(self) -> Begin:
        started = self.roots.started
        if started.parent is None:
            state = core.begin(self.world)
            state.skipped = list(self.roots.skipped)
            return Begin(started.start_offset, state, {})
        releases = {(started.pipeline, number): one for number, one in self.roots.releases.items()}
        try:
            restored = begin(self.world, releases, self._artifacts)
        except ArtifactForeignKey:
            raise
        except (ArtifactRefused, ParentRefused) as error:
            raise RootMissing(
                f"run {started.run} begins with the model {started.parent}, which cannot be had: {error}",
                f"headrace reproduce {started.parent} --restore",
            ) from error
        restored.state.skipped = list(self.roots.skipped)
        return Begin(started.start_offset, restored.state, restored.sequences, f"its parent {started.parent}")

    def _from_kept(self, offset: int) -> Begin | None:
        told = self.roots.kept[offset]
        try:
            data, manifest = self._artifacts.get(told.uri)
        except ArtifactRefused:
            return None
        state = core.State(model=model_bytes.loads(data), n_learned=told.n_learned, skipped=list(self.roots.skipped))
        return Begin(offset, state, dict(manifest.sequences), f"its snapshot at offset {offset}")

    def records(self, begin: Begin, end: int) -> Iterator[Record]:
        """What the run was given, without repeats."""
        return read_range(
            self._bus,
            self.place,
            begin.offset,
            end,
            self._namespace,
            sequences=begin.sequences,
            decoders=core.DECODERS,
        )

    def first_difference(self) -> dict[str, Any]:
        """Fold once more and compare at every snapshot that is kept: between which offsets the two part."""
        begin = self.begin()
        equal_to = begin.offset
        marks = [offset for offset in self.roots.kept if begin.offset < offset <= self.roots.offset]
        for offset in marks:
            try:
                data, manifest = self._artifacts.get(self.roots.kept[offset].uri)
            except ArtifactRefused:
                continue
            expected = manifest.structural_digest or model_bytes.digest(model_bytes.loads(data))
            _, problem = self.fold(begin, offset)
            if problem is not None:
                return problem
            if model_bytes.digest(begin.state.model) != expected:
                return {"equal_to": equal_to, "differs_at": offset}
            equal_to = begin.offset = offset
        return {"equal_to": equal_to, "differs_at": self.roots.offset}

    def fold(self, begin: Begin, end: int, progress: Progress | None = None) -> tuple[int, dict[str, Any] | None]:
        """Let the state of `begin` learn up to `end`; returns the rows learned, and where a learn raised."""
        before, all_of_them = begin.state.n_learned, end - begin.offset
        for record in self.records(begin, end):
            try:
                core.step(begin.state, record, self.world)
            except (MemoryError, OSError):
                raise
            except Exception as error:
                why = f"learning it raises {type(error).__name__}: {error}"
                return begin.state.n_learned - before, {
                    "equal_to": record.offset,
                    "differs_at": record.offset + 1,
                    "why": why,
                }
            if progress is not None and not record.offset % TOLD_EVERY:
                progress(record.offset - begin.offset, all_of_them)
        if progress is not None:
            progress(all_of_them, all_of_them)
        return begin.state.n_learned - before, None
