"""A training that would make the model again which a live run makes already, and how that is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.control import RunStarted, TrainingRequested

if TYPE_CHECKING:
    from headrace.services.orchestrator.training import Training

Numbers = dict[str, int | float | str | None]


def twin(training: Training, asked: TrainingRequested) -> RunStarted | None:
    """The live run that would learn the same bit for bit: same recipe, seed, start, parent and exclusions."""
    recipe = _digest(training, asked.release, asked.recipe)
    for run in training.contenders:
        same = (run.seed, run.start_offset, run.parent, run.excluded)
        if _digest(training, run.release, run.recipe) == recipe and same == (
            asked.seed, asked.start, asked.parent, asked.excluded
        ):  # fmt: skip
            return run
    return None


def is_twin(run: RunStarted, asked: TrainingRequested) -> str:
    """Why a twin is refused."""
    recipe = "this recipe" if asked.recipe is None else f"the recipe {asked.recipe}"
    return (
        f"run {run.run} already learns with {recipe}, seed {asked.seed} and start {asked.start}; "
        "a second one would be the same model bit for bit"
    )


def of_twin(run: RunStarted, asked: TrainingRequested) -> Numbers:
    """In what the two are one."""
    return {"run": run.run, "seed": asked.seed, "start": asked.start}


def _digest(training: Training, release: int, recipe: str | None) -> str | None:
    return training.recipes.get(release, {}).get(recipe)
