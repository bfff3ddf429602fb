"""Rewards by name: each system's own, as published, and ours.

A preset weights rewards of REWARDS and may gate their sum. Where a system reads an answer in one fixed way, ours is
read by geogrpo.parsing, which accepts that way among others.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from geogrpo.config import RewardConfig

DEFAULT_PRESET = "multiscale"


@dataclass(frozen=True)
class Preset:
    """A weighted sum of rewards, times gates."""

    weights: Mapping[str, float]
    gates: tuple[str, ...] = ()
    about: str = field(default="", compare=False)
    """Where it is from and how it differs from its source."""


PRESETS: dict[str, Preset] = {
    "multiscale": Preset(
        {"multiscale": 1.0},
        gates=("format",),
        about="The default: progress counts at every scale from 1 to 2500 km, and a constant guess earns little.",
    ),
    "chain_of_region": Preset(
        {"multiscale": 1.0, "named_region": 0.5, "consistency": 0.2},
        gates=("format",),
        about="The default for answers with names: also pays for right names and for a point that lies in them.",
    ),
    "geor_paper": Preset(
        {"geor_paper": 1.0}, gates=("format",), about="Geo-R as printed (arXiv 2601.00388): distance times format."
    ),
    "geor_code": Preset(
        {"geor_code": 1.0},
        about="Geo-R's repository (aialt/geo-r). Its added format reward is constantly 0 and is left out; its parser"
        " reads only a bare dict with LOC.",
    ),
    "globe_paper": Preset(
        {"localizability": 1.0, "visual_precision": 1.0, "globe_exact": 1.0},
        about="GLOBE as printed (arXiv 2506.14674). Its three weights and how it finds entities in the text are not"
        " published: 1 each, and nouns of a fixed list. Needs a judge.",
    ),
    "globe_code": Preset(
        {"globe_substring": 1.0, "localizability": 0.5, "visual_recall": 0.2, "think_answer_tags": 1.0},
        about="GLOBE's train_all_rewards.sh (lingli1996/GLOBE); its README has 0.2 and 0.5 the other way round."
        " Needs a judge, which is asked in our words at temperature 0 instead of 0.6.",
    ),
    "globe_two_rewards": Preset(
        {"globe_substring": 1.0, "visual_recall": 0.5, "think_answer_tags": 1.0},
        about="GLOBE's train_two_rewards.sh, which its authors recommend.",
    ),
    "gre": Preset(
        {"gre": 1.0, "think_answer_tags": 1.0},
        about="GRE Suite's second stage (arXiv 2505.18700). Its code swaps latitude and longitude; here they are not.",
    ),
    "geoagent": Preset(
        {"think_answer_tags": 1.0, "three_names": 1.0, "geoagent_semantic": 1.0, "geoagent_spatial": 1.5},
        about="GeoAgent (arXiv 2602.12617) without its consistency reward (0.5), for which a language model derives"
        " each step again. Names are compared by regions.names instead of sentence embeddings, and found offline.",
    ),
    "geovista": Preset(
        {"geovista": 1.0},
        about="GeoVista's hierarchical reward (arXiv 2511.15705). Its penalties for search queries need tools.",
    ),
    "twm": Preset({"twm": 1.0}, about="Thinking-with-Map (arXiv 2601.05432): steps of distance."),
}


def resolve_preset(config: RewardConfig) -> Preset:
    """The weights and gates that a configuration asks for.

    Raises:
        ValueError: when the preset is unknown, naming the known ones.
    """
    if config.weights:
        return Preset(config.weights, ("format",) if config.gates is None else tuple(config.gates))
    name = config.preset or DEFAULT_PRESET
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"grpo.rewards.preset {name!r} is unknown.{hint} Known: {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    return Preset(preset.weights, preset.gates if config.gates is None else tuple(config.gates), preset.about)
