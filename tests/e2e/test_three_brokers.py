"""On three brokers with three copies of everything, as in production: brokers die, freeze, restart; leaders move.

`CHAOS_KILLS` says how many services are killed beside; each twenty more come with one more round of the brokers'.
"""

import subprocess
import sys
import time

import pytest
import rain
from chaos import KILLS, SEED, Chaos, Watch, groups_caught_up, repeats_of, report, stream
from cluster import NODES, PAST_SESSION_S

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
EVERY_S = 2.0


def test_whatever_brokers_die_or_freeze_nothing_is_lost_or_learned_twice(cluster, replicated_stack, until):
    stack, began = replicated_stack, time.monotonic()
    chaos = Chaos(stack, cluster, SEED)
    stack.release(rain.SOURCE, "rain")
    watch = Watch(stack)

    rows = stream(stack, chaos, bad_days(cluster, stack) * max(1, KILLS // 20), EVERY_S)

    rain.every_row_is_joined_once_and_learned(stack, rows, until)
    what_holds_of_all(cluster, stack, chaos, watch, rows, began)


def test_rows_of_three_partitions_are_joined_and_learned_once_while_brokers_die(cluster, replicated_stack, until):
    stack, began = replicated_stack, time.monotonic()
    chaos = Chaos(stack, cluster, SEED)
    stack.release(rain.SOURCE, "rain", partitions=3)
    watch = Watch(stack)
    labelled = stack.topic("<p>.labelled-examples", "rain")

    rows = stream(
        stack,
        chaos,
        [
            lambda: cluster.kill(cluster.leader(labelled), after_s=PAST_SESSION_S),
            cluster.elect_preferred,
            *(lambda node=node: cluster.kill(node) for node in NODES),
        ],
        EVERY_S,
    )

    rain.every_row_is_joined_once_in_some_order_and_learned(stack, rows, until)
    what_holds_of_all(cluster, stack, chaos, watch, rows, began)


def bad_days(cluster, stack):
    """What happens to the brokers, each when the last is over: all partitions have their three copies again."""

    def leader(name):
        return cluster.leader(stack.topic(name, "rain"))

    return [
        lambda: cluster.kill(leader("<p>.labelled-examples"), after_s=PAST_SESSION_S),
        lambda: cluster.kill(leader("<p>.predictions")),
        cluster.elect_preferred,
        lambda: cluster.freeze(leader("<p>.data-validated")),
        lambda: cluster.kill(leader("<p>.data-arrived"), after_s=PAST_SESSION_S),
        cluster.elect_preferred,
        *(lambda node=node: cluster.stop_and_start(node) for node in NODES),
        lambda: cluster.freeze(leader("<p>.labelled-examples")),
        lambda: cluster.kill(*NODES[:2]),
        cluster.elect_preferred,
    ]


def what_holds_of_all(cluster, stack, chaos, watch, rows, began):
    watch.stop()
    groups_caught_up(stack)
    assert watch.went_back == []
    mine = [topic for topic in stack.bus.topics() if topic.startswith(stack.namespace)]
    assert {topic: n for topic, n in cluster.replicas().items() if topic in mine and n != len(NODES)} == {}
    report(
        rows, chaos, watch, repeats_of(stack), stack,
        brokers=cluster.done, leader_moves=cluster.leader_moves(mine), seconds=round(time.monotonic() - began),
    )  # fmt: skip


def test_two_of_three_brokers_are_enough_for_the_command_line(cluster, tmp_path, monkeypatch, until):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", cluster.address)
    for gone in NODES:
        (back,) = cluster.kill(gone)
        for command in ("up", "doctor", "topics --check", "status", "down"):
            done = headrace(command)
            assert done.returncode == 0, f"{command} without broker {gone}: {done.stdout}{done.stderr}"
        back[1]()
        until(cluster.is_whole, limit_s=60, says="three copies of everything")


def headrace(command):
    return subprocess.run(
        [sys.executable, "-m", "headrace", *command.split()], capture_output=True, text=True, timeout=120, check=False
    )
