"""A catch-up in a forked process, which reads the in-process log as it stood when it was forked."""

import os
import signal

import pytest

from headrace import model_bytes
from headrace.infra import child
from headrace.schemas.control import PipelineRetired, RunEnded, TrainingFailed
from headrace.services.trainer import catch_up_process, outside

ROWS = 2_500


@pytest.fixture
def make(tmp_path, trainer_plant, monkeypatch):
    """A champion that learned many rows; `poison` as the plant takes it."""
    made = []

    def plant(poison="None", bad=()):
        one = trainer_plant(tmp_path, poison=poison, inline=False)
        made.append(one)
        monkeypatch.setattr(child, "bus_of", lambda settings, name: one.bus)
        monkeypatch.setattr(outside, "RETRY_S", 0.0)
        one.champion = one.ask()
        one.alias("champion", one.champion)
        one.label(100)
        for x in bad:
            one.label(x=x)
        one.learned(ROWS - 100 - len(bad))
        return one

    yield plant
    for one in made:
        one.crash()


@pytest.fixture
def plant(make):
    return make()


def worker(plant):
    (runs,) = plant.lockstep._workers()
    return runs


def joined(plant, until, run):
    def both():
        plant.settle()
        return run in worker(plant).runs

    until(both, says="the join")


def at_work(plant, until):
    """The process that catches up."""

    def begun():
        plant.settle()
        return [one.child for one in worker(plant).outside._begun.values() if one.child is not None]

    (found,) = until(begun, says="a process")
    return found


def digests(plant, *runs):
    plant.lockstep.close()
    return [model_bytes.digest(plant.newest(run)[0]) for run in runs]


def failures(plant):
    return [event for event in plant.heard("training-runs") if isinstance(event, TrainingFailed)]


def test_what_came_while_it_caught_up_is_learned_before_it_joins(plant, until):
    challenger = plant.ask("c", start=70)
    at_work(plant, until)
    plant.repeat(900)
    plant.label(40)
    while plant.lockstep._runner.tick():  # the champion learns on; nobody listens to the process yet
        pass
    joined(plant, until, challenger)
    joint = next(taken for taken in plant.snapshots() if challenger in taken.runs)
    assert (joint.offset, set(joint.runs)) == (ROWS + 41, {plant.champion, challenger})
    assert worker(plant).outside.recent is None
    plant.repeat(950)
    plant.learned(10)
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[70:])]


def test_one_that_is_handed_over_too_far_away_is_sent_on_and_taken_in_the_end(plant, until, monkeypatch):
    monkeypatch.setattr(outside, "PAUSE_S", 0.0)
    challenger = plant.ask("c", start=70)
    at_work(plant, until)
    plant.label(40)
    while plant.lockstep._runner.tick():
        pass
    (begun,) = worker(plant).outside._begun.values()
    joined(plant, until, challenger)
    assert begun.handovers == outside.TRIES + 1
    assert digests(plant, challenger) == [plant.plain(plant.rows[70:])]


def test_one_of_which_messages_are_missing_is_never_taken(plant, until):
    challenger = plant.ask("c", start=70)
    at_work(plant, until)
    (begun,) = worker(plant).outside._begun.values()
    plant.label(40)
    while plant.lockstep._runner.tick():
        pass
    worker(plant).outside.recent.popleft()

    def sent_on():
        plant.settle()
        return begun.handovers > outside.TRIES + 2

    until(sent_on)
    assert challenger not in worker(plant).runs


def test_a_process_that_is_killed_is_started_again(plant, until):
    challenger = plant.ask("c", start=70)
    os.kill(at_work(plant, until).process.pid, signal.SIGKILL)
    joined(plant, until, challenger)
    assert digests(plant, challenger) == [plant.plain(plant.rows[70:])]


def test_one_that_dies_each_time_ends_its_run_and_the_champion_goes_on(plant, until, monkeypatch):
    monkeypatch.setattr(catch_up_process, "begin", lambda *given: os._exit(7))
    run = plant.ask("c")
    until(lambda: plant.settle() or failures(plant))
    plant.settle()
    assert "3 times without a word, at last with exit code 7" in failures(plant)[0].reason
    assert plant.heard("training-runs")[-1] == RunEnded(
        pipeline="rain", run=run, reason=failures(plant)[0].reason, failed=True
    )
    plant.learned(5)
    assert digests(plant, plant.champion) == [plant.plain()]


def test_trouble_of_the_machine_is_tried_again_however_often(plant, until, monkeypatch):
    def troubled(*given):
        raise OSError("no room")

    real = catch_up_process.begin
    monkeypatch.setattr(catch_up_process, "begin", troubled)
    challenger = plant.ask("c", start=70)
    seen = set()
    until(lambda: seen.add(at_work(plant, until).process.pid) or len(seen) > outside.ATTEMPTS + 1)
    assert not failures(plant)
    monkeypatch.setattr(catch_up_process, "begin", real)
    joined(plant, until, challenger)


def test_a_recipe_that_raises_only_there_ends_the_run_with_its_reason(plant, until, monkeypatch):
    def broken(*given):
        raise ValueError("no such column")

    monkeypatch.setattr(catch_up_process, "begin", broken)
    plant.ask("c")
    until(lambda: plant.settle() or failures(plant))
    assert failures(plant)[0].reason == "it could not begin: ValueError: no such column"


def test_poison_and_completions_are_told_as_in_lockstep(make, until):
    plant = make(poison="ValueError", bad=(99.0, -99.0))
    challenger = plant.ask("c", start=50, end_at=60)
    joined(plant, until, challenger)
    told = {run: [e.offset for e in failures(plant) if e.run == run] for run in (plant.champion, challenger)}
    assert told == {plant.champion: [100, 101], challenger: [100, 101]}
    completed = [e for e in plant.heard("training-completed") if e.run == challenger]
    assert [(e.n_labels, e.end_offset) for e in completed] == [
        (60, 112), (120, 172), (240, 292), (480, 532), (960, 1_012), (1_920, 1_972)
    ]  # fmt: skip
    good = [row for row in plant.rows[50:] if abs(row[0]["x"]) < 3]
    assert digests(plant, challenger) == [plant.plain(good)]


def test_after_a_crash_it_begins_again_and_nothing_is_told_twice(plant, until):
    challenger = plant.ask("c", start=70, end_at=100)
    at_work(plant, until)
    plant.crash()
    plant.start()
    joined(plant, until, challenger)
    assert [e.n_labels for e in plant.heard("training-completed")] == [100, 200, 400, 800, 1_600]
    assert digests(plant, plant.champion, challenger) == [plant.plain(), plant.plain(plant.rows[70:])]


def test_a_run_that_ends_takes_its_process_with_it(plant, until):
    plant.ask("c", start=70)
    process = at_work(plant, until).process
    plant.say("control-log", PipelineRetired(pipeline="rain", request="x", by="ann"))
    plant.settle()
    assert worker(plant).outside.processes == 0
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_where_the_champion_ends_the_one_that_catches_up_is_the_lockstep(plant, until):
    challenger = plant.ask("c", start=70)
    at_work(plant, until)
    plant.alias("champion", challenger, 2)
    joined(plant, until, challenger)
    assert list(worker(plant).runs) == [challenger]
    plant.learned(5)
    assert digests(plant, challenger) == [plant.plain(plant.rows[70:])]
