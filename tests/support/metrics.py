"""The values of metrics, as Prometheus would have them."""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

#: Values by name (without the prefix of workers) and labels but model.
Values = Mapping[tuple[str, ...], float]


def values_of(text: str) -> Values:
    """Return the values of a worker's metrics, by name and labels in the order of their names."""
    return {
        (
            sample.name.removeprefix("virnucpro_worker_"),
            *(value for name, value in sorted(sample.labels.items()) if name != "model"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
