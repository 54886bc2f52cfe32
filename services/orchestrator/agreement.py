"""Alerts that start a training together: so many different ones within a time, by `Triggers(alerts=Alerts(…))`.

A signal is a kind of alert, or one column's drift. Of each only the newest counts, so that one that repeats itself does
not outvote the others; what has started a training counts for no second one, and another champion begins anew.
"""

from __future__ import annotations

from headrace.schemas.control import DriftDetected
from headrace.schemas.policies import Alerts
from headrace.schemas.record import Emit
from headrace.services.orchestrator.choice import of_champion
from headrace.services.orchestrator.training import Signal, Training
from headrace.services.orchestrator.triggers import automatic, newest, request, since_change, until_now


def on_signal(training: Training, event: DriftDetected, known_ms: int, offset: int) -> list[Emit]:
    """Count an alert of the champion; where the rule is met, ask for a training."""
    rule, champion = training.policies.triggers.alerts, training.champion
    if rule is None or champion is None or training.retired or event.run not in (None, champion.run):
        return []
    if event.degraded is False:
        training.signals.pop(event.kind, None)  # the loss came back
        return []
    for name in signals_of(event, rule):
        training.signals[name] = Signal(event, known_ms, offset)
    agreed = agreeing(training.signals, rule)
    if not agreed:
        return []
    training.signals = {name: one for name, one in training.signals.items() if name not in agreed}
    return _train(training, rule, agreed, known_ms)


def signals_of(event: DriftDetected, rule: Alerts) -> list[str]:
    """Which of the rule's signals an alert is: its kind, and each of its columns."""
    names = {event.kind, *(f"{event.kind}.{column}" for column in event.features)}
    return [name for name in rule.of if name in names]


def agreeing(signals: dict[str, Signal], rule: Alerts) -> dict[str, Signal]:
    """The newest signals that lie within the rule's time, oldest first; none where they are too few."""
    found = sorted(((name, one) for name, one in signals.items() if name in rule.of), key=lambda pair: pair[1].known_ms)
    within_ms = rule.within_s * 1000
    for last in range(len(found), 0, -1):
        end_ms = found[last - 1][1].known_ms
        window = [pair for pair in found[:last] if end_ms - pair[1].known_ms <= within_ms]
        if len(window) >= rule.enough:
            return dict(window)
    return {}


def _train(training: Training, rule: Alerts, agreed: dict[str, Signal], known_ms: int) -> list[Emit]:
    """From the change point where the loss is among them, else on the newest window."""
    assert training.champion is not None
    performance = agreed.get("performance")
    start = newest(training) if performance is None else max(performance.alert.since or 0, 0)
    rows = performance is not None and performance.alert.evidence.get("rows_since")
    offsets = tuple(sorted({one.offset for one in agreed.values()}))
    asked = request(
        training,
        f"alerts-{training.champion.run}-{offsets[-1]}",
        "input" if performance is None else "performance",
        f"{len(agreed)} of {len(rule.of)} alerts within {rule.within_s:g} s: {', '.join(agreed)}",
        start=start,
        end=since_change(training, performance.alert) if performance and rows else until_now(training, start),
        recipe=of_champion(training),
    ).model_copy(update={"alerts": offsets})
    return automatic(training, asked, known_ms)
