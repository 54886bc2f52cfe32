"""Releases, versions and aliases: what is in force, and which model each alias names.

A release is written to `pipelines` and, signed, into every partition of the pipeline's `data-arrived`, where it
takes effect at one offset. The first run that passed both gates becomes version 1 and champion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.schemas.control import (
    Alias,
    Check,
    ControlEvent,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    PipelineRetired,
    PromotionAsked,
    ReleaseAsked,
    RequestRefused,
    RetireAsked,
    RollbackAsked,
    RunEnded,
    RunStarted,
)
from headrace.schemas.record import Emit, Record
from headrace.schemas.signing import sign
from headrace.services.registry.releases import UNCHANGED, refusal, why_not

REMEMBERED_REQUESTS = 1_000  # a client repeats a request within seconds, not after a thousand others


@dataclass(frozen=True)
class World:
    """The key that signs what stands among users' records."""

    key: bytes


def example_world() -> World:
    """A world for tests."""
    return World(b"example")


@dataclass(slots=True)
class Run:
    """A run that may still get a version: its release, and up to where its offline gate passed."""

    release: int
    passed_to: int | None = None
    checks: tuple[Check, ...] = ()
    n_labels: int = 0


@dataclass(slots=True)
class Version:
    """A snapshot that passed its gates."""

    version: int
    run: str
    release: int
    snapshot_offset: int
    uri: str
    n_labels: int
    since_ms: int
    reason: str


@dataclass(slots=True)
class Models:
    """One pipeline: releases, runs without a version, versions, aliases. `history` is only ever appended to."""

    released: PipelineReleased
    retired: bool = False
    epoch: int = 0
    runs: dict[str, Run] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    aliases: dict[Alias, ModelUpdated] = field(default_factory=dict)
    history: list[ModelUpdated] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Models] = field(default_factory=dict)


def models(state: State, pipeline: str) -> tuple[list[Version], dict[Alias, ModelUpdated]]:
    """The versions of a pipeline, oldest first, and where its aliases point; empty for an unknown one."""
    found = state.pipelines.get(pipeline)
    return (list(found.versions), dict(found.aliases)) if found else ([], {})


def step(state: State, record: Record, world: World) -> list[Emit]:
    """Fold one decision; what this version does not act upon passes without effect."""
    event = record.event
    if not isinstance(event, ControlEvent):
        return []
    found = state.pipelines.get(event.pipeline)
    match event:
        case ReleaseAsked():
            return _release(state, found, event, world)
        case RetireAsked():
            return _retire(found, event, world)
        case PromotionAsked() | RollbackAsked():
            return _refuse_to_move(found, event)
        case RunStarted() if found is not None:
            found.runs.setdefault(event.run, Run(event.release))
        case RunEnded() if found is not None:
            found.runs.pop(event.run, None)
        case ModelValidated(verdict="pass") if found is not None and not found.retired:
            return _passed(found, event, record.known_ms)
        case _:
            pass
    return []


# --- releases ---------------------------------------------------------------------------------------------


def _release(state: State, found: Models | None, event: ReleaseAsked, world: World) -> list[Emit]:
    if found is not None and _is_answered(found, event.request):
        return []
    problem = why_not(found.released if found else None, event, retired=found is not None and found.retired)
    if problem is not None:
        return [problem]
    released = sign(
        world.key,
        PipelineReleased(
            pipeline=event.pipeline,
            release=found.released.release + 1 if found else 1,
            definition=event.definition,
            partitions=event.partitions,
            request=event.request,
            by=event.by,
        ),
    )
    if found is None:
        state.pipelines[event.pipeline] = Models(released, answered=[event.request])
    else:
        found.released = released
    return _tell(released, released.partitions)


def _retire(found: Models | None, event: RetireAsked, world: World) -> list[Emit]:
    if found is None:
        return [_unknown(event)]
    if _is_answered(found, event.request):
        return []
    if found.retired:
        return [refusal(event, f"{event.pipeline} was retired already", None, kind=UNCHANGED)]
    found.retired = True
    found.runs.clear()
    retired = PipelineRetired(pipeline=event.pipeline, request=event.request, by=event.by, reason=event.reason)
    return _tell(sign(world.key, retired), found.released.partitions)


def _tell(event: PipelineReleased | PipelineRetired, partitions: int) -> list[Emit]:
    """To `pipelines`, and in band to every partition."""
    key = event.pipeline.encode()
    marks = [
        Emit("<p>.data-arrived", event, key, partition=partition, pipeline=event.pipeline)
        for partition in range(partitions)
    ]
    return [Emit("pipelines", event, key, partition=0), *marks]


# --- versions and aliases ---------------------------------------------------------------------------------


def _passed(found: Models, event: ModelValidated, known_ms: int) -> list[Emit]:
    run = found.runs.get(event.run)
    if run is None:  # it ended, or has a version already
        return []
    if event.stage == "offline":
        run.passed_to, run.checks, run.n_labels = event.offset, event.checks, event.n_labels
        return []
    if event.stage != "infra" or run.passed_to != event.offset:
        return []
    if event.epoch != found.epoch:
        reason = f"the verdict is of alias epoch {event.epoch}, the aliases are at {found.epoch}"
        return [_stale(event, reason)]
    if "champion" in found.aliases:
        serving = found.aliases["champion"].version
        return [_stale(event, f"version {serving} serves; challengers are not part of this version yet")]
    if event.snapshot_uri is None or event.snapshot_offset is None:
        return [_stale(event, "the verdict names no snapshot that could serve")]
    return [_first_champion(found, run, event, event.snapshot_uri, event.snapshot_offset, known_ms)]


def _first_champion(
    found: Models, run: Run, event: ModelValidated, uri: str, snapshot_offset: int, known_ms: int
) -> Emit:
    number = len(found.versions) + 1
    forced = any(check.name == "forced" for check in run.checks)
    numbers = "; ".join(_told(check) for check in run.checks if check.name != "answered")
    reason = f"first model after {run.n_labels} labels: {numbers}"
    found.versions.append(Version(number, event.run, run.release, snapshot_offset, uri, run.n_labels, known_ms, reason))
    found.epoch += 1
    updated = ModelUpdated(
        pipeline=event.pipeline,
        alias="champion",
        version=number,
        run=event.run,
        release=run.release,
        snapshot_offset=snapshot_offset,
        uri=uri,
        follows=found.released.definition.policies.learning == "online",
        epoch=found.epoch,
        reason=reason,
        forced_by=f"gates.first=off in release {run.release}" if forced else None,
    )
    found.aliases["champion"] = updated
    found.history.append(updated)
    del found.runs[event.run]
    return Emit("model-updates", updated, event.pipeline.encode(), partition=0)


def _told(check: Check) -> str:
    if check.value is None or check.limit is None:
        return check.detail or check.name
    return f"{check.name} {check.value:.4g} against {check.limit:.4g}"


def _refuse_to_move(found: Models | None, event: PromotionAsked | RollbackAsked) -> list[Emit]:
    if found is None:
        return [_unknown(event)]
    if _is_answered(found, event.request):
        return []
    champion = found.aliases.get("champion")
    if champion is None:
        reason = f"{event.pipeline} has no version yet: its first one serves by itself once it passed its gates"
    elif isinstance(event, PromotionAsked) and event.version == champion.version:
        reason = f"version {event.version} is the champion already"
    else:
        reason = (
            f"version {champion.version} is the only one there can be: challengers, promotion and rollback are not "
            "part of this version yet"
        )
    return [refusal(event, reason, f"headrace models {event.pipeline}")]


# --- answers ----------------------------------------------------------------------------------------------


def _is_answered(found: Models, request: str) -> bool:
    """Whether this request was answered before; notes it if not."""
    if request in found.answered:
        return True
    found.answered = [*found.answered, request][-REMEMBERED_REQUESTS:]
    return False


def _unknown(event: RetireAsked | PromotionAsked | RollbackAsked) -> Emit:
    return refusal(event, f"no pipeline is named {event.pipeline!r}", "headrace release pipelines/NAME.py")


def _stale(event: ModelValidated, reason: str) -> Emit:
    refused = RequestRefused(
        pipeline=event.pipeline,
        request=event.request,
        kind="ModelValidated",
        reason=f"run {event.run} passed but does not serve: {reason}",
        numbers={"run": event.run, "offset": event.offset},
        next=f"headrace runs {event.pipeline}",
    )
    return Emit("decisions", refused, event.pipeline.encode(), partition=0)
