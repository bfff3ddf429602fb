"""`python -m geogrpo.label`: GPS to chains, what is skipped and why, going on after a kill, hard samples."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geogrpo_kernels.reference.distances import EARTH_RADIUS_KM
from PIL import ExifTags, Image

from geogrpo import label
from geogrpo.data.jsonl import read_jsonl
from geogrpo.labelling import workers as workers_module
from geogrpo.labelling.labeller import _is_read_back
from geogrpo.labelling.languages import LocalNames
from geogrpo.labelling.photographs import Photographs
from geogrpo.labelling.solved import SolvedPlaces, read_solved
from geogrpo.labelling.tables import Table
from geogrpo.parsing import parse_completion
from geogrpo.regions.chain import CHAIN_TEMPLATES
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places, load_geonames
from geogrpo.resumable import ResumableFiles, record_path

PHOTOS = Path(__file__).parents[1].parent / "shared/data/photos"
PARIS, WINDHOEK, BIEI = (48.8566, 2.3522), (-22.5594, 17.0832), (43.5833, 142.4667)


def run(*arguments: object) -> None:
    label.main([str(argument) for argument in arguments])


def failing_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a run ends with."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("geogrpo.label: error: ")
    assert error.count("\n") == 1
    return error


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_csv(path: Path, rows: list[tuple[Any, ...]], header: str = "image,lat,lon") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def many_rows(num_rows: int) -> list[tuple[str, float, float]]:
    places = load_geonames().latlon_deg
    chosen = np.random.default_rng(0).integers(0, len(places), num_rows)
    return [(f"{i}.jpg", *places[place].tolist()) for i, place in enumerate(chosen)]


def write_photo(path: Path, lat_deg: float, lon_deg: float, **changes: Any) -> Path:
    """A small photograph with a GPS position; `changes` replace EXIF tags by name, None removes one."""

    def parts(degrees: float) -> tuple[Any, ...]:
        return (int(abs(degrees)), 0, float(Fraction(abs(degrees) % 1).limit_denominator(10**6) * 3600))

    tags = {
        "GPSLatitudeRef": "N" if lat_deg >= 0 else "S",
        "GPSLatitude": parts(lat_deg),
        "GPSLongitudeRef": "E" if lon_deg >= 0 else "W",
        "GPSLongitude": parts(lon_deg),
        **changes,
    }
    exif = Image.Exif()
    gps = {getattr(ExifTags.GPS, name): value for name, value in tags.items() if value is not None}
    exif[ExifTags.IFD.GPSInfo] = gps
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    return path


def small_batches(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> None:
    for source in (Table, Photographs):
        monkeypatch.setitem(source.__init__.__kwdefaults__, "batch_rows", num_rows)


# ---- photographs -----------------------------------------------------------------------------------------------------


def test_real_photographs_become_examples_that_the_reader_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"photographs with EXIF GPS are not at {PHOTOS}")
    run(PHOTOS, "-o", tmp_path / "chains.jsonl")
    examples = read_jsonl(tmp_path / "chains.jsonl")
    assert [(e.country, e.state, e.city) for e in examples] == [("Italy", "Tuscany", "Arezzo")] * 4
    assert (
        examples[0].columns["chain"] == "Country: Italy\nState: Tuscany\nCity: Arezzo\nCoordinates: (43.4674, 11.8851)"
    )
    output = capsys.readouterr().out
    assert "4 examples of 5 rows" in output
    assert "no GPS in EXIF" in output
    assert "no_gps.jpg" in output


def test_each_photograph_without_a_usable_position_is_reported_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "a" / "paris.jpg", *PARIS)
    write_photo(folder / "windhoek.JPG", *WINDHOEK)
    write_photo(folder / "zero.jpg", 0, 0)
    write_photo(folder / "north.jpg", 95.5, 10)
    write_photo(folder / "reference.jpg", *PARIS, GPSLatitudeRef="X")
    write_photo(folder / "parts.jpg", *PARIS, GPSLatitude=(48.0, 51.0))
    Image.new("RGB", (8, 8)).save(folder / "without.png")
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no photograph at all")
    run(folder, "-o", tmp_path / "chains.jsonl", "--skipped", tmp_path / "skipped.jsonl")
    written = records(tmp_path / "chains.jsonl")
    assert [(r["id"], r["image"], r["city"]) for r in written] == [
        ("a/paris.jpg", "photos/a/paris.jpg", "Paris"),
        ("windhoek.JPG", "photos/windhoek.JPG", "Windhoek"),
    ]
    assert {r["id"]: r["reason"] for r in records(tmp_path / "skipped.jsonl")} == {
        "north.jpg": "GPS out of range",
        "parts.jpg": "malformed GPS in EXIF",
        "reference.jpg": "malformed GPS in EXIF",
        "text.jpg": "broken image",
        "without.png": "no GPS in EXIF",
        "zero.jpg": "latitude and longitude both 0",
    }
    assert "malformed GPS in EXIF                               2   25.00%" in capsys.readouterr().out
    assert len(read_jsonl(tmp_path / "chains.jsonl")) == 2


def test_a_truncated_photograph_passes_by_its_header_and_fails_when_images_are_checked(tmp_path: Path) -> None:
    whole = write_photo(tmp_path / "photos" / "whole.jpg", *PARIS)
    (tmp_path / "photos" / "cut.jpg").write_bytes(whole.read_bytes()[:-1000])
    run(tmp_path / "photos", "-o", tmp_path / "headers.jsonl")
    assert [r["id"] for r in records(tmp_path / "headers.jsonl")] == ["cut.jpg", "whole.jpg"]
    run(tmp_path / "photos", "-o", tmp_path / "read.jsonl", "--check-images", "--skipped", tmp_path / "skipped.jsonl")
    assert [r["id"] for r in records(tmp_path / "read.jsonl")] == ["whole.jpg"]
    (skipped,) = records(tmp_path / "skipped.jsonl")
    assert (skipped["id"], skipped["reason"]) == ("cut.jpg", "broken image")
    assert "truncated" in skipped["detail"]


def test_the_number_of_workers_does_not_change_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "MIN_FILES", 0)
    monkeypatch.setattr(workers_module, "FILES_AT_ONCE", 2)
    small_batches(monkeypatch, 5)
    for i, (name, lat, lon) in enumerate(many_rows(12)):
        if i % 4:
            write_photo(tmp_path / "photos" / name, lat, lon)
        else:
            (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "photos" / name).write_text("broken")
    for num_workers in (1, 2):
        run(
            *(tmp_path / "photos", "-o", tmp_path / f"{num_workers}.jsonl", "--workers", num_workers),
            *("--check-images", "--skipped", tmp_path / f"skipped{num_workers}.jsonl"),
        )
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert (tmp_path / "skipped1.jsonl").read_bytes() == (tmp_path / "skipped2.jsonl").read_bytes()
    assert len(records(tmp_path / "1.jsonl")) == 9


# ---- tables ----------------------------------------------------------------------------------------------------------

BAD_ROWS = [
    ("good.jpg", *PARIS, None),
    ("text.jpg", "north", 2, "coordinate that is no number"),
    ("arabic.jpg", "٤٨", 2, "coordinate that is no number"),
    ("python.jpg", "4_8", 2, "coordinate that is no number"),
    ("empty.jpg", "", 2, "missing coordinates"),
    ("nan.jpg", 48, "nan", "missing coordinates"),
    ("infinite.jpg", "inf", 2, "GPS out of range"),
    ("swapped.jpg", 142.46, 43.58, "GPS out of range"),
    ("east.jpg", 43.58, 217, "GPS out of range"),
    ("zero.jpg", "0.0", 0, "latitude and longitude both 0"),
    ("equator.jpg", 0.0, 37.9, None),
    ("", 48, 2, "no image path in the row"),
    ("good.jpg", *WINDHOEK, "duplicate id"),
    # Its id was not taken, as the row above with it was skipped.
    ("zero.jpg", *WINDHOEK, None),
]


def test_every_row_is_an_example_or_skipped_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "rows.csv", [row[:3] for row in BAD_ROWS])
    run(table, "-o", tmp_path / "chains.jsonl", "--skipped", tmp_path / "skipped.jsonl")
    skipped = records(tmp_path / "skipped.jsonl")
    assert [(r["id"], r["reason"]) for r in skipped] == [(row[0], row[3]) for row in BAD_ROWS if row[3]]
    assert [r["id"] for r in records(tmp_path / "chains.jsonl")] == ["good.jpg", "equator.jpg", "zero.jpg"]
    assert skipped[0]["row"] == f"{table}: row 2 (line 3)"
    by_id = {r["id"]: r["detail"] for r in skipped}
    assert by_id["text.jpg"] == "lat: 'north'"
    assert by_id["swapped.jpg"].endswith("Are latitude and longitude swapped?")
    output = capsys.readouterr().out
    assert "3 examples of 14 rows" in output
    for reason, count in Counter(row[3] for row in BAD_ROWS if row[3]).items():
        assert f"{reason:<40} {count:>12,}" in output


def test_every_table_format_gives_the_same_examples(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rows = many_rows(50)
    write_csv(tmp_path / "t.csv", rows)
    (tmp_path / "t.tsv").write_text((tmp_path / "t.csv").read_text().replace(",", "\t"))
    objects = [dict(zip(("image", "lat", "lon"), row, strict=True)) for row in rows]
    text = "".join(json.dumps(each) + "\n" for each in objects)
    (tmp_path / "t.jsonl").write_text(text)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    parquet.write_table(pyarrow.Table.from_pylist(objects), tmp_path / "t.parquet", row_group_size=7)
    outputs = []
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.parquet"):
        run(tmp_path / name, "-o", tmp_path / f"of_{name}.jsonl")
        outputs.append((tmp_path / f"of_{name}.jsonl").read_bytes())
    assert len(set(outputs)) == 1
    assert outputs[0].count(b"\n") == 50


@pytest.mark.parametrize("column", ["image", "file", "path", "IMG_ID", "img_id", "photo"])
def test_image_paths_lead_from_the_output_to_the_images(tmp_path: Path, column: str) -> None:
    folder, absolute = tmp_path / "images" / "deep", tmp_path / "elsewhere.jpg"
    write_photo(folder / "paris.jpg", *PARIS)
    write_photo(absolute, *WINDHOEK)
    (tmp_path / "out").mkdir()
    rows = [("deep/paris.jpg", *PARIS), (absolute, *WINDHOEK)]
    table = write_csv(tmp_path / "rows.csv", rows, f"{column},Latitude,LNG")
    given = ["--image", "photo"] if column == "photo" else []
    run(table, "-o", tmp_path / "out" / "chains.jsonl", "--images", tmp_path / "images", *given)
    examples = read_jsonl(tmp_path / "out" / "chains.jsonl")
    assert [e.id for e in examples] == ["deep/paris.jpg", str(absolute)]
    assert [Path(str(e.image)).resolve() for e in examples] == [folder / "paris.jpg", absolute]


def test_missing_images_are_found_where_they_are_checked(tmp_path: Path) -> None:
    write_photo(tmp_path / "here.jpg", *PARIS)
    table = write_csv(tmp_path / "rows.csv", [("here.jpg", *PARIS), ("gone.jpg", *PARIS)])
    run(table, "-o", tmp_path / "chains.jsonl", "--check-images", "--skipped", tmp_path / "skipped.jsonl")
    assert [e.id for e in read_jsonl(tmp_path / "chains.jsonl")] == ["here.jpg"]
    assert [(r["id"], r["reason"]) for r in records(tmp_path / "skipped.jsonl")] == [("gone.jpg", "image file missing")]


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", CHAIN_TEMPLATES)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_chain_is_read_back_as_its_own_place(tmp_path: Path, template: str, language: str) -> None:
    table = write_csv(tmp_path / "rows.csv", many_rows(300))
    options = ("--template", template, "--language", language, "--decimals", 2)
    run(table, "-o", tmp_path / "chains.jsonl", *options)
    written = records(tmp_path / "chains.jsonl")
    assert len(written) == 300
    for record in written:
        prediction = parse_completion(record["chain"])
        assert prediction.latlon_deg == (round(record["lat"], 2), round(record["lon"], 2))
        assert prediction.city == record["city"]
        assert (record["template"], record["language"]) == (template, language)
        if language == "en":
            assert (prediction.country, prediction.state) == (record["country"], record["state"])


def test_mixed_templates_and_languages_follow_the_id_and_not_the_order(tmp_path: Path) -> None:
    rows = many_rows(400)
    options = ("--template", "mixed", "--language", "en,de,ja")
    run(write_csv(tmp_path / "a.csv", rows), "-o", tmp_path / "a.jsonl", *options)
    run(write_csv(tmp_path / "b.csv", rows[::-1][:200]), "-o", tmp_path / "b.jsonl", *options)
    first, second = records(tmp_path / "a.jsonl"), records(tmp_path / "b.jsonl")
    assert second == first[::-1][:200]
    pairs = Counter((r["template"], r["language"]) for r in first)
    assert len(pairs) == len(CHAIN_TEMPLATES) * 3
    assert max(pairs.values()) < 45


def test_names_are_translated_in_the_chain_and_english_in_the_record(tmp_path: Path) -> None:
    munich = (48.137, 11.575)
    table = write_csv(tmp_path / "rows.csv", [("m.jpg", *munich)])
    run(table, "-o", tmp_path / "chains.jsonl", "--language", "de")
    (record,) = records(tmp_path / "chains.jsonl")
    assert record["chain"].startswith("Country: Deutschland\nState: Bayern\nCity: Munich")
    assert (record["country"], record["state"], record["city"]) == ("Germany", "Bavaria", "Munich")


@pytest.mark.parametrize(
    ("language", "country", "state", "expected"),
    [
        ("de", ("DE", "Germany"), "Bavaria", ("Deutschland", "Bayern")),
        ("es", ("AT", "Austria"), "Vienna", ("Austria", "Vienna")),
        ("fr", ("DE", "Germany"), "Bavaria", ("Allemagne", "Bavière")),
        # "Praha, Hlavní město" is how a list writes it, nobody else.
        ("de", ("CZ", "Czechia"), "Prague", ("Tschechien", "Prague")),
        ("fr", ("PH", "Philippines"), "Caraga", ("Philippines", "Caraga")),
        # The catalog has one word for those of Argentina, Colombia and Spain, so it may be another's.
        ("ja", ("AR", "Argentina"), "Cordoba", ("アルゼンチン", "Cordoba")),
        ("zh", ("JP", "Japan"), "Nagasaki", ("日本", "长崎县")),
        ("zh-Hant", ("JP", "Japan"), "Tottori", ("日本", "鳥取")),
        ("ar", ("EG", "Egypt"), "Cairo", ("مصر", "Cairo")),
        ("en", ("DE", "Germany"), "Bavaria", ("Germany", "Bavaria")),
        ("de", (None, "Atlantis"), "Deep", ("Atlantis", "Deep")),
    ],
)
def test_a_state_without_a_sure_translation_keeps_its_name(
    language: str, country: tuple[str | None, str], state: str, expected: tuple[str, str]
) -> None:
    names = LocalNames(language)
    assert (names.country(*country), names.state(country[0], None, state)) == expected


def test_a_state_is_found_by_its_iso_code_too() -> None:
    assert LocalNames("de").state("DE", "DE-BY", "whatever") == "whatever"
    assert LocalNames("de").state("DE", "DE-BY", "Bavaria") == "Bayern"


@pytest.mark.parametrize("name", ["Foo; Bar", "Foo | City: Bar", "(1, 2)", "</answer>", "Long, Lat"])
def test_a_name_with_a_templates_own_marks_is_noticed(name: str) -> None:
    unread = [t for t in CHAIN_TEMPLATES if not _is_read_back(t, ("Kenya", "Somewhere", name), 2)]
    assert unread
    assert all(_is_read_back(t, ("Kenya", "Somewhere", "Saint-Jean d'Acre No. 4"), 2) for t in CHAIN_TEMPLATES)


def test_names_that_read_like_an_order_of_coordinates_are_noticed() -> None:
    assert not _is_read_back("sentence", ("Kenya", "Long", "Lat"), 2)


def test_a_name_of_geonames_with_two_spaces_is_kept() -> None:
    assert all(_is_read_back(t, ("Germany", "Lower Saxony", "Querum -  Wabenkamp"), 2) for t in CHAIN_TEMPLATES)


def test_a_name_that_is_not_read_back_is_skipped(tmp_path: Path) -> None:
    none: list[str | None] = [None, None]
    cities = ["Paris; Texas", "Biei"]
    places = Places(
        np.array([PARIS, BIEI]), np.array([1, 1]), ["FR", "JP"], ["France", "Japan"], none, list(none), cities
    )
    RegionIndex.build(places=places).save(tmp_path / "odd.safetensors")
    table = write_csv(tmp_path / "rows.csv", [(f"{i}.jpg", *PARIS) for i in range(40)])
    options = ("--index", tmp_path / "odd.safetensors", "--template", "mixed", "--skipped", tmp_path / "s.jsonl")
    run(table, "-o", tmp_path / "chains.jsonl", *options)
    assert {r["reason"] for r in records(tmp_path / "s.jsonl")} == {"names that the parser does not read back"}
    assert {r["template"] for r in records(tmp_path / "chains.jsonl")} == set(CHAIN_TEMPLATES) - {"sentence"}


# ---- going on --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("num_commits", [0, 1, 3])
@pytest.mark.parametrize("garbage", [b"", b'{"id": "half a li'])
def test_a_run_stopped_anywhere_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_commits: int, garbage: bytes
) -> None:
    small_batches(monkeypatch, 7)
    rows = [*many_rows(30), ("3.jpg", *PARIS), ("x.jpg", "", ""), *many_rows(40)]
    table = write_csv(tmp_path / "rows.csv", rows)
    options = ("--template", "mixed", "--language", "en,fr")
    run(table, "-o", tmp_path / "whole.jsonl", "--skipped", tmp_path / "whole_skipped.jsonl", *options)
    arguments = (table, "-o", tmp_path / "killed.jsonl", "--skipped", tmp_path / "killed_skipped.jsonl", *options)
    commit, num_calls = ResumableFiles.commit, 0

    def dying_commit(files: ResumableFiles) -> None:
        nonlocal num_calls
        if num_calls == num_commits:
            raise Killed
        num_calls += 1
        commit(files)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableFiles, "commit", dying_commit)
        with pytest.raises(Killed):
            run(*arguments)
    with (tmp_path / "killed.jsonl").open("ab") as file:
        file.write(garbage)
    run(*arguments)
    for name in ("{}.jsonl", "{}_skipped.jsonl"):
        whole, killed = (tmp_path / name.format(which) for which in ("whole", "killed"))
        assert killed.read_bytes() == whole.read_bytes()
    first, second = (json.loads(record_path(tmp_path / f"{name}.jsonl").read_text()) for name in ("whole", "killed"))
    assert (first["num_rows"], first["skipped"]) == (second["num_rows"], second["skipped"])
    assert first["skipped"] == {"missing coordinates": 1, "duplicate id": 31}


def test_a_run_killed_by_the_system_goes_on(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "rows.csv", many_rows(100_000))
    command = [sys.executable, "-m", "geogrpo.label", str(table), "--template", "mixed", "-o"]
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (killed.exists() and killed.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads(record_path(killed).read_text())["is_complete"]
    run(table, "--template", "mixed", "-o", killed)
    run(table, "--template", "mixed", "-o", whole)
    assert killed.read_bytes() == whole.read_bytes()


def test_a_complete_run_given_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "rows.csv", many_rows(5))
    run(table, "-o", tmp_path / "chains.jsonl")
    before = (tmp_path / "chains.jsonl").read_bytes()
    run(table, "-o", tmp_path / "chains.jsonl")
    assert "An earlier run had done 5 rows; 0 were left." in capsys.readouterr().out
    assert (tmp_path / "chains.jsonl").read_bytes() == before


def test_other_options_or_other_data_are_refused_until_told_to_start_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = write_csv(tmp_path / "rows.csv", many_rows(5)), tmp_path / "chains.jsonl"
    run(table, "-o", output)
    before = output.read_bytes()
    error = failing_run(capsys, table, "-o", output, "--template", "json")
    assert "--template was lines, is json" in error
    assert "--overwrite starts over" in error
    write_csv(table, many_rows(6))
    assert "content was" in failing_run(capsys, table, "-o", output)
    assert output.read_bytes() == before
    run(table, "-o", output, "--template", "json", "--overwrite")
    assert [r["template"] for r in records(output)] == ["json"] * 6


def test_an_output_that_is_not_what_the_last_run_left_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = write_csv(tmp_path / "rows.csv", many_rows(5)), tmp_path / "chains.jsonl"
    output.write_text("precious\n")
    assert "--overwrite starts over" in failing_run(capsys, table, "-o", output)
    assert output.read_text() == "precious\n"
    run(table, "-o", output, "--overwrite")
    content = output.read_bytes()
    output.write_bytes(content[:-10])
    assert "was changed since the last run" in failing_run(capsys, table, "-o", output)
    output.write_bytes(content.replace(b"lines", b"LINES"))
    assert "was changed since the last run" in failing_run(capsys, table, "-o", output)
    record_path(output).write_text("{")
    assert "is no record of a run" in failing_run(capsys, table, "-o", output)


def test_two_runs_do_not_write_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = write_csv(tmp_path / "rows.csv", many_rows(5)), tmp_path / "chains.jsonl"
    files = ResumableFiles(output, None, {})
    assert "another run is writing it" in failing_run(capsys, table, "-o", output, "--overwrite")
    files.close()
    run(table, "-o", output, "--overwrite")


# ---- hard samples ----------------------------------------------------------------------------------------------------


def test_distances_to_solved_places_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    solved = np.stack([rng.uniform(-90, 90, 300), rng.uniform(-180, 180, 300)], axis=1)
    solved[:4] = [(90, 0), (-90, 50), (0, 180), (10, -180)]
    points = np.stack([rng.uniform(-90, 90, 2000), rng.uniform(-180, 180, 2000)], axis=1)
    points[:4] = [(89.9, 170), (-90, 0), (0, -179.9), (10, 180)]
    expected = np.min([reference_km(points, place) for place in solved], axis=0)
    assert SolvedPlaces(np.concatenate([solved, solved])).num_places == 300
    assert np.abs(SolvedPlaces(solved).distance_km(points) - expected).max() < 1e-6
    assert np.isinf(SolvedPlaces(np.empty((0, 2))).distance_km(points)).all()


def reference_km(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Haversine in NumPy, apart from the index and from geogrpo_kernels."""
    lat, lon = np.radians(points).T
    place_lat, place_lon = np.radians(place)
    h = np.sin((lat - place_lat) / 2) ** 2 + np.cos(lat) * np.cos(place_lat) * np.sin((lon - place_lon) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(h, 1)))


def write_predictions(path: Path, pairs: list[tuple[Any, Any]]) -> Path:
    lines = [json.dumps({"id": "x", "true_latlon_deg": t, "predicted_latlon_deg": p}) for t, p in pairs]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_what_lies_near_a_solved_place_is_left_out(tmp_path: Path) -> None:
    # A degree of latitude is 111.195 km: 25.6 km and 24.5 km off, and no answer.
    predictions = [(PARIS, (PARIS[0] + 0.23, PARIS[1])), (WINDHOEK, (WINDHOEK[0] + 0.22, WINDHOEK[1])), (BIEI, None)]
    solved = write_predictions(tmp_path / "predictions_final.jsonl", predictions)
    assert read_solved(solved).tolist() == [list(WINDHOEK)]
    rows = [("p.jpg", *PARIS), ("b.jpg", *BIEI), ("w.jpg", WINDHOEK[0] + 1.798, WINDHOEK[1])]
    table = write_csv(tmp_path / "rows.csv", [*rows, ("far.jpg", WINDHOEK[0] + 1.799, WINDHOEK[1])])
    run(table, "-o", tmp_path / "hard.jsonl", "--solved", solved, "--skipped", tmp_path / "skipped.jsonl")
    assert [r["id"] for r in records(tmp_path / "hard.jsonl")] == ["p.jpg", "b.jpg", "far.jpg"]
    (skipped,) = records(tmp_path / "skipped.jsonl")
    assert (skipped["id"], skipped["reason"], skipped["detail"]) == ("w.jpg", "too near to a solved place", "199.9 km")
    run(table, "-o", tmp_path / "wide.jsonl", "--solved", solved, "--solved-within-km", 26, "--drop-within-km", 10)
    assert [r["id"] for r in records(tmp_path / "wide.jsonl")] == ["b.jpg", "w.jpg", "far.jpg"]


def test_every_row_of_a_table_of_places_is_solved(tmp_path: Path) -> None:
    solved = write_csv(tmp_path / "solved.csv", [("x", *PARIS)])
    table = write_csv(tmp_path / "rows.csv", [("p.jpg", *PARIS), ("b.jpg", *BIEI)])
    run(table, "-o", tmp_path / "hard.jsonl", "--solved", solved)
    assert [r["id"] for r in records(tmp_path / "hard.jsonl")] == ["b.jpg"]


def test_a_selection_equals_brute_force_on_real_places(tmp_path: Path) -> None:
    rows, solved_rows = many_rows(3000), many_rows(3200)[3000:]
    solved = write_csv(tmp_path / "solved.csv", solved_rows)
    run(write_csv(tmp_path / "rows.csv", rows), "-o", tmp_path / "hard.jsonl", "--solved", solved)
    points = np.array([row[1:] for row in rows])
    nearest_km = np.min([reference_km(points, np.array(row[1:])) for row in solved_rows], axis=0)
    expected = [row[0] for row, km in zip(rows, nearest_km, strict=True) if km > 200]
    assert 500 < len(expected) < 2500
    assert [r["id"] for r in records(tmp_path / "hard.jsonl")] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"true_latlon_deg": [1, 2], "predicted_latlon_deg": [1]}', "line 2: predicted_latlon_deg must be [latitude"),
        ('{"true_latlon_deg": null, "predicted_latlon_deg": null}', "line 2: true_latlon_deg must be"),
        ('{"true_latlon_deg": [120, 2], "predicted_latlon_deg": null}', "line 2: true_latlon_deg: latitude must be"),
        ('{"true_latlon_deg": [1, 2]}', "line 2: predicted_latlon_deg must be"),
        ('{"true_latlon', "line 2: Unterminated string"),
        ("[1]", "line 2: expected an object"),
    ],
)
def test_bad_predictions_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    solved = write_predictions(tmp_path / "predictions_sft.jsonl", [(PARIS, PARIS)])
    solved.write_text(solved.read_text() + line + "\n")
    table = write_csv(tmp_path / "rows.csv", many_rows(5))
    assert message in failing_run(capsys, table, "-o", tmp_path / "hard.jsonl", "--solved", solved)


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone", "-o", "x.jsonl"), "gone: no such file or folder"),
        (("empty", "-o", "x.jsonl"), "no photograph below it"),
        (("rows.csv", "-o", "x.json"), "must end in .jsonl"),
        (("rows.csv", "-o", "gone/x.jsonl"), "there is no folder"),
        (("rows.csv", "-o", "folder.jsonl"), "is a folder"),
        (("rows.txt", "-o", "x.jsonl"), "the name must end in .csv"),
        (("none.csv", "-o", "x.jsonl"), "no latitude column"),
        (("no_image.csv", "-o", "x.jsonl"), "no column of images"),
        (("two.csv", "-o", "x.jsonl"), "2 columns of images: image, file. Name one with --image"),
        (("rows.csv", "-o", "x.jsonl", "--image", "gone"), "no column 'gone'"),
        (("swapped.csv", "-o", "x.jsonl"), "none of 2 rows became an example"),
        (("cut.parquet", "-o", "x.jsonl"), "cannot be read as Parquet"),
        (("quote.csv", "-o", "x.jsonl"), "row 2 (line 3)"),
        (("rows.csv", "-o", "x.jsonl", "--template", "haiku"), "--template must be one of lines,"),
        (("rows.csv", "-o", "x.jsonl", "--language", "german"), "Did you mean one of: de"),
        (("rows.csv", "-o", "x.jsonl", "--language", "zh_Hand"), "Did you mean one of: zh_Hant"),
        (("rows.csv", "-o", "x.jsonl", "--language", "de,de"), "different codes"),
        (("rows.csv", "-o", "x.jsonl", "--decimals", "-1"), "--decimals must be from 0"),
        (("rows.csv", "-o", "x.jsonl", "--workers", "0"), "--workers must be at least 1"),
        (("rows.csv", "-o", "x.jsonl", "--drop-within-km", "9"), "add --solved FILE"),
        (("rows.csv", "-o", "x.jsonl", "--solved", "gone.jsonl"), "gone.jsonl: no such file"),
        (("rows.csv", "-o", "x.jsonl", "--solved", "rows.csv", "--drop-within-km", "nan"), "must be a distance"),
        (("rows.csv", "-o", "x.jsonl", "--skipped", "x.jsonl"), "written twice"),
        (("rows.jsonl", "-o", "rows.jsonl", "--overwrite"), "cannot be written and read"),
        (("photos", "-o", "x.jsonl", "--lat", "y"), "--lat is of tables"),
        (("rows.csv", "-o", "x.jsonl", "--index", "rows.csv"), "rows.csv"),
    ],
)
def test_a_mistake_ends_with_one_line_that_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [("a.jpg", *PARIS), ("b.jpg", *BIEI)]
    write_csv(tmp_path / "rows.csv", rows)
    (tmp_path / "rows.txt").write_text("x")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.jpg", "lat": 1, "lon": 2}\n')
    write_csv(tmp_path / "none.csv", rows, "image,x,y")
    write_csv(tmp_path / "no_image.csv", rows, "picture,lat,lon")
    write_csv(tmp_path / "two.csv", [("a", "b", 1, 2)], "image,file,lat,lon")
    write_csv(tmp_path / "swapped.csv", [("a.jpg", 142.5, 43.5), ("b.jpg", 139.7, 35.7)])
    (tmp_path / "quote.csv").write_text('image,lat,lon\na.jpg,1,2\n"b.jpg,1,2\n')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + bytes(100))
    for folder in ("empty", "folder.jsonl"):
        (tmp_path / folder).mkdir()
    write_photo(tmp_path / "photos" / "a.jpg", *PARIS)
    assert message in failing_run(capsys, *arguments)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "rows.csv", many_rows(2))
    # Where root, as whom tests may run, cannot write either.
    assert "/proc/x.jsonl" in failing_run(capsys, table, "-o", "/proc/x.jsonl")


def test_help_says_that_cities_are_not_translated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    assert "cities stay as GeoNames writes them" in " ".join(capsys.readouterr().out.split())
