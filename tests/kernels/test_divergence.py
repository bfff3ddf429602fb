"""KL divergences against their definitions in float64.

Shapes: T tokens, V vocabulary.
"""

import pytest
import torch
from geogrpo_kernels import exact_kl_from_logits, kl_estimate, sampled_kl_from_logits
from kernel_oracles import EPS, exact_kl_is_accurate, make_logits, plain_from_logits, plain_kl


def test_exact_kl_is_as_accurate_as_log_softmax(device: torch.device) -> None:
    assert exact_kl_is_accurate(exact_kl_from_logits, device)


def test_exact_kl_of_a_real_vocabulary(device: torch.device) -> None:
    logits, ref_logits = torch.randn(2, 1, 152064, device=device)
    exact = plain_kl(logits.double(), ref_logits.double(), 1.0)
    assert (exact_kl_from_logits(logits, ref_logits) - exact).abs().max() <= 20 * EPS


def test_kl_from_itself_is_0_and_has_no_gradient(device: torch.device) -> None:
    logits, _ = make_logits("flat", 515, device, torch.float32)
    leaf = logits.clone().requires_grad_()
    kl = exact_kl_from_logits(leaf, logits)
    (gradient,) = torch.autograd.grad(kl.sum(), leaf)
    assert not kl.any()
    assert not gradient.any()


def test_kl_is_infinite_where_the_reference_rules_out_what_the_policy_does_not(device: torch.device) -> None:
    logits, ref_logits = torch.randn(2, 3, 515, device=device)
    ref_logits[1, 77] = -torch.inf
    assert exact_kl_from_logits(logits, ref_logits).isinf().tolist() == [False, True, False]


def test_a_token_without_upstream_gradient_gets_exactly_0_whatever_its_logits(device: torch.device) -> None:
    logits, ref_logits = torch.randn(2, 3, 515, device=device)
    ref_logits[0, 7], logits[1, 8] = -torch.inf, torch.nan
    leaf = logits.requires_grad_()
    upstream = torch.tensor([0.0, 0.0, 1.0], device=device)
    (gradient,) = torch.autograd.grad(exact_kl_from_logits(leaf, ref_logits), leaf, upstream)
    assert not gradient[:2].any()
    assert gradient[2].any()


def test_the_mean_of_k1_and_k3_over_the_vocabulary_is_the_exact_kl() -> None:
    logits, ref_logits = torch.randn(2, 1, 515, dtype=torch.float64)
    all_ids = torch.arange(515)
    rows, ref_rows = logits.expand(515, -1), ref_logits.expand(515, -1)
    probs = logits.softmax(-1)[0]
    for estimator in ("k1", "k3"):
        estimates = sampled_kl_from_logits(rows, ref_rows, all_ids, estimator=estimator)
        torch.testing.assert_close((probs * estimates).sum(), exact_kl_from_logits(logits, ref_logits)[0])


def test_the_mean_gradient_of_k2_is_that_of_the_exact_kl() -> None:
    logits, ref_logits = torch.randn(2, 1, 64, dtype=torch.float64)
    probs = logits.softmax(-1)[0]
    leaf = logits.clone().requires_grad_()
    estimates = sampled_kl_from_logits(leaf.expand(64, -1), ref_logits.expand(64, -1), torch.arange(64), estimator="k2")
    (of_k2,) = torch.autograd.grad((probs * estimates).sum(), leaf)
    (of_exact,) = torch.autograd.grad(exact_kl_from_logits(leaf, ref_logits).sum(), leaf)
    torch.testing.assert_close(of_k2, of_exact)


@pytest.mark.parametrize(
    ("estimator", "expected", "slope"), [("k1", 0.5, 1.0), ("k2", 0.125, 0.5), ("k3", 0.10653066, 0.39346934)]
)
def test_estimators_have_the_values_of_their_formulas(estimator: str, expected: float, slope: float) -> None:
    """At policy - ref = 0.5: r = -0.5; exp(-0.5) = 0.60653066."""
    policy = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    value = kl_estimate(policy, torch.tensor([-1.5], dtype=torch.float64), estimator)
    assert abs(float(value.detach()) - expected) < 1e-8
    assert abs(float(torch.autograd.grad(value.sum(), policy)[0]) - slope) < 1e-8


def test_sampled_kl_is_the_estimate_of_the_log_probs(device: torch.device) -> None:
    logits, target_ids = make_logits("flat", 515, device, torch.float32)
    ref_logits, _ = make_logits("flat", 515, device, torch.float32)
    logprobs, ref_logprobs = (plain_from_logits(x.double() / 0.7, target_ids)[0] for x in (logits, ref_logits))
    kl = sampled_kl_from_logits(logits, ref_logits, target_ids, temperature=0.7)
    exact = kl_estimate(logprobs, ref_logprobs)
    possible = exact.isfinite()
    torch.testing.assert_close(kl[possible].double(), exact[possible], rtol=1e-4, atol=1e-5)
    assert possible.any()


def test_gradcheck_in_float64() -> None:
    logits, ref_logits = torch.randn(2, 3, 17, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: exact_kl_from_logits(x, ref_logits, temperature=0.7), logits.requires_grad_()
    )


def test_bad_input_is_rejected(device: torch.device) -> None:
    logits = torch.zeros(3, 515, device=device)
    with pytest.raises(ValueError, match=r"ref_logits must be \(3, 515\) torch.float32 like logits, got \(3, 514\)"):
        exact_kl_from_logits(logits, logits[:, :-1])
    with pytest.raises(ValueError, match=r"ref_logits must be .* like logits, got \(3, 515\) torch.bfloat16"):
        exact_kl_from_logits(logits, logits.bfloat16())
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        exact_kl_from_logits(logits, logits, temperature=0.0)
    with pytest.raises(ValueError, match="estimator must be one of k1, k2, k3, got 'k4'"):
        kl_estimate(logits, logits, "k4")
    with pytest.raises(ValueError, match=r"must have one shape, got \(3, 515\) and \(515,\)"):
        kl_estimate(logits, logits[0])
