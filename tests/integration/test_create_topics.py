"""Topics are made as the table says, on both sides of the bus, and what is wrong with them is said with its cure."""

import time

import pytest

from headrace.errors import TopicsWrong
from headrace.infra import create_topics
from headrace.infra.bus import TopicSpec
from headrace.schemas.policies import Labels, Policies, Retention
from headrace.schemas.topics import DAY_S, TOPICS, control_topics, full_name, pipeline_topics

POLICIES = Policies(labels=Labels(ttl_s=3 * DAY_S, grace_s=DAY_S), retention=Retention(data_s=10 * DAY_S))


def test_what_is_created_is_right_and_creating_again_changes_nothing(bus, namespace):
    for _ in range(2):
        create_topics.create(bus, namespace)
        create_topics.create_pipeline(bus, "rain", 2, POLICIES, namespace)
        assert create_topics.check(bus, namespace) == []
        assert create_topics.check_pipeline(bus, "rain", 2, POLICIES, namespace) == []
    for topic in pipeline_topics():
        wanted = 2 if topic.partitions == "pipeline" else 1
        assert bus.partitions(full_name(topic.name, "rain", namespace)) == wanted, topic.name
    dead = [name for name in bus.topics() if name.startswith(namespace) and name.endswith("-dlq")]
    assert f"{namespace}rain.data-arrived-dlq" in dead
    assert f"{namespace}control-log-dlq" in dead


def test_users_topics_stamp_their_append_all_others_keep_the_time_of_the_cause(bus, namespace, until):
    create_topics.create(bus, namespace)
    create_topics.create_pipeline(bus, "rain", 1, POLICIES, namespace)
    stamping = {
        name
        for name, topic in TOPICS.items()
        if bus.topic_config(full_name(name, "rain" if topic.per_pipeline else "", namespace))["message.timestamp.type"]
        == "LogAppendTime"
    }
    assert stamping == {"<p>.data-arrived", "operator-requests"}
    future, past = int(time.time() * 1000) + 10 * DAY_S * 1000, 1_000
    producer, reader, topic = bus.producer("test"), bus.reader(), f"{namespace}rain.predictions"
    for stamp in (future, past):
        producer.produce(topic, 0, b"k", b"v", [], stamp)
    producer.flush()
    reader.assign({(topic, 0): 0})
    got = []
    until(lambda: got.extend(reader.poll(10, 0.1)) or len(got) == 2)
    assert [message.timestamp() for message in got] == [(1, future), (1, past)]
    reader.close()


def test_a_derived_topic_outlives_its_input_an_outage_and_the_label_ttl(bus, namespace):
    create_topics.create_pipeline(bus, "rain", 1, POLICIES, namespace)

    def days(topic):
        return int(bus.topic_config(f"{namespace}rain.{topic}")["retention.ms"]) / DAY_S / 1000

    assert days("data-arrived") == 10
    assert days("data-validated") == days("predictions") == days("data-rejected") == 10 + 2 + 3 + 1
    assert bus.topic_config(f"{namespace}rain.labelled-examples")["retention.ms"] == "-1"
    assert bus.topic_config(f"{namespace}rain.snapshots")["retention.bytes"] == str(64 << 20)
    create_topics.create(bus, namespace)
    assert bus.topic_config(f"{namespace}control-log")["retention.ms"] == "-1"


@pytest.mark.parametrize(
    ("setting", "found", "wanted"),
    [
        ("message.timestamp.type", "LogAppendTime", "CreateTime"),
        ("cleanup.policy", "compact", "delete"),
        ("retention.ms", "60000", f"at least {16 * DAY_S * 1000}"),
        ("retention.bytes", "1000000", "-1 (for ever)"),
        ("max.message.bytes", "2000", "at least 1000000"),
    ],
)
def test_a_topic_with_a_wrong_setting_is_named_with_what_is_what_should_be_and_the_cure(
    bus, namespace, setting, found, wanted
):
    create_topics.create(bus, namespace)
    topic = f"{namespace}rain.predictions"
    bus.create_topics([TopicSpec(topic, 1, {"retention.ms": "-1"} | {setting: found})])
    with pytest.raises(TopicsWrong) as refused:
        create_topics.create_pipeline(bus, "rain", 1, POLICIES, namespace)
    [problem] = create_topics.check_pipeline(bus, "rain", 1, POLICIES, namespace)
    assert (problem.topic, problem.setting, problem.found, problem.wanted) == (topic, setting, found, wanted)
    assert f"kafka-configs.sh --bootstrap-server … --alter --topic {topic} --add-config {setting}=" in problem.next
    assert str(refused.value).startswith(f"{topic}: {setting} is {found}, must be {wanted}")
    assert refused.value.next == problem.next


def test_a_missing_topic_and_another_partition_count_are_named(bus, namespace):
    problems = create_topics.check(bus, namespace)
    assert {problem.topic for problem in problems} >= {namespace + topic.name for topic in control_topics()}
    assert {(problem.found, problem.next) for problem in problems} == {("missing", "headrace topics --create")}
    create_topics.create_pipeline(bus, "rain", 2, POLICIES, namespace)
    problems = create_topics.check_pipeline(bus, "rain", 3, POLICIES, namespace)
    assert {problem.setting for problem in problems} == {"the partition count"}
    assert (problems[0].topic, problems[0].found, problems[0].wanted) == (f"{namespace}rain.data-arrived", "2", "3")
    assert "use a new pipeline name" in problems[0].next
