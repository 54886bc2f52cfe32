"""Kills, freezes and broker outages at random on genuine Kafka: nothing lost, nothing learned twice.

`make chaos KILLS=1000` runs the same for longer and prints the report.
"""

import os
import signal

import pytest
import rain
from aftermath import bodies_of_repeats, out_of_order, store_is_the_log
from chaos import FREEZE_S, SEED, Chaos, Watch, go_on, groups_caught_up, repeats_of, report, stream

from headrace.infra import local_broker
from headrace.services import SERVICES


class OneBroker:
    """The broker of a home: no other one goes on while it is away."""

    def __init__(self, home):
        self._home = home

    def restart(self):
        broker = local_broker.running(self._home)
        os.kill(broker.pid, signal.SIGKILL)
        os.waitpid(broker.pid, 0)
        return [(1, lambda: local_broker.start(self._home, say=lambda text: None))]

    def freeze(self):
        pid = local_broker.running(self._home).pid
        os.kill(pid, signal.SIGSTOP)
        return [(FREEZE_S, lambda: go_on(pid))]

    def is_whole(self):
        return True  # `start` waits for it


@pytest.mark.kafka
def test_whatever_is_killed_or_frozen_nothing_is_lost_or_learned_twice(own_stack, own_broker, until, tmp_path_factory):
    stack, broker = own_stack, OneBroker(own_broker)
    chaos = Chaos(stack, broker, SEED)
    stack.release(rain.SOURCE, "rain")
    watch = Watch(stack)
    rows = stream(
        stack,
        chaos,
        [lambda: chaos.freeze("joiner"), broker.restart, lambda: chaos.freeze("trainer"), broker.freeze],
    )

    rain.every_row_is_joined_once_and_learned(stack, rows, until)

    watch.stop()
    groups_caught_up(stack)
    assert (watch.went_back, watch.beyond) == ([], [])
    assert set(chaos.killed) == set(SERVICES), "each was hit"
    repeats, unlike = bodies_of_repeats(stack, "rain")
    assert unlike == []
    report(rows, chaos, watch, repeats_of(stack), stack, repeats_by_topic=repeats)
    print(f"{store_is_the_log(stack, tmp_path_factory.mktemp('store')):,} rows of the store, each as in one made anew")


@pytest.mark.kafka
@pytest.mark.slow
def test_with_several_partitions_the_rows_of_a_key_keep_their_order(own_stack, own_broker, until):
    stack, broker = own_stack, OneBroker(own_broker)
    chaos = Chaos(stack, broker, SEED)
    stack.release(rain.BY_STATION, "rain", partitions=3)
    watch = Watch(stack)
    rows = stream(stack, chaos, [lambda: chaos.freeze("joiner"), broker.restart], stations=rain.STATIONS)

    rain.every_row_is_joined_once_in_some_order_and_learned(stack, rows, until)

    watch.stop()
    groups_caught_up(stack)
    assert (watch.went_back, watch.beyond) == ([], [])
    assert out_of_order(stack, "rain", rain.numbers(rows)) == []
    repeats, unlike = bodies_of_repeats(stack, "rain")
    assert unlike == []
    report(rows, chaos, watch, repeats_of(stack), stack, repeats_by_topic=repeats)
