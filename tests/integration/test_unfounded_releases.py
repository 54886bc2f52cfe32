"""A request to release onto topics that are not as it says is a dead letter with the reason, and stops no service."""

import pytest
from registered import definition

from headrace.infra import create_topics
from headrace.infra.system import System
from headrace.schemas.codec import decode
from headrace.schemas.control import PipelineReleased, ReleaseAsked
from headrace.schemas.policies import Policies
from headrace.services.sequencer import admission


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "PATIENCE_S", 0.0)
    made = System(tmp_path, services=("sequencer", "orchestrator", "registry", "validator", "predictor"), namespace="")
    yield made
    made.close()


def asked(request, **more):
    return ReleaseAsked(pipeline="rain", request=request, by="ann", definition=definition(), **more)


def dead_letters(system):
    messages = system.bus.read(("operator-requests-dlq", 0), 0, 100)
    return [decode("headrace.FaultFound.v1", message.value()).reason for message in messages]


@pytest.mark.parametrize(
    ("exists", "more", "says"),
    [
        (False, {"topic_id": "1f3a9c2e"}, "there is no topic rain.data-arrived"),
        (True, {"topic_id": "1f3a9c2e"}, "rain.data-arrived has another id than the request names"),
        (True, {"partitions": 3}, "rain.data-arrived has 1 partitions, not 3"),
    ],
)
def test_an_invented_topic_or_partition_is_a_dead_letter_and_the_next_request_is_heard(system, exists, more, says):
    if exists:
        create_topics.create_pipeline(system.bus, "rain", 1, Policies())
        more = {"topic_id": system.bus.topic_id("rain.data-arrived")} | more
    system.ask(asked("by-hand", **more))
    (reason,) = dead_letters(system)
    assert reason.startswith(says)
    assert "headrace release pipelines/rain.py makes them and asks" in reason
    assert system.records("control-log") == []
    create_topics.create_pipeline(system.bus, "rain", 1, Policies())
    system.ask(asked("q", topic_id=system.bus.topic_id("rain.data-arrived")))
    (released,) = [r.event for r in system.records("pipelines") if isinstance(r.event, PipelineReleased)]
    assert released.request == "q"


def test_a_topic_that_another_broker_has_not_heard_of_yet_is_waited_for(system, monkeypatch):
    create_topics.create_pipeline(system.bus, "rain", 1, Policies())
    monkeypatch.setattr(admission, "PATIENCE_S", 5.0)
    partitions, answers = system.bus.partitions, iter([None, None])
    monkeypatch.setattr(system.bus, "partitions", lambda topic: next(answers, partitions(topic)))
    system.ask(asked("q", topic_id=system.bus.topic_id("rain.data-arrived")))
    assert dead_letters(system) == []
    assert len(system.records("pipelines")) == 1


def test_what_the_registry_refuses_comes_to_it(system):
    system.ask(asked("q", topic_id="1").model_copy(update={"pipeline": "Rain!"}))
    assert dead_letters(system) == []
    assert [r.event.kind for r in system.records("decisions")] == ["ReleaseAsked"]
