"""What a seed decides at every step, so that leaving a fault out moves nothing but what that fault caused."""

import random

from tests.simulation.faults import SERVICES, TURNS, crash_of, is_life, steps

ACTORS = ("users", *SERVICES)
WEIGHTS = (9, *TURNS.values())
LIFE_WEIGHTS = (9, 4, 4, 4, 5, 4, 1, 7, 4, 4)  # decisions come while rows do, not after them
_MASK = (1 << 64) - 1


class Chance:
    """Whose turn it is at each step, how the system is set, and numbers that follow from the seed and the step."""

    def __init__(self, seed):
        chance = random.Random(f"order {seed}")
        self.order = chance.choices(ACTORS, LIFE_WEIGHTS if is_life(seed) else WEIGHTS, k=steps(seed))
        self.commit_s = chance.choice((0.0, 2.0, 6.0, 20.0))
        self.stalls = chance.choice((0, 70, 95))  # how many polls of a hundred let nothing arrive
        self.starts_calmly = chance.random() < 0.8  # else the first release meets the faults too
        recreates_at = chance.randrange(len(self.order) // 3, len(self.order) // 2)
        self.recreates_at = recreates_at if chance.random() < 0.1 else None  # a topic is made anew then
        every_s = chance.choice((30.0, 100.0, 300.0)) if chance.random() < 0.5 else None  # None: no checkpoints
        self.checkpoint_s = {"upload": 10.0, "catch-up": None}.get(crash_of(seed)[1], every_s)
        self._salt = chance.randrange(1 << 30)
        self._step = self._drawn = 0

    def enter(self, step):
        """From here on numbers are those of this step."""
        self._step, self._drawn = step, 0

    def below(self, limit):
        """The next number of this step, smaller than the limit (splitmix64)."""
        self._drawn += 1
        mixed = (self._salt + self._step * 0x9E3779B97F4A7C15 + self._drawn * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 31) * 0x94D049BB133111EB) & _MASK
        return (mixed >> 33) % limit
