"""What a step took, over all ranks: seconds and peak memory per phase, tokens per second, use of the hardware.

Shapes: G group.
"""

from collections.abc import Sequence
from functools import cache

import torch

from geogrpo.clock import Clock
from geogrpo.distributed import all_gather_list, world_size
from geogrpo.plan.costs import BACKWARD_FLOPS, packed_flops
from geogrpo.plan.shapes import built_shape
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.types import Rollouts

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12}
"""Part of a GPU's name -> dense bfloat16 operations per second, from NVIDIA's data sheets."""
MEASURED_SIDE, MEASURED_TIMES = {"cpu": 1024, "cuda": 8192}, 5


class Accounting:
    """Counts the steps of a stage on this rank; `clock` is handed to the phases.

    Args:
        policy: that trains.
    """

    def __init__(self, policy: Policy) -> None:
        self.clock = Clock(policy.device)
        self._shape = built_shape(policy.model)
        self._vision_passes = _vision_passes(policy)
        self._peak_flops = peak_flops(policy.device, policy.dtype)

    def finish_step(self, groups: Sequence[Group], rollouts: Rollouts | None = None) -> dict[str, float]:
        """Metrics of the step, the same on every rank, which must all call this.

        timing_s/<phase> is the slowest rank's, memory_gib/<phase> the largest. perf/sampled_tokens_per_s counts new
        tokens over prefill and decode; perf/trained_tokens_per_s unique tokens over forward_backward,
        perf/dense_tokens_per_s what these would be with the prompt repeated for every completion. perf/mfu is the share
        of the peak that the update's floating-point operations come to: each counted once, whatever is recomputed, and
        attention as whole rectangles, of which a causal kernel computes half.

        Args:
            groups: this rank's, that were trained on.
            rollouts: this rank's, where the step sampled.
        """
        counts = {"unique": 0.0, "dense": 0.0, "flops": 0.0, "sampled": 0.0}
        for group in groups:
            prompt, inputs = len(group.prompt.token_ids), [len(completion) - 1 for completion in group.completions]
            counts["unique"] += group.num_unique_tokens
            counts["dense"] += prompt * len(inputs) + sum(inputs)
            counts["flops"] += self._update_flops(group, prompt, inputs)
        if rollouts is not None:
            counts["sampled"] = float(sum(len(ids) for of_prompt in rollouts.token_ids for ids in of_prompt))
        per_rank = all_gather_list([(self.clock.lap(), counts, self._peak_flops)])
        phases = dict.fromkeys(name for lap, _, _ in per_rank for name in lap)
        metrics = {name: max(lap.get(name, 0.0) for lap, _, _ in per_rank) for name in phases}
        total = {name: sum(of_rank[name] for _, of_rank, _ in per_rank) for name in counts}
        # A measured peak differs between ranks: the first's, so that all report the same.
        self._peak_flops = per_rank[0][2]
        return metrics | self._rates(metrics, total)

    def _update_flops(self, group: Group, prompt_tokens: int, new_inputs: list[int]) -> float:
        patches = int(group.prompt.image_grid_thw.prod(-1).sum())
        image_tokens = patches // self._shape.merge_size**2
        language, vision = packed_flops(
            self._shape, image_tokens, prompt_tokens, new_inputs, sum(new_inputs) + len(new_inputs)
        )
        return (1 + BACKWARD_FLOPS) * language + self._vision_passes * vision

    def _rates(self, metrics: dict[str, float], total: dict[str, float]) -> dict[str, float]:
        sampling_s = metrics.get("timing_s/prefill", 0.0) + metrics.get("timing_s/decode", 0.0)
        update_s = metrics.get("timing_s/forward_backward", 0.0)
        rates = {}
        if sampling_s and total["sampled"]:
            rates["perf/sampled_tokens_per_s"] = total["sampled"] / sampling_s
        if update_s and total["unique"]:
            rates["perf/trained_tokens_per_s"] = total["unique"] / update_s
            rates["perf/dense_tokens_per_s"] = total["dense"] / update_s
            rates["perf/mfu"] = total["flops"] / (update_s * world_size() * self._peak_flops)
        return rates


def _vision_passes(policy: Policy) -> int:
    """Forward passes that the vision tower's part of an update costs as much as. A frozen tower has no backward pass,
    and with its aligner frozen, too, its features are there already.
    """
    if policy.vision_cache is not None:
        return 0
    is_trained = any(parameter.requires_grad for parameter in policy.tower_parameters())
    return 1 + BACKWARD_FLOPS * is_trained


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one device: a data sheet's where it is a GPU of PEAK_FLOPS and the dtype has 16 bits,
    else those of a matrix product here and now.
    """
    if device.type == "cuda" and dtype.itemsize == 2:
        name = torch.cuda.get_device_name(device)
        for part, flops in PEAK_FLOPS.items():
            if part in name:
                return flops
    clock = Clock(device)
    side = MEASURED_SIDE[device.type]
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    with clock.phase("warm"):
        matrix @ matrix
    seconds = []
    for _ in range(MEASURED_TIMES):
        with clock.phase("product"):
            matrix @ matrix
        seconds.append(clock.lap()["timing_s/product"])
    return 2.0 * side**3 / min(seconds)
