"""Every loss on the demo, from one supervised model: benchmarks/results/losses_cpu.json, the table of docs/losses.md.

python -m benchmarks.loss_table [LOSS ...]      about 3 minutes a loss on 2 CPU cores; those that are there are kept
python -m benchmarks.loss_table --render        writes the table alone

Two updates per sample, as one leaves every ratio at 1 and most losses alike, and half of the demo's prompts per step.
"""

import dataclasses
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geogrpo_kernels import haversine_km

from geogrpo.config import GRPOConfig, ModelConfig, RunConfig
from geogrpo.config_files import load_config
from geogrpo.data import load_dataset
from geogrpo.distributed import init_distributed, load_sharded
from geogrpo.evaluation import answer_rewards, greedy_points, predict_held_out, true_points
from geogrpo.losses import LOSSES
from geogrpo.metrics import bootstrap, charged_km, paired_difference
from geogrpo.rollout import make_engine
from geogrpo.run import Run
from geogrpo.trainer import train_grpo

ROOT = Path(__file__).parents[1]
RESULT, PAGE, START = ROOT / "benchmarks/results/losses_cpu.json", ROOT / "docs/losses.md", ROOT / "runs/losses_start"
STEPS, UPDATES_PER_SAMPLE, PROMPTS_PER_STEP = 200, 2, 8
RESAMPLES = 2000
AS_PUBLISHED: dict[str, dict[str, Any]] = {
    "dr_grpo": {"advantage_scale": "none"},
    "rloo": {"advantage_scale": "none", "advantage_baseline": "leave_one_out"},
    "reinforce++": {"advantage_scale": "batch", "advantage_baseline": "batch"},
}
"""What a loss is published with besides its own options; the others keep the demo's scale, the batch's."""
BEGIN, END = "<!-- table of benchmarks/loss_table.py -->", "<!-- end of the table -->"


def demo_config() -> RunConfig:
    """The demo, its name and length changed."""
    return load_config("demo", ["--name", START.name, "--output_dir", str(START.parent), "--grpo.steps", "0"])


def stage_2(config: RunConfig, loss: str) -> GRPOConfig:
    """The demo's stage 2 under a loss."""
    return dataclasses.replace(
        config.grpo,
        steps=STEPS,
        updates_per_sample=UPDATES_PER_SAMPLE,
        prompts_per_step=PROMPTS_PER_STEP,
        loss=dataclasses.replace(config.grpo.loss, name=loss),
        **AS_PUBLISHED.get(loss, {}),
    )


class Held:
    """The demo's data and its held-out answers."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self.splits = config, load_dataset(config.data, config.seed)

    def load(self) -> Any:
        """The supervised model, and its processor."""
        return load_sharded(ModelConfig(path=str(START / "model"), dtype=self._config.model.dtype), "short")

    def answers(self, policy: Any, processor: Any) -> dict[str, np.ndarray]:
        """(N,) what the policy's answers to the held-out images earn, and km of the greedy one."""
        predictions, _ = predict_held_out(
            policy,
            processor,
            make_engine("native", processor),
            self.splits.test,
            self._config.evaluation,
            max_new_tokens=self._config.grpo.sampling.max_new_tokens,
            seed=self._config.seed,
        )
        distance_km = haversine_km(greedy_points(predictions), true_points(predictions)).numpy()
        return answer_rewards(predictions) | {"distance_km": charged_km(distance_km)}


def train(held: Held, config: RunConfig, loss: str, before: dict[str, np.ndarray]) -> dict[str, Any]:
    """One loss: the supervised model trained with it, and what changed on the held-out images."""
    policy, processor = held.load()
    steps: list[dict[str, float]] = []
    started = time.perf_counter()
    train_grpo(
        policy,
        processor,
        held.splits.grpo_train,
        stage_2(config, loss),
        tokens_per_microbatch=config.tokens_per_microbatch,
        seed=config.seed + 1,
        on_step=lambda record: steps.append(record.metrics),
    )
    seconds = time.perf_counter() - started
    after = held.answers(policy, processor)
    changes = {
        name: dataclasses.asdict(paired_difference(before[name], after[name], num_samples=RESAMPLES))
        for name in ("greedy_reward", "sampled_reward")
    }
    return {
        **{name: dataclasses.asdict(bootstrap(after[name], num_samples=RESAMPLES)) for name in changes},
        **{f"{name}_change": change for name, change in changes.items()},
        "median_km": float(np.median(after["distance_km"])),
        "minutes": seconds / 60,
        "has_diverged": not all(math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"]) for step in steps),
        **{f"last_20_{name}": sum(step[name] for step in steps[-20:]) / 20 for name in LOGGED},
    }


LOGGED = ("reward", "entropy", "clip_ratio/region_mean", "parse_rate", "grad_norm")


def render(result: dict[str, Any]) -> str:
    """The table in Markdown."""
    start = result["start"]
    lines = [
        "| loss | sampled reward | change | greedy reward | change | median km | tokens clipped | entropy |",
        "|---|---|---|---|---|---|---|---|",
        f"| (supervised model) | {start['sampled_reward']:.4f} | | {start['greedy_reward']:.4f} | |"
        f" {start['median_km']:,.0f} | | |",
    ]
    for name, row in result["losses"].items():
        cells = [f"`{name}`{' **diverged**' if row['has_diverged'] else ''}"]
        for reward in ("sampled_reward", "greedy_reward"):
            cells += [f"{row[reward]['value']:.4f}", _interval(row[f"{reward}_change"])]
        cells += [f"{row['median_km']:,.0f}", f"{row['last_20_clip_ratio/region_mean']:.2%}"]
        cells += [f"{row['last_20_entropy']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    machine = result["machine"]
    lines.append("")
    lines.append(
        f"{STEPS} steps of the demo, {PROMPTS_PER_STEP} prompts and {UPDATES_PER_SAMPLE} updates each, all from one"
        f" supervised model and with one seed; {result['num_images']:,} held-out images, multiscale reward, 95 %"
        " intervals of the paired change; clipped tokens and entropy of the last 20 steps."
        f" torch {machine['torch']}, {machine['cpu']}."
    )
    return "\n".join(lines)


def _interval(change: dict[str, float]) -> str:
    return f"{change['value']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})"


def write_page(result: dict[str, Any]) -> None:
    """Put the table between its marks in docs/losses.md."""
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text(f"{head}\n{render(result)}\n{tail}", encoding="utf-8")


def main(words: list[str]) -> None:
    """Train what is asked for, or every loss that the result does not hold."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"losses": {}}
    if words != ["--render"]:
        device = init_distributed()
        config = demo_config()
        if not (START / "model").exists():
            Run(config, device, resume=False).train()
        held = Held(config)
        before = held.answers(*held.load())
        machine = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
        result |= {"num_images": len(before["distance_km"]), "machine": machine | {"torch": torch.__version__}}
        means = {name: float(before[name].mean()) for name in ("greedy_reward", "sampled_reward")}
        result["start"] = means | {"median_km": float(np.median(before["distance_km"]))}
        for loss in words or [name for name in LOSSES if name not in result["losses"]]:
            result["losses"][loss] = train(held, config, loss, before)
            RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            print(loss, result["losses"][loss], flush=True)
    write_page(result)


if __name__ == "__main__":
    main(sys.argv[1:])
