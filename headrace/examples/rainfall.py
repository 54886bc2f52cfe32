"""Will it rain on this day? One weather station (Offutt, Nebraska), 18,159 days.

The series is NOAA's, already standardised, so bounds are in standard deviations. Two days have a pressure of
+94: a missing-value code, which would poison an online model; the contract rejects them.
"""

from river import compose, linear_model, optim, preprocessing

from headrace import Contract, Pipeline, Rollout, Success, Triggers, feature


class Weather(Contract):
    """One day at one weather station, each column standardised over the series."""

    temperature: float = feature(ge=-20, le=20, unit="sd")
    dew_point: float = feature(ge=-20, le=20, unit="sd")
    sea_level_pressure: float = feature(ge=-20, le=20, unit="sd")
    visibility: float = feature(ge=-20, le=20, unit="sd")
    average_wind_speed: float = feature(ge=-20, le=20, unit="sd")
    max_sustained_wind_speed: float = feature(ge=-20, le=20, unit="sd")
    minimum_temperature: float = feature(ge=-20, le=20, unit="sd")
    maximum_temperature: float = feature(ge=-20, le=20, unit="sd")


def recipe(seed: int) -> compose.Pipeline:
    """An untrained model; the same seed always gives the same one."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.02))


pipeline = Pipeline(
    name="rainfall",
    contract=Weather,
    label=bool,
    recipe=recipe,
    # the demo plays many days a second, and seconds are what these count: a canary would last longer than the stream,
    # and the hour after a failed challenger too
    rollout=Rollout(refresh_s=0.1, steps=()),
    triggers=Triggers(cooldown_s=10),
    success=Success("accuracy", at_least=0.6),
)
