"""What the model is asked, and what its completion says."""

import math
import re

from geogrpo.types import Prediction

PROMPTS: dict[str, str] = {
    "chain_of_region": (
        "Work out where on Earth this picture was taken, using only what it shows. Narrow the place down step by step"
        " and answer in exactly four lines:\n"
        "Country: its name in English\n"
        "State: the state, province or region\n"
        "City: the nearest city or village\n"
        "Coordinates: (latitude, longitude) in decimal degrees, south and west negative"
    ),
    # A model trained from scratch learns the format from its answers; every prompt token costs it time.
    "short": "Where is this?",
}
"""Question text by name; the picture comes before it."""

_NUMBER = r"[+-]?\d{1,3}(?:\.\d{1,15})?"
_PAIR = re.compile(rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)")
_LEVELS = {
    level: re.compile(rf"^{level.capitalize()}: *(\S[^\n]*)$", re.MULTILINE) for level in ("country", "state", "city")
}


def parse_completion(text: str) -> Prediction:
    """What a Chain of Region completion says.

    Coordinates count only when the text holds exactly one pair in parentheses and it lies in range (the format rule
    of Geo-R, arXiv 2601.00388). A region counts only when its line appears exactly once.
    """
    regions = {}
    for level, pattern in _LEVELS.items():
        names = pattern.findall(text)
        regions[level] = names[0].strip() if len(names) == 1 else None
    pairs = _PAIR.findall(text)
    if len(pairs) != 1:
        problem = "no coordinates" if not pairs else f"{len(pairs)} coordinate pairs"
        return Prediction(text, **regions, problem=problem)
    lat_deg, lon_deg = float(pairs[0][0]), float(pairs[0][1])
    if not (math.fabs(lat_deg) <= 90 and math.fabs(lon_deg) <= 180):
        return Prediction(text, **regions, problem=f"out of range: ({lat_deg}, {lon_deg})")
    return Prediction(text, **regions, latlon_deg=(lat_deg, lon_deg))
