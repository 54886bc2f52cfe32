"""Poison from every producer that users have, and garbage in every topic of services, on genuine Kafka."""

import itertools
import json
import random
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta

import garbage
import poison
import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from river import compose, linear_model, preprocessing

from headrace import Client, model_bytes
from headrace.errors import InvalidInput
from headrace.infra import kafka_jars, processes
from headrace.schemas.control import WindowValidated
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade
from headrace.services import FOLDS
from headrace.services.validator.compiled import MAX_BYTES

ROWS, DRAWN = 3_000, 60
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = poison.SOURCE.replace(b"REFRESH", b"0.2")
READ = sorted({fold.input for fold in FOLDS} - {"<p>.data-arrived"})
FATES = ("validated", "labels", "rejected", "duplicates")


def row(number):
    chance = random.Random(number)
    features = {"temperature": chance.uniform(-20, 30), "wind": chance.uniform(0, 60), "sky": "clear"}
    return f"d{number}", features, features["temperature"] + features["wind"] / 10 > 8


def river():
    return compose.Select("temperature", "wind") | preprocessing.StandardScaler() | linear_model.LogisticRegression()


class Producers:
    """Everything but the SDK that a user may write with; each takes a record of any kind."""

    def __init__(self, address, topic):
        self.topic, self.address = topic, address
        self._confluent = Producer({"bootstrap.servers": address, "message.max.bytes": 1_000_000})
        self._python = KafkaProducer(bootstrap_servers=address, max_request_size=1_000_000)
        self.lines = []

    def confluent(self, what):
        self._confluent.produce(self.topic, what.value, what.key, headers=list(what.headers))

    def python(self, what):
        headers = [(name, value or b"") for name, value in what.headers]
        self._python.send(self.topic, what.value, what.key, headers)

    def bare(self, what):
        """No header, no key."""
        self._python.send(self.topic, what.value or b"")

    def structured(self, what):
        """CloudEvents in structured mode: what came, as text, is the data of an envelope that says it is an example."""
        text = (what.value or b"").decode("utf-8", "replace")
        event = {"specversion": "1.0", "id": "1", "source": "/me", "type": "headrace.ExampleArrived.v1", "data": text}
        self._python.send(
            self.topic, json.dumps(event).encode(), None, [("content-type", b"application/cloudevents+json")]
        )

    def console(self, what):
        """kafka-console-producer; it takes lines."""
        self.lines.append((what.value or b"").replace(b"\n", b" ").replace(b"\r", b" "))

    def flush(self):
        self._confluent.flush()
        self._python.flush()
        if self.lines:
            tool = ["java", "-cp", f"{kafka_jars.cache() / 'jars'}/*", "org.apache.kafka.tools.ConsoleProducer"]
            more = ["--bootstrap-server", self.address, "--topic", self.topic]
            subprocess.run(
                [*tool, *more], input=b"\n".join(self.lines) + b"\n", check=True, timeout=180, capture_output=True
            )
        count, self.lines = len(self.lines), []
        return count


@pytest.mark.kafka
def test_poison_from_every_producer_changes_no_model_and_stops_no_service(stack, until):
    stack.release(SOURCE, "rain")
    users = Producers(stack.settings.bootstrap_servers, stack.topic("<p>.data-arrived", "rain"))
    bad = [*poison.NAMED, *poison.drawn(poison.strategy, DRAWN)]
    ways = itertools.cycle((users.confluent, users.python, users.bare, users.structured, users.console))
    rotten = iter(poison.drawn(garbage.unreadable, 3 * len(READ)))
    rubbish = [(topic, record) for topic, record in zip(READ * 3, rotten, strict=False)]
    refused_by_sdk(stack)
    places = Counter()
    for number in range(ROWS):
        if number == ROWS // 3:
            stack.flush()
            users.flush()
            until(lambda: '"champion"' in stack.health()["predictor"], limit_s=60, says="a model that serves")
        id, features, label = row(number)
        at = NOON + timedelta(seconds=number)
        stack.publish("rain", ExampleArrived(id=id, time=at, features=features))
        stack.publish("rain", LabelArrived(id=id, time=at, label=label))
        stack.poll()
        if number % (ROWS // len(bad)) == 0 and number // (ROWS // len(bad)) < len(bad):
            what = bad[number // (ROWS // len(bad))]
            copy = poison.Poison(
                "a copy", "", json.dumps({"id": id, "time": at.isoformat(), "features": features}).encode()
            )
            way = next(ways)
            way(what)
            if way in (users.confluent, users.python):
                stack.flush()  # the original first
                way(copy)
                places["copies"] += 1
        if number % (ROWS // len(rubbish)) == 0 and rubbish:
            topic, (key, value, headers) = rubbish.pop()
            users._confluent.produce(stack.topic(topic, "rain"), value, key, headers=headers)
            places[topic] += 1
    stack.flush()
    users.flush()

    def joined():
        return [r for r in stack.records("<p>.labelled-examples", "rain") if isinstance(r.event, ExampleLabelled)]

    until(lambda: stack.raw_count("<p>.labelled-examples", "rain") >= ROWS, limit_s=60, says="as many records joined")
    until(lambda: len(joined()) >= ROWS, limit_s=60, says="every row joined")
    records = joined()
    assert [(r.event.prediction.id, r.event.prediction.features, r.event.label) for r in records] == [
        row(number) for number in range(ROWS)
    ]
    models_are_rivers(stack, records, until)
    account_holds(stack, len(bad), places["copies"], until)
    sdk_reads_every_record(stack)
    for topic in READ:
        letters = until(lambda topic=topic: dead_letters(stack, topic, places[topic]), says=f"dead letters of {topic}")
        assert all(letter["reason"] and letter["topic"] == stack.topic(topic, "rain") for letter in letters)
    assert {name: state["restarts"] for name, state in processes.states(stack.home).items() if state["restarts"]} == {}


def refused_by_sdk(stack):
    """What the SDK can see to be wrong never becomes a record."""
    with Client() as client:
        end = stack.raw_count("<p>.data-arrived", "rain")
        for features, more in (
            ({"temperature": [1.0]}, {}),
            ({"temperature": float("inf")}, {}),
            ({"temperature": 1.0}, {"time": datetime(2026, 1, 1)}),
            ({"temperature": 1.0}, {"id": ""}),
        ):
            with pytest.raises(InvalidInput) as refusal:
                client.publish("rain", features, **more)
            assert str(refusal.value)
        with pytest.raises(InvalidInput):
            client.publish_label("rain", id="d1", label=None)
        assert stack.raw_count("<p>.data-arrived", "rain") <= end + 3  # ticks


def models_are_rivers(stack, records, until):
    """Every prediction that was served is what a model of River answers that learned the same rows and nothing else."""
    last = records[-1].offset + 1
    taken = until(
        lambda: next((r.event for r in stack.records("<p>.snapshots", "rain") if r.event.offset >= last), None),
        limit_s=60,
        says="a snapshot of the whole log",
    )
    made = [r.event for r in stack.records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
    assert [p.id for p in made] == [f"d{number}" for number in range(ROWS)]
    served = sorted((p for p in made if p.served), key=lambda p: p.predictions["champion"].learned_to)
    assert len(served) > ROWS / 10
    model, learned = river(), 0
    for prediction in served:
        arm = prediction.predictions["champion"]
        while learned < ROWS and records[learned].offset < arm.learned_to:
            learn(model, records[learned].event)
            learned += 1
        assert arm.value == model.predict_proba_one(prediction.features).get(True)
    for record in records[learned:]:
        learn(model, record.event)
    (snapshot,) = taken.runs.values()
    kept = model_bytes.loads(stack.artifacts.get(snapshot.uri)[0])
    assert (snapshot.n_learned, model_bytes.digest(kept)) == (ROWS, model_bytes.digest(model))


def learn(model, event):
    model.predict_proba_one(event.prediction.features)
    model.learn_one(event.prediction.features, event.label)


def account_holds(stack, bad, copies, until):
    """Accepted + rejected + duplicates + in-band are all records; every reject tells its place, bytes and reasons."""

    def windows():
        events = [r.event for r in stack.records("validation-results")]
        return [event for event in events if isinstance(event, WindowValidated)]

    wanted = Counter(validated=ROWS, labels=ROWS, rejected=bad, duplicates=copies)
    until(
        lambda: Counter({fate: sum(getattr(w, fate) for w in windows()) for fate in FATES}).total() >= wanted.total(),
        limit_s=30,
        says="the last window closed",
    )
    found = windows()
    assert Counter({fate: sum(getattr(window, fate) for window in found) for fate in FATES}) == wanted
    arrived = stack.bus.reader()
    topic = stack.topic("<p>.data-arrived", "rain")
    end = found[-1].end_offset
    arrived.assign({(topic, 0): 0})
    messages = []
    until(lambda: messages.extend(arrived.poll(500, 0.2)) or len(messages) >= end, says="all that arrived is read")
    arrived.close()
    rejects = [r.event for r in stack.records("<p>.data-rejected", "rain")]
    at_fault = {reject.offset for reject in rejects}
    system = (b"/registry", b"/scheduler")
    written_by = [dict(m.headers() or ()).get("ce_source") or b"" for m in messages[:end] if m.offset() not in at_fault]
    in_band = [name for name in written_by if name.startswith(system)]
    assert wanted.total() + len(in_band) == end
    for reject in rejects:
        assert (reject.topic, reject.partition, len(reject.problems) > 0) == ("rain.data-arrived", 0, True)
        assert reject.value == (messages[reject.offset].value() or b"")[:MAX_BYTES]
    counted = sum((Counter(window.reasons) for window in found), Counter())
    assert counted == Counter(code for reject in rejects for code in {problem.code for problem in reject.problems})


def sdk_reads_every_record(stack):
    """Who subscribes to what users write gets each record, decoded or not."""
    with Client() as client:
        found = list(client.subscribe("data-arrived", "rain", start="earliest", follow=False))
    assert [record.offset for record in found] == list(range(len(found)))
    decoded = [record.event for record in found if isinstance(record.event, ExampleArrived)]
    assert len(decoded) >= ROWS
    assert len(decoded) < len([record for record in found if not isinstance(record.event, LabelArrived)])


def dead_letters(stack, topic, count):
    """The dead letters of a topic once each of its places has one; every fold that reads it writes its own."""
    reader = stack.bus.reader()
    name = stack.topic(topic, "rain") + "-dlq"
    reader.assign({(name, 0): 0})
    end, messages = stack.bus.offsets((name, 0))[1], []
    while len(messages) < end:
        messages += reader.poll(500, 0.5)
    reader.close()
    letters = [json.loads(message.value()) for message in messages]
    return letters if len({letter["offset"] for letter in letters}) == count else None
