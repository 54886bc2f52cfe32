"""The table of the system: every fold with its input, outputs and tables. A service is a process with its folds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """One pure core: `module` has `State`, `step(state, record, world)` and `example_world()`.

    `tables` are topics read to their end at start and then followed. `needs_river`: it imports River, so its service
    is forked from a parent that has.
    """

    service: str
    name: str
    input: str
    outputs: tuple[str, ...]
    what: str
    tables: tuple[str, ...] = ()
    needs_river: bool = False

    @property
    def module(self) -> str:
        """The import path of the fold's file."""
        return f"headrace.services.{self.service}.{self.name}"

    @property
    def id(self) -> str:
        """`service-name`, as in the consumer group `headrace-<id>`."""
        return f"{self.service}-{self.name}"


FOLDS: tuple[Fold, ...] = (
    Fold(
        "validator",
        "core",
        "<p>.data-arrived",
        ("<p>.data-validated", "<p>.data-rejected", "validation-results"),
        "checks every record against the contract, drops repeats, sums up each window",
    ),
    Fold(
        "predictor",
        "core",
        "<p>.data-validated",
        ("<p>.predictions",),
        "answers every example with every arm, before its label is known",
        tables=("model-updates", "pipelines", "<p>.snapshots"),
        needs_river=True,
    ),
    Fold(
        "joiner",
        "core",
        "<p>.predictions",
        ("<p>.labelled-examples", "<p>.data-rejected"),
        "brings labels to their predictions",
    ),
    Fold(
        "trainer",
        "core",
        "<p>.labelled-examples",
        ("training-completed",),
        "a run: learns each labelled example once, in order",
        needs_river=True,
    ),
    Fold(
        "trainer",
        "control",
        "control-log",
        ("training-runs", "lineage"),
        "decides which runs live",
        needs_river=True,
    ),
    Fold(
        "evaluator",
        "online",
        "<p>.labelled-examples",
        ("metrics", "model-validations"),
        "scores every arm behind the labels",
        needs_river=True,
    ),
    Fold(
        "evaluator",
        "offline",
        "control-log",
        ("model-validations",),
        "keeps the gates' open jobs",
        needs_river=True,
    ),
    Fold(
        "monitor",
        "inputs",
        "<p>.predictions",
        ("drift-alerts",),
        "compares inputs and predictions with what the champion learned from",
        needs_river=True,
    ),
    Fold(
        "monitor",
        "performance",
        "<p>.labelled-examples",
        ("drift-alerts",),
        "hears the champion's loss rise, and labels that stop",
        needs_river=True,
    ),
    *(
        Fold(
            "sequencer",
            "core",
            topic,
            ("control-log",),
            "copies what decides into one order",
        )
        for topic in (
            "validation-results",
            "drift-alerts",
            "operator-requests",
            "ticks",
            "training-requests",
            "training-runs",
            "training-completed",
            "model-validations",
            "model-updates",
            "pipelines",
            "decisions",
        )
    ),
    Fold(
        "orchestrator",
        "core",
        "control-log",
        ("training-requests", "decisions"),
        "decides when to train",
    ),
    Fold(
        "registry",
        "core",
        "control-log",
        ("model-updates", "pipelines", "<p>.data-arrived", "decisions"),
        "releases, versions and aliases",
    ),
)

SERVICES: dict[str, str] = {
    "validator": "checks records against the contract; rejects and repeats never reach a model",
    "predictor": "one prediction for every example, by every arm",
    "joiner": "joins late labels to their predictions",
    "trainer": "learns online; snapshots of all runs at one offset",
    "evaluator": "scores arms and runs the gates",
    "monitor": "tells what changed: inputs, predictions, performance, labels",
    "sequencer": "decides the order of control events",
    "scheduler": "ticks: minutes and cron (Faust)",
    "orchestrator": "starts trainings",
    "registry": "releases, versions, aliases",
    "recorder": "DuckDB tables and Parquet snapshots of every topic",
}


def folds_of(service: str) -> list[Fold]:
    """The folds of one service."""
    return [fold for fold in FOLDS if fold.service == service]
