"""What the log, the groups, the states and the store must tell of a stack on genuine Kafka, whatever was killed."""

import shutil
from collections import Counter
from contextlib import closing

import lmdb

from headrace.infra import processes
from headrace.infra.records import NUMBERED_BY_OFFSET
from headrace.infra.state_rows import OtherKey, RowDamaged, unpack_head
from headrace.infra.store import HEAD
from headrace.schemas.codec import TYPE_OF, header
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, PredictionMade
from headrace.schemas.topics import DLQ, TOPICS
from headrace.services import FOLDS
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store

# the first one wins: what is made again meets another model, or another time or memory
FIRST_WINS = {"<p>.predictions", "<p>.snapshots", "model-validations", "lineage", "store-snapshots"}
STATES = {fold.id: fold for fold in FOLDS if fold.id not in ("trainer-core", "scheduler-core")}  # those in LMDB


def messages(stack, place):
    """All messages of a place, the repeats too."""
    found, end = [], stack.bus.offsets(place)[1]
    with closing(stack.bus.reader()) as reader:
        reader.assign({place: 0})
        while end and (not found or found[-1].offset() < end - 1):
            found += reader.poll(10_000, 0.5)
    return found


def bodies_of_repeats(stack, pipeline):
    """By topic: how many repeats there are, and those with another body than the first of their source and sequence."""
    repeats, unlike = Counter(), []
    for name, topic in existing(stack, pipeline):
        for number in range(stack.bus.partitions(topic)):
            first = {}
            for message in messages(stack, (topic, number)):
                headers = message.headers()
                told = first.setdefault(tuple(header(headers, n, 9) for n in ("ce_source", "ce_sequence")), message)
                repeats[name] += told is not message
                if told.value() != message.value() and name not in FIRST_WINS:
                    unlike.append((name, told.offset(), message.offset(), told.value(), message.value()))
    return +repeats, unlike


def existing(stack, pipeline):
    """The topics that services write, numbered by themselves, with their full names."""
    there = stack.bus.topics()
    names = [name for name in TOPICS if name not in NUMBERED_BY_OFFSET and not name.endswith(DLQ)]
    full = [(name, stack.topic(name, pipeline if name.startswith("<p>.") else "")) for name in names]
    return [(name, topic) for name, topic in full if topic in there]


def committed(stack, fold, place):
    """The next offset of a fold's last commit, 0 where there is none, None where it cannot be read just now."""
    folder = stack.settings.state_dir / stack.settings.instance / STATES[fold].service / fold / f"{place[0]}-{place[1]}"
    if not (folder / "data.mdb").exists():
        return 0
    try:
        with lmdb.open(str(folder), readonly=True, max_dbs=1) as env, env.begin() as txn:
            stored = txn.get(HEAD, db=env.open_db(HEAD, txn, create=False))
        return 0 if stored is None else unpack_head(stack.settings.key(), stored).offset
    except (lmdb.Error, RowDamaged, OtherKey, ValueError):  # its owner opens it at this moment
        return None


def beyond_state(stack, groups):
    """The groups whose offset, looked at first, is beyond the state that is committed by now."""
    found = []
    for (fold, topic, partition), offset in groups.items():
        stands = committed(stack, fold, (topic, partition)) if fold in STATES else None
        if stands is not None and offset > stands:
            found.append((fold, topic, partition, offset, stands))
    return found


def out_of_order(stack, pipeline, numbers):
    """Keys whose examples do not follow each other as they were published; `numbers` is that order, by id."""
    found = []
    for name, kind, id_of in (
        ("<p>.data-validated", ExampleArrived, lambda event: event.id),
        ("<p>.predictions", PredictionMade, lambda event: event.id),
        ("<p>.labelled-examples", ExampleLabelled, lambda event: event.prediction.id),
    ):
        last = {}
        for record in stack.records(name, pipeline):
            if not isinstance(record.event, kind):
                continue
            number = numbers[id_of(record.event)]
            if number <= last.get(record.key, -1):
                found.append((name, record.key, number, last[record.key]))
            last[record.key] = number
        assert len(last) > 1, f"{name} has no keys of which each has an order: {TYPE_OF[kind]}"
    return found


def store_is_the_log(stack, folder):
    """Ends the stack. The store that was killed, gone on to the log's end, equals one made from the log anew."""
    processes.down(stack.home)
    killed = folder / "killed.duckdb"
    shutil.copy(stack.settings.store_path, killed)
    found, anew = everything(stack, killed), everything(stack, folder / "anew.duckdb")
    assert found.keys() == anew.keys()
    for name, rows in anew.items():
        missing, more = rows - found[name], found[name] - rows
        assert (+missing, +more) == (Counter(), Counter()), name
    return sum(rows.total() for rows in anew.values())


def everything(stack, path):
    """All rows of all tables, after all records of the log; of several topics they come in any order."""
    recorder = Recorder(stack.bus, Store(path), namespace=stack.namespace)
    try:
        while recorder.tick(2.0):
            pass
        recorder.commit()
        names = [name for name in recorder.store.tables if name not in ("positions", "meta")]
        with recorder.store.reading() as cursor:
            return {name: Counter(map(repr, cursor.sql(f'FROM "{name}"').fetchall())) for name in names}
    finally:
        recorder.close()
