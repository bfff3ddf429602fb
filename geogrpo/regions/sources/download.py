"""Region polygons from the internet, by pooch, each file checked against a sha256 before it is used.

A hash is pinned here only where it could be verified; for every other file the caller must state it. Files lie in the
user's cache folder and are downloaded once.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons


@dataclass(frozen=True)
class Dataset:
    """One file, and how to read it."""

    url: str
    sha256: str
    """64 hexadecimal digits; "" where it could not be verified."""
    file: str
    """Name in the cache folder."""
    level: str
    key: str
    name: str
    code: str
    parent: str | None
    attribution: str
    """What must be shown with results; "" when the licence asks for nothing."""

    def read(self, path: str | Path, pov: str | None = None) -> PolygonLayer:
        """The regions of the downloaded file; `pov` as in read_polygons."""
        return read_polygons(
            path,
            self.level,
            key=self.key,
            name=self.name,
            code=self.code,
            parent=self.parent,
            pov=pov,
            attribution=self.attribution,
        )


_NATURAL_EARTH = "https://raw.githubusercontent.com/nvkelso/natural-earth-vector/v5.1.2/geojson"
# The release that the geoBoundaries API names as current. Large files are in Git LFS: only github.com/.../raw leads to
# their content, raw.githubusercontent.com answers with the pointer, which states the sha256.
_GEOBOUNDARIES_COMMIT = "9469f09592ced973a3448cf66b6100b741b64c0d"
_GEOBOUNDARIES = f"https://github.com/wmgeolab/geoBoundaries/raw/{_GEOBOUNDARIES_COMMIT}/releaseData/gbOpen"
_GEOBOUNDARIES_POINTERS = f"https://raw.githubusercontent.com/wmgeolab/geoBoundaries/{_GEOBOUNDARIES_COMMIT}"
_GEOBOUNDARIES_LEVELS = {"country": "ADM0", "state": "ADM1", "county": "ADM2"}
_GEOBOUNDARIES_ATTRIBUTION = (
    "Boundaries: geoBoundaries (www.geoboundaries.org), Runfola et al. 2020, CC BY 4.0; "
    "single files may carry the licence of their source, such as ODbL."
)


def _geoboundaries(country: str, level: str, sha256: str = "") -> Dataset:
    adm = _GEOBOUNDARIES_LEVELS[level]
    is_country = level == "country"
    return Dataset(
        url=f"{_GEOBOUNDARIES}/{country}/{adm}/geoBoundaries-{country}-{adm}.geojson",
        sha256=sha256,
        file=f"geoBoundaries-{country}-{adm}-{_GEOBOUNDARIES_COMMIT[:7]}.geojson",
        level=level,
        key="shapeGroup" if is_country else "shapeID",
        name="shapeName",
        code="shapeGroup" if is_country else "shapeISO",
        # The only parent in the file is the country, also for counties.
        parent=None if is_country else "shapeGroup",
        attribution=_GEOBOUNDARIES_ATTRIBUTION,
    )


DATASETS: dict[str, Dataset] = {
    # The sha256 that more than ten public projects pin for this file at tag v5.1.2 or its commit ca96624 (13,287,234
    # and 40,726,851 bytes). Public domain.
    "natural_earth/countries": Dataset(
        url=f"{_NATURAL_EARTH}/ne_10m_admin_0_countries.geojson",
        sha256="239eec57ac17f100a11e2536cffc56752c318b50ae765b0918ff7aab4ce8f255",
        file="ne_10m_admin_0_countries-v5.1.2.geojson",
        level="country",
        key="ADM0_A3",
        name="NAME_LONG",
        code="ISO_A2_EH",
        parent=None,
        attribution="",
    ),
    "natural_earth/states": Dataset(
        url=f"{_NATURAL_EARTH}/ne_10m_admin_1_states_provinces.geojson",
        sha256="22d0e3ad85eb3e27f17cabf8ba2d50e554fbc27a87796ff891d958185da62fb5",
        file="ne_10m_admin_1_states_provinces-v5.1.2.geojson",
        level="state",
        key="adm1_code",
        name="name",
        code="iso_3166_2",
        parent="adm0_a3",
        attribution="",
    ),
    # The sha256 in the Git LFS pointers of the release commit.
    "geoboundaries/USA/country": _geoboundaries(
        "USA", "country", "93ac6f9ed74f3935066fef29d70f8f0f3a139e59089b4cf2b83c2f7326582526"
    ),
    "geoboundaries/USA/county": _geoboundaries(
        "USA", "county", "81fdd384df8012e5007ed2994a8ab306352f3c48e32cd8ea99182195e8647f43"
    ),
}


def fetch_natural_earth(layer: str = "countries", *, folder: str | Path | None = None) -> Path:
    """The GeoJSON file of Natural Earth 1:10m v5.1.2, downloaded unless it is there already.

    Args:
        layer: "countries" or "states". DATASETS[f"natural_earth/{layer}"].read(path) reads it.
        folder: None for the user's cache folder.
    Raises:
        ValueError: for an unknown layer, a failed download, or a file with another hash; no file is left then.
    """
    layers = sorted(name.partition("/")[2] for name in DATASETS if name.startswith("natural_earth/"))
    if layer not in layers:
        raise ValueError(f"layer must be one of {', '.join(layers)}, got {layer!r}.")
    return _fetch(DATASETS[f"natural_earth/{layer}"], folder)


def fetch_geoboundaries(
    country: str, level: str, *, sha256: str | None = None, folder: str | Path | None = None
) -> Path:
    """The GeoJSON file of one country and level from geoBoundaries gbOpen, downloaded unless it is there already.

    Args:
        country: ISO 3166-1 alpha-3 code.
        level: "country", "state" or "county". geoboundaries_dataset(country, level).read(path) reads it.
        sha256: of the file; needed unless it is pinned in DATASETS.
        folder: None for the user's cache folder.
    Raises:
        ValueError: as fetch_natural_earth, and where the hash is neither pinned nor given.
    """
    dataset = geoboundaries_dataset(country, level)
    sha256 = sha256 or dataset.sha256
    if not sha256:
        pointer = dataset.url.replace(_GEOBOUNDARIES, f"{_GEOBOUNDARIES_POINTERS}/releaseData/gbOpen")
        raise ValueError(
            f"the sha256 of {dataset.url} is not pinned, and an unchecked file is not used. Pass sha256=, the 64 "
            f"digits after 'oid sha256:' in {pointer}, or of a copy that you have looked at: sha256sum FILE."
        )
    if re.fullmatch("[0-9a-fA-F]{64}", sha256) is None:
        raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}.")
    return _fetch(replace(dataset, sha256=sha256), folder)


def geoboundaries_dataset(country: str, level: str) -> Dataset:
    """The dataset of one country and level; its sha256 is "" unless it is pinned.

    Raises:
        ValueError: for a country that is no alpha-3 code, or an unknown level.
    """
    if re.fullmatch("[A-Z]{3}", country) is None:
        raise ValueError(f"country must be an ISO 3166-1 alpha-3 code such as USA, got {country!r}.")
    if level not in _GEOBOUNDARIES_LEVELS:
        raise ValueError(f"level must be one of {', '.join(_GEOBOUNDARIES_LEVELS)}, got {level!r}.")
    return DATASETS.get(f"geoboundaries/{country}/{level}") or _geoboundaries(country, level)


def _fetch(dataset: Dataset, folder: str | Path | None) -> Path:
    pooch = _pooch(dataset)
    folder = Path(folder) if folder is not None else Path(pooch.os_cache("geogrpo"))
    path = folder / dataset.file
    try:
        pooch.retrieve(dataset.url, known_hash=dataset.sha256, fname=dataset.file, path=folder)
    # What requests raises is an OSError; a wrong hash is pooch's ValueError, which states expected and got.
    except (OSError, ValueError) as error:
        # pooch removes what it downloaded, but not an older file with a wrong hash.
        path.unlink(missing_ok=True)
        raise ValueError(f"{dataset.url} could not be downloaded to {path}: {error}") from error
    return path


def _pooch(dataset: Dataset) -> ModuleType:
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ValueError(
            f"downloading needs pooch. Install it: pip install 'geogrpo[download]', or download {dataset.url} yourself."
        ) from error
    return pooch
