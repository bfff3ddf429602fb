"""The reward lab's pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from geogrpo.metrics import THRESHOLDS_KM
from geogrpo.rewards.lab import ConstantGuess
from geogrpo.rewards.probes import PROBES, ProbeResult

HONEST, ATTACK, WINNING = "#3b6fb6", "#9aa0a6", "#d1495b"


def plot_rewards(
    distance_km: Sequence[float],
    rewards: Mapping[str, Sequence[float]],
    floors: Mapping[str, ConstantGuess],
    path: Path,
) -> None:
    """Reward against distance, one curve per preset, each with what the best constant guess earns as a dotted line."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, values in rewards.items():
        (line,) = axes.plot(distance_km, values, label=name, linewidth=2)
        axes.axhline(floors[name].reward, color=line.get_color(), linestyle=":", linewidth=1.2)
    for threshold in THRESHOLDS_KM:
        axes.axvline(threshold, color="#cccccc", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(THRESHOLDS_KM, [f"{threshold:,} km" for threshold in THRESHOLDS_KM])
    axes.set_xlim(distance_km[0], distance_km[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("distance between answer and truth")
    axes.set_ylabel("mean reward of an honest answer")
    axes.set_title("Reward against distance (dotted: the best constant guess)")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def plot_probes(results: Mapping[str, Mapping[str, ProbeResult]], path: Path) -> None:
    """What each probe earns, one panel per preset; attacks that earn more than an honest answer stand out."""
    figure = Figure(figsize=(4.2 * len(results) + 2, 4.6), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    names = list(PROBES)
    for axes, (preset, found) in zip(panels, results.items(), strict=True):
        floor = min(found[name].reward for name in names if PROBES[name].is_honest)
        values = [found[name].reward for name in names]
        colors = [_color(name, found[name].reward, floor) for name in names]
        bars = axes.barh(names, values, color=colors)
        axes.bar_label(bars, labels=[f"{value:.3f}" for value in values], padding=3, fontsize=9)
        axes.axvline(floor, color=HONEST, linestyle="--", linewidth=1)
        axes.set_xlim(0, max(*values, 1e-9) * 1.2)
        axes.set_title(preset)
        axes.set_xlabel("mean reward")
    panels[0].invert_yaxis()
    figure.suptitle("Honest answers (blue) and attacks (grey; red where one earns more than an honest answer)")
    figure.savefig(path, dpi=110)


def _color(name: str, reward: float, floor: float) -> str:
    if PROBES[name].is_honest:
        return HONEST
    return WINNING if reward > floor else ATTACK
