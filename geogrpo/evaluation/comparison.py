"""This evaluation against another one on the same images.

Compared are the images that both have a row for, whatever it says: an answer without coordinates is a miss on either
side. An image of this evaluation that the other has no row for stops it, or is left out where that is allowed: a run
that was cut short must not lose by its misses. Rows of other images are passed over and counted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geogrpo.evaluation.answers import HeldOutPrediction, true_points
from geogrpo.evaluation.foreign import ForeignAnswer, match_predictions, read_foreign
from geogrpo.evaluation.scores import TRACKS, answer_points
from geogrpo.metrics import Answers, Difference, compare_runs

MAX_LISTED = 10
"""Images named in a message."""


@dataclass(frozen=True)
class Comparison:
    """What differs between two evaluations; `before` is the other one, `after` this one."""

    other: str
    """As it was named."""
    num_images: int
    """Compared."""
    num_only_here: int
    """Images left out, as the other has no row for them."""
    num_only_there: int
    """Rows of images that this evaluation has none for."""
    tracks: dict[str, dict[str, Difference]]
    """Track that both have -> metric -> difference."""


def read_other(path: Path) -> dict[str, ForeignAnswer]:
    """The answers of another evaluation, or of any file that --predictions reads.

    Args:
        path: the evaluation's folder, or a file.
    Raises:
        ValueError: naming --compare, or the file and row.
    """
    if not path.is_dir():
        return read_foreign(path, option="--compare")
    file = path / "predictions.jsonl"
    if not file.is_file():
        raise ValueError(
            f"--compare {path}: has no predictions.jsonl. Of an evaluation of --predictions, give that file again."
        )
    return read_foreign(file, option="--compare")


def compare(
    predictions: Sequence[HeldOutPrediction],
    other: Mapping[str, ForeignAnswer],
    *,
    name: str,
    unanswered: Collection[str] = (),
    allow_missing: bool,
    **options: Any,
) -> Comparison:
    """The differences on every track that both have.

    Args:
        other: from read_other.
        name: of the other one.
        unanswered: ids of predictions that only stand for a missing row.
        allow_missing: whether images that the other lacks may be left out.
        options: of metrics.compare_runs.
    Raises:
        ValueError: when such images are not allowed, when no image or no track is left, or when the other's own truth
            is not the data's, naming the row.
    """
    unanswered = set(unanswered)
    answered = [i for i, p in enumerate(predictions) if p.id not in unanswered]
    rows = [i for i in answered if predictions[i].id in other]
    lacking = [predictions[i].id for i in answered if predictions[i].id not in other]
    if not rows:
        raise ValueError(f"--compare {name}: none of its {len(other):,} ids is one of this evaluation's.")
    if lacking and not allow_missing:
        raise ValueError(
            f"--compare {name}: has no answer to {len(lacking):,} of {len(answered):,} images, such as"
            f" {', '.join(map(repr, lacking[:MAX_LISTED]))}."
            " --allow-missing leaves them out of the comparison."
        )
    here = [predictions[i] for i in rows]
    there, _, _ = match_predictions(other, [(p.id, p.true_latlon_deg) for p in here])
    # Either side may be a file of names alone.
    before, after = (answer_points(side, may_be_names_only=True) for side in (there, here))
    common = [track for track in TRACKS if track in before and track in after]
    if not common:
        raise ValueError(
            f"--compare {name}: has answers as {' and '.join(before)} only, this evaluation as {' and '.join(after)}."
        )
    if (labels := options.get("osv_labels")) is not None:
        options["osv_labels"] = {label: [texts[i] for i in rows] for label, texts in labels.items()}
    ids, truth = [p.id for p in here], true_points(here).numpy()
    differences = {
        track: compare_runs(Answers(ids, before[track]), Answers(ids, after[track]), truth, **options)
        for track in common
    }
    return Comparison(name, len(rows), len(lacking), len(other) - len(rows), differences)
