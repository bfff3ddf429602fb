"""The options of other trainers, and what stands here for each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ours:
    """What stands here for another trainer's option."""

    keys: tuple[str, ...]
    """Full keys of RunConfig; empty where nothing stands for it."""
    note: str
    """What differs, or why there is nothing; "" where nothing needs to be said."""


def _key(*keys: str, note: str = "") -> Ours:
    return Ours(keys, note)


def _none(why: str) -> Ours:
    return Ours((), why)


_EVERY_STEP = "every step is logged"
_WHOLE_DISTRIBUTION = "completions are drawn from the policy's whole distribution, which the ratios are computed from"
_NO_SERVER = "the policy samples with its own weights, on the GPUs it trains on"
_NEVER_CUT = "a prompt and its image are never cut; one that does not fit stops the run, named"
_MICROBATCH = _key("tokens_per_microbatch", note="rows are filled up to a number of tokens; the gradient is the same")
_CLIPS = _key("grpo.loss.clip_low", "grpo.loss.clip_high")
_CORRECTION = _key("grpo.sampling.correction", note="only where the sampler is not the policy itself")
_CORRECTION_CAP = _key("grpo.sampling.correction_cap")
_STEPS = _key("grpo.steps", note="an epoch is the number of examples divided by grpo.prompts_per_step")
_RESUME = _none("`--resume` on the command line goes on after the newest checkpoint of the run's folder")
_PACKED = _none("rows are always packed")
_LORA = _key("model.lora.rank", note="0 trains all parameters; adapters need model.freeze_vision")
_TRACKERS = _key("logging.trackers", note="metrics.jsonl and TensorBoard are always written")
_RATE = "that of stage 1 is supervised.optimizer.lr"
_WARMUP = _key("grpo.optimizer.warmup_steps", note="a number of steps, not a share")

OTHER_NAMES: dict[str, dict[str, Ours]] = {
    "TRL": {
        "model_name_or_path": _key("model.path"),
        "dtype": _key("model.dtype"),
        "torch_dtype": _key("model.dtype"),
        "bf16": _key("model.dtype", note="bfloat16 unless it says float32"),
        "fp16": _none("model.dtype is bfloat16 or float32"),
        "attn_implementation": _key("model.attention"),
        "gradient_checkpointing": _key("model.activation_checkpointing"),
        "torch_compile": _key("model.compile"),
        "use_peft": _LORA,
        "lora_r": _key("model.lora.rank"),
        "lora_alpha": _key("model.lora.alpha"),
        "lora_target_modules": _key("model.lora.targets"),
        "lora_dropout": _none("adapters have no dropout: log-probs of sampling and of training must agree"),
        "load_in_4bit": _none("models are trained unquantised"),
        "load_in_8bit": _none("models are trained unquantised"),
        "use_liger_kernel": _none("the head and the loss are always computed together"),
        "disable_dropout": _none("there is no dropout"),
        "dataset_name": _key("data.name", "data.path"),
        "dataset_train_split": _key("data.path"),
        "dataset_test_split": _key("data.test_path"),
        "shuffle_dataset": _key("data.draw"),
        "dataloader_num_workers": _key("data.num_loaders"),
        "remove_unused_columns": _none("an example keeps its columns, which rewards get by name"),
        "max_pixels": _key("model.max_pixels"),
        "min_pixels": _key("model.min_pixels"),
        "output_dir": _key("output_dir"),
        "run_name": _key("name"),
        "seed": _key("seed"),
        "data_seed": _key("seed"),
        "max_steps": _key("grpo.steps"),
        "num_train_epochs": _STEPS,
        "per_device_train_batch_size": _key(
            "grpo.prompts_per_step", note="counts prompts over all ranks, not completions of a device"
        ),
        "gradient_accumulation_steps": _MICROBATCH,
        "steps_per_generation": _none("a step samples once what it trains on"),
        "generation_batch_size": _none(
            "a step samples what it trains on, grpo.prompts_per_step times grpo.group_size completions"
        ),
        "num_generations": _key("grpo.group_size"),
        "max_completion_length": _key("grpo.sampling.max_new_tokens"),
        "max_prompt_length": _none(_NEVER_CUT),
        "temperature": _key("grpo.sampling.temperature"),
        "top_p": _none(_WHOLE_DISTRIBUTION),
        "top_k": _none(_WHOLE_DISTRIBUTION),
        "min_p": _none(_WHOLE_DISTRIBUTION),
        "repetition_penalty": _none(_WHOLE_DISTRIBUTION),
        "use_vllm": _none(_NO_SERVER),
        "vllm_mode": _none(_NO_SERVER),
        "vllm_gpu_memory_utilization": _key("grpo.sampling.max_rows", note="bounds the memory that sampling takes"),
        "vllm_server_base_url": _none(_NO_SERVER),
        "vllm_tensor_parallel_size": _none(_NO_SERVER),
        "vllm_importance_sampling_correction": _CORRECTION,
        "vllm_importance_sampling_mode": _CORRECTION,
        "vllm_importance_sampling_cap": _CORRECTION_CAP,
        "beta": _key("grpo.loss.beta"),
        "epsilon": _CLIPS,
        "epsilon_high": _key("grpo.loss.clip_high"),
        "delta": _key("grpo.loss.delta"),
        "loss_type": _key("grpo.loss.name"),
        "importance_sampling_level": _key("grpo.loss.name", note="`sequence` is gspo, `sequence_token` gspo_token"),
        "sapo_temperature_pos": _key("grpo.loss.tau_positive"),
        "sapo_temperature_neg": _key("grpo.loss.tau_negative"),
        "scale_rewards": _key("grpo.advantage_scale"),
        "reward_funcs": _key("grpo.rewards.weights", note="or a published set by grpo.rewards.preset"),
        "reward_weights": _key("grpo.rewards.weights", note="reward name to weight"),
        "multi_objective_aggregation": _key("grpo.rewards.aggregation"),
        "num_iterations": _key("grpo.updates_per_sample"),
        "mask_truncated_completions": _key("grpo.overlong.mask_truncated"),
        "top_entropy_quantile": _key("grpo.loss.top_entropy_share"),
        "sync_ref_model": _key("grpo.reference.sync_every", note="0 never moves the reference"),
        "ref_model_sync_steps": _key("grpo.reference.sync_every"),
        "ref_model_mixup_alpha": _key("grpo.reference.sync_mix"),
        "learning_rate": _key("grpo.optimizer.lr", note=_RATE),
        "warmup_ratio": _WARMUP,
        "warmup_steps": _key("grpo.optimizer.warmup_steps"),
        "lr_scheduler_type": _key(
            "grpo.optimizer.final_lr_fraction", note="the decay is linear; 1 keeps the rate constant"
        ),
        "weight_decay": _key("grpo.optimizer.weight_decay"),
        "adam_beta1": _key("grpo.optimizer.beta1"),
        "adam_beta2": _key("grpo.optimizer.beta2"),
        "max_grad_norm": _key("grpo.optimizer.max_grad_norm"),
        "optim": _none("the optimizer is AdamW"),
        "fsdp": _key("parallel.shard_within", note="always FSDP2"),
        "fsdp_config": _key("parallel.shard_within", "parallel.cpu_offload"),
        "deepspeed": _key("parallel.shard_within", "parallel.cpu_offload", note="FSDP2 shards as ZeRO-3 does"),
        "report_to": _TRACKERS,
        "logging_dir": _key("output_dir", note="TensorBoard's events are in the run's folder there"),
        "logging_steps": _none(_EVERY_STEP),
        "log_completions": _none("every completion is in the run's completions.jsonl"),
        "num_completions_to_print": _none("every completion is in the run's completions.jsonl"),
        "save_steps": _key("checkpoint_every"),
        "save_strategy": _key("checkpoint_every"),
        "save_total_limit": _key("keep_checkpoints"),
        "eval_steps": _key("evaluation.every_steps"),
        "eval_strategy": _key("evaluation.every_steps", "evaluation.every_minutes"),
        "per_device_eval_batch_size": _key("evaluation.batch_size"),
        "num_generations_eval": _key("evaluation.num_samples"),
        "metric_for_best_model": _key("evaluation.best_metric"),
        "load_best_model_at_end": _key("evaluation.best_metric", note="the best checkpoint is kept beside the last"),
        "early_stopping_patience": _key("evaluation.patience"),
        "resume_from_checkpoint": _RESUME,
    },
    "VLM-R1": {
        "data_file_paths": _key("data.path", note="with data.name vlm_r1"),
        "image_folders": _key("data.images"),
        "val_split_ratio": _key("data.test_fraction"),
        "freeze_vision_modules": _key("model.freeze_vision"),
    },
    "ms-swift": {
        "dataset": _key("data.name", "data.path"),
        "val_dataset": _key("data.test_path"),
        "split_dataset_ratio": _key("data.test_fraction"),
        "max_length": _none(_NEVER_CUT),
        "train_type": _LORA,
        "tuner_type": _LORA,
        "lora_rank": _key("model.lora.rank"),
        "target_modules": _key("model.lora.targets"),
        "freeze_vit": _key("model.freeze_vision"),
        "freeze_aligner": _key("model.freeze_aligner"),
        "freeze_llm": _none("the language model, or its adapters, is what trains"),
        "attn_impl": _key("model.attention"),
        "dynamic_sample": _key("grpo.max_resampling_rounds"),
        "max_resample_times": _key("grpo.max_resampling_rounds"),
        "overlong_filter": _key("grpo.overlong.mask_truncated"),
        "soft_cache_length": _key("grpo.overlong.buffer_tokens"),
        "soft_max_length": _key("grpo.sampling.max_new_tokens", note="the penalty ends where completions do"),
        "kl_in_reward": _key("grpo.loss.kl_in"),
        "advantage_estimator": _key("grpo.advantage_baseline", "grpo.loss.name"),
        "tau_pos": _key("grpo.loss.tau_positive"),
        "tau_neg": _key("grpo.loss.tau_negative"),
        "rollout_importance_sampling_mode": _CORRECTION,
        "rollout_importance_sampling_threshold": _CORRECTION_CAP,
        "external_plugins": _none("rewards of your own are passed to train_grpo(rewards=...)"),
    },
    "verl": {
        "data.train_files": _key("data.path"),
        "data.val_files": _key("data.test_path"),
        "data.train_batch_size": _key("grpo.prompts_per_step"),
        "data.val_batch_size": _key("evaluation.batch_size"),
        "data.max_prompt_length": _none(_NEVER_CUT),
        "data.max_response_length": _key("grpo.sampling.max_new_tokens"),
        "data.filter_overlong_prompts": _none(_NEVER_CUT),
        "data.truncation": _none(_NEVER_CUT),
        "data.image_key": _key("data.columns"),
        "data.prompt_key": _key("answer.prompt", note="one wording for all examples"),
        "data.shuffle": _key("data.draw"),
        "data.dataloader_num_workers": _key("data.num_loaders"),
        "actor_rollout_ref.model.path": _key("model.path"),
        "actor_rollout_ref.model.lora_rank": _key("model.lora.rank"),
        "actor_rollout_ref.model.lora_alpha": _key("model.lora.alpha"),
        "actor_rollout_ref.model.target_modules": _key("model.lora.targets"),
        "actor_rollout_ref.model.enable_gradient_checkpointing": _key("model.activation_checkpointing"),
        "actor_rollout_ref.model.use_remove_padding": _PACKED,
        "actor_rollout_ref.model.use_fused_kernels": _none("the head and the loss are always computed together"),
        "actor_rollout_ref.actor.strategy": _none("always FSDP2"),
        "actor_rollout_ref.actor.freeze_vision_tower": _key("model.freeze_vision"),
        "actor_rollout_ref.actor.ppo_mini_batch_size": _none("an update takes all completions of its step"),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": _MICROBATCH,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": _MICROBATCH,
        "actor_rollout_ref.actor.use_dynamic_bsz": _PACKED,
        "actor_rollout_ref.actor.ppo_epochs": _key("grpo.updates_per_sample"),
        "actor_rollout_ref.actor.clip_ratio": _CLIPS,
        "actor_rollout_ref.actor.clip_ratio_low": _key("grpo.loss.clip_low"),
        "actor_rollout_ref.actor.clip_ratio_high": _key("grpo.loss.clip_high"),
        "actor_rollout_ref.actor.clip_ratio_c": _key("grpo.loss.delta"),
        "actor_rollout_ref.actor.use_kl_loss": _key("grpo.loss.beta", note="0 has no KL; see also grpo.loss.kl_in"),
        "actor_rollout_ref.actor.kl_loss_coef": _key("grpo.loss.beta"),
        "actor_rollout_ref.actor.kl_loss_type": _key("grpo.loss.kl_estimator", note="low_var_kl is k3"),
        "actor_rollout_ref.actor.entropy_coeff": _key("grpo.loss.entropy_coef"),
        "actor_rollout_ref.actor.loss_agg_mode": _key(
            "grpo.loss.name",
            note="token-mean is dapo, seq-mean-token-mean grpo, seq-mean-token-sum-norm dr_grpo",
        ),
        "actor_rollout_ref.actor.policy_loss.loss_mode": _key("grpo.loss.name"),
        "actor_rollout_ref.actor.grad_clip": _key("grpo.optimizer.max_grad_norm"),
        "actor_rollout_ref.actor.optim.lr": _key("grpo.optimizer.lr", note=_RATE),
        "actor_rollout_ref.actor.optim.lr_warmup_steps": _key("grpo.optimizer.warmup_steps"),
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": _WARMUP,
        "actor_rollout_ref.actor.optim.min_lr_ratio": _key("grpo.optimizer.final_lr_fraction"),
        "actor_rollout_ref.actor.optim.weight_decay": _key("grpo.optimizer.weight_decay"),
        "actor_rollout_ref.actor.use_torch_compile": _key("model.compile"),
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size": _none("a row is on one rank"),
        "actor_rollout_ref.actor.fsdp_config.param_offload": _key("parallel.cpu_offload"),
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload": _key("parallel.cpu_offload"),
        "actor_rollout_ref.actor.fsdp_config.fsdp_size": _key("parallel.shard_within"),
        "actor_rollout_ref.rollout.name": _key("grpo.sampling.engine"),
        "actor_rollout_ref.rollout.n": _key("grpo.group_size"),
        "actor_rollout_ref.rollout.temperature": _key("grpo.sampling.temperature"),
        "actor_rollout_ref.rollout.top_p": _none(_WHOLE_DISTRIBUTION),
        "actor_rollout_ref.rollout.top_k": _none(_WHOLE_DISTRIBUTION),
        "actor_rollout_ref.rollout.response_length": _key("grpo.sampling.max_new_tokens"),
        "actor_rollout_ref.rollout.max_num_seqs": _key("grpo.sampling.max_rows"),
        "actor_rollout_ref.rollout.gpu_memory_utilization": _key(
            "grpo.sampling.max_rows", note="bounds the memory that sampling takes"
        ),
        "actor_rollout_ref.rollout.tensor_model_parallel_size": _none(_NO_SERVER),
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": _MICROBATCH,
        "actor_rollout_ref.rollout.val_kwargs.n": _key("evaluation.num_samples"),
        "actor_rollout_ref.rollout.val_kwargs.temperature": _key("evaluation.temperature"),
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": _MICROBATCH,
        "algorithm.adv_estimator": _key("grpo.advantage_baseline", "grpo.loss.name"),
        "algorithm.norm_adv_by_std_in_grpo": _key("grpo.advantage_scale"),
        "algorithm.use_kl_in_reward": _key("grpo.loss.kl_in"),
        "algorithm.kl_penalty": _key("grpo.loss.kl_estimator"),
        "algorithm.kl_ctrl.kl_coef": _key("grpo.loss.beta"),
        "algorithm.gamma": _none("a completion has one reward, at its end"),
        "algorithm.lam": _none("a completion has one reward, at its end"),
        "algorithm.filter_groups.enable": _key("grpo.max_resampling_rounds", note="0 replaces no groups"),
        "algorithm.filter_groups.max_num_gen_batches": _key("grpo.max_resampling_rounds"),
        "algorithm.rollout_correction.rollout_is": _CORRECTION,
        "algorithm.rollout_correction.rollout_is_threshold": _CORRECTION_CAP,
        "reward_model.overlong_buffer.enable": _key("grpo.overlong.buffer_tokens", note="0 has no penalty"),
        "reward_model.overlong_buffer.len": _key("grpo.overlong.buffer_tokens"),
        "reward_model.overlong_buffer.penalty_factor": _key("grpo.overlong.penalty"),
        "custom_reward_function.path": _none("rewards of your own are passed to train_grpo(rewards=...)"),
        "trainer.total_epochs": _STEPS,
        "trainer.total_training_steps": _key("grpo.steps"),
        "trainer.save_freq": _key("checkpoint_every"),
        "trainer.max_actor_ckpt_to_keep": _key("keep_checkpoints"),
        "trainer.test_freq": _key("evaluation.every_steps"),
        "trainer.logger": _TRACKERS,
        "trainer.project_name": _key("logging.project"),
        "trainer.experiment_name": _key("name"),
        "trainer.default_local_dir": _key("output_dir"),
        "trainer.n_gpus_per_node": _none("torchrun's --nproc-per-node says it"),
        "trainer.nnodes": _none("torchrun's --nnodes says it"),
        "trainer.critic_warmup": _none("there is no critic"),
        "trainer.resume_mode": _RESUME,
    },
}
"""Trainer -> its option -> ours. Names of ms-swift and VLM-R1 are those that TRL does not have."""
