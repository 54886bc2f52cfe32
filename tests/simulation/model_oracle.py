"""Every model is the fold of the labelled examples that stand in the log, and what serves is the newest of its run."""

from headrace import model_bytes
from headrace.infra.records import Incoming
from headrace.schemas.control import AliasRemoved, ModelUpdated, PipelineReleased, RunStarted, TrainingFailed
from headrace.schemas.topics import full_name
from headrace.services.trainer import core as trainer
from headrace.services.trainer.beginning import begin, world_of
from tests.simulation import pipeline_source as rain
from tests.simulation.log import events_of, heard

SNAPSHOTS = full_name("<p>.snapshots", rain.NAME)
SOME = 3  # snapshots of a run looked into where a schedule is no life


def models_wrong(plant, logs):
    """Differences between models and folds; `Incoming` decodes here, it drops nothing."""
    live = {
        name: run
        for process in plant.live
        if process.service == "trainer"
        for worker in process.parts[0]._workers()
        for name, run in worker.runs.items()
    }
    taken, kinds = events_of(logs[SNAPSHOTS]), events_of(logs["training-runs"])
    failed = {(event.run, event.offset) for event in kinds if isinstance(event, TrainingFailed)}
    completed = events_of(logs["training-completed"])
    releases = {(rain.NAME, e.release): e for e in events_of(logs["pipelines"]) if isinstance(e, PipelineReleased)}
    found = []
    for started in kinds:
        if not isinstance(started, RunStarted):
            continue
        run = live.get(started.run)
        world = world_of(started, releases, plant.artifacts)
        own = [event for event in taken if started.run in event.runs]
        stored = _stored(plant, own, started.run)
        state, digests, ends = learned(world, begin(world, releases, plant.artifacts), logs, stored)
        found += _differences(started.run, run, own, stored, state, digests)
        told = [event for event in completed if event.run == started.run]
        if told != (ends if run is not None else ends[: len(told)]):
            found.append(f"run {started.run} told its ends as {told}, not as {ends}")
        skipped = state.skipped if run is not None else ()
        found += [f"nobody told that {started.run} skipped {o}" for o in skipped if (started.run, o) not in failed]
    return found + _served(plant, logs, taken)


def _differences(name, run, taken, stored, state, digests):
    found = [f"the snapshot of {name} at {o} is not the fold up to there" for o in stored if stored[o] != digests[o]]
    if run is None:
        return found
    if (run.state.n_learned, model_bytes.digest(run.state.model)) != (
        state.n_learned,
        model_bytes.digest(state.model),
    ):
        found.append(f"run {name} learned {run.state.n_learned}, not the fold of {state.n_learned} in the log")
    if run.state.skipped != state.skipped:
        found.append(f"run {name} skipped {run.state.skipped}, not {state.skipped}")
    if state.n_learned and not taken:
        found.append(f"run {name} has no snapshot")
    return found


def _served(plant, logs, taken):
    """Every predictor answers with the newest snapshot of each alias that follows its run, with its own of others."""
    named = {}
    for event in events_of(logs["model-updates"]):
        if isinstance(event, ModelUpdated):
            named[event.alias] = event
        elif isinstance(event, AliasRemoved):
            named.pop(event.alias, None)
    newest = {alias: moved.snapshot_offset for alias, moved in named.items()}
    for alias, moved in named.items():
        if moved.follows:
            newest[alias] = max(event.offset for event in taken if moved.run in event.runs)
    found = []
    for process in plant.live:
        if process.service == "predictor":
            arms = process.parts[1].world(rain.NAME).arms
            stands = {alias: (arm.run, arm.learned_to) for alias, arm in arms.items()}
            due = {alias: (moved.run, newest[alias]) for alias, moved in named.items()}
            if stands != due:
                found.append(f"the predictor serves {stands}, the newest are {due}")
    return found


def learned(world, restored, logs, stops=()):
    """A run that learned every record but what it cannot learn, the digests that its model has at some offsets, and
    what it tells. What it cannot learn it skips from then on, as the trainer does: the model before it goes on.
    """
    decode = Incoming(rain.LABELLED, "", {}, trainer.DECODERS)
    records = [decode.record(m) for m in heard(logs[rain.LABELLED].all, restored.offset, restored.sequences)]
    began, skipped = model_bytes.dumps(restored.state), []
    while True:
        state, digests, told, ahead = model_bytes.loads(began), {}, [], sorted(stops)
        state.skipped = skipped
        for record in records:
            while ahead and record.offset >= ahead[0]:
                digests[ahead.pop(0)] = model_bytes.digest(state.model)
            try:
                told += [emit.event for emit in trainer.step(state, record, world)]
            except Exception:
                skipped = [*skipped, record.offset]
                break
        if state.skipped is skipped:
            return state, digests | {stop: model_bytes.digest(state.model) for stop in ahead}, told


def _stored(plant, taken, name):
    """The digests of a run's snapshots by offset, of all in a life, else of three; not of those thinned out."""
    some = taken if plant.is_life or len(taken) <= SOME else (taken[0], taken[len(taken) // 2], taken[-1])
    uris = {event.offset: event.runs[name].uri for event in some}
    return {
        offset: model_bytes.digest(model_bytes.loads(plant.artifacts.get(uri)[0]))
        for offset, uri in uris.items()
        if plant.artifacts.exists(uri)
    }
