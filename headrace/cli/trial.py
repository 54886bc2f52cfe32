"""`try`: the whole system in one process on the rows of a file, and what came of it."""

from __future__ import annotations

import bisect
import itertools
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli import output
from headrace.cli.alerts import listed
from headrace.cli.files import Source
from headrace.cli.rows import Roles, events, resolve_roles, unknown_columns
from headrace.errors import InvalidInput
from headrace.schemas.control import (
    OWN_RECIPE,
    AliasRemoved,
    DriftDetected,
    MetricsUpdated,
    ModelUpdated,
    ModelValidated,
    RunStarted,
    TrainingCompleted,
)
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, PredictionMade, RecordRejected

if TYPE_CHECKING:
    from headrace.infra.system import System

FIRST_ROW = datetime(2000, 1, 1, tzinfo=UTC)
SECONDS_A_ROW = 1  # of a file without a time column
REASONS_SHOWN = 10
SLICES_SHOWN = 30


def run_trial(file: Path, source: Source, given: Roles, label_delay: int, limit: int | None) -> dict[str, Any]:
    """The report as data. Raises what the file, the rows or the release are refused for."""
    from headrace.infra import pipeline_files
    from headrace.infra.service import tidy_memory
    from headrace.infra.system import CHAIN, System

    pipeline = pipeline_files.load_file(file)
    roles = resolve_roles(source, pipeline.spec, given)
    if roles.label is None and "features" not in source.columns:
        left = unknown_columns(source, pipeline.spec, roles)
        raise InvalidInput(
            f"{source.path}: without labels there is nothing to try; which column holds them? The contract does not "
            f"know {', '.join(left) or 'no column more'}",
            f"headrace try {file} {source.path} --label {left[-1] if left else 'COLUMN'}",
        )
    stream = events(
        source, pipeline.spec, roles, label_delay, lambda n: FIRST_ROW + timedelta(seconds=n * SECONDS_A_ROW)
    )
    with tempfile.TemporaryDirectory(prefix="headrace-try-") as folder, output.progress() as bar:
        first = next(stream)
        start_ms = int(first[1].time.timestamp() * 1000) - 1000
        services = tuple(service for service in CHAIN if service != "recorder")  # it only copies what the others say
        # nothing outlives the trial, so its models need no disk: writing them durably was two thirds of the time
        models = f"memory://{Path(folder).name}"
        system = System(Path(folder), services=services, start_ms=start_ms, namespace="", artifact_url=models)
        try:
            code = file.read_bytes()
            _, uri = system.artifacts.put_source(code)
            system.release(pipeline, pipeline_files.definition(pipeline, code, uri))
            tidy_memory()
            task = bar.add_task(f"trying {pipeline.name}", total=min(source.count, limit or source.count))
            counts: Counter[str] = Counter()
            for number, event in itertools.chain([first], stream):
                if limit is not None and number > limit:
                    if isinstance(event, ExampleArrived):
                        break
                    continue
                _publish(system, pipeline.name, event, counts)
                bar.update(task, completed=number)
            labels = pipeline.policies().labels
            system.advance(system.now_ms + int((labels.ttl_s + labels.grace_s) * 1000) + 60_000)
            return {"pipeline": pipeline.name, "file": str(source.path), **_report(system, pipeline, counts)}
        finally:
            system.close()


def _publish(system: System, pipeline: str, event: Any, counts: Counter[str]) -> None:
    counts["examples" if isinstance(event, ExampleArrived) else "labels"] += 1
    system.publish(pipeline, event)


def _report(system: System, pipeline: Any, counts: Counter[str]) -> dict[str, Any]:
    name = pipeline.name

    def read(topic: str, kind: type | tuple[type, ...]) -> list[Any]:
        return [record.event for record in system.records(topic, name) if isinstance(record.event, kind)]

    predictions = read("<p>.predictions", PredictionMade)
    labelled = read("<p>.labelled-examples", ExampleLabelled)
    rejects = read("<p>.data-rejected", RecordRejected)
    updates = read("model-updates", (ModelUpdated, AliasRemoved))
    recipes = {started.run: started.recipe for started in read("training-runs", RunStarted)}
    metrics = [m for m in read("metrics", MetricsUpdated) if m.alias == "champion"]
    cumulative = [m for m in metrics if m.scope == "cumulative" and m.slice is None]
    slices = {m.slice: {"n": m.n, **m.metrics} for m in metrics if m.scope == "cumulative" and m.slice is not None}
    return {
        "rows": counts["examples"],
        "labels": counts["labels"],
        "predicted": len(predictions),
        "served": sum(p.served is not None for p in predictions),
        "joined": len(labelled),
        "rejected": _reasons(rejects),
        "gates": [_gate(verdict) for verdict in read("model-validations", ModelValidated)],
        "trainings": [t.model_dump(mode="json") for t in read("training-completed", TrainingCompleted)],
        "versions": [
            {
                "version": getattr(u, "version", None),
                "alias": u.alias,
                "from_label": getattr(u, "snapshot_offset", None),
                "recipe": recipes.get(u.run) or OWN_RECIPE,
                "reason": u.reason,
            }
            for u in updates
        ],
        "needs_labels": pipeline.policies().triggers.first_model_at,
        "scores": {"n": cumulative[-1].n, **cumulative[-1].metrics} if cumulative else None,
        "development": [{"n": m.n, **m.metrics} for m in _windows(metrics)],
        "slices": dict(sorted(slices.items())),
        "alerts": _alerts(system, name),
    }


def _alerts(system: System, pipeline: str) -> list[dict[str, Any]]:
    """What the monitor told, each with the number of the row after which it did."""
    predicted = [r.known_ms for r in system.records("<p>.predictions", pipeline) if isinstance(r.event, PredictionMade)]
    told = [record for record in system.records("drift-alerts") if isinstance(record.event, DriftDetected)]
    rows = [bisect.bisect_right(predicted, record.known_ms) for record in told]
    return [{"row": row, **alert} for row, alert in zip(rows, listed(told), strict=True)]


def _windows(metrics: list[MetricsUpdated]) -> list[MetricsUpdated]:
    """Each window of scores as it ended; what a minute that passed told before is a part of it."""
    told = [m for m in metrics if m.scope == "windowed" and m.slice is None]
    return [m for m, after in itertools.zip_longest(told, told[1:]) if after is None or after.n <= m.n]


def _gate(verdict: ModelValidated) -> dict[str, Any]:
    """A verdict without what depends on this machine: the infra gate's times and sizes are judged live, not here."""
    told = verdict.model_dump(mode="json", exclude={"seconds", "peak_mb"})
    if verdict.stage == "infra":
        told["checks"] = [check | {"value": None, "limit": None} for check in told["checks"]]
    return told


def _reasons(rejects: list[RecordRejected]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for reject in rejects:
        for problem in reject.problems:
            row = found.setdefault(
                problem.code, {"code": problem.code, "records": 0, "first": problem.message, "id": reject.id}
            )
            row["records"] += 1
    return sorted(found.values(), key=lambda row: -row["records"])


def show_trial(report: dict[str, Any]) -> None:
    """Print the report."""
    console = output.out()
    console.print(
        f"{report['rows']:,} rows and {report['labels']:,} labels published, {report['predicted']:,} predicted, "
        f"{report['joined']:,} joined with their labels, {report['served']:,} answered by a model that serves."
    )
    if report["rejected"]:
        console.print("\nRejected", style="bold")
        rejects = [(r["records"], r["code"], f"{r['id']}: {r['first']}") for r in report["rejected"][:REASONS_SHOWN]]
        console.print(output.table(("records", "reason", "the first one"), rejects, right=("records",)))
    console.print("\nGates", style="bold")
    rows = [(g["stage"], g["verdict"], g["n_labels"], "; ".join(map(told_check, g["checks"]))) for g in report["gates"]]
    if rows:
        console.print(output.table(("stage", "verdict", "labels", "checks"), rows, right=("labels",)))
    else:
        console.print(
            f"none: {report['joined']:,} labelled rows, the first model is judged at {report['needs_labels']:,}"
        )
    console.print("\nModel", style="bold")
    for version in report["versions"]:
        who = "none" if version["version"] is None else f"version {version['version']}"
        by = "" if version["recipe"] == OWN_RECIPE else f" by recipe {version['recipe']}"
        console.print(f"{version['alias']} is {who}{by}: {version['reason']}")
    if not report["versions"]:
        console.print("no model serves: no gate was passed")
    if report["scores"]:
        console.print("\nScores of what was served, and of the simplest answers", style="bold")
        names = [name for name in report["scores"] if name != "n"]
        shown = [*report["development"], report["scores"] | {"n": f"all {report['scores']['n']:,}"}]
        console.print(
            output.table(
                ("rows", *names),
                [(row["n"], *(_number(row.get(name)) for name in names)) for row in shown[-12:]],
                right=("rows", *names),
            )
        )
    if report["alerts"]:
        console.print("\nAlerts", style="bold")
        alerts = [(f"{a['row']:,}", a["kind"], a["level"], a["says"]) for a in report["alerts"]]
        console.print(output.table(("row", "kind", "level", "what changed"), alerts, right=("row",)))
    if report["slices"]:
        console.print("\nThe same by slice", style="bold")
        show_slices(report["slices"])


def show_slices(slices: dict[str, dict[str, Any]]) -> None:
    """Print the scores of each slice, since the champion's run began to answer."""
    names = [name for name in next(iter(slices.values())) if name != "n"]
    shown = [
        (name, f"{one['n']:,}", *(_number(one.get(metric)) for metric in names))
        for name, one in itertools.islice(slices.items(), SLICES_SHOWN)
    ]
    output.out().print(output.table(("slice", "rows", *names), shown, right=("rows", *names)))
    if len(slices) > SLICES_SHOWN:
        output.note(f"There are {len(slices)} slices; --json shows all.")


def told_check(check: dict[str, Any]) -> str:
    """One check of a gate in a few words."""
    numbers = ""
    if check.get("value") is not None:
        numbers = f" {_short(check['value'])}"
        if check.get("limit") is not None:
            numbers += f" (limit {_short(check['limit'])})"
    verdict = "" if check["verdict"] == "pass" else f" {check['verdict'].upper()}"
    return f"{check['name']}{numbers}{verdict}"


def _short(value: float) -> str:
    """Four digits, but no power of ten where the number can be read without."""
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
