"""Crops of the Blue Marble: where they are cut, which side of the split they lie on, and that they never change."""

from functools import cache

import numpy as np
import pytest

from geogrpo.config import DataConfig
from geogrpo.config_files import load_config
from geogrpo.data import blue_marble as module
from geogrpo.data import load_dataset
from geogrpo.data.blue_marble import PIXELS_PER_DEG, BlueMarbleCrop, BlueMarbleExamples, load_blue_marble
from geogrpo.data.holdout import Splits, is_held_out
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.types import Example

WIDTH, HEIGHT = 5400, 2700
CONFIG = DataConfig(num_test=0, max_shift_deg=0.5, test_fraction=0.1)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_blue_marble(CONFIG, seed=0)


@cache
def numbers() -> np.ndarray:
    """A picture of the same size in which every pixel is its own number, in three bytes."""
    number = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    return np.stack([number >> 16, number >> 8 & 255, number & 255], axis=-1).astype(np.uint8)


@pytest.fixture
def numbered_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_pixels", numbers)


def rows_and_columns(crop: BlueMarbleCrop) -> tuple[np.ndarray, np.ndarray]:
    """Where in the numbered picture each pixel of a crop comes from."""
    red, green, blue = np.moveaxis(np.asarray(crop.open()).astype(np.int64), -1, 0)
    return np.divmod(red << 16 | green << 8 | blue, WIDTH)


def crop_of(example: Example) -> BlueMarbleCrop:
    assert isinstance(example.image, BlueMarbleCrop)
    return example.image


def angle_between_lons(a_deg: np.ndarray, b_deg: np.ndarray) -> np.ndarray:
    return np.abs((a_deg - b_deg + 180) % 360 - 180)


def centers_of(examples: BlueMarbleExamples, step: int) -> np.ndarray:
    return np.array([crop_of(examples[i]).center_latlon_deg for i in range(0, len(examples), step)])


def test_no_test_crop_is_centred_in_a_training_cell_nor_the_reverse(splits: Splits) -> None:
    test, train = centers_of(splits.test, 5), centers_of(splits.train, 40)
    assert len(test) > 2000
    assert len(train) > 2000
    assert is_held_out(test, CONFIG.test_fraction).all()
    assert not is_held_out(train, CONFIG.test_fraction).any()


def test_a_far_shift_still_keeps_to_its_side_of_the_split() -> None:
    far = load_blue_marble(DataConfig(num_test=0, max_shift_deg=5.0, test_fraction=0.02), seed=1)
    assert is_held_out(centers_of(far.test, 2), 0.02).all()
    assert not is_held_out(centers_of(far.train, 100), 0.02).any()


def test_places_are_on_one_side_each_and_none_is_lost(splits: Splits) -> None:
    ids = [example.id for part in (splits.train, splits.test) for example in (part[i] for i in range(0, len(part), 50))]
    assert len(set(ids)) == len(ids)
    places = load_geonames()
    assert len(splits.train) + len(splits.test) == len(places)
    assert len(splits.test) == is_held_out(places.latlon_deg, CONFIG.test_fraction).sum()


def test_the_answer_is_the_place_itself_and_the_centre_near_it(splits: Splits) -> None:
    places = load_geonames()
    shifts = []
    for i in range(0, len(splits.train), 97):
        example = splits.train[i]
        place = int(example.id.removeprefix("geonames-"))
        assert example.latlon_deg == tuple(places.latlon_deg[place])
        assert (example.country, example.state, example.city) == (
            places.country[place],
            places.state[place],
            places.city[place],
        )
        lat, lon = crop_of(example).center_latlon_deg
        shifts.append((abs(lat - example.latlon_deg[0]), angle_between_lons(lon, example.latlon_deg[1])))
    # Rounding of the wrapped longitude apart, never farther than max_shift_deg, and nearly that far at times
    assert np.max(shifts, axis=0) == pytest.approx([0.5, 0.5], abs=0.01)
    assert (np.array(shifts) <= 0.5 + 1e-9).all()


def test_the_shift_moves_in_all_four_directions(splits: Splits) -> None:
    shifts = []
    for i in range(0, len(splits.train), 97):
        lat, lon = crop_of(splits.train[i]).center_latlon_deg
        shifts.append((lat - splits.train[i].latlon_deg[0], lon - splits.train[i].latlon_deg[1]))
    # 1,400 uniform numbers of deviation 0.29 have a mean within 0.01 of 0 (one deviation is 0.0077; four allowed).
    assert np.mean(shifts, axis=0) == pytest.approx([0, 0], abs=0.031)


def test_without_a_shift_the_place_is_in_the_centre() -> None:
    examples = load_blue_marble(DataConfig(max_shift_deg=0.0), seed=0).test
    for example in examples[::280]:
        assert crop_of(example).center_latlon_deg == pytest.approx(example.latlon_deg, abs=1e-9)


def test_the_same_seed_gives_the_same_crops_and_another_seed_others(splits: Splits) -> None:
    again, other = load_blue_marble(CONFIG, seed=0), load_blue_marble(CONFIG, seed=1)
    sample = range(0, len(splits.test), 500)
    assert [splits.test[i] for i in sample] == [again.test[i] for i in sample]
    assert [splits.test[i].latlon_deg for i in sample] == [other.test[i].latlon_deg for i in sample]
    assert all(splits.test[i].image != other.test[i].image for i in sample)


def test_held_out_places_are_a_random_draw_fixed_by_the_seed(splits: Splits) -> None:
    first, again, other = (
        [example.id for example in load_dataset(DataConfig(num_test=200), seed=seed).test] for seed in (0, 0, 1)
    )
    assert first == again
    assert len(set(first)) == 200
    assert set(first) != set(other)
    assert set(first) < {example.id for example in splits.test}


@pytest.mark.slow
def test_held_out_crops_lie_between_training_crops(splits: Splits) -> None:
    """What the module's docstring says of the demo's split, on every fifth of its held-out crops."""
    config = load_config("demo")
    demo = load_dataset(config.data, config.seed)
    train, test = centers_of(demo.train, 1), centers_of(demo.test, 5)
    nearest_deg, nearest_share = [], []
    for lat, lon in test:
        gap_deg = np.stack([np.abs(train[:, 0] - lat), angle_between_lons(train[:, 1], lon)])
        nearest_deg.append(gap_deg.max(axis=0).min())
        nearest_share.append(np.clip(1 - gap_deg / config.data.crop_deg, 0, 1).prod(axis=0).max())
    # Medians of 200 crops: 0.30 degrees and 97 % of the area. Three standard errors of a median: 1.25 * deviation / 14
    assert np.median(nearest_deg) == pytest.approx(0.295, abs=0.05)
    assert np.median(nearest_share) == pytest.approx(0.974, abs=0.005)
    assert np.mean(np.array(nearest_deg) < 0.5) == pytest.approx(0.89, abs=0.07)


def test_a_slice_holds_the_same_examples(splits: Splits) -> None:
    part = splits.train[10:20:3]
    assert list(part) == [splits.train[i] for i in (10, 13, 16, 19)]
    assert splits.train[-1] == splits.train[len(splits.train) - 1]


@pytest.mark.usefixtures("numbered_pixels")
@pytest.mark.parametrize("side_deg", [7.5, 7.4, 1.0])
@pytest.mark.parametrize(
    "center", [(0.0, 0.0), (48.8566, 2.3522), (-33.87, 151.21), (71.3, -156.79), (10.0, 179.9), (10.0, -179.97)]
)
def test_the_middle_of_a_crop_is_its_centre(center: tuple[float, float], side_deg: float) -> None:
    rows, columns = rows_and_columns(BlueMarbleCrop(center, side_deg))
    side = int(side_deg * PIXELS_PER_DEG)
    assert rows.shape == (side, side)
    # Degrees at the middle of the crop: between the two middle pixels, or in the one.
    lat = 90 - (rows[[(side - 1) // 2, side // 2], 0].mean() + 0.5) / PIXELS_PER_DEG
    lons = -180 + (columns[0, [(side - 1) // 2, side // 2]] + 0.5) / PIXELS_PER_DEG
    # A crop starts on a whole pixel: at most half a pixel off.
    half_pixel = 0.5 / PIXELS_PER_DEG + 1e-9
    assert abs(lat - center[0]) <= half_pixel
    middle_lon = lons[0] + ((lons[1] - lons[0] + 180) % 360 - 180) / 2
    assert angle_between_lons(middle_lon, center[1]) <= half_pixel


@pytest.mark.usefixtures("numbered_pixels")
def test_a_crop_is_a_piece_of_the_picture_north_up_and_not_mirrored() -> None:
    rows, columns = rows_and_columns(BlueMarbleCrop((20.0, 30.0), 7.5))
    assert (np.diff(rows, axis=0) == 1).all()
    assert (np.diff(rows, axis=1) == 0).all()
    assert (np.diff(columns, axis=1) == 1).all()
    assert (np.diff(columns, axis=0) == 0).all()


@pytest.mark.usefixtures("numbered_pixels")
@pytest.mark.parametrize("lon", [-180.0, 179.99, 180.0, -178.0])
def test_a_crop_wraps_at_the_antimeridian(lon: float) -> None:
    _, columns = rows_and_columns(BlueMarbleCrop((0.0, lon), 7.5))
    steps = np.diff(columns[0])
    assert sorted(set(steps.tolist())) == [1 - WIDTH, 1]
    assert (steps < 0).sum() == 1


@pytest.mark.usefixtures("numbered_pixels")
@pytest.mark.parametrize(("lat", "last_row"), [(90.0, 0), (89.0, 0), (-90.0, HEIGHT - 1), (-88.5, HEIGHT - 1)])
def test_beyond_a_pole_the_last_row_repeats(lat: float, last_row: int) -> None:
    rows, _ = rows_and_columns(BlueMarbleCrop((lat, 0.0), 7.5))
    # round() goes to even on a half: one row either way
    beyond = (7.5 / 2 - (90 - abs(lat))) * PIXELS_PER_DEG
    assert (rows[:, 0] == last_row).sum() == pytest.approx(beyond + 1, abs=1)
    assert set(np.diff(rows[:, 0]).tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("center", "is_land"),
    [
        # Deserts, and the points that take their place when the picture is upside down or mirrored
        ((-25.0, 134.0), True),
        ((25.0, 134.0), False),
        ((-25.0, -134.0), False),
        ((23.0, 12.0), True),
        ((-23.0, 12.0), False),
        ((24.0, 45.0), True),
        ((24.0, -45.0), False),
    ],
)
def test_deserts_are_where_they_are_on_earth(center: tuple[float, float], is_land: bool) -> None:
    red, _, blue = np.asarray(BlueMarbleCrop(center, 1.0).open()).reshape(-1, 3).mean(0)
    assert (red > blue) == is_land


def test_other_examples_for_stage_2_are_refused_rather_than_ignored() -> None:
    with pytest.raises(ValueError, match=r"data\.grpo_path is 'hard\.jsonl', but data\.name blue_marble .* no files"):
        load_dataset(DataConfig(grpo_path="hard.jsonl"), seed=0)


@pytest.mark.parametrize(
    ("center", "side_deg", "shown"),
    [
        ((0, -140), 15, ["ocean"]),
        ((24, 5), 10, ["desert"]),
        ((-5, -65), 10, ["forest"]),
        ((75, -40), 6, ["ice"]),
        # Sahara and Mediterranean
        ((32, 18), 15, ["ocean", "desert"]),
        # Fields have no name
        ((49, 33), 3, []),
        # On both sides of the date line, and beyond the pole
        ((0, 180), 15, ["ocean"]),
        ((-89, 0), 15, ["ice"]),
    ],
)
def test_a_crop_shows_the_ground_that_is_there(center: tuple, side_deg: float, shown: list[str]) -> None:
    assert BlueMarbleCrop(center, side_deg).ground() == shown


def test_every_example_says_what_its_crop_shows(splits: Splits) -> None:
    examples = [splits.train[i] for i in range(0, len(splits.train), 200)]
    assert [example.columns["entities"] for example in examples] == [crop_of(e).ground() for e in examples]
    assert {name for example in examples for name in example.columns["entities"]} == {
        "ocean",
        "forest",
        "desert",
        "ice",
    }
