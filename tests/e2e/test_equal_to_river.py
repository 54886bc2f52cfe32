"""Over genuine Kafka, one record after the other: served answers, scores and models are those of River, exactly."""

import json
import urllib.request

import pytest
from progressive import CASES, check, newest_scores, played, source_of

from headrace import Client
from headrace.infra import processes
from headrace.infra.follow import Follower
from headrace.schemas.control import RetireAsked
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade

ROWS = 300
LIGHT = [("scaler | logistic regression", 0), ("scaler | linear regression", 50)]


@pytest.mark.kafka
@pytest.mark.parametrize(
    "cases", [pytest.param(LIGHT, id="two"), pytest.param(CASES, id="ten", marks=pytest.mark.slow)]
)
def test_three_hundred_served_answers_and_their_scores_are_rivers(cases, stack, until):
    pipelines = {f"rain-{number}": case for number, case in enumerate(cases)}
    for name, (recipe, _) in pipelines.items():
        stack.release(source_of(recipe, name), name)
    until(lambda: served(stack).keys() == pipelines.keys(), limit_s=60, says="a champion of each, before any label")

    follower = Follower(stack.bus, stack.namespace, [stack.topic("<p>.labelled-examples", name) for name in pipelines])
    turns = {name: up_to_a_label(played(recipe, delay, ROWS)) for name, (recipe, delay) in pipelines.items()}
    for events in zip(*turns.values(), strict=True):
        publish_and_wait(stack, until, follower, dict(zip(turns, events, strict=True)))
    follower.close()

    with Client(settings=stack.settings) as client:  # at its end a pipeline tells the scores that it has not told yet
        for name in pipelines:
            client.request(RetireAsked(pipeline=name, request=f"retire-{name}", by="test"), timeout_s=60)

    for name, (recipe, delay) in pipelines.items():
        predictions = stack.records("<p>.predictions", name)
        answered = sum(r.event.served is not None for r in predictions if isinstance(r.event, PredictionMade))
        told = until(
            lambda name=name, answered=answered: scores_over(stack, name, answered),
            limit_s=60,
            says=f"scores of {name}",
        )
        snapshots = stack.records("<p>.snapshots", name)
        check(recipe, delay, ROWS, stack.home / f"{name}.py", stack.artifacts, predictions, snapshots, told)


def up_to_a_label(events):
    """Records in pieces that end with a label: an example before it needs no waiting, as the log keeps their order."""
    piece = []
    for event in events:
        piece.append(event)
        if isinstance(event, LabelArrived):
            yield piece
            piece = []


def publish_and_wait(stack, until, follower, pieces):
    """Publish a piece for each pipeline; back when the label of each is learned, and that revision served."""
    for name, events in pieces.items():
        for event in events:
            stack.publish(name, event)
    stack.flush()
    learned = {}  # the offset up to which the label of each has to be served

    def is_served():
        if learned.keys() != pieces.keys():
            for record in follower.poll(0.1):
                if isinstance(record.event, ExampleLabelled):
                    learned[record.pipeline] = record.offset + 1
            return False
        champions = served(stack)
        return all(champions[name] >= offset for name, offset in learned.items())

    until(
        is_served, limit_s=60, says=f"a revision of each that learned {[events[-1].id for events in pieces.values()]}"
    )


def served(stack):
    """Up to which offset the champion of each pipeline has learned."""
    health = str(processes.states(stack.home)["predictor"]["health"])
    with urllib.request.urlopen(health, timeout=5) as answer:
        parts = json.load(answer)["parts"]
    champions = {name: arms.get("champion") for part in parts for name, arms in part.items() if isinstance(arms, dict)}
    return {name: int(champion.split("@")[1]) for name, champion in champions.items() if champion}


def scores_over(stack, name, rows):
    """The evaluator's last scores of a pipeline, once they are over so many rows."""
    told = newest_scores(r for r in stack.records("metrics") if r.event is not None and r.event.pipeline == name)
    return told if told is not None and told.n == rows else None
