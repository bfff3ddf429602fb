"""Tiny files in the schemas in which data sets are published, and pictures for them."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

LONDON, LIMA, TOKYO = (51.501821, -0.140655), (-12.05, -77.04), (35.68, 139.69)

IM2GPS3K_HEADER = "IMG_ID,AUTHOR,LAT,LON,S3_Label,S16_Label,S365_Label,Prob_indoor,Prob_natural,Prob_urban"
OSV5M_TEST_HEADER = (
    "id,latitude,longitude,country,captured_at,lon_bin,lat_bin,cell,land_cover,road_index,drive_side,climate,soil,"
    "dist_sea,region,sub-region,city,unique_city,unique_sub-region,unique_region,unique_country,quadtree_10_1000,"
    "creator_username,creator_id"
)
OSV5M_TRAIN_HEADER = (
    f"{OSV5M_TEST_HEADER},thumb_original_url,sequence,quadtree_10_5000,quadtree_10_25000,"
    "quadtree_10_50000,quadtree_10_12500,quadtree_10_500,quadtree_10_2500"
)
MP16_PRO_HEADER = "IMG_ID,LAT,LON,neighbourhood,city,county,state,region,country,continent"


def png(shade: int = 0) -> bytes:
    """A picture of 4 x 4 pixels of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder: Path, *names: str) -> Path:
    """A folder with these pictures, of shades 10, 20, and so on."""
    for i, name in enumerate(names, start=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(10 * i))
    return folder


def zipped(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip of these files."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def csv_file(path: Path, header: str, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """A CSV file with the values of each row under their names, and x under the others."""
    names = header.split(",")
    assert not any(set(row) - set(names) for row in rows)
    lines = [names, *([str(row.get(name, "x")) for name in names] for row in rows)]
    path.write_text("".join(delimiter.join(fields) + "\n" for fields in lines), encoding="utf-8")
    return path


def json_lines(path: Path, *values: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def at(latlon_deg: tuple[float, float], lat: str = "LAT", lon: str = "LON") -> dict[str, float]:
    """Coordinates under these names."""
    return {lat: latlon_deg[0], lon: latlon_deg[1]}
