"""The values of metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from ncps.observe.labelled import Labelled


def counted(metric: Counter | Gauge) -> float:
    """Return the value of a counter or a gauge, or of one series of it."""
    ((sample,),) = (family.samples for family in metric.collect())
    return sample.value


def series(metric: Labelled[Counter]) -> dict[str, float]:
    """Return the series that are not 0: the values of their labels, and what was counted."""
    return {
        " ".join(sample.labels.values()): sample.value
        for family in metric._metric.collect()
        for sample in family.samples
        if sample.value
    }


def observed(metric: Histogram) -> tuple[float, float]:
    """Return how many values a histogram has, and their sum."""
    values = {
        sample.name.rpartition("_")[2]: sample.value
        for family in metric.collect()
        for sample in family.samples
    }
    return values["count"], values["sum"]
