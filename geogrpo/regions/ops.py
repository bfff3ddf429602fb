"""The lookup as a PyTorch operator, for tensors on either device and for torch.compile.

An operator takes numbers and tensors only, so an index goes in as a handle: a number that stands for it as long as it
lives in this process.
"""

import itertools
import os
import weakref
from typing import Protocol

import torch
from torch import Tensor


class Lookup(Protocol):
    """What a handle stands for."""

    def lookup_tensor(self, latlon_deg: Tensor, wrap: bool, use_polygons: bool) -> tuple[Tensor, Tensor]:
        """As region_lookup."""
        ...


_living: "weakref.WeakValueDictionary[int, Lookup]" = weakref.WeakValueDictionary()
_handles = itertools.count()


def make_handle(index: Lookup) -> int:
    """A number that region_lookup knows `index` by, as long as it lives."""
    handle = next(_handles)
    _living[handle] = index
    return handle


@torch.library.custom_op("geogrpo::region_lookup", mutates_args=())
def region_lookup(latlon_deg: Tensor, handle: int, wrap: bool, use_polygons: bool) -> tuple[Tensor, Tensor]:
    """(N, 2) degrees -> (N, 4) int32 region ids by level and (N,) bool near a coast, on the points' device."""
    index = _living.get(handle)
    if index is None:
        raise ValueError(f"region index {handle} is gone. Keep a reference to the RegionIndex as long as it is used.")
    return index.lookup_tensor(latlon_deg, wrap, use_polygons)


@region_lookup.register_fake
def _(latlon_deg: Tensor, handle: int, wrap: bool, use_polygons: bool) -> tuple[Tensor, Tensor]:
    n = latlon_deg.shape[0]
    return latlon_deg.new_empty((n, 4), dtype=torch.int32), latlon_deg.new_empty((n,), dtype=torch.bool)


def num_threads() -> int:
    """Threads a lookup runs on: torch's own number (OMP_NUM_THREADS, torch.set_num_threads), and no more than cores.

    A DataLoader worker has one, and so has each of many ranks that share a machine.
    """
    return min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
