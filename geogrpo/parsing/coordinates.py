"""Coordinates in an answer: one pair, in whatever notation, and never a longitude for a latitude."""

import re

from geogrpo.parsing.labels import LAT, LAT_THEN_LON, LON, LON_THEN_LAT, any_case

_SIGN = r"[+\-−–]"
_DEGREES = r"(?:[°º˚]|deg(?:rees?)?\b\.?)"
_MINUTES = r"[0-9]{1,2}+(?:\.[0-9]{1,10}+)?+"
_ARC = rf"(?:\s?{_DEGREES}(?:\s?{_MINUTES}\s?(?:['′’]|min\b)(?:\s?{_MINUTES}\s?(?:[\"″”]|''|sec\b))?+)?+)?+"
_NORTH_SOUTH = r"(?:N(?:orth)?|S(?:outh)?|north|south)"
_EAST_WEST = r"(?:E(?:ast)?|W(?:est)?|east|west)"
_LETTER = rf"(?:{_NORTH_SOUTH}|{_EAST_WEST}|[nsew])"
# 48,85 is one number only where a degree sign or a letter follows; else it is two.
_NUMBER = rf"[0-9]{{1,3}}+(?:,[0-9]{{1,20}}+(?=\s?(?:{_DEGREES}|{_LETTER}(?!\w)))|\.[0-9]{{1,20}}+)?+"
_COMMA_NUMBER = rf"{_SIGN}?[0-9]{{1,3}}+,[0-9]{{1,20}}+"
_NO_LETTER = r"(?![^\W\d_])"
_END = r"(?!\w|[.,][0-9])"


def _value(number: str) -> str:
    return rf"(?:{_LETTER}{_NO_LETTER}\s?)?+{_SIGN}?{number}{_ARC}(?:\s?{_LETTER}(?!\w))?+"


def _lettered(letter: str) -> str:
    return rf"(?:{letter}{_NO_LETTER}\s?{_SIGN}?{_NUMBER}{_ARC}|{_SIGN}?{_NUMBER}{_ARC}\s?{letter}(?!\w))"


_PAIR = rf"(?:({_value(_NUMBER)})\s*+,\s*+({_value(_NUMBER)})|({_COMMA_NUMBER})\s*+;\s*+({_COMMA_NUMBER}))"
_IN_BRACKETS = re.compile(rf"(?:\(\s*+{_PAIR}\s*+\)|\[\s*+{_PAIR}\s*+\])")
# Of a label's value. A third number, or a bracket that was never opened, makes it no pair.
_AFTER_LABEL = re.compile(rf"[`*~≈ ]{{0,5}}+{_PAIR}{_END}(?![ \t]*+(?:[)\]]|[,;][ \t]*+{_SIGN}?[0-9]))")
_WHOLE = re.compile(rf"[\s`*]*+{_PAIR}[\s`*.]*+")
_NORTHING, _EASTING = _lettered(_NORTH_SOUTH), _lettered(_EAST_WEST)
_BETWEEN = r"\s*+(?:[,;/|]|and\b)?+\s*+"
_WITH_LETTERS = re.compile(
    rf"(?<![\w.+\-−–])(?<![0-9],)(?:({_NORTHING}){_BETWEEN}({_EASTING})|({_EASTING}){_BETWEEN}({_NORTHING})){_END}"
)
# Cheap: must be found for _WITH_LETTERS to match
_LETTER_BY_NUMBER = re.compile(rf"[0-9°º˚'′’\"″”s.]\s?{_LETTER}(?!\w)|[NSEW][a-z]{{0,4}}\s?{_SIGN}?[0-9]")
_UNIT = r"(?: ?\((?:in )?(?:decimal )?(?:degrees?|deg|°)\))?"
_LABELLED = re.compile(
    rf"(?<![^\W_])(?:{any_case(LAT_THEN_LON)}|{any_case(LON_THEN_LAT)}"
    rf"|({any_case(LAT)}|{any_case(LON)}){any_case(_UNIT)}[\"'*_`]{{0,4}}+\s?(?:[:：=≈~]|is\b|of\b)?[\s*_`~≈]{{0,4}}+"
    rf"({_value(r'[0-9]{1,3}+(?:[.,][0-9]{1,20}+)?+')}){_END})"
)
_ORDER = re.compile(rf"(?<![^\W_])(?:({any_case(LAT_THEN_LON)})|({any_case(LON_THEN_LAT)})){_NO_LETTER}")
_ANGLE = re.compile(
    rf"(?:([NSEW])[A-Z]*\s?)?({_SIGN})?([0-9.,]+)"
    rf"(?:\s?{_DEGREES}(?:\s?({_MINUTES})\s?(?:['′’]|min)(?:\s?({_MINUTES})\s?(?:[\"″”]|''|sec))?)?)?"
    r"(?:\s?([NSEW])[A-Z]*)?",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"[0-9]")

Angle = tuple[float, str]
"""Signed degrees, and "lat", "lon" or "" by its letter."""
Result = tuple[tuple[float, float] | None, str | None]
"""((lat, lon), None), or (None, problem)."""


def read_coordinates(
    text: str, fields: list[tuple[str | None, str]]
) -> tuple[tuple[float, float] | None, int, str | None]:
    """((lat, lon) in range, number of pairs, problem) of an answer and its labelled fields."""
    if not _DIGIT.search(text):
        return None, 0, "no coordinates"
    lower = text.lower()
    has_both_words = "lat" in lower and ("lon" in lower or "lng" in lower)
    num_pairs, pair = _unlabelled_pairs(text, fields)
    lats, lons = _labelled_values(text) if has_both_words else ([], [])
    if lats and lons:
        num_pairs += max(len(lats), len(lons))
    if not num_pairs and (whole := _WHOLE.fullmatch(text)):
        num_pairs, pair = 1, _written(whole)
    if num_pairs != 1:
        return None, num_pairs, f"{num_pairs} coordinate pairs" if num_pairs else "no coordinates"
    if pair:
        first, second = map(_angle, pair)
        latlon_deg, problem = _in_order(first, second, _orders(text) if has_both_words else set())
    else:
        latlon_deg, problem = _labelled(_angle(lats[0]), _angle(lons[0]))
    if latlon_deg and not (abs(latlon_deg[0]) <= 90 and abs(latlon_deg[1]) <= 180):
        return None, 1, f"out of range: {latlon_deg}"
    return latlon_deg, 1, problem


def _unlabelled_pairs(text: str, fields: list[tuple[str | None, str]]) -> tuple[int, list[str] | None]:
    """How many pairs of values there are, and one of them: in brackets, with letters, or as the value of a label."""
    num_pairs = 0
    pair: list[str] | None = None
    for match in _IN_BRACKETS.finditer(text):
        num_pairs += 1
        pair = pair or _written(match)
    has_letters = _LETTER_BY_NUMBER.search(text) is not None
    for kind, value in fields:
        labelled = _AFTER_LABEL.match(value) if kind in ("pair", "final") else None
        # One with letters is found in the text, below.
        if labelled and not (has_letters and _WITH_LETTERS.match(value.lstrip("`*~≈ "))):
            num_pairs += 1
            pair = pair or _written(labelled)
    if has_letters:
        for match in _WITH_LETTERS.finditer(_IN_BRACKETS.sub("#", text)):
            num_pairs += 1
            pair = pair or _written(match)
    return num_pairs, pair


def _written(match: re.Match[str]) -> list[str]:
    return [value for value in match.groups() if value]


def _labelled_values(text: str) -> tuple[list[str], list[str]]:
    """The values labelled as latitude, and those labelled as longitude."""
    lats: list[str] = []
    lons: list[str] = []
    for label, value in _LABELLED.findall(text):
        if value:
            (lats if label[1] in "aA" else lons).append(value)
    return lats, lons


def _orders(text: str) -> set[bool]:
    """True where the text speaks of "lat, lon", False where of "lon, lat"."""
    return {bool(is_lat_first) for is_lat_first, _ in _ORDER.findall(text)}


def _angle(written: str) -> Angle | None:
    """A value in degrees; None where it contradicts itself."""
    try:
        return float(written), ""
    except ValueError:
        match = _ANGLE.fullmatch(written)
    if not match:
        return None
    before, sign, degrees, minutes, seconds, after = match.groups()
    value = float(degrees.replace(",", "."))
    if minutes:
        if not degrees.isdigit() or float(minutes) >= 60 or float(seconds or 0) >= 60 or (seconds and "." in minutes):
            return None
        value += float(minutes) / 60 + float(seconds or 0) / 3600
    letter = (before or after or "").upper()
    is_negative = sign is not None and sign != "+"
    # -33.9 S is south: nobody writes that for 33.9 north. -33.9 N and +33.9 S could be either.
    if (before and after) or (is_negative and letter in ("N", "E")) or (sign == "+" and letter in ("S", "W")):
        return None
    axis = "" if not letter else "lat" if letter in "NS" else "lon"
    return -value if is_negative or letter in ("S", "W") else value, axis


def _labelled(lat: Angle | None, lon: Angle | None) -> Result:
    if not lat or not lon or lat[1] == "lon" or lon[1] == "lat":
        return None, "contradictory coordinates"
    return (lat[0], lon[0]), None


def _in_order(first: Angle | None, second: Angle | None, orders: set[bool]) -> Result:
    """The pair as (lat, lon): by its letters, else by the order that the text names, else as it stands."""
    if not first or not second:
        return None, "contradictory coordinates"
    if first[1] or second[1]:
        is_lat_first = first[1] == "lat" or second[1] == "lon"
    elif len(orders) > 1:
        return None, "unclear order of coordinates"
    else:
        is_lat_first = False not in orders
    return _labelled(first, second) if is_lat_first else _labelled(second, first)
