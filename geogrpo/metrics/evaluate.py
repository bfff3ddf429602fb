"""The whole table of metrics for a file of answers.

Shapes: N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geogrpo_kernels import EARTH_RADIUS_KM

from geogrpo.metrics.administrative import OSV_RULES, osv_columns, region_columns
from geogrpo.metrics.groups import GroupMetrics, country_and_continent, group_metrics, macro_estimates
from geogrpo.metrics.intervals import Column, Estimate, bootstrap, mean_estimates, median_estimate
from geogrpo.metrics.scores import (
    COMPARATORS,
    THRESHOLDS_KM,
    accuracy_within,
    charged_km,
    error_km,
    geoscore,
    geoscore_geoagent,
    is_within,
)
from geogrpo.regions.index import RegionIndex


@dataclass(frozen=True)
class Protocol:
    """How answers are measured."""

    comparator: str = "<="
    """A key of COMPARATORS."""
    earth_radius_km: float = EARTH_RADIUS_KM
    """Of the sphere. An answer without coordinates is charged FARTHEST_KM on any."""
    thresholds_km: tuple[float, ...] = THRESHOLDS_KM
    """Of the columns within_<km>_km."""
    osv_rule: str = "intended"
    """One of OSV_RULES; see osv_columns."""

    def __post_init__(self) -> None:
        if self.comparator not in COMPARATORS:
            raise ValueError(f"comparator must be one of {', '.join(COMPARATORS)}, got {self.comparator!r}.")
        if not 6300 <= self.earth_radius_km <= 6400:
            raise ValueError(f"earth_radius_km must be from 6300 to 6400, got {self.earth_radius_km}.")
        if self.osv_rule not in OSV_RULES:
            raise ValueError(f"osv_rule must be one of {', '.join(OSV_RULES)}, got {self.osv_rule!r}.")


OSV5M_PROTOCOL = Protocol(comparator="<", earth_radius_km=6371.0, osv_rule="released")
"""As gastruc/osv5m computes; its answers always have coordinates."""


@dataclass(frozen=True)
class Metrics:
    """What a file of answers is worth."""

    num_images: int
    estimates: dict[str, Estimate]
    """Metric -> value and 95 % interval. A metric that no image counts in is absent."""
    num_scored: dict[str, int]
    """Metric -> images that count, as those whose truth has a county."""
    macro_continent: dict[str, Estimate]
    """Metric -> mean over continents."""
    macro_country: dict[str, Estimate]
    """Metric -> mean over countries."""
    by_continent: dict[str, GroupMetrics] = field(repr=False)
    """Continent of the truth -> its images."""
    by_country: dict[str, GroupMetrics] = field(repr=False)
    """ISO 3166-1 alpha-2 code of the truth's country -> its images."""


def evaluate_predictions(
    predicted_latlon_deg: np.ndarray,
    true_latlon_deg: np.ndarray,
    *,
    index: RegionIndex,
    osv_index: RegionIndex | None = None,
    osv_labels: Mapping[str, Sequence[Any]] | None = None,
    protocol: Protocol | None = None,
    num_samples: int = 2000,
    seed: int = 0,
) -> Metrics:
    """Every metric with its 95 % interval, macro averages, and each country and continent.

    The metrics are within_<threshold>_km, mean_km, median_km, geoscore, geoscore_geoagent, country_accuracy,
    state_accuracy, county_accuracy, city_accuracy, unparseable and, with osv_index, osv_country, osv_region,
    osv_sub_region and osv_city. The intervals are a bootstrap's up to MAX_BOOTSTRAP_IMAGES, above that its limit.

    Args:
        predicted_latlon_deg: (N, 2) degrees, NaN without coordinates; so is what is no place on Earth.
        true_latlon_deg: (N, 2) degrees, each one a place.
        index: says which country, state, county and city points are in.
        osv_index: `osv_index()`, or None for no OSV-5M metrics.
        osv_labels: see osv_columns.
        protocol: None for Protocol().
        num_samples: bootstrap resamples.
    """
    columns, distance_km = image_columns(
        predicted_latlon_deg,
        true_latlon_deg,
        index=index,
        osv_index=osv_index,
        osv_labels=osv_labels,
        protocol=protocol,
    )
    estimates = mean_estimates(columns, num_samples=num_samples, seed=seed)
    estimates["median_km"] = median_estimate(distance_km, num_samples=num_samples, seed=seed)
    country, continent = country_and_continent(true_latlon_deg, index)
    return Metrics(
        num_images=len(distance_km),
        estimates=estimates,
        num_scored={name: column.num_scored for name, column in columns.items()} | {"median_km": len(distance_km)},
        macro_continent=macro_estimates(columns, continent),
        macro_country=macro_estimates(columns, country),
        by_continent=group_metrics(columns, distance_km, continent),
        by_country=group_metrics(columns, distance_km, country),
    )


def image_columns(
    predicted_latlon_deg: np.ndarray,
    true_latlon_deg: np.ndarray,
    *,
    index: RegionIndex | None = None,
    osv_index: RegionIndex | None = None,
    osv_labels: Mapping[str, Sequence[Any]] | None = None,
    protocol: Protocol | None = None,
) -> tuple[dict[str, Column], np.ndarray]:
    """Each metric of each image, and (N,) charged distances in km for the median. Arguments as evaluate_predictions;
    without an index there are no columns of regions.
    """
    protocol = protocol or Protocol()
    error = error_km(predicted_latlon_deg, true_latlon_deg, earth_radius_km=protocol.earth_radius_km)
    columns = {
        f"within_{km:g}_km": Column(is_within(error, km, comparator=protocol.comparator))
        for km in protocol.thresholds_km
    }
    distance_km = charged_km(error)
    columns["mean_km"] = Column(distance_km)
    columns["geoscore"] = Column(geoscore(error))
    columns["geoscore_geoagent"] = Column(geoscore_geoagent(error))
    columns["unparseable"] = Column(np.isnan(error))
    if index is not None:
        columns |= region_columns(predicted_latlon_deg, true_latlon_deg, index)
    if osv_index is not None:
        columns |= osv_columns(
            predicted_latlon_deg, true_latlon_deg, osv_index, labels=osv_labels, rule=protocol.osv_rule
        )
    elif osv_labels is not None:
        raise ValueError("osv_labels need osv_index.")
    return columns, distance_km


def summarize(
    distance_km: np.ndarray, country_is_right: np.ndarray, *, num_samples: int, seed: int = 0
) -> dict[str, Estimate]:
    """The closing table's columns.

    Args:
        distance_km: (N,) km, NaN without coordinates.
        country_is_right: (N,) bool.
        num_samples: bootstrap resamples.
    """
    if distance_km.shape != country_is_right.shape:
        shapes = f"{distance_km.shape} and {country_is_right.shape}"
        raise ValueError(f"distance_km and country_is_right must be of the same images, got {shapes}.")
    columns = {f"within_{km}_km": accuracy_within(distance_km, km) for km in THRESHOLDS_KM}
    columns["geoscore"] = geoscore(distance_km)
    columns["country_accuracy"] = country_is_right.astype(np.float64)
    columns["unparseable"] = np.isnan(distance_km).astype(np.float64)
    summary = {name: bootstrap(values, num_samples=num_samples, seed=seed) for name, values in columns.items()}
    summary["median_km"] = bootstrap(charged_km(distance_km), num_samples=num_samples, seed=seed, statistic="median")
    return summary
