"""What a predictor writes for a joiner: predictions and labels of one number."""

from datetime import UTC, datetime

from headrace.schemas.stream import LabelArrived, PredictionMade

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def predictions(ids):
    more = {"time": NOON, "predictions": {}, "served": None, "release": 1, "epoch": 0, "origin": (0, 0)}
    return [PredictionMade(id=id, features={"x": 1.0}, **more) for id in ids]


def labels(ids):
    return [LabelArrived(id=id, time=NOON, label=True) for id in ids]
