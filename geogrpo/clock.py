"""Seconds and peak memory of each phase of a step, and words for a phase that runs out of memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

GIB = 2**30
ADVICE = {
    "prefill": "model.max_pixels or grpo.sampling.max_rows",
    "decode": "grpo.sampling.max_rows or grpo.sampling.max_new_tokens",
    "reference": "tokens_per_microbatch or model.max_pixels",
    "forward_backward": "tokens_per_microbatch or model.max_pixels, or set model.activation_checkpointing: true",
    "optimizer": "the number of parameters on each GPU: more ranks share them",
}
"""Phase -> what to lower when it runs out of memory."""
_RESET_PEAK, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class OutOfMemory(ValueError):
    """A phase that did not fit into memory."""


class Clock:
    """Adds up what the phases of a step take, until `lap`.

    Args:
        device: whose work is waited for at the ends of a phase, and whose memory is meant.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}
        self._peak_gib: dict[str, float] = {}
        self._has_peak = True

    @contextmanager
    def phase(self, name: str, num_tokens: int = 0) -> Iterator[None]:
        """What runs inside counts as this phase. Phases do not nest.

        Args:
            num_tokens: unique tokens at work, for the message.
        Raises:
            OutOfMemory: saying the phase, its tokens and what to lower.
        """
        self._begin()
        started = time.perf_counter()
        try:
            yield
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            tokens = f" on {num_tokens:,} unique tokens" if num_tokens else ""
            advice = f" Lower {ADVICE[name]}." if name in ADVICE else ""
            raise OutOfMemory(
                f"out of memory on {self._device} in {name.replace('_', ' ')}{tokens}.{advice} ({error})"
            ) from error
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started
            self._peak_gib[name] = max(self._peak_gib.get(name, 0.0), self._peak())

    def lap(self) -> dict[str, float]:
        """timing_s/<phase> and memory_gib/<phase> since the last lap: of the device, or of the process on a CPU."""
        metrics = {f"timing_s/{name}": seconds for name, seconds in self._seconds.items()}
        metrics |= {f"memory_gib/{name}": peak for name, peak in self._peak_gib.items()}
        self._seconds, self._peak_gib = {}, {}
        return metrics

    def _begin(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            # Linux: the peak of this process's resident memory starts anew.
            _RESET_PEAK.write_text("5")
        except OSError:
            self._has_peak = False

    def _peak(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / GIB
        if not self._has_peak:
            return float("nan")
        peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024 / GIB


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
