"""Inputs of ops on logits, their float64 definitions, which share no code with them, and the rule of accuracy.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from geogrpo_kernels import PolicyObjective
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
# Odd, so that no chunk size above 1 divides it.
NUM_TOKENS, HIDDEN_SIZE = 19, 16
VOCAB_SIZES = (1, 515, 1000, 4097)
SHAPES_OF_LOGITS = ("flat", "peaked", "shifted down", "shifted up")

Inputs = tuple[Tensor, Tensor, Tensor]


def make_inputs(
    kind: str, vocab_size: int, device: torch.device, dtype: torch.dtype = torch.float32, num_tokens: int = NUM_TOKENS
) -> Inputs:
    """hidden (T, H), weight (V, H), target_ids (T,); both floats require gradients."""
    hidden = torch.randn(num_tokens, HIDDEN_SIZE) / HIDDEN_SIZE**0.5
    weight = torch.randn(vocab_size, HIDDEN_SIZE)
    target_ids = torch.randint(0, vocab_size, (num_tokens,))
    if kind.startswith("shifted"):
        # Every logit moves by as much, which changes no probability.
        hidden[:, 0], weight[:, 0] = {"shifted down": -300.0, "shifted up": 80.0}[kind], 1.0
    if kind == "peaked":
        # Against V - 1 logits of 0 this one has probability 0.999.
        hidden *= 0.1
        hidden[:, 0], weight[:, 0] = 1.0, 0.0
        weight[-1, 0] = math.log(0.999 / 0.001 * max(1, vocab_size - 1))
        target_ids[::2] = vocab_size - 1
    hidden, weight = (x.to(device, dtype).requires_grad_() for x in (hidden, weight))
    return hidden, weight, target_ids.to(device)


def in_float64(inputs: Inputs) -> Inputs:
    """The same values, with gradients of their own."""
    hidden, weight, target_ids = inputs
    return hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_(), target_ids


def plain_logits(
    inputs: Inputs, temperature: float = 1.0, forbidden_ids: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """(T, V) with autograd, from products in the inputs' type."""
    hidden, weight, _ = inputs
    logits = (hidden @ weight.T).to(torch.promote_types(hidden.dtype, torch.float32))
    logits = (logits if bias is None else logits + bias) / temperature
    return logits if forbidden_ids is None else logits.index_fill(-1, forbidden_ids, -torch.inf)


def plain_from_logits(logits: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """logprobs and entropy through (T, V) log_softmax and autograd."""
    log_probs = logits.log_softmax(-1)
    finite = log_probs.masked_fill(log_probs.isneginf(), 0.0)
    return log_probs.gather(-1, target_ids[:, None]).squeeze(-1), -(log_probs.exp() * finite).sum(-1)


def plain(inputs: Inputs, **options: object) -> tuple[Tensor, Tensor]:
    """logprobs and entropy from whole logits."""
    return plain_from_logits(plain_logits(inputs, **options), inputs[2])


def gradients(outputs: Sequence[Tensor], upstream: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of the first two inputs (hidden and weight), in their own types."""
    total = sum((out * up.to(out.dtype)).sum() for out, up in zip(outputs, upstream, strict=True))
    return torch.autograd.grad(total, inputs[:2])


def is_as_accurate_as_plain(actual: Tensor, plain_value: Tensor, exact: Tensor, scale: float) -> bool:
    """The project's rule: error <= 2 x plain PyTorch's error + 4 eps x scale, the worst element on each side."""
    finite = exact.isfinite()
    if not torch.equal(actual[~finite].double(), exact[~finite]):
        return False
    error = (actual[finite].double() - exact[finite]).abs()
    plain_error = (plain_value[finite].double() - exact[finite]).abs()
    # `not >` would let NaN pass.
    return error.numel() == 0 or bool(error.max() <= 2 * plain_error.max() + 4 * EPS * scale)


def largest_logit(inputs: Inputs, temperature: float = 1.0) -> float:
    """Scale of the outputs: what is subtracted from what. At least 1."""
    return max(1.0, float(plain_logits(in_float64(inputs), temperature).detach().abs().max()))


def gradient_scales(
    inputs: Inputs, upstream: Sequence[Tensor], temperature: float = 1.0, **_: object
) -> tuple[float, float]:
    """Scale of the gradients of hidden and weight: sums of absolute terms, times the largest logit, because
    exp(logit) turns the rounding of a logit into a relative error.
    """
    hidden, weight, target_ids = (x.detach() for x in in_float64(inputs))
    log_probs = plain_logits((hidden, weight, target_ids), temperature).log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(-1, keepdim=True)
    up_logprobs, up_entropy = (up.double().abs()[:, None] for up in upstream)
    terms = up_logprobs * probs + up_entropy * probs * (log_probs.abs() + entropy)
    terms = terms.scatter_add(-1, target_ids[:, None], up_logprobs) / temperature
    of_hidden, of_weight = terms @ weight.abs(), terms.T @ hidden.abs()
    logit = largest_logit(inputs, temperature)
    return float(of_hidden.max()) * logit, float(of_weight.max()) * logit


def upstream_like(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Gradients of logprobs and entropy, different for every token."""
    logprobs, entropy = torch.randn(2, len(inputs[0]), device=inputs[0].device)
    return logprobs, entropy


def forward_is_accurate(op: Callable, inputs: Inputs, **options: Any) -> bool:
    """Whether token_logprobs, or a wrong version of it, keeps the rule in its values."""
    scale = largest_logit(inputs, options.get("temperature", 1.0))
    exact = plain(in_float64(inputs), **options)
    in_float32 = plain((inputs[0].float(), inputs[1].float(), inputs[2]), **options)
    pairs = zip(op(*inputs, **options), in_float32, exact, strict=True)
    return all(value.dtype == torch.float32 and is_as_accurate_as_plain(value, *p, scale) for value, *p in pairs)


def gradients_are_accurate(op: Callable, inputs: Inputs, **options: Any) -> bool:
    """Whether token_logprobs, or a wrong version of it, keeps the rule in its gradients."""
    upstream, exact_inputs = upstream_like(inputs), in_float64(inputs)
    actual = gradients(op(*inputs, **options), upstream, inputs)
    in_type = gradients(plain(inputs, **options), upstream, inputs)
    exact = gradients(plain(exact_inputs, **options), upstream, exact_inputs)
    scales = gradient_scales(inputs, upstream, **options)
    quadruples = zip(actual, in_type, exact, scales, strict=True)
    return all(value.dtype == inputs[0].dtype and is_as_accurate_as_plain(value, *q) for value, *q in quadruples)


def from_logits_is_accurate(op: Callable, logits: Tensor, target_ids: Tensor) -> bool:
    """Whether token_logprobs_from_logits, or a wrong version of it, keeps the rule. An offset costs no digits."""
    # Dividing by another temperature would round the offset, in plain PyTorch, too.
    upstream, temperature = upstream_like((logits,)), 1.0

    def values_and_gradient(compute: Callable, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaf = logits.detach().to(dtype).requires_grad_()
        outputs = compute(leaf)
        total = sum((out * up).sum() for out, up in zip(outputs, upstream, strict=True))
        return (*(out.detach() for out in outputs), torch.autograd.grad(total, leaf)[0])

    def plain_op(leaf: Tensor) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(leaf.dtype, torch.float32)
        return plain_from_logits(leaf.to(dtype) / temperature, target_ids)

    def own_op(leaf: Tensor) -> tuple[Tensor, Tensor]:
        return op(leaf, target_ids, temperature=temperature)

    results = [
        values_and_gradient(*of) for of in ((own_op, logits.dtype), (plain_op, logits.dtype), (plain_op, torch.float64))
    ]
    finite = logits.detach().double().masked_fill(logits.isneginf(), float(logits.detach().max()))
    scale = max(1.0, float((finite.amax(-1) - finite.amin(-1)).max())) / temperature
    return all(is_as_accurate_as_plain(*triple, scale) for triple in zip(*results, strict=True))


def make_logits(
    kind: str, vocab_size: int, device: torch.device, dtype: torch.dtype, num_tokens: int = 5
) -> tuple[Tensor, Tensor]:
    """logits (T, V), rows of a wider matrix, and target_ids (T,); some logits of the first row are -inf."""
    logits = (3 * torch.randn(num_tokens, vocab_size + 8, device=device))[:, :vocab_size]
    logits[0, : vocab_size // 3] = -torch.inf
    target_ids = torch.randint(vocab_size // 3, vocab_size, (num_tokens,))
    logits += {"shifted down": -300.0, "shifted up": 80.0}.get(kind, 0.0)
    if kind == "peaked":
        logits[:, -1] = math.log(0.999 / 0.001 * vocab_size) + 5
        target_ids[::2] = vocab_size - 1
    return logits.to(dtype), target_ids.to(device)


def exact_kl_is_accurate(op: Callable, device: torch.device) -> bool:
    """Whether exact_kl_from_logits, or a wrong version of it, keeps the rule in values and gradients."""
    return all(
        _exact_kl_is_accurate(op, vocab_size, dtype, device)
        for vocab_size in (1, 515, 4097)
        for dtype in (torch.float32, torch.bfloat16)
    )


def _exact_kl_is_accurate(op: Callable, vocab_size: int, dtype: torch.dtype, device: torch.device) -> bool:
    logits, ref_logits = torch.randn(2, NUM_TOKENS, vocab_size, device=device).mul(3).to(dtype)
    # Ruled out by both, and so out of the sum
    logits[0, 1:40], ref_logits[0, 1:20] = -torch.inf, -torch.inf
    logits[1] -= 300
    upstream, temperature = torch.randn(NUM_TOKENS, device=device), 0.7

    def value_and_gradient(compute: Callable, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = logits.to(dtype).requires_grad_()
        kl = compute(leaf, ref_logits.to(dtype), temperature=temperature)
        return kl, torch.autograd.grad((kl * upstream.to(kl.dtype)).sum(), leaf)[0]

    results = [value_and_gradient(*of) for of in ((op, dtype), (plain_kl, dtype), (plain_kl, torch.float64))]
    scale = 20 / temperature
    return all(is_as_accurate_as_plain(*(x.detach() for x in triple), scale) for triple in zip(*results, strict=True))


def plain_kl(logits: Tensor, ref_logits: Tensor, temperature: float) -> Tensor:
    """(T,) sum of p log(p / q) with autograd."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = ((x.to(dtype) / temperature).log_softmax(-1) for x in (logits, ref_logits))
    is_possible = log_p.isfinite()
    return (log_p.exp() * torch.where(is_possible, log_p, 0.0)).sum(-1) - (
        log_p.exp() * torch.where(is_possible, log_q, 0.0)
    ).sum(-1)


def make_reference(
    vocab_size: int, device: torch.device, dtype: torch.dtype = torch.float32, num_tokens: int = NUM_TOKENS
) -> tuple[Tensor, Tensor]:
    """ref_hidden (T, K) and ref_weight (V, K) of a model of another width."""
    width = HIDDEN_SIZE + 8
    ref_hidden, ref_weight = torch.randn(num_tokens, width) / width**0.5, torch.randn(vocab_size, width)
    return ref_hidden.to(device, dtype), ref_weight.to(device, dtype)


def plain_linear_kl(inputs: Inputs, ref: tuple[Tensor, Tensor], **options: Any) -> Tensor:
    """(T,) from whole logits, with autograd."""
    return plain_kl(plain_logits(inputs, **options), plain_logits((*ref, inputs[2]), **options), 1.0)


def linear_exact_kl_is_accurate(op: Callable, kind: str, vocab_size: int, dtype: torch.dtype, device: Any) -> bool:
    """Whether linear_exact_kl, or a wrong version of it, keeps the rule in values and gradients."""
    inputs, ref = make_inputs(kind, vocab_size, device, dtype), make_reference(vocab_size, device, dtype)
    options = {"temperature": 0.7, "forbidden_ids": torch.arange(0, vocab_size - 1, 50, device=device)}
    exact_inputs, exact_ref = in_float64(inputs), (ref[0].double(), ref[1].double())
    upstream = torch.randn(NUM_TOKENS, device=device)
    upstream[1::9] = 0.0
    actual, exact = op(*inputs[:2], *ref, **options), plain_linear_kl(exact_inputs, exact_ref, **options)
    in_float32 = plain_linear_kl(
        (inputs[0].float(), inputs[1].float(), inputs[2]), (ref[0].float(), ref[1].float()), **options
    )
    logit = largest_logit(inputs, 0.7) + largest_logit((*ref, inputs[2]), 0.7)
    if not is_as_accurate_as_plain(*(x.detach() for x in (actual, in_float32, exact)), logit):
        return False
    grads = gradients([actual], [upstream], inputs)
    plain_grads = gradients([plain_linear_kl(inputs, ref, **options)], [upstream], inputs)
    exact_grads = gradients([exact], [upstream], exact_inputs)
    # Sums of absolute terms: |log(p / q) - KL| is below the largest logits of both.
    probs = plain_logits(exact_inputs, **options).detach().softmax(-1)
    terms = probs * upstream.double().abs()[:, None] * logit / 0.7
    scales = (terms @ exact_inputs[1].detach().abs(), terms.T @ exact_inputs[0].detach().abs())
    triples = zip(grads, plain_grads, exact_grads, scales, strict=True)
    is_accurate = all(is_as_accurate_as_plain(*three, float(scale.max())) for *three, scale in triples)
    return is_accurate and actual.dtype == torch.float32 and not grads[0][1::9].any()


def make_objective(inputs: Inputs, surrogate: str, temperature: float = 1.0, **options: Any) -> PolicyObjective:
    """Ratios below, inside and above the clip range for both signs of the advantage; two masked tokens."""
    with torch.no_grad():
        logprobs = plain(in_float64(inputs), temperature=temperature)[0].float()
    device, num_tokens = logprobs.device, len(logprobs)
    token_weights = torch.rand(num_tokens, device=device)
    old_logprobs = logprobs + 0.3 * torch.randn(num_tokens, device=device)
    # Near the policy and far from it
    ref_logprobs = logprobs + torch.logspace(-4, 0, num_tokens, device=device)
    # What a masked token holds must not matter, a loss of infinity included.
    advantages = torch.randn(num_tokens, device=device)
    if "delta" in options:
        # Some far above it, of both signs
        old_logprobs[2::4] = logprobs[2::4] - 0.7
        advantages[2::4] = -1.5
        advantages[6:7] = 1.5
    token_weights[1::9] = 0.0
    old_logprobs[1], ref_logprobs[1] = -torch.inf, -torch.inf
    return PolicyObjective(
        advantages=advantages,
        token_weights=token_weights,
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        surrogate=surrogate,
        **({"clip_high": 0.28, "beta": 0.1, "entropy_coef": 0.05} | options),
    )


def plain_policy_loss(inputs: Inputs, objective: PolicyObjective, **options: Any) -> tuple[Tensor, ...]:
    """loss with autograd, logprobs, entropy, kl, is_clipped, written as the papers have them."""
    logprobs, entropy = plain(inputs, **options)
    old, ref = (
        logprobs.detach() if x is None else x.to(logprobs.dtype)
        for x in (objective.old_logprobs, objective.ref_logprobs)
    )
    keep = objective.token_weights != 0
    ratio = torch.where(keep, logprobs - old, 0.0).exp()
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    advantages = objective.advantages.to(logprobs.dtype)
    held = ratio if objective.delta is None else torch.where(advantages < 0, ratio.clamp(max=objective.delta), ratio)
    tau = ratio.new_tensor([objective.tau_negative, objective.tau_positive])[(advantages > 0).long()]
    estimate = {
        "k1": lambda log_ratio: -log_ratio,
        "k2": lambda log_ratio: log_ratio**2 / 2,
        "k3": lambda log_ratio: log_ratio.expm1() - log_ratio,
    }[objective.kl_estimator]
    surrogate = {
        "clip": -torch.minimum(held * advantages, clipped * advantages),
        "sapo": -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages,
        "cispo": -clipped.detach() * advantages * logprobs,
        "reinforce": -advantages * logprobs,
    }[objective.surrogate]
    is_clipped = {
        "clip": (clipped * advantages < ratio * advantages) | (held != ratio),
        "sapo": torch.zeros_like(keep),
        "cispo": clipped != ratio,
        "reinforce": torch.zeros_like(keep),
    }[objective.surrogate]
    # Only of tokens that count: the slope of an infinite k2, times 0, is NaN.
    per_token = (surrogate - objective.entropy_coef * entropy)[keep] + objective.beta * estimate((ref - logprobs)[keep])
    loss = (per_token * objective.token_weights[keep]).sum()
    return loss, logprobs, entropy, estimate(ref - logprobs), is_clipped


def policy_loss_is_accurate(op: Callable, inputs: Inputs, surrogate: str, **options: Any) -> bool:
    """Whether linear_grpo_loss, or a wrong version of it, keeps the rule in every value and gradient."""
    temperature = 0.7
    objective = make_objective(inputs, surrogate, temperature, **options)
    exact_inputs = in_float64(inputs)
    actual = op(*inputs, objective, temperature=temperature)
    in_type = plain_policy_loss(inputs, objective, temperature=temperature)
    exact = plain_policy_loss(exact_inputs, objective, temperature=temperature)
    in_float32 = plain_policy_loss(
        (inputs[0].float(), inputs[1].float(), inputs[2]), objective, temperature=temperature
    )
    logit = largest_logit(inputs, temperature)
    keep = objective.token_weights != 0
    # A ratio turns the rounding of a log-prob into a relative error.
    scale = logit * float(objective.advantages.abs().sum())
    values = zip(actual[:4], in_float32[:4], exact[:4], (scale, logit, logit, logit), strict=True)
    if not all(is_as_accurate_as_plain(*(x.detach() for x in three), s) for *three, s in values):
        return False
    if not torch.equal(actual.is_clipped[keep], exact[4][keep]):
        return False
    # Where policy and reference nearly agree, k2 and k3 are far smaller than the rounding of 1.
    log_ratio = (objective.ref_logprobs - exact[1]).abs()
    is_near = log_ratio < 0.003
    near = (x.detach()[is_near] for x in (actual.kl, in_float32[3], exact[3]))
    if not is_as_accurate_as_plain(*near, logit if objective.kl_estimator == "k1" else 0.003 * logit):
        return False
    upstream = 2.5
    actual_grads, plain_grads, exact_grads = (
        torch.autograd.grad(upstream * result[0], x[:2])
        for result, x in ((actual, inputs), (in_type, inputs), (exact, exact_inputs))
    )
    per_token = upstream * (objective.advantages.abs() * 3 + 1) * objective.token_weights
    scales = gradient_scales(inputs, (per_token, per_token * objective.entropy_coef), temperature)
    quadruples = zip(actual_grads, plain_grads, exact_grads, scales, strict=True)
    return all(value.dtype == inputs[0].dtype and is_as_accurate_as_plain(value, *q) for value, *q in quadruples)
