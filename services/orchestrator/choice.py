"""Which of a pipeline's recipes a training goes by.

What serves is mended with its own recipe: an alert about performance or inputs asks for the champion's. What comes by
schedule or with new labels gives every recipe its turn, the pipeline's own and each challenger, whose was longest ago
first. A recipe that a release brought is tried once by itself, on the whole log, when nothing else is to be trained.
"""

from __future__ import annotations

from headrace.schemas.control import TrainingRequested
from headrace.services.orchestrator.training import Training
from headrace.services.orchestrator.twins import twin


def of_champion(training: Training) -> str | None:
    """The recipe of the champion's run; the pipeline's own where the release in force has no such recipe."""
    champion = training.champion
    recipe = None if champion is None else training.by_recipe.get(champion.run)
    return recipe if recipe in training.recipes_in_force else None


def in_turn(training: Training, asked: TrainingRequested) -> TrainingRequested:
    """A training by the recipe whose last one is longest ago; of those that had none by the first in the file.

    Where a live run already is what it would learn, another's turn it is: else it would stand before them for ever.
    """
    tried = training.tried
    order = sorted(training.recipes_in_force, key=lambda recipe: tried.index(recipe) if recipe in tried else -1)
    turns = [asked.model_copy(update={"recipe": recipe}) for recipe in order]
    return next((turn for turn in turns if twin(training, turn) is None), turns[0])


def untried(training: Training) -> str | None:
    """The first challenger's recipe that had no training since a release brought or changed it."""
    return next((name for name in training.recipes_in_force if name is not None and name not in training.tried), None)


def forget_changed(training: Training, before: dict[str | None, str], after: dict[str | None, str]) -> None:
    """A recipe that a release brought, changed or took away was not tried."""
    training.tried = [name for name in training.tried if name in after and before.get(name) == after[name]]
