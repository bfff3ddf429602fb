"""Answers for images that were not trained on, and what they are worth."""

from geogrpo.evaluation.answers import (
    HeldOutPrediction,
    greedy_points,
    held_out_prediction,
    read_held_out,
    sampled_points,
    true_points,
)
from geogrpo.evaluation.closing import answer_rewards, best_constant_guess, held_out_summary
from geogrpo.evaluation.policy import answer_in_batches, predict_held_out

__all__ = [
    "HeldOutPrediction",
    "answer_in_batches",
    "answer_rewards",
    "best_constant_guess",
    "greedy_points",
    "held_out_prediction",
    "held_out_summary",
    "predict_held_out",
    "read_held_out",
    "sampled_points",
    "true_points",
]
