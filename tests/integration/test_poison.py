"""Poison by the hundred among good records: model, labelled examples and predictions are those of a run without it."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import garbage
import poison
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headrace import model_bytes
from headrace.infra import pipeline_files
from headrace.infra.system import System
from headrace.schemas.control import WindowValidated
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived, PredictionMade
from headrace.schemas.topics import TOPICS, full_name
from headrace.services import FOLDS
from headrace.services.validator.compiled import MAX_BYTES

START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 120
SOURCE = poison.SOURCE.replace(b"REFRESH", b"1.0")


def rows():
    chance = random.Random(3)
    for number in range(ROWS):
        temperature, wind = chance.uniform(-20, 30), chance.uniform(0, 60)
        at = START + timedelta(seconds=20 * (number + 1))
        features = {"temperature": temperature, "wind": wind, "sky": chance.choice(("clear", "cloudy"))}
        yield at, ExampleArrived(id=f"d{number}", time=at, features=features), temperature + wind / 10 > 8


def answers(made):
    """What each arm said; not the offset it had learned to, which garbage in that topic moves on."""
    return {alias: (arm.version, arm.run, arm.value, arm.error) for alias, arm in made.predictions.items()}


class Poisoned:
    """The whole system in one process; `bad` are (after which row, what) among its records."""

    def __init__(self, home, bad=()):
        home.mkdir(exist_ok=True)
        self.system = system = System(home, start_ms=int(START.timestamp() * 1000))
        (home / "rain.py").write_bytes(SOURCE)
        pipeline = pipeline_files.load_file(home / "rain.py")
        _, uri = system.artifacts.put_source(SOURCE)
        system.release(pipeline, pipeline_files.definition(pipeline, SOURCE, uri))
        self.written = []  # place and what, of the bad
        self.garbage = []
        for number, (at, example, label) in enumerate(rows()):
            system.publish("rain", example)
            for _, *what in (one for one in bad if one[0] == number):
                self.write(*what)
                system.settle()
            system.publish("rain", LabelArrived(id=example.id, time=at, label=label), at_ms=system.now_ms)
        system.advance(system.now_ms + 120_000)

    def write(self, what, record=None, at_ms=0):
        """A user's poison; or, where `what` is a topic, a record into that."""
        if record is None:
            self.written.append((self.end(), what))
            self.system.bus.append("rain.data-arrived", 0, what.key, what.value, what.headers, self.system.now_ms)
            return
        topic = full_name(what, "rain")
        self.garbage.append(((topic, self.system.bus.offsets((topic, 0))[1]), what))
        self.system.bus.append(topic, 0, *record, at_ms)

    def end(self):
        return self.system.bus.offsets(("rain.data-arrived", 0))[1]

    def close(self):
        self.system.close()

    def learned(self):
        """What was predicted and learned, in order, and the digest of the model."""
        records = self.system.records
        made = [r.event for r in records("<p>.predictions", "rain") if isinstance(r.event, PredictionMade)]
        joined = [r.event for r in records("<p>.labelled-examples", "rain") if isinstance(r.event, ExampleLabelled)]
        snapshot = records("<p>.snapshots", "rain")[-1].event
        (run,) = snapshot.runs.values()
        model = model_bytes.loads(self.system.artifacts.get(run.uri)[0])
        return (
            [(p.id, p.features, answers(p), p.served, p.release, p.baselines) for p in made],
            [(e.prediction.id, e.prediction.features, answers(e.prediction), e.label) for e in joined],
            (run.n_learned, model_bytes.digest(model)),
        )

    def rejects(self):
        return [record.event for record in self.system.records("<p>.data-rejected", "rain")]

    def windows(self):
        return [
            w for w in (r.event for r in self.system.records("validation-results")) if isinstance(w, WindowValidated)
        ]

    def in_band(self):
        """Markers and ticks that the system itself wrote."""
        found = self.system.bus.read(("rain.data-arrived", 0), 0, 1_000_000)
        ours = {offset for offset, _ in self.written}
        return sum(m.offset() not in ours and b"Arrived" not in dict(m.headers())["ce_type"] for m in found)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    made = Poisoned(tmp_path_factory.mktemp("clean"))
    yield made.learned()
    made.close()


def holds_its_account(run):
    """Every reject tells its place, bytes and reasons; accepted, rejected, duplicates and in-band are all records."""
    rejects = run.rejects()
    assert [(r.topic, r.partition, r.offset) for r in rejects] == [
        ("rain.data-arrived", 0, at) for at, _ in run.written
    ]
    for reject, (_, what) in zip(rejects, run.written, strict=True):
        assert reject.value == (what.value or b"")[:MAX_BYTES]
        codes = [problem.code for problem in reject.problems]
        assert codes
        assert what.code in ("", *codes), (what.name, reject.problems)
    windows = run.windows()
    counts = Counter(
        {n: sum(getattr(w, n) for w in windows) for n in ("validated", "labels", "rejected", "duplicates")}
    )
    assert counts == Counter(validated=ROWS, labels=ROWS, rejected=len(run.written), duplicates=0)
    assert counts.total() + run.in_band() == run.end()
    reasons = sum((Counter(w.reasons) for w in windows), Counter())
    assert reasons == Counter(code for r in rejects for code in {p.code for p in r.problems})


def test_every_named_poison_has_its_reason_and_changes_nothing(tmp_path, clean):
    run = Poisoned(tmp_path, [(number * 3 % ROWS, what) for number, what in enumerate(poison.NAMED)])
    assert run.learned() == clean
    holds_its_account(run)
    run.close()


@settings(max_examples=5, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
@given(bad=st.lists(st.tuples(st.integers(0, ROWS - 1), poison.strategy), min_size=30, max_size=60))
def test_whatever_users_write_the_model_is_that_of_the_good_records(tmp_path_factory, clean, bad):
    run = Poisoned(tmp_path_factory.mktemp("bad"), sorted(bad, key=lambda one: one[0]))
    assert run.learned() == clean
    holds_its_account(run)
    run.close()


READ = {fold.input for fold in FOLDS}
derived = st.sampled_from(sorted(name for name in TOPICS if name != "<p>.data-arrived"))


@settings(max_examples=4, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
@given(
    bad=st.lists(
        st.tuples(st.integers(0, ROWS - 1), derived, garbage.unreadable, garbage.times_ms), min_size=40, max_size=80
    )
)
def test_garbage_in_the_topics_of_services_stops_nothing_and_nobody_learns_of_it(tmp_path_factory, clean, bad):
    run = Poisoned(tmp_path_factory.mktemp("derived"), sorted(bad, key=lambda one: one[0]))
    assert run.learned() == clean
    for topic in READ:
        letters = run.system.bus.read((full_name(topic, "rain") + "-dlq", 0), 0, 1_000)
        faults = [json.loads(letter.value()) for letter in letters]
        assert {(fault["topic"], fault["offset"]) for fault in faults} == {
            at for at, name in run.garbage if name == topic
        }
        assert all(fault["reason"] for fault in faults)
    run.close()
