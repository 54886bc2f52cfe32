"""How many labelled examples stand in the log and where the newest of them begin, as trainings are asked by it.

Told at 200 labels and each doubling, at multiples of `every_labels`, and, where a training of the newest window may
begin at any time, in every minute that brought labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.schemas.policies import Triggers

FIRST_COUNT = 200
PIECES = 20  # of a window: it begins at most one piece too early


@dataclass(slots=True)
class Counting:
    """The labels so far, and the places among which the window begins: labels before each, and its offset."""

    labels: int = 0
    told: int = 0
    next_count: int = FIRST_COUNT
    every_labels: int | None = None
    by_minute: bool = False
    window_labels: int = Triggers().window_labels
    places: list[tuple[int, int]] = field(default_factory=list)

    def take_up(self, triggers: Triggers) -> None:
        """The rules of a release."""
        self.every_labels, self.window_labels = triggers.every_labels, triggers.window_labels
        self.by_minute = triggers.schedule is not None or triggers.on_input_drift or triggers.alerts is not None

    def add(self, offset: int) -> bool:
        """Count the label at an offset; whether the count is to be told."""
        places = self.places
        if not self.labels % max(1, self.window_labels // PIECES):
            places.append((self.labels, offset if self.labels else 0))
        self.labels += 1
        while len(places) > 1 and self.labels - places[1][0] >= self.window_labels:
            del places[0]
        due = self.labels == self.next_count
        if due:
            self.next_count *= 2
        return due or (self.every_labels is not None and self.labels % self.every_labels == 0)

    def is_due(self) -> bool:
        """A minute passed: whether the count is to be told."""
        return self.by_minute and self.labels > self.told

    def newest(self) -> tuple[int, int]:
        """The offset at which the newest window begins, and how many labels it has."""
        before, offset = self.places[0]
        return offset, self.labels - before
