"""Index files: what comes back, and that no file can crash the program or make it read other memory.

`make asan` runs the fuzz tests here with the library built under AddressSanitizer.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from regions.samples import box, layer, places_at, random_points
from safetensors.torch import load_file, save_file

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.storage import EMPTY, FORMAT, content_hash, read_tables

COUNTRIES = layer(
    "country",
    west=[box(-60, -170, 60, 0), box(-5, -9, 5, -3)],
    east=box(-60, 0, 60, 170),
    islet=box(70, 0, 70.01, 0.01),
)


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    places = places_at(*random_points(300, 1).tolist())
    return RegionIndex.build([COUNTRIES], places)


INFO = {
    "metric": "sphere",
    "coast_tolerance_km": 5.0,
    "num_polygon_regions": 3,
    "sources": [],
    "attributions": [],
    "repairs": [],
}


def write(path: Path, tables: dict[str, torch.Tensor], info: str | None = None) -> Path:
    """An index file whose hash fits its content, whatever that is."""
    text = json.dumps(INFO) if info is None else info
    save_file(tables, path, {"format": FORMAT, "info": text, "sha256": content_hash(tables, text)})
    return path


def test_an_index_of_one_place_is_saved_and_read(tmp_path: Path) -> None:
    index = RegionIndex.build(places=places_at((10.0, 20.0)))
    index.save(tmp_path / "one.safetensors")
    found = [
        one.names(one.lookup(np.zeros((1, 2))).ids).tolist()
        for one in (index, RegionIndex.load(tmp_path / "one.safetensors"))
    ]
    assert found[0] == found[1]
    assert found[0][0][3] is not None


def test_a_saved_index_answers_alike_and_remembers_its_sources(index: RegionIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.safetensors"
    index.save(path)
    loaded = RegionIndex.load(path)
    points = random_points(5000)
    assert np.array_equal(index.lookup(points).ids, loaded.lookup(points).ids)
    everything = np.arange(len(index))
    assert index.names(everything).tolist() == loaded.names(everything).tolist()
    assert loaded.info == index.info
    assert loaded.info.sources == ["test", ""]
    assert [file.name for file in tmp_path.iterdir()] == ["index.safetensors"]


def test_a_missing_foreign_or_cut_file_is_named(index: RegionIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.safetensors"
    with pytest.raises(ValueError, match="index.safetensors: no such file"):
        RegionIndex.load(path)
    index.save(path)
    whole = path.read_bytes()
    for length in (0, 7, 8, 100, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="index.safetensors is not a whole safetensors file"):
            RegionIndex.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="index.safetensors is no region index of this version"):
        RegionIndex.load(path)
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        RegionIndex.load(tmp_path)


def test_one_changed_byte_is_noticed(index: RegionIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.safetensors"
    index.save(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="index.safetensors: the content does not match its SHA-256"):
        RegionIndex.load(path)


def test_missing_and_misshapen_tables_are_named(index: RegionIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "good")
    tables = load_file(tmp_path / "good")
    for name in tables:
        rest = {key: table for key, table in tables.items() if key != name}
        with pytest.raises(ValueError, match=f"lacks the table '{name}'"):
            RegionIndex.load(write(tmp_path / "bad", rest))
        wrong = tables | {name: torch.zeros(3, 5, dtype=torch.float16)}
        with pytest.raises(ValueError, match=f"the table '{name}' must be"):
            RegionIndex.load(write(tmp_path / "bad", wrong))


def test_one_changed_value_of_the_metadata_is_noticed(index: RegionIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.safetensors"
    index.save(path)
    content = path.read_bytes()
    for old, new in ((b"sphere", b"sphera"), (b" 5.0", b" 9.0"), (b"test", b"tast")):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match="index.safetensors: the content does not match its SHA-256"):
            RegionIndex.load(path)


@pytest.mark.parametrize("info", ["", "{", "[]", "5", "{}", '{"metric": "sphere"}', "[" * 100_000])
def test_metadata_that_is_none_is_refused(index: RegionIndex, tmp_path: Path, info: str) -> None:
    index.save(tmp_path / "good")
    with pytest.raises(ValueError, match="bad: the metadata of the region index"):
        RegionIndex.load(write(tmp_path / "bad", load_file(tmp_path / "good"), info))


IMPOSSIBLE = [
    ("metric", "x"),
    ("metric", ["sphere"]),
    ("coast_tolerance_km", math.nan),
    ("coast_tolerance_km", "5"),
    ("coast_tolerance_km", True),
    ("coast_tolerance_km", 501),
    ("coast_tolerance_km", None),
    ("num_polygon_regions", -1),
    ("num_polygon_regions", 3.0),
    ("num_polygon_regions", True),
    ("num_polygon_regions", 10**30),
    ("sources", 5),
    ("sources", "abc"),
    ("sources", [5]),
    ("attributions", ["\x1b[2J"]),
    ("repairs", {"a": "b"}),
    ("repairs", ["two\nlines"]),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_impossible_metadata_is_refused_by_name(index: RegionIndex, tmp_path: Path, name: str, value: object) -> None:
    index.save(tmp_path / "good")
    path = write(tmp_path / "bad", load_file(tmp_path / "good"), json.dumps(INFO | {name: value}))
    with pytest.raises(ValueError, match=f"bad: the metadata of the region index: {name} must be") as error:
        RegionIndex.load(path)
    assert str(error.value).isprintable()


def test_more_polygon_regions_than_regions_are_refused(index: RegionIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "good")
    text = json.dumps(INFO | {"num_polygon_regions": 9999})
    with pytest.raises(ValueError, match="bad is not a sound region index"):
        RegionIndex.load(write(tmp_path / "bad", load_file(tmp_path / "good"), text))


def test_what_a_terminal_would_obey_is_kept_as_escapes(tmp_path: Path) -> None:
    hostile = replace(COUNTRIES, source="\x1b]0;x\x07\udcff.geojson", attribution="a\nb", repairs=["\u202eü"])
    RegionIndex.build([hostile]).save(tmp_path / "index")
    info = RegionIndex.load(tmp_path / "index").info
    assert info.sources == [r"\x1b]0;x\x07\udcff.geojson"]
    assert (info.attributions, info.repairs) == ([r"a\nb"], [r"\u202eü"])


def test_saving_touches_no_other_file(index: RegionIndex, tmp_path: Path) -> None:
    path, other = tmp_path / "index", tmp_path / "index.tmp"
    other.write_text("someone's")
    index.save(path)
    assert other.read_text() == "someone's"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index", "index.tmp"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


TAMPERED = {
    "a cell's region": ("cells", 10, 900, "a cell names a region or block"),
    "a cell's block": ("cells", 10, 1 << 30 | 999_999, "a cell names a region or block"),
    "a cell's tag": ("cells", 10, 3 << 30, "a cell names a region or block"),
    "a leaf's region": ("leaves", 3, 77, "a leaf names a region"),
    "a leaf's record": ("leaves", 3, 2 << 30 | 99_999_999, "a record runs past the end"),
    "a record's region": ("records", 0, 500 << 2, "a record names a region"),
    "a record's runs": ("records", 1, 2_000_000_000, "a record runs past the end"),
    "a run's vertex": ("records", 2, 4_000_000_000, "a record names a vertex"),
    "a vertex": ("vertices", 0, 3_700_000_000, "a vertex lies outside the world"),
    "a root's place": ("roots", 5, 100_000, "the tree names a place, node or list"),
    "a root's node": ("roots", 5, 1 << 30 | 99_999_999, "the tree names a place, node or list"),
    "a root's list": ("roots", 5, 2 << 30 | 1, "the tree names a place, node or list"),
    "a list's length": ("candidates", 0, 4_000_000_000, "a candidate list runs past the end"),
    "a list's place": ("candidates", 1, 300, "a candidate list names a place"),
    "a parent": ("parent", 5, 5, "is not of a coarser level"),
    "a parent that is not there": ("parent", 5, 99_999, "parent is not there"),
    "a level": ("level", 5, 9, "unknown level"),
    "a name": ("name_offset", 2, -5, "offsets of names or codes"),
    "a region's places": ("region_places", 0, 999, "names a place that is not there"),
    "the start of a region's places": ("region_start", 1, 999, "region_start"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_an_offset_that_points_outside_is_refused(index: RegionIndex, tmp_path: Path, what: str) -> None:
    table, position, value, message = TAMPERED[what]
    index.save(tmp_path / "good")
    tables = {name: tensor.clone() for name, tensor in load_file(tmp_path / "good").items()}
    tables[table].numpy().reshape(-1)[position] = value
    with pytest.raises(ValueError, match=f"bad is not a sound region index: .*{message}"):
        RegionIndex.load(write(tmp_path / "bad", tables))


def test_records_that_overlap_are_refused(index: RegionIndex, tmp_path: Path) -> None:
    """A small file must not keep the check busy: every leaf here names the same record."""
    index.save(tmp_path / "good")
    tables = {name: tensor.clone() for name, tensor in load_file(tmp_path / "good").items()}
    leaves = tables["leaves"].numpy()
    leaves[...] = 2 << 30
    with pytest.raises(ValueError, match="records overlap"):
        RegionIndex.load(write(tmp_path / "bad", tables))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_refused_or_harmless(index: RegionIndex, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index.save(tmp_path / "good")
    tables = {name: tensor.clone() for name, tensor in load_file(tmp_path / "good").items()}
    points = np.concatenate([random_points(2000, seed), rng.normal(70, 0.01, (100, 2)) * (1, 0)])
    for _ in range(int(rng.integers(1, 4))):
        name = sorted(tables)[rng.integers(len(tables))]
        array = tables[name].numpy()
        if rng.random() < 0.2:
            rows = int(rng.integers(0, len(array) + 1))
            tables[name] = tables[name][:rows].clone()
            continue
        raw = array.reshape(-1).view(np.uint8)
        for position in rng.integers(0, max(1, raw.size), 5 if raw.size else 0):
            raw[position] = rng.integers(256)
    path = write(tmp_path / "bad", tables)
    try:
        RegionIndex.load(path)
        # The same tables in memory of their own, whose ends AddressSanitizer watches
        read, info = read_tables(path, EMPTY)
        damaged = RegionIndex({name: table.clone() for name, table in read.items()}, info)
    except ValueError:
        return
    found = damaged.lookup(points)
    damaged.names(found.ids)
    damaged.nearest(points)
