"""Laws that every fold obeys, found by discovery and run over a history that the whole system made."""

import hashlib
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from folds import core_of, digests_of, folded, fresh, input_of, kind_of, records_of, restored

import headrace
from headrace.infra.bus import TopicSpec
from headrace.infra.memory_bus import MemoryBus, MemoryMessage
from headrace.infra.records import Incoming
from headrace.infra.runtime import FoldRunner
from headrace.infra.store import Store
from headrace.infra.worker import Worker
from headrace.schemas.record import OUTPUTS_PER_STEP
from headrace.schemas.topics import TOPICS, full_name, parse_name
from headrace.services import FOLDS

NAMES = ("rain", "snow")  # the pipelines of the history; the topics of the first are folded
IDS = [f"{fold.id}:{fold.input}" for fold in FOLDS]
every_fold = pytest.mark.parametrize("fold", FOLDS, ids=IDS)

# what each fold must tell over the history: where it tells nothing, all laws hold of it
IN_BAND = {"PipelineReleased", "Tick"}
TELLS = {
    "validator-core:<p>.data-arrived": {
        "ExampleArrived", "LabelArrived", "RecordRejected", "WindowValidated", *IN_BAND,
    },
    "predictor-core:<p>.data-validated": {"PredictionMade", "LabelArrived", *IN_BAND},
    "joiner-core:<p>.predictions": {"ExampleLabelled", "LabelCorrected", *IN_BAND},
    "trainer-core:<p>.labelled-examples": {"TrainingCompleted"},
    "trainer-control:control-log": {"RunStarted", "RunEnded", "LineageRecorded"},
    "evaluator-online:<p>.labelled-examples": {"MetricsUpdated", "ModelValidated", "LabelsCounted"},
    "evaluator-offline:control-log": {"ModelValidated"},
    "monitor-inputs:<p>.predictions": {"DriftDetected"},
    "monitor-performance:<p>.labelled-examples": {"DriftDetected"},
    "sequencer-core:validation-results": {"WindowValidated"},
    "sequencer-core:drift-alerts": {"DriftDetected"},
    "sequencer-core:operator-requests": {"ReleaseAsked", "TrainingAsked", "PromotionAsked", "RetireAsked"},
    "sequencer-core:ticks": {"Tick"},
    "sequencer-core:training-requests": {"TrainingRequested"},
    "sequencer-core:training-runs": {"RunStarted", "RunEnded"},
    "sequencer-core:training-completed": {"TrainingCompleted"},
    "sequencer-core:model-validations": {"ModelValidated", "LabelsCounted"},
    "sequencer-core:model-updates": {"ModelUpdated", "AliasRemoved"},
    "sequencer-core:pipelines": {"PipelineReleased", "PipelineRetired"},
    "sequencer-core:decisions": {"SchemaSkewed", "PipelineDegraded", "RequestRefused"},
    "orchestrator-core:control-log": {"TrainingRequested", "SchemaSkewed", "PipelineDegraded"},
    "registry-core:control-log": {
        "PipelineReleased", "PipelineRetired", "ModelUpdated", "AliasRemoved", "RequestRefused",
    },
}  # fmt: skip
CUTS = 25  # times that a fold is stopped and goes on from its store; a store is slow to open


def test_it_is_said_of_every_fold_what_it_must_tell():
    assert sorted(TELLS) == sorted(IDS)


@every_fold
def test_the_history_lets_the_fold_tell_all_that_it_is_for(fold, system):
    core = core_of(fold)
    state = fresh(core)
    found = {kind_of(e) for record in records_of(fold, system) for e in core.step(state, record, core.example_world())}
    assert found >= TELLS[f"{fold.id}:{fold.input}"]


@every_fold
def test_a_fold_is_resumable_at_every_position(fold, system):
    core, records = core_of(fold), records_of(fold, system)
    assert folded(core, records, restored) == folded(core, records)


@every_fold
def test_a_fold_that_goes_on_from_its_store_is_the_one_that_never_stopped(fold, system):
    messages = input_of(fold, system)
    cuts = {len(messages) * cut // CUTS for cut in range(CUTS)}
    home = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        stopped = outputs_of(fold, system, messages, 50, lambda _, place: Store.open(home / place[0], b"key"), cuts)
    finally:
        shutil.rmtree(home)
    assert stopped == outputs_of(fold, system, messages, 50)


@pytest.fixture(scope="session")
def told_elsewhere(system, tmp_path_factory):
    """What every fold tells in two other processes, with other hash seeds."""
    rooms = [str(Path(headrace.__file__).parents[1]), str(Path(__file__).parents[1])]
    history = tmp_path_factory.mktemp("history") / "history"
    history.write_bytes(
        pickle.dumps(
            {
                name: (
                    fold.module,
                    full_name(fold.input, "rain"),
                    [
                        (m.topic(), m.partition(), m.offset(), m.key(), m.value(), m.headers(), m.timestamp())
                        for m in input_of(fold, system)
                    ],
                )
                for name, fold in zip(IDS, FOLDS, strict=True)
            }
        )
    )
    return [
        json.loads(
            subprocess.run(
                [sys.executable, __file__, str(history)],
                capture_output=True,
                text=True,
                check=True,
                env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": os.pathsep.join(rooms)},
            ).stdout
        )
        for seed in ("1", "6")  # which order two aliases otherwise
    ]


@every_fold
def test_a_fold_tells_the_same_under_another_hash_seed(fold, system, told_elsewhere):
    here = digest_of(folded(core_of(fold), records_of(fold, system)))
    assert [elsewhere[f"{fold.id}:{fold.input}"] for elsewhere in told_elsewhere] == [here, here]


def digest_of(outputs_and_state):
    return hashlib.sha256(repr(outputs_and_state).encode()).hexdigest()


@every_fold
def test_a_fold_emits_only_what_the_table_of_topics_lets_it(fold, system):
    core = core_of(fold)
    for record, emits in zip(
        records_of(fold, system),
        [
            core.step(state, record, core.example_world())
            for state in [fresh(core)]
            for record in records_of(fold, system)
        ],
        strict=True,
    ):
        assert len(emits) <= OUTPUTS_PER_STEP
        for emit in emits:
            assert emit.topic in fold.outputs
            allowed = TOPICS[emit.topic].events
            assert kind_of(emit) in allowed or emit.topic == "control-log", f"{emit} from {record.offset}"


def outputs_of(fold, system, messages, batch, open_store=lambda *_: None, cuts=()):
    """The output logs, without repeats, of the real loop over given messages, and the state that it ends with.

    Before each of `cuts` the process ends and another one goes on.
    """
    bus, core, place = MemoryBus(clock=lambda: 0), core_of(fold), (full_name(fold.input, "rain"), 0)
    for topic in {full_name(name, pipeline) for name in (fold.input, *fold.outputs, "pipelines") for pipeline in NAMES}:
        bus.create_topics([TopicSpec(topic, 1, {}), TopicSpec(topic + "-dlq", 1, {})])
    for message in system.bus.read(("pipelines", 0), 0, 100) if fold.input.startswith("<p>") else ():
        bus.append("pipelines", 0, message.key(), message.value(), message.headers(), message.timestamp()[1])

    def make(place, producer):
        return Worker(
            fold,
            core,
            place,
            bus=bus,
            producer=producer,
            namespace="",
            open_store=open_store,
            world=core.example_world(),
        )

    def process():
        return FoldRunner(fold.id, [fold.input], bus, make, batch=batch, commit_s=0, follow_s=0)

    runner, end = process(), bus.offsets(place)[1]
    for number, m in enumerate(messages):
        if number in cuts:
            finish(runner, place, end + number)
            runner.close()
            runner = process()
        bus.append(m.topic(), m.partition(), m.key(), m.value(), m.headers() or [], m.timestamp()[1])
    finish(runner, place, end + len(messages))
    worker = runner.workers[place]
    state = digests_of(core, worker.state) | {"sequences": dict(worker._incoming.sequences)}
    runner.close()
    kept = {}
    for topic in fold.outputs:
        name = full_name(topic, "rain")
        incoming = Incoming(name, "")
        if parse_name(name)[0] in ("<p>.data-arrived",):
            continue
        records = [incoming.record(m) for m in bus.read((name, 0), 0, 1_000_000)]
        kept[topic] = [(r.key, r.body, r.sequence, r.known_ms) for r in records if r is not None]
    return kept, state


def finish(runner, place, end):
    """Fold up to the log's end."""
    while runner.tick(0.0) or place not in runner.workers or runner.workers[place].offset < end:
        pass


@every_fold
def test_a_fold_is_indifferent_to_where_batches_are_cut(fold, system):
    messages = input_of(fold, system)
    whole = outputs_of(fold, system, messages, 1_000)
    assert outputs_of(fold, system, messages, 1) == whole
    assert outputs_of(fold, system, messages, 7) == whole


@every_fold
def test_a_fold_is_tolerant_of_repeats(fold, system):
    if TOPICS[fold.input].by_users or fold.input == "ticks":
        pytest.skip("users' records carry no sequence: there the event's id counts (see the validator's tests)")
    messages = input_of(fold, system)
    repeated, unreadable = [], []
    for number, message in enumerate(messages):
        again = messages[max(0, number - 3) : number + 1] if number % 5 == 0 else []
        repeated += [message, *again]
        unreadable += [message, *(without_envelope(m) for m in again)]  # the same offsets, and nothing to read there
    assert outputs_of(fold, system, repeated, 50) == outputs_of(fold, system, unreadable, 50)


def without_envelope(m):
    return MemoryMessage(m.topic(), m.partition(), m.offset(), m.key(), m.value(), [], m.timestamp())


def main(path):
    """In a process with another hash seed: print the digest of what each fold tells."""
    told_here = {}
    for name, (module, topic, rows) in pickle.loads(Path(path).read_bytes()).items():
        core = importlib.import_module(module)
        incoming = Incoming(topic, "", decoders=getattr(core, "DECODERS", None))
        records = [r for r in (incoming.record(MemoryMessage(*row)) for row in rows) if r is not None]
        told_here[name] = digest_of(folded(core, records))
    print(json.dumps(told_here))


if __name__ == "__main__":
    main(sys.argv[1])
