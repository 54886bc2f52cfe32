"""A fork begins with what its parent had seen. Where its first records are repeats, it learns none of them."""

from unittest.mock import patch

from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import RunStarted
from headrace.services.trainer import outside

PLACE = ("rain.labelled-examples", 0)
FIRST = 40  # labels of version 1, and of the fork's parent


def learned_by_a_fork(rain):
    """How many examples a fork of version 1 has learned, where all that its parent learned is told once more there."""
    parent = rain.roots("rain@1")
    assert rain.bus.offsets(PLACE)[1] == parent.offset
    for message in rain.bus.read(PLACE, 0, parent.offset):
        rain.bus.append(*PLACE, b"rain", message.value(), message.headers(), 0)
    rain.system.settle()
    fork = RunStarted(
        pipeline="rain", run="fork", request="by hand", release=1, seed=0, start_offset=parent.offset, parent=parent.uri
    )
    headers = headers_of(TYPE_OF[RunStarted], "/test", 0)
    rain.bus.append("training-runs", 0, b"rain", encode(fork), headers, 0)
    rain.system.settle()
    rain.live(70)
    taken = [r.event for r in rain.system.records("<p>.snapshots", "rain") if "fork" in getattr(r.event, "runs", {})]
    return taken[-1].runs["fork"].n_learned, taken[-1].runs[parent.started.run].n_learned - parent.told.n_learned


def test_a_fork_learns_no_repeat_of_what_its_parent_learned(history):
    learned, since = learned_by_a_fork(history().live(FIRST))
    assert learned == since


def test_without_the_sequences_of_its_parent_it_would(history):
    real = outside.begin

    def begin(*where):
        return real(*where)._replace(sequences={})

    with patch.object(outside, "begin", begin):
        learned, since = learned_by_a_fork(history().live(FIRST))
    assert learned == since + FIRST
