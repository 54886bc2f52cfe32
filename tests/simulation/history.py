"""What the log tells of a pipeline's models: who served when, and whether that history is one that may be.

Read from the topics alone. Each promotion has its verdict or its person, each verdict one promotion; aliases are moved
in one order, which `control-log` and the registry hold alike; of the runs one at a time is on its way.
"""

from collections import Counter

from headrace.schemas.control import (
    AliasRemoved,
    ChallengerExpired,
    ChallengerSuperseded,
    ModelUpdated,
    ModelValidated,
    RunEnded,
    RunStarted,
    TrainingRequested,
)
from headrace.schemas.record import SEQUENCES_PER_OFFSET
from headrace.schemas.stream import PredictionMade
from headrace.schemas.topics import full_name
from tests.simulation import pipeline_source as rain
from tests.simulation.log import events_of, sequence_of
from tests.simulation.ways_back import ways, wrong_ways

PREDICTIONS, SNAPSHOTS = (full_name(name, rain.NAME) for name in ("<p>.predictions", "<p>.snapshots"))
MOVES = (ModelUpdated, AliasRemoved)
HAPPENS = {
    "promotion", "forced promotion", "rollback by a person", "rollback by the guard", "return to a version", "fork",
    "ChallengerSuperseded", "the anchor moved on", "return to the anchor", "fork after the anchor", "range barred",
    "back to before a range", "fork without a range", "a run without the range serves",
}  # fmt: skip


def wrong_in_history(plant, logs):
    """What must not be in the history of a plant's models, in words."""
    told = events_of(logs["control-log"])
    moves = [event for event in told if isinstance(event, MOVES)]
    found = [] if moves == events_of(logs["model-updates"]) else ["control-log has other moves than model-updates"]
    for process in plant.live:
        if process.service == "registry":
            for worker in process.parts[0].workers.values():
                models = worker.state.pipelines.get(rain.NAME)
                if models is not None and models.history != moves:
                    found.append(f"the registry {process.instance} remembers other moves than control-log has")
    found += out_of_order(moves) + unfounded(told) + crowded(told, events_of(logs[SNAPSHOTS]))
    made = [event for event in events_of(logs[PREDICTIONS]) if isinstance(event, PredictionMade)]
    found += wrong_ways(*_places(logs), events_of(logs[SNAPSHOTS]), made)
    return found + _dead(told, plant) + _apart(told, made)


def _places(logs):
    """The decisions with their offsets, and the moves of aliases with those of their causes."""
    control, moves = logs["control-log"], logs["model-updates"]
    causes = [sequence_of(message) // SEQUENCES_PER_OFFSET for message in moves.kept]
    offsets = [message.offset() for message in control.kept]
    return list(zip(offsets, events_of(control), strict=True)), list(zip(causes, events_of(moves), strict=True))


def happened(logs):
    """What became of the models of a life, for counting: which kinds of moves and ends there were."""
    told = events_of(logs["control-log"])
    kinds = [kind for kind, _ in served(told)]
    kinds += [type(event).__name__ for event in told if isinstance(event, ChallengerSuperseded)]
    kinds += [
        f"{event.stage} {event.verdict}"
        for event in told
        if isinstance(event, ModelValidated) and event.stage in ("online", "guard")
    ]
    kinds += ["fork" for event in told if isinstance(event, RunStarted) and event.parent is not None]
    return {*kinds, *ways(*_places(logs))}


def served(told):
    """Every model that came to serve, and how: the first, by evidence, by force, back (live, frozen), as a fork."""
    aliases = {}
    for event in told:
        if isinstance(event, AliasRemoved):
            aliases.pop(event.alias, None)
        elif isinstance(event, ModelUpdated):
            before = dict(aliases)
            aliases[event.alias] = event
            if event.alias == "champion":
                yield _how(before, event), event


def _how(before, event):
    """Why this champion: `before` are the aliases as it came."""
    if "champion" not in before:
        return "first"
    if event.barred:
        return "back to before a range"
    challenger, previous = before.get("challenger"), before.get("previous")
    if challenger is not None and challenger.run == event.run:
        return "forced promotion" if event.forced_by else "promotion"
    if previous is not None and previous.run == event.run:
        return "rollback by a person" if event.request else "rollback by the guard"
    if event.follows:
        return "fork serves"
    return "return to a version" if event.request else "return to the anchor"


def out_of_order(moves):
    """Epochs go up, versions are numbered as they come, and a promotion leaves the model before it as `previous`."""
    found, aliases, epoch, versions = [], {}, 0, 0
    for event in moves:
        if event.epoch < epoch:
            found.append(f"epoch {event.epoch} comes after {epoch}: {event}")
        epoch = event.epoch
        if isinstance(event, AliasRemoved):
            named = aliases.pop(event.alias, None)
            if named is None or named.run != event.run:
                found.append(f"{event.alias} is taken from {event.run}, {named and named.run} has it")
            continue
        if event.version > versions + 1:
            found.append(f"version {event.version} comes after {versions}")
        versions = max(versions, event.version)
        before = aliases.get(event.alias)
        if (before.version if before is not None else None) != event.previous_version:
            found.append(f"{event.alias} went from {before and before.version}, it says {event.previous_version}")
        challenger, stands_by = aliases.get("challenger"), aliases.get("previous")
        wins = event.alias == "champion" and challenger is not None and challenger.run == event.run
        if wins and (stands_by is None or stands_by.run != before.run or stands_by.epoch != event.epoch):
            found.append(f"version {event.version} was promoted and the model before it does not stand by")
        aliases[event.alias] = event
    return found


def unfounded(told):
    """Promotions and rollbacks by a verdict are as many as the verdicts that could cause them, one each."""
    found, passed, failed = [], [], []
    by_offset = iter(served(told))
    coming = next(by_offset, None)
    for event in told:
        if isinstance(event, ModelValidated) and (event.stage, event.verdict) == ("online", "pass"):
            passed.append((event.run, event.against, event.epoch))
        elif isinstance(event, ModelValidated) and (event.stage, event.verdict) == ("guard", "fail"):
            failed.append((event.against, event.run))
        elif coming is not None and event is coming[1]:
            kind = coming[0]
            if kind == "promotion":
                causes = [cause for cause in passed if cause[0] == event.run and cause[2] < event.epoch]
                if not causes:
                    found.append(f"run {event.run} was promoted without a verdict of its epoch: {passed}")
                passed = [cause for cause in passed if cause not in causes]
            elif kind == "rollback by the guard":
                causes = [cause for cause in failed if cause[0] == event.run]
                if not causes:
                    found.append(f"run {event.run} came back without a verdict of the guard")
                failed = [cause for cause in failed if cause not in causes]
            coming = next(by_offset, None)
    return found


def crowded(told, taken):
    """More than champion, previous and one beside them that learn, but for those that are to leave; at rest, one on its
    way whom nobody asked for.
    """
    leaving = {event.run for event in told if isinstance(event, ChallengerSuperseded | ChallengerExpired)}
    found = [
        f"runs learn at offset {event.offset}: {list(event.runs)}"
        for event in taken
        if len(event.runs.keys() - leaving) > 3
    ]
    started, on_their_way, newest = Counter(), {}, None
    for event in told:
        if isinstance(event, TrainingRequested):
            newest = event.request
        elif isinstance(event, RunStarted):
            started[event.run] += 1
            on_their_way[event.run] = event.request
        elif isinstance(event, RunEnded) or (isinstance(event, ModelUpdated) and event.alias == "champion"):
            on_their_way.pop(event.run, None)
    found += [f"run {run} started {times} times" for run, times in started.items() if times > 1]
    return found + [f"run {run} is on its way, not {newest}" for run, asked in on_their_way.items() if asked != newest]


def _dead(told, plant):
    """Runs that serve and learn no more, or learn and have lost their purpose; runs that ended twice."""
    named, ended = {}, Counter(event.run for event in told if isinstance(event, RunEnded))
    for event in told:
        if isinstance(event, ModelUpdated):
            named[event.alias] = event
        elif isinstance(event, AliasRemoved):
            named.pop(event.alias, None)
    found = [f"run {run} ended {times} times" for run, times in ended.items() if times > 1]
    live = {
        name
        for process in plant.live
        if process.service == "trainer"
        for worker in process.parts[0]._workers()
        for name in worker.runs
    }
    for alias, event in named.items():
        if event.follows and (event.run in ended or event.run not in live):
            found.append(f"run {event.run} is {alias} and learns no more")
    started = {event.run for event in told if isinstance(event, RunStarted)}
    found += [f"run {run} ended and learns on" for run in live & ended.keys()]
    return found + [f"run {run} learns and was never started" for run in live - started]


def _apart(told, made):
    """Predictions whose arms follow their runs and had not learned the same; an anchor does not follow."""
    frozen = {e.run for e in told if isinstance(e, ModelUpdated) and not e.follows and e.alias != "anchor"}
    found = []
    for event in made:
        arms = {alias: arm for alias, arm in event.predictions.items() if alias != "anchor"}
        stands = {alias: arm.learned_to for alias, arm in arms.items() if arm.run not in frozen}
        if len(set(stands.values())) > 1:
            found.append(f"prediction {event.id} was made by arms that stand apart: {stands}")
    return found
