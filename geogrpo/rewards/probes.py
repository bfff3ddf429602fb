"""Answers that are honest and answers that try to win without looking, to see which a reward pays more for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from geogrpo.regions.names import locate
from geogrpo.rewards.lab import EVERYTHING, Lab, chain, completion, displaced
from geogrpo.types import Example

CITY_ERROR_KM = 10.0
LONDON = Example("london", "", (51.5074, -0.1278), country="United Kingdom", state="England", city="London")


@dataclass(frozen=True)
class Probe:
    """A way to answer."""

    about: str
    is_honest: bool
    """Whether it looks at the picture; the others must never earn more than the least of these."""
    answer: Callable[[Sequence[Example]], list[str]]
    """Truths -> one completion each."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe earns, on average over the truths."""

    reward: float
    components: dict[str, float]
    """Each reward before weighting; where it does not apply it counts as 0."""


def _exact(truths: Sequence[Example]) -> list[str]:
    return [completion(chain(truth), seen=truth.columns["entities"]) for truth in truths]


def _right_city(truths: Sequence[Example]) -> list[str]:
    near = displaced(truths, np.full(len(truths), CITY_ERROR_KM), np.random.default_rng(0))
    answers = [replace(truth, latlon_deg=place.latlon_deg) for truth, place in zip(truths, near, strict=True)]
    return [completion(chain(place), seen=place.columns["entities"][:-1]) for place in answers]


def _right_country(truths: Sequence[Example]) -> list[str]:
    """The country, and the point in it from where the mean distance to its people is least."""
    places = [
        replace(truth, latlon_deg=locate(truth.country) or truth.latlon_deg, state=None, city=None) for truth in truths
    ]
    return [completion(chain(place), seen=place.columns["entities"][:2]) for place in places]


def _london(truths: Sequence[Example]) -> list[str]:
    return [completion(chain(LONDON))] * len(truths)


def _null_island(truths: Sequence[Example]) -> list[str]:
    return [completion("Coordinates: (0.0, 0.0)")] * len(truths)


def _swapped(truths: Sequence[Example]) -> list[str]:
    return [completion("Coordinates: ({1}, {0})".format(*truth.latlon_deg)) for truth in truths]


def _stuffing(truths: Sequence[Example]) -> list[str]:
    return [completion(chain(LONDON), seen=EVERYTHING)] * len(truths)


def _hedging(truths: Sequence[Example]) -> list[str]:
    return [completion(f"{chain(truth)}\nor\n{chain(LONDON)}") for truth in truths]


def _form_only(truths: Sequence[Example]) -> list[str]:
    answer = "Country: unknown\nState: unknown\nCity: unknown\nCoordinates: unknown"
    return [completion(answer)] * len(truths)


def _empty(truths: Sequence[Example]) -> list[str]:
    return [""] * len(truths)


PROBES: dict[str, Probe] = {
    "exact": Probe("all names, the true point, everything in the picture", True, _exact),
    "right city": Probe(f"all names, {CITY_ERROR_KM:.0f} km off, most of the picture", True, _right_city),
    "right country": Probe("the country, its people's central point, half of the picture", True, _right_country),
    "London always": Probe("London for every picture", False, _london),
    "(0, 0)": Probe("(0, 0) for every picture", False, _null_island),
    "swapped": Probe("the true coordinates as (longitude, latitude)", False, _swapped),
    "stuffing": Probe("London, and reasoning that names every thing there is", False, _stuffing),
    "hedging": Probe("the truth, or London", False, _hedging),
    "form only": Probe("the right form, with nothing in it", False, _form_only),
    "empty": Probe("nothing", False, _empty),
}


def run_probes(lab: Lab, truths: Sequence[Example]) -> dict[str, ProbeResult]:
    """What each probe earns under a preset."""
    results = {}
    for name, probe in PROBES.items():
        scores = lab.score(probe.answer(truths), truths)
        components = {key: float(values.nan_to_num(0.0).mean()) for key, values in scores.components.items()}
        results[name] = ProbeResult(float(scores.total.mean()), components)
    return results


def winning_attacks(results: dict[str, ProbeResult]) -> list[str]:
    """Dishonest probes that earn more than the least of the honest ones."""
    floor = min(results[name].reward for name, probe in PROBES.items() if probe.is_honest)
    return [name for name, probe in PROBES.items() if not probe.is_honest and results[name].reward > floor]
