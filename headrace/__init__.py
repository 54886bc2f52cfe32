"""Headrace keeps machine-learning models trained, validated, watched and served from a stream of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.challengers import Challenger as Challenger
    from headrace.contract import Contract as Contract
    from headrace.contract import feature as feature
    from headrace.infra.sdk import Client as Client
    from headrace.pipeline import Pipeline as Pipeline
    from headrace.schemas.policies import Alerts as Alerts
    from headrace.schemas.policies import Drift as Drift
    from headrace.schemas.policies import Gates as Gates
    from headrace.schemas.policies import Labels as Labels
    from headrace.schemas.policies import Retention as Retention
    from headrace.schemas.policies import Rollout as Rollout
    from headrace.schemas.policies import Slice as Slice
    from headrace.schemas.policies import Success as Success
    from headrace.schemas.policies import Triggers as Triggers

_HOMES = {
    "Challenger": "headrace.challengers",
    "Contract": "headrace.contract",
    "feature": "headrace.contract",
    "Pipeline": "headrace.pipeline",
    "Client": "headrace.infra.sdk",
    **dict.fromkeys(
        ("Alerts", "Success", "Triggers", "Gates", "Drift", "Rollout", "Labels", "Retention", "Slice"),
        "headrace.schemas.policies",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
