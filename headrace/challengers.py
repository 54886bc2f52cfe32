"""Other recipes of a pipeline: models and settings that may take the champion's place by the same gates."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from headrace.contract import InvalidDefinition
from headrace.schemas.control import OWN_RECIPE

CHALLENGERS = 20  # a run each, one after the other: with more, the last one's turn comes after months
NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")


class Challenger:
    """A recipe with a name, and settings that it is called with: `Challenger("fast", recipe, rate=0.1)`.

    `recipe(seed, **settings)` returns an untrained River model that answers as the pipeline's own recipe does. Raises
    InvalidDefinition, which names the challenger.
    """

    def __init__(self, name: str, recipe: Callable[..., Any], **settings: Any) -> None:
        """Check the name and that the recipe takes the settings; build no model."""
        wanted = "a-z, 0-9 and -, at most 41, a letter first"
        if not isinstance(name, str) or not NAME.fullmatch(name) or name == OWN_RECIPE:
            raise InvalidDefinition("challengers", f"a name is {wanted}, and not {OWN_RECIPE!r}; not {name!r}")
        if not callable(recipe):
            raise InvalidDefinition(f"challengers.{name}", f"needs a function of the seed, not {recipe!r}")
        try:
            inspect.signature(recipe).bind(0, **settings)
        except TypeError as error:
            raise InvalidDefinition(f"challengers.{name}", f"its recipe is not called like this: {error}") from error
        self.name, self._recipe, self.settings = name, recipe, settings

    def recipe(self, seed: int) -> Any:
        """An untrained model."""
        return self._recipe(seed, **self.settings)

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"Challenger({self.name!r}, {getattr(self._recipe, '__name__', self._recipe)}{settings})"


def by_name(given: Iterable[Challenger]) -> dict[str, Challenger]:
    """Each challenger by its name, in the order given. Raises InvalidDefinition."""
    wanted = f'at most {CHALLENGERS}, each a headrace.Challenger("name", recipe)'
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidDefinition("challengers", f"{wanted}; not {given!r}")
    found: dict[str, Challenger] = {}
    for one in given:
        if not isinstance(one, Challenger):
            raise InvalidDefinition("challengers", f"{wanted}; not {one!r}")
        if one.name in found:
            raise InvalidDefinition("challengers", f"{one.name} is named twice")
        found[one.name] = one
    if len(found) > CHALLENGERS:
        raise InvalidDefinition("challengers", f"{wanted}; not {len(found)}")
    return found
