"""Calibration of a classifier: one temperature, fitted on validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RANGE = (0.05, 20.0)


def fit(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The temperature T in RANGE that makes softmax(logits / T) most likely to give the labels.

    logits [n, classes], labels [n]. Guo and others 2017 (arXiv 1706.04599). The likelihood has one peak along 1 / T,
    so a golden-section search over log T finds it. As Platt (1999) does, each target gives up 1 / (n + 2): with few
    rows and all of them right, the likeliest temperature would be 0, and every answer certain.
    """
    smoothing = 1.0 / (len(labels) + 2)
    return math.exp(_minimise(lambda t: nll(logits, labels, math.exp(t), smoothing),
                              math.log(RANGE[0]), math.log(RANGE[1])))


def nll(logits: NDArray[np.floating], labels: NDArray[np.int64], temperature: float = 1.0,
        smoothing: float = 0.0) -> float:
    """Mean negative log-likelihood in nats of the labels at a temperature; the share `smoothing` of each target is
    spread over all classes."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scaled).sum(axis=1))
    right = scaled[np.arange(len(labels)), labels]
    return float(np.mean(log_sum - (1.0 - smoothing) * right - smoothing * scaled.mean(axis=1)))


def _minimise(function: Callable[[float], float], low: float, high: float, width: float = 1e-4) -> float:
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > width:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2.0
