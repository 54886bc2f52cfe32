"""Laws that every fold obeys, found by discovery and run over a history that the whole system made."""

import hashlib
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace.infra.bus import TopicSpec
from headrace.infra.memory_bus import MemoryBus, MemoryMessage
from headrace.infra.records import Incoming
from headrace.infra.runtime import FoldRunner
from headrace.infra.state_fields import lacking
from headrace.infra.worker import Worker
from headrace.schemas.codec import encode
from headrace.schemas.record import OUTPUTS_PER_STEP
from headrace.schemas.topics import TOPICS, full_name, parse_name
from headrace.services import FOLDS

IDS = [f"{fold.id}:{fold.input}" for fold in FOLDS]
every_fold = pytest.mark.parametrize("fold", FOLDS, ids=IDS)


def core_of(fold):
    return importlib.import_module(fold.module)


def input_of(fold, system):
    """The messages of the fold's input topic, as the system left them."""
    topic = full_name(fold.input, "rain")
    return system.bus.read((topic, 0), 0, 1_000_000)


def records_of(fold, system):
    incoming = Incoming(full_name(fold.input, "rain"), "", decoders=getattr(core_of(fold), "DECODERS", None))
    return [record for record in map(incoming.record, input_of(fold, system)) if record is not None]


def fresh(core):
    return core.fresh("rain", 0) if hasattr(core, "fresh") else core.State()


def told(emits):
    return [(e.topic, e.pipeline, e.key, e.partition, encode(e.event) if e.body is None else e.body) for e in emits]


def folded(core, records, between=lambda state: state):
    """Everything the fold tells; `between` may replace the state before each step."""
    state, outputs = fresh(core), []
    for record in records:
        state = between(state)
        outputs.append(told(core.step(state, record, core.example_world())))
    return outputs


def restored(state):
    """The state as the next process gets it, whole: where a field lacks, it would refuse to go on."""
    state = pickle.loads(pickle.dumps(state))
    assert lacking(state) is None
    return state


@every_fold
def test_the_history_says_something_to_the_fold(fold, system):
    assert fold.input in TOPICS
    if fold.input in ("drift-alerts", "validation-results"):
        pytest.skip("nothing writes this topic in a healthy pipeline of this version")
    assert records_of(fold, system)


@every_fold
def test_a_fold_is_resumable_at_every_position(fold, system):
    core, records = core_of(fold), records_of(fold, system)
    saved = folded(core, records, restored)
    assert saved == folded(core, records)


@pytest.fixture(scope="session")
def told_elsewhere(system, tmp_path_factory):
    """What every fold tells in two other processes, with other hash seeds."""
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
                env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": str(Path(headrace.__file__).parents[1])},
            ).stdout
        )
        for seed in ("1", "2")
    ]


@every_fold
def test_a_fold_tells_the_same_under_another_hash_seed(fold, system, told_elsewhere):
    here = digest_of(folded(core_of(fold), records_of(fold, system)))
    assert [elsewhere[f"{fold.id}:{fold.input}"] for elsewhere in told_elsewhere] == [here, here]


def digest_of(outputs):
    return hashlib.sha256(repr(outputs).encode()).hexdigest()


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
            name = emit.type.split(".")[1] if emit.type else type(emit.event).__name__
            allowed = TOPICS[emit.topic].events
            assert name in allowed or emit.topic == "control-log", f"{name} in {emit.topic}, from {record.offset}"


def outputs_of(fold, system, messages, batch):
    """The output logs, without repeats, of the real loop over given messages."""
    bus, core = MemoryBus(clock=lambda: 0), core_of(fold)
    for topic in {fold.input, *fold.outputs, "pipelines"}:
        bus.create_topics(
            [TopicSpec(full_name(topic, "rain"), 1, {}), TopicSpec(full_name(topic, "rain") + "-dlq", 1, {})]
        )
    for message in system.bus.read(("pipelines", 0), 0, 100) if fold.input.startswith("<p>") else ():
        bus.append("pipelines", 0, message.key(), message.value(), message.headers(), message.timestamp()[1])
    for m in messages:
        bus.append(m.topic(), m.partition(), m.key(), m.value(), m.headers() or [], m.timestamp()[1])

    def make(place, producer):
        return Worker(
            fold,
            core,
            place,
            bus=bus,
            producer=producer,
            namespace="",
            open_store=lambda *_: None,
            world=core.example_world(),
        )

    runner = FoldRunner(fold.id, [fold.input], bus, make, batch=batch, commit_s=0, follow_s=0)
    while runner.tick(0.0) or runner.handled < len(messages):
        pass
    runner.close()
    kept = {}
    for topic in fold.outputs:
        name = full_name(topic, "rain")
        incoming = Incoming(name, "")
        if parse_name(name)[0] in ("<p>.data-arrived",):
            continue
        records = [incoming.record(m) for m in bus.read((name, 0), 0, 1_000_000)]
        kept[topic] = [(r.key, r.body, r.sequence, r.known_ms) for r in records if r is not None]
    return kept


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
