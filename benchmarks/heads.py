"""Ways to get log-probs and the GRPO loss from hidden states and a language-model head: ours, PyTorch's and others'.

Each entry of LOGPROBS and POLICY_LOSSES computes the same thing with the settings under which its authors run it, or
better ones; what is not the default is said beside it. Nothing here imports a peer until it is used.

Shapes: T tokens, H hidden, V vocabulary, S sequences of T / S tokens.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from geogrpo_kernels import PolicyObjective, linear_grpo_loss, token_logprobs
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CLIP_LOW, CLIP_HIGH, BETA = 0.2, 0.28, 0.04
"""DAPO's clipping, TRL's former default for the KL: every term of the loss counts. Temperature 1, mean over tokens."""


@dataclass(frozen=True)
class Rollout:
    """What a policy loss needs besides hidden states and head."""

    target_ids: Tensor
    """(T,) int64."""
    advantages: Tensor
    """(S,) of the sequences."""
    old_logprobs: Tensor
    """(T,) of the policy that sampled."""
    ref_logprobs: Tensor
    """(T,) of the reference."""

    @property
    def sequence_length(self) -> int:
        """Tokens of each sequence: peers that take (S, T / S) need them equal."""
        return len(self.target_ids) // len(self.advantages)

    @property
    def token_advantages(self) -> Tensor:
        """(T,)"""
        return self.advantages.repeat_interleave(self.sequence_length)

    def by_sequence(self, values: Tensor) -> Tensor:
        """(T, ...) -> (S, T / S, ...)"""
        return values.view(len(self.advantages), self.sequence_length, *values.shape[1:])


@dataclass(frozen=True)
class Implementation:
    """One way. `run` takes hidden (T, H), weight (V, H) and target_ids (T,) or a Rollout."""

    run: Callable
    needs: tuple[str, ...] = ()
    """module:name of what must be importable."""
    cuda_needs: tuple[str, ...] = ()
    """The same, on a GPU only."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    is_float32_product: bool = False
    """Multiplies float32 matrices: on a GPU measured in PyTorch's default precision and in "high" (TF32)."""
    note: str = ""

    def missing(self, device: str) -> str | None:
        """Why it cannot run here, or None."""
        for name in self.needs + (self.cuda_needs if device == "cuda" else ()):
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError) as error:
                return f"{name.partition(':')[0]}: {error}"
        return None


def grpo_loss(logprobs: Tensor, rollout: Rollout) -> Tensor:
    """The loss of all implementations that come from log-probs: clipped ratio and k3 KL, mean over tokens."""
    dtype = logprobs.dtype
    advantages = rollout.token_advantages.to(dtype)
    ratio = (logprobs - rollout.old_logprobs.to(dtype)).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH) * advantages)
    ref_log_ratio = rollout.ref_logprobs.to(dtype) - logprobs
    return (BETA * (ref_log_ratio.exp() - ref_log_ratio - 1) - surrogate).mean()


def through_logprobs(logprobs_of: Callable) -> Callable:
    """The loss by way of log-probs and autograd."""

    def run(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
        return grpo_loss(logprobs_of(hidden, weight, rollout.target_ids)[0], rollout)

    return run


# geogrpo


def geogrpo_loss(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
    """In one pass."""
    advantages = rollout.token_advantages
    objective = PolicyObjective(
        advantages,
        torch.full_like(advantages, 1 / len(advantages)),
        rollout.old_logprobs,
        rollout.ref_logprobs,
        clip_low=CLIP_LOW,
        clip_high=CLIP_HIGH,
        beta=BETA,
    )
    return linear_grpo_loss(hidden, weight, rollout.target_ids, objective).loss


# PyTorch


def selected(logits: Tensor, target_ids: Tensor) -> Tensor:
    """(T,) log-probs, with the softmax in float32."""
    return F.log_softmax(logits.float(), dim=-1).gather(1, target_ids[:, None])[:, 0]


def plain_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """Full logits in the dtype of the inputs, as models return them."""
    return selected(hidden @ weight.T, target_ids), None


def plain_float32_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """Full float32 logits, from operands converted to float32."""
    return selected(hidden.float() @ weight.float().T, target_ids), None


def checkpointed_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """Float32 logits of some rows at a time, computed again in the backward pass: 16 MiB of them, on a GPU 2 GiB."""
    weight = weight.float()
    step = max(64, (1 << (29 if weight.is_cuda else 22)) // len(weight))
    rows = zip(hidden.split(step), target_ids.split(step), strict=True)
    chunk = lambda part, ids: selected(part.float() @ weight.T, ids)  # noqa: E731
    return torch.cat([checkpoint(chunk, part, ids, use_reentrant=False) for part, ids in rows]), None


def plain_loss(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
    """Full logits."""
    return grpo_loss(plain_logprobs(hidden, weight, rollout.target_ids)[0], rollout)


def plain_float32_loss(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
    """Full float32 logits."""
    return grpo_loss(plain_float32_logprobs(hidden, weight, rollout.target_ids)[0], rollout)


def compiled(function: Callable) -> Callable:
    """For the shape it is called with; compiled at the first call."""
    return torch.compile(function, dynamic=False)


def torch_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """torch.nn.functional.linear_cross_entropy in chunks; its own choice of chunks and accumulation."""
    options = torch.nn.LinearCrossEntropyOptions()
    return -F.linear_cross_entropy(hidden, weight, target_ids, reduction="none", options=options), None


# liger-kernel


def liger_scaled_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """CuTe on Hopper; elsewhere 512 tokens at a time, after verl."""
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

    nll, entropy = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, target_ids, return_entropy=True)
    return -nll, entropy


def liger_cross_entropy_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """Fused linear cross entropy per token, the head's gradient summed in float32."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    nll = liger_fused_linear_cross_entropy(
        hidden, weight, target_ids, reduction="none", accum_dtype=torch.float32, chunk_mem_const=8
    )
    return -nll, None


def liger_linear_loss(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
    """All sequences in one chunk; it cuts into 2048 tokens x 4096 words inside."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    function = LigerFusedLinearGRPOLoss(
        beta=BETA,
        # What is compiled is the loss of (T,) log-probs: nothing to win on a CPU, seconds of compilation to lose.
        compiled=hidden.is_cuda,
        chunk_size=len(rollout.advantages),
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        loss_type="dapo",
    )
    ids = rollout.by_sequence(rollout.target_ids)
    loss, _ = function(
        rollout.by_sequence(hidden),
        weight,
        ids,
        torch.ones_like(ids),
        rollout.advantages,
        ref_per_token_logps=rollout.by_sequence(rollout.ref_logprobs),
        old_per_token_logps=rollout.by_sequence(rollout.old_logprobs),
    )
    return loss


def liger_logits_loss(hidden: Tensor, weight: Tensor, rollout: Rollout) -> Tensor:
    """Full logits, with the row after each sequence that it expects; the gradient takes their place."""
    from liger_kernel.transformers.grpo_loss import triton_grpo_loss

    logits = F.pad(rollout.by_sequence(hidden), (0, 0, 0, 1)) @ weight.T
    loss, _ = triton_grpo_loss(
        logits,
        rollout.by_sequence(rollout.old_logprobs),
        rollout.by_sequence(rollout.ref_logprobs),
        rollout.by_sequence(rollout.target_ids),
        rollout.advantages,
        temperature=1.0,
        beta=BETA,
        eps_low=CLIP_LOW,
        eps_high=CLIP_HIGH,
        loss_type="dapo",
        reduce=True,
    )
    return loss


# TRL


def trl_chunked_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """As its trainers call it."""
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    logprobs, entropy, *_ = ChunkedLogProbFunction.apply(
        hidden, weight, None, target_ids, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("entropy",)
    )
    return logprobs, entropy


def trl_logits_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Full logits."""
    from trl.trainer.utils import selective_log_softmax_and_entropy

    return selective_log_softmax_and_entropy(hidden @ weight.T, target_ids, entropy_requires_grad=False)


# cut-cross-entropy


def cut_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """With its filter, which leaves out small gradients."""
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(hidden, weight, target_ids, reduction="none"), None


def cut_unfiltered_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, None]:
    """filter_eps=None."""
    from cut_cross_entropy import linear_cross_entropy

    return -linear_cross_entropy(hidden, weight, target_ids, reduction="none", filter_eps=None), None


HALF = (torch.bfloat16,)
TRL = ("trl.trainer.utils:_CHUNKED_LOGPROB_CHUNK_SIZE", "trl.kernels:ChunkedLogProbFunction")
OURS = "geogrpo"
# A peer that leaves the GPU in error takes down whatever follows: the hand-written kernels come last.
LOGPROBS = {
    OURS: Implementation(token_logprobs, note="float32 logits, with entropy"),
    "plain PyTorch": Implementation(plain_logprobs, note="full logits"),
    "plain PyTorch, float32 product": Implementation(
        plain_float32_logprobs, dtypes=HALF, is_float32_product=True, note="full logits"
    ),
    "checkpointed PyTorch, float32 product": Implementation(checkpointed_logprobs, is_float32_product=True),
    "compiled PyTorch": Implementation(compiled(plain_logprobs), note="full logits"),
    "compiled PyTorch, float32 product": Implementation(
        compiled(plain_float32_logprobs), dtypes=HALF, devices=("cpu",), note="full logits"
    ),
    "torch linear_cross_entropy": Implementation(torch_logprobs, needs=("torch.nn:LinearCrossEntropyOptions",)),
    "TRL chunked": Implementation(trl_chunked_logprobs, needs=TRL, note="with entropy"),
    "TRL selective_log_softmax": Implementation(trl_logits_logprobs, needs=TRL, note="full logits, with entropy"),
    "Liger scaled cross entropy": Implementation(
        liger_scaled_logprobs,
        needs=("liger_kernel.ops.fused_linear_scaled_cross_entropy:LigerFusedLinearScaledCrossEntropyFunction",),
        cuda_needs=("cutlass",),
        note="with entropy",
    ),
    "Liger fused linear cross entropy": Implementation(
        liger_cross_entropy_logprobs,
        needs=("liger_kernel.transformers.functional:liger_fused_linear_cross_entropy",),
        devices=("cuda",),
        note="chunk_mem_const=8, accum_dtype=float32",
    ),
    "cut-cross-entropy": Implementation(
        cut_logprobs, needs=("cut_cross_entropy:linear_cross_entropy",), devices=("cuda",), note="filters gradients"
    ),
    "cut-cross-entropy, no filter": Implementation(
        cut_unfiltered_logprobs, needs=("cut_cross_entropy:linear_cross_entropy",), devices=("cuda",)
    ),
}
POLICY_LOSSES = {
    OURS: Implementation(geogrpo_loss, note="one pass, float32 logits, with entropy"),
    "geogrpo, token_logprobs": Implementation(through_logprobs(token_logprobs), note="for losses of any form"),
    "plain PyTorch": Implementation(plain_loss, note="full logits"),
    "plain PyTorch, float32 product": Implementation(
        plain_float32_loss, dtypes=HALF, is_float32_product=True, note="full logits"
    ),
    "checkpointed PyTorch, float32 product": Implementation(
        through_logprobs(checkpointed_logprobs), is_float32_product=True
    ),
    "compiled PyTorch": Implementation(compiled(plain_loss), note="full logits"),
    "compiled PyTorch, float32 product": Implementation(
        compiled(plain_float32_loss), dtypes=HALF, devices=("cpu",), note="full logits"
    ),
    "torch linear_cross_entropy": Implementation(
        through_logprobs(torch_logprobs), needs=("torch.nn:LinearCrossEntropyOptions",)
    ),
    "TRL chunked": Implementation(through_logprobs(trl_chunked_logprobs), needs=TRL),
    "Liger fused linear GRPO": Implementation(
        liger_linear_loss,
        needs=("liger_kernel.chunked_loss:LigerFusedLinearGRPOLoss",),
        is_float32_product=True,
        note="all sequences in one chunk",
    ),
    "Liger scaled cross entropy": Implementation(
        through_logprobs(liger_scaled_logprobs),
        needs=("liger_kernel.ops.fused_linear_scaled_cross_entropy:LigerFusedLinearScaledCrossEntropyFunction",),
        cuda_needs=("cutlass",),
    ),
    "Liger GRPO from logits": Implementation(
        liger_logits_loss,
        needs=("liger_kernel.transformers.grpo_loss:triton_grpo_loss",),
        devices=("cuda",),
        note="full logits",
    ),
    "cut-cross-entropy": Implementation(
        through_logprobs(cut_logprobs),
        needs=("cut_cross_entropy:linear_cross_entropy",),
        devices=("cuda",),
        note="filters gradients",
    ),
}
