"""Presets against values worked out by hand, whole completions in, totals out.

The table of distances is that of the project's survey of published rewards, to the digits it prints.
"""

import math
from typing import Any

import numpy as np
import pytest

from geogrpo.config import RewardConfig
from geogrpo.rewards import JUDGED_REWARDS, PRESETS, REWARDS, find_rewards, resolve_preset
from geogrpo.rewards.scoring import score_completions
from geogrpo.types import Example

KM = (1, 25, 100, 200, 750, 2500, 5000)
# Preset -> reward at KM, as printed: so many decimals as are written
DISTANCE_TABLE = {
    "geor_paper": (".9993", ".9833", ".933", ".867", ".500", ".200", ".171"),
    "geor_code": (".9993", ".9833", ".933", ".867", ".500", ".267", ".176"),
    "gre": (".9975", ".938", ".755", ".538", ".046", "0", "0"),
    "twm": (".80", ".20", ".20", ".10", "0", "0", "0"),
    "multiscale": (".864", ".642", ".492", ".411", ".226", ".081", ".027"),
}
PARIS = Example(
    "paris",
    "",
    (0.0, 0.0),
    country="France",
    state="Île-de-France",
    city="Paris",
    columns={"entities": [{"text": "eiffel tower"}, {"text": "zinc roofs"}, {"text": "river"}, {"text": "car"}]},
)
SEEN = "I see zinc roofs along a river, and a tram."


def total(preset: str, text: str, example: Example = PARIS, **custom: Any) -> float:
    """What one completion earns."""
    config = RewardConfig(preset=preset)
    rewards = find_rewards(config) if not custom else {**REWARDS, **custom}
    return float(score_completions([""], [text], [example], [[]], rewards, config, group_size=1).total)


def north_of_the_truth(distance_km: float) -> str:
    """Coordinates due north of (0, 0)."""
    return f"Coordinates: ({math.degrees(distance_km / 6371.0088):.9f}, 0)"


@pytest.mark.parametrize("preset", DISTANCE_TABLE)
def test_distance_presets_reproduce_the_published_table(preset: str) -> None:
    for distance_km, printed in zip(KM, DISTANCE_TABLE[preset], strict=True):
        decimals = len(printed.partition(".")[2]) or 3
        # Thinking-with-Map's steps end before their limit, 25 km is no longer below 25 km; a metre does not show.
        earned = total(preset, north_of_the_truth(distance_km + 1e-3))
        assert f"{earned:.{decimals}f}" == f"{float(printed):.{decimals}f}", f"{preset} at {distance_km} km"


def tagged(answer: str, thinking: str = SEEN) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("preset", "text", "expected"),
    [
        # distance times format: two pairs are no answer
        ("geor_paper", "(0, 0)", 1.0),
        ("geor_paper", "(0, 0) (0, 0)", 0.0),
        ("geor_code", "{'LOC': (0, 0)}", 1.0),
        # accuracy 1, half of two entities of four, form 1
        ("globe_two_rewards", tagged("country: France\ncity: Paris"), 1 + 0.5 * 0.5 + 1),
        ("globe_two_rewards", tagged("country: France\ncity: Lyon"), 0.2 + 0.25 + 1),
        ("globe_two_rewards", tagged("country: Spain\ncity: Paris"), 0.25 + 1),
        ("globe_two_rewards", "country: France\ncity: Paris", 1.0),
        # GRE adds its form to the curve, which is 1 at the truth
        ("gre", tagged("(0, 0)"), 2.0),
        ("gre", "(0, 0)", 1.0),
        ("gre", tagged("nowhere"), 1.0),
        # form, three names, names 0.1 + 0.6 + 0.3, the place itself at 1.5
        ("geoagent", tagged("France; Île-de-France; Paris"), 1 + 1 + 1 + 1.5),
        ("geoagent", "<answer>France; Île-de-France; Paris</answer>", 1 + 1 + 1.5),
        ("geoagent", tagged("Japan; Tokyo; Tokyo"), 2.0),
        ("geovista", "country: France\nstate: Île-de-France\ncity: Paris", 4.0),
        ("geovista", "country: France\nstate: Île-de-France\ncity: Lyon", 2.0),
        ("geovista", "country: Frankreich\ncity: Lyon", 1.0),
        ("geovista", "country: Spain\ncity: Madrid", 0.0),
        ("twm", "(0, 0)", 1.0),
        ("multiscale", "(0, 0)", 1.0),
        ("multiscale", "(0, 0) or (1, 1)", 0.0),
        # at the truth's names, but (0, 0) lies in no part of France
        ("chain_of_region", "Country: France\nState: Île-de-France\nCity: Paris\n(0, 0)", 1 + 0.5),
        ("chain_of_region", "Country: France\nState: Île-de-France\nCity: Lyon\n(0, 0)", 1 + 0.5 * 0.5),
        ("chain_of_region", "Country: France\nState: Île-de-France\nCity: Paris", 0.0),
    ],
)
def test_a_completion_earns_what_the_preset_says(preset: str, text: str, expected: float) -> None:
    assert total(preset, text) == pytest.approx(expected, abs=1e-9)


def judge_says(value: float) -> Any:
    return lambda prompts, completions, **_: [value] * len(completions)


def test_globe_as_coded_is_1_accuracy_half_a_judge_a_fifth_entities_and_1_form() -> None:
    text = tagged("country: France\ncity: Paris")
    assert total("globe_code", text, localizability=judge_says(0.6)) == pytest.approx(1 + 0.5 * 0.6 + 0.2 * 0.5 + 1)


def test_globe_as_printed_pays_for_precision_and_exact_names() -> None:
    # roofs and river are in the picture, a tram is not; what the text calls "zinc roofs" is one entity
    text = tagged("country: France\ncity: paris")
    earned = total("globe_paper", text, localizability=judge_says(0.6))
    assert earned == pytest.approx(0.6 + 2 / 3 + 1)


def test_every_preset_names_known_rewards_and_says_where_it_is_from() -> None:
    for name, preset in PRESETS.items():
        assert {*preset.weights, *preset.gates} <= {*REWARDS, *JUDGED_REWARDS}, name
        assert preset.about.endswith("."), name


def test_without_a_preset_and_weights_it_is_multiscale() -> None:
    assert resolve_preset(RewardConfig()) == PRESETS["multiscale"]
    assert list(find_rewards(RewardConfig())) == ["multiscale", "format"]


def test_gates_of_the_configuration_replace_those_of_the_preset() -> None:
    assert resolve_preset(RewardConfig(preset="multiscale", gates=[])).gates == ()
    assert resolve_preset(RewardConfig(preset="twm", gates=["format"])).gates == ("format",)
    assert resolve_preset(RewardConfig(weights={"twm": 1.0})).gates == ("format",)


def test_gates_are_multiplied() -> None:
    config = RewardConfig(weights={"one": 2.0}, gates=["half", "third"])
    constant = {"one": 1.0, "half": 0.5, "third": 0.3}
    rewards = find_rewards(config, {name: judge_says(value) for name, value in constant.items()})
    scores = score_completions([""], ["x"], [PARIS], [[]], rewards, config, group_size=1)
    assert float(scores.total) == pytest.approx(2 * 0.5 * 0.3)


def test_an_unknown_preset_is_refused_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(ValueError, match="preset 'geor-paper' is unknown. Did you mean 'geor_paper'?") as error:
        resolve_preset(RewardConfig(preset="geor-paper"))
    assert all(name in str(error.value) for name in PRESETS)


def test_preset_and_weights_together_are_refused() -> None:
    with pytest.raises(ValueError, match="grpo.rewards.preset is 'twm' and grpo.rewards.weights is .*: give one"):
        RewardConfig(preset="twm", weights={"gre": 1.0})


@pytest.mark.parametrize("preset", ["globe_code", "globe_paper"])
def test_a_judged_preset_without_a_judge_is_refused_by_its_keys(preset: str) -> None:
    with pytest.raises(ValueError, match="grpo.rewards.judge.url"):
        find_rewards(RewardConfig(preset=preset))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_no_preset_pays_for_an_empty_answer(preset: str) -> None:
    custom = {"localizability": judge_says(0.0)} if "localizability" in PRESETS[preset].weights else {}
    assert total(preset, "", **custom) == 0.0


def test_multiscale_tells_1_km_from_25_km_by_a_fifth_where_geo_r_does_not() -> None:
    change = {
        p: total(p, north_of_the_truth(1)) - total(p, north_of_the_truth(25)) for p in ("multiscale", "geor_paper")
    }
    assert change["multiscale"] >= 0.2
    assert np.isclose(change["geor_paper"], 0.016, atol=5e-4)
