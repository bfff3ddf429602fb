"""Plain PyTorch definition of every op: the CPU path, and what each kernel is tested against.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids.
"""

from typing import Any

import torch
from torch import Tensor

EARTH_RADIUS_KM = 6371.0088
"""Mean radius R1 of the WGS84 ellipsoid (IUGG)."""

# float32 logits per chunk: 4 MiB stay in a CPU's cache through the passes over them.
CHUNK_ELEMENTS = 1 << 20


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    target_ids: Tensor,
    *,
    temperature: float = 1.0,
    forbidden_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, without storing (T, V) logits.

    The distribution is softmax(hidden @ weight.T / temperature) with the forbidden ids given probability 0.
    Logits are float32 whatever the input dtype; the backward pass recomputes them chunk by chunk.

    Args:
        hidden: (T, H) float.
        weight: (V, H) float, the language-model head.
        target_ids: (T,) int64 in [0, V).
        temperature: > 0.
        forbidden_ids: (F,) int64, or None. A forbidden target has log-probability -inf.
    Returns:
        logprobs (T,) and entropy (T,), float32, nats, both differentiable in hidden and weight.
    Raises:
        ValueError: on shapes that do not fit or a temperature that is not positive.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden must be (T, H) and weight (V, H), got {tuple(hidden.shape)}, {tuple(weight.shape)}.")
    if target_ids.shape != hidden.shape[:1]:
        raise ValueError(f"target_ids must be ({hidden.shape[0]},), got {tuple(target_ids.shape)}.")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}. Greedy decoding needs no log-probabilities.")
    logprobs, entropy = TokenLogprobs.apply(hidden, weight, target_ids, 1.0 / temperature, forbidden_ids)
    return logprobs, entropy


class TokenLogprobs(torch.autograd.Function):
    """Chunked forward and recomputed backward of token_logprobs."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target_ids: Tensor,
        inv_temperature: float,
        forbidden_ids: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        weight_f32 = weight.float()
        logprobs = hidden.new_empty(hidden.shape[0], dtype=torch.float32)
        entropy = torch.empty_like(logprobs)
        for rows in _row_chunks(hidden.shape[0], weight.shape[0]):
            all_logprobs = _all_logprobs(hidden[rows], weight_f32, inv_temperature, forbidden_ids)
            logprobs[rows] = all_logprobs.gather(-1, target_ids[rows, None]).squeeze(-1)
            probs = all_logprobs.exp()
            entropy[rows] = -(probs * _finite(all_logprobs, forbidden_ids)).sum(-1)
        ctx.save_for_backward(hidden, weight, target_ids, entropy, forbidden_ids)
        ctx.inv_temperature = inv_temperature
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, target_ids, entropy, forbidden_ids = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        weight_f32 = weight.float()
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_f32) if needs_weight else None
        for rows in _row_chunks(hidden.shape[0], weight.shape[0]):
            all_logprobs = _all_logprobs(hidden[rows], weight_f32, ctx.inv_temperature, forbidden_ids)
            probs = all_logprobs.exp()
            # d entropy / d logits = -p (log p + entropy); d logprob / d logits = onehot - p
            surprise = _finite(all_logprobs, forbidden_ids).add_(entropy[rows, None])
            grad = probs.neg_().mul_(surprise.mul_(grad_entropy[rows, None]).add_(grad_logprobs[rows, None]))
            grad.scatter_add_(-1, target_ids[rows, None], grad_logprobs[rows, None])
            grad.mul_(ctx.inv_temperature)
            if forbidden_ids is not None:
                grad.index_fill_(-1, forbidden_ids, 0.0)
            if grad_hidden is not None:
                grad_hidden[rows] = (grad @ weight_f32).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden[rows].float())
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _row_chunks(num_rows: int, vocab_size: int) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // vocab_size)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _all_logprobs(hidden: Tensor, weight_f32: Tensor, inv_temperature: float, forbidden_ids: Tensor | None) -> Tensor:
    logits = (hidden.float() @ weight_f32.T).mul_(inv_temperature)
    if forbidden_ids is not None:
        logits.index_fill_(-1, forbidden_ids, -torch.inf)
    # Not logits minus a logsumexp: that loses the digits that all logits of a row have in common.
    return logits.log_softmax(-1)


def _finite(all_logprobs: Tensor, forbidden_ids: Tensor | None) -> Tensor:
    # 0 * -inf is NaN: where the probability is an exact 0 the log must be finite.
    return all_logprobs if forbidden_ids is None else all_logprobs.index_fill_(-1, forbidden_ids, 0.0)


def haversine_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """Great-circle distance on a sphere of EARTH_RADIUS_KM, accurate in float32 everywhere.

    The usual form loses 1.3 m at short range and 5.5 km near antipodes in float32. Here hav(d) and hav(pi - d) are
    computed side by side, each without cancellation, so both ends of the range keep full relative precision.

    Args:
        a_latlon_deg, b_latlon_deg: (..., 2) float degrees, broadcast together; lat in [-90, 90], lon any (wraps).
    Returns:
        (...) km in [0, 20015.2], in the inputs' common dtype. NaN in, NaN out.
    Raises:
        ValueError: when the last dimension is not 2.
    Source: R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984. Within 0.57 % of the WGS84 geodesic.
    """
    if a_latlon_deg.shape[-1:] != (2,) or b_latlon_deg.shape[-1:] != (2,):
        shapes = f"{tuple(a_latlon_deg.shape)} and {tuple(b_latlon_deg.shape)}"
        raise ValueError(f"expected (..., 2) lat, lon, got {shapes}.")
    lat_a, lon_a = a_latlon_deg.unbind(-1)
    lat_b, lon_b = b_latlon_deg.unbind(-1)
    lon_a, lon_b = _wrap_lon(lon_a), _wrap_lon(lon_b)
    gap = (lon_b - lon_a).abs()
    to_180_a, to_180_b = 180 - lon_a.abs(), 180 - lon_b.abs()
    dlon = torch.where(gap > 180, to_180_a + to_180_b, gap)
    # 180 - dlon, from exact differences instead of from the rounded dlon
    dlon_antipode = torch.where((lon_a < 0) != (lon_b < 0), (to_180_a - lon_b.abs()).abs(), 180 - gap)
    # cos(lat) as a sine of the distance to the pole: never negative there
    cos_cos = _sin_deg(90 - lat_a.abs()) * _sin_deg(90 - lat_b.abs())
    hav = _sin_deg((lat_b - lat_a) / 2).square() + cos_cos * _sin_deg(dlon / 2).square()
    hav_antipode = _sin_deg((lat_a + lat_b) / 2).square() + cos_cos * _sin_deg(dlon_antipode / 2).square()
    return 2 * EARTH_RADIUS_KM * torch.atan2(hav.sqrt(), hav_antipode.sqrt())


def _wrap_lon(lon_deg: Tensor) -> Tensor:
    return lon_deg - 360 * torch.round(lon_deg / 360)


def _sin_deg(angle_deg: Tensor) -> Tensor:
    return torch.sin(torch.deg2rad(angle_deg))
