"""TRL's GRPOTrainer on given work. See train_step_work.py; runs in TRL's own environment.

Settings are the fastest of those tried; bench_train_step.py says which.
"""

# ruff: noqa: E402

import importlib.metadata
import sys
import tempfile
import time
from typing import Any

# Where vLLM is installed TRL imports it, used or not: memory that would count against TRL.
sys.modules["vllm"] = None  # type: ignore[assignment]

import torch
import trl.trainer.utils
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.train_step_work import (
    BETA2,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    STATE_BYTES,
    PeakMemory,
    StepTimes,
    Work,
    given_completions,
    megabytes,
    num_threads,
    pictures,
    resident_bytes,
    reward,
    run_contender,
)

VERSIONS = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "accelerate")}


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer, the time of its sampling taken: prompts, images, generation and rewards."""

    times: StepTimes
    completion_lengths: set[int]
    num_prompt_tokens: int

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        started = time.perf_counter()
        output = super()._generate_and_score_completions(inputs)
        self.times.sampled(time.perf_counter() - started)
        self.completion_lengths |= set(output["completion_mask"].sum(-1).tolist())
        self.num_prompt_tokens = output["prompt_ids"].shape[1]
        return output


class StepEnd(TrainerCallback):
    """Tells when a step is done."""

    def __init__(self, times: StepTimes) -> None:
        self._times = times

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called after the optimizer step."""
        synchronize()
        self._times.end()


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def characters(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    """As ours."""
    return reward([messages[0]["content"] for messages in completions])


def dataset(work: Work) -> Dataset:
    """Pictures stay in memory: a column of images would be decoded for every completion."""
    images = pictures(work)

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        prompt = [{"role": "user", "content": work.question}]
        return {"prompt": [prompt for _ in batch["number"]], "image": [images[i] for i in batch["number"]]}

    return Dataset.from_dict({"number": list(range(len(images)))}).with_transform(rows)


def trainer_config(work: Work, folder: str) -> GRPOConfig:
    """One update per sample; no old log-probs and no reference are needed then, as in ours."""
    assert work.num_completions % work.completions_per_microbatch == 0
    return GRPOConfig(
        output_dir=folder,
        use_cpu=not torch.cuda.is_available(),
        bf16=work.dtype == "bfloat16",
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        max_steps=work.num_steps,
        num_generations=work.group_size,
        per_device_train_batch_size=work.completions_per_microbatch,
        gradient_accumulation_steps=work.num_completions // work.completions_per_microbatch,
        gradient_checkpointing=False,
        max_completion_length=work.new_tokens,
        generation_kwargs={"suppress_tokens": work.never_sampled},
        temperature=1.0,
        beta=0.0,
        learning_rate=LEARNING_RATE,
        adam_beta2=BETA2,
        weight_decay=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def make_trainer(work: Work, folder: str) -> TimedTrainer:
    """Ready to train."""
    if not work.scores_prompts:
        # Asked there whether to leave the prompt's positions out, as on a GPU; the kernels ask elsewhere.
        assert hasattr(trl.trainer.utils, "_use_triton")
        trl.trainer.utils._use_triton = lambda device: True
    times = StepTimes()
    trainer = TimedTrainer(
        model=work.model,
        reward_funcs=characters,
        args=trainer_config(work, folder),
        train_dataset=dataset(work),
        callbacks=[StepEnd(times)],
    )
    trainer.times, trainer.completion_lengths = times, set()
    return trainer


def take_steps(work: Work) -> dict[str, Any]:
    """The seconds, memory and lengths of the steps that count."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder)
        before = resident_bytes()
        with PeakMemory() as process:
            trainer.train()
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return trainer.times.summary(work) | {
        "process_mb": megabytes(process.bytes),
        "process_before_mb": megabytes(before),
        "device_mb": megabytes(device),
        "state_mb": megabytes(STATE_BYTES * trainer.model.num_parameters()),
        "num_prompt_tokens": trainer.num_prompt_tokens,
        "completion_lengths": sorted(trainer.completion_lengths),
        "num_skipped_groups": 0,
        "phases_s": {},
        "threads": torch.get_num_threads(),
        "versions": VERSIONS,
    }


def given_logprobs(work: Work) -> dict[str, Any]:
    """Log-probs of given tokens, by the function that TRL's loss calls."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, folder)
    device = trainer.model.device
    completions = torch.tensor(given_completions(work), device=device).flatten(0, 1)
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": work.question}]}]
    text = trainer.processing_class.apply_chat_template(prompt, add_generation_prompt=True)
    images = [picture for picture in pictures(work)[: work.num_prompts] for _ in range(work.group_size)]
    inputs = trainer.processing_class(images=images, text=[text] * len(images), return_tensors="pt").to(device)
    input_ids = torch.cat([inputs["input_ids"], completions], dim=1)
    with torch.no_grad():
        logprobs, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            input_ids,
            torch.ones_like(input_ids),
            work.new_tokens,
            pixel_values=inputs["pixel_values"],
            image_grid_thw=inputs["image_grid_thw"],
            num_images=[1] * len(images),
            mm_token_type_ids=torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(completions)], dim=1),
        )
    return {"logprobs": logprobs.flatten().tolist()}


def main(works: list[Work]) -> list[dict[str, Any]]:
    """Of one work alone."""
    (work,) = works
    torch.set_num_threads(num_threads())
    return [{"step": take_steps, "logprobs": given_logprobs}[work.task](work)]


if __name__ == "__main__":
    run_contender(main)
