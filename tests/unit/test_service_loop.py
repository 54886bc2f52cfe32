"""The loop of a service: when it gives back the memory that a burst took."""

from types import SimpleNamespace

import pytest

from headrace.infra import service


@pytest.mark.parametrize(("records", "times"), [(service.BURST, 1), (service.BURST - 1, 0)])
def test_memory_is_given_back_once_after_a_burst_and_a_quiet_time(records, times, monkeypatch):
    monkeypatch.setattr(service, "QUIET_S", 0.0)
    given_back, stop, turns = [], SimpleNamespace(asked=False), iter([records, *[0] * 50])
    monkeypatch.setattr(service, "give_back_memory", lambda: given_back.append(True))

    def tick(timeout_s=0.0):
        done = next(turns, None)
        stop.asked = done is None
        return done or 0

    service.loop([SimpleNamespace(tick=tick)], stop, lambda: None)
    assert len(given_back) == times


def test_giving_memory_back_is_safe_at_any_time():
    service.give_back_memory()
