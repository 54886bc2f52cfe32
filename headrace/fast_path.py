"""River's models called without the detour through `compose.Pipeline`, for shapes known exactly; equal bit for bit.

A scaled linear model spends a third of its time on bookkeeping that is the same for every example. Where every part
is exactly of a known class, with settings known to matter, the same arithmetic is done in the same order; anything
else (a subclass, a filter, another optimizer) keeps River's own methods.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

from river import base, compose, linear_model, optim, preprocessing
from river.utils.math import sigmoid
from river.utils.vectordict import VectorDict

from headrace.schemas.stream import Features

Predict = Callable[[Features], Any]
Learn = Callable[[Features, Any], Any]
Transform = Callable[[Features], Any]


def fast(model: Any, verb: str = "predict_proba_one") -> tuple[Predict, Learn]:
    """The model's `verb` and its `learn_one`, as directly callable as its shape allows.

    Both work on the model itself: what they learn is in it, and it may be pickled or digested at any time.
    """
    steps = _plain_steps(model)
    if steps is None:
        return _ends(model, verb)
    *transformers, last = steps
    predict, learn = _ends(last, verb, in_pipeline=True)
    for transformer in reversed(transformers):
        transform, learn_and_transform = _around(transformer)
        predict, learn = _chained(predict, learn, transform, learn_and_transform)
    return predict, learn


def fast_test_then_train(model: Any, verb: str = "predict_proba_one") -> Callable[[Features, Any], Any]:
    """Predict, then learn the same example, in one call. Returns the prediction; None for one that raised."""
    steps = _plain_steps(model)
    if steps is not None and len(steps) == 2 and _is_plain_scaler(steps[0]):
        predict, learn = _ends(steps[1], verb, in_pipeline=True)
        scale = _scaling_twice(steps[0])
    else:
        predict, learn = fast(model, verb)
        scale = None

    def train(x: Any, y: Any) -> Any:
        before, after = scale(x) if scale is not None else (x, x)
        try:
            value = predict(before)
        except MemoryError:
            raise
        except Exception:
            value = None
        learn(after, y)
        return value

    return train


def _plain_steps(model: Any) -> list[Any] | None:
    """The steps of a pipeline in which each transformer learns from features alone and the last step predicts."""
    if type(model) is not compose.Pipeline or model._LEARN_UNSUPERVISED_DURING_PREDICT or not model.steps:
        return None
    *transformers, last = model.steps.values()
    for step in transformers:
        if not isinstance(step, base.Transformer) or step._supervised:
            return None
    if isinstance(last, base.Transformer | base.AnomalyFilter) or not last._supervised:
        return None
    if model._plan is None:
        model._build_plan()  # River's first call makes it, and it is a part of the model
    return [*transformers, last]


def _chained(
    predict: Predict, learn: Learn, transform: Transform, learn_and_transform: Transform
) -> tuple[Predict, Learn]:
    def predict_after(x: Features) -> Any:
        return predict(transform(x))

    def learn_after(x: Features, y: Any) -> None:
        learn(learn_and_transform(x), y)

    return predict_after, learn_after


# --- transformers -----------------------------------------------------------------------------------------


def _around(transformer: Any) -> tuple[Transform, Transform]:
    """A transformer's `transform_one`, and `learn_one` followed by it."""
    learn, transform = transformer.learn_one, transformer.transform_one
    if _is_plain_scaler(transformer):
        return transform, _scaling(transformer)

    def learn_and_transform(x: Features) -> Any:
        learn(x)
        return transform(x)

    return transform, learn_and_transform


def _is_plain_scaler(step: Any) -> bool:
    return type(step) is preprocessing.StandardScaler and step.window_size is None and step.with_std


def _scaling(scaler: Any) -> Transform:
    """Welford's update and the scaling of the same values in one pass."""
    counts, means, variances = scaler.counts, scaler.means, scaler.vars

    def learn_and_transform(x: Any) -> Any:
        scaled = {}
        for name, value in x.items():
            count = counts[name] = counts[name] + 1
            off = value - means[name]
            mean = means[name] = means[name] + off / count
            variance = variances[name]
            value -= mean
            variance = variances[name] = variance + (off * value - variance) / count
            scaled[name] = value / variance**0.5 if variance else 0.0
        return scaled

    return learn_and_transform


def _scaling_twice(scaler: Any) -> Callable[[Any], tuple[Any, Any]]:
    """The values scaled before the update, for the prediction, and after it, for learning, in one pass."""
    counts, means, variances = scaler.counts, scaler.means, scaler.vars

    def scale(x: Any) -> tuple[Any, Any]:
        before, after = {}, {}
        for name, value in x.items():
            mean, variance = means[name], variances[name]
            off = value - mean
            before[name] = off / variance**0.5 if variance else 0.0
            count = counts[name] = counts[name] + 1
            mean = means[name] = mean + off / count
            value -= mean
            variance = variances[name] = variance + (off * value - variance) / count
            after[name] = value / variance**0.5 if variance else 0.0
        return before, after

    return scale


# --- what predicts ----------------------------------------------------------------------------------------


def _ends(model: Any, verb: str, *, in_pipeline: bool = False) -> tuple[Predict, Learn]:
    """What the last step, or a model alone, predicts and learns with."""
    predict, learn = getattr(model, verb), model.learn_one
    if _is_plain_linear(model):
        return _linear_answer(model, verb) or predict, _gradient_step(model)
    return predict, _named(learn) if in_pipeline else learn


def _named(learn: Callable[..., Any]) -> Learn:
    def learn_named(x: Features, y: Any) -> None:
        learn(x=x, y=y)  # as a pipeline calls its last step

    return learn_named


def _is_plain_linear(model: Any) -> bool:
    return (
        type(model) in (linear_model.LogisticRegression, linear_model.LinearRegression)
        and type(model.optimizer) is optim.SGD
        and model.l1 == 0
        and model.l2 == 0
    )


def _linear_answer(model: Any, verb: str) -> Predict | None:
    mean = sigmoid if type(model.loss) is optim.losses.Log else model.loss.mean_func

    def probabilities(x: Any) -> Any:
        p = mean(model._weights.dot(x) + model.intercept)
        return {False: 1.0 - p, True: p}

    def number(x: Any) -> Any:
        return mean(model._weights.dot(x) + model.intercept)

    if type(model) is linear_model.LogisticRegression:
        return probabilities if verb == "predict_proba_one" else None
    return number if verb == "predict_one" else None


def _gradient_step(model: Any) -> Learn:
    """`GLM.learn_one` without penalties and with plain SGD."""
    optimizer, initializer, clip = model.optimizer, model.initializer, model.clip_gradient
    gradient = _log_gradient(model.loss) if type(model.loss) is optim.losses.Log else _gradient(model.loss)
    rate, intercept_rate = optimizer.lr.get, model.intercept_lr.get
    scaled = VectorDict.from_scaled

    def learn(x: Any, y: Any) -> None:
        weights: Any = VectorDict(model._weights, initializer, x)
        slope = float(max(min(gradient(y, weights.dot(x) + model.intercept), clip), -clip))
        step = scaled(x, slope)
        n = optimizer.n_iterations
        model.intercept -= intercept_rate(n) * slope
        weights.isub_scaled(step, rate(n))
        optimizer.n_iterations = n + 1

    return learn


def _gradient(loss: Any) -> Callable[[Any, float], Any]:
    def gradient(y: Any, raw: float) -> Any:
        return loss.gradient(y_true=y, y_pred=raw)

    return gradient


def _log_gradient(loss: Any) -> Callable[[Any, float], Any]:
    """`losses.Log.gradient` of one number."""
    weight_pos, weight_neg, of_any = loss.weight_pos, loss.weight_neg, _gradient(loss)

    def gradient(y: Any, raw: float) -> Any:
        if y is True:
            sign, weight = 1, weight_pos
        elif y is False:
            sign, weight = -1, weight_neg
        else:
            return of_any(y, raw)
        z = raw * sign
        if z > 18.0:
            return weight * exp(-z) * -sign
        if z < -18.0:
            return weight * -sign
        return weight * -sign / (exp(z) + 1.0)

    return gradient
