"""Labelled: a metric with labels, whose series are found quickly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge, Histogram

M = TypeVar("M", Counter, Gauge, Histogram)


class Labelled(Generic[M]):
    """A metric with labels, whose children are looked up in a plain dictionary.

    :param known: values of each label, for which the series exist from the start.
    """

    def __init__(self, metric: M, *known: Iterable[str]) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}
        for values in product(*known) if known else ():
            self(*values)

    def __call__(self, *values: str) -> M:
        """Return the child of these label values, in the order of the labels."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child
