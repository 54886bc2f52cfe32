"""Evidence behind the joiner itself: two partitions, labels early, late and never, and the table as it is stored."""

import random
from datetime import UTC, datetime

from headrace.infra.log_table import LogTable
from headrace.schemas.codec import encode
from headrace.schemas.control import ModelValidated
from headrace.schemas.record import SEQUENCES_PER_OFFSET, Record
from headrace.schemas.stream import ArmPrediction, Baselines, LabelArrived, PredictionMade, Tick
from headrace.services.evaluator import online
from headrace.services.evaluator.ripening import Waiting
from headrace.services.joiner import core as joiner

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


def arrivals(rng, rows):
    """Predictions of two partitions and their labels in the order of known time; one label in fifty never comes."""
    events = []
    for number in range(rows):
        partition, at_ms, wet = number % 2, number * 10 * SECOND, rng.random() < 0.5
        arms = {"champion": 0.75} | ({"challenger": 0.93} if number >= 500 else {})
        predictions = {
            alias: ArmPrediction(
                version=1, run=alias, learned_to=number, value=0.9 if wet == (rng.random() < right) else 0.1
            )
            for alias, right in arms.items()
        }
        prediction = PredictionMade(
            id=f"d{number}", time=NOON, features={"x": 1.0}, predictions=predictions, served="champion", release=1,
            epoch=1, origin=(0, number), baselines=Baselines(majority=True, last=False),
        )  # fmt: skip
        events.append((at_ms, partition, prediction))
        if rng.random() > 0.02:
            after_ms = rng.choice([-5 * SECOND, 30 * SECOND, 20 * MINUTE]) if rng.random() < 0.99 else 6 * HOUR
            events.append((at_ms + after_ms, partition, LabelArrived(id=f"d{number}", time=NOON, label=wet)))
    last_ms = events[-1][0] + 8 * HOUR
    events += [(at, p, Tick(schedule="minute", due=NOON)) for at in range(0, last_ms, 5 * MINUTE) for p in (0, 1)]
    return sorted(events, key=lambda one: one[0])


def joined(events):
    """`<p>.labelled-examples`, as the joiners of both partitions wrote it."""
    states, offsets, told = (joiner.State(), joiner.State()), [0, 0], []
    for known_ms, partition, event in events:
        body, decoder = encode(event), joiner.DECODERS.get(type(event).__name__)
        event = event if decoder is None else decoder(body)
        given = Record(event, known_ms, "<p>.predictions", "rain", partition, offsets[partition], b"k", body)
        for index, emit in enumerate(joiner.step(states[partition], given, None)):
            if emit.topic == "<p>.labelled-examples":
                told.append((emit.event, known_ms, partition, given.offset * SEQUENCES_PER_OFFSET + index))
        offsets[partition] += 1
    return told


def test_behind_two_joiners_every_row_that_was_labelled_in_time_becomes_evidence_once(new_stream):
    rows = joined(arrivals(random.Random(8), 1_500))
    state = new_stream(gates={"max_labels": 100_000}).state
    state.waiting = LogTable("waiting", Waiting)
    told, in_time = [], 0
    for offset, (event, known_ms, partition, sequence) in enumerate(rows, 1):
        body = encode(event)
        source = f"/joiner/rain/t/{partition}"
        if not isinstance(event, Tick):
            event = online.DECODERS["ExampleLabelled"](body)
            late = known_ms - event.predicted_at_ms > 2 * HOUR
            in_time += "challenger" in event.prediction.predictions and not late
        given = Record(event, known_ms, "<p>.labelled-examples", "rain", 0, offset, b"k", body, source, sequence)
        told += [emit.event for emit in online.step(state, given, None) if emit.topic == "model-validations"]
    trial = state.evidence.trials["online"]
    assert HOUR < trial.ripening.mature_ms < 2 * HOUR  # four times twenty minutes
    assert trial.n == in_time > 900
    assert (len(state.waiting), trial.ripening.waiting) == (0, 0)
    assert 0.96 < trial.ripening.coverage() < 0.99
    assert next(event.verdict for event in told if isinstance(event, ModelValidated)) == "pass"
