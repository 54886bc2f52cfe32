"""How `status` looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.cli import output
from headrace.cli.trial import show_slices, told_check
from headrace.schemas.control import OWN_RECIPE


def show_status(report: dict[str, Any], home: Path) -> None:
    """Print the report of `status`."""
    console = output.out()
    console.print(f"Broker    {report['broker'] or report['error']}")
    console.print(f"Services  {told_services(report['services'], home)}")
    if report["broker"] is None:
        return
    behind = {fold: lag for fold, lag in report["lag"].items() if lag}
    console.print(
        f"Lag       {', '.join(f'{fold} {lag:,}' for fold, lag in behind.items()) or 'none: every record is read'}"
    )
    if not report["pipelines"]:
        console.print(
            "Pipelines none released yet. headrace init NAME --csv FILE --label COLUMN, then headrace release"
        )
    for one in report["pipelines"]:
        console.print()
        show_pipeline(one)


def told_services(services: dict[str, dict[str, Any]], home: Path) -> str:
    """Which services of this folder run."""
    alive = [name for name, state in services.items() if state["alive"]]
    if not alive:
        return "none of this folder run (they may run elsewhere, such as in containers): headrace up"
    told = [f"{len(alive)} of {len(services)} up"]
    for name, state in services.items():
        if not state["alive"]:
            why = "refused to start" if state.get("refused") else "is down"
            told.append(f"{name} {why}, see {home / 'logs' / f'{name}.log'}")
        elif state.get("restarts"):
            times = "once" if state["restarts"] == 1 else f"{state['restarts']} times"
            told.append(f"{name} was restarted {times}")
    return "; ".join(told)


def show_pipeline(one: dict[str, Any]) -> None:
    """Print one pipeline."""
    console = output.out()
    retired = ", RETIRED" if one["retired"] else ""
    partitions = f"{one['partitions']} partition{'s' * (one['partitions'] != 1)}"
    console.print(f"{one['pipeline']}  release {one['release']}{retired}, {partitions}; {one['file']}", style="bold")
    champion = one["champion"]
    if champion is not None:
        learned = f", {one['labels']:,} labels learned" if one["labels"] is not None else ""
        by = told_recipe(champion)
        console.print(f"  champion  version {champion['version']}, revision {champion['revision']}{by}{learned}")
        console.print(f"            {champion['reason']}")
    else:
        console.print(f"  champion  none yet: {told_progress(one)}")
    for alias in ("challenger", "previous"):
        if one[alias] is not None:
            share = one[alias].get("share")
            serves = f" serves {share:.0%} of the units in its canary" if share is not None else ""
            by = told_recipe(one[alias])
            console.print(f"  {alias:<9} version {one[alias]['version']}{by}{serves}: {one[alias]['reason']}")
    training = one["training"]
    if training is not None and champion is not None:
        waits = f"; then {training['waiting']}" if training["waiting"] else ""
        run = training["run"] or "(starting)"
        by = told_recipe(training)
        console.print(f"  training  run {run}{by} from offset {training['start']:,}, {training['cause']}{waits}")
    if one["paused"]:
        console.print(f"  PAUSED    no challenger is promoted by itself: headrace resume {one['pipeline']}")
    if one["verdict"] is not None:
        verdict = one["verdict"]
        console.print(f"  gate      {verdict['stage']} at {verdict['n_labels']:,} labels: {verdict['verdict']}")
        for check in verdict["checks"]:
            detail = f"  {check['detail']}" if check["detail"] else ""
            console.print(f"            {told_check(check)}{detail}")
    if one["scores"] is not None:
        named = {name: value for name, value in one["scores"].items() if name not in ("n", "coverage")}
        told = "  ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)
        console.print(f"  scores    over the last {one['scores']['n']:,} rows: {told}")
    for why in one["degraded"]:
        console.print(f"  degraded  {why}", style="bold")
    for why in one["skewed"]:
        console.print(f"  SKEWED    {why}; nothing is trained by itself", style="bold")
    if one["alert"] is not None:
        alert = one["alert"]
        console.print(f"  alert     {alert['kind']} {alert['level']} at {alert['found_at']}: {alert['says']}")
    if one["refused"] is not None:
        console.print(f"  refused   {one['refused']['kind']}: {one['refused']['reason']}")
    if one["slices"]:
        show_slices(one["slices"])


def told_recipe(model: dict[str, Any]) -> str:
    """Which recipe made it, where that is not the pipeline's own."""
    recipe = model.get("recipe", OWN_RECIPE)
    return "" if recipe == OWN_RECIPE else f" by recipe {recipe}"


def told_progress(one: dict[str, Any]) -> str:
    """How far the first model is, and why it does not serve."""
    labels, needed = one["labels"] or 0, one["needs_labels"]
    if labels < needed:
        return f"{labels:,} of {needed:,} labels learned"
    verdict = one["verdict"]
    if verdict is None:
        return f"{labels:,} labels learned, the gate is at work"
    if verdict["verdict"] == "pass":
        return f"the {verdict['stage']} gate passed at {verdict['n_labels']:,} labels, the next is at work"
    return (
        f"the {verdict['stage']} gate said {verdict['verdict']}; it looks again at {2 * verdict['n_labels']:,} labels"
    )
