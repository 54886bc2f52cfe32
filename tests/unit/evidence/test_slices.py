"""A new run that is clearly worse in one slice does not serve there, however much better it is elsewhere."""

import pytest

from headrace.schemas.policies import Gates, Slice

AFTER = {"champion": "b", "previous": "a"}
STATIONS = {"Cairns": {}, "Darwin": {}, "Perth": {}, "Hobart": {}}
AT_HOBART = "not worse at station=Hobart"


def worse_at_hobart(accuracy, arm):
    return STATIONS | {"Hobart": {arm: accuracy}}


@pytest.fixture
def by_station(new_stream):
    """A stream with four stations, of which each had enough rows before the evidence begins."""
    return lambda **policies: new_stream(slices=(Slice("station"),), **policies).binary(
        1_000, slices=STATIONS, champion=0.8
    )


def test_a_challenger_that_is_better_in_all_and_clearly_worse_in_one_slice_fails(by_station):
    stream = by_station()
    stream.binary(4_000, until=stream.is_over, slices=worse_at_hobart(0.5, "challenger"), champion=0.8, challenger=0.83)
    checks = stream.checks()
    assert stream.verdicts[-1] == ("online", "fail")
    assert (checks[AT_HOBART].verdict, checks[AT_HOBART].slice) == ("fail", "station=Hobart")
    assert checks[AT_HOBART].value >= checks[AT_HOBART].limit == pytest.approx(4 * 20)
    assert checks[AT_HOBART].n == pytest.approx(checks["evidence"].n / 4, abs=1)
    assert {check.verdict for name, check in checks.items() if check.slice and name != AT_HOBART} == {"pass"}
    assert checks["futility"].verdict == "pass"


def test_the_same_challenger_without_declared_slices_is_promoted(after_a_while):
    """It is 14 points worse at one station of four, and the mean hides it."""
    stream, slices = after_a_while(1_000), worse_at_hobart(0.66, "challenger")
    stream.binary(5_000, until=lambda: bool(stream.told), slices=slices, champion=0.8, challenger=0.92)
    assert stream.verdicts == [("online", "pass")]
    assert not [check for check in stream.told[0].checks if check.slice]


@pytest.mark.parametrize("seed", range(3))
def test_a_challenger_that_is_better_everywhere_passes_with_all_slices_told(seed, by_station):
    stream = by_station(seed=seed)
    stream.binary(3_000, until=lambda: bool(stream.told), slices=STATIONS, champion=0.75, challenger=0.87)
    assert stream.verdicts == [("online", "pass")]
    assert [check.slice for check in stream.told[0].checks if check.slice] == [
        "station=Cairns", "station=Darwin", "station=Hobart", "station=Perth",
    ]  # fmt: skip


def test_a_guard_takes_back_a_champion_that_is_worse_in_one_slice(by_station):
    stream = by_station(gates=Gates(guard_labels=4_000))
    stream.binary(4_000, slices=worse_at_hobart(0.5, "champion"), champion=0.83, previous=0.8, runs=AFTER, epoch=3)
    checks = stream.checks()
    assert stream.verdicts == [("guard", "fail")]
    assert (checks["evidence"].verdict, checks[AT_HOBART].verdict) == ("pass", "fail")
    assert checks[AT_HOBART].limit == pytest.approx(4 * 100)


def test_a_canary_ends_where_its_challenger_is_worse_in_one_slice(by_station):
    stream = by_station()
    slices = worse_at_hobart(0.4, "challenger")
    stream.binary(2_500, share=0.1, until=stream.is_over, slices=slices, champion=0.8, challenger=0.85)
    assert stream.verdicts[-1] == ("online", "fail")
    assert stream.checks()[AT_HOBART].verdict == "fail"
    assert stream.checks()["evidence"].verdict == "pass"


def test_slices_that_were_too_rare_before_are_not_judged_and_stop_nothing(new_stream):
    stream = new_stream(slices=(Slice("station"),)).binary(600, slices=STATIONS, champion=0.8)
    stream.binary(3_000, until=lambda: bool(stream.told), slices=STATIONS, champion=0.7, challenger=0.85)
    assert stream.verdicts == [("online", "pass")]
    assert not [check for check in stream.told[0].checks if check.slice]
