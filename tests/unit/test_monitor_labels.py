"""The flow of labels: coverage, silence and delay, each by the ticks and labels of a history."""

import heapq
import pickle
import random

from headrace.schemas.policies import Labels
from headrace.services.monitor.flow import BUCKETS_AT_MOST, Flow

MINUTE_MS = 60_000


class Feed:
    """A prediction a second; labels after a delay, for a share of them; a tick each minute."""

    def __init__(self, seed=1, **policy):
        self.flow, self.rng = Flow(Labels(**policy)), random.Random(seed)
        self.second, self.offset, self.predicted, self.due = 0, 0, 0, []

    def run(self, seconds, share=1.0, delay_s=10, predicts=True, history=False):
        told = []
        for _ in range(seconds):
            self.second += 1
            if predicts:
                delay = delay_s(self.rng) if callable(delay_s) else delay_s
                if self.rng.random() < share:
                    heapq.heappush(self.due, (self.second + delay, self.predicted, self.second))
                self.predicted += 1
            while self.due and self.due[0][0] <= self.second:
                _, number, at = heapq.heappop(self.due)
                told += self.flow.label(0, number, None if history else 1_000 * (self.second - at), self.place())
            if self.second % 60 == 0:
                told += self.flow.tick(0, self.predicted, self.place())
        return told

    def place(self):
        self.offset += 1
        return self.offset, 1_000 * self.second


def test_a_steady_feed_is_never_told_of():
    for share, delay in ((1.0, 0), (1.0, 300), (0.6, lambda r: int(r.expovariate(1 / 200))), (0.1, 20)):
        assert Feed(min_coverage=0.05).run(20_000, share, delay) == []


def test_history_counts_for_coverage_and_says_nothing_of_delays():
    feed = Feed(mature_after_s=60)
    feed.run(3_000)
    assert feed.run(5_000, delay_s=0, history=True) == []
    assert feed.flow.delays.quantile_ms(0.01) >= 10_000
    assert feed.run(3_000) == []


def test_where_only_history_was_labelled_no_delay_is_known_yet():
    feed = Feed(ttl_s=5_000)
    feed.run(6_000, history=True)
    assert feed.flow.mature_ms(6_000_000) == 5_000_000
    assert feed.run(600, share=0.0) == []


def test_labels_that_stop_while_predictions_go_on_are_told_once_with_since_when():
    feed = Feed()
    feed.run(3_000, delay_s=60)
    told = feed.run(6_000, share=0.0)
    (said,) = [one for one in told if one.rule == "silence"]
    assert said.since[1] == 1_000 * 3_060
    assert said.numbers["predictions"] >= 60
    assert said.numbers["silent_s"] <= 1_200
    assert 55 < said.numbers["usual_delay_s"] < 75


def test_labels_that_come_again_and_stop_again_are_told_again():
    feed = Feed()
    feed.run(2_000)
    assert len(feed.run(2_000, share=0.0)) == 1
    assert feed.run(2_000) == []
    assert len(feed.run(2_000, share=0.0)) == 1


def test_a_pipeline_that_nobody_asks_is_not_silent():
    feed = Feed()
    feed.run(3_000)
    assert feed.run(20_000, predicts=False) == []


def test_sparse_labels_are_not_silent_between_two():
    feed = Feed(min_coverage=0.0)
    assert feed.run(30_000, share=0.02, delay_s=5) == []


def test_a_nightly_batch_of_labels_is_not_silent_during_the_day():
    def until_midnight(rng):
        return 7_200 - feed.second % 7_200

    feed = Feed(min_coverage=0.0)
    assert [one for one in feed.run(72_000, delay_s=until_midnight) if one.rule == "silence"] == []


def test_too_few_labels_are_told_once_when_they_should_have_come():
    feed = Feed(mature_after_s=600.0)
    assert feed.run(5_000) == []
    (said,) = feed.run(6_000, share=0.3)
    assert said.rule == "coverage"
    assert said.numbers["limit"] == 0.5
    assert 0.25 < said.numbers["coverage"] < 0.5
    assert feed.run(5_000) == []
    assert len(feed.run(5_000, share=0.3)) == 1


def test_before_a_whole_ttl_is_known_no_label_counts_as_missing():
    feed = Feed(ttl_s=3_000.0)
    assert feed.run(2_900, share=0.2) == []
    assert [said.rule for said in feed.run(4_000, share=0.2)] == ["coverage"]


def test_labels_that_come_later_than_before_are_told_once():
    feed = Feed()
    feed.run(3_000, delay_s=30)
    told = feed.run(5_000, delay_s=600)
    (said,) = [one for one in told if one.rule == "delay"]
    assert said.numbers["delay_s"] > said.numbers["limit_s"] > said.numbers["usual_delay_s"]


def test_a_million_predictions_that_wait_are_a_bounded_state():
    flow = Flow(Labels())
    for number in range(0, 1_000_000, 3):
        flow.label(0, number, 1_000, (number, number * 10))
        if not number % 6_000:
            flow.tick(0, number, (number, number * 10))
    assert len(flow.buckets) <= BUCKETS_AT_MOST
    assert len(pickle.dumps(flow)) < 150_000


def test_predictions_from_before_the_log_began_are_not_missing():
    flow, told = Flow(Labels(mature_after_s=60.0)), []
    for second in range(4_000):
        told += flow.label(0, 10**9 + second, 0, (second, second * 1_000))
        if second % 60 == 0:
            told += flow.tick(0, 10**9 + second + 1, (second, second * 1_000))
    assert told == []
    assert [said.rule for s in range(4_000, 6_000, 60) for said in flow.tick(0, 10**9 + s, (s, s * 1_000))] == [
        "silence", "coverage",
    ]  # fmt: skip
