"""Where examples come from, and what they are asked."""

from dataclasses import dataclass, field
from typing import Literal

from geogrpo.config.checks import require


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from."""

    name: str = "blue_marble"
    """A key of geogrpo.data.DATASETS: blue_marble, jsonl, photos, table, im2gps3k, yfcc4k, osv5m and others."""
    path: str | None = None
    """JSONL file (jsonl), folder (photos) or table (all others) to train on. Not used by blue_marble."""
    test_path: str | None = None
    """The same for held-out examples. None holds out whole 1-degree cells of `path`."""
    grpo_path: str | None = None
    """The same for stage 2, where it trains on other examples than stage 1, such as the hard ones. None: `path`."""
    test_fraction: float = 0.1
    """Share of 1-degree cells held out, in (0, 1)."""
    num_test: int = 1000
    """Held-out examples to evaluate on; 0 takes all."""
    images: str | None = None
    """Tables: folder, .zip or .tar that the images are in, archives below a folder included. None: the table's."""
    test_images: str | None = None
    """The same for test_path. None: `images`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Tables: what id, image, lat, lon, country, state, city, or a column for rewards, is called in the file."""
    allow_missing: bool = False
    """Tables: leave out and count rows without an image or coordinates. False: they stop the run, listed."""
    needs_images: bool = True
    """False: an image need not be there, as where the predictions of others are scored."""
    swap_coordinates: bool = False
    """Tables: the file calls latitudes longitudes, as one stored copy of im2gps3k_places365.csv does."""
    num_loaders: int | None = None
    """Threads per rank that read and encode images ahead of the step. None: a quarter of the rank's cores, or one."""
    max_image_pixels: int = 89_478_485
    """Larger images count as unreadable. The default is where Pillow begins to warn of decompression bombs."""
    draw: Literal["shuffled", "by_country", "by_difficulty"] = "shuffled"
    """Which training examples a step takes: each once per epoch; a country at random, then one of its examples; or at
    random in proportion to the examples' column `difficulty`, a number of 0 or more."""
    crop_deg: float = 15.0
    """blue_marble: side of a crop in degrees (15 pixels each)."""
    max_shift_deg: float = 0.5
    """blue_marble: a crop's centre lies up to this far from its place, in latitude and in longitude."""
    city_min_population: int = 0
    """blue_marble: an answer's city is the nearest in the country of at least so many people; 0: the place itself."""

    def __post_init__(self) -> None:
        require(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1")
        require(self.num_test >= 0, "data.num_test", self.num_test, "0 or more")
        require(self.num_loaders is None or self.num_loaders > 0, "data.num_loaders", self.num_loaders, "positive")
        require(self.max_image_pixels > 0, "data.max_image_pixels", self.max_image_pixels, "positive")
        for name, column in self.columns.items():
            require(bool(name and column), f"data.columns.{name}", column, "the name of a column")
        require(1 <= self.crop_deg <= 90, "data.crop_deg", self.crop_deg, "between 1 and 90")
        require(0 <= self.max_shift_deg <= 5, "data.max_shift_deg", self.max_shift_deg, "between 0 and 5")
        require(self.city_min_population >= 0, "data.city_min_population", self.city_min_population, "0 or more")


@dataclass(frozen=True)
class AnswerConfig:
    """What the model is asked and how it answers."""

    prompt: str = "chain_of_region"
    """A key of geogrpo.prompts.PROMPTS."""
    decimals: int = 1
    """Decimals of the coordinates in supervised answers; 1 is 11 km, 2 is 1.1 km."""

    def __post_init__(self) -> None:
        require(0 <= self.decimals <= 6, "answer.decimals", self.decimals, "between 0 and 6")
