"""What a group, a packed row and a sampling phase cost: floating-point operations, seconds and bytes.

A multiplication and an addition are two operations. Counted are matrix products and attention; norms, activations and
rotary embeddings are left out, as torch.utils.flop_counter leaves them out. Attention is counted as it is computed
(policy.attention): whole rectangles, also where a mask hides a part.

Shapes: G group, H hidden, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from geogrpo_kernels.head import row_chunks

from geogrpo.plan.shapes import ModelShape, TowerShape

BACKWARD_FLOPS = 2
"""Operations of a backward pass in forward passes: gradients of both factors of each product."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Hardware:
    """A GPU, and what of it is assumed to be reached."""

    name: str
    flops_per_s: float
    """Dense, in bfloat16."""
    bytes_per_s: float
    memory_gb: float
    use_of_flops: float
    """Share of flops_per_s in training and prefill."""
    use_of_bandwidth: float
    """Share of bytes_per_s while decoding."""


H200 = Hardware("H200", flops_per_s=989e12, bytes_per_s=4.8e12, memory_gb=141.0, use_of_flops=0.2, use_of_bandwidth=0.5)
"""Peaks from NVIDIA's data sheet of the H200 SXM. The two shares are guesses, measured nowhere in this project; others
report 8 to 23 % of the peak for GRPO of 3B and 7B vision-language models (EasyR1, assets/baselines.md).
"""


@dataclass(frozen=True)
class GroupSize:
    """Tokens of one prompt and its completions."""

    image_tokens: int
    text_tokens: int
    completion_tokens: int
    """Of one completion, end token included."""
    group_size: int

    @property
    def prompt_tokens(self) -> int:
        """Image and text."""
        return self.image_tokens + self.text_tokens

    @property
    def new_inputs(self) -> int:
        """Input tokens of one completion: its last is a target only."""
        return self.completion_tokens - 1

    @property
    def packed_tokens(self) -> int:
        """Tokens that go through the model, the prompt once (as packing.Group.num_unique_tokens)."""
        return self.prompt_tokens + self.group_size * self.new_inputs

    @property
    def repeated_tokens(self) -> int:
        """Tokens that would go through it if every completion had the prompt to itself."""
        return self.group_size * (self.prompt_tokens + self.new_inputs)

    @property
    def scored_tokens(self) -> int:
        """Tokens with a log-prob."""
        return self.group_size * self.completion_tokens


def prefill_flops(shape: ModelShape, group: GroupSize) -> float:
    """Operations that read one prompt and give the logits of its last token."""
    return sum(packed_flops(shape, group.image_tokens, group.prompt_tokens, [], 1))


def forward_flops(shape: ModelShape, group: GroupSize) -> float:
    """Operations of one forward pass over one packed group, log-probs of its completions included."""
    new_inputs = [group.new_inputs] * group.group_size
    return sum(packed_flops(shape, group.image_tokens, group.prompt_tokens, new_inputs, group.scored_tokens))


def packed_flops(
    shape: ModelShape, image_tokens: int, prompt_tokens: int, new_inputs: Sequence[int], scored_tokens: int
) -> tuple[float, float]:
    """Operations of one forward pass over a packed group, by the language model with its head and by the vision tower.

    Of the prompt the last block computes keys and values, and everything else at its last token alone.

    Args:
        new_inputs: input tokens of each completion.
        scored_tokens: that the head computes logits for.
    """
    tower = shape.language
    tokens = prompt_tokens + sum(new_inputs)
    own_pairs = sum(new * (prompt_tokens + new) for new in new_inputs)
    pairs = (tower.num_blocks - 1) * prompt_tokens**2 + prompt_tokens + tower.num_blocks * own_pairs
    keys_and_values = 2 * tower.hidden_size * tower.key_size
    not_computed = (tower.weights / tower.num_blocks - keys_and_values) * (prompt_tokens - 1)
    blocks = 2.0 * (tower.weights * tokens - not_computed) + 4.0 * tower.query_size * pairs
    return blocks + 2.0 * shape.head_weights * scored_tokens, _vision_flops(shape, image_tokens)


def _vision_flops(shape: ModelShape, image_tokens: int) -> float:
    tower, patches, tokens = shape.vision, image_tokens * shape.merge_size**2, tower_tokens(shape, image_tokens)
    whole = (tower.num_blocks - shape.num_windowed_blocks) * tokens**2
    windowed = shape.num_windowed_blocks * tokens * min(tokens, shape.window_patches + shape.num_class_tokens)
    blocks = 2.0 * tower.weights * tokens + 4.0 * tower.query_size * (whole + windowed)
    return blocks + 2.0 * (shape.patch_weights * patches + shape.merger_weights * image_tokens)


def tower_tokens(shape: ModelShape, image_tokens: int) -> int:
    """Tokens in the vision tower's blocks: the patches of so many image tokens, and a class token per tile."""
    patches = image_tokens * shape.merge_size**2
    return patches + (shape.num_class_tokens and shape.num_class_tokens * (patches // shape.window_patches))


def training_seconds(
    shape: ModelShape, group: GroupSize, num_groups: int, *, use_reference: bool, hardware: Hardware
) -> float:
    """Forward and backward pass over groups on one GPU, and the reference's forward pass."""
    passes = 1 + BACKWARD_FLOPS + use_reference
    return num_groups * passes * forward_flops(shape, group) / (hardware.flops_per_s * hardware.use_of_flops)


def sampling_seconds(
    shape: ModelShape, group: GroupSize, num_prompts: int, *, number_bytes: int, hardware: Hardware
) -> float:
    """Sampling `num_prompts` groups together on one GPU, every completion at its full length.

    Each decoding step takes what computing or reading takes, whichever is longer: the weights once, the prompts' keys
    and values once per group, the completions' own.
    """
    rows = num_prompts * group.group_size
    tower, mean_new = shape.language, group.completion_tokens / 2
    pairs = rows * (group.prompt_tokens + mean_new)
    flops = 2.0 * (tower.weights + shape.head_weights) * rows + 4.0 * tower.num_blocks * tower.query_size * pairs
    keys = num_prompts * group.prompt_tokens + rows * mean_new
    read = number_bytes * (tower.weights + shape.head_weights) + cache_bytes_per_token(shape, number_bytes) * keys
    flops_per_s = hardware.flops_per_s * hardware.use_of_flops
    per_step = max(flops / flops_per_s, read / (hardware.bytes_per_s * hardware.use_of_bandwidth))
    return num_prompts * prefill_flops(shape, group) / flops_per_s + group.new_inputs * per_step


def cache_bytes_per_token(shape: ModelShape, number_bytes: int) -> int:
    """Keys and values of one token in all layers of the language model."""
    return 2 * shape.language.key_size * shape.language.num_blocks * number_bytes


def activation_bytes(shape: ModelShape, group: GroupSize, num_groups: int, number_bytes: int) -> int:
    """What the blocks keep for the backward pass of one packed row of equal groups.

    Without activation checkpointing, and with an attention kernel that keeps no scores. Per token and block, in numbers
    of the compute dtype unless said: two norms (their input and output; an RMS norm its input in float32 and the
    normalised values as well), query and attention output twice, keys and values, the MLP's inner values (gate, its
    activation, the other factor and the product; without a gate, before and after the activation). Completions also
    keep copies of their prompt's keys and values, and each rectangle its mask in the compute dtype.
    """
    tower, prompt, new = shape.language, group.prompt_tokens, group.new_inputs
    completions = num_groups * group.group_size
    tokens = num_groups * group.packed_tokens
    per_token = _norm_bytes(tower, number_bytes) + number_bytes * (3 * tower.query_size + _mlp_numbers(tower))
    if tower.has_head_norms:
        per_token += (FLOAT32_BYTES + number_bytes) * (tower.query_size + tower.key_size)
    keys = num_groups * prompt + (completions * (prompt + new) if new else 0)
    masks = prompt**2 + completions * new * (prompt + new)
    language = per_token * tokens + number_bytes * (2 * tower.key_size * keys + masks)
    eye = shape.vision
    per_patch = _norm_bytes(eye, number_bytes) + number_bytes * (5 * eye.query_size + _mlp_numbers(eye))
    if eye.has_layer_scales:
        # Both of what they scale; without rotary positions, which go with them, one copy less is kept.
        per_patch += number_bytes * eye.hidden_size
    patches = num_groups * tower_tokens(shape, group.image_tokens)
    return tower.num_blocks * language + eye.num_blocks * per_patch * patches


def _norm_bytes(tower: TowerShape, number_bytes: int) -> int:
    per_number = 2 * number_bytes if tower.has_layer_norm else FLOAT32_BYTES + 2 * number_bytes
    return 2 * per_number * tower.hidden_size


def _mlp_numbers(tower: TowerShape) -> int:
    return (4 if tower.is_gated else 2) * tower.intermediate_size


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the fullest GPU."""

    parameters: int
    """Float32 master weights, this GPU's shard."""
    gradients: int
    """Float32, this GPU's shard. Kept while sampling: they are freed when the next step begins."""
    optimizer: int
    """AdamW's two moments, float32, this GPU's shard."""
    reference: int
    """The reference's shard, in the compute dtype. 0 without a KL."""
    gathered: int
    """While training: everything outside the blocks, and two blocks, in the compute dtype."""
    gradients_in_flight: int
    """The head's gradient in float32 and the compute dtype, and two blocks' before they are summed over the GPUs."""
    activations: int
    """Of one packed row."""
    head_chunk: int
    """Float32 logits of one chunk of tokens."""
    gathered_for_sampling: int
    """All parameters in the compute dtype."""
    cache: int
    """Keys and values of prompts and completions, in the larger of sampling and evaluation."""
    logits: int
    """Float32 logits of one decoding step and what is computed of them, in the larger of the two."""
    prefill: int
    """One block's inner values for all prompts that are read together, in the larger of the two."""
    loading: int
    """The whole model in float32, before it is sharded."""

    @property
    def kept(self) -> int:
        """There all the time."""
        return self.parameters + self.gradients + self.optimizer + self.reference

    @property
    def training_peak(self) -> int:
        """Most while training."""
        return self.kept + self.gathered + self.gradients_in_flight + self.activations + self.head_chunk

    @property
    def sampling_peak(self) -> int:
        """Most while sampling: either the prompts are read or the completions decoded."""
        return self.kept + self.gathered_for_sampling + self.cache + max(self.logits, self.prefill)


def plan_memory(
    shape: ModelShape,
    training: GroupSize,
    groups_per_row: int,
    sampling: list[tuple[GroupSize, int]],
    *,
    num_gpus: int,
    number_bytes: int,
    use_reference: bool,
) -> MemoryPlan:
    """Memory of one stage.

    Args:
        training: a group that is trained on.
        groups_per_row: groups in the fullest packed row.
        sampling: (a group, how many of them are sampled together on one GPU) of each sampling phase.
        number_bytes: of the compute dtype.
    """
    shard = -(-FLOAT32_BYTES * shape.num_parameters // num_gpus)
    block = max(shape.language.block_parameters, shape.vision.block_parameters)
    root = number_bytes * shape.root_parameters
    chunks = row_chunks(groups_per_row * training.scored_tokens, shape.vocab_size)
    per_token = cache_bytes_per_token(shape, number_bytes)
    # Logits, the same by temperature, their softmax and its sums
    logits_bytes = 4 * FLOAT32_BYTES * shape.vocab_size
    return MemoryPlan(
        parameters=shard,
        gradients=shard,
        optimizer=2 * shard,
        reference=-(-number_bytes * shape.num_parameters // num_gpus) if use_reference else 0,
        gathered=root + 2 * number_bytes * block,
        gradients_in_flight=(FLOAT32_BYTES + number_bytes) * (shape.head_weights + 2 * block),
        activations=activation_bytes(shape, training, groups_per_row, number_bytes),
        head_chunk=FLOAT32_BYTES * shape.vocab_size * (chunks[0].stop if chunks else 0),
        gathered_for_sampling=number_bytes * shape.num_parameters,
        cache=max(
            per_token * num * (group.prompt_tokens + group.group_size * group.completion_tokens)
            for group, num in sampling
        ),
        logits=max(logits_bytes * num * group.group_size for group, num in sampling),
        prefill=max(_prefill_bytes(shape, group, num, number_bytes) for group, num in sampling),
        loading=FLOAT32_BYTES * shape.num_parameters,
    )


def _prefill_bytes(shape: ModelShape, group: GroupSize, num_prompts: int, number_bytes: int) -> int:
    """The larger of a language block's and a vision block's inner values, and the pixels in float32."""
    patches = num_prompts * group.image_tokens * shape.merge_size**2
    language, vision = (
        number_bytes * tokens * (4 * tower.hidden_size + 3 * tower.intermediate_size)
        for tower, tokens in ((shape.language, num_prompts * group.prompt_tokens), (shape.vision, patches))
    )
    pixels = FLOAT32_BYTES * patches * shape.patch_weights // shape.vision.hidden_size
    return max(language, vision) + pixels
