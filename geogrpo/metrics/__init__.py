"""Geolocalization metrics, their intervals, comparisons and floors.

A prediction without coordinates is a miss at every threshold, half the Earth away, and earns 0 points.
"""

from geogrpo.metrics.administrative import OSV_LEVELS, OSV_RULES, osv_columns, osv_index, osv_names, region_columns
from geogrpo.metrics.continents import CONTINENT_OF, CONTINENTS
from geogrpo.metrics.evaluate import (
    OSV5M_PROTOCOL,
    Metrics,
    Protocol,
    evaluate_predictions,
    image_columns,
    summarize,
)
from geogrpo.metrics.floors import ConstantFloor, constant_floors, random_floors
from geogrpo.metrics.groups import Grouping, GroupMetrics, country_and_continent, group_metrics, macro_estimates
from geogrpo.metrics.intervals import (
    MAX_BOOTSTRAP_IMAGES,
    STATISTICS,
    Column,
    Estimate,
    bootstrap,
    mean_estimates,
    median_estimate,
    paired_difference,
)
from geogrpo.metrics.paired import Answers, Difference, compare_runs
from geogrpo.metrics.scores import (
    COMPARATORS,
    FARTHEST_KM,
    GEOAGENT_SCALE_KM,
    GEOSCORE_SCALE_KM,
    THRESHOLDS_KM,
    accuracy_within,
    charged_km,
    error_km,
    geoscore,
    geoscore_geoagent,
    is_within,
    usable_points,
)

__all__ = [
    "COMPARATORS",
    "CONTINENTS",
    "CONTINENT_OF",
    "FARTHEST_KM",
    "GEOAGENT_SCALE_KM",
    "GEOSCORE_SCALE_KM",
    "MAX_BOOTSTRAP_IMAGES",
    "OSV5M_PROTOCOL",
    "OSV_LEVELS",
    "OSV_RULES",
    "STATISTICS",
    "THRESHOLDS_KM",
    "Answers",
    "Column",
    "ConstantFloor",
    "Difference",
    "Estimate",
    "GroupMetrics",
    "Grouping",
    "Metrics",
    "Protocol",
    "accuracy_within",
    "bootstrap",
    "charged_km",
    "compare_runs",
    "constant_floors",
    "country_and_continent",
    "error_km",
    "evaluate_predictions",
    "geoscore",
    "geoscore_geoagent",
    "group_metrics",
    "image_columns",
    "is_within",
    "macro_estimates",
    "mean_estimates",
    "median_estimate",
    "osv_columns",
    "osv_index",
    "osv_names",
    "paired_difference",
    "random_floors",
    "region_columns",
    "summarize",
    "usable_points",
]
