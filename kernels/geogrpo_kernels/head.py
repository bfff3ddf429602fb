"""The language-model head in chunks of tokens: logits of a chunk, and the gradients they lead to.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids, R rows of a chunk.
"""

import torch
import triton
from torch import Tensor

from geogrpo_kernels.launch import add_matmul_f32, matmul_f32, matmul_rounded
from geogrpo_kernels.shards import LOWEST_LOGIT, VocabShard

# float32 logits of a chunk: 4096 rows of a vocabulary of 152064. Not tuned on a GPU yet.
CHUNK_BYTES = 2_500_000_000


class Head:
    """The language-model head of this rank and a buffer for the logits of a chunk."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, forbidden_ids: Tensor | None, shard: VocabShard, num_rows: int
    ) -> None:
        self.weight, self.bias, self.shard = weight, bias, shard
        self.forbidden_rows: Tensor | None = None
        if forbidden_ids is not None:
            rows = shard.local_ids(forbidden_ids)
            # On one rank every id is inside, and the GPU need not be waited for.
            self.forbidden_rows = rows if shard.is_whole else rows[(rows >= 0) & (rows < len(weight))]
        self.chunks = row_chunks(num_rows, shard.max_rows)
        num_buffered = self.chunks[0].stop if self.chunks else 0
        self._buffer = torch.empty(num_buffered, len(weight), dtype=torch.float32, device=weight.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """(R, H) -> (R, V) float32 before the temperature, forbidden ones lowest; valid until the next call."""
        logits = matmul_f32(hidden, self.weight.T, out=self._buffer[: len(hidden)])
        if self.bias is not None:
            logits += self.bias
        return logits if self.forbidden_rows is None else logits.index_fill_(1, self.forbidden_rows, LOWEST_LOGIT)

    def clear_forbidden_(self, grad: Tensor) -> Tensor:
        """A forbidden logit is a constant: no gradient, also where it is the target."""
        return grad if self.forbidden_rows is None else grad.index_fill_(1, self.forbidden_rows, 0.0)


class HeadGradients:
    """Gradients of hidden states, weight and bias, summed over chunks in float32; None where not needed."""

    def __init__(self, hidden: Tensor, head: Head, needed: tuple[bool, bool, bool]) -> None:
        needs_hidden, needs_weight, needs_bias = needed
        # A shard's part of it is summed over the ranks before it is rounded.
        dtype = hidden.dtype if head.shard.is_whole else torch.float32
        self.hidden = torch.empty_like(hidden, dtype=dtype) if needs_hidden else None
        self.weight = torch.zeros_like(head.weight, dtype=torch.float32) if needs_weight else None
        self.bias = hidden.new_zeros(len(head.weight), dtype=torch.float32) if needs_bias else None
        self.are_needed = any(needed)
        self._hidden_states, self._head = hidden, head

    def add(self, grad_logits: Tensor, rows: slice) -> None:
        """Add what the (R, V) gradient of some rows' logits gives."""
        self._head.clear_forbidden_(grad_logits)
        if self.hidden is not None:
            product = matmul_rounded if self.hidden.dtype == grad_logits.dtype else matmul_f32
            product(grad_logits, self._head.weight, out=self.hidden[rows])
        if self.weight is not None:
            add_matmul_f32(self.weight, grad_logits.T, self._hidden_states[rows])
        if self.bias is not None:
            self.bias += grad_logits.sum(0, dtype=torch.float32)

    def finished(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three gradients; weight and bias still in float32."""
        if self.hidden is not None and not self._head.shard.is_whole:
            self.hidden = self._head.shard.sum_(self.hidden).to(self._hidden_states.dtype)
        return self.hidden, self.weight, self.bias


def gradient_view(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """The memory of (R, V) float32 logits as an (R, V) matrix of `dtype`: each row in the first part of its own."""
    return logits.view(dtype)[:, : logits.shape[1]]


def row_chunks(num_rows: int, vocab_size: int) -> list[slice]:
    """Chunks of about equal size whose logits fit in CHUNK_BYTES, a few rows more at most."""
    most = max(128, CHUNK_BYTES // (4 * vocab_size))
    num_chunks = triton.cdiv(num_rows, most)
    step = triton.cdiv(triton.cdiv(num_rows, max(1, num_chunks)), 128) * 128
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, max(1, step))]
