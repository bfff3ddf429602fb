"""One safetensors file per region index: tables, and what they were made from in the metadata."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from geogrpo.regions.native import METRICS

FORMAT = "geogrpo region index 2"


@dataclass(frozen=True)
class IndexInfo:
    """What an index was built from, and how."""

    metric: str
    """How the nearest place is found: sphere or degrees."""
    coast_tolerance_km: float
    num_polygon_regions: int
    sources: list[str] = field(default_factory=list)
    attributions: list[str] = field(default_factory=list)
    """Lines that the sources' licences ask to be shown."""
    repairs: list[str] = field(default_factory=list)
    """What was mended or is doubtful in the sources."""

    def with_polygons(self, num_regions: int, crossings: list[str]) -> "IndexInfo":
        """After the polygons were built."""
        return replace(self.with_repairs(crossings), num_polygon_regions=num_regions)

    def with_repairs(self, repairs: list[str]) -> "IndexInfo":
        """With more that was mended or is doubtful."""
        return replace(self, repairs=[*self.repairs, *repairs])


def content_hash(tables: dict[str, Tensor]) -> str:
    """SHA-256 over every table's name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tables):
        table = tables[name].contiguous()
        digest.update(f"{name} {table.dtype} {tuple(table.shape)}\n".encode())
        digest.update(table.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tables(path: Path, tables: dict[str, Tensor], info: IndexInfo) -> None:
    """Write to a temporary file beside `path` first, so that a crash leaves no half of an index."""
    metadata = {"format": FORMAT, "info": json.dumps(asdict(info)), "sha256": content_hash(tables)}
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        save_file(tables, temporary, metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tables(
    path: Path, expected: dict[str, tuple[torch.dtype, tuple[int, ...]]]
) -> tuple[dict[str, Tensor], IndexInfo, str]:
    """Tables (memory-mapped), what they were made from, and the SHA-256 they should have.

    Raises:
        ValueError: naming the file, when it is missing, no safetensors file, or lacks a table of the expected kind.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no region index of this version ({FORMAT!r}). Build it again.")
            missing = sorted(set(expected) - set(file.keys()))
            if missing:
                raise ValueError(f"{path} lacks the table {missing[0]!r}.")
            tables = {name: file.get_tensor(name) for name in expected}
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    for name, (dtype, shape) in expected.items():
        if tables[name].dtype != dtype or tables[name].shape[1:] != shape[1:] or tables[name].ndim != len(shape):
            got = f"{tables[name].dtype} {tuple(tables[name].shape)}"
            raise ValueError(f"{path}: the table {name!r} must be {dtype} (N, {shape[1:]}), got {got}.")
    return tables, _read_info(path, metadata), metadata.get("sha256", "")


def _read_info(path: Path, metadata: dict[str, str]) -> IndexInfo:
    try:
        values = json.loads(metadata["info"])
        info = IndexInfo(**{f.name: values[f.name] for f in fields(IndexInfo)})
        is_sound = (
            info.metric in METRICS
            and isinstance(info.num_polygon_regions, int)
            and info.num_polygon_regions >= 0
            and 0 <= float(info.coast_tolerance_km) <= 500
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the metadata of the region index cannot be read: {error!r}.") from error
    if not is_sound:
        raise ValueError(f"{path}: the metadata of the region index holds impossible values.")
    return info
