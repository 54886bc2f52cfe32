"""A challenger beside the champion: given these answers and labels, then that verdict."""

import pytest

from headrace.schemas.policies import Gates, Labels, Success


def test_a_better_challenger_passes_and_the_verdict_shows_its_numbers(after_a_while):
    stream = after_a_while()
    stream.binary(2_000, champion=0.8, challenger=0.92, epoch=3, until=lambda: stream.told)
    told, checks = stream.told[0], stream.checks()
    assert (told.stage, told.verdict, told.run, told.against, told.epoch) == ("online", "pass", "b", "a", 3)
    assert 200 <= told.n_labels < 1_000
    assert (told.request, told.offset) == ("", stream.offset + 1)
    assert checks["evidence"].value >= checks["evidence"].limit == pytest.approx(20)
    assert checks["evidence"].n == told.n_labels
    assert checks["accuracy"].value > checks["accuracy"].limit
    assert checks["coverage"].value == 1.0
    assert checks["rarest class"].value > 50
    assert "variance inflation 3.00" in checks["evidence"].detail
    assert 0.05 < checks["gain"].value < 0.2
    assert f"gain {checks['gain'].value:+.4f}" in checks["evidence"].detail
    assert checks["gain"].limit == 0.01
    assert "of majority" in checks["baselines"].detail
    assert checks["evidence"].looks == checks["missing answers"].looks == told.n_labels - 200 + 1
    assert "Waudby-Smith" in checks["evidence"].source
    assert checks["accuracy"].looks is None


def test_a_pass_is_told_again_at_each_limit_that_alpha_spent_over_challengers_asks_for(after_a_while):
    stream = after_a_while()
    stream.binary(3_000, champion=0.7, challenger=0.95)
    values = [stream.checks(index)["evidence"].value for index in range(len(stream.told))]
    assert {event.verdict for event in stream.told} == {"pass"}
    limits = [20.0] + [20 * 3.1415926535**2 * k * k / 6 for k in range(1, 11)]
    for limit in limits:
        assert any(value >= limit for value in values)  # so the registry meets its own alpha, whichever it is
    assert values == sorted(values)
    assert 5 < len(values) < 40  # and a strong challenger does not fill the log


@pytest.mark.parametrize("seed", range(3))
def test_an_equal_challenger_is_never_promoted(seed, after_a_while):
    stream = after_a_while(seed=seed, gates=Gates(max_labels=1_500))
    stream.binary(1_600, champion=0.8, challenger=0.8, until=stream.is_over)
    assert stream.verdicts in ([("online", "fail")], [("online", "inconclusive")])
    assert stream.told[0].n_labels <= 1_500


def test_a_worse_challenger_fails_by_futility_and_then_nothing_more_is_told(after_a_while):
    stream = after_a_while()
    stream.binary(1_500, champion=0.8, challenger=0.65)
    assert stream.verdicts == [("online", "fail")]
    assert stream.checks()["futility"].verdict == "fail"
    assert stream.told[0].n_labels < 600
    assert not stream.state.waiting
    assert not stream.state.evidence.is_open


def test_identical_arms_never_pass(after_a_while):
    stream = after_a_while()
    for _ in range(1_000):
        wet = stream.rng.random() < 0.5
        stream.predict(wet, champion=0.7, challenger=0.7)
    assert stream.verdicts == [("online", "fail")]
    assert stream.checks()["evidence"].value == 1.0  # no difference, no evidence, no inflation


def test_a_challenger_that_is_neither_better_nor_hopeless_is_given_up_after_the_most_labels_or_the_longest_time(
    after_a_while,
):
    stream = after_a_while(gates=Gates(max_labels=300))
    stream.binary(400, champion=0.8, challenger=0.82)
    assert stream.verdicts == [("online", "inconclusive")]
    assert (stream.told[0].n_labels, stream.checks()["labels"].verdict) == (300, "inconclusive")
    slow = after_a_while(gates=Gates(max_age_s=7_200.0))
    slow.binary(50, champion=0.8, challenger=0.82)
    slow.tick(hours=1)
    assert slow.told == []
    slow.tick(hours=3)
    assert slow.verdicts == [("online", "inconclusive")]
    assert slow.checks()["age"].value > 7_200


def test_a_challenger_that_does_not_answer_one_row_in_fifty_fails_though_it_is_better(after_a_while):
    stream = after_a_while()
    for number in range(300):
        wet = stream.rng.random() < 0.5
        right = 0.9 if wet else 0.1
        stream.predict(
            wet, champion=right if number % 5 else 1 - right, challenger="error" if number % 50 == 0 else right
        )
    assert stream.verdicts == [("online", "fail")]
    assert stream.checks()["missing answers"].verdict == "fail"
    assert "4 of the new run, 0 of the old one" in stream.checks()["missing answers"].detail


def test_answers_that_are_no_probabilities_cost_a_whole_loss_and_stop_nothing(after_a_while):
    stream = after_a_while(success=Success("brier", at_most=1.0))
    for value in (1e200, -3.0, 1.5, 2):
        stream.binary(60, champion=0.8)
        for _ in range(60):
            stream.predict(True, champion=0.9, challenger=value)
    assert stream.verdicts == [("online", "fail")]
    assert stream.checks()["missing answers"].value == 1.0


def test_a_challenger_with_the_smaller_loss_waits_while_the_named_metric_is_worse(new_stream):
    """It knows how sure it is, but decides worse: Brier speaks for it, f1 does not."""
    stream = new_stream(success=Success("f1", at_least=0.1), gates=Gates(max_labels=400))
    stream.binary(300, champion=0.8)
    for number in range(400):
        wet = stream.rng.random() < 0.5
        sure = 0.95 if wet else 0.05
        stream.predict(wet, champion=0.55 if wet else 0.45, challenger=sure if number % 10 else (0.45 if wet else 0.55))
    assert stream.verdicts == [("online", "inconclusive")]
    checks = stream.checks()
    assert (checks["evidence"].verdict, checks["f1"].verdict) == ("pass", "inconclusive")
    assert checks["f1"].value < checks["f1"].limit == 1.0


def test_a_verdict_needs_fifty_labels_of_the_rarest_class(new_stream):
    stream = new_stream(gates=Gates(max_labels=600))
    chance = stream.rng.random
    for number in range(1_200):
        rare = number % 20 == 0
        guess = 0.4 if chance() < 0.5 else 0.6
        arms = {"champion": guess} if number < 500 else {"champion": guess, "challenger": 0.9 if rare else 0.1}
        stream.predict(rare, **arms)
    assert stream.verdicts == [("online", "inconclusive")]
    checks = stream.checks()
    assert (checks["evidence"].verdict, checks["rarest class"].value) == ("pass", 30)
    assert "class-weighted Brier" in checks["evidence"].detail


def test_of_several_classes_the_likeliest_counts(new_stream):
    stream = new_stream(label="classes")
    chance = stream.rng.random
    for number in range(900):
        label = stream.rng.choice(["dry", "wet", "snow"])
        wrong = {"dry": 0.5, "wet": 0.3, "snow": 0.2}
        right = {one: 0.8 if one == label else 0.1 for one in wrong}
        arms = {"champion": right if chance() < 0.6 else wrong}
        stream.predict(label, **arms, **({"challenger": right if chance() < 0.8 else wrong} if number >= 300 else {}))
    assert stream.verdicts[0] == ("online", "pass")
    assert "0/1 loss" in stream.checks(0)["evidence"].detail


def test_errors_of_numbers_are_bounded_by_those_of_the_mean_so_a_model_that_diverges_fails(new_stream):
    stream = new_stream(label="float")
    gauss = stream.rng.gauss
    for number in range(700):
        y = gauss(1, 1)
        arms = {"champion": y + gauss(0, 1.0)}
        stream.predict(y, **arms, **({"challenger": y + gauss(0, 0.6)} if number >= 250 else {}))
    assert stream.verdicts[0] == ("online", "pass")
    assert stream.checks(0)["mae"].value < stream.checks(0)["mae"].limit
    assert "; mean scaled absolute error (1 is an error of " in stream.checks(0)["evidence"].detail
    wild = new_stream(label="float")
    for number in range(700):
        y = gauss(1, 1)
        arms = {"champion": y + gauss(0, 1.0)}
        wild.predict(y, **arms, **({"challenger": 10.0 ** min(number - 250, 300)} if number >= 250 else {}))
    assert wild.verdicts == [("online", "fail")]


def test_what_serves_decides_the_labels_so_they_decide_nothing(after_a_while):
    stream = after_a_while(labels=Labels(influenced=True))
    stream.binary(1_000, champion=0.8, challenger=0.95)
    assert stream.verdicts == [("online", "inconclusive")]
    assert "who gets a label" in stream.checks()["influenced"].detail
    assert stream.checks()["evidence"].verdict == "pass"  # reported all the same
