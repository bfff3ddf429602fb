"""What is worth a look while GRPO trains, said once when it begins and once when it has passed.

Each rule looks at the last `logging.alert_window` steps, and says nothing before there are so many. A resumed run looks
back only to where it resumed.

* parse_rate: fewer answers than `alert_parse_rate` can be read.
* country: more than `alert_country_share` of the answers lie in one country, and at least twice its share of the true
  places.
* entropy: a token's mean entropy is below `alert_entropy`. A step whose groups are each one text repeated, of which no
  entropy is measured because nothing is trained, counts as 0.
* reward: from the first to the second half of the window the mean reward rises by more than MIN_RISE standard errors
  (of the difference of two means of steps) while the median distance falls by no more than one.

It has passed when the number is back beyond its bound by RECOVERY of it, so that one at the bound does not come and go;
for `reward`, when the distance falls or the rise is within one standard error.

Shapes: N completions.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from geogrpo.config import LoggingConfig
from geogrpo.regions.index import RegionIndex

RECOVERY = 0.1
"""Share of a bound by which a number must be better than it for an alert to end."""
NOWHERE = -1
"""A region index's id of no country."""
MIN_RISE = 4.0
"""Standard errors. 1,000 steps of noise alone, with a window of 20, give 0.2 false alarms; 1.6 with 3."""


@dataclass(frozen=True)
class Alert:
    """One rule began or ceased to hold."""

    rule: str
    """parse_rate, country, entropy or reward."""
    step: int
    """Steps done."""
    is_over: bool
    message: str
    """What happened, in one line with its numbers and, at the beginning, what to look at."""
    numbers: dict[str, float]
    """The same for other programs."""

    def line(self) -> str:
        """The message with its step, for the console."""
        return f"{'alert over' if self.is_over else 'alert'}, step {self.step}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """A line of alerts.jsonl."""
        return vars(self)


class AlertWatch:
    """Looks at every step of GRPO.

    Args:
        config: window and bounds; a window of 0 never says anything.
        index: says which country a point is in.
    """

    def __init__(self, config: LoggingConfig, index: RegionIndex) -> None:
        self._config, self._index = config, index
        self._metrics: dict[str, deque[float]] = {}
        self._answers: deque[Counter[int]] = deque(maxlen=config.alert_window)
        self._truths: deque[Counter[int]] = deque(maxlen=config.alert_window)
        self._country = NOWHERE
        """The one that has taken over, or is nearest to it."""
        self._active: set[str] = set()

    def step(self, step: int, metrics: Mapping[str, float], completions: Sequence[Mapping[str, Any]]) -> list[Alert]:
        """What begins or ends with this step.

        Args:
            step: steps done, this one included.
            metrics, completions: of a trainer.StepRecord.
        """
        if not self._config.alert_window:
            return []
        self._remember("parse_rate", metrics.get("parse_rate", math.nan))
        self._remember("entropy", _entropy(metrics, completions))
        self._remember("reward", metrics.get("reward", math.nan))
        self._remember("distance_km/median", metrics.get("distance_km/median", math.nan))
        self._answers.append(self._countries(completions, "predicted_latlon_deg"))
        self._truths.append(self._countries(completions, "true_latlon_deg"))
        rules = (self._low_parse_rate, self._one_country, self._low_entropy, self._reward_without_distance)
        return [alert for rule in rules for alert in rule(step)]

    def _remember(self, name: str, value: float) -> None:
        """Steps without the number, as those without an image, are left out."""
        if math.isfinite(value):
            self._metrics.setdefault(name, deque(maxlen=self._config.alert_window)).append(value)

    def _window(self, name: str) -> np.ndarray | None:
        """(alert_window,) float64; None before there are so many."""
        values = self._metrics.get(name, ())
        return np.array(values) if len(values) == self._config.alert_window else None

    def _countries(self, completions: Sequence[Mapping[str, Any]], key: str) -> Counter[int]:
        """How many of the points lie in each country; NOWHERE for those in none."""
        points = [record[key] for record in completions if record[key] is not None]
        return Counter(self._index.lookup(np.array(points, dtype=np.float64).reshape(-1, 2)).country.tolist())

    def _change(self, rule: str, step: int, is_bad: bool, is_good: bool, **said: Any) -> list[Alert]:
        """The alert when a rule begins or ceases to hold; between bad and good nothing changes."""
        is_active = rule in self._active
        if not (is_good if is_active else is_bad):
            return []
        self._active ^= {rule}
        message = said["end"] if is_active else said["begin"]
        return [Alert(rule, step, is_active, message, said["numbers"])]

    def _low_parse_rate(self, step: int) -> list[Alert]:
        values, bound = self._window("parse_rate"), self._config.alert_parse_rate
        if values is None:
            return []
        rate = float(values.mean())
        readable = f"{rate:.0%} of the answers of the last {len(values)} steps can be read"
        return self._change(
            "parse_rate",
            step,
            rate < bound,
            rate >= min(1.0, bound * (1 + RECOVERY)),
            begin=f"{readable} (logging.alert_parse_rate {bound:.0%}). Look at their texts in completions.jsonl and at"
            " completions/clipped_ratio: in another form than the prompt asks for, or cut off?",
            end=f"{readable}.",
            numbers={"parse_rate": rate},
        )

    def _one_country(self, step: int) -> list[Alert]:
        answers, truths = sum(self._answers, Counter()), sum(self._truths, Counter())
        if len(self._answers) < self._config.alert_window or not answers:
            return []

        def shares(country: int) -> tuple[float, float, float]:
            """Of the answers, of the true places, and the highest that is no alert."""
            share, true_share = answers[country] / answers.total(), truths[country] / truths.total()
            return share, true_share, max(self._config.alert_country_share, 2 * true_share)

        if "country" not in self._active:
            # The one furthest above its bound
            countries = answers.keys() - {NOWHERE}
            self._country = max(countries, key=lambda c: shares(c)[0] - shares(c)[2], default=NOWHERE)
        share, true_share, bound = shares(self._country)
        name = self._index.names(np.array([self._country]))[0]
        lies = (
            f"{share:.0%} of the answers of the last {len(self._answers)} steps lie in {name}, where {true_share:.0%}"
        )
        return self._change(
            "country",
            step,
            share > bound and self._country != NOWHERE,
            share <= bound * (1 - RECOVERY),
            begin=f"{lies} of the true places are (logging.alert_country_share"
            f" {self._config.alert_country_share:.0%}). Look at the answers in completions.jsonl and at"
            " frac_reward_zero_std; data.draw: by_country shows rare countries more often.",
            end=f"{lies} of the true places are.",
            numbers={"share": share, "true_share": true_share},
        )

    def _low_entropy(self, step: int) -> list[Alert]:
        values, bound = self._window("entropy"), self._config.alert_entropy
        if values is None:
            return []
        entropy = float(values.mean())
        has = f"the mean entropy of a token over the last {len(values)} steps is {entropy:.4f} nats"
        return self._change(
            "entropy",
            step,
            entropy < bound,
            entropy >= bound * (1 + RECOVERY),
            begin=f"{has} (logging.alert_entropy {bound:g}): the completions of a group hardly differ and teach little."
            " Look at frac_reward_zero_std; grpo.loss.entropy_coef, a higher clip_high or a lower learning rate keep"
            " it up.",
            end=f"{has}.",
            numbers={"entropy": entropy},
        )

    def _reward_without_distance(self, step: int) -> list[Alert]:
        rewards, distances = self._window("reward"), self._window("distance_km/median")
        if rewards is None or distances is None:
            return []
        rise, rise_error = _difference_of_halves(rewards)
        change_km, change_error_km = _difference_of_halves(distances)
        half = len(rewards) // 2
        before, after = rewards[:half].mean(), rewards[half:].mean()
        before_km, after_km = distances[:half].mean(), distances[half:].mean()
        went = f"within the last {len(rewards)} steps the reward went from {before:.3f} to {after:.3f}"
        went_km = f"the median distance from {before_km:,.0f} to {after_km:,.0f} km"
        is_falling = change_km < -change_error_km
        return self._change(
            "reward",
            step,
            rise > MIN_RISE * rise_error and not is_falling,
            is_falling or rise <= rise_error,
            begin=f"{went}, {went_km}: the reward rises and answers come no nearer. Look at rewards/*: which one rises"
            " without the distance, and is that what it should reward?",
            end=f"{went}, {went_km}.",
            numbers={
                "reward_before": float(before),
                "reward_after": float(after),
                "distance_km_before": float(before_km),
                "distance_km_after": float(after_km),
            },
        )


def _entropy(metrics: Mapping[str, float], completions: Sequence[Mapping[str, Any]]) -> float:
    measured = metrics.get("entropy", math.nan)
    if math.isfinite(measured) or not completions:
        return measured
    groups = [{record["text"] for record in group} for _, group in groupby(completions, lambda record: record["id"])]
    return 0.0 if all(len(texts) == 1 for texts in groups) else math.nan


def _difference_of_halves(values: np.ndarray) -> tuple[float, float]:
    """Mean of the second half less that of the first, and its standard error (Welch)."""
    first, second = values[: len(values) // 2], values[len(values) // 2 :]
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    return float(second.mean() - first.mean()), error
