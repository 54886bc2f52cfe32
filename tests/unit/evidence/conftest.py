"""A stream of predictions by several arms, and their labels in the order in which they come."""

import random
from datetime import UTC, datetime
from heapq import heappop, heappush

import pytest
from definitions import definition_of

from headrace.canary import place_of, unit_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import ModelValidated, PipelineReleased
from headrace.schemas.policies import Policies
from headrace.schemas.record import Record
from headrace.schemas.stream import SHED, ArmPrediction, Baselines, ExampleLabelled, PredictionMade, Tick
from headrace.services.evaluator.online import State, step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW_MS = 5_000  # between two predictions
RUNS = {"champion": "a", "challenger": "b"}


def released(label="bool", **policies):
    values = ("dry", "wet", "snow") if label == "classes" else None
    contract = ContractSpec(
        name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type=label, values=values)
    )
    definition = definition_of(
        contract=contract, policies=Policies(**policies),)  # fmt: skip
    return PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=1, request="q", by="ann")


class Stream:
    """Predictions, one a minute, and their labels as the joiner of one partition would tell them."""

    def __init__(self, label="bool", **policies):
        self.state, self.offset, self.told = State(), -1, []
        self.predicted, self.due, self.joined, self.oldest = 0, [], set(), 0
        self.rng = random.Random(str(policies.pop("seed", 1)))
        self.emit(released(label, **policies), 0)

    def emit(self, event, at_ms):
        self.offset += 1
        source = "/joiner/rain/t/0"
        emits = step(
            self.state, Record(event, at_ms, "<p>.labelled-examples", "rain", 0, self.offset, source=source), None
        )
        self.told += [emit.event for emit in emits if isinstance(emit.event, ModelValidated)]

    def predict(
        self,
        label,
        after=0,
        runs=RUNS,
        epoch=1,
        learned_to=None,
        inferred=False,
        share=None,
        entity=None,
        lost=None,
        features=None,
        took_us=None,
        **values,
    ):
        """One prediction by the arms of `values`; its label comes `after` so many more, or never (None).

        "error" and "shed" are no answers. In a canary (`share`) the challenger is served to its units, but for those
        where `lost(number)` is true. A prediction has these `features`, and its answers took so long (`took_us`, by
        arm).
        """
        number, at_ms = self.predicted, self.predicted * ROW_MS
        arms = {
            alias: ArmPrediction(
                version=1, run=runs[alias], learned_to=(learned_to or {}).get(alias, number),
                value=None if value in ("error", "shed") else value,
                error={"error": "ValueError: no", "shed": SHED}.get(value) if isinstance(value, str) else None,
                took_us=(took_us or {}).get(alias),
            )
            for alias, value in values.items()
        }  # fmt: skip
        place = place_of(runs["challenger"], unit_of(str(number), entity)) if share is not None else 1.0
        is_challengers = place < (share or 0) and arms["challenger"].value is not None and not (lost and lost(number))
        prediction = PredictionMade(
            id=str(number), time=NOON, features=features or {}, predictions=arms, release=1, epoch=epoch,
            origin=(0, number), served="challenger" if is_challengers else "champion", share=share, entity=entity,
            baselines=Baselines(majority=True, mean=1.0, last=True),
        )  # fmt: skip
        self.predicted += 1
        if after is not None:
            heappush(self.due, (at_ms + after * ROW_MS, number, at_ms, prediction, label, inferred))
        self.pass_time(at_ms)

    def pass_time(self, now_ms):
        """Join what is due by now, oldest label first."""
        while self.due and self.due[0][0] <= now_ms:
            labelled_at_ms, number, at_ms, prediction, label, inferred = heappop(self.due)
            self.joined.add(number)
            while self.oldest in self.joined:
                self.oldest += 1
            row = ExampleLabelled(
                prediction=prediction, label=label, predicted_at_ms=at_ms, labelled_at_ms=labelled_at_ms, partition=0,
                number=number, pending_from=self.oldest, known_to=-1, inferred=inferred,
            )  # fmt: skip
            self.emit(row, labelled_at_ms)

    def tick(self, hours):
        """So many hours pass without a prediction."""
        now_ms = self.predicted * ROW_MS + int(hours * 3_600_000)
        self.pass_time(now_ms)
        self.emit(Tick(schedule="minute", due=NOON, pending_from=self.oldest), now_ms)

    def binary(
        self,
        n,
        after=0,
        runs=RUNS,
        epoch=1,
        until=None,
        share=None,
        entities=0,
        lost=None,
        slices=None,
        took_us=None,
        **accuracies,
    ):
        """`n` predictions, half of them of rain, by arms of which each is right so often; ends when `until` is so.

        `slices` maps stations, which come in turn, to arms that are right so often there instead. `took_us(number)`
        gives how long each arm's answer took.
        """
        for _ in range(n):
            station = list(slices)[self.predicted % len(slices)] if slices else None
            there = slices[station] if slices else {}
            wet = self.rng.random() < 0.5
            values = {
                alias: (0.9 if wet else 0.1) if self.rng.random() < accuracy else (0.1 if wet else 0.9)
                for alias, accuracy in (accuracies | there).items()
            }
            entity = f"station {self.predicted % entities}" if entities else None
            features = {"station": station} if station else None
            more = {"features": features, "took_us": took_us(self.predicted) if took_us else None}
            self.predict(
                wet, after, runs, epoch, share=share, entity=entity, lost=lost, **more, **values
            )  # fmt: skip
            if until is not None and until():
                break
        return self

    def is_over(self):
        return bool(self.told) and self.told[-1].verdict != "pass"

    @property
    def verdicts(self):
        return [(event.stage, event.verdict) for event in self.told]

    def checks(self, index=-1):
        return {check.name: check for check in self.told[index].checks}


@pytest.fixture
def new_stream():
    """Makes a stream from a label and policies."""
    return Stream


@pytest.fixture
def after_a_while():
    """Makes a stream in which a champion that is right four times of five has served for a while."""
    return lambda n=400, **policies: Stream(**policies).binary(n, champion=0.8)
