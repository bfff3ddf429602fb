"""`python -m geogrpo.audit`: copies, authors and places that a training set shares with a test set."""

import csv
import json
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geogrpo_kernels.reference.distances import EARTH_RADIUS_KM
from PIL import ExifTags, Image

from geogrpo import audit
from geogrpo.auditing import output
from geogrpo.auditing import pictures as pictures_module
from geogrpo.auditing.leaks import AuditJob, Hits, Kind, PackedIds
from geogrpo.auditing.near_hashes import near_pairs
from geogrpo.auditing.photo_ids import author_key, nsid, photo_id
from geogrpo.auditing.proximity import RADII_KM, TrainPlaces, share_within
from geogrpo.auditing.rows import Columns
from geogrpo.auditing.scores import ALL, CLEAN, nearest_bins, score_subsets
from geogrpo.auditing.search import find_leaks
from geogrpo.metrics import FARTHEST_KM, THRESHOLDS_KM, accuracy_within, bootstrap, geoscore

PROXIMITY_FIGURE = output.proximity_figure
IM2GPS3K = "104123223_7410c654ba_19_87947631@N00.jpg"


def run(*arguments: object) -> None:
    audit.main([str(argument) for argument in arguments])


def failing_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a run ends with."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("geogrpo.audit: error: ")
    assert error.count("\n") == 1
    return error


def write_csv(path: Path, header: str, *rows: tuple[Any, ...]) -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def leaks_of(folder: Path) -> set[tuple[str, str, str]]:
    with (folder / "leaks.csv").open(encoding="utf-8") as file:
        return {(row["test_id"], row["train_id"], row["kind"]) for row in csv.DictReader(file)}


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A smooth random landscape."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer to draw than all else."""
    monkeypatch.setattr(output, "proximity_figure", lambda leaks, scores, path: None)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Five pictures, and of the first four a copy of each kind; the others are none's."""
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    for seed in range(5):
        picture(seed).save(train / f"train{seed}.jpg", quality=92)
    shutil.copy(train / "train0.jpg", test / "same_bytes.jpg")
    with Image.open(train / "train1.jpg") as opened:
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = "another program"
        opened.save(test / "same_pixels.png", exif=exif)
    with Image.open(train / "train2.jpg") as opened:
        opened.resize((200, 150)).save(test / "smaller.jpg", quality=55)
    picture(100).save(test / "another.jpg", quality=92)
    return train, test


def test_copies_are_found_by_bytes_pixels_and_looks_and_other_pictures_are_not(folders, tmp_path: Path) -> None:
    run(*folders, "-o", tmp_path / "out")
    assert leaks_of(tmp_path / "out") == {
        ("same_bytes.jpg", "train0.jpg", "same file"),
        ("same_bytes.jpg", "train0.jpg", "same pixels"),
        ("same_bytes.jpg", "train0.jpg", "near duplicate"),
        ("same_pixels.png", "train1.jpg", "same pixels"),
        ("same_pixels.png", "train1.jpg", "near duplicate"),
        ("smaller.jpg", "train2.jpg", "near duplicate"),
    }
    assert (tmp_path / "out/clean_ids.txt").read_text() == "another.jpg\n"


def test_the_figure_says_how_near_train_comes_and_what_answers_are_worth_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(output, "proximity_figure", PROXIMITY_FIGURE)
    figures = []
    monkeypatch.setattr(output.Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    scored(tmp_path, write_csv(tmp_path / "p.csv", "id,lat,lon", ("10000001", 10, 10), ("10000004", 0, 0)))
    curve, bars = figures[0].axes
    x, y = curve.get_lines()[0].get_data()
    # Of the test rows two are at a train row, one 4,360 km and one 6,000 km away.
    assert [float(y[x <= km].max()) for km in (0.001, 100, 5000, 2e4)] == [50, 50, 75, 100]
    assert bars.get_lines()[0].get_data()[1].tolist() == [100, 0]


def test_flat_pictures_do_not_look_alike(tmp_path: Path) -> None:
    for side, grey in (("train", 40), ("test", 200)):
        (tmp_path / side).mkdir()
        Image.new("RGB", (64, 64), (grey, grey, grey)).save(tmp_path / side / f"{side}.png")
    run(tmp_path / "train", tmp_path / "test", "-o", tmp_path / "out")
    assert leaks_of(tmp_path / "out") == set()
    assert json.loads((tmp_path / "out/audit.json").read_text())["test"]["num_flat"] == 1


def test_a_broken_and_a_missing_picture_are_counted_and_named(folders, tmp_path: Path, capsys) -> None:
    train, test = folders
    (test / "broken.jpg").write_bytes((train / "train3.jpg").read_bytes()[:2000])
    table = write_csv(tmp_path / "test.csv", "id,image", ("a", "broken.jpg"), ("b", "gone.jpg"), ("c", "smaller.jpg"))
    run(train, table, "--test-images", test, "-o", tmp_path / "out")
    side = json.loads((tmp_path / "out/audit.json").read_text())["test"]
    assert (side["num_unreadable"], side["num_missing"], side["num_pictures"]) == (1, 1, 1)
    shown = capsys.readouterr().out
    assert "broken.jpg: image file is truncated" in shown
    assert "b: no such file" in shown
    assert leaks_of(tmp_path / "out") == {("c", "train2.jpg", "near duplicate")}


def test_a_table_of_broken_pictures_only_is_an_error(folders, tmp_path: Path, capsys) -> None:
    table = write_csv(tmp_path / "test.csv", "id,image", ("a", "gone.jpg"))
    assert "none of its pictures can be read. a: no such file" in failing_run(
        capsys, folders[0], table, "--test-images", folders[1]
    )


def test_a_second_audit_hashes_only_what_changed(folders, tmp_path: Path, monkeypatch) -> None:
    train, _ = folders
    run(*folders, "-o", tmp_path / "out")
    before = leaks_of(tmp_path / "out")
    hashed: list[str] = []
    original = pictures_module.hash_picture
    monkeypatch.setattr(pictures_module, "hash_picture", lambda path: (hashed.append(path), original(path))[1])
    run(*folders, "-o", tmp_path / "out")
    assert hashed == []
    assert leaks_of(tmp_path / "out") == before
    picture(100).save(train / "train4.jpg", quality=80)
    run(*folders, "-o", tmp_path / "out")
    assert hashed == [str(train / "train4.jpg")]
    assert ("another.jpg", "train4.jpg", "near duplicate") in leaks_of(tmp_path / "out")


def test_a_cache_that_is_something_else_is_an_error(folders, tmp_path: Path, capsys) -> None:
    (tmp_path / "cache").write_text("a letter to a friend, and no database at all" * 40)
    assert "cannot be used to keep hashes" in failing_run(capsys, *folders, "--cache", tmp_path / "cache")
    assert (tmp_path / "cache").read_text().startswith("a letter")


def test_without_imagehash_the_error_says_what_to_install(folders, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert "pip install 'geogrpo[audit]'" in failing_run(capsys, *folders)


def test_mp16_paths_lead_to_files_with_either_separator(folders, tmp_path: Path) -> None:
    train, test = folders
    shutil.copy(train / "train0.jpg", train / "7e_c3_8163912402.jpg")
    table = write_csv(tmp_path / "train.csv", "IMG_ID", ("7e/c3/8163912402.jpg",), ("train1",))
    run(table, test, "--train-images", train, "-o", tmp_path / "out")
    assert {pair[:2] for pair in leaks_of(tmp_path / "out")} == {
        ("same_bytes.jpg", "7e/c3/8163912402.jpg"),
        ("same_pixels.png", "train1"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (IM2GPS3K, 104123223),
        ("7e/c3/104123223.jpg", 104123223),
        ("7e_c3_104123223.jpg", 104123223),
        ("12_34_104123223.jpg", 104123223),
        ("104123223", 104123223),
        ("104123223.0", 104123223),
        ("images/104123223.JPG", 104123223),
        ("https://live.staticflickr.com/65535/104123223_7410c654ba_b.jpg?zz=1", 104123223),
        ("https://www.flickr.com/photos/87947631@N00/104123223/in/photostream", 104123223),
        ("20190503_123456.jpg", None),
        ("DSCN0010.jpg", None),
        ("4711", None),
        ("row 104123223", None),
        ("1" * 19, None),
        ("", None),
    ],
)
def test_photo_ids_are_read_in_every_form(text: str, expected: int | None) -> None:
    assert photo_id(text) == expected


def test_authors_are_one_in_every_form() -> None:
    assert nsid(IM2GPS3K) == "87947631@N00"
    assert author_key(" 87947631%40N00 ") == "87947631@N00"
    assert author_key("Ansel A.") == author_key("ansel a.") == "ansel a."
    assert [author_key(text) for text in ("", "unknown", "None", "NaN")] == [None] * 4
    assert nsid("a@b.c") is None


def test_the_same_photo_and_the_same_author_are_found_in_tables(tmp_path: Path) -> None:
    rows = [("7e/c3/104123223.jpg", "x", 10, 10), ("00/11/55555555.jpg", "87947631@N00", 10, 20)]
    rows += [("00/11/66666666.jpg", "87947631@N00", 10, 12), ("00/11/77777777.jpg", "unknown", 0, 0)]
    train = write_csv(tmp_path / "train.csv", "IMG_ID,AUTHOR,LAT,LON", *rows)
    test = tmp_path / "test.jsonl"
    lines = [{"IMG_ID": IM2GPS3K, "lat": 10, "lon": 10}, {"IMG_ID": "88888888.jpg", "author": "unknown"}]
    test.write_text("\n".join(map(json.dumps, lines)))
    run(train, test, "-o", tmp_path / "out")
    # Of the author's two train rows the nearer one is named.
    assert leaks_of(tmp_path / "out") == {
        (IM2GPS3K, "7e/c3/104123223.jpg", "photo id"),
        (IM2GPS3K, "00/11/66666666.jpg", "author"),
    }
    with (tmp_path / "out/leaks.csv").open() as file:
        author = next(row for row in csv.DictReader(file) if row["kind"] == "author")
    assert author["num_train_rows"] == "2"
    assert float(author["distance_km"]) == pytest.approx(219.0, abs=0.1)
    assert (tmp_path / "out/clean_ids.txt").read_text() == "88888888.jpg\n"


def test_a_pair_with_two_keys_in_common_counts_once(tmp_path: Path) -> None:
    name = IM2GPS3K
    test = write_csv(tmp_path / "test.csv", "IMG_ID,AUTHOR", (name, "Ansel A."), (f"2{name}", "b"))
    run(write_csv(tmp_path / "train.csv", "IMG_ID,AUTHOR", (f"1{name}", "ansel a.")), test, "-o", tmp_path / "out")
    with (tmp_path / "out/leaks.csv").open() as file:
        counts = [(row["test_id"], row["kind"], row["num_train_rows"]) for row in csv.DictReader(file)]
    assert counts == [(name, "author", "1"), (f"2{name}", "author", "1")]


def test_a_leak_of_any_kind_makes_a_row_unclean(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", "id,author", (104123223, "a"), (55555555, "b"))
    test = write_csv(tmp_path / "test.csv", "id,author", (104123223, "x"), (66666666, "b"), (77777777, "y"))
    run(train, test, "-o", tmp_path / "out")
    assert (tmp_path / "out/clean_ids.txt").read_text() == "77777777\n"


def test_row_numbers_that_pass_for_photo_ids_are_told(tmp_path: Path, capsys) -> None:
    train = write_csv(tmp_path / "train.csv", "id,lat,lon", (100000, 10, 10), (100001, 20, 20))
    test = write_csv(tmp_path / "test.csv", "id,lat,lon", (100000, -40, 10), (100001, 20, 20))
    run(train, test)
    assert "Of 2 test rows with a photo id of TRAIN, 1 are over 1 km from it" in capsys.readouterr().out


def test_tables_without_coordinates_and_parquet_are_read(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ids = pyarrow.array([104123223, 55555555])
    parquet.write_table(pyarrow.table({"photo_id": ids}), tmp_path / "train.parquet")
    test = write_csv(tmp_path / "test.tsv", "image", (IM2GPS3K,))
    run(tmp_path / "train.parquet", test, "-o", tmp_path / "out")
    assert leaks_of(tmp_path / "out") == {(IM2GPS3K, "104123223", "photo id")}


def brute_force_km(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) km by the law of haversines."""
    a, b = np.radians(a)[:, None], np.radians(b)[None]
    half = np.sin((b - a) / 2) ** 2
    h = half[..., 0] + np.cos(a[..., 0]) * np.cos(b[..., 0]) * half[..., 1]
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(h.clip(0, 1)))


def test_nearest_train_rows_and_the_curve_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    train = np.stack([rng.uniform(-90, 90, 700), rng.uniform(-180, 180, 700)], axis=-1)
    train = np.concatenate([[[np.nan, np.nan]], train, train[:40], [[90, 0], [0, 180]]])
    test = np.concatenate([train[1:51] + rng.normal(0, 1e-3, (50, 2)), [[90, 100], [0, -180], [np.nan, 0]]])
    test[:50, 0] = test[:50, 0].clip(-90, 90)
    places = TrainPlaces(train)
    km, rows = places.nearest(test)
    expected = brute_force_km(test[:-1], train[1:])
    np.testing.assert_allclose(km[:-1], expected.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(expected[np.arange(52), rows[:-1] - 1], expected.min(axis=1), atol=1e-6)
    assert np.isnan(km[-1])
    assert rows[-1] == -1
    for radius in RADII_KM:
        assert share_within(km, radius) == (expected.min(axis=1) <= radius).mean()
    own = brute_force_km(train[1:], train[1:])
    np.fill_diagonal(own, np.inf)
    # As many as there are rows, so every row is drawn.
    np.testing.assert_allclose(np.sort(places.baseline_km(10_000)), np.sort(own.min(axis=1)), atol=1e-6)


def test_near_km_makes_near_places_leaks(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", "id,lat,lon", ("a", 10, 179.9999), ("b", 50, 50))
    test = write_csv(tmp_path / "test.csv", "id,lat,lon", ("c", 10, -179.9999), ("d", 60, 50), ("e", "", ""))
    run(train, test, "--near-km", 0.1, "-o", tmp_path / "out")
    assert leaks_of(tmp_path / "out") == {("c", "a", "near place")}
    run(train, test, "-o", tmp_path / "out")
    assert leaks_of(tmp_path / "out") == set()
    curve = json.loads((tmp_path / "out/audit.json").read_text())["share_with_a_train_row_within"]["test"]
    assert (curve["10 m"], curve["100 m"], curve["100 km"]) == (0, 0.5, 0.5)


@pytest.mark.parametrize("max_hamming", [0, 3, 4, 9])
def test_near_hashes_equal_brute_force(max_hamming: int) -> None:
    rng = np.random.default_rng(max_hamming)
    train = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    test = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for row in range(200):
        flips = rng.choice(64, rng.integers(0, max_hamming + 4), replace=False)
        test[row] = train[row] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
    train[2000:2010] = train[0]
    distances = np.bitwise_count(test[:, None] ^ train)
    expected = np.argwhere(distances <= max_hamming)
    test_rows, train_rows, num_bits = near_pairs(test, train, max_hamming)
    assert len(expected) > 20
    np.testing.assert_array_equal(np.stack([test_rows, train_rows], axis=-1), expected)
    np.testing.assert_array_equal(num_bits, distances[test_rows, train_rows])


def test_near_hashes_of_nothing_are_none() -> None:
    none, one = np.empty(0, np.uint64), np.zeros(1, np.uint64)
    for test, train in ((none, one), (one, none), (none, none)):
        assert [len(x) for x in near_pairs(test, train, 4)] == [0, 0, 0]


def test_hits_keep_the_least_measure_and_of_equals_the_first() -> None:
    hits = Hits(3)
    hits.add(np.array([0, 0, 1]), np.array([5, 4, 6]), np.array([2.0, 2.0, np.inf]))
    hits.add(np.array([0, 1, 1]), np.array([7, 8, 9]), np.array([2.0, 1.0, 3.0]))
    assert hits.row.tolist() == [4, 8, -1]
    assert hits.num_train.tolist() == [3, 3, 0]


def test_packed_ids_come_back() -> None:
    ids = PackedIds()
    ids.add(["a", "", "ü\n"])
    ids.add(["d"])
    assert [ids[row] for row in range(4)] == ["a", "", "ü\n", "d"]


def test_batches_do_not_change_what_is_found(tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"{10**8 + int(rng.integers(60))}_{i:010x}_{i}_{10**7 + i % 9}@N00.jpg", i % 80, i) for i in range(100)]
    train = write_csv(tmp_path / "train.csv", "IMG_ID,LAT,LON", *rows[:70])
    test = write_csv(tmp_path / "test.csv", "IMG_ID,LAT,LON", *rows[70:])
    run(train, test, "-o", tmp_path / "whole")
    monkeypatch.setattr("geogrpo.auditing.rows.BATCH_ROWS", 7)
    run(train, test, "-o", tmp_path / "parts")
    assert len(leaks_of(tmp_path / "whole")) > 30
    assert (tmp_path / "parts/leaks.csv").read_bytes() == (tmp_path / "whole/leaks.csv").read_bytes()


def scored(tmp_path: Path, predictions: Path) -> dict[str, Any]:
    rows = [("10000001", 10, 10), ("10000002", 10, 10), ("10000003", 10, 50), ("10000004", 60, 60)]
    test = write_csv(tmp_path / "test.csv", "id,lat,lon", *rows)
    train = write_csv(tmp_path / "train.csv", "id,lat,lon", ("10000001", 10, 10), ("20000000", -60, 0))
    run(train, test, "--predictions", predictions, "-o", tmp_path / "out")
    return json.loads((tmp_path / "out/audit.json").read_text())["scores"]


def test_predictions_are_scored_with_and_without_leaks(tmp_path: Path) -> None:
    truths = {"10000001": [10, 10], "10000002": [10, 10], "10000003": [10, 50], "99999999": [0, 0]}
    answers = {"10000001": [10, 10], "10000002": [11, 10], "10000003": None, "99999999": [0, 0]}
    lines = [{"id": x, "true_latlon_deg": truths[x], "predicted_latlon_deg": answers[x]} for x in truths]
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    found = scored(tmp_path, path)
    assert (found["num_predictions"], found["num_without_prediction"], found["num_not_in_test"]) == (3, 1, 1)
    every, clean, leaked = (found["subsets"][name]["metrics"] for name in (ALL, CLEAN, "only photo id"))
    assert (every["within_1_km"]["value"], every["within_200_km"]["value"]) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )
    assert (clean["within_1_km"]["value"], clean["within_200_km"]["value"]) == (0, 0.5)
    assert leaked["within_1_km"]["value"] == 1
    assert clean["median_km"]["value"] == pytest.approx((111.195 + FARTHEST_KM) / 2, abs=0.01)
    assert found["subsets"][CLEAN]["minus_all"]["within_1_km"]["value"] == pytest.approx(-1 / 3)
    assert {name: x["num_images"] for name, x in found["by_nearest_km"].items() if x["num_images"]} == {
        "up to 10 m": 2,
        "over 100 km": 1,
    }


def test_predictions_of_a_table_use_the_truth_of_the_test_set(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "p.csv", "id,lat,lon", ("10000004", 60, 60), ("10000003", "", ""), ("10000002", 10, 10))
    every = scored(tmp_path, path)["subsets"][ALL]
    assert every["num_images"] == 3
    assert every["metrics"]["within_1_km"]["value"] == pytest.approx(2 / 3)


def test_subset_scores_agree_with_the_library_s_own() -> None:
    rng = np.random.default_rng(0)
    off_km = np.where(rng.random(400) < 0.1, np.nan, 10 ** rng.uniform(-1, 4, 400))
    mask = rng.random(400) < 0.4
    found = score_subsets(
        off_km, {ALL: np.ones(400, bool), "some": mask, "none": np.zeros(400, bool)}, num_samples=2000
    )
    columns = {f"within_{km:g}_km": accuracy_within(off_km, km) for km in THRESHOLDS_KM} | {
        "geoscore": geoscore(off_km)
    }
    for name, values in columns.items():
        for subset, rows in ((ALL, values), ("some", values[mask])):
            own, theirs = found[subset].metrics[name], bootstrap(rows, num_samples=2000, seed=1)
            assert own.value == pytest.approx(theirs.value)
            # Two percentiles of 2000 resamples each differ by about a twentieth of the width.
            assert abs(own.low - theirs.low) + abs(own.high - theirs.high) < 0.25 * (theirs.high - theirs.low)
    assert found["some"].metrics["median_km"].value == np.median(np.where(np.isnan(off_km), FARTHEST_KM, off_km)[mask])
    difference = found["some"].minus_all["within_25_km"]
    assert difference.value == pytest.approx(columns["within_25_km"][mask].mean() - columns["within_25_km"].mean())
    assert difference.low < difference.value < difference.high
    assert found["none"].metrics == {}


def test_every_known_distance_is_in_one_bin() -> None:
    km = np.array([0, *RADII_KM, 0.0100001, 101, 20000, np.nan])
    counts = np.sum(list(nearest_bins(km).values()), axis=0)
    assert counts.tolist() == [1] * (len(km) - 1) + [0]
    assert nearest_bins(km)["10 m - 100 m"].tolist() == [x in (0.1, 0.0100001) for x in km]


def test_mistakes_end_with_one_line(tmp_path: Path, capsys) -> None:
    good = write_csv(tmp_path / "good.csv", "id,lat,lon", ("10000001", 10, 10))
    cases = {
        (tmp_path / "gone.csv", good): "no such file or folder",
        (good, write_csv(tmp_path / "twice.csv", "id", ("x",), ("y",), ("x",))): "rows 1 and 3 have one id, 'x'",
        (good, write_csv(tmp_path / "empty.csv", "id")): "no rows",
        (good, write_csv(tmp_path / "noid.csv", "id,lat,lon", ("", 1, 2))): "row 1 has no id",
        (good, write_csv(tmp_path / "other.csv", "name", ("x",))): "nothing in common to compare",
        (good, write_csv(tmp_path / "short.csv", "id,lat,lon", ("x", 1, 2), ("y", 1))): "row 2 (line 3): expected 3",
        (good, write_csv(tmp_path / "swap.csv", "id,lat,lon", ("x", 100, 20))): "Are latitude and longitude swapped?",
        (write_csv(tmp_path / "word.csv", "id,lat,lon", ("x", "north", 2)), good): "must be a number",
        (write_csv(tmp_path / "half.csv", "id,lat", ("x", 2)), good): "one of latitude and longitude",
        (good, good, "--test-id", "nope"): "no column 'nope'",
        (good, good, "--test-images", tmp_path): "none are known of TRAIN",
        (good, good, "--test-images", tmp_path / "gone"): "no such folder of pictures",
        (good, good, "--max-hamming", 16): "--max-hamming must be from 0 to 15",
        (good, good, "--near-km", -1): "--near-km must be",
        (good, good, "--workers", 0): "--workers must be",
        (good, good, "--predictions", tmp_path / "gone.jsonl"): "no such file or folder",
        (good, good, "--predictions", write_csv(tmp_path / "p.csv", "id,lat,lon", ("z", 1, 2))): "none of its 1 ids",
        (good, good, "--predictions", write_csv(tmp_path / "q.csv", "id", ("z",))): "expected columns id, lat and lon",
    }
    for arguments, message in cases.items():
        assert message in failing_run(capsys, *arguments), arguments


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "expected a JSON object"),
        ('{"id": "10000001"}', "true_latlon_deg must be [latitude, longitude]"),
        ('{"id": "10000001", "true_latlon_deg": [91, 0], "predicted_latlon_deg": null}', "latitude must be"),
        ('{"id": "10000001", "true_latlon_deg": [1, 0], "predicted_latlon_deg": [1]}', "predicted_latlon_deg must be"),
        ('{"id": "10000001", "true_latlon_deg": [1, 0], "predicted_latlon_deg": null}', "a second prediction"),
    ],
)
def test_bad_predictions_are_named_by_their_line(tmp_path: Path, capsys, line: str, message: str) -> None:
    good = write_csv(tmp_path / "good.csv", "id,lat,lon", ("10000001", 10, 10))
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "10000001", "true_latlon_deg": [1, 0], "predicted_latlon_deg": [1, 0]}\n' + line + "\n")
    error = failing_run(capsys, good, good, "--predictions", path)
    assert message in error
    assert "p.jsonl: line 2" in error


@pytest.mark.slow
def test_hashing_in_processes_finds_the_same(folders, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pictures_module, "MIN_FILES", 1)
    train, test = folders
    one, two = (find_leaks(AuditJob(train, test, num_workers=num)) for num in (1, 2))
    for kind, name in product((Kind.FILE, Kind.PIXELS, Kind.LOOKS), ("row", "num_train", "measure")):
        np.testing.assert_array_equal(getattr(one.hits[kind], name), getattr(two.hits[kind], name))
    assert one.hits[Kind.LOOKS].num_train.sum() == 3
    assert one.train.columns == Columns()
