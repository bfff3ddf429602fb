"""Where examples come from. To add a format: a file here with `load_<name>(config, seed) -> Splits`, a line below.

A format returns every held-out example; `load_dataset` draws `num_test` of them.
"""

from collections.abc import Callable
from dataclasses import replace

from geogrpo.config import DataConfig
from geogrpo.data.blue_marble import load_blue_marble
from geogrpo.data.holdout import Splits, draw_examples
from geogrpo.data.jsonl import load_jsonl
from geogrpo.data.photos import load_photos

DATASETS: dict[str, Callable[[DataConfig, int], Splits]] = {
    "blue_marble": load_blue_marble,
    "jsonl": load_jsonl,
    "photos": load_photos,
}


def load_dataset(config: DataConfig, seed: int) -> Splits:
    """Training and held-out examples, neither empty; of the held-out ones a random draw of `num_test` (0: all).

    Raises:
        ValueError: on an unknown name, an empty split, or anything the format rejects.
    """
    if config.name not in DATASETS:
        raise ValueError(f"data.name {config.name!r} is unknown. Known: {', '.join(DATASETS)}.")
    splits = DATASETS[config.name](config, seed)
    for split, examples in (
        ("training", splits.train),
        ("held-out", splits.test),
        ("stage-2 training (data.grpo_path)", splits.grpo_train),
    ):
        if len(examples) == 0:
            change = "raise" if split == "held-out" else "lower"
            hint = f"Set data.test_path, or {change} data.test_fraction."
            raise ValueError(f"dataset {config.name!r} has no {split} examples. {hint}")
    return replace(splits, test=draw_examples(splits.test, config.num_test, seed))


__all__ = ["DATASETS", "Splits", "load_dataset"]
