"""The version with whose model a training is to begin: its snapshot, and whether a run of the release in force can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.cli import facts
from headrace.errors import InvalidInput, Missing
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import Bus
from headrace.reproduce import log
from headrace.schemas.control import OWN_RECIPE, PipelineReleased, RunStarted
from headrace.services.registry.models import Models, Version, has_learned
from headrace.services.trainer.beginning import ParentRefused, parent_of


@dataclass(frozen=True)
class Parent:
    """A version's snapshot: where it stands, the run that made it and that run's recipe."""

    version: int
    run: str
    offset: int
    uri: str
    recipe: str | None

    def fields(self) -> dict[str, Any]:
        """What a TrainingAsked says of it."""
        return {
            "version": self.version,
            "parent": self.uri,
            "parent_run": self.run,
            "parent_offset": self.offset,
        }


def look_up(
    pipeline: str,
    version: int,
    recipe: str | None,
    start: int | None,
    bus: Bus,
    artifacts: Artifacts,
    namespace: str = "",
) -> Parent:
    """A version's own snapshot, once it is seen that a run by a recipe (its own if None) can begin with it at `start`.

    Raises Missing for an unknown version, ArtifactRefused where its bytes are lost, InvalidInput where its recipe,
    columns or classes are others, it has learned beyond `start` or from a barred range.
    """
    control = log.records(bus, namespace, "control-log")
    found, show = facts.fold(control).get(pipeline), f"headrace models {pipeline}"
    versions: list[Version] = [] if found is None else found.models.versions
    known = next((one for one in versions if one.version == version), None)
    if found is None or known is None:
        raise Missing(f"{pipeline} has no version {version}", show)
    models = found.models
    if has_learned(models, known.run, known.snapshot_offset, models.barred):
        raise InvalidInput(f"version {version} has learned from a range that was barred since", show)
    made_by = models.runs[known.run]
    parent = Parent(version, known.run, known.snapshot_offset, known.uri, made_by.recipe)
    _check(models, parent, recipe, start, control, artifacts)
    return parent


def _check(
    models: Models, parent: Parent, recipe: str | None, start: int | None, control: list[Any], artifacts: Artifacts
) -> None:
    """As the trainer will, before a training under way gives way to one that could not begin."""
    pipeline = models.released.pipeline
    named = parent.recipe if recipe is None else None if recipe == OWN_RECIPE else recipe
    events = [record.event for record in control]
    releases = {
        (one.pipeline, one.release): one
        for one in events
        if isinstance(one, PipelineReleased) and one.pipeline == pipeline
    }
    if named not in models.released.definition.recipe_digests():
        return  # the orchestrator says which there are
    started = RunStarted(
        pipeline=pipeline,
        run="",
        request="",
        release=models.released.release,
        seed=0,
        start_offset=parent.offset if start is None else start,
        recipe=named,
    )
    try:
        parent_of(started, parent.uri, releases, artifacts)
    except ParentRefused as error:
        raise InvalidInput(
            f"no training can begin with version {parent.version}: {error}", f"headrace models {pipeline}"
        ) from None
