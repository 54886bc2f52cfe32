"""A registry folded by hand: for tests that tell its histories."""

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    Check,
    ModelValidated,
    ReleaseAsked,
    ReleaseDefinition,
    RetireAsked,
    RunStarted,
)
from headrace.schemas.policies import Policies, Rollout
from headrace.schemas.record import Record
from headrace.services.registry.core import State, World, step

KEY = b"test"
X = FeatureSpec(name="x", type="float", ge=0, le=1)


def fold(*events, state=None):
    """What the registry emits on a history."""
    state = State() if state is None else state
    emits = []
    for offset, event in enumerate(events):
        emits += step(state, Record(event, offset * 1_000, "control-log", "", 0, offset), World(KEY))
    return emits


def definition(features=(X,), recipe="r1", source_uri="u", **policies):
    return ReleaseDefinition(
        contract=ContractSpec(name="Rain", features=features, label=LabelSpec(type="bool")),
        policies=Policies(**{"rollout": Rollout(steps=()), **policies}),
        contract_digest=str(features),
        policies_digest=str(policies),
        recipe_digest=recipe,
        source_digest="s",
        source_uri=source_uri,
    )


def ask(request="q1", pipeline="rain", partitions=1, topic_id="1f3a9c2e", **changes):
    return ReleaseAsked(
        pipeline=pipeline,
        request=request,
        by="ann",
        partitions=partitions,
        definition=definition(**changes),
        topic_id=topic_id,
    )


def validated(stage, run="a", offset=200, verdict="pass", epoch=0, checks=(), **snapshot):
    return ModelValidated(
        pipeline="rain",
        run=run,
        request="first-model-1",
        stage=stage,
        verdict=verdict,
        checks=checks,
        n_labels=200,
        offset=offset,
        epoch=epoch,
        **snapshot,
    )


def started(run="a"):
    return RunStarted(pipeline="rain", run=run, request="first-model-1", release=1, seed=0, start_offset=0)


RETIRE = RetireAsked(pipeline="rain", request="bye", by="ann", reason="moved")
BETTER = Check(name="accuracy", verdict="pass", value=0.757, limit=0.6, n=100)
OFFLINE = validated("offline", checks=(BETTER,))
INFRA = validated("infra", snapshot_uri="ab/cd", snapshot_offset=212)
