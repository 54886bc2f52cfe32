"""Input and prediction drift: given these predictions, then these alerts; and how often without a cause."""

import pickle
from datetime import UTC, datetime

import numpy as np
import pytest
from definitions import definition_of

from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased
from headrace.schemas.policies import Drift, Policies
from headrace.schemas.record import Record
from headrace.schemas.stream import ArmPrediction, PredictionMade
from headrace.services.monitor.columns import Column, Latch
from headrace.services.monitor.inputs import DECODERS, State, step
from headrace.services.monitor.panel import Panel, limit_of, panel_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TYPES = {"x": "float", "y": "float", "colour": "str"}


def record(event, offset=0):
    return Record(event, 1_000 * offset, "<p>.predictions", "rain", 0, offset, source="/predictor/rain/t/0")


def released(types=None, release=1, **drift):
    features = tuple(FeatureSpec(name=n, type=t, optional=True) for n, t in (types or TYPES).items())
    definition = definition_of(
        contract=ContractSpec(name="R", features=features, label=LabelSpec(type="bool")),
        policies=Policies(drift=Drift(**drift)),
    )
    return PipelineReleased(pipeline="rain", release=release, definition=definition, partitions=1, request="q", by="a")


def predicted(features, arms=(), epoch=1, history=False):
    made = PredictionMade(
        id="1",
        time=NOON,
        features=features,
        predictions={alias: ArmPrediction(version=1, run=run, learned_to=0, value=v) for alias, run, v in arms},
        served="champion" if any(alias == "champion" for alias, *_ in arms) else None,
        release=1,
        epoch=epoch,
        origin=(0, 0),
        history=history,
    )
    return DECODERS["PredictionMade"](encode(made))


class Watch:
    """A partition's monitor, fed row by row."""

    def __init__(self, **drift):
        self.state, self.offset, self.rng = State(), 0, np.random.default_rng(1)
        self.tell(released(**drift))

    def tell(self, event):
        emits = step(self.state, record(event, self.offset), None)
        self.offset += 1
        return [emit.event for emit in emits]

    def rows(self, n, arms=(), epoch=1, history=False, **columns):
        """Rows of made-up values; a column is a function of the generator, None leaves it out."""
        made = {"x": lambda r: r.normal(), "y": lambda r: r.exponential(), "colour": colour} | columns
        told = []
        for _ in range(n):
            row = {name: value for name, make in made.items() if (value := make(self.rng)) is not None}
            told += self.tell(predicted(row, arms(self.rng) if callable(arms) else arms, epoch, history))
        return told


def colour(rng):
    return ("red", "green", "blue")[int(rng.random() * 3)]


def test_the_same_inputs_for_ever_raise_no_alert():
    assert Watch().rows(15_000) == []


def test_a_shift_is_told_once_with_its_column_its_size_and_where_it_began():
    watch = Watch()
    assert watch.rows(6_000) == []
    (alert,) = watch.rows(4_000, x=lambda r: r.normal(1.0))
    assert (alert.kind, alert.level, alert.features, alert.topic) == ("input", "warning", ("x",), "<p>.predictions")
    assert alert.since == 6_001
    assert alert.offset <= 6_001 + 500
    assert alert.evidence["columns"]["x"]["psi"] > alert.evidence["columns"]["x"]["limit"] == 0.1
    assert alert.diagnosis is None
    assert (alert.evidence["reference_rows"], alert.evidence["example"]) == (5_000, alert.offset)


def test_one_alert_names_every_column_that_changed_at_once_the_largest_change_first():
    watch = Watch()
    watch.rows(6_000)
    (alert,) = watch.rows(3_000, x=lambda r: r.normal(2.0), y=lambda r: r.exponential() * 5 + 4)
    assert alert.features == ("y", "x")


def test_a_change_that_grows_to_twice_its_size_is_told_again():
    watch = Watch()
    watch.rows(6_000)
    assert len(watch.rows(3_000, x=lambda r: r.normal(0.6))) == 1
    assert len(watch.rows(3_000, x=lambda r: r.normal(2.0))) == 1


def test_a_change_that_went_away_and_came_back_is_told_again():
    watch = Watch()
    watch.rows(6_000)
    assert len(watch.rows(3_000, x=lambda r: r.normal(1.0))) == 1
    assert watch.rows(5_000) == []
    assert len(watch.rows(3_000, x=lambda r: r.normal(1.0))) == 1


def test_missing_values_have_a_rule_of_their_own():
    watch = Watch()
    watch.rows(6_000)
    (alert,) = watch.rows(4_000, y=lambda r: r.exponential() if r.random() > 0.02 else None)
    assert alert.features == ("y",)
    assert alert.evidence["columns"]["y"].keys() == {"missing", "missing_before", "p_missing"}


def test_a_column_that_is_gone_is_named():
    watch = Watch()
    watch.rows(6_000)
    (alert,) = watch.rows(3_000, y=lambda r: None)
    assert alert.diagnosis == "`y` is missing"


def test_a_column_that_stands_still_is_named():
    watch = Watch()
    watch.rows(6_000)
    (alert,) = watch.rows(3_000, x=lambda r: 0.25)
    assert alert.diagnosis == "`x` is constantly 0.25"


def test_values_that_a_closed_column_never_had_are_named():
    watch = Watch()
    watch.rows(6_000)
    (alert,) = watch.rows(3_000, colour=lambda r: "mauve" if r.random() < 0.03 else colour(r))
    assert alert.features == ("colour",)
    assert alert.diagnosis == "`colour` has values it never had: 'mauve'"


def test_an_open_column_may_have_new_values_for_ever():
    watch = Watch()
    assert watch.rows(9_000, colour=lambda r: f"user-{r.integers(100_000)}") == []


def test_a_change_of_unit_is_named():
    watch = Watch()
    watch.rows(6_000, x=lambda r: r.normal(15, 8))
    (alert,) = watch.rows(3_000, x=lambda r: r.normal(15, 8) * 1.8 + 32)
    assert alert.diagnosis == "the unit of `x` looks changed: °C became °F"


def test_swapped_columns_are_named():
    watch = Watch()
    watch.rows(6_000, x=lambda r: r.normal(15, 8), y=lambda r: r.normal(1_000, 9))
    (alert,) = watch.rows(3_000, y=lambda r: r.normal(15, 8), x=lambda r: r.normal(1_000, 9))
    assert alert.diagnosis in ("`x` and `y` look swapped", "`y` and `x` look swapped")


def test_a_column_that_holds_another_ones_values_is_named():
    watch = Watch()
    watch.rows(6_000, x=lambda r: r.normal(15, 8), y=lambda r: r.normal(1_000, 9))
    (alert,) = watch.rows(3_000, x=lambda r: r.normal(1_000, 9), y=lambda r: r.normal(1_000, 9))
    assert alert.diagnosis == "`x` now looks like `y` did"


def test_columns_shifted_by_one_are_named():
    names = [f"c{i}" for i in range(6)]
    panel = Panel([Column(name, True, 0.1) for name in names], 1_000, 0.01)
    rng, told = np.random.default_rng(3), []
    from headrace.services.monitor.diagnosis import diagnose

    for number in range(8_000):
        base = rng.normal()
        values = [(place + 1) * (base * (place % 3) + rng.normal()) for place in range(6)]
        if number >= 6_000:
            values = values[1:] + values[:1]
        found = panel.add(dict(zip(names, values, strict=True)), number, number)
        if found:
            told.append((number, found.offset, diagnose(panel, list(found.columns), found.rows)))
    assert told[0][0] < 6_500
    assert told[0][1] == 6_000
    assert told[0][2].startswith("the columns look shifted by 1 to the left: `c0` holds `c1`, `c1` holds `c2`")


def test_served_predictions_are_watched_from_the_champions_first_answer():
    watch = Watch()
    watch.rows(500)
    assert watch.rows(6_000, arms=lambda r: [("champion", "r1", float(r.beta(2, 5)))]) == []
    (alert,) = watch.rows(2_000, arms=lambda r: [("champion", "r1", float(r.beta(5, 2)))])
    assert (alert.kind, alert.level, alert.features, alert.run) == ("prediction", "warning", (), "r1")


def test_the_answers_of_classes_are_watched_by_the_likeliest():
    watch = Watch()
    watch.rows(6_000, arms=lambda r: [("champion", "r1", {"dry": 0.9, "wet": 0.1})])
    (alert,) = watch.rows(2_000, arms=lambda r: [("champion", "r1", {"dry": 0.4, "wet": 0.6})])
    assert alert.kind == "prediction"


def test_after_a_promotion_the_reference_is_what_the_new_champion_learned_from():
    watch, old = Watch(), [("champion", "r1", 0.5)]
    watch.rows(6_000, arms=old)
    shifted = {"x": lambda r: r.normal(1.0)}
    assert len(watch.rows(1_000, arms=old, **shifted)) == 1
    both = [*old, ("challenger", "r2", 0.5)]
    assert watch.rows(2_500, arms=both, epoch=2, **shifted) == []
    new = [("champion", "r2", 0.5), ("previous", "r1", 0.5)]
    assert watch.rows(5_000, arms=new, epoch=3, **shifted) == []
    (back,) = watch.rows(2_000, arms=new, epoch=3)
    assert (back.features, back.run, back.epoch) == (("x",), "r2", 3)


def test_an_answer_by_older_aliases_is_no_promotion():
    watch, new, old = Watch(), [("champion", "r2", 0.5)], [("champion", "r1", 0.5)]
    watch.rows(2_500, arms=new, epoch=3)
    watch.rows(1, arms=old, epoch=2)
    assert (watch.state.run, watch.state.inputs.seen, watch.state.epoch) == ("r2", 2_501, 3)
    watch.rows(1, arms=old, epoch=4)
    assert (watch.state.run, watch.state.inputs.seen) == ("r1", 1)


def test_history_is_never_an_alert_and_no_reference():
    watch = Watch()
    watch.rows(6_000)
    assert watch.rows(3_000, history=True, x=lambda r: r.normal(5.0)) == []
    assert watch.state.examples == 6_000


def test_a_release_with_other_columns_begins_anew_and_the_same_one_does_not():
    watch = Watch()
    watch.rows(3_000)
    watch.tell(released(release=2))
    assert watch.state.inputs.seen == 3_000
    watch.tell(released(types={"x": "float"}, release=3))
    assert [column.name for column in watch.state.inputs.columns] == ["x"]
    watch.tell(released(release=2))
    assert len(watch.state.inputs.columns) == 1


def test_before_a_release_nothing_is_known_and_nothing_told():
    assert step(State(), record(predicted({"x": 1.0})), None) == []


def test_with_a_season_the_windows_hold_whole_ones():
    drift = Drift(season=365)
    assert (panel_of([], drift).window, limit_of(drift)) == (1_095, 0.25)
    hour, watch = iter(range(1_000_000)), Watch(season=24)
    assert watch.rows(9_000, x=lambda r: float(np.sin(next(hour) / 24 * 2 * np.pi) * 3 + r.normal())) == []


def test_a_latch_hears_again_at_twice_the_size_or_after_silence():
    latch = Latch()
    said = [latch.hears(True, size) for size in (0.2, 0.5, 0.6, 0.6, 0.6, 0.9, 1.3)]
    assert said == [True, False, False, False, False, False, True]
    assert not any(latch.hears(False, 0.0) for _ in range(12))
    assert latch.hears(True, 0.2)


def made_up(rng, n):
    """Twenty columns: normal, lognormal, zero-inflated, five categories."""
    columns = {}
    for place in range(5):
        columns[f"n{place}"] = rng.normal(size=n)
        columns[f"l{place}"] = rng.lognormal(size=n)
        columns[f"z{place}"] = np.where(rng.random(n) < 0.7, 0.0, rng.exponential(size=n))
        columns[f"c{place}"] = rng.choice(list("abcde"), n, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    return columns


def alarms(columns, window=1_000):
    panel = Panel([Column(name, name[0] != "c", 0.1) for name in columns], window, 0.01)
    names, listed = list(columns), [values.tolist() for values in columns.values()]
    found = []
    for number, row in enumerate(zip(*listed, strict=True)):
        one = panel.add(dict(zip(names, row, strict=True)), number, number)
        if one is not None:
            found.append((number, one))
    return found


@pytest.mark.long
@pytest.mark.parametrize("window", [500, 1_000])
def test_twenty_stationary_streams_of_twenty_thousand_rows_raise_no_alarm(window):
    """Stated: at most 1 alarm in 400,000 rows of 20 columns."""
    told = [alarms(made_up(np.random.default_rng(seed), 20_000), window) for seed in range(20)]
    assert sum(map(len, told)) <= 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "change", "rows"),
    [
        ("n0", lambda rng, v: v + 0.5, 1_000),
        ("n0", lambda rng, v: v + 1.0, 500),
        ("l0", lambda rng, v: v * 1.8, 1_000),
        ("n0", lambda rng, v: v * 1.5, 1_250),
        ("c0", lambda rng, v: np.where(rng.random(len(v)) < 0.3, "e", v), 750),
    ],
    ids=["shift .5 sd", "shift 1 sd", "factor 1.8", "scale 1.5", "a rare category"],
)
def test_changes_of_a_stated_size_are_found_within_stated_rows(name, change, rows):
    for seed in range(10):
        rng = np.random.default_rng(100 + seed)
        columns = made_up(rng, 9_000)
        columns[name] = np.concatenate([columns[name][:6_000], change(rng, columns[name][6_000:])])
        number, found = alarms(columns)[0]
        assert 6_000 <= number < 6_000 + rows
        assert list(found.columns) == [name]


def test_the_state_of_fifty_columns_stays_below_a_megabyte_and_a_half():
    rng, panel = np.random.default_rng(5), Panel([Column(f"n{i}", True, 0.1) for i in range(50)], 1_000, 0.01)
    names, largest = [column.name for column in panel.columns], 0
    for number, row in enumerate(rng.normal(size=(8_000, 50)).tolist()):
        panel.add(dict(zip(names, row, strict=True)), number, number)
        if not number % 250 or number == 1_999:
            largest = max(largest, len(pickle.dumps(panel)))
    settled = len(pickle.dumps(panel))
    assert largest < 1_500_000  # while the first reference fills: its 2,000 rows
    assert settled < 100_000


def wandering(seed, rows, rho=0.9, columns=8):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)) * np.sqrt(1 - rho * rho)
    for row in range(1, rows):
        values[row] += rho * values[row - 1]
    return {f"n{place}": values[:, place] for place in range(columns)}


def test_columns_that_wander_are_told_of_rarely_and_with_longer_windows_hardly_ever():
    """Of rows that each follow from the last (autocorrelation .9) uncorrected tests flag 80 % of these windows."""
    assert sum(len(alarms(wandering(seed, 20_000))) for seed in range(4)) <= 24  # of 288 windows, a quarter apart
    assert sum(len(alarms(wandering(seed, 40_000), 5_000)) for seed in range(4)) <= 2


def test_a_monitor_of_inputs_saved_anywhere_tells_the_same():
    def history(save_every):
        watch, told = Watch(window=200), []
        for number in range(4_000):
            if save_every and not number % save_every:
                watch.state = pickle.loads(pickle.dumps(watch.state))
            moved = {"x": lambda r: r.normal(2.0)} if number > 2_000 else {}
            told += watch.rows(1, arms=lambda r: [("champion", "r1", float(r.beta(2, 5)))], **moved)
        return [encode(alert) for alert in told]

    assert history(0) == history(37) != []


def test_a_whole_number_beyond_a_floats_reach_stops_nobody():
    watch = Watch(types={"x": "int", "y": "float"})
    told = watch.rows(9_000, x=lambda r: int(r.integers(100)) if watch.state.examples != 7_000 else 10**400)
    assert told == []
    assert Watch(types={"x": "int"}).rows(2_500, x=lambda r: 10**400) == []


def test_a_long_window_keeps_no_more_rows_than_a_short_one():
    panel = Panel([Column("n0", True, 0.1)], 100_000, 0.01)
    rng, found = np.random.default_rng(6), []
    for number in range(400_000):
        one = panel.add({"n0": rng.normal(1.0 if number >= 300_000 else 0.0)}, number, number)
        assert len(panel.rows) < 250
        if one is not None:
            found.append((number, one.offset))
    assert found == [(349_999, 300_000)]


def test_what_was_found_while_a_challenger_was_in_shadow_is_told_again_of_the_champion_it_becomes():
    watch, old = Watch(), [("champion", "r1", 0.5)]
    watch.rows(3_000, arms=old)
    watch.rows(2_500, arms=[*old, ("challenger", "r2", 0.5)], epoch=2)
    shifted = {"x": lambda r: r.normal(1.0)}
    assert len(watch.rows(2_000, arms=[*old, ("challenger", "r2", 0.5)], epoch=2, **shifted)) == 1
    (alert,) = watch.rows(2_000, arms=[("champion", "r2", 0.5)], epoch=3, **shifted)
    assert (alert.run, alert.features) == ("r2", ("x",))
