"""Chain of Region: the answer to "where was this taken", from country down to coordinates.

Source: Geo-R (arXiv 2601.00388), which derives the chain from GPS by rule, with no model-written labels. The wordings
are ours; each is read back by geogrpo.parsing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
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


def supervised_answer(example: Example, decimals: int) -> str:
    """What stage 1 teaches: the example's own column `chain` (geogrpo.label writes one), else its chain in lines.

    Raises:
        ValueError: naming the example, when its chain is no text, or it has neither a chain nor a country.
    """
    chain = example.columns.get("chain")
    if chain is None:
        return chain_of_region(example, decimals)
    if not isinstance(chain, str) or not chain.strip():
        raise ValueError(f"example {example.id!r}: column 'chain' must be a text, got {chain!r}.")
    return chain


def chain_of_region(example: Example, decimals: int, template: str = "lines") -> str:
    """The supervised answer of an example whose regions are known; a level without a name is left out.

    Args:
        decimals: of the degrees, from 0.
        template: a key of CHAIN_TEMPLATES.
    Raises:
        ValueError: when the example has no country or the template is unknown.

    >>> chain_of_region(Example("x", "x.jpg", (43.45, 142.61), "Japan", "Hokkaido", "Biei"), 1)
    'Country: Japan\\nState: Hokkaido\\nCity: Biei\\nCoordinates: (43.5, 142.6)'
    """
    if example.country is None:
        raise ValueError(f"example {example.id!r} has no country: call fill_regions first.")
    if template not in CHAIN_TEMPLATES:
        raise ValueError(f"template must be one of {', '.join(CHAIN_TEMPLATES)}, got {template!r}.")
    levels = (("country", example.country), ("state", example.state), ("city", example.city))
    names = {level: name for level, name in levels if name}
    # Adding 0.0 takes the sign off a zero.
    lat_deg, lon_deg = (f"{round(value, decimals) + 0.0:.{decimals}f}" for value in example.latlon_deg)
    return CHAIN_TEMPLATES[template](names, lat_deg, lon_deg)


# Templates: the names there are by level, country first, and the degrees as text -> text


def _labelled(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> list[str]:
    return [*(f"{level.title()}: {name}" for level, name in names.items()), f"Coordinates: ({lat_deg}, {lon_deg})"]


def _lines(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    return "\n".join(_labelled(names, lat_deg, lon_deg))


def _one_line(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    return " | ".join(_labelled(names, lat_deg, lon_deg))


def _steps(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    return "\n".join(f"{i}. {part}" for i, part in enumerate(_labelled(names, lat_deg, lon_deg), start=1))


def _json(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    # By hand, as json.dumps would print 43.5 for 43.5000. One pair, as the parser takes the end of a name such as
    # "Silly-le-Long" before "latitude" for a label.
    return f'{json.dumps(names, ensure_ascii=False)[:-1]}, "coordinates": [{lat_deg}, {lon_deg}]}}'


def _sentence(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    place = ", ".join(reversed(list(names.values())))
    answer = "; ".join(names.get(level, "") for level in ("country", "state", "city"))
    return f"This photograph was taken in {place}.\nAnswer: {answer}\nCoordinates: ({lat_deg}, {lon_deg})"


def _narrowing(names: Mapping[str, str]) -> str:
    """One sentence a level, each within the one before."""
    what = {"state": "the state or region", "city": "the nearest town or city"}
    sentences, outer = [f"The country is {names['country']}."], names["country"]
    for level in ("state", "city"):
        if level in names:
            sentences.append(f"Within {outer}, {what[level]} is {names[level]}.")
            outer = names[level]
    return " ".join(sentences)


def _narrowing_sentence(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    return f"{_narrowing(names)}\n{_one_line(names, lat_deg, lon_deg)}"


def _think(names: Mapping[str, str], lat_deg: str, lon_deg: str) -> str:
    return f"<think>\n{_narrowing(names)}\n</think>\n<answer>\n{_lines(names, lat_deg, lon_deg)}\n</answer>"


CHAIN_TEMPLATES: dict[str, Callable[[Mapping[str, str], str, str], str]] = {
    "lines": _lines,
    "line": _one_line,
    "steps": _steps,
    "json": _json,
    "sentence": _sentence,
    "narrowing": _narrowing_sentence,
    "think": _think,
}
"""By name. parse_completion reads the same names and degrees from each, for every place of GeoNames."""
