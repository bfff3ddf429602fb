"""Points per second of the region index beside what people use, in one run on the same points.

pytest benchmarks/bench_regions.py        about three minutes on 2 CPU cores; needs the machine to itself

Countries: Natural Earth 10m (../shared/data, or GEOGRPO_NATURAL_EARTH names the file). Nearest place: GeoNames.
Countries and places: both, as `python -m geogrpo.regions build --layer country ...` makes it. Around places one point
in fifteen lies outside every polygon, and there the countries search for a coast within 5 km. shapely does not, nor do
the rows with "no coast": those are compared with it. Results are kept in benchmarks/results/regions_cpu.json; the
targets are checked at the end.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from geogrpo.regions import ops
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons

RESULT = Path(__file__).parent / "results" / "regions_cpu.json"
DEFAULT_FILE = Path(__file__).parents[2] / "shared/data/naturalearth/ne_10m_admin_0_countries.geojson.gz"
NATURAL_EARTH = Path(os.environ.get("GEOGRPO_NATURAL_EARTH", DEFAULT_FILE))
NUM_POINTS, SMALL_BATCH = 1_000_000, 4096
MILLION = 1e6


@pytest.fixture(scope="module")
def countries() -> PolygonLayer:
    if not NATURAL_EARTH.is_file():
        pytest.skip(f"Natural Earth's countries are not at {NATURAL_EARTH}; GEOGRPO_NATURAL_EARTH names another file")
    return read_polygons(NATURAL_EARTH, "country", key="ADM0_A3", name="NAME", code="ISO_A2_EH")


@pytest.fixture(scope="module")
def polygon_index(countries: PolygonLayer) -> RegionIndex:
    return RegionIndex.build([countries])


@pytest.fixture(scope="module")
def no_coast_index(countries: PolygonLayer) -> RegionIndex:
    return RegionIndex.build([countries], coast_tolerance_km=0)


@pytest.fixture(scope="module")
def mixed_index(countries: PolygonLayer) -> RegionIndex:
    return RegionIndex.build([countries], load_geonames())


@pytest.fixture(scope="module")
def place_index() -> RegionIndex:
    return RegionIndex.build(places=load_geonames())


@pytest.fixture(scope="module")
def points(polygon_index: RegionIndex) -> dict[str, np.ndarray]:
    """`land`: uniform on the sphere, on land. `places`: 2 to 30 km around GeoNames places, land and sea."""
    rng = np.random.default_rng(0)
    sphere = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 4_000_000))), rng.uniform(-180, 180, 4_000_000)], 1)
    found = polygon_index.lookup(sphere)
    land = sphere[(found.country >= 0) & ~found.is_near_coast][:NUM_POINTS]
    places = load_geonames().latlon_deg
    spread_deg = rng.choice([2, 10, 30], (NUM_POINTS, 1)) / 111.0
    near = places[rng.integers(0, len(places), NUM_POINTS)] + rng.normal(0, 1, (NUM_POINTS, 2)) * spread_deg
    near[:, 0] = near[:, 0].clip(-90, 90)
    near[:, 1] = (near[:, 1] + 180) % 360 - 180
    return {"land": land, "places": near}


@pytest.fixture(scope="module")
def record(polygon_index: RegionIndex) -> dict:
    machine = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    return {"machine": machine, "torch": torch.__version__, "points": NUM_POINTS, "million_points_per_s": {}}


def best_seconds(run: Callable[[], object], repeats: int = 7) -> float:
    """The fastest of some runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(record: dict, benchmark, name: str, n: int, run: Callable[[], object], rounds: int = 5) -> None:  # type: ignore[no-untyped-def]
    benchmark.pedantic(run, rounds=rounds, iterations=1, warmup_rounds=1)
    speed = n / benchmark.stats.stats.min / MILLION
    benchmark.extra_info["million_points_per_s"] = round(speed, 2)
    record["million_points_per_s"][name] = round(speed, 2)


def shapely_countries(countries: PolygonLayer) -> Callable[[np.ndarray], np.ndarray]:
    """Prepared contains_xy per polygon over points sorted by longitude: the fastest ready-made path."""
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    geometries = polygons_of(countries, shapely)
    shapely.prepare(geometries)
    bounds = shapely.bounds(geometries)

    def run(points: np.ndarray) -> np.ndarray:
        order = np.argsort(points[:, 1])
        lat, lon = points[order].T
        result = np.full(len(points), -1)
        for region, (west, south, east, north) in enumerate(bounds):
            first, last = np.searchsorted(lon, [west, east + 1e-12])
            near = np.flatnonzero((lat[first:last] >= south) & (lat[first:last] <= north)) + first
            inside = near[shapely.contains_xy(geometries[region], lon[near], lat[near])]
            result[order[inside]] = region
        return result

    return run


def polygons_of(layer: PolygonLayer, shapely) -> np.ndarray:  # type: ignore[no-untyped-def]
    """One geometry per region; the rings of these data are outer rings and their holes."""
    starts = layer.ring_offset
    rings = [
        shapely.Polygon(layer.vertices_latlon_deg[starts[k] : starts[k + 1], ::-1])
        for k in range(len(layer.ring_region))
    ]
    geometries = []
    for region in range(len(layer.key)):
        mine = [rings[k] for k in np.flatnonzero(layer.ring_region == region)]
        geometries.append(shapely.symmetric_difference_all(mine) if len(mine) > 1 else mine[0])
    return np.array(geometries)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["land", "places"])
def test_countries_geogrpo(benchmark, record, polygon_index, points, where, threads, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(ops, "num_threads", lambda: threads)
    name = f"countries, {where}, geogrpo, {threads} thread(s)"
    measure(record, benchmark, name, NUM_POINTS, lambda: polygon_index.lookup(points[where]), rounds=15)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["land", "places"])
def test_no_coast_geogrpo(benchmark, record, no_coast_index, points, where, threads, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(ops, "num_threads", lambda: threads)
    name = f"countries, {where}, no coast, geogrpo, {threads} thread(s)"
    measure(record, benchmark, name, NUM_POINTS, lambda: no_coast_index.lookup(points[where]), rounds=15)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["land", "places"])
def test_countries_and_places_geogrpo(benchmark, record, mixed_index, points, where, threads, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(ops, "num_threads", lambda: threads)
    name = f"countries and places, {where}, geogrpo, {threads} thread(s)"
    measure(record, benchmark, name, NUM_POINTS, lambda: mixed_index.lookup(points[where]), rounds=10)


@pytest.mark.parametrize("where", ["land", "places"])
def test_countries_shapely(benchmark, record, countries, polygon_index, points, where) -> None:  # type: ignore[no-untyped-def]
    run = shapely_countries(countries)
    measure(
        record, benchmark, f"countries, {where}, shapely prepared", NUM_POINTS, lambda: run(points[where]), rounds=2
    )
    ours = polygon_index.lookup(points[where])
    names = polygon_index.names(np.where(ours.is_near_coast, -1, ours.country))
    theirs = np.array([*countries.name, None], dtype=object)[run(points[where])]
    assert (names == theirs).all()


@pytest.mark.parametrize("where", ["land", "places"])
def test_countries_geopandas(benchmark, record, countries, points, where) -> None:  # type: ignore[no-untyped-def]
    geopandas = pytest.importorskip("geopandas", reason="geopandas is not installed")
    shapely = pytest.importorskip("shapely", reason="shapely is not installed")
    frame = geopandas.GeoDataFrame(geometry=polygons_of(countries, shapely), crs=4326)
    some = points[where][: NUM_POINTS // 5]

    def run() -> object:
        geometry = geopandas.points_from_xy(some[:, 1], some[:, 0], crs=4326)
        return geopandas.sjoin(geopandas.GeoDataFrame(geometry=geometry), frame, predicate="within")

    measure(record, benchmark, f"countries, {where}, geopandas sjoin", len(some), run, rounds=2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["land", "places"])
def test_nearest_geogrpo(benchmark, record, place_index, points, where, threads, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(ops, "num_threads", lambda: threads)
    name = f"nearest place, {where}, geogrpo, {threads} thread(s)"
    measure(record, benchmark, name, NUM_POINTS, lambda: place_index.nearest(points[where]), rounds=10)


@pytest.mark.parametrize("where", ["land", "places"])
def test_nearest_scipy(benchmark, record, points, where) -> None:  # type: ignore[no-untyped-def]
    """cKDTree on unit vectors: the right metric, points converted inside as they are for everybody."""
    spatial = pytest.importorskip("scipy.spatial", reason="scipy is not installed")

    def vectors(latlon_deg: np.ndarray) -> np.ndarray:
        lat, lon = np.radians(latlon_deg).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)

    tree = spatial.cKDTree(vectors(load_geonames().latlon_deg))
    run = lambda: tree.query(vectors(points[where]))  # noqa: E731
    measure(record, benchmark, f"nearest place, {where}, scipy cKDTree on the sphere", NUM_POINTS, run, rounds=2)


@pytest.mark.parametrize("where", ["land", "places"])
def test_nearest_reverse_geocoder(benchmark, record, points, where) -> None:  # type: ignore[no-untyped-def]
    module = pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    geocoder = module.RGeocoder(mode=1, verbose=False)
    some = [tuple(point) for point in points[where][: NUM_POINTS // 5].tolist()]
    name = f"nearest place, {where}, reverse_geocoder (degrees)"
    measure(record, benchmark, name, len(some), lambda: geocoder.query(some), rounds=2)


def test_targets(record, countries, polygon_index, mixed_index, place_index, points, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(ops, "num_threads", lambda: 1)
    indices = (("countries", polygon_index), ("nearest place", place_index), ("countries and places", mixed_index))
    for name, index in indices:
        batch = points["places"][:SMALL_BATCH].copy()
        for kind, some in (("NumPy", batch), ("tensor", torch.from_numpy(batch))):
            seconds = best_seconds(lambda index=index, some=some: index.lookup(some), 200)
            record[f"{SMALL_BATCH} points, {name}, {kind}, us"] = round(seconds * 1e6, 1)
    record["countries index, MB"] = round(polygon_index.num_bytes / MILLION, 1)
    record["countries index built, s"] = round(best_seconds(lambda: RegionIndex.build([countries]), 3), 2)
    read = lambda: read_polygons(NATURAL_EARTH, "country", key="ADM0_A3", name="NAME")  # noqa: E731
    record["countries file read, s"] = round(best_seconds(read, 2), 2)
    record["places index, MB"] = round(place_index.num_bytes / MILLION, 1)
    record["places index built, s"] = round(best_seconds(lambda: RegionIndex.build(places=load_geonames()), 2), 2)
    both = lambda: RegionIndex.build([countries], load_geonames())  # noqa: E731
    record["countries and places index, MB"] = round(mixed_index.num_bytes / MILLION, 1)
    record["countries and places index built, s"] = round(best_seconds(both, 2), 2)
    speed = record["million_points_per_s"]
    record["times shapely prepared, one thread"] = {
        where: round(speed[f"countries, {where}, no coast, geogrpo, 1 thread(s)"] / speed[theirs], 1)
        for where in ("land", "places")
        if (theirs := f"countries, {where}, shapely prepared") in speed
    }
    small = {name: us for name, us in record.items() if name.startswith(f"{SMALL_BATCH} points, ")}
    # Of the countries, 100 us are asserted below; the others do more work per point.
    record[f"{SMALL_BATCH} points in more than 100 us"] = [name for name, us in small.items() if us >= 100]
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    assert speed["countries, land, geogrpo, 1 thread(s)"] >= 100
    assert speed["countries, land, geogrpo, 2 thread(s)"] >= 180
    assert speed["countries, land, geogrpo, 1 thread(s)"] >= 40 * speed["countries, land, shapely prepared"]
    no_coast = speed["countries, places, no coast, geogrpo, 1 thread(s)"]
    assert no_coast >= 40 * speed["countries, places, shapely prepared"]
    assert speed["nearest place, places, geogrpo, 1 thread(s)"] >= 15
    assert record[f"{SMALL_BATCH} points, countries, NumPy, us"] < 100
    assert record["countries index built, s"] < 2
    assert record["countries index, MB"] <= 60
