"""A bad range of examples: given these decisions, then who serves, what is trained again, and what no run learns."""

import doctest
from dataclasses import dataclass, field

import pytest
from definitions import definition_of

from headrace import ranges
from headrace.schemas.control import (
    AliasRemoved,
    ChallengerSuperseded,
    Check,
    ModelUpdated,
    ModelValidated,
    RangeBarred,
    ReleaseAsked,
    RequestRefused,
    RollbackAsked,
    RunEnded,
    RunStarted,
    TrainingAsked,
    TrainingRequested,
)
from headrace.schemas.record import Record
from headrace.services.orchestrator import core as orchestrator
from headrace.services.registry import core as registry
from headrace.services.trainer import control

DEFINITION = definition_of()
BAD = (500, 600)


@dataclass
class Decisions:
    """The three folds that decide, over one `control-log`; `order` says whose words of one step are read first."""

    order: tuple[str, ...] = ("decisions", "model-updates")
    log: list = field(default_factory=list)
    folds: tuple = ()

    def __post_init__(self):
        self.folds = (
            (registry, registry.State(), registry.example_world()),
            (orchestrator, orchestrator.State(), None),
            (control, control.State(), None),
        )

    def tell(self, *events):
        """Append what came, and what follows from it, until nothing does."""
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            offset = len(self.log)
            self.log.append(event)
            emits = []
            for fold, state, world in self.folds:
                emits += fold.step(state, Record(event, offset, "control-log", "", 0, offset), world)
            told = [e for e in emits if not e.topic.startswith("<p>") and e.topic != "lineage"]
            rank = {topic: at for at, topic in enumerate(self.order)}
            waiting += [e.event for e in sorted(told, key=lambda e: rank.get(e.topic, 9))]
        return self

    def gates(self, run, offset):
        """Both gates pass, at the offset of a snapshot `run@offset`."""
        return self.tell(*self.passed(run, offset))

    def passed(self, run, offset):
        """The verdicts of both gates."""
        champion = self.aliases.get("champion")
        told = {
            "pipeline": "rain", "run": run, "request": "", "verdict": "pass", "checks": (), "n_labels": offset,
            "offset": offset, "against": champion.run if champion else None,
            "epoch": self.folds[0][1].pipelines["rain"].epoch,
        }  # fmt: skip
        named = {"snapshot_uri": f"{run}@{offset}", "snapshot_offset": offset}
        return ModelValidated(stage="offline", **told), ModelValidated(stage="infra", **told, **named)

    def online(self, run, share=None):
        """The verdict that lets a challenger go on, against the first model, in the epoch of the aliases."""
        return ModelValidated(
            pipeline="rain", run=run, request="", stage="online", verdict="pass", n_labels=5_000, offset=6_000,
            against=self.of(RunStarted)[0].run, epoch=self.folds[0][1].pipelines["rain"].epoch, share=share,
            checks=(Check(name="evidence", verdict="pass", value=1e6, limit=20.0),),
        )  # fmt: skip

    def bar(self, *bad, request="back", **snapshot):
        return self.tell(
            RollbackAsked(pipeline="rain", request=request, by="ann", reason="bad hour", bad_ranges=bad, **snapshot)
        )

    @property
    def aliases(self):
        return registry.models(self.folds[0][1], "rain")[1]

    def of(self, *kinds):
        return [event for event in self.log if isinstance(event, kinds)]

    @property
    def live(self):
        return set(self.folds[2][1].pipelines["rain"].live)


@pytest.fixture(params=[("decisions", "model-updates"), ("model-updates", "decisions")], ids=["barred", "moved"])
def served(request):
    """A first model that serves and has learned far beyond the range; two orders in which the log may have it."""
    decisions = Decisions(request.param)
    asked = ReleaseAsked(
        pipeline="rain", request="q", by="ann", definition=DEFINITION, partitions=1, topic_id="1f3a9c2e"
    )
    decisions.tell(asked)
    (first,) = decisions.live
    return decisions.gates(first, 200)


def good(decisions, offset=480):
    """The newest snapshot of version 1's run before the range."""
    run = decisions.of(RunStarted)[0].run
    return {"version": 1, "uri": f"{run}@{offset}", "snapshot_offset": offset}


def test_the_newest_good_snapshot_serves_frozen_and_a_fork_of_it_learns_without_the_range(served):
    first = served.live
    served.bar(BAD, **good(served))
    champion = served.aliases["champion"]
    assert (champion.uri, champion.follows, champion.barred) == (good(served)["uri"], False, (BAD,))
    _, asked = served.of(TrainingRequested)
    assert (asked.trigger, asked.start, asked.parent, asked.excluded) == ("rollback", 480, champion.uri, (BAD,))
    assert served.of(RunStarted)[-1].excluded == (BAD,)
    assert served.live == {served.of(RunStarted)[-1].run}
    assert {ended.run for ended in served.of(RunEnded)} == first


def test_the_fork_is_champion_when_it_has_passed_its_gates(served):
    served.bar(BAD, **good(served))
    fork = served.of(RunStarted)[-1].run
    served.gates(fork, 900)
    champion = served.aliases["champion"]
    assert (champion.version, champion.run, champion.follows) == (2, fork, True)
    assert set(served.aliases) == {"champion"}


def test_whatever_is_trained_later_leaves_the_range_out(served):
    served.bar(BAD, **good(served))
    served.gates(served.of(RunStarted)[-1].run, 900)
    ask = {"pipeline": "rain", "by": "ann"}
    served.tell(TrainingAsked(request="t1", start=100, **ask), TrainingAsked(request="t2", start=700, **ask))
    assert [run.excluded for run in served.of(RunStarted)[-2:]] == [(BAD,), ()]


def test_a_request_that_did_not_know_of_the_range_starts_a_run_that_leaves_it_out(served):
    served.bar(BAD, **good(served))
    asked = served.of(TrainingRequested)[0].model_copy(update={"request": "crossed", "trigger": "person"})
    served.tell(asked)
    assert served.of(RunStarted)[-1].excluded == (BAD,)


def test_before_any_good_snapshot_a_run_from_the_start_of_the_log_takes_over(served):
    (first,) = served.live
    served.bar((50, 90))
    assert (served.aliases["champion"].run, served.aliases["champion"].follows) == (first, True)
    anew = served.of(RunStarted)[-1]
    assert (anew.start_offset, anew.parent, anew.excluded) == (0, None, ((50, 90),))
    assert served.live == {first, anew.run}
    served.gates(anew.run, 900)
    assert served.aliases["champion"].run == anew.run
    assert served.live == {anew.run}


def test_without_any_version_the_first_model_begins_anew_without_the_range():
    decisions = Decisions().tell(
        ReleaseAsked(pipeline="rain", request="q", by="ann", definition=DEFINITION, partitions=1, topic_id="1f3a9c2e")
    )
    decisions.bar((50, 90))
    first, anew = decisions.of(RunStarted)
    assert (anew.start_offset, anew.excluded) == (0, ((50, 90),))
    assert decisions.live == {anew.run}
    decisions.gates(first.run, 200)
    assert decisions.aliases == {}


def test_a_challenger_that_learned_from_the_range_ends_and_the_fork_has_its_place(served):
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", start=300))
    challenger = served.of(RunStarted)[-1].run
    served.gates(challenger, 700)
    assert served.aliases["challenger"].run == challenger
    served.bar(BAD, **good(served))
    assert set(served.aliases) == {"champion"}
    assert challenger not in served.live
    assert [event.run for event in served.of(AliasRemoved)] == [challenger]
    (superseded,) = served.of(ChallengerSuperseded)
    assert (superseded.run, superseded.numbers["gave_way_start"]) == (challenger, 300)


def test_a_run_whose_gates_passed_before_the_range_was_barred_is_no_challenger_for_it_would_learn_the_range(served):
    """Its snapshot is from before the range; its verdicts stand between the request and what the registry says."""
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", start=300))
    late = served.of(RunStarted)[-1].run
    asked = RollbackAsked(pipeline="rain", request="back", by="ann", bad_ranges=(BAD,), **good(served))
    served.tell(asked, *served.passed(late, 450))
    assert set(served.aliases) == {"champion"}
    assert "or is about to" in served.of(RequestRefused)[-1].reason
    assert late not in served.live
    assert served.live == {served.of(RunStarted)[-1].run}


def test_a_run_that_starts_when_its_place_is_gone_already_is_told_and_competes_with_nobody(served):
    """A person asks for a training, and before its run starts the rollback's takes the slot."""
    trained = TrainingAsked(pipeline="rain", request="t", by="ann", start=700)
    asked = RollbackAsked(pipeline="rain", request="back", by="ann", bad_ranges=(BAD,), **good(served))
    served.tell(trained, asked)
    late = next(run.run for run in served.of(RunStarted) if run.request == "t")
    assert [(event.run, event.by_request) for event in served.of(ChallengerSuperseded)] == [(late, "without-back")]
    served.tell(*served.passed(late, 900))
    assert set(served.aliases) == {"champion"}
    assert late not in served.live


def test_a_challenger_that_began_after_the_range_is_no_reason_to_keep_it_from_what_it_can_do(served):
    """The newest good snapshot may be its own: it never learned from the range."""
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", start=650))
    challenger = served.of(RunStarted)[-1].run
    served.gates(challenger, 900)
    served.bar(BAD, version=2, uri=f"{challenger}@950", snapshot_offset=950)
    assert (served.aliases["champion"].run, served.aliases["champion"].snapshot_offset) == (challenger, 950)
    assert served.of(TrainingRequested)[-1].start == 950


@pytest.mark.parametrize("start", [300, 650], ids=["learned it", "never learned it"])
def test_a_challenger_in_its_canary_serves_nobody_any_more_and_its_late_verdict_moves_nothing(served, start):
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", start=start))
    challenger = served.of(RunStarted)[-1].run
    served.gates(challenger, 900)
    served.tell(served.online(challenger))
    canary = served.aliases["challenger"]
    assert (canary.run, canary.share) == (challenger, 0.1)
    served.bar(BAD, **good(served))
    assert set(served.aliases) == {"champion"}
    assert challenger not in served.live
    before = served.aliases
    served.tell(served.online(challenger, share=canary.share))
    assert served.aliases == before
    fork = served.of(RunStarted)[-1].run
    served.gates(fork, 1_200)
    assert (served.aliases["champion"].run, set(served.aliases)) == (fork, {"champion"})


def test_where_only_the_previous_model_learned_the_range_a_canary_goes_on(served):
    def takes_over(request, start):
        served.tell(TrainingAsked(pipeline="rain", request=request, by="ann", start=start))
        run, against = served.of(RunStarted)[-1].run, served.aliases["champion"].run
        served.gates(run, start + 250)
        return run, lambda share=None: served.tell(served.online(run, share).model_copy(update={"against": against}))

    first = served.aliases["champion"].run
    champion, wins = takes_over("t", 650)
    for share in (None, 0.1, 0.5):
        wins(share)
    challenger, wins = takes_over("t2", 700)
    wins()
    assert {alias: update.run for alias, update in served.aliases.items()} == {
        "champion": champion, "previous": first, "challenger": challenger
    }  # fmt: skip
    served.bar(BAD)
    assert {alias: update.run for alias, update in served.aliases.items()} == {
        "champion": champion, "challenger": challenger
    }  # fmt: skip
    assert served.aliases["challenger"].share == 0.1


def test_a_snapshot_behind_the_range_or_a_descendant_of_one_is_refused(served):
    served.bar(BAD, **good(served, 550))
    assert "has learned from the range itself" in served.of(RequestRefused)[-1].reason
    served.bar(BAD, **good(served), request="again")
    fork = served.of(RunStarted)[-1].run
    served.gates(fork, 900)
    served.bar((300, 310), request="older", version=2, uri=f"{fork}@890", snapshot_offset=890)
    assert "version 2 at offset 890 has learned from the range itself" in served.of(RequestRefused)[-1].reason


def test_a_version_that_learned_from_a_barred_range_is_no_place_to_go_back_to(served):
    served.bar(BAD, **good(served))
    served.gates(served.of(RunStarted)[-1].run, 900)
    served.tell(RollbackAsked(pipeline="rain", request="r2", by="ann", **good(served, 700)))
    assert "version 1 at offset 700 has learned from a barred range" in served.of(RequestRefused)[-1].reason
    served.tell(RollbackAsked(pipeline="rain", request="r3", by="ann", **good(served, 490)))
    assert served.aliases["champion"].uri == good(served, 490)["uri"]


def test_more_of_the_range_while_the_fork_learns_makes_another_fork_of_the_same_snapshot(served):
    served.bar(BAD, **good(served))
    (fork,) = served.live
    served.bar((600, 640), request="more", **good(served))
    again = served.of(RunStarted)[-1]
    assert (again.parent, again.excluded) == (good(served)["uri"], ((500, 640),))
    assert served.live == {again.run}
    assert fork != again.run
    assert len([event for event in served.of(ModelUpdated) if event.barred]) == 1


def test_a_range_that_the_champion_never_learned_is_barred_and_nothing_moves(served):
    served.bar(BAD, **good(served))
    served.gates(served.of(RunStarted)[-1].run, 900)
    (run,) = served.live
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", start=650))
    late = served.of(RunStarted)[-1].run
    served.gates(late, 1_000)
    version = served.aliases["challenger"].version
    served.bar((610, 620), request="b2", version=version, uri=f"{late}@1000", snapshot_offset=1_000)
    served.gates(served.of(RunStarted)[-1].run, 1_300)
    trained = len(served.of(TrainingRequested))
    served.bar((630, 640), request="b3")
    assert served.of(RangeBarred)[-1].again_from is None
    assert len(served.of(TrainingRequested)) == trained
    assert run not in served.live
    served.tell(TrainingAsked(pipeline="rain", request="t9", by="ann"))
    assert served.of(RunStarted)[-1].excluded == (BAD, (610, 620), (630, 640))


def test_the_fork_goes_ahead_of_what_a_person_asks_for_meanwhile(served):
    served.bar(BAD, **good(served))
    (fork,) = served.live
    served.tell(TrainingAsked(pipeline="rain", request="t", by="ann", seed=4))
    assert served.live == {fork}
    served.gates(fork, 900)
    assert served.of(RunStarted)[-1].request == "t"
    assert served.of(RunStarted)[-1].excluded == (BAD,)


@pytest.mark.parametrize(
    ("bad", "snapshot", "says"),
    [
        (((5, 5),), {}, "names no offsets"),
        (((-1, 5),), {}, "names no offsets"),
        ((BAD,), {"version": 1}, "a version or a snapshot, but not both"),
        ((BAD,), {"version": 7, "uri": "x", "snapshot_offset": 3}, "has no version 7"),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_refused_and_bars_nothing(served, bad, snapshot, says):
    served.bar(*bad, **snapshot)
    (refused,) = served.of(RequestRefused)
    assert says in refused.reason
    assert refused.next
    assert served.of(RangeBarred) == []


def test_a_range_that_is_barred_already_is_said_to_be(served):
    served.bar(BAD, **good(served)).bar((510, 520), request="again")
    assert "barred already" in served.of(RequestRefused)[-1].reason


def test_the_examples_of_ranges_hold():
    assert doctest.testmod(ranges).failed == 0
