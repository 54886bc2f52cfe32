"""What must hold once a plant is at rest, whatever befell it. Judged by the real folds, run calmly over the log.

(1) Every topic is the fold of its input topic, record by record, once repeats are dropped, and so is the state of every
fold. (2) Repeats are equal but
where the first one wins. (3) With one partition features, labels and their order equal an undisturbed run's, with
several the set of joined examples does. (4) Each example is joined once. (5) Every model is the fold of the labelled
examples that stand in the log: the live ones and those of the snapshots (model_oracle.py). (6) The history of the
aliases is one that may be (history.py), so are the ways back to an anchor or to before a bad range (ways_back.py).
"""

import importlib
import pickle
from collections import Counter

from headrace import model_bytes
from headrace.infra.memory_log import CREATE_TIME, MemoryMessage
from headrace.infra.partitioner import partition_of
from headrace.infra.records import source_of
from headrace.infra.worker import Worker
from headrace.schemas.codec import DECODERS, ORIGIN, TYPE_OF, header
from headrace.schemas.stream import ExampleLabelled
from headrace.schemas.topics import DLQ, full_name
from headrace.services import FOLDS
from headrace.services.predictor.core import World as NoArms
from headrace.services.registry.core import World as SignsWith
from headrace.services.validator.core import World as ChecksWith
from tests.simulation import pipeline_source as rain
from tests.simulation.history import wrong_in_history
from tests.simulation.log import comparable, says, type_of
from tests.simulation.model_oracle import models_wrong
from tests.simulation.process import KEY

ARRIVED, LABELLED = rain.ARRIVED, rain.LABELLED
WORLDS = {"validator": ChecksWith(KEY), "predictor": NoArms(), "registry": SignsWith(KEY)}


def judged(plant, logs):
    """What is wrong with a plant at rest and its logs, in words; empty where nothing is."""
    found = list(plant.violations)
    for topic, log in logs.items():
        found += log.unequal
        if topic.endswith(DLQ) and log.kept:
            found.append(f"{topic} holds {len(log.kept)} records")
    for fold in FOLDS:
        if fold.id != "trainer-core":
            found += _is_fold_of_its_input(fold, plant, logs)
    calm = _undisturbed(plant, logs)
    joined = [_row(message) for message in logs[LABELLED].kept]
    if plant.partitions == 1 and calm != joined:
        found.append(f"labelled-examples differ from an undisturbed run's: {_first_difference(calm, joined)}")
    calm_set, joined_set = (Counter(row[:3] for row in rows if row) for rows in (calm, joined))
    if calm_set != joined_set:
        found.append(f"lost: {list(calm_set - joined_set)[:5]}, too many: {list(joined_set - calm_set)[:5]}")
    ids = Counter(row[0] for row in joined if row)
    found += [f"{id_} is joined {count} times" for id_, count in ids.items() if count > 1]
    return found + models_wrong(plant, logs) + wrong_in_history(plant, logs)


class Calm:
    """Takes what a worker tells when nothing disturbs it."""

    def __init__(self, partitions):
        self._partitions, self.told = partitions, []

    def produce(self, topic, partition, key, value, headers, timestamp_ms):
        if partition is None:
            partition = partition_of(key, self._partitions(topic))
        encoded = [(name, text.encode() if isinstance(text, str) else text) for name, text in headers]
        self.told.append(MemoryMessage(topic, partition, 0, key, value, encoded, (CREATE_TIME, timestamp_ms)))


def _calm_worker(fold, bus, place):
    calm = Calm(bus.partitions)
    worker = Worker(
        fold,
        importlib.import_module(fold.module),
        place,
        bus=bus,
        producer=calm,
        namespace="",
        open_store=lambda *_: None,
        world=WORLDS.get(fold.service),
    )
    return worker, calm.told


def _is_fold_of_its_input(fold, plant, logs):
    """Differences between what a fold's sources told and what the fold says over its input as it stands."""
    bus, topic = plant.bus, full_name(fold.input, rain.NAME)
    erased = [message for _, messages in plant.erased for message in messages]
    expected, sources, states = {}, set(), []
    for partition in range(bus.partitions(topic)):
        place = topic, partition
        worker, told = _calm_worker(fold, bus, place)
        for message in logs[topic].read(partition):
            worker.handle(message)
        expected |= {_name(message): message for message in told}
        live = [one.workers[place] for one in plant.runners() if one.group == fold.id and place in one.workers]
        if len(live) != 1 or not holds_the_same(live[0], worker):
            states.append(f"{fold.id} at {place}: {len(live)} hold it, with another state than the log's fold")
        sources.add(source_of(fold.service, worker.pipeline, worker.topic_id, partition))
    found = {
        _name(message): message
        for output in fold.outputs
        for message in logs[full_name(output, rain.NAME)].kept + (erased if output == "<p>.data-arrived" else [])
        if (_first_topic(message) == topic if output == "control-log" else _source(message) in sources)
    }
    where = f"{fold.id} over {topic}"
    differences = [f"{where} should have told {name}" for name in expected.keys() - found.keys()]
    differences += [f"{where} should not have told {name}" for name in found.keys() - expected.keys()]
    differences += [
        f"{where} told {name} as {says(found[name])} instead of {says(expected[name])}"
        for name in expected.keys() & found.keys()
        if comparable(found[name]) != comparable(expected[name])
    ]
    return states + differences[:3]


def held(worker):
    """The digests of a fold's state. What was lost and made again must be no other.

    Field by field: an object that two fields share may be two equal ones after a restart.
    """
    return {name: model_bytes.digest(part) for name, part in _parts(worker).items()}


def holds_the_same(one, other):
    """Whether two workers' states have the same digests. Equal pickles say so sooner; most are equal."""
    theirs = _parts(other)
    return one._fields().keys() == other._fields().keys() and all(
        pickle.dumps(part) == pickle.dumps(theirs[name]) or model_bytes.digest(part) == model_bytes.digest(theirs[name])
        for name, part in _parts(one).items()
    )


def _parts(worker):
    """A fold's state: its fields, its tables, its sequences."""
    tables = {name: list(getattr(worker.state, name).items()) for name in worker._tables}
    return worker._fields() | {"": (tables, worker._incoming.sequences)}


def _source(message):
    return header(message.headers(), "ce_source", 2)


def _first_topic(message):
    return (header(message.headers(), ORIGIN, 7) or "").partition("/")[0]


def _name(message):
    headers = dict(message.headers())
    return message.topic(), message.partition(), headers["ce_source"], int(headers["ce_sequence"]), headers.get(ORIGIN)


class Erased:
    """The bus with the id that a topic had before it was made anew."""

    def __init__(self, bus, topic_id):
        self._bus, self._topic_id = bus, topic_id

    def __getattr__(self, name):
        return getattr(self._bus, name)

    def topic_id(self, topic):
        return self._topic_id


def _undisturbed(plant, logs):
    """The rows of labelled-examples of a run over the same `data-arrived` that nothing disturbs."""
    messages = []
    for topic_id, erased in [*plant.erased, (plant.bus.topic_id(ARRIVED), logs[ARRIVED].all)]:
        messages += _chained("validator-core", Erased(plant.bus, topic_id), erased)
    for name in ("predictor-core", "joiner-core"):
        if plant.partitions > 1:
            messages.sort(key=lambda message: message.timestamp()[1])
        messages = _chained(name, plant.bus, [_at(message, offset) for offset, message in enumerate(messages)])
    return [_row(message) for message in messages if message.topic() == LABELLED]


def _chained(name, bus, messages):
    """What a fold tells over these messages, partition after partition."""
    (fold,) = [fold for fold in FOLDS if fold.id == name]
    topic, told = full_name(fold.input, rain.NAME), []
    for partition in range(bus.partitions(topic)):
        worker, calm = _calm_worker(fold, bus, (topic, partition))
        for message in messages:
            if (message.topic(), message.partition()) == (topic, partition):
                worker.handle(message)
        told += calm
    return told


def _at(m, offset):
    return MemoryMessage(m.topic(), m.partition(), offset, m.key(), m.value(), m.headers(), m.timestamp())


def _row(message):
    """What a labelled example says of the world: id, features, label, when both were known. None for another event."""
    if type_of(message) != TYPE_OF[ExampleLabelled]:
        return None
    event = DECODERS[TYPE_OF[ExampleLabelled]](message.value())
    made = event.prediction
    return made.id, tuple(made.features.items()), event.label, event.predicted_at_ms, event.labelled_at_ms


def _first_difference(one, other):
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"row {number} is {b} instead of {a}"
    return f"{len(other)} rows instead of {len(one)}"
