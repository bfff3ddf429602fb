"""token_logprobs and haversine_km against float64 definitions that share no code with them.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids, N pairs of points.
"""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from geogrpo_kernels import reference
from geogrpo_kernels.reference import EARTH_RADIUS_KM, haversine_km, token_logprobs
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
# Odd, so that no chunk size above 1 divides it.
NUM_TOKENS, HIDDEN_SIZE = 37, 16
VOCAB_SIZES = (1, 515, 1000, 4097)
SHAPES_OF_LOGITS = ("flat", "peaked", "shifted down", "shifted up")
HALF_CIRCUMFERENCE_KM = math.pi * EARTH_RADIUS_KM

Inputs = tuple[Tensor, Tensor, Tensor]


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


def make_inputs(kind: str, vocab_size: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """hidden (T, H), weight (V, H), target_ids (T,); both floats require gradients."""
    hidden = torch.randn(NUM_TOKENS, HIDDEN_SIZE) / HIDDEN_SIZE**0.5
    weight = torch.randn(vocab_size, HIDDEN_SIZE)
    target_ids = torch.randint(0, vocab_size, (NUM_TOKENS,))
    if kind.startswith("shifted"):
        # Every logit moves by as much, which changes no probability.
        hidden[:, 0], weight[:, 0] = {"shifted down": -300.0, "shifted up": 80.0}[kind], 1.0
    if kind == "peaked":
        # Against V - 1 logits of 0 this one has probability 0.999.
        hidden *= 0.1
        hidden[:, 0], weight[:, 0] = 1.0, 0.0
        weight[-1, 0] = math.log(0.999 / 0.001 * max(1, vocab_size - 1))
        target_ids[::2] = vocab_size - 1
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), target_ids


def plain_logits(inputs: Inputs, dtype: torch.dtype, temperature: float, forbidden_ids: Tensor | None) -> Tensor:
    hidden, weight, _ = inputs
    logits = hidden.to(dtype) @ weight.to(dtype).T / temperature
    return logits if forbidden_ids is None else logits.index_fill(-1, forbidden_ids, -torch.inf)


def plain(
    inputs: Inputs, dtype: torch.dtype, temperature: float = 1.0, forbidden_ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """logprobs and entropy through (T, V) log_softmax and autograd, in `dtype`."""
    log_probs = plain_logits(inputs, dtype, temperature, forbidden_ids).log_softmax(-1)
    finite = log_probs.masked_fill(log_probs.isinf(), 0.0)
    return log_probs.gather(-1, inputs[2][:, None]).squeeze(-1), -(log_probs.exp() * finite).sum(-1)


def gradients(outputs: tuple[Tensor, Tensor], upstream: tuple[Tensor, Tensor], inputs: Inputs) -> tuple[Tensor, ...]:
    """Of hidden and weight, in their own dtype."""
    total = sum((out * up.to(out.dtype)).sum() for out, up in zip(outputs, upstream, strict=True))
    return torch.autograd.grad(total, inputs[:2])


def assert_as_accurate_as_plain(actual: Tensor, plain_value: Tensor, exact: Tensor, scale: float) -> None:
    """The project's rule: error <= 2 x plain PyTorch's error + 4 eps x scale, the worst element on each side."""
    finite = exact.isfinite()
    assert torch.equal(actual[~finite].double(), exact[~finite])
    error = (actual[finite].double() - exact[finite]).abs().max()
    plain_error = (plain_value[finite].double() - exact[finite]).abs().max()
    assert error <= 2 * plain_error + 4 * EPS * scale, f"error {error:.3g}, plain PyTorch {plain_error:.3g}"


def largest_logit(inputs: Inputs, temperature: float = 1.0) -> float:
    """Scale of the outputs: what is subtracted from what. At least 1."""
    return max(1.0, float(plain_logits(inputs, torch.float64, temperature, None).detach().abs().max()))


def gradient_scales(inputs: Inputs, upstream: tuple[Tensor, Tensor], temperature: float = 1.0) -> tuple[float, float]:
    """Scale of the gradients of hidden and weight: sums of absolute terms, times the largest logit, because
    exp(logit) turns the rounding of a logit into a relative error.
    """
    hidden, weight, target_ids = (x.detach() for x in inputs)
    log_probs = plain_logits(inputs, torch.float64, temperature, None).detach().log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(-1, keepdim=True)
    up_logprobs, up_entropy = (up.double().abs()[:, None] for up in upstream)
    terms = up_logprobs * probs + up_entropy * probs * (log_probs.abs() + entropy)
    terms = terms.scatter_add(-1, target_ids[:, None], up_logprobs) / temperature
    of_hidden, of_weight = terms @ weight.double().abs(), terms.T @ hidden.double().abs()
    logit = largest_logit(inputs, temperature)
    return float(of_hidden.max()) * logit, float(of_weight.max()) * logit


def assert_forward_is_accurate(inputs: Inputs, **options: object) -> None:
    scale = largest_logit(inputs, options.get("temperature", 1.0))
    actual, exact = token_logprobs(*inputs, **options), plain(inputs, torch.float64, **options)
    for value, plain_value, exact_value in zip(actual, plain(inputs, torch.float32, **options), exact, strict=True):
        assert value.dtype == torch.float32
        assert_as_accurate_as_plain(value, plain_value, exact_value, scale)


def assert_gradients_are_accurate(inputs: Inputs, **options: object) -> None:
    upstream = torch.randn(NUM_TOKENS), torch.randn(NUM_TOKENS)
    exact_inputs = (inputs[0].detach().double().requires_grad_(), inputs[1].detach().double().requires_grad_())
    exact_inputs = (*exact_inputs, inputs[2])
    actual = gradients(token_logprobs(*inputs, **options), upstream, inputs)
    in_float32 = gradients(plain(inputs, torch.float32, **options), upstream, inputs)
    exact = gradients(plain(exact_inputs, torch.float64, **options), upstream, exact_inputs)
    scales = gradient_scales(inputs, upstream, options.get("temperature", 1.0))
    for value, plain_value, exact_value, scale in zip(actual, in_float32, exact, scales, strict=True):
        assert value.dtype == inputs[0].dtype
        assert_as_accurate_as_plain(value, plain_value, exact_value, scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_logprobs_and_entropy_are_as_accurate_as_log_softmax(vocab_size: int, kind: str, dtype: torch.dtype) -> None:
    assert_forward_is_accurate(make_inputs(kind, vocab_size, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_gradients_are_as_accurate_as_autograd(vocab_size: int, kind: str, dtype: torch.dtype) -> None:
    assert_gradients_are_accurate(make_inputs(kind, vocab_size, dtype))


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.5])
def test_temperature_divides_the_logits(temperature: float) -> None:
    inputs = make_inputs("flat", 515)
    assert_forward_is_accurate(inputs, temperature=temperature)
    assert_gradients_are_accurate(inputs, temperature=temperature)


def test_one_token_vocabulary_is_certain() -> None:
    inputs = make_inputs("flat", 1)
    logprobs, entropy = token_logprobs(*inputs)
    grad_hidden, grad_weight = gradients(
        (logprobs, entropy), (torch.randn(NUM_TOKENS), torch.randn(NUM_TOKENS)), inputs
    )
    for value in (logprobs, entropy, grad_hidden, grad_weight):
        assert not value.any()


@pytest.mark.parametrize("rows_per_chunk", [1, 8, 36])
def test_chunks_are_as_accurate_as_one_pass(rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs("flat", 515)
    # 514 more elements than whole rows: no further row fits
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 515 * rows_per_chunk + 514)
    assert_forward_is_accurate(inputs, temperature=0.7)
    assert_gradients_are_accurate(inputs, temperature=0.7)


def test_a_row_larger_than_a_chunk_is_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "CHUNK_ELEMENTS", 1)
    inputs = make_inputs("flat", 515)
    assert_forward_is_accurate(inputs)
    assert_gradients_are_accurate(inputs)


def forbidden_inputs() -> tuple[Inputs, Tensor]:
    """Ids that no target uses are forbidden, the most probable id of every row among them."""
    hidden, weight, target_ids = make_inputs("peaked", 515)
    forbidden_ids = torch.tensor([0, 3, 200, 514])
    target_ids = target_ids.clone()
    target_ids[torch.isin(target_ids, forbidden_ids)] = 7
    return (hidden, weight, target_ids), forbidden_ids


def test_forbidden_ids_leave_the_distribution_over_the_others() -> None:
    inputs, forbidden_ids = forbidden_inputs()
    assert_forward_is_accurate(inputs, forbidden_ids=forbidden_ids)
    assert_gradients_are_accurate(inputs, forbidden_ids=forbidden_ids)


def test_forbidden_ids_have_probability_exactly_0() -> None:
    (hidden, weight, _), forbidden_ids = forbidden_inputs()
    one_row_per_id = hidden[:1].expand(515, -1)
    probs = token_logprobs(one_row_per_id, weight, torch.arange(515), forbidden_ids=forbidden_ids)[0].exp()
    assert torch.equal((probs == 0).nonzero().squeeze(-1), forbidden_ids)
    # 511 terms whose sum is 1, each off by a relative 4 eps at most
    assert abs(float(probs.detach().double().sum()) - 1) <= 4 * EPS * largest_logit((hidden, weight, forbidden_ids))


def test_forbidden_ids_get_a_gradient_of_exactly_0() -> None:
    inputs, forbidden_ids = forbidden_inputs()
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    _, grad_weight = gradients(outputs, (torch.randn(NUM_TOKENS), torch.randn(NUM_TOKENS)), inputs)
    is_zero = ~grad_weight.any(-1)
    assert torch.equal(is_zero.nonzero().squeeze(-1), forbidden_ids)


def test_a_forbidden_target_is_impossible_and_gives_forbidden_ids_no_gradient() -> None:
    (hidden, weight, target_ids), forbidden_ids = forbidden_inputs()
    target_ids[5] = 200
    inputs = (hidden, weight, target_ids)
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    assert outputs[0].isneginf().nonzero().tolist() == [[5]]
    assert_forward_is_accurate(inputs, forbidden_ids=forbidden_ids)
    assert_gradients_are_accurate(inputs, forbidden_ids=forbidden_ids)
    _, grad_weight = gradients(outputs, (torch.ones(NUM_TOKENS), torch.ones(NUM_TOKENS)), inputs)
    assert not grad_weight[forbidden_ids].any()


def test_each_output_alone_has_its_own_gradient() -> None:
    inputs = make_inputs("flat", 515)
    zero, upstream = torch.zeros(NUM_TOKENS), torch.randn(NUM_TOKENS)
    for output, pair in ((0, (upstream, zero)), (1, (zero, upstream))):
        alone = torch.autograd.grad((token_logprobs(*inputs)[output] * upstream).sum(), inputs[:2])
        with_zero = gradients(token_logprobs(*inputs), pair, inputs)
        assert all(torch.equal(a, b) and a.any() for a, b in zip(alone, with_zero, strict=True))


def test_backward_leaves_inputs_and_saved_tensors_alone() -> None:
    inputs, forbidden_ids = forbidden_inputs()
    before = [x.detach().clone() for x in inputs]
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    values = [out.detach().clone() for out in outputs]
    total = (outputs[0] * torch.randn(NUM_TOKENS) + outputs[1] * torch.randn(NUM_TOKENS)).sum()
    first = torch.autograd.grad(total, inputs[:2], retain_graph=True)
    second = torch.autograd.grad(total, inputs[:2])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(values, outputs, strict=True))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient_and_the_other_the_same(frozen: int) -> None:
    inputs = make_inputs("flat", 515)
    upstream = torch.randn(NUM_TOKENS), torch.randn(NUM_TOKENS)
    expected = gradients(token_logprobs(*inputs), upstream, inputs)[1 - frozen]
    inputs[frozen].requires_grad_(False)
    logprobs, entropy = token_logprobs(*inputs)
    (logprobs * upstream[0] + entropy * upstream[1]).sum().backward()
    assert inputs[frozen].grad is None
    assert torch.equal(inputs[1 - frozen].grad, expected)


def test_no_tokens_give_a_zero_gradient() -> None:
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    logprobs, entropy = token_logprobs(hidden, weight, torch.zeros(0, dtype=torch.int64))
    (logprobs.sum() + entropy.sum()).backward()
    assert torch.equal(weight.grad, torch.zeros(9, 4))


@pytest.mark.parametrize(
    ("hidden_shape", "weight_shape"), [((5,), (7, 4)), ((2, 5, 4), (7, 4)), ((5, 4), (4,)), ((5, 4), (7, 3))]
)
def test_hidden_and_weight_that_do_not_fit_are_rejected(hidden_shape: tuple, weight_shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"hidden must be \(T, H\) and weight \(V, H\), got") as error:
        token_logprobs(torch.zeros(hidden_shape), torch.zeros(weight_shape), torch.zeros(5, dtype=torch.int64))
    assert f"{hidden_shape}, {weight_shape}" in str(error.value)


@pytest.mark.parametrize("shape", [(4,), (5, 1), ()])
def test_target_ids_of_another_shape_are_rejected(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"target_ids must be \(5,\), got") as error:
        token_logprobs(torch.zeros(5, 4), torch.zeros(7, 4), torch.zeros(shape, dtype=torch.int64))
    assert str(error.value).endswith(f"{shape}.")


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_rejected(temperature: float) -> None:
    inputs = torch.zeros(5, 4), torch.zeros(7, 4), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"temperature must be > 0, got {temperature}.*Greedy decoding needs no"):
        token_logprobs(*inputs, temperature=temperature)


def exact_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """(N,) float64: the angle between unit vectors from their cross and dot product, accurate at every angle."""
    vectors = []
    for latlon_deg in (a_latlon_deg, b_latlon_deg):
        lat, lon = np.radians(latlon_deg.double().numpy()).T
        vectors.append(np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1))
    cross = np.linalg.norm(np.cross(*vectors), axis=-1)
    return torch.from_numpy(EARTH_RADIUS_KM * np.arctan2(cross, (vectors[0] * vectors[1]).sum(-1)))


def pairs_of_points(regime: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Two (20000, 2) tensors of degrees."""
    rng = np.random.default_rng(0)
    a = rng.uniform((-90, -180), (90, 180), size=(20000, 2))
    b = rng.uniform((-90, -180), (90, 180), size=(20000, 2))
    side = rng.choice((-1.0, 1.0), size=len(a))
    if regime == "1 m":
        b = a + rng.uniform(-1e-5, 1e-5, size=a.shape)
    elif regime == "25 km":
        b = a + rng.uniform(-0.25, 0.25, size=a.shape)
    elif regime == "antipodes":
        b = a * (-1, 1) + (0, 180) + rng.uniform(-0.01, 0.01, size=a.shape)
    elif regime == "antimeridian":
        a[:, 1] = 180 * side - side * rng.uniform(0, 0.1, size=len(a))
        b = np.stack([a[:, 0], -180 * side + side * rng.uniform(0, 0.1, size=len(a))], axis=-1)
    elif regime == "poles":
        a[:, 0] = side * (90 - rng.uniform(0, 0.1, size=len(a)))
        b[:, 0] = side * (90 - rng.uniform(0, 0.1, size=len(a)))
    a[:, 0], b[:, 0] = np.clip(a[:, 0], -90, 90), np.clip(b[:, 0], -90, 90)
    return torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype)


REGIMES = ("random", "1 m", "25 km", "antipodes", "antimeridian", "poles")


@pytest.mark.parametrize("regime", REGIMES)
def test_float32_distance_is_within_4_m_and_4_eps(regime: str) -> None:
    a, b = pairs_of_points(regime)
    exact = exact_km(a, b)
    error = (haversine_km(a, b).double() - exact).abs()
    assert error.max() <= 0.004
    # The exact value is itself off by a float64 eps of the radius.
    assert (error <= 4 * EPS * exact + 1e-11).all()


@pytest.mark.parametrize("regime", REGIMES)
def test_float64_distance_is_within_a_micrometre(regime: str) -> None:
    a, b = pairs_of_points(regime, torch.float64)
    assert (haversine_km(a, b) - exact_km(a, b)).abs().max() <= 1e-9


@pytest.mark.parametrize("regime", REGIMES)
def test_distance_is_symmetric(regime: str) -> None:
    a, b = pairs_of_points(regime)
    forth, back = haversine_km(a, b), haversine_km(b, a)
    assert ((forth - back).abs() <= 4 * EPS * forth).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distance_is_within_0_57_percent_of_the_wgs84_geodesic(dtype: torch.dtype) -> None:
    geod = Geod(ellps="WGS84")
    for regime in ("random", "25 km", "antimeridian"):
        a, b = pairs_of_points(regime, dtype)
        # pyproj takes lon, lat
        _, _, geodesic_m = geod.inv(*(x.double().numpy() for x in (a[:, 1], a[:, 0], b[:, 1], b[:, 0])))
        distance_m = 1000 * haversine_km(a, b).double().numpy()
        assert (np.abs(distance_m - geodesic_m) <= 0.0057 * geodesic_m).all()


# Multiples of 1/64 degree: every sum with a multiple of 360 is exact, in float32 too.
LATS = st.integers(-90 * 64, 90 * 64).map(lambda n: n / 64)
LONS = st.integers(-180 * 64, 180 * 64).map(lambda n: n / 64)
POINTS = st.tuples(LATS, LONS)
DTYPES = st.sampled_from([torch.float32, torch.float64])


@settings(deadline=None)
@given(a=POINTS, b=POINTS, turns=st.integers(-3, 3), dtype=DTYPES)
def test_whole_turns_of_longitude_change_nothing(
    a: tuple[float, float], b: tuple[float, float], turns: int, dtype: torch.dtype
) -> None:
    turned = torch.tensor([a[0], a[1] + 360 * turns], dtype=dtype)
    expected = haversine_km(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype))
    assert haversine_km(turned, torch.tensor(b, dtype=dtype)) == expected


@settings(deadline=None)
@given(a=POINTS, dtype=DTYPES)
def test_a_point_is_0_km_from_itself(a: tuple[float, float], dtype: torch.dtype) -> None:
    point = torch.tensor(a, dtype=dtype)
    assert haversine_km(point, point) == 0


@settings(deadline=None)
@given(a=POINTS, dtype=DTYPES)
def test_antipodes_are_half_the_circumference_apart(a: tuple[float, float], dtype: torch.dtype) -> None:
    antipode = torch.tensor([-a[0], a[1] + 180], dtype=dtype)
    distance = float(haversine_km(torch.tensor(a, dtype=dtype), antipode))
    assert abs(distance - HALF_CIRCUMFERENCE_KM) <= 4 * torch.finfo(dtype).eps * HALF_CIRCUMFERENCE_KM


@settings(deadline=None)
@given(lon_a=LONS, lon_b=LONS, pole=st.sampled_from([90.0, -90.0]), dtype=DTYPES)
def test_longitude_means_nothing_at_a_pole(lon_a: float, lon_b: float, pole: float, dtype: torch.dtype) -> None:
    a, b = torch.tensor([pole, lon_a], dtype=dtype), torch.tensor([pole, lon_b], dtype=dtype)
    assert haversine_km(a, b) == 0


def test_a_quarter_turn_is_a_quarter_of_the_circumference() -> None:
    origin = torch.tensor([0.0, 0.0], dtype=torch.float64)
    others = torch.tensor([[90.0, 13.0], [-90.0, 0.0], [0.0, 90.0], [0.0, -90.0]], dtype=torch.float64)
    expected = torch.full((4,), HALF_CIRCUMFERENCE_KM / 2, dtype=torch.float64)
    assert ((haversine_km(origin, others) - expected).abs() <= 4 * np.finfo(np.float64).eps * expected).all()


@pytest.mark.parametrize("place", range(4))
def test_nan_in_is_nan_out(place: int) -> None:
    values = torch.zeros(3, 4)
    values[1, place] = torch.nan
    assert haversine_km(values[:, :2], values[:, 2:]).isnan().tolist() == [False, True, False]


def test_points_broadcast_like_any_tensor() -> None:
    a, b = (x[:12] for x in pairs_of_points("random"))
    grid = haversine_km(a[:3, None], b)
    for i in range(3):
        for j in range(12):
            alone = haversine_km(a[i], b[j])
            # vector and scalar sine may differ in the last place
            assert abs(grid[i, j] - alone) <= 4 * EPS * alone


@pytest.mark.parametrize(("a_shape", "b_shape"), [((5, 3), (5, 2)), ((5, 2), (5, 1)), ((2,), ())])
def test_points_that_are_not_pairs_are_rejected(a_shape: tuple, b_shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 2\) lat, lon, got") as error:
        haversine_km(torch.zeros(a_shape), torch.zeros(b_shape))
    assert f"{a_shape} and {b_shape}" in str(error.value)
