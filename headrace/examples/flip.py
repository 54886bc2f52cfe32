"""Is the sum of two numbers above a limit? In the demo's stream the limit moves, and no input shows it.

The stream is SEA (Street and Kim, 2001), as River makes it.
"""

from river import naive_bayes

from headrace import Contract, Pipeline, Rollout, Success, Triggers, feature


class Point(Contract):
    """Three numbers between 0 and 10; the third says nothing."""

    first: float = feature(ge=0, le=10)
    second: float = feature(ge=0, le=10)
    third: float = feature(ge=0, le=10)


def recipe(seed: int) -> naive_bayes.GaussianNB:
    """An untrained model; the same seed always gives the same one."""
    return naive_bayes.GaussianNB()


pipeline = Pipeline(
    name="flip",
    contract=Point,
    label=bool,
    recipe=recipe,
    # the demo plays many rows a second, and seconds are what these count
    rollout=Rollout(refresh_s=0.1, steps=()),
    triggers=Triggers(cooldown_s=10),
    success=Success("accuracy", at_least=0.6),
)
