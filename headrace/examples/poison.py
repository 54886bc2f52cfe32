"""Does the basin overflow? For an hour two gauges report tenths, and what is learned from that is wrong.

The rule is SEA's (Street and Kim, 2001), as River makes it; the hour is the demo's.
"""

from river import compose, linear_model, preprocessing

from headrace import Contract, Pipeline, Rollout, Success, Triggers, feature


class Inflow(Contract):
    """What two streams bring, and the wind, which says nothing."""

    north: float = feature(ge=0, le=10, unit="m3/s")
    south: float = feature(ge=0, le=10, unit="m3/s")
    wind: float = feature(ge=0, le=10, unit="m/s")


def recipe(seed: int) -> compose.Pipeline:
    """An untrained model; the same seed always gives the same one."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="poison",
    contract=Inflow,
    label=bool,
    recipe=recipe,
    # the demo plays many rows a second, and seconds are what these count
    rollout=Rollout(refresh_s=0.1, steps=()),
    triggers=Triggers(cooldown_s=10),
    success=Success("accuracy", at_least=0.6),
)
