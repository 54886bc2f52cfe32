"""The predictor: exactly one prediction for every example, whatever the models do; arms move together."""

import math
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, decode, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    AliasRemoved,
    ModelUpdated,
    PipelineReleased,
    PipelineRetired,
    ReleaseDefinition,
    RunSnapshot,
    SnapshotTaken,
)
from headrace.schemas.policies import Gates, Policies, Rollout
from headrace.schemas.record import Record
from headrace.schemas.stream import SHED, ArmPrediction, Baselines, ExampleArrived, LabelArrived, Tick
from headrace.schemas.topics import full_name
from headrace.services.predictor import arms as arms_module
from headrace.services.predictor import core
from headrace.services.predictor.arms import Arms, Revision, wanted
from headrace.services.predictor.core import Arm, State, World
from headrace.verbs import answer_then_learn, project, verbs

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(event, offset=0, partition=0):
    return Record(
        event,
        1_000,
        "<p>.data-validated",
        "rain",
        partition,
        offset,
        b"k",
        encode(event) if event else b"",
        f"/validator/rain/0a1b2c3d/{partition}",
        (offset + 5) << 16,
    )


def example(number=1, **more):
    return ExampleArrived(id=f"d{number}", time=NOON, features={"x": float(number)}, **more)


def arm(answer, run="a", learned_to=3, columns=None, releases=(0, 1)):
    return Arm(1, run, learned_to, columns or {}, frozenset(releases), answer)


def fail(features):
    raise RuntimeError("broken")


def predict(state, event, world, offset=0):
    (emit,) = core.step(state, record(event, offset), world)
    return emit.event


def definition(label="bool", values=None, columns=("x",)):
    contract = ContractSpec(
        name="Weather",
        features=tuple(FeatureSpec(name=name, type="float") for name in columns),
        label=LabelSpec(type=label, values=values),
    )
    none = "0" * 64
    return ReleaseDefinition(
        contract=contract,
        policies=Policies(),
        contract_digest=none,
        policies_digest=none,
        recipe_digest=none,
        source_digest=none,
        source_uri="none",
    )


def release(number=1, **more):
    return PipelineReleased(
        pipeline="rain", release=number, definition=definition(**more), partitions=1, request="q", by="ann"
    )


# --- one prediction for every example ---------------------------------------------------------------------


def test_without_a_champion_the_prediction_is_cold_and_learning_can_begin():
    made = predict(State(), example(), World())
    assert (made.predictions, made.served, made.cold, made.features) == ({}, None, True, {"x": 1.0})
    assert made.origin == (0, 5)


def test_every_arm_answers_and_the_champion_is_served():
    world = World({"champion": arm(lambda x: x["x"] / 10), "challenger": arm(lambda x: 0.25, run="b")}, epoch=4)
    made = predict(State(release=1), example(2), world)
    assert made.predictions == {
        "champion": ArmPrediction(version=1, run="a", learned_to=3, value=0.2),
        "challenger": ArmPrediction(version=1, run="b", learned_to=3, value=0.25),
    }
    assert (made.served, made.cold, made.epoch, made.release) == ("champion", False, 4, 1)


def test_an_arm_that_raises_is_an_error_in_that_arm_only():
    world = World({"champion": arm(fail), "challenger": arm(lambda x: 0.5)})
    made = predict(State(), example(), world)
    assert made.predictions["champion"].error == "RuntimeError: broken"
    assert made.predictions["champion"].value is None
    assert made.predictions["challenger"].value == 0.5
    assert made.served is None
    assert not made.cold


def test_out_of_memory_is_no_answer_but_the_end_of_the_process():
    def exhaust(features):
        raise MemoryError

    with pytest.raises(MemoryError):
        predict(State(), example(), World({"champion": arm(exhaust)}))


def test_a_champion_without_an_opinion_serves_nothing():
    made = predict(State(), example(), World({"champion": arm(lambda x: None)}))
    assert (made.served, made.cold, made.predictions["champion"].error) == (None, False, None)


def test_history_is_never_predicted():
    made = predict(State(), example(history=True), World({"champion": arm(fail)}))
    assert (made.predictions, made.served, made.history) == ({}, None, True)


def test_an_arm_sees_only_the_columns_of_its_signature():
    seen = []
    old = arm(lambda x: seen.append(x) or 0.5, columns={"x": True}, releases=(1,))
    event = ExampleArrived(id="d", time=NOON, features={"new": 1.0, "x": 2.0})
    made = predict(State(release=2), event, World({"champion": old}))
    assert seen == [{"x": 2.0}]
    assert made.features == {"new": 1.0, "x": 2.0}


def test_a_missing_required_column_is_an_error_and_never_zero():
    needs = arm(lambda x: 0.5, columns={"x": True, "y": True, "z": False}, releases=(7,))
    made = predict(State(release=2), example(), World({"champion": needs}))
    assert made.predictions["champion"].error == "FeatureMissing: the example lacks y"


def test_projection_keeps_the_order_in_which_the_columns_came():
    assert list(project({"c": 1, "b": 2, "a": 3}, {"a": True, "c": True})) == ["c", "a"]


def test_the_prediction_goes_to_the_partition_and_key_of_its_example():
    (emit,) = core.step(State(), record(example(), offset=9, partition=2), World())
    assert (emit.topic, emit.partition, emit.key, emit.event.origin) == ("<p>.predictions", 2, b"k", (2, 14))


# --- what passes, and what it leaves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        LabelArrived(id="d1", time=NOON, label=True),
        Tick(schedule="minute", due=NOON, signature="s", pipeline="rain"),
        release(),
        PipelineRetired(pipeline="rain", request="q", by="ann"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_labels_and_in_band_events_pass_byte_for_byte(event):
    given = record(event)
    (emit,) = core.step(State(), given, World())
    assert (emit.topic, emit.partition, emit.body, emit.event) == ("<p>.predictions", 0, given.body, event)


def test_the_release_in_force_is_that_of_the_newest_marker_passed():
    state = State()
    releases = []
    for event in (example(), release(1), example(), release(2), example(), release(1), example()):
        (emit,) = core.step(state, record(event), World())
        if isinstance(event, ExampleArrived):
            releases.append(emit.event.release)
    assert releases == [0, 1, 2, 2]


def baselines_after(labels, first=None):
    state = State()
    if first is not None:
        core.step(state, record(first), World())
    told = []
    for number, label in enumerate(labels):
        core.step(state, record(LabelArrived(id=str(number), time=NOON, label=label)), World())
        told.append(predict(state, example(), World()).baselines)
    return told


def test_baselines_are_the_majority_and_the_last_label_before_the_example():
    assert predict(State(), example(), World()).baselines == Baselines()
    assert [(b.majority, b.last) for b in baselines_after([True, False, False, True, True])] == [
        (True, True),
        (True, False),
        (False, False),
        (False, True),
        (True, True),
    ]


def test_baselines_of_numbers_are_the_mean_and_the_last():
    told = baselines_after([2, 4.0, 9.0], release(label="float"))
    assert [(b.majority, b.mean, b.last) for b in told] == [(None, 2.0, 2), (None, 3.0, 4.0), (None, 5.0, 9.0)]


def test_open_classes_are_counted_up_to_a_bound():
    labels = [f"c{n}" for n in range(core.CLASSES_AT_MOST)] + ["late"] * 3 + ["c7"]
    told = baselines_after(labels, release(label="str"))
    assert told[-2].majority == "c0"
    assert told[-2].last == "late"
    assert told[-1].majority == "c7"


# --- what an answer is -------------------------------------------------------------------------------------


class Told:
    """A model that says what it is told to."""

    def __init__(self, said):
        self.predict_one = self.predict_proba_one = lambda x: said
        self.learned = []

    def learn_one(self, x, y):
        self.learned.append(y)


@pytest.mark.parametrize(
    ("label", "probabilities", "said", "answer"),
    [
        ("bool", True, {False: 0.25, True: 0.75}, 0.75),
        ("bool", True, {False: 1.0}, 0.0),
        ("bool", True, {}, None),
        ("bool", False, True, True),
        ("bool", False, None, None),
        ("str", True, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}),
        ("str", True, {}, None),
        ("str", False, "a", "a"),
        ("float", True, 3, 3.0),
        ("float", True, None, None),
    ],
)
def test_an_answer_is_what_the_label_calls_for(label, probabilities, said, answer):
    ask, _ = verbs(Told(said), LabelSpec(type=label), probabilities)
    given = ask({})
    assert given == answer
    assert type(given) is type(answer)


@pytest.mark.parametrize(
    ("label", "said"),
    [("bool", {True: math.nan}), ("bool", {True: math.inf}), ("str", {"a": math.nan, "b": 1.0}), ("float", math.inf)],
)
def test_an_answer_that_is_not_finite_is_an_error(label, said):
    ask, _ = verbs(Told(said), LabelSpec(type=label), True)
    made = predict(State(), example(), World({"champion": arm(ask)}))
    assert made.predictions["champion"].error.startswith("NotFinite: ")
    assert made.served is None


def test_numbers_of_numpy_become_plain_ones():
    numpy = pytest.importorskip("numpy")
    ask, _ = verbs(Told({True: numpy.float64(0.5)}), LabelSpec(type="bool"), True)
    assert type(ask({})) is float
    made = predict(State(), example(), World({"champion": arm(ask)}))
    assert decode(TYPE_OF[type(made)], encode(made)) == made


def test_labels_of_numbers_are_learned_as_floats():
    model = Told(0.0)
    _, learn = verbs(model, LabelSpec(type="float"), True)
    learn({}, 3)
    assert [type(y) for y in model.learned] == [float]


@pytest.mark.parametrize("said", [math.nan, math.inf, {}, "what", None])
def test_training_goes_on_without_a_usable_answer(said):
    model = Told(said)
    train = answer_then_learn(model, LabelSpec(type="float"), True)
    assert train({}, 3) is None
    assert [(y, type(y)) for y in model.learned] == [(3.0, float)]


# --- which revision each alias answers with ----------------------------------------------------------------


def updated(alias="champion", run="a", offset=200, follows=True, epoch=1, version=1):
    return ModelUpdated(
        pipeline="rain",
        alias=alias,
        version=version,
        run=run,
        release=1,
        snapshot_offset=offset,
        uri=f"{run}@{offset}",
        follows=follows,
        epoch=epoch,
        reason="",
    )


def taken(offset, *runs, unfit=()):
    shots = {
        run: RunSnapshot(uri=f"{run}@{offset}", digest="d", n_learned=offset, fit=run not in unfit) for run in runs
    }
    return SnapshotTaken(pipeline="rain", offset=offset, runs=shots)


def test_the_newest_snapshot_that_is_fit_serves():
    aliases = {"champion": updated()}
    snapshots = [taken(150, "a"), taken(210, "a"), taken(220, "a"), taken(230, "a", unfit="a"), taken(240, "b")]
    assert wanted(aliases, snapshots, {}) == {"champion": Revision("a", 220, "a@220")}


def test_a_snapshot_from_before_the_alias_moved_is_not_taken():
    assert wanted({"champion": updated()}, [taken(150, "a")], {}) == {"champion": Revision("a", 200, "a@200")}


def test_an_alias_that_does_not_follow_stays_with_its_bytes():
    assert wanted({"champion": updated(follows=False)}, [taken(300, "a")], {})["champion"].offset == 200


def test_all_arms_move_to_one_offset_together_or_not_at_all():
    aliases = {"champion": updated(), "challenger": updated("challenger", "b", 250, version=2)}
    loaded = {"champion": Revision("a", 240, "a@240")}
    apart = wanted(aliases, [taken(260, "a"), taken(270, "b"), taken(280, "a", "b", unfit="b")], loaded)
    assert apart == {"champion": loaded["champion"], "challenger": Revision("b", 250, "b@250")}
    together = wanted(aliases, [taken(290, "a", "b")], loaded)
    assert together == {"champion": Revision("a", 290, "a@290"), "challenger": Revision("b", 290, "b@290")}


def test_an_alias_moved_to_a_later_snapshot_of_its_run_does_not_stay_behind():
    loaded = {"champion": Revision("a", 150, "a@150")}
    assert wanted({"champion": updated()}, [], loaded) == {"champion": Revision("a", 200, "a@200")}


def test_a_run_that_followed_does_not_go_back_when_an_unfit_snapshot_comes():
    loaded = {"champion": Revision("a", 220, "a@220")}
    assert wanted({"champion": updated()}, [taken(230, "a", unfit="a")], loaded) == loaded


# --- loading -----------------------------------------------------------------------------------------------

SOURCE = b'''
from headrace import Contract, Pipeline
from river import linear_model, preprocessing

class Weather(Contract):
    """One number."""
    x: float

class Own(linear_model.LogisticRegression):
    """A class that only this file defines."""

def recipe(seed):
    return preprocessing.StandardScaler() | Own()

pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe)
'''


class Plant:
    """Tables on the in-process log, models in a store; the test plays registry and trainer, and sets the clock."""

    def __init__(self, home):
        self.bus, self.now = MemoryBus(clock=lambda: 1_000), 0.0
        self.artifacts = Artifacts(str(home / "artifacts"), b"key")
        create_topics.create(self.bus)
        (home / "rain.py").write_bytes(SOURCE)
        self.pipeline = pipeline_files.load_file(home / "rain.py")
        create_topics.create_pipeline(self.bus, "rain", 1, self.pipeline.policies())
        _, uri = self.artifacts.put_source(SOURCE)
        self.definition = pipeline_files.definition(self.pipeline, SOURCE, uri)
        settings = Settings(home=home, instance="t", artifact_key="key")
        self.wiring = Wiring(
            settings, self.bus, self.artifacts, b"key", lambda fold, place: None, timing={"clock": lambda: self.now}
        )
        self.say("pipelines", release().model_copy(update={"definition": self.definition}))
        self.model = self.pipeline.recipe(0)
        self.offset = 0

    def say(self, topic, event, sequence=None):
        topic = full_name(topic, "rain")
        number = self.bus.offsets((topic, 0))[1] if sequence is None else sequence
        self.bus.append(topic, 0, b"rain", encode(event), headers_of(TYPE_OF[type(event)], "/t", number), 1_000)

    def learn(self, rows=10):
        for n in range(rows):
            self.model.learn_one({"x": float(n % 5)}, n % 5 > 2)
        self.offset += rows

    def stored(self):
        return self.artifacts.put(model_bytes.dumps(self.model), Manifest(kind="model", run="a", offset=self.offset))

    def promote(self, uri=None, **more):
        event = updated(offset=self.offset, **more)
        self.say("model-updates", event.model_copy(update={"uri": uri or self.stored()}))

    def snapshot(self, uri=None, fit=True):
        shot = RunSnapshot(uri=uri or self.stored(), digest="d", n_learned=self.offset, fit=fit)
        self.say("<p>.snapshots", SnapshotTaken(pipeline="rain", offset=self.offset, runs={"a": shot}))

    def expected(self, x):
        return self.model.predict_proba_one({"x": x})[True]


@pytest.fixture
def plant(tmp_path):
    return Plant(tmp_path)


def champion(arms):
    return arms.world("rain").arms["champion"]


def test_what_stands_in_the_tables_is_loaded_before_the_first_record(plant):
    plant.learn()
    plant.promote()
    plant.learn()
    plant.snapshot()
    arms = Arms(plant.wiring)
    assert champion(arms).learned_to == 20
    assert champion(arms).answer({"x": 1.0}) == plant.expected(1.0)
    assert arms.world("rain").epoch == 1
    assert arms.world("elsewhere") == World()


def test_classes_of_the_authors_file_are_found_in_its_stored_source(plant):
    plant.learn()
    plant.promote()
    expected = plant.expected(1.0)
    del sys.modules[type(plant.model.steps["Own"]).__module__]
    assert champion(Arms(plant.wiring)).answer({"x": 1.0}) == expected


def test_a_newer_revision_replaces_the_world_as_a_whole(plant):
    plant.learn()
    plant.promote()
    arms = Arms(plant.wiring)
    before = arms.world("rain")
    old = before.arms["champion"].answer({"x": 1.0})
    plant.learn()
    plant.snapshot()
    plant.now += 10
    assert arms.tick() > 0
    assert before.arms["champion"].answer({"x": 1.0}) == old
    assert champion(arms).answer({"x": 1.0}) == plant.expected(1.0) != old
    assert arms.tick() == 0


def test_an_unfit_snapshot_is_not_loaded(plant):
    plant.learn()
    plant.promote()
    arms = Arms(plant.wiring)
    plant.learn()
    plant.snapshot(fit=False)
    plant.now += 10
    arms.tick()
    assert champion(arms).learned_to == 10


def test_the_tables_are_asked_every_few_milliseconds_and_not_after_each_batch(plant):
    plant.learn()
    arms = Arms(plant.wiring)
    arms.tick()
    plant.promote()
    plant.now += arms_module.POLL_S / 2
    assert arms.tick() == 0
    plant.now += arms_module.POLL_S
    assert arms.tick() > 0
    assert champion(arms).learned_to == 10


def test_a_slow_load_is_followed_by_a_pause_and_only_the_newest_revision_is_loaded(plant):
    plant.learn()
    plant.promote()
    arms = Arms(plant.wiring)
    assert arms.loads == 1
    for _ in range(3):
        plant.learn()
        plant.snapshot()
        plant.now += 2 * arms_module.POLL_S / 1_000
        arms.tick()
    assert (arms.loads, champion(arms).learned_to) == (1, 10)
    plant.now += 60
    arms.tick()
    assert (arms.loads, champion(arms).learned_to) == (2, 40)


def test_what_cannot_be_loaded_leaves_the_old_arm_serving_and_is_told(plant):
    plant.learn()
    plant.promote()
    arms = Arms(plant.wiring)
    plant.learn()
    plant.snapshot(uri="model/00/gone")
    plant.now += 10
    arms.tick()
    assert champion(arms).learned_to == 10
    assert "ArtifactMissing" in arms.counts()["rain"]["trouble"]
    plant.learn()
    plant.snapshot()
    plant.now += 10
    arms.tick()
    assert champion(arms).learned_to == 30
    assert "trouble" not in arms.counts()["rain"]


def test_an_arm_that_cannot_be_loaded_for_a_minute_is_an_error(plant):
    plant.learn()
    plant.promote(uri="model/00/gone")
    arms = Arms(plant.wiring)
    assert arms.world("rain").arms == {}
    for _ in range(int(arms_module.ERROR_AFTER_S) + 1):
        plant.now += 1.0
        arms.tick()
    made = predict(State(release=1), example(), arms.world("rain"))
    assert made.predictions["champion"].error.startswith("NotLoadable: ArtifactMissing")
    plant.learn()
    plant.snapshot()
    plant.now += 10
    arms.tick()
    assert predict(State(release=1), example(), arms.world("rain")).served == "champion"


def test_a_model_of_another_key_is_refused_before_it_is_unpickled(plant, tmp_path):
    plant.learn()
    foreign = Artifacts(str(tmp_path / "artifacts"), b"other").put(
        b"cos\nsystem\n(S'true'\ntR.", Manifest(kind="model")
    )
    plant.promote(uri=foreign)
    arms = Arms(plant.wiring)
    assert "ArtifactForeignKey" in arms.counts()["rain"]["trouble"]


def test_an_older_move_of_an_alias_told_late_changes_nothing(plant):
    plant.learn()
    plant.promote(epoch=2, version=2)
    plant.promote(epoch=1, version=1)
    assert champion(Arms(plant.wiring)).version == 2


def gone(alias, run, epoch):
    return AliasRemoved(pipeline="rain", alias=alias, run=run, epoch=epoch, reason="")


def test_an_arm_whose_alias_is_removed_answers_no_more_and_the_epoch_goes_on(plant):
    plant.learn()
    plant.promote()
    plant.promote(alias="challenger", run="b", epoch=2, version=2)
    arms = Arms(plant.wiring)
    assert list(arms.world("rain").arms) == ["champion", "challenger"]
    plant.say("model-updates", gone("challenger", "b", 3))
    plant.now += 10
    arms.tick()
    assert (list(arms.world("rain").arms), arms.world("rain").epoch) == (["champion"], 3)


def test_a_removal_told_late_does_not_take_away_the_alias_that_came_after_it(plant):
    plant.learn()
    plant.promote()
    plant.promote(alias="challenger", run="c", epoch=4, version=3)
    plant.say("model-updates", gone("challenger", "b", 3))
    assert list(Arms(plant.wiring).world("rain").arms) == ["champion", "challenger"]


def test_predictions_of_a_linear_model_loaded_are_those_of_the_model_itself(plant):
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for n in range(50):
        model.learn_one({"x": float(n % 7)}, n % 7 > 3)
    ask, _ = verbs(model_bytes.loads(model_bytes.dumps(model)), LabelSpec(type="bool"), True)
    assert [ask({"x": float(n)}) for n in range(9)] == [
        model.predict_proba_one({"x": float(n)})[True] for n in range(9)
    ]


def test_a_canary_step_that_moves_the_alias_and_nothing_else_is_taken_up_with_its_epoch(plant):
    plant.learn()
    uri = plant.stored()
    plant.promote(uri)
    plant.promote(uri, alias="challenger", run="b", epoch=2, version=2)
    arms = Arms(plant.wiring)
    assert (arms.world("rain").epoch, arms.world("rain").share) == (2, None)
    for epoch, share in ((3, 0.1), (4, 0.5)):
        step = updated("challenger", "b", plant.offset, epoch=epoch, version=2)
        plant.say("model-updates", step.model_copy(update={"uri": uri, "share": share}))
        plant.now += 60.0
        arms.tick()
        assert (arms.world("rain").epoch, arms.world("rain").share) == (epoch, share)
    plant.say("model-updates", gone("challenger", "b", epoch=5))
    plant.now += 60.0
    arms.tick()
    assert (list(arms.world("rain").arms), arms.world("rain").share) == (["champion"], None)
    arms.close()


# --- what arms in shadow may take -------------------------------------------------------------------------


def test_only_where_an_arm_serves_nobody_its_time_is_counted_and_by_the_policy_in_force(plant):
    plant.learn()
    plant.promote()
    arms = Arms(plant.wiring)
    assert arms.world("rain").budget is None
    plant.promote(alias="challenger", run="b", epoch=2, version=2)
    plant.now += 10
    arms.tick()
    budget = arms.world("rain").budget
    assert (budget.share, budget.burst_s) == (0.1, 0.05)
    policies = Policies(rollout=Rollout(shadow_share=0.4), gates=Gates(predict_ms=5))
    changed = plant.definition.model_copy(update={"policies": policies})
    plant.say("pipelines", release(2).model_copy(update={"definition": changed}))
    plant.now += 10
    arms.tick()
    assert arms.world("rain").budget is budget
    assert (budget.share, budget.burst_s) == (0.4, 0.005)


def test_in_the_in_process_system_no_time_is_counted(plant):
    plant.learn()
    plant.promote()
    plant.promote(alias="challenger", run="b", epoch=2, version=2)
    arms = Arms(replace(plant.wiring, clock_ms=lambda: 0))
    assert list(arms.world("rain").arms) == ["champion", "challenger"]
    assert arms.world("rain").budget is None
    assert "shed" not in arms.counts()["rain"]


def test_what_was_shed_is_counted_and_a_newer_revision_has_no_new_credit(plant):
    now_s = [0.0]
    plant.learn()
    plant.promote()
    plant.promote(alias="challenger", run="b", epoch=2, version=2)
    arms = Arms(plant.wiring, now=lambda: now_s[0], cpu=lambda: now_s[0])
    budget = arms.world("rain").budget
    budget.begin()
    for _ in range(2):  # two answers that took a second
        now_s[0] += 1
        budget.charge("b", serves=False)

    def asked():
        return predict(State(release=1), example(), arms.world("rain")).predictions["challenger"]

    assert (asked().error, arms.counts()["rain"]["shed"]) == (SHED, 1)
    plant.promote(alias="challenger", run="b", epoch=3, version=3)
    plant.now += 60
    arms.tick()
    assert (asked().version, asked().error, arms.counts()["rain"]["shed"]) == (3, SHED, 3)
    now_s[0] += 20
    assert asked().error is None
