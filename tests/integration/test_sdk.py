"""The client against the whole system on genuine Kafka: the services' real parts, ticked in one thread."""

import threading
import uuid
from datetime import UTC, datetime

import pytest
from river import linear_model, preprocessing

from headrace import Client, model_bytes
from headrace.errors import InvalidInput, Missing, NotReleased, Refused, Rejected, Unreachable
from headrace.infra.artifacts import ArtifactForeignKey, Artifacts
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.partitioner import partition_of
from headrace.infra.release import release_file
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.infra.subscription import Subscription
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import (
    MetricsUpdated,
    ModelUpdated,
    PipelineReleased,
    RetireAsked,
    SnapshotTaken,
    TrainingAsked,
)
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived, LabelArrived, PredictionMade
from headrace.schemas.topics import full_name

pytestmark = pytest.mark.kafka

KEY = "test"
SERVICES = ("validator", "predictor", "joiner", "trainer", "evaluator", "sequencer", "orchestrator", "registry")
SOURCE = '''
from headrace import Contract, Gates, Pipeline, Rollout, Triggers, feature
from river import linear_model, preprocessing

class Weather(Contract):
    """Two numbers."""
    temperature: float = feature(ge=-60, le=60)
    pressure: float | None = feature(alias="pressure (hPa)")

def recipe(seed):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()

pipeline = Pipeline(
    name="NAME", contract=Weather, label=bool, recipe=recipe, gates=Gates(first="off"),
    triggers=Triggers(first_model_at=20), rollout=Rollout(refresh_s=0.05),
)
'''


class Plant:
    """All services over one broker, in a thread of this process."""

    def __init__(self, address, home):
        self.settings = Settings(
            bootstrap_servers=address,
            namespace=f"sdk{uuid.uuid4().hex[:6]}-",
            home=home,
            instance="t",
            artifact_key=KEY,
        )
        self.bus = KafkaBus(address, session_timeout_s=6)
        self.home, self.failure, self._stop = home, None, threading.Event()
        from headrace.infra import create_topics

        create_topics.create(self.bus, self.settings.namespace)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        from importlib import import_module

        artifacts = Artifacts(self.settings.artifact_url, KEY.encode())
        wiring = Wiring(
            self.settings, self.bus, artifacts, KEY.encode(), lambda fold, place: None,
            timing={"commit_s": 0.1, "follow_s": 0.05}, inline_jobs=True,
        )  # fmt: skip
        parts = []
        try:
            parts = [p for s in SERVICES for p in import_module(f"headrace.services.{s}.__main__").build(wiring)]
            while not self._stop.is_set():
                if not sum(part.tick(0.0) for part in parts):
                    self._stop.wait(0.002)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            for part in parts:
                part.close()

    def release(self, name, partitions=1):
        path = self.home / f"{name}.py"
        path.write_text(SOURCE.replace("NAME", name))
        return release_file(path, self.settings, self.bus, "ann", partitions)

    def client(self, **options):
        return Client(settings=self.settings, timeout_s=20, **options)

    def stop(self):
        self._stop.set()
        self._thread.join(30)
        self.bus.close()


@pytest.fixture(scope="module")
def plant(kafka, tmp_path_factory):
    plant = Plant(kafka, tmp_path_factory.mktemp("plant"))
    yield plant
    plant.stop()
    assert plant.failure is None


@pytest.fixture(scope="module")
def rain(plant):
    """A released pipeline with one partition; tests share it and use ids of their own."""
    return plant.release("rain").pipeline


@pytest.fixture
def client(plant):
    with plant.client() as client:
        yield client


def until_seen(records, wanted, count=1):
    """The first records that fulfil a condition, in order."""
    found = []
    for record in records:
        if wanted(record):
            found.append(record)
            if len(found) == count:
                return found
    return found


def test_a_name_that_was_never_released_is_refused_with_the_command_that_helps(client, rain):
    with pytest.raises(NotReleased, match="no pipeline 'snow' is released; released are") as error:
        client.publish("snow", {"temperature": 1.0})
    assert error.value.next == "headrace release pipelines/snow.py"


def test_a_name_that_was_retired_is_refused_with_a_command_that_helps(plant, client):
    plant.release("gone")
    client.request(RetireAsked(pipeline="gone", request=uuid.uuid4().hex, by="ann"), timeout_s=20)
    with pytest.raises(NotReleased, match="'gone' was retired, and a retired name is never used again") as error:
        client.publish("gone", {"temperature": 1.0})
    assert error.value.next == "headrace release pipelines/NEW_NAME.py"


def test_what_is_published_is_canonical_and_passes_the_validator_unchanged(client, rain):
    validated = client.subscribe("data-validated", rain)
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    published = client.publish(rain, {"temperature": 3.5, "pressure": None}, time=moment)
    client.publish_label(rain, id=published, label=True, time=moment)
    example, label = until_seen(validated, lambda r: getattr(r.event, "id", "") == published, 2)
    assert example.event == ExampleArrived(id=published, time=moment, features={"temperature": 3.5})
    assert label.event == LabelArrived(id=published, time=moment, label=True)
    assert example.key == label.key == published.encode()
    arrived = {r.body for r in client.subscribe("data-arrived", rain, start="earliest", follow=False)}
    assert {example.body, label.body} <= arrived


def test_numpy_values_and_aliases_are_taken(client, rain):
    np = pytest.importorskip("numpy")
    made = client.predict(rain, {"temperature": np.float32(1.5), "pressure (hPa)": np.int64(1002)}, timeout_s=20)
    assert made.features == {"temperature": 1.5, "pressure": 1002}


def test_many_rows_go_in_order_and_progress_ends_at_all_of_them(client, rain):
    predictions = client.subscribe("predictions", rain, types=[PredictionMade])
    rows = [{"id": f"many-{n}", "features": {"temperature": n / 100}} for n in range(1_000)]
    told = []
    assert client.publish_many(rain, rows, progress=told.append) == 1_000
    assert told == sorted(told)
    assert told[-1] == 1_000
    made = until_seen(predictions, lambda r: r.event.id.startswith("many-"), 1_000)
    assert [r.event.id for r in made] == [row["id"] for row in rows]


def test_publishing_a_row_again_makes_no_second_prediction(client, rain):
    predictions = client.subscribe("predictions", rain, types=[PredictionMade])
    for row_id in ("twice", "twice", "after"):
        client.publish(rain, {"temperature": 1.0}, id=row_id)
    ids = []
    until_seen(predictions, lambda r: ids.append(r.event.id) or r.event.id == "after")
    assert ids.count("twice") == 1


def test_predict_returns_the_prediction_of_its_own_row(client, rain):
    first = client.predict(rain, {"temperature": 5.0}, id="mine", timeout_s=20)
    second = client.predict(rain, {"temperature": 6.0}, timeout_s=20)
    assert (first.id, first.features) == ("mine", {"temperature": 5.0})
    assert second.features == {"temperature": 6.0}


def test_predict_says_why_a_row_is_rejected(client, rain):
    with pytest.raises(Rejected, match="temperature is 99"):
        client.predict(rain, {"temperature": 99.0}, timeout_s=20)


def test_predict_says_why_a_row_is_rejected_whose_id_was_not_read(client, rain):
    with pytest.raises(Rejected, match="id has 1,000 characters"):
        client.predict(rain, {"temperature": 1.0}, id="x" * 1_000, timeout_s=20)


def test_predict_says_that_the_pipeline_was_retired_meanwhile(plant, client):
    plant.release("going")
    client.predict("going", {"temperature": 1.0}, timeout_s=20)
    client.request(RetireAsked(pipeline="going", request=uuid.uuid4().hex, by="ann"), timeout_s=20)
    with pytest.raises(Rejected, match="the pipeline is retired"):
        client.predict("going", {"temperature": 2.0}, timeout_s=20)


def test_predict_takes_no_rejected_label_for_its_row(client, rain, monkeypatch):
    skip = Subscription.skip_to_end

    def and_a_bad_label_comes(subscription):
        skip(subscription)
        client.publish_label(rain, id="both", label="wet")

    monkeypatch.setattr(Subscription, "skip_to_end", and_a_bad_label_comes)
    assert client.predict(rain, {"temperature": 5.0}, id="both", timeout_s=20).id == "both"


def test_a_subscription_drops_repeats_and_picks_pipeline_and_type(plant, client, rain):
    scores = MetricsUpdated(
        pipeline=rain, alias="champion", version=1, run="a", scope="windowed", n=1, coverage=None, metrics={}
    )
    producer = plant.bus.producer("test")
    topic = full_name("metrics", namespace=plant.settings.namespace)
    fresh = client.subscribe("metrics", rain, types=[MetricsUpdated])
    for sequence, pipeline, n in ((1, rain, 1), (2, "other", 2), (1, rain, 1), (3, rain, 3), (2, "other", 2)):
        event = scores.model_copy(update={"pipeline": pipeline, "n": n})
        headers = headers_of(TYPE_OF[MetricsUpdated], "/test/repeats", sequence)
        producer.produce(topic, 0, b"", encode(event), headers, 1_000)
    producer.flush()
    found = until_seen(fresh, lambda r: r.source == "/test/repeats", 2)
    assert [record.event.n for record in found] == [1, 3]
    assert isinstance(found[0], Record)
    assert found[0].known_ms == 1_000
    again = client.subscribe("metrics", start="earliest", follow=False)
    assert [r.event.n for r in again if r.source == "/test/repeats"] == [1, 2, 3]


def test_a_topic_that_does_not_exist_is_named(client, rain):
    with pytest.raises(InvalidInput, match="no topic is named 'prediction'"):
        client.subscribe("prediction", rain)
    with pytest.raises(InvalidInput, match="say which"):
        client.subscribe("predictions")
    with pytest.raises(Missing, match=r"snow\.predictions does not exist"):
        client.subscribe("predictions", "snow")


def test_a_request_that_is_refused_says_why(client, rain):
    with pytest.raises(Refused, match="seed"):
        client.request(TrainingAsked(pipeline=rain, request=uuid.uuid4().hex, by="ann", seed=0), timeout_s=20)


def test_keys_go_to_the_partition_that_every_producer_chooses(plant, client):
    plant.release("wide", partitions=3)
    rows = [{"id": f"key-{n}", "features": {"temperature": 1.0}} for n in range(1_000)]
    client.publish_many("wide", rows)
    arrived = client.subscribe("data-arrived", "wide", start="earliest", types=[ExampleArrived], follow=False)
    places = {record.event.id: record.partition for record in arrived}
    assert places == {row["id"]: partition_of(row["id"].encode(), 3) for row in rows}
    assert set(places.values()) == {0, 1, 2}


def test_the_served_model_is_the_newest_revision_itself(plant, client, until):
    plant.release("served")
    rows = [{"id": f"r{n}", "features": {"temperature": float(n % 40 - 20)}} for n in range(60)]
    client.publish_many("served", rows)
    client.publish_many("served", [{"id": row["id"], "label": n % 40 > 20} for n, row in enumerate(rows)])
    with pytest.raises(Missing, match="has no previous"):
        client.model("served@previous")

    def is_caught_up():
        taken = client.subscribe("snapshots", "served", start="earliest", types=[SnapshotTaken], follow=False)
        runs = [run for record in taken for run in record.event.runs.values()]
        updated = list(
            client.subscribe("model-updates", "served", start="earliest", types=[ModelUpdated], follow=False)
        )
        return runs[-1] if updated and runs and runs[-1].n_learned == len(rows) else None

    until(is_caught_up, 60, "the model that learned every label")
    plain = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for n, row in enumerate(rows):
        plain.learn_one(row["features"], n % 40 > 20)
    for name in ("served@champion", "served"):
        assert model_bytes.digest(client.model(name)) == model_bytes.digest(plain)
    (first,) = client.subscribe("model-updates", "served", start="earliest", types=[ModelUpdated], follow=False)
    own = Artifacts(plant.settings.artifact_url, plant.settings.key()).get(first.event.uri)[0]
    assert model_bytes.digest(client.model("served@1")) == model_bytes.digest(model_bytes.loads(own))

    other = Settings(**plant.settings.model_dump() | {"artifact_key": "another"})
    with Client(settings=other) as stranger, pytest.raises(ArtifactForeignKey, match="signed with key"):
        stranger.model("served@champion")


def test_pipelines_are_those_in_force(client, rain):
    assert isinstance(client.pipelines()[rain], PipelineReleased)


def test_a_broker_that_is_not_there_is_said_at_once():
    with pytest.raises(Unreachable, match=r"no broker answers at 127\.0\.0\.1:1"):
        Client("127.0.0.1:1")
