"""The model that an alias or a version names, from the log and the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import InvalidInput, Missing
from headrace.schemas.control import ALIASES, AliasRemoved, ModelUpdated, PipelineReleased, SnapshotTaken

if TYPE_CHECKING:
    from headrace.infra.sdk import Client

SERVICES_EXTRA = "pip install 'headrace[services]'"


def load_served(client: Client, pipeline: str, alias: str) -> Any:
    """The unpickled model. Raises Missing, InvalidInput, ArtifactRefused."""
    try:
        import river  # noqa: F401
    except ImportError:
        raise Missing("a model needs River to be loaded, and River is not installed", SERVICES_EXTRA) from None
    from headrace import model_bytes
    from headrace.infra.artifacts import Artifacts
    from headrace.infra.pipeline_files import load_stored

    updated = find_update(client, pipeline, alias)
    artifacts = Artifacts(client.settings.artifact_url, client.settings.key())
    uri = updated.uri if alias.isdigit() else newest_uri(client, updated)  # a version is the snapshot that passed
    data, _ = artifacts.get(uri)
    released = [
        record.event
        for record in client.subscribe("pipelines", pipeline, start="earliest", follow=False)
        if isinstance(record.event, PipelineReleased) and record.event.release == updated.release
    ]
    if released:
        load_stored(artifacts, released[-1].definition)  # the model's classes may be the pipeline file's own
    return model_bytes.loads(data)


def find_update(client: Client, pipeline: str, alias: str) -> ModelUpdated:
    """The newest event that says where an alias points or what a version is. Raises Missing, InvalidInput."""
    if alias not in ALIASES and not alias.isdigit():
        raise InvalidInput(f"{alias!r} is neither an alias ({', '.join(ALIASES)}) nor a version")
    found = None
    for record in client.subscribe("model-updates", pipeline, start="earliest", follow=False):
        event = record.event
        if isinstance(event, ModelUpdated) and alias in (event.alias, str(event.version)):
            found = event
        elif isinstance(event, AliasRemoved) and event.alias == alias:
            found = None
    if found is None:
        what = f"version {alias}" if alias.isdigit() else alias
        raise Missing(f"{pipeline} has no {what}", f"headrace status {pipeline} says how far it is")
    return found


def newest_uri(client: Client, updated: ModelUpdated) -> str:
    """The artifact of the newest revision that may serve: the alias's own snapshot unless it follows its run."""
    if not updated.follows:
        return updated.uri
    found, newest = updated.uri, updated.snapshot_offset
    for record in client.subscribe("snapshots", updated.pipeline, last=200, follow=False):
        event = record.event
        if isinstance(event, SnapshotTaken) and event.offset >= newest:
            snapshot = event.runs.get(updated.run)
            if snapshot is not None and snapshot.fit:
                found, newest = snapshot.uri, event.offset
    return found
