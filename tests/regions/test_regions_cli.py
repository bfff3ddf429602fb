"""`python -m geogrpo.regions`: what it prints, and that mistakes end with one line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from regions.samples import box

from geogrpo.regions import __main__ as cli
from geogrpo.regions import native
from geogrpo.regions.index import RegionIndex

LAYER = ["key=id", "name=name", "code=iso", "parent=in"]


def write_geojson(path: Path, *features: tuple[str, tuple[float, float, float, float], str | None]) -> Path:
    """Boxes (south, west, north, east) by key; the name is the key in capitals, the code its first two letters."""
    document = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"id": key, "name": key.upper(), "iso": key[:2], "in": parent},
                "geometry": {"type": "Polygon", "coordinates": [box(*corners)[:, ::-1].tolist()]},
            }
            for key, corners, parent in features
        ],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """Two countries with one state, as arguments."""
    countries = write_geojson(
        tmp_path / "countries.geojson", ("west", (-60, -90, 60, 0), None), ("east", (-60, 0, 60, 90), None)
    )
    states = write_geojson(tmp_path / "states.geojson", ("north", (10, -90, 60, 0), "west"))
    return ["--layer", "country", str(countries), *LAYER[:3], "--layer", "state", str(states), *LAYER]


@pytest.fixture
def index_path(tmp_path: Path, layers: list[str], capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "index.safetensors"
    cli.main(
        ["build", str(path), *layers, "--places", "none", "--attribution", "Borders: us.", "--coast-tolerance-km", "9"]
    )
    capsys.readouterr()
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "photos.csv"
    path.write_text("lat,lon\n20,-5\n0,5\n0,90.01\n80,0\n,\n")
    return path


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "geogrpo.regions: error: " in error
    assert "Traceback" not in error
    return error


def test_build_says_what_was_built(tmp_path: Path, layers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "index.safetensors"
    cli.main(["build", str(path), *layers, "--attribution", "Borders: us.", "--min-population", "5000000"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"Built {path}: ")
    assert " MB in " in printed
    index = RegionIndex.load(path)
    words = [line.split() for line in printed.splitlines()]
    assert ["country", "2"] in words
    assert ["city", str(index.count("city"))] in words
    assert 0 < index.count("city") < 200
    assert "Repairs and doubts:\n  places: " in printed
    assert "lie in no polygon and near none; lookup never answers with them\n" in printed
    assert "Show with results:\n  Borders: us.\n  Place names and coordinates: GeoNames" in printed


def test_build_prints_each_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_geojson(tmp_path / "a.geojson", ("west", (0, 0, 9, 9), None), ("gone", (0, 10, 9, 19), None))
    document = json.loads(path.read_text())
    document["features"][1]["geometry"] = None
    path.write_text(json.dumps(document))
    cli.main(
        ["build", str(tmp_path / "i.safetensors"), "--layer", "country", str(path), *LAYER[:2], "--places", "none"]
    )
    assert "Repairs and doubts:\n  a.geojson: feature 2 ('GONE'): no geometry, skipped\n" in capsys.readouterr().out


def test_lookup_reports_shares_and_attribution(
    tmp_path: Path, index_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    cli.main(["lookup", str(table), str(output), "--index", str(index_path), "--prefix", "is_in_"])
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["is_in_country"], row["is_in_country_code"], row["is_in_state"]) for row in rows] == [
        ("WEST", "we", "NORTH"), ("EAST", "ea", ""), ("EAST", "ea", ""), ("", "", ""), ("", "", "")
    ]  # fmt: skip
    assert [row["is_in_is_near_coast"] for row in rows] == ["false", "false", "true", "false", "false"]
    printed = capsys.readouterr().out
    assert printed.startswith(f"Wrote {output}: 5 rows in ")
    words = [line.split() for line in printed.splitlines()]
    assert words[1][:5] == ["near", "a", "coast", "1", "25.00%"]
    assert words[2][:3] == ["nowhere", "1", "25.00%"]
    assert words[3][:4] == ["without", "coordinates", "1", "20.00%"]
    assert printed.endswith("Show with results:\n  Borders: us.\n")


def test_lookup_prints_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, index_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PLAIN_LINE_EVERY_S", 0)
    cli.main(["lookup", str(table), str(tmp_path / "out.csv"), "--index", str(index_path)])
    assert capsys.readouterr().err.startswith("photos.csv: 5 rows, 100%\n")


@pytest.mark.parametrize(
    ("rows", "warnings"),
    [
        (["20,-5"] * 9 + ["80,0"], []),
        (["20,-5"] * 8 + ["80,0", ","], ["1 of 9 rows are in no region"]),
        (["5,5000000"] + ["20,-5"] * 20, ["1 of 21 rows have a longitude beyond +-540"]),
        (["5,5000150"], ["1 of 1 rows are in no region", "1 of 1 rows have a longitude beyond +-540"]),
        ([",", ","], []),
    ],
)
def test_coordinates_that_are_hardly_degrees_are_warned_about(
    tmp_path: Path, index_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], warnings: list[str]
) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["lat,lon", *rows, ""]))
    cli.main(["lookup", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--index", str(index_path)])
    lines = capsys.readouterr().err.splitlines()
    question = ". Are the columns latitude and longitude in decimal degrees?"
    assert lines == [f"geogrpo.regions: warning: {what}{question}" for what in warnings]


def test_an_ascii_terminal_gets_escapes_not_an_error(tmp_path: Path, layers: list[str]) -> None:
    command = [sys.executable, "-m", "geogrpo.regions", "build", "i.safetensors", *layers, "--places", "none"]
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [*command, "--attribution", "© Müller"], cwd=tmp_path, capture_output=True, env=environment, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert rb"Show with results:" + b"\n  " + rb"\xa9 M\xfcller" in ended.stdout
    assert RegionIndex.load(tmp_path / "i.safetensors").info.attributions == ["© Müller"]


def test_lookup_shows_a_bar_on_a_terminal(
    tmp_path: Path, index_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    cli.main(["lookup", str(table), str(tmp_path / "out.csv"), "--index", str(index_path)])
    shown = capsys.readouterr().err
    assert "photos.csv" in shown
    assert "5 rows" in shown


def test_the_default_index_is_geonames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a program of its own."""
    (tmp_path / "a.jsonl").write_text('{"spot": {"x": 1}, "Lat": -22.5594, "LNG": 17.0832}\n')
    command = [sys.executable, "-m", "geogrpo.regions", "lookup", "a.jsonl", "b.jsonl"]
    root = Path(cli.__file__).parents[2]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "GeoNames (geonames.org), CC BY 4.0" in ended.stdout
    row = json.loads((tmp_path / "b.jsonl").read_text())
    assert (row["country_code"], row["country"], row["city"]) == ("NA", "Namibia", "Windhoek")
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, timeout=300
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "geogrpo.regions: error: b.jsonl exists. --overwrite replaces it.\n"


def test_info_describes_an_index(index_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["info", str(index_path)])
    printed = capsys.readouterr().out
    words = [line.split() for line in printed.splitlines()]
    assert ["state", "1"] in words
    assert ["nearest", "place", "by", "sphere"] in words
    assert ["coast", "tolerance", "9", "km"] in words
    assert "countries.geojson sha256:" in printed
    assert "Show with results:\n  Borders: us.\n" in printed
    assert any(line[:3] == ["SHA-256", "of", "content"] and len(line[3]) == 64 for line in words)


@pytest.mark.parametrize("has_cuda", [True, False])
def test_info_says_what_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_cuda: bool
) -> None:
    monkeypatch.setattr(native, "has_cuda", lambda: has_cuda)
    cli.main(["info"])
    printed = capsys.readouterr().out
    assert f"Native library: {native.library_path()}\n" in printed
    assert ("CUDA part:      yes\n" in printed) == has_cuda
    assert "GPUs for torch: " in printed


def test_info_says_that_the_library_is_not_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_built() -> None:
        raise ValueError("Install the package.")

    monkeypatch.setattr(native, "library_path", not_built)
    cli.main(["info"])
    assert capsys.readouterr().out == "Native library: not built. Install the package.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "out.bin"], "out.bin: the name of an index must end in .safetensors"),
        (["build", "gone/out.safetensors"], "there is no folder gone"),
        (["build", "model.safetensors"], "model.safetensors exists and is no region index"),
        (["build", "a.safetensors", "--pov", "CN"], "--pov and --attribution are of polygons: add --layer"),
        (["build", "a.safetensors", "--attribution", "x"], "--pov and --attribution are of polygons: add --layer"),
        (["build", "a.safetensors", "--pov", "CN", "--layer", "state", "f", "key=a", "name=b"], "--pov is of"),
        (["build", "a.safetensors", "--layer", "country", "f.geojson"], "--layer needs LEVEL FILE key=COLUMN"),
        (["build", "a.safetensors", "--layer", "country", "f", "key=a", "key=b"], "got 'key=b' in --layer country f"),
        (["build", "a.safetensors", "--layer", "country", "f", "key=a", "kee=b"], "got 'kee=b' in --layer country f"),
        (["build", "a.safetensors", "--layer", "country", "f", "key=a", "code=b"], "--layer needs LEVEL FILE"),
        (["build", "a.safetensors", "--layer", "planet", "f.geojson", "key=a", "name=b"], "level must be one of"),
        (["build", "a.safetensors", "--layer", "country", "f.geojson", "key=a", "name=b"], "f.geojson: cannot be read"),
        (["build", "a.safetensors", "--places", "none"], "needs a polygon layer or at least one place"),
        (["build", "a.safetensors", "--places", "none", "--min-population", "5"], "--min-population is of places"),
        (["build", "a.safetensors", "--places", "osm"], "invalid choice: 'osm'"),
        (["build", "a.safetensors", "--min-population", "-5"], "must be a whole number from 0, got '-5'"),
        (["build", "a.safetensors", "--min-population", "1e5"], "must be a whole number from 0, got '1e5'"),
        (["lookup", "gone.csv", "b.csv"], "gone.csv: no such file"),
        (["lookup", "swapped.csv", "b.csv", "--index", "gone.safetensors"], "gone.safetensors: no such file"),
        (["info", "gone.safetensors"], "gone.safetensors: no such file"),
        (["info", "model.safetensors"], "model.safetensors is not a whole safetensors file"),
    ],
)  # fmt: skip
def test_mistakes_end_with_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "swapped.csv").write_text("lat,lon\n151.2,-33.9\n")
    # argparse's own errors name the command too.
    monkeypatch.setattr("argparse.ArgumentParser.error", stop)
    assert message in error_of(arguments, capsys)
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.safetensors", "swapped.csv"]


def stop(parser: object, message: str) -> None:
    print(f"geogrpo.regions: error: {message}", file=sys.stderr)
    sys.exit(2)


def test_an_older_index_is_replaced(index_path: Path, layers: list[str]) -> None:
    cli.main(["build", str(index_path), *layers, "--places", "none", "--metric", "degrees"])
    assert RegionIndex.load(index_path).info.metric == "degrees"


def test_a_point_of_view_is_of_the_country_layer_only(
    tmp_path: Path, layers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(["build", str(tmp_path / "i.safetensors"), *layers, "--pov", "XX"], capsys)
    assert "countries.geojson: no point of view 'XX'" in message
    countries = tmp_path / "countries.geojson"
    document = json.loads(countries.read_text())
    document["features"][1]["properties"]["id_XX"] = "west"
    countries.write_text(json.dumps(document))
    # The states have no such column.
    cli.main(["build", str(tmp_path / "i.safetensors"), *layers, "--pov", "XX", "--places", "none"])
    assert ["country", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_bad_rows_are_named(tmp_path: Path, index_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("lat,lon\n151.2,-33.9\n")
    message = error_of(["lookup", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), "--index", str(index_path)], capsys)
    assert message.count("\n") == 1
    assert (
        "a.csv: row 1 (line 2): latitude must be from -90 to 90, got 151.2. Are latitude and longitude swapped?"
        in message
    )


def test_ctrl_c_ends_without_a_traceback_or_a_file(
    tmp_path: Path, index_path: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RegionIndex, "lookup", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["lookup", str(table), str(tmp_path / "out.csv"), "--index", str(index_path)])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "geogrpo.regions: stopped; nothing was written\n"
    assert not list(tmp_path.glob("out*"))
