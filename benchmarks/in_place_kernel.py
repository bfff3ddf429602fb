"""The kernel that writes the gradient over the logits it reads, against itself with separate memory, bit for bit.

python benchmarks/in_place_kernel.py            many rows of a real vocabulary, 50 times; a race shows as a difference
python benchmarks/in_place_kernel.py small      few rows, for compute-sanitizer

compute-sanitizer's racecheck looks at shared memory alone, so it checks the reductions of a row; that a warp does not
overwrite logits which another has still to read, in global memory, is what the comparison is for.
"""

import sys

import torch
from geogrpo_kernels import PolicyObjective, linear_grpo_loss
from geogrpo_kernels.head import gradient_view
from geogrpo_kernels.rows import LogitGradient, row_statistics_of
from geogrpo_kernels.shards import logprobs_and_entropy


def differing_rows(num_rows: int, vocab_size: int, dtype: torch.dtype, seed: int) -> int:
    """Rows in which the gradient written in place is not the one written elsewhere."""
    torch.manual_seed(seed)
    logits = 4 * torch.randn(num_rows, vocab_size, device="cuda")
    targets = torch.randint(vocab_size, (num_rows,), device="cuda")
    statistics = row_statistics_of(logits, targets, 1.0)
    _, entropy = logprobs_and_entropy(statistics, 1.0)
    upstream = torch.randn(2, num_rows, device="cuda")
    rule = LogitGradient(statistics[0], statistics[1].log(), entropy, upstream[0], upstream[1], 1.0)
    # NaN: an element that is not written shows.
    elsewhere = torch.full((num_rows, vocab_size), torch.nan, dtype=dtype, device="cuda")
    rule.write(logits, elsewhere, slice(None), targets)
    in_place = gradient_view(logits, dtype)
    rule.write(logits, in_place, slice(None), targets)
    return int((elsewhere != in_place).any(dim=1).sum())


def run_policy_loss(num_rows: int, vocab_size: int, dtype: torch.dtype) -> None:
    """Every kernel of the one-pass loss once, gradients included."""
    hidden = torch.randn(num_rows, 64, device="cuda").to(dtype).requires_grad_()
    weight = torch.randn(vocab_size, 64, device="cuda").to(dtype).requires_grad_()
    ones = torch.ones(num_rows, device="cuda")
    objective = PolicyObjective(ones, ones / num_rows, -9 * ones, -9 * ones, beta=0.1, entropy_coef=0.1)
    targets = torch.randint(vocab_size, (num_rows,), device="cuda")
    linear_grpo_loss(hidden, weight, targets, objective).loss.backward()
    torch.cuda.synchronize()


def main() -> int:
    """0 when nothing differs."""
    if not torch.cuda.is_available():
        print("there is no GPU")
        return 2
    is_small = sys.argv[1:] == ["small"]
    num_rows, vocab_sizes, repeats = (8, (4097,), 1) if is_small else (2048, (151936, 152064), 25)
    for dtype in (torch.bfloat16, torch.float32):
        run_policy_loss(8, 4097, dtype)
        for vocab_size in vocab_sizes:
            different = sum(differing_rows(num_rows, vocab_size, dtype, seed) for seed in range(repeats))
            print(f"{dtype}, vocabulary {vocab_size}: {different} of {repeats * num_rows} rows differ")
            if different:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
