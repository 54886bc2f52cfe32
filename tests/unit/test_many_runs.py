"""Many runs of a pipeline at once: a challenger catches up, joins at one offset, and is the plain fold of its range."""

from datetime import UTC, datetime

import pytest

from headrace import model_bytes
from headrace.errors import Missing
from headrace.reproduce.log import find
from headrace.reproduce.model import reproduce
from headrace.schemas.contract import FeatureSpec
from headrace.schemas.control import AliasRemoved, RunEnded, TrainingFailed
from headrace.schemas.stream import Tick
from headrace.services.trainer import core, runs, saved, snapshots

TICK = Tick(schedule="minute", due=datetime(2026, 3, 1, tzinfo=UTC), pipeline="rain")
EACH = "rollout=Rollout(refresh_s=0)"


@pytest.fixture
def plant(tmp_path, trainer_plant):
    """A champion that learned ten rows."""
    made = trainer_plant(tmp_path)
    made.champion = made.ask()
    made.alias("champion", made.champion)
    made.learned(10)
    return made


def digests(plant, *runs):
    """The digests of runs as they stand, all from one snapshot after a clean stop."""
    plant.lockstep.close()
    return [model_bytes.digest(plant.newest(run)[0]) for run in runs]


@pytest.mark.parametrize("start", range(0, 13, 2))
def test_a_challenger_is_rivers_fold_from_its_start_and_the_champion_rivers_fold_of_all(plant, start):
    challenger = plant.ask("c", start=start)
    plant.learned(7)
    plant.now += 1
    plant.learned(4)
    taken = plant.snapshots()[-1]
    assert set(taken.runs) == {plant.champion, challenger}
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[start:])]
    manifest = plant.newest(challenger)[1]
    assert (manifest.learned, manifest.n_learned) == (((start, 21),), 21 - start)


def test_it_joins_by_a_joint_snapshot_that_is_committed_before_the_next_learn(plant):
    plant.lockstep._runner._next_commit = float("inf")
    before = len(plant.snapshots())
    challenger = plant.ask("c", start=4)
    (joint,) = plant.snapshots()[before:]
    assert (joint.offset, set(joint.runs)) == (10, {plant.champion, challenger})
    (runs,) = plant.lockstep._workers()
    assert (runs.offset, runs.dirty) == (10, False)
    plant.crash()
    plant.start()
    plant.settle()
    (runs,) = plant.lockstep._workers()
    assert {name: run.state.n_learned for name, run in runs.runs.items()} == {plant.champion: 10, challenger: 6}
    assert plant.lockstep._runner.handled == 0


def test_one_that_starts_later_joins_when_the_others_are_there(plant):
    challenger = plant.ask("c", start=14)
    assert plant.counts()["waiting"] == 1
    plant.learned(4)
    assert plant.counts()["waiting"] == 1  # the next record is what makes them meet
    plant.learned(3)
    assert [set(taken.runs) for taken in plant.snapshots() if taken.offset == 14] == [{plant.champion, challenger}]
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[14:])]


def test_one_that_starts_beyond_the_log_waits_for_it_also_alone(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path)
    plant.learned(3)
    plant.ask(start=5)
    plant.learned(4)
    assert plant.counts()["learned"] == 2
    assert plant.digest() == plant.plain(plant.rows[5:])


def test_excluded_ranges_are_left_out_in_the_catch_up_and_after_it(plant):
    challenger = plant.ask("c", start=2, excluded=((4, 6), (12, 14)))
    plant.learned(6)
    rows = [row for n, row in enumerate(plant.rows) if n >= 2 and n not in (4, 5, 12, 13)]
    assert digests(plant, challenger) == [plant.plain(rows)]
    assert plant.newest(challenger)[1].learned == ((2, 4), (6, 12), (14, 16))


def test_completions_are_told_in_the_catch_up_as_they_are_told_in_lockstep(plant, tmp_path, trainer_plant):
    challenger = plant.ask("c", start=3, end_at=3)
    plant.learned(4)
    told = [r for r in plant.records("training-completed") if r.event.run == challenger]
    (tmp_path / "alone").mkdir()
    alone = trainer_plant(tmp_path / "alone")
    alone.label(3)
    alone.ask("c", start=3, end_at=3)
    alone.learned(11)
    expected = alone.records("training-completed")
    assert [r.event.n_labels for r in told] == [3, 6]
    assert [(r.event, r.source, r.sequence, r.known_ms) for r in told] == [
        (r.event, r.source, r.sequence, r.known_ms) for r in expected
    ]
    joint = next(taken for taken in plant.snapshots() if challenger in taken.runs)
    pinned = plant.artifacts.manifest(joint.runs[challenger].uri).structural_digest
    assert pinned == plant.plain(plant.rows[3:10])
    assert plant.artifacts.manifest(joint.runs[plant.champion].uri).structural_digest is None


def test_one_that_may_serve_before_any_label_is_judged_where_it_joins(plant):
    challenger = plant.ask("c", start=10, end_at=0)
    told = [event for event in plant.heard("training-completed") if event.run == challenger]
    assert [(event.n_labels, event.end_offset) for event in told] == [(0, 10)]
    assert challenger in plant.snapshots()[-1].runs


# --- repeats: each run has its own memory of what it saw ---------------------------------------------------


def refolded(plant, start):
    """River's fold from an offset of the log as it stands, its repeats dropped as a reader from there drops them."""
    seen, rows = -1, []
    for message in plant.bus.read(("rain.labelled-examples", 0), start, 1_000):
        number = int(message.headers()[4][1])
        if number > seen:
            seen = number
            rows.append(plant.rows[number])
    return plant.plain(rows)


@pytest.mark.parametrize("start", range(8, 16))
def test_a_run_that_begins_among_repeats_keeps_its_own_sequences(plant, start):
    for number in (6, 7, 8):  # 10, 11, 12: the joiner tells again what it told before a crash
        plant.repeat(number)
    challenger = plant.ask("c", start=start)
    for number in (8, 9):
        plant.repeat(number)
    plant.learned(4)
    for number in (9, 13, 12):
        plant.repeat(number)
    plant.learned(2)
    assert digests(plant, plant.champion, challenger) == [plant.plain(), refolded(plant, start)]


@pytest.mark.parametrize("after", ["the join", "a commit"])
def test_what_it_had_seen_is_known_again_after_a_crash(plant, after):
    for number in (6, 7):
        plant.repeat(number)
    challenger = plant.ask("c", start=11)  # it met row 7 anew, and will meet 8 and 9 so
    if after == "a commit":
        plant.say("<p>.labelled-examples", TICK, "/joiner/rain/y/0", 1)
        plant.settle()
    plant.crash()
    plant.start()
    for number in (8, 9, 7):
        plant.repeat(number)
    plant.learned(3)
    assert digests(plant, plant.champion, challenger) == [plant.plain(), refolded(plant, 11)]


def test_a_challenger_that_saw_more_than_the_champion_drops_more(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path)
    plant.learned(8)
    champion = plant.ask(start=8)
    plant.alias("champion", champion)
    challenger = plant.ask("c", start=0)
    plant.repeat(6)  # the champion meets it for the first time
    plant.learned(5)
    assert digests(plant, champion, challenger) == [refolded(plant, 8), plant.plain()]


# --- crashes -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("refresh", ["", EACH], ids=["each second", "each label"])
@pytest.mark.parametrize("at", ["catch-up", "join", "announced", "after"])
def test_whenever_it_is_killed_both_models_are_their_folds_and_nothing_is_told_twice(
    tmp_path, trainer_plant, monkeypatch, refresh, at
):
    plant = trainer_plant(tmp_path, refresh)
    champion = plant.ask()
    plant.alias("champion", champion)
    plant.learned(20)
    with monkeypatch.context() as patch:
        _kill_at(patch, at)
        try:
            challenger = plant.ask("c", start=5, end_at=2)
            assert at == "after"
        except Killed:
            assert at != "after"
        if at == "after":
            plant.lockstep._runner._next_commit = float("inf")
            plant.label(3)
            plant.lockstep.tick()
        plant.crash()
    plant.start()
    plant.settle()
    plant.learned(5)
    challenger = plant.heard("training-runs")[-1].run
    assert [e.n_labels for e in plant.heard("training-completed") if e.run == challenger] == [2, 4, 8, 16]
    sequences = [r.sequence for r in plant.records("<p>.snapshots")]
    assert sequences == sorted(set(sequences))
    assert digests(plant, champion, challenger) == [plant.plain(), plant.plain(plant.rows[5:])]


def _kill_at(patch, at):
    """End the process in the midst of the catch-up, before its snapshot is stored, or before that is committed."""

    def after(times, real):
        left = iter(range(times))

        def call(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return real(*args, **kwargs)

        return call

    if at == "catch-up":
        patch.setattr(core, "step", after(8, core.step))
    elif at == "join":
        patch.setattr(runs, "take", after(1, runs.take))
    elif at == "announced":
        patch.setattr(saved.Saved, "commit", after(0, saved.Saved.commit))


def test_where_all_state_is_lost_the_runs_learn_the_log_once_together(plant):
    challenger = plant.ask("c", start=4)
    plant.learned(5)
    plant.crash()
    for path in sorted((plant.home / "state").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    plant.start()
    plant.settle()
    assert plant.lockstep._runner.handled == 2 * 15  # once before it was known which runs live, and once by both
    plant.learned(2)
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[4:])]


def test_one_whose_artifact_is_gone_catches_up_again_and_the_other_goes_on(plant):
    challenger = plant.ask("c", start=4)
    plant.learned(5)
    plant.lockstep.close()
    plant.control.close()
    plant.artifacts.delete(plant.snapshots()[-1].runs[challenger].uri)
    plant.start()
    plant.settle()
    assert plant.lockstep._runner.handled == 0
    plant.learned(2)
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[4:])]


# --- poison ------------------------------------------------------------------------------------------------


def test_poison_in_the_catch_up_is_told_and_skipped_by_each_run(tmp_path, trainer_plant):
    plant = trainer_plant(tmp_path, poison="ValueError")
    champion = plant.ask()
    plant.alias("champion", champion)
    plant.learned(4)
    for _ in range(3):
        plant.learned(x=99.0)
        plant.learned(2)
    challenger = plant.ask("c", start=2)
    plant.learned(x=-99.0)
    plant.learned(2)
    failed = [e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed)]
    for run in (champion, challenger):
        assert [(e.offset, e.reason) for e in failed if e.run == run] == [
            (offset, "ValueError: cannot") for offset in (4, 7, 10, 13)
        ]
    good = [row for row in plant.rows if abs(row[0]["x"]) < 3]
    assert digests(plant, champion, challenger) == [plant.plain(good), plant.plain(good[2:])]
    assert plant.newest(challenger)[1].skipped == (4, 7, 10, 13)


def test_a_learn_in_the_catch_up_that_raises_only_once_loses_nothing(tmp_path, trainer_plant, monkeypatch):
    plant = trainer_plant(tmp_path, poison="ValueError")
    plant.alias("champion", plant.ask())
    plant.learned(8)
    plant.learned(x=99.0)
    plant.learned(2)
    real, raised = core.step, []

    def once(state, record, world):
        if record.offset == 5 and not raised:
            raised.append(record.offset)
            raise ValueError("a moment's trouble")
        return real(state, record, world)

    monkeypatch.setattr(core, "step", once)
    challenger = plant.ask("c", start=2)
    assert raised == [5]
    plant.learned(2)
    good = [row for row in plant.rows[2:] if row[0]["x"] < 3]
    assert digests(plant, challenger) == [plant.plain(good)]
    assert plant.newest(challenger)[1].skipped == (8,)


# --- ends --------------------------------------------------------------------------------------------------


def test_an_online_champion_and_the_model_before_it_both_go_on_learning(plant):
    challenger = plant.ask("c", start=4)
    plant.alias("challenger", challenger, 2)
    plant.learned(3)
    plant.alias("previous", plant.champion, 1)
    plant.alias("champion", challenger, 2)
    plant.say(
        "control-log", AliasRemoved(pipeline="rain", alias="challenger", run=challenger, epoch=3, reason="promoted")
    )
    plant.settle()
    plant.now += 1
    plant.learned(3)
    assert set(plant.snapshots()[-1].runs) == {plant.champion, challenger}
    gone = AliasRemoved(pipeline="rain", alias="previous", run=plant.champion, epoch=4, reason="the guard passed")
    plant.say("control-log", gone)
    plant.settle()
    assert plant.heard("training-runs")[-1] == RunEnded(pipeline="rain", run=plant.champion, reason="the guard passed")
    plant.now += 1
    plant.learned(3)
    assert set(plant.snapshots()[-1].runs) == {challenger}
    assert digests(plant, challenger) == [plant.plain(plant.rows[4:])]


def test_a_failed_challenger_leaves_and_another_takes_its_place(plant):
    first = plant.ask("c", start=4)
    plant.alias("challenger", first, 2)
    plant.learned(3)
    gone = AliasRemoved(pipeline="rain", alias="challenger", run=first, epoch=3, reason="the online gate failed")
    plant.say("control-log", gone)
    plant.settle()
    second = plant.ask("d", start=6)
    plant.learned(3)
    assert set(plant.snapshots()[-1].runs) == {plant.champion, second}
    assert digests(plant, plant.champion, second) == [plant.plain(), plant.plain(plant.rows[6:])]


def test_a_challenger_whose_start_is_deleted_fails_and_the_champion_goes_on(plant):
    plant.bus.delete_records(("rain.labelled-examples", 0), 6)
    challenger = plant.ask("c", start=4)
    failed = next(e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed))
    assert (failed.run, failed.offset) == (challenger, None)
    assert "it starts at offset 4 of rain.labelled-examples, which begins at 6" in failed.reason
    plant.learned(3)
    assert digests(plant, plant.champion) == [plant.plain()]


# --- parents -----------------------------------------------------------------------------------------------


def snapshot_uri(plant, offset, run):
    return next(taken.runs[run].uri for taken in plant.snapshots() if taken.offset == offset)


@pytest.fixture
def each_label(tmp_path, trainer_plant):
    """A champion that learned ten rows, with a snapshot after each."""
    made = trainer_plant(tmp_path, EACH)
    made.champion = made.ask()
    made.alias("champion", made.champion)
    made.learned(10)
    return made


@pytest.mark.parametrize("start", [6, 8, 10, 12])
def test_a_fork_goes_on_with_its_parents_model_from_its_own_start(each_label, start):
    plant = each_label
    for number in (4, 5):
        plant.repeat(number)  # at 10 and 11: the parent has seen them
    fork = plant.ask("f", start=start, parent=snapshot_uri(plant, 6, plant.champion), excluded=((8, 9),))
    plant.learned(4)
    rows = [row for n, row in enumerate(plant.rows) if n < 6 or n >= 10 or (n >= start and n != 8)]
    assert digests(plant, plant.champion, fork) == [plant.plain(), plant.plain(rows)]
    manifest = plant.newest(fork)[1]
    assert manifest.parent == snapshot_uri(plant, 6, plant.champion)
    assert manifest.n_learned == len(rows) - 6


def test_a_fork_that_was_killed_begins_with_its_parent_again(each_label):
    plant = each_label
    plant.lockstep._runner._next_commit = float("inf")
    fork = plant.ask("f", start=10, parent=snapshot_uri(plant, 6, plant.champion))
    plant.crash()
    plant.start()
    plant.learned(3)
    assert digests(plant, fork) == [plant.plain(plant.rows[:6] + plant.rows[10:])]


@pytest.mark.parametrize("offset", [6, 10])
def test_a_parent_is_kept_as_long_as_what_follows_from_it(each_label, offset):
    plant = each_label
    parent = snapshot_uri(plant, offset, plant.champion)
    plant.ask("f", start=10, parent=parent)
    for _ in range(3):
        plant.now += 40 * 86_400
        plant.learned(12)
        plant.now += 7_200
        plant.settle()
    assert plant.artifacts.exists(parent)
    assert not plant.artifacts.exists(snapshot_uri(plant, 5, plant.champion))


def refused(plant, **more):
    run = plant.ask("f", **more)
    (failed,) = [e for e in plant.heard("training-runs") if isinstance(e, TrainingFailed)]
    assert (failed.run, failed.offset) == (run, None)
    assert plant.heard("training-runs")[-1] == RunEnded(pipeline="rain", run=run, reason=failed.reason, failed=True)
    plant.learned(2)
    assert digests(plant, plant.champion) == [plant.plain()]
    return failed.reason


def test_a_parent_whose_bytes_are_gone_is_refused(each_label):
    parent = snapshot_uri(each_label, 6, each_label.champion)
    each_label.artifacts.delete(parent)
    assert f"there is no artifact {parent}" in refused(each_label, start=6, parent=parent)


def test_a_parent_that_learned_further_than_the_start_is_refused(each_label):
    parent = snapshot_uri(each_label, 6, each_label.champion)
    assert "has learned up to offset 6" in refused(each_label, start=5, parent=parent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recipe_digest": "0" * 64}, "whose recipe is another"),
        ({"contract": "wider"}, "which learned other columns"),
        ({"source": b"# a word more"}, "only a run of that release can begin with it"),
    ],
)
def test_a_parent_of_another_recipe_or_signature_or_file_is_refused(each_label, change, reason):
    plant = each_label
    definition = plant.released.definition
    if "contract" in change:
        features = (*definition.contract.features, FeatureSpec(name="y", type="float"))
        change = {"contract": definition.contract.model_copy(update={"features": features})}
    if "source" in change:
        digest, uri = plant.artifacts.put_source((plant.home / "rain.py").read_bytes() + change["source"])
        change = {"source_digest": digest, "source_uri": uri}
    other = {"release": 2, "definition": definition.model_copy(update=change)}
    for topic in ("pipelines", "control-log"):
        plant.say(topic, plant.released.model_copy(update=other))
    parent = snapshot_uri(plant, 6, plant.champion)
    assert reason in refused(plant, start=6, parent=parent, release=2)


# --- folded again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["challenger", "fork"])
def test_reproduce_folds_a_run_again_that_caught_up(tmp_path, trainer_plant, how):
    plant = trainer_plant(tmp_path, EACH, poison="ValueError")
    champion = plant.ask()
    plant.alias("champion", champion)
    plant.learned(10)
    plant.learned(x=99.0)
    plant.repeat(3)
    more = {"parent": snapshot_uri(plant, 6, champion)} if how == "fork" else {}
    run = plant.ask("c", start=7, excluded=((8, 9), (13, 15)), **more)
    plant.alias("challenger", run, 2, uri=plant.snapshots()[-1].runs[run].uri, snapshot_offset=12)
    plant.learned(6)
    for name in (f"rain@{run}", "rain@challenger", "rain@2", "rain@champion"):
        done = reproduce(find(name, plant.bus), plant.bus, plant.artifacts)
        assert (done.outcome, done.evidence) == ("equal", "structural digest"), name
    own = reproduce(find(f"rain@{run}", plant.bus), plant.bus, plant.artifacts)
    assert (own.offset, own.skipped, own.n_learned) == (18, (10,), 6)
    plant.artifacts.delete(own.uri)
    assert reproduce(find(own.uri, plant.bus), plant.bus, plant.artifacts).outcome == "equal"


def test_an_alias_that_was_removed_names_no_model(plant):
    run = plant.ask("c", start=4)
    plant.alias("challenger", run, 2)
    gone = AliasRemoved(pipeline="rain", alias="challenger", run=run, epoch=3, reason="the online gate failed")
    plant.say("control-log", gone)
    with pytest.raises(Missing, match="rain has no challenger"):
        find("rain@challenger", plant.bus)


# --- the shell's parts -------------------------------------------------------------------------------------


def test_what_each_run_has_seen_is_kept_apart():
    a, b = (snapshots.Run(None, None, None) for _ in "ab")
    own = {"a": {"x": 5, "y": 2}, "b": {"x": 3, "z": 9}}
    common = snapshots.apart(own, {"a": a, "b": b})
    assert (common, a.ahead, b.ahead) == ({"x": 3}, {"x": 5, "y": 2}, {"z": 9})
    assert [snapshots.own_sequences(run, common) for run in (a, b)] == list(own.values())
    common["x"] = 7
    assert [snapshots.own_sequences(run, common)["x"] for run in (a, b)] == [7, 7]
