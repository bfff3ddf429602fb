"""Records as text for a terminal."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geogrpo.prediction.estimate import SHOWN_LEVELS
from geogrpo.report.tables import clean_text

INDENT, LABEL_WIDTH, WIDTH = 2, 13, 100
NONE = "-"


def record_text(record: Mapping[str, Any]) -> str:
    """Lines that end with a line break. Control characters in a model's words do not reach the terminal."""
    lines = [clean_text(record["image"]).replace("\n", " ")]
    for label, value in _fields(record):
        for number, line in enumerate(_wrapped(value)):
            lines.append(f"{'':{INDENT}}{label if number == 0 else '':{LABEL_WIDTH}}{line}".rstrip())
    return "\n".join(lines) + "\n"


def _fields(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for level in SHOWN_LEVELS:
        if level in record:
            yield level.title(), record[level] or NONE
    if "granularity" in record:
        if record["agreement"]:
            yield "Agreement", agreement_text(record["agreement"], record)
        yield from _limited_truth(record["truth"])
        return
    yield "Coordinates", _coordinates(record)
    if record["num_samples"]:
        yield "Radius", radii_text(record)
        if record["agreement"]:
            yield "Agreement", agreement_text(record["agreement"], record["regions"])
        yield "Samples", "\n".join(map(alternative_text, record["alternatives"])) or "none has coordinates"
    if record["truth"] is not None:
        yield "Own GPS", truth_text(record["truth"])
    elif record["gps_problem"] is not None:
        yield "Own GPS", f"cannot be read: {record['gps_problem']}"
    if record["reasoning"]:
        yield "Reasoning", record["reasoning"].strip()
    if record["problem"] is not None:
        yield "Problem", record["problem"]
        yield "Said", record["text"].strip() or NONE


def _coordinates(record: Mapping[str, Any]) -> str:
    if record["latlon_deg"] is None:
        return NONE
    source = "  (found by the names: the answer has no coordinates)" if record["is_from_names"] else ""
    return point_text(record["latlon_deg"]) + source


def radii_text(record: Mapping[str, Any]) -> str:
    """How far around the point the samples reach."""
    if record["latlon_deg"] is None:
        return NONE
    radii = {share: record[f"radius_{share}_km"] for share in (50, 90)}
    known = [f"{share} % within {km_text(km)}" for share, km in radii.items() if km is not None]
    unknown = " and ".join(f"{share} %" for share, km in radii.items() if km is None)
    too_few = f"; too few of them have coordinates for {unknown}" if unknown else ""
    return f"{', '.join(known) or NONE} ({record['num_samples']} samples{too_few})"


def agreement_text(agreement: Mapping[str, float], regions: Mapping[str, Any]) -> str:
    """The share of the samples in each region of the point, by the region index."""
    shares = [f"{share:.0%} in {regions[level]}" for level, share in agreement.items()]
    return ", ".join(shares).replace("% in", "% of the samples in", 1)


def km_text(km: float) -> str:
    """Kilometres to three digits or whole ones."""
    return f"{km:.1f} km" if km < 100 else f"{km:,.0f} km"


def point_text(latlon_deg: Sequence[float]) -> str:
    """Latitude and longitude with as many decimals as they have, at least one."""
    return ", ".join(f"{degrees:.6f}".rstrip("0").ljust(len(f"{degrees:.0f}") + 2, "0") for degrees in latlon_deg)


def place_text(record: Mapping[str, Any]) -> str:
    """City, state and country, as far as there are any."""
    return ", ".join(record[level] for level in reversed(SHOWN_LEVELS) if record[level]) or "no place"


def alternative_text(alternative: Mapping[str, Any]) -> str:
    """Share, place and point."""
    mark = "  <- the answer" if alternative["holds_answer"] else ""
    return f"{alternative['share']:>4.0%}  {place_text(alternative)} ({point_text(alternative['latlon_deg'])}){mark}"


def truth_text(truth: Mapping[str, Any]) -> str:
    """The photograph's own position, and how far the answer is from it."""
    km = truth["distance_km"]
    distance = "the answer has no point" if km is None else f"{km_text(km)} from the answer"
    return f"{point_text(truth['latlon_deg'])}, {place_text(truth)}: {distance}"


def _limited_truth(truth: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if truth is not None:
        names = ", ".join(truth[level] or NONE for level in reversed(SHOWN_LEVELS) if level in truth)
        yield "Own GPS", f"{names}: {'right' if truth['is_right'] else 'wrong'}"


def _wrapped(value: str) -> list[str]:
    width = WIDTH - INDENT - LABEL_WIDTH
    return [part for line in clean_text(value).splitlines() for part in textwrap.wrap(line, width) or [""]]
