"""Seconds, memory, and the words for a phase that does not fit."""

import time

import pytest
import torch

from geogrpo.clock import Clock, OutOfMemory

CPU = torch.device("cpu")


def test_phases_add_up_until_the_lap() -> None:
    clock = Clock(CPU)
    for seconds in (0.02, 0.03):
        with clock.phase("decode"):
            time.sleep(seconds)
    with clock.phase("reward"):
        pass
    metrics = clock.lap()
    assert 0.05 <= metrics["timing_s/decode"] < 0.5
    assert metrics["timing_s/reward"] < 0.02
    assert clock.lap() == {}


def test_memory_is_the_peak_of_each_phase() -> None:
    clock = Clock(CPU)
    with clock.phase("large"):
        # 256 MiB that are gone when the phase ends
        torch.ones(2**26).sum()
    with clock.phase("small"):
        pass
    metrics = clock.lap()
    assert metrics["memory_gib/large"] - metrics["memory_gib/small"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_says_the_phase_its_tokens_and_what_to_lower(error: Exception) -> None:
    message = (
        "out of memory on cpu in forward backward on 16,384 unique tokens. Lower tokens_per_microbatch or"
        " model.max_pixels, or set model.activation_checkpointing: true"
    )
    with pytest.raises(OutOfMemory, match=message), Clock(CPU).phase("forward_backward", 16384):
        raise error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="^shapes differ$"), Clock(CPU).phase("decode"):
        raise RuntimeError("shapes differ")


def test_what_does_not_fit_really() -> None:
    with pytest.raises(OutOfMemory, match="in prefill. Lower model.max_pixels"), Clock(CPU).phase("prefill"):
        torch.empty(2**60)
