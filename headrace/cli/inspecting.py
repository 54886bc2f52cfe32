"""`show`, `diff`, `decisions`: one model with all its numbers, two side by side, and everything that was decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, AnyName, Json, command
from headrace.errors import Missing

if TYPE_CHECKING:
    from headrace.infra.artifacts import Artifacts, Manifest
    from headrace.reproduce.roots import Roots
    from headrace.schemas.record import Record

Model = Annotated[str, typer.Argument(metavar="MODEL", help="rainfall@1, rainfall@champion, rainfall@1@1204 …")]
WEIGHTS = 10


@command(MODELS, "headrace show rainfall@champion")
def show(model: Model, as_json: Json = False) -> None:
    """Show one model: its run, what it learned, every verdict with its numbers, the aliases it had, its parameters.

    MODEL is named as in `headrace reproduce`.
    """
    from headrace.reproduce import log

    with connect.bus() as (bus, settings):
        roots = log.find(model, bus, settings.namespace)
        control = log.records(bus, settings.namespace, "control-log")
    told = card(roots, control, _artifacts(settings))
    if as_json:
        output.print_json(told)
        return
    output.say(told["model"], style="bold")
    output.out().print(output.table(("", ""), [(key, value) for key, value in _facts(told)]))
    for verdict in told["verdicts"]:
        output.say(f"\n{verdict['says']}  [{verdict['place']}]")
        for line in verdict["checks"]:
            output.say(f"    {line}")
    if told["parameters"]:
        output.say("\nParameters", style="bold")
        output.out().print(output.table(("", ""), list(told["parameters"].items())))
    output.say(f"\nCloser: headrace why {roots.name}; headrace reproduce {roots.name}")


@command(MODELS, "headrace diff rainfall@1 rainfall@2")
def diff(a: Model, b: Model, as_json: Json = False) -> None:
    """Show where two models differ: release and source, run, what they learned, scores, parameters, weights.

    MODEL is named as in `headrace reproduce`; both may be of different pipelines.
    """
    from headrace import comparing
    from headrace.reproduce import log

    with connect.bus() as (bus, settings):
        found = [log.find(one, bus, settings.namespace) for one in (a, b)]
        control = log.records(bus, settings.namespace, "control-log")
    artifacts = _artifacts(settings)
    cards = [card(one, control, artifacts) for one in found]
    names = (found[0].name, found[1].name)
    first, second = (artifacts.get_source(one.released.definition.source_uri) for one in found)
    told = {
        "models": names,
        **compared(cards[0], cards[1]),
        "source": comparing.source_lines(first, second, names),
    }
    if as_json:
        output.print_json(told)
        return
    for title in ("facts", "parameters", "weights"):
        rows = [(key, *map(_plain, values)) for key, values in told[title].items()]
        if rows:
            output.out().print(output.table((title, *names), rows))
            output.say("")
    for line in told["source"]:
        output.say(str(line))
    if not any(told[title] for title in ("facts", "parameters", "weights", "source")):
        output.say(f"{names[0]} and {names[1]} are the same model.")


@command(MODELS, "headrace decisions rainfall --last 20")
def decisions(
    name: AnyName = None,
    last: Annotated[int, typer.Option(min=1, help="How many at most, the newest last.")] = 50,
    as_json: Json = False,
) -> None:
    """List what people asked, services decided and gates judged, in the order of `control-log`, with the numbers.

    Each has its place, which `headrace why` takes.
    """
    from headrace.infra.client_errors import check_released
    from headrace.schemas.control import LabelsCounted, WindowValidated
    from headrace.why import chain, words

    with connect.client() as client:
        try:
            log = chain.Log.of(client.subscribe("control-log", name or "", start="earliest", follow=False))
        except Missing:
            log = chain.Log()
        if not log.links:  # of a retired pipeline there is what was decided
            check_released(name, client.pipelines())
    beside = (LabelsCounted, WindowValidated)  # counts that decisions rest on
    chosen = [link for link in log.links if not isinstance(link.event, beside)][-last:]
    if as_json:
        output.print_json([words.as_data(link) for link in chosen])
        return
    for link in chosen:
        output.say(words.line(link))
    if chosen:
        output.say(f"Closer: headrace why {chosen[-1].place}")
    else:
        output.say("Nothing was decided yet.")


def card(roots: Roots, control: Sequence[Record], artifacts: Artifacts) -> dict[str, Any]:
    """A model as data: where it comes from, what judged it, what it is. Its bytes may be lost: then no parameters."""
    from headrace.schemas.control import OWN_RECIPE

    manifest, size, parameters, weights, lost = _opened(roots, artifacts)
    started = roots.started
    return {
        "model": roots.name,
        "pipeline": started.pipeline,
        "version": roots.version,
        "release": started.release,
        "run": started.run,
        "recipe": started.recipe or OWN_RECIPE,
        "request": started.request,
        "seed": started.seed,
        "parent": started.parent,
        "learned": _learned(roots, manifest),
        "left_out": len(roots.skipped),
        "rows": roots.told.n_learned if roots.told else manifest.n_learned if manifest else None,
        "offset": roots.offset,
        "scores": dict(roots.told.metrics if roots.told else manifest.metrics if manifest else {}),
        "aliases": list(_aliases(roots, control)),
        "artifact": roots.uri,
        "bytes": size,
        "lost": lost,
        "python": manifest.python if manifest else None,
        "river": manifest.river if manifest else None,
        "verdicts": list(_verdicts(started.run, control)),
        "parameters": parameters,
        "weights": weights,
    }


def compared(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Where two cards differ; parameters and weights only where both models' bytes are there."""
    from headrace import comparing

    facts = comparing.changed(dict(_facts(a)), dict(_facts(b)))
    if a["lost"] or b["lost"]:
        return {"facts": facts, "parameters": {}, "weights": {}}
    return {
        "facts": facts,
        "parameters": comparing.changed(a["parameters"], b["parameters"]),
        "weights": comparing.largest(a["weights"], b["weights"], WEIGHTS),
    }


def _opened(roots: Roots, artifacts: Artifacts) -> tuple[Manifest | None, int | None, dict[str, str], Any, str | None]:
    """Manifest, size, parameters and weights of a model's bytes; the reason where they cannot be had."""
    from headrace import comparing, model_bytes
    from headrace.infra import pipeline_files
    from headrace.infra.artifacts import ArtifactRefused

    try:
        data, manifest = artifacts.get(roots.uri)
        pipeline_files.load_stored(artifacts, roots.released.definition)  # the classes of its file
    except ArtifactRefused as refusal:
        return None, None, {}, {}, str(refusal)
    model = model_bytes.loads(data)
    return manifest, len(data), comparing.parameters(model), comparing.weights(model), None


def _learned(roots: Roots, manifest: Manifest | None) -> str:
    """The ranges of labelled-examples behind the model."""
    from headrace.ranges import without

    started = roots.started
    ranges = manifest.learned if manifest else without(started.start_offset, roots.offset, started.excluded)
    return ", ".join(f"{start:,} to {end:,}" for start, end in ranges) or "nothing"


def _aliases(roots: Roots, control: Iterable[Record]) -> Iterable[str]:
    """The aliases that named the version, each with when and why."""
    from headrace.schemas.control import ModelUpdated
    from headrace.why.sentences import moment

    for record in control:
        event = record.event
        if isinstance(event, ModelUpdated) and (event.pipeline, event.version) == (
            roots.started.pipeline,
            roots.version,
        ):
            yield f"{event.alias} from {moment(record.known_ms)}: {event.reason}"


def _verdicts(run: str, control: Iterable[Record]) -> Iterable[dict[str, Any]]:
    """Every verdict about a run, with its checks."""
    from headrace.schemas.control import ModelValidated
    from headrace.why import chain, words
    from headrace.why.sentences import sentence

    for record in control:
        event = record.event
        if isinstance(event, ModelValidated) and event.run == run:
            yield {
                "place": chain.link_of(record).place,
                "stage": event.stage,
                "verdict": event.verdict,
                "says": sentence(event),
                "checks": [words.check(one) for one in event.checks],
            }


def _facts(told: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What stands in one line each, in words."""
    yield "release", str(told["release"])
    yield "recipe", told["recipe"]
    yield "run", f"{told['run']}, seed {told['seed']}" + (f", from {told['parent']}" if told["parent"] else "")
    yield "asked by", told["request"]
    left_out = f", {told['left_out']} left out as their learn raised" if told["left_out"] else ""
    rows = f"{told['rows']:,} rows" if told["rows"] is not None else "rows unknown"
    yield "learned", f"{rows}: offsets {told['learned']}{left_out}"
    for metric, value in told["scores"].items():
        yield metric, _plain(value)
    if told["aliases"]:
        yield "aliases", "; ".join(told["aliases"])
    size = f"{told['bytes']:,} bytes, Python {told['python']}, River {told['river']}" if told["bytes"] else told["lost"]
    yield "artifact", f"{told['artifact']} ({size})"


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _artifacts(settings: Any) -> Artifacts:
    from headrace.infra.artifacts import Artifacts

    return Artifacts(settings.artifact_url, settings.key())
