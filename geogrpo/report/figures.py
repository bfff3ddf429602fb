"""The pictures of a run's report: reward curve, distance histogram, world map of truth -> prediction."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from geogrpo.metrics import THRESHOLDS_KM, charged_km

COLORS = {"supervised": "#3b6fb6", "grpo": "#d1495b"}
MAP_SIZE = (1600, 800)


def reward_curve(metrics: Sequence[dict[str, Any]], path: Path, *, window: int = 20) -> None:
    """Mean reward of sampled completions over GRPO steps, with its moving average and the entropy below.

    A step that trained on no token has no entropy; the curve has a gap there.
    """
    steps = [record for record in metrics if record["stage"] == "grpo" and record.get("reward") is not None]
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    x = np.array([record["step"] for record in steps])
    for axes, name, label in ((upper, "reward", "mean reward of samples"), (lower, "entropy", "entropy (nats/token)")):
        y = np.array([record.get(name, np.nan) for record in steps], dtype=float)
        axes.plot(x, y, color=COLORS["grpo"], alpha=0.3, linewidth=1)
        if len(y) >= window:
            axes.plot(
                x[window - 1 :],
                _moving_mean(y, window),
                color=COLORS["grpo"],
                linewidth=2,
                label=f"mean of {window} steps",
            )
            axes.legend(frameon=False, loc="best")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
    upper.set_title("GRPO: reward on training images")
    lower.set_xlabel("step")
    figure.savefig(path, dpi=110)


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(N - window + 1,) mean of the finite values in each window, NaN where there are none."""
    ones, is_known = np.ones(window), np.isfinite(values)
    totals = np.convolve(np.where(is_known, values, 0.0), ones, mode="valid")
    counts = np.convolve(is_known.astype(float), ones, mode="valid")
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def distance_histogram(distance_km: Mapping[str, np.ndarray], path: Path) -> None:
    """How far off the greedy answers are, one curve per stage, on a logarithmic axis with the accuracy thresholds."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    bins = np.geomspace(1, 20_100, 50).tolist()
    for stage, distances in distance_km.items():
        charged = np.clip(charged_km(distances), 1, None)
        label = f"after {stage}: median {np.median(charged):,.0f} km"
        axes.hist(charged, bins=bins, histtype="stepfilled", alpha=0.25, color=COLORS[stage])
        axes.hist(charged, bins=bins, histtype="step", linewidth=1.8, color=COLORS[stage], label=label)
    for threshold in THRESHOLDS_KM:
        axes.axvline(threshold, color="black", linestyle=":", linewidth=0.8)
        axes.text(threshold, 1.01, f"{threshold} km", transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
    axes.set(xscale="log", xlabel="distance to the truth (km)", ylabel="held-out images")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def world_map(
    truth_latlon_deg: np.ndarray,
    predicted_latlon_deg: np.ndarray,
    distance_km: np.ndarray,
    world: Image.Image,
    path: Path,
    *,
    title: str,
) -> None:
    """Truth -> prediction over the Earth: a dot at the truth, a line to the answer, coloured by distance.

    Args:
        truth_latlon_deg, predicted_latlon_deg: (N, 2) degrees; NaN predictions are left out.
        distance_km: (N,) km.
        world: equirectangular picture of the whole Earth.
    """
    parsed = np.isfinite(distance_km)
    truth, predicted, distance = truth_latlon_deg[parsed], predicted_latlon_deg[parsed], distance_km[parsed]
    order = np.argsort(-distance)
    norm, colors = LogNorm(25, 10_000), mpl.colormaps["RdYlGn_r"]
    figure = Figure(figsize=(14, 5.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(world.resize(MAP_SIZE), extent=(-180, 180, -90, 90), interpolation="bilinear")
    segments, segment_colors = [], []
    for i in order:
        pieces = _wrapped_line(truth[i], predicted[i])
        segments += pieces
        segment_colors += [colors(norm(max(distance[i], 25)))] * len(pieces)
    axes.add_collection(LineCollection(segments, colors=segment_colors, linewidths=0.7, alpha=0.7))
    dots = axes.scatter(
        truth[order, 1], truth[order, 0], c=np.clip(distance[order], 25, None), cmap=colors, norm=norm, s=9, zorder=3
    )
    figure.colorbar(dots, ax=axes, shrink=0.9, pad=0.01, label="distance to the truth (km)")
    axes.set(xlim=(-180, 180), ylim=(-60, 80), xlabel="longitude", ylabel="latitude", title=title)
    figure.savefig(path, dpi=100)


def _wrapped_line(a_latlon: np.ndarray, b_latlon: np.ndarray) -> list[list[tuple[float, float]]]:
    """The straight line between two points as (lon, lat) pieces, taking the short way round the antimeridian."""
    (lat_a, lon_a), (lat_b, lon_b) = a_latlon.tolist(), b_latlon.tolist()
    if abs(lon_b - lon_a) <= 180:
        return [[(lon_a, lat_a), (lon_b, lat_b)]]
    turn = 360 if lon_b < lon_a else -360
    return [[(lon_a, lat_a), (lon_b + turn, lat_b)], [(lon_a - turn, lat_a), (lon_b, lat_b)]]
