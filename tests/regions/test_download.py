"""Downloads from a server on this machine: hashes, cache, and what a failed download leaves behind. No network."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from regions.geojson_documents import COUNTRIES, FAR, collection, polygon

from geogrpo.regions.sources import download
from geogrpo.regions.sources.download import (
    DATASETS,
    fetch_geoboundaries,
    fetch_natural_earth,
    geoboundaries_dataset,
)

pytest.importorskip("pooch", reason="pooch is an optional dependency")

PROPERTIES = {"shapeGroup": "MCO", "shapeID": "1", "shapeName": "Monaco", "shapeISO": "MC-1"}
CONTENT = json.dumps(collection({"type": "Feature", "properties": PROPERTIES, "geometry": polygon(FAR)})).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A web server that answers every request with the same content."""

    url: str
    content: bytes = CONTENT
    status: int = 200
    num_missing_bytes: int = 0
    """How much is not sent of what Content-Length promises."""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            self.send_response(site.status)
            self.send_header("Content-Length", str(len(site.content)))
            self.end_headers()
            self.wfile.write(site.content[: len(site.content) - site.num_missing_bytes])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    countries = DATASETS["natural_earth/countries"]
    monkeypatch.setitem(
        DATASETS, "natural_earth/countries", replace(countries, url=f"{site.url}/countries.geojson", sha256=SHA256)
    )
    monkeypatch.setattr(download, "_GEOBOUNDARIES", site.url)
    yield site
    server.shutdown()
    server.server_close()


def test_a_file_is_downloaded_once(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    path = fetch_natural_earth(folder=folder)
    assert path == folder / "ne_10m_admin_0_countries-v5.1.2.geojson"
    assert path.read_bytes() == CONTENT
    assert site.requests == ["/countries.geojson"]
    assert fetch_natural_earth(folder=str(folder)) == path
    assert site.requests == ["/countries.geojson"]


def test_without_a_folder_the_users_cache_is_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    assert fetch_natural_earth().parent == tmp_path / "geogrpo"


def test_another_content_is_rejected_and_leaves_no_file(site: Site, tmp_path: Path) -> None:
    site.content = CONTENT + b" "
    with pytest.raises(ValueError, match=f"expected {SHA256} but got {hashlib.sha256(site.content).hexdigest()}"):
        fetch_natural_earth(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_in_the_cache_is_replaced_or_removed(site: Site, tmp_path: Path) -> None:
    path = fetch_natural_earth(folder=tmp_path)
    path.write_bytes(b"tampered")
    assert fetch_natural_earth(folder=tmp_path).read_bytes() == CONTENT
    assert len(site.requests) == 2
    path.write_bytes(b"tampered")
    site.content = b"changed"
    with pytest.raises(ValueError, match=f"expected {SHA256}"):
        fetch_natural_earth(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "num_missing_bytes"), [(200, 10), (200, len(CONTENT)), (404, 0), (500, 0)])
def test_a_failed_download_leaves_no_file(site: Site, tmp_path: Path, status: int, num_missing_bytes: int) -> None:
    site.status, site.num_missing_bytes = status, num_missing_bytes
    with pytest.raises(ValueError, match=f"{site.url}/countries.geojson could not be downloaded to {tmp_path}"):
        fetch_natural_earth(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_a_value_error(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(DATASETS["natural_earth/countries"], url="http://127.0.0.1:9/x")
    monkeypatch.setitem(DATASETS, "natural_earth/countries", gone)
    with pytest.raises(ValueError, match="could not be downloaded"):
        fetch_natural_earth(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_geoboundaries_need_a_hash_and_say_where_it_is(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MCO-ADM1.geojson is not pinned.*Pass sha256=.*'oid sha256:' in https://raw"):
        fetch_geoboundaries("MCO", "state", folder=tmp_path)
    assert site.requests == []
    path = fetch_geoboundaries("MCO", "state", sha256=SHA256.upper(), folder=tmp_path)
    assert site.requests == ["/MCO/ADM1/geoBoundaries-MCO-ADM1.geojson"]
    layer = geoboundaries_dataset("MCO", "state").read(path)
    assert (layer.level, layer.key, layer.name, layer.code) == ("state", ["1"], ["Monaco"], ["MC-1"])
    assert layer.parent_key == ["MCO"]
    assert "CC BY 4.0" in layer.attribution
    country = geoboundaries_dataset("MCO", "country").read(path)
    assert (country.key, country.code, country.parent_key) == (["MCO"], ["MCO"], [None])


@pytest.mark.parametrize(
    ("country", "level", "sha256", "message"),
    [
        ("us", "state", SHA256, "country must be an ISO 3166-1 alpha-3 code"),
        ("../", "state", SHA256, "country must be an ISO 3166-1 alpha-3 code"),
        ("USA", "ADM1", SHA256, "level must be one of country, state, county, got 'ADM1'"),
        ("USA", "state", "1234", "sha256 must be 64 hexadecimal digits, got '1234'"),
    ],
)
def test_wrong_arguments_are_rejected(country: str, level: str, sha256: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fetch_geoboundaries(country, level, sha256=sha256, folder=tmp_path)


def test_an_unknown_layer_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layer must be one of countries, states, got 'rivers'"):
        fetch_natural_earth("rivers", folder=tmp_path)


def test_without_pooch_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ValueError, match=r"pip install 'geogrpo\[download\]'"):
        fetch_natural_earth(folder=tmp_path)


def test_every_dataset_is_pinned_to_a_version_and_a_hash() -> None:
    for dataset in DATASETS.values():
        assert len(bytes.fromhex(dataset.sha256)) == 32
        assert dataset.url.startswith("https://")
        assert "/master/" not in dataset.url
        assert "/main/" not in dataset.url
    assert len({dataset.file for dataset in DATASETS.values()}) == len(DATASETS)


@pytest.mark.skipif(not COUNTRIES.exists(), reason=f"{COUNTRIES} is missing: it is shared test data")
def test_natural_earth_columns_are_those_of_the_data() -> None:
    countries = DATASETS["natural_earth/countries"].read(COUNTRIES, pov="IN")
    assert (countries.level, countries.code[countries.key.index("NOR")]) == ("country", "NO")
    states = DATASETS["natural_earth/states"].read(COUNTRIES.with_name("ne_50m_admin_1_states_provinces.json"))
    row = states.code.index("AU-WA")
    assert (states.name[row], states.parent_key[row], states.attribution) == ("Western Australia", "AUS", "")
