"""Every op is tested twice: its reference, and its Triton kernels on a GPU or, without one, in the interpreter."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(params=["reference", "triton"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where the tensors of the op under test live."""
    monkeypatch.setenv("GEOGRPO_KERNELS", request.param)
    return torch.device("cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu")


@pytest.fixture
def kernel_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """For what only kernels can get wrong."""
    monkeypatch.setenv("GEOGRPO_KERNELS", "triton")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _new_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make these small sums ten times slower."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
