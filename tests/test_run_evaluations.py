"""Evaluations while a run trains: they change nothing, the best policy is kept, training may end early."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import final_tensors, interrupt_at

from geogrpo.checkpoint import list_checkpoints
from geogrpo.config import RunConfig
from geogrpo.evaluation.during import METRICS
from geogrpo.report.run_log import read_metrics
from geogrpo.run import Run, validate


def evaluated(config: RunConfig, **options: Any) -> RunConfig:
    """The run with evaluations while stage 2 trains, without stage 1."""
    return dataclasses.replace(
        config,
        name=options.pop("name", "evaluated"),
        supervised=dataclasses.replace(config.supervised, steps=0),
        evaluation=dataclasses.replace(config.evaluation, **options),
    )


def script(monkeypatch: pytest.MonkeyPatch, *rewards: float) -> None:
    """Have the evaluations find these greedy rewards, one after another."""
    scripted = [dict.fromkeys(METRICS, 0.0) | {"greedy_reward": reward} for reward in rewards]
    monkeypatch.setattr("geogrpo.run.stages.measure", lambda predictions, index: scripted.pop(0))


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    """Step -> metrics."""
    record = json.loads((folder / "evaluations.json").read_text())
    return {each["step"]: each["metrics"] for each in record["evaluations"]}


def test_evaluations_change_nothing_even_where_a_run_was_killed_and_are_logged_with_their_step(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Run(evaluated(config, name="plain"), device, resume=False)
    plain.train()
    assert not (plain.folder / "evaluations.json").exists()
    assert not (plain.folder / "model_best").exists()
    options = evaluated(config, every_steps=1, num_images=2)
    with monkeypatch.context() as patched:
        interrupt_at(patched, "grpo", 3)
        killed = Run(options, device, resume=False)
        with pytest.raises(KeyboardInterrupt):
            killed.train()
    before = evaluations(killed.folder)
    capsys.readouterr()
    run = Run(options, device, resume=True)
    run.train()
    expected, actual = final_tensors(plain.folder), final_tensors(run.folder)
    assert all(torch.equal(tensor, actual[name]) for name, tensor in expected.items())
    after = evaluations(run.folder)
    assert [list(before), list(after)] == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert before == {step: after[step] for step in before}
    logged = {record["step"]: record for record in read_metrics(run.folder)}
    assert {f"eval/{name}" for name in METRICS} == {key for key in logged[4] if key.startswith("eval/")}
    assert [step for step, record in logged.items() if "eval/geoscore" in record] == [0, 1, 2, 3, 4]
    assert "reward" in logged[4]
    assert "After step 4, on 2 held-out images: greedy_reward" in capsys.readouterr().out


def test_the_best_policy_is_kept_and_training_ends_when_none_follows(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, 0.1, 0.5, 0.3, 0.5)
    options = evaluated(config, every_steps=1, patience=2)
    options = dataclasses.replace(options, keep_checkpoints=1, checkpoint_every=1)
    run = Run(options, device, resume=False)
    run.train()
    assert "Stopped after step 3: no better greedy_reward in 2 evaluations." in capsys.readouterr().out
    kept = [path.name for path in list_checkpoints(run.checkpoints)]
    assert kept == ["0-supervised-0000000", "1-grpo-0000001", "1-grpo-0000003"]
    (shard,) = (run.checkpoints / kept[1]).glob("*.safetensors")
    files = (run.folder / "model_best/model.safetensors", run.folder / "model/model.safetensors", shard)
    of_best, of_last, of_checkpoint = map(load_file, files)
    moved = [tensor for name, tensor in of_best.items() if not torch.equal(tensor, of_last[name])]
    assert len(moved) > 20
    # Under other names there
    assert all(any(torch.equal(tensor, other) for other in of_checkpoint.values()) for tensor in of_best.values())

    resumed = Run(options, device, resume=True)
    resumed.train()
    assert list(evaluations(run.folder)) == [0, 1, 2, 3]
    assert [record["step"] for record in read_metrics(run.folder)] == [0, 1, 2, 3]
    # More patience goes on.
    script(monkeypatch, 0.2)
    patient = dataclasses.replace(options, evaluation=dataclasses.replace(options.evaluation, patience=4))
    Run(patient, device, resume=True).train()
    assert list(evaluations(run.folder)) == [0, 1, 2, 3, 4]


def test_a_metric_that_is_not_known_is_refused_at_the_start(config: RunConfig) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.best_metric 'accuracy' is unknown"):
        validate(evaluated(config, best_metric="accuracy"))
