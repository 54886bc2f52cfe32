"""A model folded again from the log: equal, where it first differs, or which root is missing."""

import re

import msgspec
import pytest

from headrace import model_bytes
from headrace.cli.reproducing import sentences
from headrace.errors import InvalidInput, Missing, Refused
from headrace.infra.artifacts import ArtifactMissing, ArtifactOtherVersion, Manifest
from headrace.infra.bus import TopicSpec
from headrace.reproduce import roots
from headrace.reproduce.model import reproduce, restore
from headrace.reproduce.refold import RootMissing
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import RunStarted, TrainingFailed
from headrace.schemas.stream import ExampleLabelled

PLACE = ("rain.labelled-examples", 0)
POISON = '''
class Poisoned(linear_model.LogisticRegression):
    """Cannot learn one number."""

    def learn_one(self, x, y):
        if x["x"] == 3.5:
            raise ZeroDivisionError("poison")
        super().learn_one(x, y)
'''


@pytest.fixture
def rain(history):
    """Version 1 at 40 labels and a run that has learned 200."""
    return history().live(200)


def again(history, name="rain@1", **how):
    return reproduce(history.roots(name), history.bus, history.artifacts, **how)


def say(history, topic, event, source="/test"):
    """Write one event by hand, then step to rest."""
    producer = history.bus.producer("test")
    sequence = history.bus.offsets((topic, 0))[1]
    producer.produce(topic, 0, b"rain", encode(event), headers_of(TYPE_OF[type(event)], source, sequence), 0)
    producer.flush()
    history.system.settle()


def alter(history, number):
    """Turn the label of one labelled example around, where it stands in the log."""
    for message in history.bus.read(PLACE, 0, 10_000):
        event = msgspec.json.decode(message.value())
        if "label" in event:
            number -= 1
        if number < 0:
            event["label"] = not event["label"]
            message._value = msgspec.json.encode(event)
            return message.offset()
    raise AssertionError("no such row")


def kept(history):
    return list(history.roots("rain").kept)


# --- equal -------------------------------------------------------------------------------------------------


def test_every_revision_is_folded_again_by_each_of_its_names_and_equal(rain):
    first, newest = rain.roots("rain@1"), kept(rain)[-1]
    done = again(rain)
    assert (done.outcome, done.evidence, done.lost) == ("equal", "structural digest", "")
    assert done.digest == done.expected
    assert (done.name, done.version, done.n_learned, done.rows) == ("rain@1", 1, 40, 40)
    run = first.started.run
    for name in ("rain", "rain@champion", f"rain@1@{newest}", f"rain@{run}", f"rain@{run}@{newest}"):
        done = again(rain, name)
        assert (done.outcome, done.offset) == ("equal", newest)
        assert done.n_learned > 100
    assert len(kept(rain)) > 3
    assert {again(rain, f"rain@1@{offset}").outcome for offset in kept(rain)} == {"equal"}


def test_what_could_not_be_learned_is_left_out_again(history):
    poisoned = history(recipe="Poisoned()", helper=POISON).live(60).live(1, x=lambda n: 3.5).live(30)
    rain = poisoned.live(1, x=lambda n: 3.5).live(100)
    assert len([r for r in rain.system.records("training-runs") if isinstance(r.event, TrainingFailed)]) == 2
    done = again(rain, "rain")
    assert (done.outcome, len(done.skipped)) == ("equal", 2)
    assert again(rain).skipped == ()


def test_repeats_and_what_cannot_be_decoded_count_for_nothing_again_as_they_did_then(rain):
    row = [m for m in rain.bus.read(PLACE, 0, 10_000) if b'"label"' in m.value()][-1]
    for value, headers in ((row.value(), row.headers()), (b"{", [*row.headers()[:4], ("ce_sequence", b"9" * 15)])):
        rain.bus.append(*PLACE, b"rain", value, headers, 0)
    rain.system.settle()
    rain.live(60)
    assert rain.bus.offsets(("rain.labelled-examples-dlq", 0))[1] > 0
    done = again(rain, "rain")
    assert (done.outcome, done.n_learned) == ("equal", done.rows)


def test_a_frozen_model_is_folded_up_to_the_start_of_its_holdout(history):
    done = again(history(more='learning="frozen"').live(120))
    assert (done.outcome, done.n_learned) == ("equal", 20)


def test_a_run_that_begins_with_another_model_and_without_a_range_is_folded_from_there(rain):
    parent = rain.roots("rain@1")
    child = RunStarted(
        pipeline="rain",
        run="child",
        request="by hand",
        release=1,
        seed=0,
        start_offset=parent.offset,
        parent=parent.uri,
        excluded=((parent.offset + 5, parent.offset + 20),),
    )
    say(rain, "training-runs", child)
    model = model_bytes.loads(rain.artifacts.get(parent.uri)[0])
    learned = 0
    for record in rain.system.records("<p>.labelled-examples", "rain"):
        is_left_out = parent.offset + 5 <= record.offset < parent.offset + 20
        if isinstance(record.event, ExampleLabelled) and record.offset >= parent.offset and not is_left_out:
            model.learn_one(record.event.prediction.features, record.event.label)
            learned += 1
    end = rain.bus.offsets(PLACE)[1]
    uri = rain.artifacts.put(
        model_bytes.dumps(model),
        Manifest(
            kind="model",
            pipeline="rain",
            run="child",
            release=1,
            parent=parent.uri,
            offset=end,
            learned=((parent.offset, parent.offset + 5), (parent.offset + 20, end)),
        ),
    )
    found = roots.Roots("rain@child", end, uri, child, parent.released, releases=parent.releases)
    done = reproduce(found, rain.bus, rain.artifacts)
    assert (done.outcome, done.n_learned, done.root) == ("equal", learned, f"its parent {parent.uri}")
    rain.artifacts.delete(parent.uri)
    with pytest.raises(RootMissing, match=f"begins with the model {parent.uri}"):
        reproduce(found, rain.bus, rain.artifacts)


# --- different ---------------------------------------------------------------------------------------------


def test_one_label_turned_around_is_found_between_the_two_snapshots_around_it(rain):
    offsets = kept(rain)
    changed = alter(rain, 100)
    before = max(offset for offset in offsets if offset <= changed)
    after = min(offset for offset in offsets if offset > changed)
    assert 0 < before < after < offsets[-1]
    assert again(rain).outcome == "equal"  # version 1 had not seen it
    done = again(rain, "rain")
    assert done.outcome == "different"
    assert done.digest != done.expected
    assert done.first_difference == {"equal_to": before, "differs_at": after}


def test_a_manifest_that_tells_another_story_than_the_log_is_a_difference(rain):
    found = rain.roots("rain@1")
    other = msgspec.structs.replace(rain.artifacts.manifest(found.uri), seed=7)
    rain.artifacts.restore(found.uri, rain.artifacts.get(found.uri)[0], other)
    done = again(rain)
    assert (done.outcome, done.evidence) == ("different", "manifest")
    assert done.first_difference == {"why": "seed 7 in the manifest, 0 in the log"}


# --- lost, and written back --------------------------------------------------------------------------------


def test_a_lost_model_is_written_back_to_its_address(rain):
    for name in ("rain@1", "rain"):
        found = rain.roots(name)
        data, manifest = rain.artifacts.get(found.uri)
        digest = model_bytes.digest(model_bytes.loads(data))
        rain.artifacts.delete(found.uri)
        done = again(rain, name)
        assert (done.outcome, done.digest, "there is no artifact" in done.lost) == ("equal", digest, True)
        assert done.evidence in ("sha256 of the bytes", "scores before learning")
        with pytest.raises(ArtifactMissing, match=f"headrace reproduce {found.uri} --restore"):
            rain.artifacts.get(found.uri)
        restore(done, rain.artifacts)
        back, told = rain.artifacts.get(found.uri)
        assert model_bytes.digest(model_bytes.loads(back)) == digest
        assert (told.offset, told.n_learned, told.sequences) == (found.offset, manifest.n_learned, manifest.sequences)
        there = again(rain, name)
        assert (there.evidence, restore(there, rain.artifacts)) == ("structural digest", False)


def test_scores_tell_a_changed_log_apart_where_the_bytes_are_lost(rain):
    found = rain.roots("rain")
    rain.artifacts.delete(found.uri)
    alter(rain, 100)
    done = again(rain, "rain")
    assert (done.outcome, done.evidence) == ("different", "scores before learning")
    assert done.first_difference["differs_at"] < found.offset
    with pytest.raises(Refused, match=r"rain@1@\d+ is not written back: .* different \(by scores before learning\)"):
        restore(done, rain.artifacts)


def test_bytes_of_another_river_are_a_missing_root_until_they_are_made_anew(rain, monkeypatch):
    found = rain.roots("rain@1")
    monkeypatch.setattr(rain.artifacts, "_river", "9.9")
    with pytest.raises(ArtifactOtherVersion, match=f"headrace reproduce {found.uri} --restore"):
        rain.artifacts.get(found.uri)
    with pytest.raises(RootMissing, match=r"rain@1 cannot be compared: .* River 0\.\d+, this is .* River 9\.9"):
        again(rain)
    done = again(rain, any_version=True)
    assert done.outcome == "equal"
    restore(done, rain.artifacts)
    assert rain.artifacts.get(found.uri)[1].river == "9.9"


# --- roots that are gone -----------------------------------------------------------------------------------


def test_where_the_log_is_gone_the_oldest_snapshot_that_it_reaches_is_the_root(rain):
    offsets = kept(rain)
    rain.bus.delete_records(PLACE, offsets[1] - 1)
    done = again(rain, "rain")
    assert (done.outcome, done.began, done.root) == ("equal", offsets[1], f"its snapshot at offset {offsets[1]}")
    with pytest.raises(RootMissing, match=r"no longer holds what run .* began at offset 0, the log begins at"):
        again(rain, f"rain@1@{offsets[0]}")
    for one in rain.roots("rain").kept.values():
        rain.artifacts.delete(one.uri)
    with pytest.raises(RootMissing, match="none of its snapshots from there on is kept"):
        again(rain, "rain")


def test_a_model_without_its_source_is_refused(rain):
    rain.artifacts.delete(rain.roots("rain@1").released.definition.source_uri)
    with pytest.raises(RootMissing, match="the source of release 1 of rain is missing"):
        again(rain)


def test_a_recipe_without_a_stable_digest_is_refused(history):
    with pytest.raises(RootMissing, match="the recipe of release 1 of rain has no stable digest"):
        again(history(recipe="neighbors.KNNClassifier()").live(100))


def test_a_log_that_ends_before_the_model_is_not_the_one_it_learned_from(rain):
    found = rain.roots("rain")
    rain.bus.delete_topic(PLACE[0])
    rain.bus.create_topics([TopicSpec(PLACE[0], 1, {})])
    with pytest.raises(RootMissing, match="was created anew or lost its end"):
        reproduce(found, rain.bus, rain.artifacts)


# --- for people ----------------------------------------------------------------------------------------------


def test_the_result_is_told_with_its_numbers(rain):
    told = sentences(again(rain))
    assert told[0] == "rain@1: equal, by structural digest."
    assert re.match(r"Run r\w+ folded again: offsets 0 to \d+, 40 labelled examples, \d+\.\d s\.", told[1])
    assert told[2].startswith("digest    ")
    assert len(told) == 3
    offsets, changed = kept(rain), alter(rain, 100)
    told = sentences(again(rain, "rain"))
    before = max(offset for offset in offsets if offset <= changed)
    assert told[0].endswith(": different, by structural digest.")
    assert told[3].startswith("expected  ")
    assert f"It is equal up to offset {before:,} of labelled-examples and differs at " in told[4]


# --- names -------------------------------------------------------------------------------------------------


def test_an_artifact_is_found_by_its_address(rain):
    for name in ("rain@1", "rain"):
        found = rain.roots(name)
        by_address = rain.roots(found.uri)
        assert (by_address.offset, by_address.uri) == (found.offset, found.uri)
    with pytest.raises(Missing, match="no event in the log names model/00"):
        rain.roots("model/00/" + "0" * 64 + "-00000000")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("rain@2", "rain has no version 2"),
        ("rain@challenger", "rain has no challenger"),
        ("rain@nobody", "no version, alias or run 'nobody'"),
        ("snow", "no pipeline is named 'snow'"),
        ("rain@1@7", r"no snapshot of rain@1 was taken at offset 7; the nearest one that the log names is at \d+"),
    ],
)
def test_what_the_log_does_not_know_is_named(rain, name, error):
    with pytest.raises(Missing, match=error):
        rain.roots(name)


@pytest.mark.parametrize("name", ["Rain", "rain@1@x", "", "@1"])
def test_what_is_no_name_is_said_with_what_is(name):
    with pytest.raises(InvalidInput, match="names no model; one is named PIPELINE@VERSION"):
        roots.parse(name)
