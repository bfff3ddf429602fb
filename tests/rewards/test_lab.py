"""The reward lab: floors, spreads and probes, and that the defaults pay for looking."""

from pathlib import Path

import numpy as np
import pytest
from geogrpo_kernels import EARTH_RADIUS_KM

from geogrpo.parsing import parse_completion
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.rewards import PRESETS
from geogrpo.rewards.distance import distances_km
from geogrpo.rewards.lab import (
    _REASONING,
    GROUP_SIZE,
    best_constant,
    chain,
    completion,
    displaced,
    draw_truths,
    open_lab,
    reward_by_distance,
    spread_in_groups,
)
from geogrpo.rewards.probes import PROBES, run_probes, winning_attacks
from geogrpo.rewards.visual import mentions
from geogrpo.rewards.visual_vocabulary import GENERIC, VOCABULARY
from geogrpo.types import Example


@pytest.fixture(scope="module")
def truths() -> list[Example]:
    return draw_truths(400)


def test_truths_are_drawn_by_population_and_have_all_names(truths: list[Example]) -> None:
    assert len(truths) == 400
    assert truths == draw_truths(400)
    assert truths != draw_truths(400, seed=1)
    assert all(truth.country and truth.city and len(set(truth.columns["entities"])) == 4 for truth in truths)
    places = load_geonames()
    for country in ("India", "China", "United States"):
        share = places.population[np.array(places.country) == country].sum() / places.population.sum()
        drawn = np.mean([truth.country == country for truth in truths])
        # Four standard deviations of a draw of 400
        assert abs(drawn - share) < 4 * np.sqrt(share / 400)


def test_truths_may_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("lat,lon\n48.85,2.35\n,\n-33.9,511.2\n")
    found = draw_truths(10, points=table)
    assert sorted(truth.latlon_deg for truth in found) == [(-33.9, pytest.approx(151.2)), (48.85, 2.35)]
    assert {truth.country for truth in found} == {"France", "Australia"}
    assert len(draw_truths(1, points=table)) == 1


@pytest.mark.parametrize(
    ("text", "message"), [("lat,lon\n,\n", "no row has coordinates"), ("lat,lon\n95,2\n", "line 2")]
)
def test_a_bad_table_of_points_is_refused_by_file_and_row(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "points.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=f"points.csv.*{message}"):
        draw_truths(10, points=table)


@pytest.mark.parametrize("distance_km", [0.0, 1.0, 750.0, 19_000.0])
def test_displaced_answers_lie_so_far_from_their_truth(truths: list[Example], distance_km: float) -> None:
    answers = displaced(truths, np.full(len(truths), distance_km), np.random.default_rng(0))
    found = distances_km([answer.latlon_deg for answer in answers], [truth.latlon_deg for truth in truths])
    # arccos near a pole of the construction loses half of the digits of a double
    np.testing.assert_allclose(found.numpy(), distance_km, atol=EARTH_RADIUS_KM * 2e-8)


def test_written_completions_are_read_back_by_every_preset(truths: list[Example]) -> None:
    for truth in truths:
        said = parse_completion(completion(chain(truth), seen=["palm", "dome"]))
        assert (said.latlon_deg, said.country, said.state, said.city) == (
            truth.latlon_deg,
            truth.country,
            truth.state,
            truth.city,
        )
        assert said.has_think_answer_tags
        assert mentions(said.thinking or "", frozenset(), VOCABULARY | GENERIC).others == {"palm", "dome", "picture"}


def test_the_reasoning_itself_names_nothing() -> None:
    assert mentions(_REASONING, frozenset(), VOCABULARY | GENERIC).others == frozenset()
    assert len(_REASONING) >= 200


def test_the_curve_of_a_distance_preset_is_its_function(truths: list[Example]) -> None:
    assert reward_by_distance(open_lab("geor_paper"), truths[:20], [0.0, 750.0, 2500.0]) == pytest.approx([1, 0.5, 0.2])


def test_the_default_pays_a_constant_guess_at_most_half_of_what_geo_r_pays(truths: list[Example]) -> None:
    default, geor = (best_constant(open_lab(preset), truths) for preset in ("multiscale", "geor_paper"))
    assert 0 < default.reward <= geor.reward / 2
    # The best guess is where people are, not London
    london = open_lab("geor_paper").mean_reward(PROBES["London always"].answer(truths), truths)
    assert geor.reward > london


@pytest.mark.parametrize("preset", ["multiscale", "chain_of_region"])
def test_no_attack_on_our_presets_earns_what_a_right_country_earns(truths: list[Example], preset: str) -> None:
    results = run_probes(open_lab(preset), truths)
    honest = [results[name].reward for name in ("exact", "right city", "right country")]
    assert honest == sorted(honest, reverse=True)
    assert winning_attacks(results) == []
    # By a wide margin, not by a hair
    attacks = [results[name].reward for name, probe in PROBES.items() if not probe.is_honest]
    assert max(attacks) < honest[-1] / 3


WINNING_ATTACKS = {
    "multiscale": [],
    "chain_of_region": [],
    "geor_paper": [],
    "geor_code": [],
    "globe_paper": [],
    "globe_code": [],
    "globe_two_rewards": ["stuffing"],
    "gre": [],
    "geoagent": ["London always", "stuffing", "form only"],
    "geovista": [],
    "twm": [],
}
"""What each preset, as published, pays more for than for a right country."""


def test_the_attacks_that_pay_are_known(truths: list[Example]) -> None:
    assert {name: winning_attacks(run_probes(open_lab(name), truths)) for name in PRESETS} == WINNING_ATTACKS


def test_the_best_constant_of_a_list_is_found_in_it(tmp_path: Path) -> None:
    table = tmp_path / "iceland.csv"
    rng = np.random.default_rng(0)
    rows = [f"{lat},{lon}" for lat, lon in rng.uniform((64, -22), (65.5, -15), (60, 2))]
    table.write_text("\n".join(["lat,lon", *rows]))
    found = best_constant(open_lab("multiscale"), draw_truths(60, points=table))
    assert found.place.endswith("Iceland")


def test_naming_everything_is_a_constant_guess_too(truths: list[Example]) -> None:
    assert best_constant(open_lab("globe_two_rewards"), truths).place.endswith("everything named")


def test_stuffing_wins_globes_recall_and_loses_the_f1(truths: list[Example]) -> None:
    assert winning_attacks(run_probes(open_lab("globe_two_rewards"), truths)) == ["stuffing"]
    lab = open_lab("globe_two_rewards")
    weights = {"globe_substring": 1.0, "visual_f1": 0.5, "think_answer_tags": 1.0}
    mended = type(lab)("mended", type(lab.config)(weights=weights, gates=[]), ())
    assert winning_attacks(run_probes(mended, truths)) == []


def test_the_probes_do_what_their_names_say(truths: list[Example]) -> None:
    answers = {name: [parse_completion(text) for text in probe.answer(truths)] for name, probe in PROBES.items()}
    points = [truth.latlon_deg for truth in truths]
    assert [said.latlon_deg for said in answers["exact"]] == points
    near = distances_km([said.latlon_deg for said in answers["right city"]], points)
    np.testing.assert_allclose(near.numpy(), 10, atol=1e-3)
    assert [said.country for said in answers["right country"]] == [truth.country for truth in truths]
    assert {said.city for said in answers["right country"]} == {None}
    assert {said.latlon_deg for said in answers["(0, 0)"]} == {(0.0, 0.0)}
    for said, (lat_deg, lon_deg) in zip(answers["swapped"], points, strict=True):
        assert said.latlon_deg == ((lon_deg, lat_deg) if abs(lon_deg) <= 90 else None)
    assert {said.latlon_deg for name in ("hedging", "form only", "empty") for said in answers[name]} == {None}
    # Of a truth in London's country the hedge names one country only
    assert {said.country for said in answers["hedging"]} <= {None, "United Kingdom"}


def test_a_reward_that_is_the_same_in_a_group_has_no_spread(truths: list[Example]) -> None:
    for values in spread_in_groups(open_lab("multiscale"), truths[:50]).values():
        assert values["format"] == 0.0
        assert values["total"] == values["multiscale"] > 0.0
    assert GROUP_SIZE >= 2


def test_close_groups_differ_under_the_default_where_geo_r_sees_hardly_any_difference(truths: list[Example]) -> None:
    spreads = [spread_in_groups(open_lab(preset), truths[:50]) for preset in ("multiscale", "geor_paper")]
    close = [spread["close groups (1-25 km)"]["total"] for spread in spreads]
    assert close[0] > 10 * close[1]


def test_rewards_that_need_a_judge_are_left_out_by_name() -> None:
    lab = open_lab("globe_code")
    assert lab.left_out == ("localizability",)
    assert list(lab.config.weights) == ["globe_substring", "visual_recall", "think_answer_tags"]
