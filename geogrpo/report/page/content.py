"""What the page shows: plain values, each from wherever it was computed.

Shapes: N images, B bins, C points of a curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from geogrpo.report.tables import MetricRow
from geogrpo.types import ImageSource, check_latlon


@dataclass(frozen=True)
class PageExample:
    """One image with its answer. Every text is shown as it is, never as markup.

    Raises:
        ValueError: for coordinates, a distance or a radius out of range, or a distance without a prediction.
    """

    id: str
    true_latlon_deg: tuple[float, float]
    """(lat, lon), WGS84 degrees."""
    image: str | Path | Image.Image | ImageSource | None = None
    """Opened only while its thumbnail is made; None for no picture."""
    predicted_latlon_deg: tuple[float, float] | None = None
    """None where the answer has no usable coordinates."""
    distance_km: float | None = None
    """From truth to prediction; None without one."""
    country: str | None = None
    """Of the truth; the country filter lists these."""
    continent: str | None = None
    """Of the truth; the continent filter lists these."""
    text: str = ""
    """The answer."""
    thinking: str = ""
    """The reasoning before the answer."""
    names: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """"country", "state", "city" or any other level -> (true name, predicted name)."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """Component -> reward."""
    radius_50_km: float | None = None
    """Around the prediction: the model gives the truth a chance of 50 % to lie within."""
    radius_90_km: float | None = None
    """The same for 90 %."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is said of it in a few words: term -> value."""
    problem: str | None = None
    """Why the answer could not be used."""

    def __post_init__(self) -> None:
        check_latlon(self.true_latlon_deg, f"example {self.id!r}")
        if self.predicted_latlon_deg is not None:
            check_latlon(self.predicted_latlon_deg, f"prediction for {self.id!r}")
        for name in ("distance_km", "radius_50_km", "radius_90_km"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"example {self.id!r}: {name} must be a finite number of at least 0, got {value}.")
        if (self.predicted_latlon_deg is None) != (self.distance_km is None):
            raise ValueError(
                f"example {self.id!r}: a prediction and its distance_km go together, got"
                f" {self.predicted_latlon_deg} and {self.distance_km}."
            )


@dataclass(frozen=True)
class Calibration:
    """Whether stated confidence can be relied on.

    Raises:
        ValueError: when arrays that belong together differ in length.
    """

    stated: np.ndarray
    """(B,) mean stated probability in each bin, in [0, 1]."""
    observed: np.ndarray
    """(B,) share of the bin for which the statement was true, in [0, 1]."""
    counts: np.ndarray
    """(B,) statements in each bin."""
    coverage: np.ndarray
    """(C,) share of images answered when the least certain are left out, increasing, in (0, 1]."""
    risk: np.ndarray
    """(C,) error on the images answered."""
    risk_name: str = "median error (km)"
    """Label of the risk, with its unit."""

    def __post_init__(self) -> None:
        for names in (("stated", "observed", "counts"), ("coverage", "risk")):
            shapes = {name: np.shape(getattr(self, name)) for name in names}
            if len(set(shapes.values())) > 1 or len(shapes[names[0]]) != 1:
                raise ValueError(f"{', '.join(names)} must be 1-D and of one length, got {shapes}.")


@dataclass(frozen=True)
class Groups:
    """The metrics of each part of the images, such as continents: one table, and one plot of up to MAX_BARS rows."""

    title: str
    """What the rows are, such as "Continents"."""
    rows: Sequence[MetricRow]
    plotted: str = "geoscore"
    """The metric of the plot: a key of tables.COLUMNS."""


@dataclass(frozen=True)
class SampledCompletion:
    """One completion of a training step."""

    text: str
    predicted_latlon_deg: tuple[float, float] | None
    """None where it has no usable coordinates."""
    distance_km: float | None
    """None without a prediction."""
    reward: float | None
    """None where a reward was missing, as in the next two."""
    rewards: Mapping[str, float | None]
    """Component -> reward."""
    advantage: float | None


@dataclass(frozen=True)
class SampledGroup:
    """An image of a training step with what was sampled for it."""

    step: int
    id: str
    true_latlon_deg: tuple[float, float]
    image: str | Path | Image.Image | ImageSource | None
    """None where the image is not known any more."""
    completions: Sequence[SampledCompletion]
    """Those shown."""
    num_completions: int
    """Of the whole group."""
