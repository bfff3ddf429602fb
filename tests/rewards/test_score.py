"""Rewards of whole rollouts: the weighted sum, the gate, and what a reward is called with.

Shapes: P prompts, G group.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geogrpo.config import RewardConfig
from geogrpo.rewards import PRESETS, REWARDS, Scores, check_columns, distances_km, find_rewards, score
from geogrpo.rewards.judge import JudgeError
from geogrpo.types import EncodedPrompt, Example, Prediction, Rollouts

QUARTER_KM = math.pi * 6371.0088 / 2
ORIGIN = (0.0, 0.0)
# The answer itself, a quarter of the way round, none, and two at once
TEXTS = ["(0, 0)", "(0, 90)", "somewhere", "(0, 0) (0, 0)"]


def example(name: str, latlon_deg: tuple[float, float] = ORIGIN, columns: dict[str, Any] | None = None) -> Example:
    picture = Image.new("RGB", (1, 1))
    return Example(name, picture, latlon_deg, country=f"{name}-land", city=f"{name}-city", columns=columns or {})


def rollouts(examples: list[Example], texts: list[list[str]]) -> Rollouts:
    empty = torch.zeros(0)
    prompts = [EncodedPrompt(e, empty, empty, empty, empty, question=f"where is {e.id}?") for e in examples]
    token_ids = [[torch.tensor([p, g]) for g in range(len(group))] for p, group in enumerate(texts)]
    logprobs = [[torch.zeros(2) for _ in group] for group in texts]
    return Rollouts(prompts, token_ids, logprobs, texts, [[True for _ in group] for group in texts])


def score_with(config: RewardConfig, rolled: Rollouts, **custom: Any) -> Scores:
    return score(rolled, find_rewards(config, custom), config)


@pytest.fixture
def one_group() -> Rollouts:
    return rollouts([example("a")], [TEXTS])


def test_the_total_is_the_weighted_sum_times_the_gate(one_group: Rollouts) -> None:
    custom = {
        "length": lambda prompts, completions, **_: [float(len(text)) for text in completions],
        "is_short": lambda prompts, completions, **_: [float(len(text) < 9) for text in completions],
    }
    config = RewardConfig(weights={"geor_paper": 2.0, "length": 0.5}, gates=["is_short"])
    scores = score_with(config, one_group, **custom)
    # A quarter of the way round is 10,007.6 km: on the last piece, from 0.2 at 2500 to 0 at 20000.
    quarter = 0.2 * (20000 - QUARTER_KM) / 17500
    expected = [2 * 1 + 0.5 * 6, 2 * quarter + 0.5 * 7, 0.0, 0.0]
    assert scores.total.tolist() == [pytest.approx(expected)]
    assert scores.components["length"].tolist() == [[6.0, 7.0, 9.0, 13.0]]
    assert scores.components["is_short"].tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert scores.components["geor_paper"].tolist() == [pytest.approx([1.0, quarter, 0.0, 0.0])]


def test_without_a_gate_the_sum_is_the_total(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"one": 3.0}, gates=[])
    scores = score_with(config, one_group, one=lambda prompts, completions, **_: [1.0] * 4)
    assert scores.total.tolist() == [[3.0] * 4]
    assert list(scores.components) == ["one"]


def test_the_format_reward_is_1_for_exactly_one_usable_pair() -> None:
    group = rollouts([example("a")], [["(0, 0)", "(91, 0)", "(0, 0) (0, 0)", ""]])
    scores = score_with(RewardConfig(weights={"format": 1.0}, gates=[]), group)
    assert scores.total.tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_a_reward_may_be_its_own_gate(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"third": 1.0}, gates=["third"])
    scores = score_with(config, one_group, third=lambda prompts, completions, **_: [0.5] * 4)
    assert scores.total.tolist() == [[0.25] * 4]


def test_none_does_not_count_and_is_logged_as_nan(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"sometimes": 4.0, "always": 1.0}, gates=[])
    scores = score_with(
        config,
        one_group,
        sometimes=lambda prompts, completions, **_: [1.0, None, None, 0.0],
        always=lambda prompts, completions, **_: [1.0] * 4,
    )
    assert scores.total.tolist() == [[5.0, 1.0, 1.0, 1.0]]
    assert scores.components["sometimes"].isnan().tolist() == [[False, True, True, False]]


def test_none_from_the_gate_closes_it(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"one": 1.0}, gates=["gate"])
    scores = score_with(
        config,
        one_group,
        one=lambda prompts, completions, **_: [1.0] * 4,
        gate=lambda prompts, completions, **_: [1.0, None, 0.0, 1.0],
    )
    assert scores.total.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_every_prompt_is_scored_against_its_own_truth() -> None:
    examples = [example("a", ORIGIN), example("b", (0.0, 90.0)), example("c", (-90.0, 5.0))]
    scores = score_with(RewardConfig(weights={"geor_paper": 1.0}), rollouts(examples, [["(0, 0)", "(0, 90)"]] * 3))
    expected = [[0.0, QUARTER_KM], [QUARTER_KM, 0.0], [QUARTER_KM, QUARTER_KM]]
    assert scores.distance_km.tolist() == [pytest.approx(row) for row in expected]
    assert (scores.total[0].argmax(), scores.total[1].argmax()) == (0, 1)
    assert [[p.latlon_deg for p in group] for group in scores.predictions] == [[(0.0, 0.0), (0.0, 90.0)]] * 3


def test_a_custom_reward_gets_whole_columns_one_entry_per_completion() -> None:
    examples = [
        example("a", (1.0, 2.0), {"hint": "sea", "level": 3}),
        example("b", (3.0, 4.0), {"hint": "hills", "note": True}),
    ]
    texts = [["(0, 0)", "none"], ["Country: X\n(5, 6)", "(7, 8)"]]
    seen: dict[str, Any] = {}

    def spy(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [1.0, 2.0, 3.0, 4.0]

    scores = score_with(RewardConfig(weights={"spy": 1.0}, gates=[]), rollouts(examples, texts), spy=spy)
    assert scores.total.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    distances = seen.pop("distance_km")
    assert [math.isnan(d) for d in distances] == [False, True, False, False]
    assert seen.pop("example") == [examples[0], examples[0], examples[1], examples[1]]
    assert seen == {
        "prompts": ["where is a?", "where is a?", "where is b?", "where is b?"],
        "completions": ["(0, 0)", "none", "Country: X\n(5, 6)", "(7, 8)"],
        "completion_ids": [[0, 0], [0, 1], [1, 0], [1, 1]],
        "prediction": [
            Prediction("(0, 0)", latlon_deg=(0.0, 0.0)),
            Prediction("none", problem="no coordinates"),
            Prediction("Country: X\n(5, 6)", country="X", latlon_deg=(5.0, 6.0)),
            Prediction("(7, 8)", latlon_deg=(7.0, 8.0)),
        ],
        "example_id": ["a", "a", "b", "b"],
        "latlon_deg": [(1.0, 2.0), (1.0, 2.0), (3.0, 4.0), (3.0, 4.0)],
        "country": ["a-land", "a-land", "b-land", "b-land"],
        "state": [None] * 4,
        "city": ["a-city", "a-city", "b-city", "b-city"],
        "hint": ["sea", "sea", "hills", "hills"],
        "level": [3, 3, None, None],
        "note": [None, None, True, True],
    }


@pytest.mark.parametrize("name", ["prompts", "completions", "distance_km", "latlon_deg"])
def test_a_column_of_the_examples_never_replaces_what_every_reward_gets(name: str) -> None:
    seen: dict[str, Any] = {}

    def spy(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, **columns)
        return [1.0]

    group = rollouts([example("a", ORIGIN, {name: "mine"})], [["(0, 0)"]])
    score_with(RewardConfig(weights={"spy": 1.0}, gates=[]), group, spy=spy)
    assert seen["prompts"] == ["where is a?"]
    assert seen["completions"] == ["(0, 0)"]
    assert seen["distance_km"] == [0.0]
    assert seen["latlon_deg"] == [ORIGIN]


@pytest.mark.parametrize("name", ["prompt", "completion", "solution"])
def test_any_other_column_is_passed_by_its_name(name: str) -> None:
    seen: list[Any] = []

    def spy(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        seen.append(columns.get(name))
        return [1.0, 1.0]

    group = rollouts([example("a", ORIGIN, {name: "mine"})], [["(0, 0)", ""]])
    score_with(RewardConfig(weights={"spy": 1.0}, gates=[]), group, spy=spy)
    assert seen == [["mine", "mine"]]


def test_no_rollouts_score_nothing() -> None:
    scores = score_with(RewardConfig(), rollouts([], []))
    assert scores.total.numel() == scores.distance_km.numel() == 0
    assert scores.predictions == []


@pytest.mark.parametrize("values", [[1.0] * 3, [1.0] * 5, []])
def test_a_wrong_number_of_values_is_rejected_by_the_rewards_name(one_group: Rollouts, values: list[float]) -> None:
    config = RewardConfig(weights={"lazy": 1.0}, gates=[])
    with pytest.raises(ValueError, match=rf"reward 'lazy' must return 4 values, one per completion, got {len(values)}"):
        score_with(config, one_group, lazy=lambda prompts, completions, **_: values)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_rejected_by_the_rewards_name(one_group: Rollouts, value: float) -> None:
    config = RewardConfig(weights={"wild": 1.0}, gates=[])
    with pytest.raises(
        ValueError,
        match=rf"reward 'wild' returned {value} for a completion of example 'a', '.0, 90.'; return a finite",
    ):
        score_with(config, one_group, wild=lambda prompts, completions, **_: [0.0, value, 0.0, 0.0])


@pytest.mark.parametrize("values", [None, 1.0, "1111"])
def test_a_reward_that_returns_no_list_is_rejected_by_its_name(one_group: Rollouts, values: Any) -> None:
    config = RewardConfig(weights={"shy": 1.0}, gates=[])
    with pytest.raises(ValueError, match=rf"reward 'shy' must return a list of 4 values, got {values!r}"):
        score_with(config, one_group, shy=lambda prompts, completions, **_: values)


@pytest.mark.parametrize("value", ["1.0", [1.0], 1j, 10**400], ids=["text", "list", "complex", "huge"])
def test_a_value_that_is_no_number_is_rejected_by_the_rewards_name(one_group: Rollouts, value: Any) -> None:
    config = RewardConfig(weights={"odd": 1.0}, gates=[])
    with pytest.raises(ValueError, match=r"reward 'odd' returned .*; return a finite number, or None"):
        score_with(config, one_group, odd=lambda prompts, completions, **_: [0.0, value, 0.0, 0.0])


def test_numbers_of_numpy_and_torch_are_numbers(one_group: Rollouts) -> None:
    values = [np.float32(0.5), torch.tensor(0.25), True, None]
    for returned in (values, tuple(values), iter(values)):
        config = RewardConfig(weights={"fine": 1.0}, gates=[])
        scores = score_with(config, one_group, fine=lambda prompts, completions, returned=returned, **_: returned)
        assert scores.total.tolist() == [[0.5, 0.25, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (RewardConfig(weights={"multiscale": 1.0, "geor": 1.0}), "grpo.rewards.weights"),
        (RewardConfig(weights={"multiscale": 1.0}, gates=["geor"]), "grpo.rewards.gates"),
    ],
)
def test_an_unknown_reward_or_gate_is_rejected_with_its_key_and_the_known_ones(config: RewardConfig, key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: reward 'geor' is unknown\. Known: ") as error:
        find_rewards(config, {"mine": REWARDS["format"]})
    for name in [*REWARDS, "mine"]:
        assert name in str(error.value)


def test_a_custom_reward_is_found_before_one_of_ours() -> None:
    def mine(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [7.0] * len(completions)

    found = find_rewards(RewardConfig(weights={"multiscale": 1.0}), {"multiscale": mine})
    assert found == {"multiscale": mine, "format": REWARDS["format"]}


def test_distances_are_nan_without_coordinates() -> None:
    distances = distances_km([(0.0, 0.0), None], [(0.0, -180.0), (0.0, 0.0)])
    assert distances.dtype == torch.float64
    assert float(distances[0]) == pytest.approx(2 * QUARTER_KM)
    assert math.isnan(float(distances[1]))
    assert distances_km([], []).shape == (0,)


def test_a_reward_that_raises_stops_with_its_name_and_the_completion(one_group: Rollouts) -> None:
    def brittle(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [1 / (text != "somewhere") for text in completions]

    config = RewardConfig(weights={"brittle": 1.0}, gates=[])
    message = (
        "reward 'brittle' failed for a completion of example 'a', 'somewhere': ZeroDivisionError: division by zero"
    )
    with pytest.raises(ValueError, match=message):
        score_with(config, one_group, brittle=brittle)


def test_a_reward_that_raises_for_the_whole_batch_only_stops_by_its_name(one_group: Rollouts) -> None:
    def jealous(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        if len(completions) > 1:
            raise RuntimeError("too many")
        return [1.0]

    with pytest.raises(ValueError, match="^reward 'jealous' failed: RuntimeError: too many"):
        score_with(RewardConfig(weights={"jealous": 1.0}, gates=[]), one_group, jealous=jealous)


def test_a_failure_counts_as_missing_where_so_configured(one_group: Rollouts) -> None:
    def brittle(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [1 / (text != "somewhere") for text in completions]

    config = RewardConfig(weights={"brittle": 1.0, "wild": 2.0, "short": 1.0}, gates=[], on_error="missing")
    scores = score_with(
        config,
        one_group,
        brittle=brittle,
        wild=lambda prompts, completions, **_: [1.0, math.nan, "x", 1.0],
        short=lambda prompts, completions, **_: [1.0, 1.0],
    )
    # A failure counts as the mean of the group's others; where all fail, as 0
    assert scores.total.tolist() == [[3.0, 3.0, 3.0, 3.0]]
    assert scores.components["brittle"].isnan().tolist() == [[False, False, True, False]]
    assert scores.num_failed == {"brittle": 1, "wild": 2, "short": 4}


@pytest.mark.parametrize("on_error", ["stop", "missing"])
def test_a_judge_without_an_answer_stops_whatever_is_configured(one_group: Rollouts, on_error: Any) -> None:
    def judged(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        raise JudgeError("no answer")

    with pytest.raises(JudgeError, match="no answer"):
        score_with(RewardConfig(weights={"judged": 1.0}, gates=[], on_error=on_error), one_group, judged=judged)


def test_a_long_completion_is_cut_in_a_message() -> None:
    group = rollouts([example("a")], [["x" * 5000]])
    with pytest.raises(ValueError, match="x{200}\\.\\.\\.'; return") as error:
        score_with(RewardConfig(weights={"w": 1.0}), group, w=lambda prompts, completions, **_: [math.nan])
    assert len(str(error.value)) < 400


def test_a_missing_column_is_refused_with_those_that_are_there() -> None:
    rewards = find_rewards(RewardConfig(weights={"visual_f1": 1.0}))
    check_columns(rewards, [example("a"), example("b", columns={"entities": ["palm"]})])
    check_columns(rewards, [])
    message = "reward 'visual_f1' needs the column 'entities', which example 'a' does not have. There are: pred.*hint"
    with pytest.raises(ValueError, match=message):
        check_columns(rewards, [example("a", columns={"hint": 1})])


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"globe_code", "globe_paper"}))
def test_a_rank_without_prompts_scores_nothing_under_any_preset(preset: str) -> None:
    scores = score_with(RewardConfig(preset=preset), rollouts([], []))
    assert scores.total.numel() == 0
    assert scores.terms.shape[0] == len(PRESETS[preset].weights)


def test_a_column_that_no_example_of_a_batch_has_is_none() -> None:
    group = rollouts([example("a")], [["<think>palms</think><answer>x</answer>"] * 2])
    scores = score_with(RewardConfig(weights={"visual_f1": 1.0, "visual_recall": 1.0}, gates=[]), group)
    assert scores.components["visual_f1"].isnan().all()
    assert scores.total.tolist() == [[0.0, 0.0]]


def test_a_gate_beyond_0_and_1_is_refused(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"one": 1.0}, gates=["four"])
    constant = {"one": 1.0, "four": 4.0}
    custom = {name: lambda prompts, completions, v=value, **_: [v] * 4 for name, value in constant.items()}
    with pytest.raises(ValueError, match="grpo.rewards.gates: reward 'four' returned 4.0, and a gate lies in"):
        score_with(config, one_group, **custom)


def test_the_terms_are_what_the_total_is_made_of(one_group: Rollouts) -> None:
    config = RewardConfig(weights={"a": 2.0, "b": -1.0}, gates=["half"])
    scores = score_with(
        config,
        one_group,
        a=lambda prompts, completions, **_: [1.0, None, 3.0, 4.0],
        b=lambda prompts, completions, **_: [1.0] * 4,
        half=lambda prompts, completions, **_: [0.5, 0.5, 0.5, None],
    )
    assert scores.terms.tolist() == [[[0.5, 0.0, 1.5, 0.0]], [[0.5, 0.5, 0.5, 0.0]]]
    assert scores.term_weights.tolist() == [2.0, -1.0]
    assert scores.total.tolist() == [[0.5, -0.5, 2.5, 0.0]]
