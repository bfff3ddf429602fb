"""Each alert says what it should, once, and no other does."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from geogrpo.config import LoggingConfig
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.report.alerts import Alert, AlertWatch

WINDOW, GROUP_SIZE = 10, 4
PARIS, LIMA, TOKYO, NAIROBI = (48.86, 2.35), (-12.05, -77.04), (35.68, 139.69), (-1.29, 36.82)
PLACES = (PARIS, LIMA, TOKYO, NAIROBI)


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    return default_index()


@pytest.fixture
def watch(index: RegionIndex) -> AlertWatch:
    return AlertWatch(LoggingConfig(alert_window=WINDOW), index)


def completions(
    predicted: Sequence[tuple[float, float] | None] = PLACES, texts: Sequence[str] = ("a", "b", "c", "d")
) -> list[dict[str, Any]]:
    """A group for each of PLACES, answered with the predicted points in turn."""
    return [
        {"id": f"place-{p}", "text": texts[g], "true_latlon_deg": list(place), "predicted_latlon_deg": predicted[g]}
        for p, place in enumerate(PLACES)
        for g in range(GROUP_SIZE)
    ]


def steady(i: int) -> dict[str, float]:
    return {"reward": 0.4, "parse_rate": 0.97, "entropy": 0.5, "distance_km/median": 900.0}


def run(watch: AlertWatch, steps: int, metrics: Callable[[int], dict[str, float]] = steady, **made: Any) -> list[Alert]:
    records = completions(**made)
    return [alert for i in range(steps) for alert in watch.step(i + 1, metrics(i), records)]


def said(alerts: Sequence[Alert]) -> list[tuple[str, int, bool]]:
    return [(alert.rule, alert.step, alert.is_over) for alert in alerts]


def replaced(**values: float) -> Callable[[int], dict[str, float]]:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return lambda i: steady(i) | named


def test_a_healthy_run_is_quiet(index: RegionIndex) -> None:
    rng = np.random.default_rng(0)
    distance_km = (500 + 2500 * np.exp(-np.arange(600) / 200)) * np.exp(0.2 * rng.normal(size=600))
    reward = 1 / (1 + distance_km / 1000) + 0.02 * rng.normal(size=600)

    def learning(i: int) -> dict[str, float]:
        rate, entropy = 0.9 + 0.1 * rng.random(), 0.3 + 0.1 * rng.random()
        return dict(steady(i), reward=reward[i], parse_rate=rate, entropy=entropy) | {
            "distance_km/median": distance_km[i]
        }

    assert run(AlertWatch(LoggingConfig(), index), 600, learning) == []


def test_a_run_without_progress_is_quiet(index: RegionIndex) -> None:
    watch = AlertWatch(LoggingConfig(alert_window=40), index)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 2))
    flat = lambda i: steady(0) | {"reward": noise[i, 0], "distance_km/median": 900 + 50 * noise[i, 1]}  # noqa: E731
    assert run(watch, 1000, flat) == []


def test_a_low_parse_rate_is_said_once_and_again_when_it_is_over(watch: AlertWatch) -> None:
    alerts = run(watch, 100, lambda i: steady(i) | {"parse_rate": 0.0 if 30 <= i < 60 else 1.0})
    # Six of ten are unreadable at step 36; at least 55 % are readable when six of ten are again.
    assert said(alerts) == [("parse_rate", 36, False), ("parse_rate", 66, True)]
    assert alerts[0].line() == (
        "alert, step 36: 40% of the answers of the last 10 steps can be read (logging.alert_parse_rate 50%). Look at"
        " their texts in completions.jsonl and at completions/clipped_ratio: in another form than the prompt asks for,"
        " or cut off?"
    )
    assert alerts[1].line() == "alert over, step 66: 60% of the answers of the last 10 steps can be read."
    assert alerts[0].numbers == {"parse_rate": pytest.approx(0.4)}


def test_a_rate_at_its_bound_does_not_come_and_go(watch: AlertWatch) -> None:
    alerts = run(watch, 100, lambda i: steady(i) | {"parse_rate": 0.49 if (i // 10) % 2 else 0.53})
    assert said(alerts) == [("parse_rate", 18, False)]


@pytest.mark.parametrize("where", [LIMA, (0.0, -140.0)])
def test_one_country_is_said_by_its_name(watch: AlertWatch, index: RegionIndex, where: tuple[float, float]) -> None:
    country = index.names(index.lookup(np.array([where])).ids)[0, 0]
    (alert,) = run(watch, 40, predicted=(where, where, where, TOKYO))
    assert said([alert]) == [("country", WINDOW, False)]
    assert f"75% of the answers of the last 10 steps lie in {country}, where" in alert.message
    assert "(logging.alert_country_share 50%)" in alert.message
    assert alert.numbers["share"] == 0.75


def test_a_country_with_half_as_many_true_places_is_no_alert(watch: AlertWatch, index: RegionIndex) -> None:
    # A quarter of the places are in Peru: half of the answers there are not more than twice as many.
    assert run(watch, 40, predicted=(LIMA, LIMA, TOKYO, None)) != []
    half = AlertWatch(LoggingConfig(alert_window=WINDOW, alert_country_share=0.4), index)
    assert run(half, 40, predicted=(LIMA, LIMA, TOKYO, PARIS)) == []
    # One answer more is.
    assert said(run(half, 1, predicted=(LIMA, LIMA, LIMA, PARIS))) == [("country", 1, False)]


def test_the_country_is_over_when_answers_spread_and_another_can_follow(watch: AlertWatch) -> None:
    first = run(watch, 30, predicted=(LIMA,) * 4)
    then = run(watch, 30, predicted=(NAIROBI,) * 4)
    last = run(watch, 30)
    assert said(first) == [("country", WINDOW, False)]
    assert [alert.is_over for alert in then] == [True, False]
    assert "Peru" in then[0].message
    assert "Kenya" in then[1].message
    # At 45 % it is over: three steps of ten with all answers there and seven with a quarter are 47.5 %.
    assert said(last) == [("country", 8, True)]


def test_points_in_the_sea_are_no_country() -> None:
    class Nowhere:
        """An index of polygons has points without a country."""

        def lookup(self, points: np.ndarray) -> Any:
            return type("Ids", (), {"country": np.where(points[:, 0] == -1, -1, points[:, 0] > 40)})

        def names(self, ids: np.ndarray) -> list[str | None]:
            return [None if i < 0 else ("South", "North")[i] for i in ids]

    watch = AlertWatch(LoggingConfig(alert_window=4), Nowhere())  # type: ignore[arg-type]
    assert run(watch, 9, predicted=((-1.0, 0.0),) * 4) == []
    assert run(watch, 9, predicted=(None,) * 4) == []
    # What is in the sea counts as an answer, and does not hide a country.
    low = AlertWatch(LoggingConfig(alert_window=4, alert_country_share=0.2), Nowhere())  # type: ignore[arg-type]
    places = ((-1.0, 0.0), (-1.0, 0.0), PARIS, PARIS)
    records = [record for record in completions(places) if record["true_latlon_deg"][0] < 40]
    (alert,) = [alert for i in range(9) for alert in low.step(i, steady(i), records)]
    assert "50% of the answers of the last 4 steps lie in North, where 0%" in alert.message


def test_low_entropy_is_said(watch: AlertWatch) -> None:
    alerts = run(watch, 60, lambda i: steady(i) | {"entropy": 0.01 if 20 <= i < 40 else 0.03})
    assert said(alerts) == [("entropy", 26, False), ("entropy", 47, True)]
    assert "the mean entropy of a token over the last 10 steps is 0.0180 nats (logging.alert_entropy 0.02)" in (
        alerts[0].message
    )


@pytest.mark.parametrize(("texts", "expected"), [("aaaa", [("entropy", WINDOW, False)]), ("aaab", [])])
def test_groups_of_one_text_count_as_entropy_0_where_none_is_measured(
    watch: AlertWatch, texts: str, expected: list[tuple[str, int, bool]]
) -> None:
    assert said(run(watch, 30, replaced(entropy=float("nan")), texts=texts)) == expected


def test_entropy_that_is_measured_counts_whatever_the_texts(watch: AlertWatch) -> None:
    assert run(watch, 30, replaced(entropy=0.3), texts="aaaa") == []


def test_a_reward_that_rises_without_the_distance_is_said(watch: AlertWatch) -> None:
    hacked = lambda i: steady(0) | {"reward": 0.3 + 0.02 * max(0, i - 20), "distance_km/median": 900.0}  # noqa: E731
    alerts = run(watch, 40, hacked)
    assert [alert.rule for alert in alerts] == ["reward"]
    assert 23 <= alerts[0].step <= 31
    assert "the reward went from 0.3" in alerts[0].message
    assert "the median distance from 900 to 900 km" in alerts[0].message
    # It levels off.
    over = run(watch, 40, lambda i: steady(0) | {"reward": 0.7, "distance_km/median": 900.0})
    assert [(alert.rule, alert.is_over) for alert in over] == [("reward", True)]


def test_a_reward_that_rises_as_the_distance_falls_is_no_alert(watch: AlertWatch) -> None:
    learning = lambda i: steady(0) | {"reward": 0.3 + 0.02 * i, "distance_km/median": 900.0 - 5 * i}  # noqa: E731
    assert run(watch, 100, learning) == []


def test_nothing_is_said_before_there_is_a_window(index: RegionIndex) -> None:
    def bad(i: int) -> dict[str, float]:
        return {"reward": 0.1 * i, "parse_rate": 0.0, "entropy": 0.0, "distance_km/median": 900.0}

    watch = AlertWatch(LoggingConfig(alert_window=WINDOW), index)
    alerts = run(watch, 60, bad, predicted=(LIMA,) * 4)
    assert said(alerts) == [(rule, WINDOW, False) for rule in ("parse_rate", "country", "entropy", "reward")]
    assert run(AlertWatch(LoggingConfig(alert_window=0), index), 60, bad, predicted=(LIMA,) * 4) == []


def test_steps_without_an_image_are_left_out(watch: AlertWatch) -> None:
    assert run(watch, WINDOW - 1, replaced(parse_rate=0.0)) == []
    for i in range(3):
        assert watch.step(i, {"reward": float("nan")}, []) == []
    assert said(run(watch, 1, replaced(parse_rate=0.0))) == [("parse_rate", 1, False)]


def test_one_group_of_one_text_is_no_low_entropy(watch: AlertWatch) -> None:
    records = [dict(record, text="a" if record["id"] == "place-0" else record["text"]) for record in completions()]
    assert [watch.step(i, replaced(entropy=float("nan"))(i), records) for i in range(30)] == [[]] * 30


def test_an_alert_is_json(watch: AlertWatch) -> None:
    (alert,) = run(watch, 20, replaced(parse_rate=0.0))
    assert json.loads(json.dumps(alert.to_json()))["rule"] == "parse_rate"


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_window_too_short_for_two_halves_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"logging.alert_window must be 0 or at least 4, got {window}"):
        LoggingConfig(alert_window=window)
