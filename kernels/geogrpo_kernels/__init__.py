"""Numerical ops of geogrpo that are useful alone. Imports torch only."""

from geogrpo_kernels.reference import EARTH_RADIUS_KM, haversine_km, token_logprobs

__all__ = ["EARTH_RADIUS_KM", "haversine_km", "token_logprobs"]
