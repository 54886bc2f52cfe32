"""Headrace keeps machine-learning models trained, validated, watched and served from a stream of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.challengers import Challenger
    from headrace.contract import Contract, feature
    from headrace.infra.sdk import Client
    from headrace.pipeline import Pipeline
    from headrace.schemas.policies import (
        Alerts,
        Drift,
        Gates,
        Labels,
        Retention,
        Rollout,
        Slice,
        Success,
        Triggers,
    )

__all__ = [
    "Alerts",
    "Challenger",
    "Client",
    "Contract",
    "Drift",
    "Gates",
    "Labels",
    "Pipeline",
    "Retention",
    "Rollout",
    "Slice",
    "Success",
    "Triggers",
    "feature",
]

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
