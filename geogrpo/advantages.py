"""Rewards of a group -> advantages: how much better a completion did than its siblings. Defined in geogrpo_kernels."""

from geogrpo_kernels import group_advantages, has_signal
from geogrpo_kernels.reference.distances import EPSILON

__all__ = ["EPSILON", "group_advantages", "has_signal"]
