"""P14 on genuine Kafka: two schedulers and two orchestrators, whoever leads stands still and comes back: one run."""

import os
import signal
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import rain

from headrace.infra import processes
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import ModelUpdated, RequestRefused, RunStarted, TrainingAsked, TrainingRequested
from headrace.schemas.stream import ExampleArrived, LabelArrived, Tick

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER = ("scheduler", "orchestrator")
SOURCE = rain.of_one_number(
    'gates=Gates(first="off"), triggers=Triggers(first_model_at=100, window_labels=20, schedule="* * * * *"),'
)


def events(stack, *kinds, topic="control-log"):
    return [r.event for r in stack.records(topic) if isinstance(r.event, kinds)]


def publish(stack, numbers):
    for number in numbers:
        at, x = NOON + timedelta(seconds=number), number * 7 % 101 / 10
        stack.publish("rain", ExampleArrived(id=str(number), time=at, features={"x": x}))
        stack.publish("rain", LabelArrived(id=str(number), time=at, label=x > 5))
    stack.flush()


def ask(stack, request, start):
    producer = stack.bus.producer("test-operator")
    headers = headers_of(TYPE_OF[TrainingAsked], "/test", 0)
    asked = TrainingAsked(pipeline="rain", request=request, by="ann", start=start, seed=start)
    producer.produce(stack.topic("operator-requests"), 0, b"rain", encode(asked), headers, 0)
    producer.flush()


def leader(homes):
    """Whose scheduler says that it leads, if one alone does."""
    found = []
    for home in homes:
        found += [home] if '"leads": 1' in health(home, "scheduler") else []
    return found[0] if len(found) == 1 else None


def health(home, service):
    try:
        with urllib.request.urlopen(str(processes.states(home)[service]["health"]), timeout=2) as answer:
            return answer.read().decode()
    except (OSError, KeyError):
        return ""


def holder(homes):
    """Whose orchestrator says that it folds `control-log`, if one alone does."""
    found = [home for home in homes if "control-log" in health(home, "orchestrator")]
    return found[0] if len(found) == 1 else None


@contextmanager
def frozen(home, service):
    pid = int(processes.states(home)[service]["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def second(monkeypatch, tmp_path_factory):
    """Start a scheduler and an orchestrator more, as another instance with a folder of its own."""
    home = tmp_path_factory.mktemp("second")

    def start():
        monkeypatch.setenv("HEADRACE_HOME", str(home))
        monkeypatch.setenv("HEADRACE_INSTANCE", "two")
        processes.up(home, OTHER)
        assert processes.wait_ready(home, OTHER, 60) == []
        return home

    yield start
    processes.down(home)


@pytest.mark.kafka
@pytest.mark.slow
def test_whoever_leads_stands_still_and_comes_back_and_each_training_happens_once(stack, second, until):
    stack.release(SOURCE, "rain")
    publish(stack, range(120))
    until(lambda: events(stack, ModelUpdated), limit_s=60, says="the first model")
    homes = {"e2e": stack.home, "two": second()}

    first = until(lambda: leader(homes.values()), limit_s=60, says="a scheduler that leads")
    (other,) = [home for home in homes.values() if home != first]
    with frozen(first, "scheduler"):
        until(lambda: leader([other]), limit_s=60, says="the other scheduler's lead")
        until(lambda: by_schedule(stack), limit_s=90, says="a training by schedule while the first one stands")
    until(lambda: leader(homes.values()), limit_s=60, says="one leader after the first came back")

    first = until(lambda: holder(homes.values()), limit_s=60, says="an orchestrator that has control-log")
    (other,) = [home for home in homes.values() if home != first]
    with frozen(first, "orchestrator"):
        until(lambda: holder([other]), limit_s=60, says="the other orchestrator has control-log")
        ask(stack, "while-it-stands", 40)
        until(lambda: "while-it-stands" in asked_for(stack), limit_s=60, says="a training by the other one")
        publish(stack, range(120, 240))
    ask(stack, "after-it-came-back", 60)
    until(lambda: "after-it-came-back" in asked_for(stack), limit_s=60, says="a training after it came back")
    until(lambda: is_settled(stack), limit_s=60, says="a run for each training")

    minutes = [event.due for event in events(stack, Tick) if not event.pipeline]
    assert minutes == sorted(set(minutes)), "a due time stands twice in control-log"
    requests = asked_for(stack)
    assert len(set(requests)) == len(requests), "a training was asked for twice"
    runs = [event.request for event in events(stack, RunStarted)]
    assert sorted(runs) == sorted(set(requests)), "not one run for each training"
    scheduled = by_schedule(stack)
    refused = [e.request for e in events(stack, RequestRefused) if e.request.startswith("schedule-")]
    due = {f"schedule-{minute:%Y-%m-%dT%H:%M}" for minute in minutes}
    assert set(scheduled) | set(refused) <= due
    assert len(set(refused)) == len(refused)
    told = {name: stack.raw_count(name) - len(stack.records(name)) for name in ("training-requests", "decisions")}
    print(
        f"\n{len(minutes)} due times, {len(requests)} trainings of which {len(scheduled)} by schedule, repeats: {told}"
    )


def asked_for(stack):
    return [event.request for event in events(stack, TrainingRequested)]


def by_schedule(stack):
    return [request for request in asked_for(stack) if request.startswith("schedule-")]


def is_settled(stack):
    """Every training asked for has its run."""
    return len(events(stack, RunStarted)) == len(asked_for(stack))
