"""Run by torchrun from kernels/test_shards.py: ops on two shards of a head against the same ops on the whole of it.

Argument: rows of the head on rank 0, of 100.
"""

import os
import sys

import torch
import torch.distributed as dist
from geogrpo_kernels import PolicyObjective, head, linear_grpo_loss, token_logprobs
from geogrpo_kernels.reference import logprobs as reference_logprobs

# Several chunks on every rank
head.CHUNK_BYTES, reference_logprobs.TILE_ELEMENTS, reference_logprobs.MIN_CHUNK_ROWS = 1, 1000, 1
num_rows, vocab_size, num_tokens, hidden_size = int(sys.argv[1]), 100, 200, 8
dist.init_process_group("gloo")
torch.manual_seed(0)
hidden = torch.randn(num_tokens, hidden_size, requires_grad=True)
weight = torch.randn(vocab_size, hidden_size, requires_grad=True)
bias = torch.randn(vocab_size, requires_grad=True)
target_ids = torch.randint(3, vocab_size, (num_tokens,))
forbidden_ids = torch.tensor([0, 2, 99])
target_ids[target_ids == 99] = 98
upstream = torch.randn(2, num_tokens)
mine = slice(0, num_rows) if dist.get_rank() == 0 else slice(num_rows, vocab_size)
options = {"temperature": 0.7, "forbidden_ids": forbidden_ids}
with torch.no_grad():
    sampled, _ = token_logprobs(hidden, weight, target_ids, bias=bias, **options)
objective = PolicyObjective(
    torch.randn(num_tokens),
    torch.rand(num_tokens).round(decimals=1),
    # Ratios near 1, on both sides of the clip: large ones would multiply the rounding of a log-prob
    sampled + 0.3 * torch.randn(num_tokens),
    sampled + 0.3 * torch.randn(num_tokens),
    beta=0.1,
    entropy_coef=0.05,
)


def results(weight: torch.Tensor, bias: torch.Tensor, group: dist.ProcessGroup | None) -> list[torch.Tensor]:
    """Values and gradients of both ops."""
    leaves = hidden, weight, bias
    logprobs = token_logprobs(hidden, weight, target_ids, bias=bias, process_group=group, **options)
    loss = linear_grpo_loss(hidden, weight, target_ids, objective, bias=bias, process_group=group, **options)
    gradients = torch.autograd.grad(logprobs, leaves, tuple(upstream)), torch.autograd.grad(loss.loss, leaves)
    return [*logprobs, *loss[:4], *gradients[0], *gradients[1]]


whole = results(weight, bias, None)
parts = results(
    weight[mine].detach().requires_grad_(),
    bias[mine].detach().requires_grad_(),
    dist.distributed_c10d.GroupMember.WORLD,
)
for value, expected in zip(parts, whole, strict=True):
    expected = expected if expected.shape == value.shape else expected[mine]
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
print("agree", flush=True)
dist.barrier()
dist.destroy_process_group()
# On busy cores a rank now and then aborts at Python's end ("terminate called without an active exception"), presumably
# because a gloo thread still holds tensors. Everything is done: leave without it.
sys.stdout.flush()
os._exit(0)
