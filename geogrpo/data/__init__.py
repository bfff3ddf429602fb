"""Where examples come from. To add a format: a file here with `load_<name>(config, seed) -> Splits`, a line below.

A format returns every held-out example; `load_dataset` draws `num_test` of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from geogrpo.config import DataConfig
from geogrpo.data.blue_marble import load_blue_marble
from geogrpo.data.geoseek import load_geoseek
from geogrpo.data.holdout import Splits, draw_examples
from geogrpo.data.im2gps3k import load_im2gps3k
from geogrpo.data.jsonl import load_jsonl
from geogrpo.data.mp16_pro import load_mp16_pro
from geogrpo.data.mp16_reason import load_mp16_reason
from geogrpo.data.osv5m import load_osv5m
from geogrpo.data.photos import load_photos
from geogrpo.data.table import load_any_table
from geogrpo.data.vlm_r1 import load_vlm_r1
from geogrpo.data.yfcc4k import load_yfcc4k
from geogrpo.images import limit_image_pixels
from geogrpo.types import Example

DATASETS: dict[str, Callable[[DataConfig, int], Splits]] = {
    "blue_marble": load_blue_marble,
    "jsonl": load_jsonl,
    "photos": load_photos,
    "table": load_any_table,
    "im2gps3k": load_im2gps3k,
    "yfcc4k": load_yfcc4k,
    "osv5m": load_osv5m,
    "mp16_pro": load_mp16_pro,
    "mp16_reason": load_mp16_reason,
    "geoseek": load_geoseek,
    "vlm_r1": load_vlm_r1,
}


def load_dataset(config: DataConfig, seed: int) -> Splits:
    """Training and held-out examples, neither empty; of the held-out ones a random draw of `num_test` (0: all).

    Raises:
        ValueError: on an unknown name, an empty split, or anything the format rejects.
    """
    splits = _load(config, seed)
    for split, examples in (
        ("training", splits.train),
        ("held-out", splits.test),
        ("stage-2 training (data.grpo_path)", splits.grpo_train),
    ):
        if len(examples) == 0:
            change = "raise" if split == "held-out" else "lower"
            hint = f"Set data.test_path, or {change} data.test_fraction."
            if split == "training" and config.path is None:
                hint = "Set data.path; data.test_path alone is to evaluate on."
            raise ValueError(f"dataset {config.name!r} has no {split} examples. {hint}")
    return replace(splits, test=draw_examples(splits.test, config.num_test, seed))


def load_held_out(config: DataConfig, seed: int) -> Sequence[Example]:
    """The held-out examples of `load_dataset` without the others: of a test_path only that is read.

    Raises:
        ValueError: on an unknown name, no held-out example, or anything the format rejects.
    """
    reads_files = config.name != "blue_marble" and config.test_path is not None
    test = _load(replace(config, path=None, grpo_path=None) if reads_files else config, seed).test
    if len(test) == 0:
        raise ValueError(f"dataset {config.name!r} has no held-out examples. Set data.test_path.")
    return draw_examples(test, config.num_test, seed)


def _load(config: DataConfig, seed: int) -> Splits:
    if config.name not in DATASETS:
        raise ValueError(f"data.name {config.name!r} is unknown. Known: {', '.join(DATASETS)}.")
    limit_image_pixels(config.max_image_pixels)
    return DATASETS[config.name](config, seed)


__all__ = ["DATASETS", "Splits", "load_dataset", "load_held_out"]
