"""How sure an answer is: from several samples, and from what happened on a held-out split."""

from geogrpo.uncertainty.calibration import Reliability, expected_calibration_error, reliability
from geogrpo.uncertainty.conformal import (
    SPREAD_FLOOR_KM,
    conformal_quantile,
    conformal_radius_km,
    scaled_conformal_radius_km,
    spread_factor,
)
from geogrpo.uncertainty.samples import (
    SampleSummary,
    best_sample,
    geometric_median,
    level_confidence,
    sample_clusters,
    sample_radii_km,
    summarize_samples,
)
from geogrpo.uncertainty.selective import BackOff, RiskCoverage, backed_off_level, choose_back_off, risk_coverage

__all__ = [
    "SPREAD_FLOOR_KM",
    "BackOff",
    "Reliability",
    "RiskCoverage",
    "SampleSummary",
    "backed_off_level",
    "best_sample",
    "choose_back_off",
    "conformal_quantile",
    "conformal_radius_km",
    "expected_calibration_error",
    "geometric_median",
    "level_confidence",
    "reliability",
    "risk_coverage",
    "sample_clusters",
    "sample_radii_km",
    "scaled_conformal_radius_km",
    "spread_factor",
    "summarize_samples",
]
