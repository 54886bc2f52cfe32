"""Commands on genuine Kafka that need no service: publishing files, topics, a broker that goes."""

import json
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.infra import create_topics, local_broker, pipeline_files
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.sdk import Client
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import PipelineReleased
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.schemas.topics import full_name

pytestmark = pytest.mark.kafka

SOURCE = '''
from headrace import Contract, Pipeline
from river import linear_model

class Row(Contract):
    """One number."""
    x: float

pipeline = Pipeline(name="rain", contract=Row, label=bool, recipe=lambda seed: linear_model.LogisticRegression())
'''


def release(address, namespace):
    """What the registry would write for a release: the definition, and its marker in band."""
    path = Path("pipelines/rain.py")
    path.parent.mkdir()
    path.write_text(SOURCE)
    pipeline = pipeline_files.load_file(path)
    definition = pipeline_files.definition(pipeline, path.read_bytes(), "source/x")
    bus = KafkaBus(address)
    create_topics.create(bus, namespace)
    create_topics.create_pipeline(bus, "rain", 1, pipeline.policies(), namespace)
    event = PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=1, request="q", by="ann")
    producer = bus.producer("test")
    for topic in ("pipelines", "<p>.data-arrived"):
        headers = headers_of(TYPE_OF[PipelineReleased], "/registry/-/1234/0", 1)
        producer.produce(full_name(topic, "rain", namespace), 0, b"rain", encode(event), headers, 0)
    producer.flush()
    bus.close()


@pytest.fixture
def here(tmp_path, monkeypatch, namespace):
    """An empty folder with settings for a namespace of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_NAMESPACE", namespace)
    monkeypatch.setenv("HEADRACE_ARTIFACT_KEY", "test")
    return namespace


@pytest.fixture
def rain(here, kafka, monkeypatch):
    """A released pipeline and a file of 1,000 rows in the current folder."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    release(kafka, here)
    Path("rows.csv").write_text("x,rain\n" + "".join(f"{n},{n % 2}\n" for n in range(1_000)))
    return "rain"


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def arrived():
    """The ids of the examples and of the labels in the log, in order."""
    with Client() as client:
        events = [r.event for r in client.subscribe("data-arrived", "rain", start="earliest", follow=False)]
    return tuple([event.id for event in events if isinstance(event, kind)] for kind in (ExampleArrived, LabelArrived))


def test_a_file_is_published_whole_in_order_with_its_labels(rain):
    result = run("publish", rain, "rows.csv", "--json")
    assert result.exit_code == 0, result.output
    done = json.loads(result.stdout)
    assert (done["rows"], done["labels"], done["skipped_records"]) == (1_000, 1_000, 0)
    examples, labels = arrived()
    assert len(set(examples)) == 1_000
    assert examples == labels
    assert examples[0].startswith("rows-1-")
    assert not list(Path(".headrace/publish").glob("*"))


def test_a_time_that_is_none_ends_at_its_row_and_skip_bad_goes_on_and_lists_it(rain):
    rows = [f"{n},2020-01-01T00:{n // 60 % 60:02}:{n % 60:02},{n % 2}" for n in range(1_000)]
    rows[699] = "699,soon,1"
    Path("timed.csv").write_text("\n".join(["x,time,rain", *rows]) + "\n")
    for _ in range(2):
        stopped = run("publish", rain, "timed.csv", "--json")
        told = json.loads(stopped.stderr.splitlines()[-1])
        assert (stopped.exit_code, told["status"]) == (2, 2)
        assert told["error"] == "timed.csv, row 700, 'time': 'soon' is no time (ISO 8601, or seconds since 1970)"
        assert told["next"].startswith("add --skip-bad, which goes on from there")
    done = run("publish", rain, "timed.csv", "--skip-bad")
    assert done.exit_code == 0, done.output
    assert f"1 row was left out:\n  {told['error']}\n" in done.stdout
    examples, labels = arrived()
    assert len(set(examples)) == len(set(labels)) == 999
    again = json.loads(run("publish", rain, "timed.csv", "--skip-bad", "--json").stdout)
    assert (again["rows"], again["labels"], again["bad_rows"], again["bad"]) == (999, 999, 1, [told["error"]])


def test_publishing_a_file_is_a_run_from_the_file_to_the_topic(rain, valid_lineage):
    assert run("publish", rain, "rows.csv", "--label", "rain").exit_code == 0
    start, end = map(valid_lineage, lineage())
    assert [one["eventType"] for one in (start, end)] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == end["run"]["runId"]
    assert end["job"]["name"] == "rain.publish"
    assert [(one["namespace"], one["name"]) for one in end["inputs"]] == [("file", str(Path("rows.csv").resolve()))]
    assert end["outputs"] == [{"namespace": "kafka", "name": "rain.data-arrived"}]
    told = end["run"]["facets"]["headrace"]
    assert (told["rows"], told["labels"], told["skipped_records"]) == (1_000, 1_000, 0)


def test_history_is_published_as_such_and_its_note_is_of_history(rain):
    assert run("publish", rain, "rows.csv", "--history").exit_code == 0
    assert run("publish", rain, "x=3", "--history", "--id", "alone").exit_code == 0
    assert run("publish", rain, "x=4", "--id", "now").exit_code == 0
    with Client() as client:
        events = [r.event for r in client.subscribe("data-arrived", "rain", start="earliest", follow=False)]
    told = {event.id: event.history for event in events if isinstance(event, ExampleArrived)}
    assert [name for name, history in told.items() if not history] == ["now"]
    assert len(told) == 1_002


def test_a_file_published_again_repeats_its_ids(rain):
    assert [run("publish", rain, "rows.csv").exit_code for _ in range(2)] == [0, 0]
    examples, _ = arrived()
    assert examples[:1_000] == examples[1_000:]


def test_a_file_that_was_interrupted_goes_on_where_it_stopped(rain):
    good = Path("rows.csv").read_text()
    lines = good.splitlines(keepends=True)
    lines[701] = "oops\n"
    Path("rows.csv").write_text("".join(lines))
    stat = Path("rows.csv").stat()
    first = run("publish", rain, "rows.csv", "--label", "rain")
    assert first.exit_code == 2
    assert "line 702: not 2 columns" in first.stderr
    assert "the same command goes on from there" in first.stderr
    before = len(arrived()[0])
    (note,) = Path(".headrace/publish").glob("rain-rows-*.json")
    acknowledged = json.loads(note.read_text())["acknowledged"]
    assert 0 < acknowledged <= 2 * before <= 1_400
    Path("rows.csv").write_text(good)  # mended; made to look untouched, as after a broker that was away
    os.utime("rows.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    note.write_text(note.read_text().replace(f'"size": {stat.st_size}', f'"size": {Path("rows.csv").stat().st_size}'))
    second = run("publish", rain, "rows.csv", "--label", "rain", "--json")
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["skipped_records"] == acknowledged
    examples, labels = arrived()
    assert len(set(examples)) == len(set(labels)) == 1_000
    assert len(examples) == before + json.loads(second.stdout)["rows"] < 2_000


def test_another_file_in_its_place_begins_at_its_start(rain):
    note = Path(".headrace/publish")
    run("publish", rain, "rows.csv")
    note.mkdir(parents=True, exist_ok=True)
    result = run("publish", rain, "rows.csv", "--json")
    assert json.loads(result.stdout)["skipped_records"] == 0


def test_a_rate_is_kept(rain):
    Path("few.csv").write_text("x,rain\n" + "1,0\n" * 50)
    done = json.loads(run("publish", rain, "few.csv", "--rate", "100", "--json").stdout)
    assert 40 < done["rows_per_s"] <= 105


def test_one_row_and_its_label_are_published_by_hand(rain):
    assert run("publish", rain, "x=1.5", "--id", "a").exit_code == 0
    assert run("publish", rain, "--id", "a", "--label", "yes").exit_code == 0
    with Client() as client:
        events = [r.event for r in client.subscribe("data-arrived", rain, start="earliest", follow=False)]
    assert events[1].features == {"x": 1.5}
    assert (events[2].id, events[2].label) == ("a", True)


def test_a_column_that_does_not_exist_is_named_with_the_nearest(rain):
    result = run("publish", rain, "xx=1")
    assert result.exit_code == 2
    assert "no column 'xx'; did you mean x?" in result.stderr


def test_a_training_from_beyond_the_labels_that_there_are_is_refused_at_once(rain):
    result = run("train", rain, "--start", "5000")
    assert result.exit_code == 2
    assert "--start 5,000 is beyond the end of rain.labelled-examples, which is 0" in result.stderr
    result = run("train", rain, "--last", "10")
    assert (result.exit_code, "there are 0 labelled examples of rain, not 10" in result.stderr) == (2, True)
    result = run("train", rain, "--from", "1")
    assert (result.exit_code, "rain has no version 1" in result.stderr) == (1, True)


def test_before_anything_was_decided_there_is_no_history_and_no_alert(rain):
    assert "No version yet" in run("models", rain, "--history").stdout
    assert "No alert" in run("alerts", rain).stdout


def test_a_file_without_a_label_column_says_which_columns_it_might_be(rain):
    Path("days.csv").write_text("day,x,rain\n1,0.5,1\n")
    assert "The contract does not know day, rain." in run("publish", rain, "days.csv").stderr


@pytest.mark.parametrize("command", ["models", "runs", "triggers", "decisions", "alerts", "watch"])
def test_a_pipeline_that_was_never_released_is_named_beside_those_that_were(rain, command):
    result = run(command, "snow")
    assert result.exit_code == 1
    assert "no pipeline 'snow' is released; released are rain" in result.stderr


def test_rights_cannot_be_given_on_a_broker_without_an_authorizer(rain):
    result = run("acls", "--apply")
    assert result.exit_code == 1
    assert "has no authorizer: everyone may do everything" in result.stderr


def test_topics_are_checked_against_what_they_must_be(rain, kafka, here):
    assert run("topics", "--check").exit_code == 0
    bus = KafkaBus(kafka)
    from headrace.infra.bus import TopicSpec

    wrong = f"{here}snow.predictions"
    bus.create_topics([TopicSpec(wrong, 1, {"message.timestamp.type": "LogAppendTime"})])
    problems = create_topics.check_pipeline(bus, "snow", 1, None, here)
    bus.close()
    assert any(p.topic == wrong and p.setting == "message.timestamp.type" for p in problems)


def test_a_release_that_nobody_answers_says_so(rain, valid_lineage):
    result = run("release", "pipelines/rain.py", "--timeout", "1")
    assert result.exit_code == 1
    assert "nobody answered ReleaseAsked for rain within 1 s: are the services up?" in result.stderr
    assert "next: headrace status" in result.stderr
    start, end = map(valid_lineage, lineage())
    assert [one["eventType"] for one in (start, end)] == ["START", "FAIL"]
    assert start["job"]["name"] == end["job"]["name"] == "rain.release"
    assert "nobody answered" in end["run"]["facets"]["errorMessage"]["message"]


def test_a_release_without_a_key_says_how_to_get_one(rain, monkeypatch):
    monkeypatch.delenv("HEADRACE_ARTIFACT_KEY")
    result = run("release", "pipelines/rain.py")
    assert result.exit_code == 2
    assert "HEADRACE_ARTIFACT_KEY is not set" in result.stderr


def lineage():
    """The run events in the log, in order."""
    with Client() as client:
        records = client.subscribe("lineage", start="earliest", follow=False)
        return [record.event.run_event for record in records]


@pytest.mark.slow
def test_a_broker_that_goes_half_way_is_one_message_and_the_file_goes_on_later(
    here, tmp_path_factory, monkeypatch, until
):
    home = tmp_path_factory.mktemp("going")
    broker = local_broker.start(home, port=local_broker.free_port(), say=lambda text: None)
    try:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        release(broker.address, here)
        Path("rows.csv").write_text("x,rain\n" + "".join(f"{n},{n % 2}\n" for n in range(4_000)))
        results = []
        command = ("publish", "rain", "rows.csv", "--rate", "400", "--timeout", "3")
        publisher = threading.Thread(target=lambda: results.append(run(*command)))
        publisher.start()
        until(lambda: list(Path(".headrace/publish").glob("rain-*.json")), says="acknowledged rows")
        local_broker.stop_local_broker(home)
        publisher.join(60)
        (result,) = results
        assert result.exit_code == 1
        assert "did not take a record" in result.stderr
        assert "the same command goes on from there" in result.stderr
        assert "Traceback" not in result.output
        local_broker.start(home, say=lambda text: None)
        again = run("publish", "rain", "rows.csv", "--json")
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["skipped_records"] > 0
        assert len(set(arrived()[0])) == len(set(arrived()[1])) == 4_000
    finally:
        local_broker.stop_local_broker(home)


def test_a_release_onto_topics_that_are_not_right_names_the_first_and_what_mends_it(rain, kafka, here):
    result = run("release", "pipelines/rain.py", "--partitions", "3")
    assert result.exit_code == 3
    wrong = f"{here}rain.data-arrived: the partition count is 1, must be 3 (and 4 more settings of its topics)"
    assert wrong in " ".join(result.stderr.split())
    assert "next: the count of a topic with records never changes: use a new pipeline name" in result.stderr
