"""A number that follows from ten others, until another rule holds. The demo's stream is made up.

The stream is Friedman's (1991), with the drift of Ikonomovska et al. (2011), as River makes it.
"""

from river import tree

from headrace import Contract, Pipeline, Rollout, Success, Triggers, feature


class Sample(Contract):
    """Ten numbers between 0 and 1; the last five say nothing, at first."""

    x0: float = feature(ge=0, le=1)
    x1: float = feature(ge=0, le=1)
    x2: float = feature(ge=0, le=1)
    x3: float = feature(ge=0, le=1)
    x4: float = feature(ge=0, le=1)
    x5: float = feature(ge=0, le=1)
    x6: float = feature(ge=0, le=1)
    x7: float = feature(ge=0, le=1)
    x8: float = feature(ge=0, le=1)
    x9: float = feature(ge=0, le=1)


def recipe(seed: int) -> tree.HoeffdingTreeRegressor:
    """An untrained model; it draws nothing at random."""
    return tree.HoeffdingTreeRegressor(grace_period=100)


pipeline = Pipeline(
    name="regression",
    contract=Sample,
    label=float,
    recipe=recipe,
    # the demo plays many rows a second, and seconds are what these count
    rollout=Rollout(refresh_s=0.1, steps=()),
    triggers=Triggers(cooldown_s=10),
    success=Success("mae", at_most=4.0),
)
