"""The reward lab: what a preset pays for distance, for ignoring the picture, and within a group.

Completions are written, not sampled: full answers with reasoning that any preset can read, scored as in training.

Shapes: N truths, D distances, G group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from geogrpo_kernels import EARTH_RADIUS_KM

from geogrpo.config import RewardConfig
from geogrpo.regions.chain import fill_regions
from geogrpo.regions.index import default_index
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.regions.tabular import read_points
from geogrpo.rewards import JUDGED_REWARDS, find_rewards, resolve_preset
from geogrpo.rewards.scoring import Scores, score_completions
from geogrpo.rewards.visual_vocabulary import GENERIC, VOCABULARY
from geogrpo.types import Example

NUM_ENTITIES = 4
"""Things that the picture of a truth shows."""
EVERYTHING = sorted(VOCABULARY | GENERIC)
NUM_CANDIDATES = 250
"""Constant guesses tried: the most populous places, and as many of the truths."""
GROUP_SIZE = 8
GROUP_ERRORS_KM = {"wide groups (1-10000 km)": (1.0, 10_000.0), "close groups (1-25 km)": (1.0, 25.0)}
"""Answers of a group lie between so far from the truth, evenly on a logarithmic scale."""
# Says nothing of what is seen, so that only the entities named beside it count; long enough for thinking_length.
_REASONING = (
    "I went through every hint, weighed how common each of them is elsewhere, left out what would be true nearly"
    " anywhere, compared what remained with the places that came to mind, and kept the one that fits best."
)


@dataclass(frozen=True)
class Lab:
    """A preset without the rewards that need a judge."""

    name: str
    config: RewardConfig
    left_out: tuple[str, ...]
    """Rewards that need a judge; what the others pay is shown without them."""

    def score(self, completions: Sequence[str], truths: Sequence[Example], *, group_size: int = 1) -> Scores:
        """Each completion against its truth, prompt-major."""
        blank = [""] * len(completions)
        return score_completions(
            blank,
            list(completions),
            list(truths),
            [[] for _ in blank],
            find_rewards(self.config),
            self.config,
            group_size=group_size,
        )

    def mean_reward(self, completions: Sequence[str], truths: Sequence[Example]) -> float:
        """Mean total."""
        return float(self.score(completions, truths).total.mean())


@dataclass(frozen=True)
class ConstantGuess:
    """The answer that earns most when it is given to every picture."""

    place: str
    latlon_deg: tuple[float, float]
    reward: float
    """Mean over the truths."""


def open_lab(preset: str) -> Lab:
    """The lab of one preset.

    Raises:
        ValueError: when the preset is unknown, or all of its rewards need a judge.
    """
    resolved = resolve_preset(RewardConfig(preset=preset))
    left_out = tuple(name for name in (*resolved.weights, *resolved.gates) if name in JUDGED_REWARDS)
    weights = {name: weight for name, weight in resolved.weights.items() if name not in left_out}
    if not weights:
        raise ValueError(f"preset {preset!r} has only rewards that need a judge: {', '.join(left_out)}.")
    gates = [name for name in resolved.gates if name not in left_out]
    return Lab(preset, RewardConfig(weights=weights, gates=gates), left_out)


def draw_truths(num_truths: int, *, points: Path | None = None, seed: int = 0) -> list[Example]:
    """Places to be found, each with its names and things that its picture shows.

    Args:
        num_truths: how many; of `points` at most as many as it has.
        points: a table with latitude and longitude columns. None draws GeoNames places, each as likely as it is
            populous.
        seed: of the draw.
    Raises:
        ValueError: naming file and row, when `points` cannot be read or holds no point.
    """
    rng = np.random.default_rng(seed)
    if points is None:
        places = load_geonames()
        share = places.population / places.population.sum()
        latlon_deg = places.latlon_deg[rng.choice(len(places), num_truths, p=share)]
    else:
        latlon_deg = read_points(points)
        latlon_deg = latlon_deg[rng.permutation(len(latlon_deg))[:num_truths]]
    return _examples(latlon_deg, rng)


def _examples(latlon_deg: np.ndarray, rng: np.random.Generator) -> list[Example]:
    words = np.array(sorted(VOCABULARY))
    shown = [rng.choice(words, NUM_ENTITIES, replace=False).tolist() for _ in latlon_deg]
    rows = zip(latlon_deg.tolist(), shown, strict=True)
    examples = [Example(str(i), "", tuple(point), columns={"entities": seen}) for i, (point, seen) in enumerate(rows)]
    return fill_regions(examples, default_index())


def completion(answer: str, *, seen: Sequence[str] = ()) -> str:
    """Reasoning that names what was seen, and an answer, in the tags that some presets ask for."""
    named = f" The picture shows {', '.join(seen)}." if seen else ""
    return f"<think>{_REASONING}{named}</think>\n<answer>{answer}</answer>"


def chain(place: Example) -> str:
    """Country, state, city and coordinates of a place, in lines."""
    levels = (("Country", place.country), ("State", place.state), ("City", place.city))
    lat_deg, lon_deg = place.latlon_deg
    return "\n".join([*(f"{level}: {name}" for level, name in levels if name), f"Coordinates: ({lat_deg}, {lon_deg})"])


def reward_by_distance(lab: Lab, truths: Sequence[Example], distance_km: Sequence[float], *, seed: int = 0) -> list:
    """(D,) mean reward of answers so far from their truth, in random directions, that name where they are and all
    that the picture shows.
    """
    rng = np.random.default_rng(seed)
    means = []
    for distance in distance_km:
        answers = displaced(truths, np.full(len(truths), distance), rng)
        means.append(lab.mean_reward(_honest(answers, truths), truths))
    return means


def displaced(truths: Sequence[Example], distance_km: np.ndarray, rng: np.random.Generator) -> list[Example]:
    """Places at (N,) km from the truths, in random directions, with the names of where they lie."""
    lat, lon = np.radians(np.array([truth.latlon_deg for truth in truths])).T
    bearing, angle = rng.uniform(0, 2 * np.pi, len(truths)), distance_km / EARTH_RADIUS_KM
    sin_lat = np.sin(lat) * np.cos(angle) + np.cos(lat) * np.sin(angle) * np.cos(bearing)
    east = np.sin(bearing) * np.sin(angle) * np.cos(lat)
    lon_there = lon + np.arctan2(east, np.cos(angle) - np.sin(lat) * sin_lat)
    lat_deg = np.degrees(np.arcsin(np.clip(sin_lat, -1, 1)))
    lon_deg = (np.degrees(lon_there) + 180) % 360 - 180
    points = np.stack([lat_deg, lon_deg], axis=-1).tolist()
    bare = [Example(truth.id, "", tuple(point)) for truth, point in zip(truths, points, strict=True)]
    return fill_regions(bare, default_index())


def best_constant(lab: Lab, truths: Sequence[Example], *, seed: int = 1) -> ConstantGuess:
    """The constant guess that earns most over the truths, of NUM_CANDIDATES tried; also with everything named that a
    picture might show, where that pays.
    """
    places = load_geonames()
    populous = np.argsort(-places.population, kind="stable")[: NUM_CANDIDATES // 2]
    candidates = [*_examples(places.latlon_deg[populous], np.random.default_rng(seed)), *truths[: NUM_CANDIDATES // 2]]
    guesses = [_constant(lab, truths, place) for place in candidates]
    best = max(range(len(candidates)), key=lambda i: guesses[i].reward)
    stuffed = _constant(lab, truths, candidates[best], seen=EVERYTHING)
    return max(guesses[best], stuffed, key=lambda guess: guess.reward)


def _constant(lab: Lab, truths: Sequence[Example], place: Example, seen: Sequence[str] = ()) -> ConstantGuess:
    reward = lab.mean_reward([completion(chain(place), seen=seen)] * len(truths), truths)
    named = ", everything named" if seen else ""
    return ConstantGuess(f"{place.city}, {place.country}{named}", place.latlon_deg, reward)


def spread_in_groups(lab: Lab, truths: Sequence[Example], *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Kind of group -> reward -> its mean standard deviation within a group, the total first.

    A reward that does not vary within groups gives no advantage, whatever its weight.
    """
    rng = np.random.default_rng(seed)
    repeated = [truth for truth in truths for _ in range(GROUP_SIZE)]
    spread = {}
    for kind, (nearest, farthest) in GROUP_ERRORS_KM.items():
        distance_km = np.exp(rng.uniform(np.log(nearest), np.log(farthest), len(repeated)))
        answers = displaced(repeated, distance_km, rng)
        # As many of the things in the picture as chance has it
        seen = [truth.columns["entities"][: rng.integers(0, NUM_ENTITIES + 1)] for truth in repeated]
        texts = [completion(chain(place), seen=words) for place, words in zip(answers, seen, strict=True)]
        scores = lab.score(texts, repeated, group_size=GROUP_SIZE)
        values = {"total": scores.total, **scores.components}
        spread[kind] = {name: float(value.nan_to_num(0.0).std(-1).mean()) for name, value in values.items()}
    return spread


def _honest(answers: Sequence[Example], truths: Sequence[Example]) -> list[str]:
    pairs = zip(answers, truths, strict=True)
    return [completion(chain(place), seen=truth.columns["entities"]) for place, truth in pairs]
