"""Chain of Region: the answer to "where was this taken", from country down to coordinates.

Source: Geo-R (arXiv 2601.00388), which derives the chain from GPS by rule, with no model-written labels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geogrpo.regions.index import RegionIndex
from geogrpo.types import Example


def fill_regions(examples: Sequence[Example], index: RegionIndex) -> list[Example]:
    """The examples with missing levels (None or "") filled from the index; a given level is never changed.

    An example whose country is not the index's by name (case aside) stays as it is: state and city of another country
    would not fit.
    """
    missing = [i for i, example in enumerate(examples) if not (example.country and example.state and example.city)]
    filled = list(examples)
    if missing:
        names = index.names(index.lookup(np.array([examples[i].latlon_deg for i in missing])).ids)
        for i, (country, state, _, city) in zip(missing, names, strict=True):
            given = examples[i]
            if not given.country or given.country.casefold() == (country or "").casefold():
                filled[i] = replace(
                    given, country=given.country or country, state=given.state or state, city=given.city or city
                )
    return filled


def chain_of_region(example: Example, decimals: int) -> str:
    """The supervised answer of an example whose regions are known; a level without a name is left out.

    >>> chain_of_region(Example("x", "x.jpg", (43.45, 142.61), "Japan", "Hokkaido", "Biei"), 1)
    'Country: Japan\\nState: Hokkaido\\nCity: Biei\\nCoordinates: (43.5, 142.6)'
    """
    if example.country is None:
        raise ValueError(f"example {example.id!r} has no country: call fill_regions first.")
    levels = (("Country", example.country), ("State", example.state), ("City", example.city))
    lines = [f"{level}: {name}" for level, name in levels if name]
    lat_deg, lon_deg = (round(value, decimals) + 0.0 for value in example.latlon_deg)
    return "\n".join([*lines, f"Coordinates: ({lat_deg:.{decimals}f}, {lon_deg:.{decimals}f})"])
