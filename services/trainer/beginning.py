"""How a run begins: what it is bound to, and the model it starts with."""

from __future__ import annotations

from collections.abc import Mapping

from headrace import model_bytes
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.pipeline_files import load_stored, module_name
from headrace.schemas.control import OWN_RECIPE, PipelineReleased, RunStarted
from headrace.services.trainer import core
from headrace.services.trainer.poison import Restored
from headrace.verbs import same_columns, signature

Releases = Mapping[tuple[str, int], PipelineReleased]


class ParentRefused(ValueError):
    """A run cannot begin with the model that was named."""


def world_of(started: RunStarted, releases: Releases, artifacts: Artifacts) -> core.World:
    """The world of a run. Raises ArtifactRefused, and whatever the author's file raises."""
    pipeline = started.pipeline
    definition = releases[pipeline, started.release].definition
    columns = signature(definition.contract)
    alike = frozenset(
        number
        for (name, number), known in releases.items()
        if name == pipeline and same_columns(columns, known.definition.contract)
    )
    recipe = load_stored(artifacts, definition).recipe_named(started.recipe)
    return core.World(started, recipe, definition.contract.label, definition.has_probabilities, columns, alike)


def begin(world: core.World, releases: Releases, artifacts: Artifacts) -> Restored:
    """A run at its start: with its recipe's model, or with its parent's and what that had seen.

    Raises ParentRefused, ArtifactRefused, and whatever the author's recipe raises.
    """
    started = world.started
    if started.parent is None:
        return Restored(core.begin(world), started.start_offset, {})
    data, manifest = parent_of(started, started.parent, releases, artifacts)
    return Restored(core.State(model=model_bytes.loads(data)), started.start_offset, dict(manifest.sequences))


def parent_of(started: RunStarted, parent: str, releases: Releases, artifacts: Artifacts) -> tuple[bytes, Manifest]:
    """The bytes of the model with which a run is to begin, and what it is. Raises ParentRefused, ArtifactRefused."""
    manifest = artifacts.manifest(parent)
    _check_parent(started, manifest, releases)
    data, _ = artifacts.get(parent)
    _check_classes(started, manifest, releases, data)
    return data, manifest


def _check_parent(started: RunStarted, manifest: Manifest, releases: Releases) -> None:
    parent, pipeline = started.parent, started.pipeline
    made_by = releases.get((pipeline, manifest.release))
    if manifest.kind != "model" or manifest.pipeline != pipeline or made_by is None:
        raise ParentRefused(f"{parent} is no model of {pipeline}")
    theirs, own = made_by.definition, releases[pipeline, started.release].definition
    if theirs.recipe_digests().get(manifest.recipe) != own.recipe_digests().get(started.recipe):
        raise ParentRefused(
            f"{parent} is a model of release {manifest.release}, whose recipe is another than that of release "
            f"{started.release}{_named(manifest.recipe, started.recipe)}"
        )
    if not same_columns(signature(own.contract), theirs.contract):
        raise ParentRefused(
            f"{parent} is a model of release {manifest.release}, which learned other columns than those of release "
            f"{started.release}"
        )
    if started.start_offset < manifest.offset:
        raise ParentRefused(
            f"{parent} has learned up to offset {manifest.offset}; a run that begins with it cannot start at "
            f"{started.start_offset}, or it would learn twice"
        )


def _named(theirs: str | None, own: str | None) -> str:
    return "" if theirs is None and own is None else f" ({theirs or OWN_RECIPE} and {own or OWN_RECIPE})"


def _check_classes(started: RunStarted, manifest: Manifest, releases: Releases, data: bytes) -> None:
    """Whoever loads a run's model knows the file of its own release only; River's classes are known to all."""
    own, theirs = (releases[started.pipeline, number].definition for number in (started.release, manifest.release))
    if own.source_digest != theirs.source_digest and module_name(theirs.source_digest).encode() in data:
        raise ParentRefused(
            f"{started.parent} is made of classes that the file of release {manifest.release} defines; only a run of "
            "that release can begin with it"
        )
