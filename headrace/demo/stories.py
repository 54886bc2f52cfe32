"""The streams that the demo can play: each a pipeline file, its rows, and what really happens in them."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

from headrace.demo.measure import ACCURACY, ERROR, Measure
from headrace.schemas.stream import Features, Label

Rows = Iterator[tuple[Features, Label]]
DATA_SHA256 = "57e305c4ee2f8b9f2bf3216497a37f76fd12381b3e0e87ed0862d61660308971"
FLIPPED_SEED, FLIPS_AT = 1, 6_000
REGRESSION_SEED, ANOTHER_RULE_AT = 1, 6_000
POISON_SEED, BAD_ROWS, TENTH, GAUGE_IS_OUT, OUT_EACH = 1, range(4_000, 4_300), 0.1, -999.0, 30


@dataclass(frozen=True)
class Story:
    """A stream with a change in it; `slow` are the rows around the change, where one wants to watch.

    `otherwise` says what the first run is that goes on without the policy. `bad` are the rows that a person takes back.
    """

    name: str
    stream: Callable[[], Rows]
    rows: int
    unit: str
    changes_at: int
    slow: range
    label_delay_rows: int
    title: str
    told: str
    mark: str
    measure: Measure = ACCURACY
    otherwise: str = "never replaced"
    bad: range | None = None

    def source(self) -> bytes:
        """The pipeline file, as a user would write it."""
        return resources.files("headrace.examples").joinpath(f"{self.name}.py").read_bytes()

    def rate(self, row: int) -> float:
        """Rows a second at this row: fast, slow through the change, fast again."""
        return SLOW if row in self.slow else FAST


FAST, SLOW = 500.0, 40.0


def rainfall_rows(limit: int | None = None) -> Rows:
    """Features and label of each day, in order. Raises ValueError where the shipped file is not the recorded one."""
    packed = resources.files("headrace.examples").joinpath("rainfall.csv.xz").read_bytes()
    plain = lzma.decompress(packed)
    if hashlib.sha256(plain).hexdigest() != DATA_SHA256:
        raise ValueError("headrace/examples/rainfall.csv.xz is not the file that was shipped; install again")
    for row in itertools.islice(csv.DictReader(io.StringIO(plain.decode())), limit):
        row.pop("day")
        label = row.pop("rain") == "1"
        yield {name: float(value) for name, value in row.items()}, label


def flipped_rows(seed: int = FLIPPED_SEED) -> Rows:
    """SEA concepts (Street and Kim 2001, https://doi.org/10.1145/502512.502568): a sum of two above 7, then above 9."""
    from river.datasets import synth

    before, after = (synth.SEA(variant, seed=seed + number) for number, variant in enumerate((2, 1)))
    for x, above in itertools.chain(itertools.islice(before, FLIPS_AT), after):
        yield dict(zip(("first", "second", "third"), x.values(), strict=True)), bool(above)


def regression_rows(seed: int = REGRESSION_SEED) -> Rows:
    """Friedman's function (1991, https://doi.org/10.1214/aos/1176347963) of five of ten numbers, then of other ones.

    The change is global and abrupt (Ikonomovska et al. 2011, https://doi.org/10.1007/s10618-010-0201-y).
    """
    from river.datasets import synth

    never = 1 << 62  # the stream's second change, back to the first rule
    stream = synth.FriedmanDrift("gra", position=(ANOTHER_RULE_AT, never), seed=seed)
    for x, y in stream:
        yield {f"x{number}": value for number, value in x.items()}, float(y)


def poisoned_rows(seed: int = POISON_SEED) -> Rows:
    """A SEA concept whose first two columns come in tenths for a while; some of those rows are a gauge's error code."""
    from river.datasets import synth

    for number, (x, above) in enumerate(synth.SEA(2, seed=seed)):
        north, south, wind = x.values()
        if number in BAD_ROWS:
            north, south = north * TENTH, south * TENTH
            if number % OUT_EACH == 0:
                north = GAUGE_IS_OUT
        yield {"north": north, "south": south, "wind": wind}, bool(above)


STORIES = {
    story.name: story
    for story in (
        Story(
            name="rainfall",
            stream=rainfall_rows,
            rows=18_159,
            unit="day",
            changes_at=12_000,
            slow=range(11_900, 12_700),
            label_delay_rows=0,
            title="Rain on the day, predicted before the label was known",
            told="From row 12,000 on each column of this published file holds its right neighbour's values (dew_point "
            "holds pressure, and so on): a broken column mapping, not climate. A model trained since the change is the "
            "remedy for the day; the cure is to mend the mapping.",
            mark="column mapping breaks in the file",
        ),
        Story(
            name="flip",
            stream=flipped_rows,
            rows=12_000,
            unit="point",
            changes_at=FLIPS_AT,
            slow=range(5_950, 6_800),
            label_delay_rows=20,
            title="Above the limit or not, predicted before the label was known",
            told="At row 6,000 the rule itself changes: the sum of the first two columns must be above 9, not 7. No "
            "input shows it; only the labels do, and what was learned before is wrong from there on.",
            mark="the rule changes",
        ),
        Story(
            name="regression",
            stream=regression_rows,
            rows=12_000,
            unit="sample",
            changes_at=ANOTHER_RULE_AT,
            slow=range(5_950, 7_000),
            label_delay_rows=20,
            title="A number, predicted before it was known",
            told="At row 6,000 the number begins to follow from other columns than before. A regression tree that grew "
            "under the old rule keeps its old splits; one that is trained since the change has none to unlearn.",
            mark="another rule holds",
            measure=ERROR,
        ),
        Story(
            name="poison",
            stream=poisoned_rows,
            rows=8_000,
            unit="hour",
            changes_at=BAD_ROWS.stop,
            slow=range(3_950, 5_100),
            label_delay_rows=0,
            title="Overflow or not, predicted before the label was known",
            told="From row 4,000 to 4,299 two gauges reported tenths of what they measured: values that the contract "
            "allows, so they were predicted and learned. Where a gauge reported its error code, the contract rejected "
            "the row. A rollback of that time serves the model from before it, trains a fork on everything else, and "
            "never learns the bad hour again.",
            mark="gauges report tenths",
            otherwise="never rolled back",
            bad=BAD_ROWS,
        ),
    )
}
