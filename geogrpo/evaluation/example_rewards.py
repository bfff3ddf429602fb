"""What the rewards of a run would have paid for greedy answers, for readers of a report.

A report must not break over a reward: one that asks a judge, is not known here, needs a column that the data lack or
fails is left out, with a line that says why.
"""

from collections.abc import Mapping, Sequence

from geogrpo.config import RewardConfig
from geogrpo.evaluation.answers import HeldOutPrediction
from geogrpo.parsing import parse_completion
from geogrpo.rewards import JUDGED_REWARDS, REWARDS, Reward, check_columns, resolve_preset
from geogrpo.rewards.scoring import score_completions
from geogrpo.types import Example


def greedy_rewards(
    predictions: Sequence[HeldOutPrediction], examples: Mapping[str, Example], config: RewardConfig, question: str
) -> tuple[list[dict[str, float]], list[str]]:
    """Each component of the configured reward, gates included, before weighting.

    Args:
        examples: by id, of every prediction.
        question: the text of the prompt.
    Returns:
        reward -> value for each prediction, NaN where it does not apply; nothing for an answer that is not what its
        text says, as where a file has coordinates beside a text. And a line for each reward left out.
    """
    earned: list[dict[str, float]] = [{} for _ in predictions]
    rows = [i for i, prediction in enumerate(predictions) if _is_read_from_its_text(prediction)]
    preset, notes = resolve_preset(config), []
    for name in dict.fromkeys([*preset.weights, *preset.gates]):
        if name in JUDGED_REWARDS:
            notes.append(f"reward {name!r} is left out of the report: it asks a judge.")
        elif name not in REWARDS:
            notes.append(f"reward {name!r} is left out of the report: it is not one of geogrpo.rewards.")
        elif rows:
            try:
                some = [(predictions[i].text, examples[predictions[i].id]) for i in rows]
                for i, value in zip(rows, _values(name, REWARDS[name], some, question), strict=True):
                    earned[i][name] = value
            except ValueError as error:
                notes.append(f"reward {name!r} is left out of the report: {error}")
    return earned, notes


def _is_read_from_its_text(prediction: HeldOutPrediction) -> bool:
    said = parse_completion(prediction.text)
    # A list where it was read from a file
    point = prediction.predicted_latlon_deg and tuple(prediction.predicted_latlon_deg)
    given = (point, prediction.country, prediction.state, prediction.city)
    return given == (said.latlon_deg, said.country, said.state, said.city)


def _values(name: str, reward: Reward, answers: Sequence[tuple[str, Example]], question: str) -> list[float]:
    texts, examples = [text for text, _ in answers], [example for _, example in answers]
    check_columns({name: reward}, examples)
    alone = RewardConfig(weights={name: 1.0}, gates=[])
    # The tokens are not kept, and none of REWARDS asks for them.
    token_ids: list[list[int]] = [[] for _ in texts]
    scores = score_completions([question] * len(texts), texts, examples, token_ids, {name: reward}, alone, group_size=1)
    return scores.components[name][:, 0].tolist()
