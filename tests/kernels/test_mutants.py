"""The checks of the other files here notice a wrong kernel."""

from pathlib import Path

import pytest
import torch
from geogrpo_kernels import (
    exact_kl_from_logits,
    linear_exact_kl,
    linear_grpo_loss,
    token_logprobs,
    token_logprobs_from_logits,
)
from geogrpo_kernels.objective import KL_ESTIMATORS
from kernel_mutants import Mutant, mutants_of, mutated_package
from kernel_oracles import (
    exact_kl_is_accurate,
    forward_is_accurate,
    from_logits_is_accurate,
    gradients_are_accurate,
    linear_exact_kl_is_accurate,
    make_inputs,
    make_logits,
    policy_loss_is_accurate,
)

CASES = [("flat", 4097), ("peaked", 515), ("shifted down", 515), ("shifted up", 4097)]


def log_probs_are_accurate(op: object, device: torch.device) -> bool:
    inputs = [
        make_inputs(kind, size, device, dtype) for kind, size in CASES for dtype in (torch.float32, torch.bfloat16)
    ]
    return all(check(op, x, temperature=0.7) for x in inputs for check in (forward_is_accurate, gradients_are_accurate))


def log_probs_of_logits_are_accurate(op: object, device: torch.device) -> bool:
    return all(from_logits_is_accurate(op, *make_logits(*case, device, torch.float32)) for case in CASES)


def policy_losses_are_accurate(op: object, device: torch.device) -> bool:
    surrogates = ("clip", "cispo", "reinforce")
    return all(policy_loss_is_accurate(op, make_inputs("flat", 515, device), surrogate) for surrogate in surrogates)


def sapo_is_accurate(op: object, device: torch.device) -> bool:
    return policy_loss_is_accurate(op, make_inputs("flat", 515, device), "sapo", tau_positive=0.5, tau_negative=2.0)


def bounded_ratios_are_accurate(op: object, device: torch.device) -> bool:
    return policy_loss_is_accurate(op, make_inputs("flat", 515, device), "clip", delta=1.5)


def kl_terms_are_accurate(op: object, device: torch.device) -> bool:
    inputs = make_inputs("flat", 515, device)
    return all(policy_loss_is_accurate(op, inputs, "clip", kl_estimator=estimator) for estimator in KL_ESTIMATORS)


def kl_from_hidden_states_is_accurate(op: object, device: torch.device) -> bool:
    return linear_exact_kl_is_accurate(op, "flat", 515, torch.float32, device)


CHECKS = {
    "row_statistics": (token_logprobs, log_probs_are_accurate),
    "row_statistics_of_logits": (token_logprobs_from_logits, log_probs_of_logits_are_accurate),
    "logit_gradient": (token_logprobs, log_probs_are_accurate),
    "policy_loss": (linear_grpo_loss, policy_losses_are_accurate),
    "sapo": (linear_grpo_loss, sapo_is_accurate),
    "delta": (linear_grpo_loss, bounded_ratios_are_accurate),
    "kl_estimators": (linear_grpo_loss, kl_terms_are_accurate),
    "exact_kl": (exact_kl_from_logits, exact_kl_is_accurate),
    "linear_exact_kl": (linear_exact_kl, kl_from_hidden_states_is_accurate),
}


@pytest.mark.parametrize("kernel", CHECKS)
def test_the_right_kernel_passes(kernel: str, kernel_device: torch.device) -> None:
    op, is_accurate = CHECKS[kernel]
    assert is_accurate(op, kernel_device)


MUTANTS = [(kernel, mutant) for kernel in CHECKS for mutant in mutants_of(kernel)]


@pytest.mark.parametrize(("kernel", "mutant"), MUTANTS, ids=str)
def test_a_wrong_kernel_fails(kernel: str, mutant: Mutant, kernel_device: torch.device, tmp_path: Path) -> None:
    op, is_accurate = CHECKS[kernel]
    wrong = getattr(mutated_package(mutant, tmp_path), op.__name__)
    assert not is_accurate(wrong, kernel_device)
