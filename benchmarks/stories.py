"""What the policy is worth on the demo's stories: the table of docs/statistics.md.

`python benchmarks/stories.py --seeds 10` (some minutes a story). Each story is played by the whole system on the
in-process log, 40 rows a second of its clock, so revisions are a few rows old; beside what was served, what would have
been at the same cadence without a replacement (or rollback) and by the first model for ever. Made-up streams have
seeds, the rainfall file is one history. `--label-delay 50 rainfall` plays it with labels so many rows late,
`--decisions` tells where an alert and what followed it stand in `labelled-examples`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

from headrace.cli import bad_range
from headrace.demo.measure import ERROR
from headrace.demo.observe import Observed
from headrace.demo.operator import LOOKS_ROWS
from headrace.demo.report import fold_again, since_the_change
from headrace.demo.run import Choices, events
from headrace.demo.stories import STORIES, Rows, Story, flipped_rows, poisoned_rows, rainfall_rows, regression_rows
from headrace.infra import pipeline_files
from headrace.infra.service import tidy_memory
from headrace.infra.system import CHAIN, System
from headrace.schemas.control import DriftDetected, ModelValidated, RollbackAsked, TrainingRequested
from headrace.schemas.stream import ExampleArrived

ROW_MS = 25
START_MS = 1_767_225_600_000  # 2026 begins
STREAMS: dict[str, Callable[[int], Rows]] = {
    "rainfall": lambda seed: rainfall_rows(),
    "flip": flipped_rows,
    "regression": regression_rows,
    "poison": poisoned_rows,
}


class Played(NamedTuple):
    """The mean scores since the change: of what was served, and of the two others; and what was decided."""

    story: str
    seed: int
    served: float
    otherwise: float
    frozen: float
    decisions: list[str]

    def is_best(self) -> bool:
        """Whether what was served is at least as good as the better of the others."""
        others = self.otherwise, self.frozen
        return self.served <= min(others) if STORIES[self.story].measure is ERROR else self.served >= max(others)


def play(name: str, seed: int, label_delay: int | None) -> Played:
    """One history of a story; labels come so many rows late, or as the story has it."""
    story = replace(STORIES[name], stream=lambda: STREAMS[name](seed))
    with tempfile.TemporaryDirectory() as folder:
        late = story.label_delay_rows if label_delay is None else label_delay
        choices = Choices(story=story, rows=story.rows, label_delay_rows=late, home=Path(folder))
        services = tuple(service for service in CHAIN if service != "recorder")
        system = System(
            Path(folder),
            services=services,
            start_ms=START_MS,
            namespace="",
            artifact_url=f"memory://{uuid.uuid4().hex}",
        )
        choices.file().parent.mkdir(parents=True)
        choices.file().write_bytes(story.source())
        pipeline = pipeline_files.load_file(choices.file())
        _, uri = system.artifacts.put_source(story.source())
        system.release(pipeline, pipeline_files.definition(pipeline, story.source(), uri))
        tidy_memory()
        stream(system, choices)
        seen = Observed(story.measure)
        for record in system.records("<p>.labelled-examples", name):
            seen.see(record, 0)
        decisions = list(decided(system))
        system.close()
        found = since_the_change(fold_again(choices.file(), seen), story.changes_at)
    scores = (nan if found[what] is None else found[what] for what in ("model", "replacing", "learning"))
    return Played(name, seed, *scores, decisions)


def decided(system: System) -> Iterator[str]:
    """Alerts about performance, what they started, and every verdict on evidence, by offset of the labelled rows."""
    for record in system.records("control-log"):
        match record.event:
            case DriftDetected(kind="performance", level="drift") as alert:
                yield f"alert at {alert.offset:,}, changed since {alert.since:,}"
            case TrainingRequested(trigger="performance") as asked:
                yield f"training from {asked.start:,}"
            case ModelValidated(stage="online" | "guard") as told:
                evidence = next((check for check in told.checks if check.name == "evidence"), None)
                by = f", E {evidence.value:.1f} over {evidence.n:,}" if evidence is not None and evidence.value else ""
                yield f"{told.stage} {told.verdict} at {told.offset:,}{by}"
            case _:
                pass


def stream(system: System, choices: Choices) -> None:
    """Publish the story; where it has a bad hour, a person takes it back."""
    bad, row = choices.story.bad, 0
    for event in events(choices):
        if isinstance(event, ExampleArrived):
            row += 1
            if bad is not None and row == bad.stop + LOOKS_ROWS:
                take_back(system, choices.story, bad)
        system.publish(choices.story.name, event, START_MS + row * ROW_MS)


def take_back(system: System, story: Story, bad: range) -> None:
    """Ask for the rollback of the bad rows' time."""
    from_ms, to_ms = (START_MS + (row + 1) * ROW_MS for row in (bad.start, bad.stop))
    found = bad_range.look_up(story.name, from_ms, to_ms, system.bus, system.artifacts)
    asked = RollbackAsked(pipeline=story.name, request="rollback", by="you", **found.fields())
    system.ask(asked)


def told(name: str, played: list[Played]) -> Iterator[str]:
    """A row of the table, and each seed where the policy was not the best."""
    best = sum(one.is_best() for one in played)
    served, otherwise, frozen = (
        median(getattr(one, what) for one in played) for what in ("served", "otherwise", "frozen")
    )
    story = STORIES[name]
    what = f"{name}, mean {story.measure.name} since row {story.changes_at:,}"
    yield (f"| {what} | {served:.3f} | {otherwise:.3f} ({story.otherwise}) | {frozen:.3f} | {best} of {len(played)} |")
    for one in played:
        if not one.is_best():
            yield f"<!-- {name}, seed {one.seed}: {one.served:.3f}, {one.otherwise:.3f}, {one.frozen:.3f} -->"


def main() -> None:
    """Print the table as it is found."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=10)
    asked.add_argument("--label-delay", type=int)
    asked.add_argument("--decisions", action="store_true")
    asked.add_argument("stories", nargs="*", default=list(STORIES), help=" ".join(STORIES))
    options = asked.parse_args()
    print("| story | served | first run for ever | first model for ever | best of three |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in options.stories:
            seeds = range(1, (1 if name == "rainfall" else options.seeds) + 1)
            played = list(pool.map(play, [name] * len(seeds), seeds, [options.label_delay] * len(seeds)))
            for line in told(name, played):
                print(line, flush=True)
            for one in played if options.decisions else ():
                print(f"{name}, seed {one.seed}:", "; ".join(one.decisions), flush=True)


if __name__ == "__main__":
    main()
