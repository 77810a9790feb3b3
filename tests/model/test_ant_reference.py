"""The reference of ANT's equations against gradients, known values and RecBole's encoder."""

import math

import numpy as np
import pytest
import torch
from recbole.model.layers import TransformerEncoder

from tests.reference import ant
from tests.reference.sasrec import sasrec

TAU = 0.07


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def modality(generator: np.random.Generator, width: int, d: int, n_heads: int, shift_width: int) -> ant.Parameters:
    """Random parameters of one modality, see the head of tests/reference/ant.py."""
    return {
        "b": generator.normal(size=(n_heads, shift_width)),
        "W": generator.normal(size=(n_heads, width, d)),
        "B": generator.normal(size=(width, n_heads)),
        "U": generator.normal(size=(width, n_heads)),
    }


def test_prices_are_scaled_to_0_to_100_and_missing_ones_stay_missing() -> None:
    np.testing.assert_allclose(ant.scale_prices([2, np.nan, 4, 3]), [0, np.nan, 100, 50])
    np.testing.assert_allclose(ant.scale_prices([3, 3, np.nan]), [0, 0, np.nan])


def test_price_embedding_alternates_sine_and_cosine_of_falling_frequencies() -> None:
    expected = [math.sin(2), math.cos(2), math.sin(2 / 100), math.cos(2 / 100)]
    np.testing.assert_allclose(ant.price_embedding(2, d_p=4, omega=10_000), expected)


def test_price_proximity_is_symmetric_and_the_same_everywhere() -> None:
    def proximity(x: float, y: float) -> float:
        return float(ant.price_embedding(x, 64, 50_000) @ ant.price_embedding(y, 64, 50_000))

    assert proximity(10, 17) == pytest.approx(proximity(17, 10))
    assert proximity(10, 17) == pytest.approx(proximity(73, 80))
    assert proximity(10, 10) == pytest.approx(32)


def test_price_proximity_falls_with_distance_between_near_prices() -> None:
    """The highest frequency is 1, so each term falls at least up to a distance of pi."""
    embeddings = np.stack([ant.price_embedding(x, 64, 50_000) for x in np.linspace(0, math.pi, 50)])
    assert np.all(np.diff(embeddings @ embeddings[0]) < 0)


def test_projections_are_affine_maps_of_each_head(generator: np.random.Generator) -> None:
    v, W = generator.normal(size=3), generator.normal(size=(2, 3, 4))
    shift, bias = generator.normal(size=(2, 3)), generator.normal(size=(2, 4))
    np.testing.assert_allclose(ant.linear(v, W, bias), np.einsum("i,kij->kj", v, W) + bias)
    np.testing.assert_allclose(ant.whitening(v, shift, W), np.einsum("ki,kij->kj", v - shift, W))


def test_routing_weights_sum_to_one_and_noise_of_zero_is_the_mean(generator: np.random.Generator) -> None:
    v, B, U = generator.normal(size=5), generator.normal(size=(5, 8)), generator.normal(size=(5, 8))
    weights = ant.gaussian_weights(v, B, U, generator.normal(size=8))
    assert weights.sum() == pytest.approx(1)
    assert np.all(weights > 0)
    np.testing.assert_allclose(ant.gaussian_weights(v, B, U, None), ant.gaussian_weights(v, B, U, np.zeros(8)))


def test_routing_noise_has_the_deviation_of_eq_7(generator: np.random.Generator) -> None:
    v, B, U = generator.normal(size=5), generator.normal(size=(5, 8)), generator.normal(size=(5, 8))
    draws = np.stack([ant.routing_logits(v, B, U, generator.normal(size=8)) for _ in range(20_000)])
    np.testing.assert_allclose(draws.mean(axis=0), v @ B, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), np.log1p(np.exp(v @ U)), rtol=0.03)


def test_one_head_needs_no_routing(generator: np.random.Generator) -> None:
    parameters = modality(generator, width=5, d=4, n_heads=1, shift_width=5)
    v = generator.normal(size=5)
    expected = (v - parameters["b"][0]) @ parameters["W"][0]
    np.testing.assert_allclose(ant.text_or_image_vector(v, parameters, generator.normal(size=1)), expected)


def test_equal_routing_logits_average_the_heads(generator: np.random.Generator) -> None:
    parameters = {**modality(generator, width=6, d=4, n_heads=2, shift_width=4), "B": np.zeros((6, 2))}
    v = generator.normal(size=6)
    heads = ant.linear(v, parameters["W"], parameters["b"])
    np.testing.assert_allclose(ant.price_vector(v, parameters), heads.mean(axis=0))


def test_missing_modality_adds_nothing(generator: np.random.Generator) -> None:
    text_parameters = modality(generator, width=5, d=4, n_heads=2, shift_width=5)
    price_parameters = modality(generator, width=6, d=4, n_heads=2, shift_width=4)
    text = ant.text_or_image_vector(generator.normal(size=5), text_parameters)
    image = ant.text_or_image_vector(None, text_parameters)
    price = ant.price_vector(None, price_parameters)
    np.testing.assert_array_equal(ant.item_representation(text, image, price, beta=0.3), text)


def test_item_representation_adds_the_weighted_synergy() -> None:
    text, image, price = np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array([10.0, 20.0])
    np.testing.assert_allclose(ant.item_representation(text, image, price, beta=0.5), [15.5, 20.0])
    np.testing.assert_allclose(ant.ant_e(np.array([text, image]), np.ones((2, 2))), [[2, 3], [4, 0]])


def random_sasrec(generator: np.random.Generator, d: int, inner: int) -> tuple[ant.Parameters, TransformerEncoder]:
    """Random parameters for `sasrec` (2 layers, 2 heads, 10 positions) and RecBole's encoder that has them."""
    encoder = TransformerEncoder(n_layers=2, n_heads=2, hidden_size=d, inner_size=inner).double().eval()
    state = {name: generator.normal(size=value.shape) for name, value in encoder.state_dict().items()}
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    outside = {
        "position_embedding.weight": generator.normal(size=(10, d)),
        "LayerNorm.weight": generator.normal(size=d),
        "LayerNorm.bias": generator.normal(size=d),
    }
    return {**outside, **{f"trm_encoder.{name}": value for name, value in state.items()}}, encoder


def test_sasrec_is_recboles_encoder(generator: np.random.Generator) -> None:
    parameters, encoder = random_sasrec(generator, d=8, inner=12)
    M = ant.sequence_matrix(generator.normal(size=(9, 8)), [3, 1, 4, 1, 5])
    weight, bias = (torch.from_numpy(parameters[f"LayerNorm.{name}"]) for name in ("weight", "bias"))
    x = torch.from_numpy(M + parameters["position_embedding.weight"][:5])
    x = torch.nn.functional.layer_norm(x, (8,), weight, bias, eps=1e-12)
    causal = torch.full((5, 5), -10_000.0, dtype=torch.float64).triu(diagonal=1)
    with torch.no_grad():
        expected = encoder(x[None], causal)[-1][0].numpy()
    np.testing.assert_allclose(sasrec(M, parameters, n_heads=2), expected, rtol=1e-9, atol=1e-9)


def test_sasrec_does_not_see_later_items(generator: np.random.Generator) -> None:
    parameters, _ = random_sasrec(generator, d=8, inner=12)
    M = generator.normal(size=(5, 8))
    changed = np.concatenate([M[:3], generator.normal(size=(2, 8))])
    before, after = sasrec(M, parameters, n_heads=2), sasrec(changed, parameters, n_heads=2)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert not np.allclose(before[3:], after[3:])


def test_cosine_is_bounded_and_ignores_length(generator: np.random.Generator) -> None:
    h, items = generator.normal(size=4), generator.normal(size=(100, 4))
    scores = ant.score(h, items)
    assert np.all(np.abs(scores) <= 1)
    np.testing.assert_allclose(ant.score(3 * h, 5 * items), scores)
    np.testing.assert_allclose(ant.score(h, np.stack([h, -h, 0 * h])), [1, -1, 0], atol=1e-15)


def test_probabilities_sum_to_one_over_the_allowed(generator: np.random.Generator) -> None:
    allowed = generator.random((5, 7)) < 0.5
    allowed[:, 0] = True
    p = ant.probabilities(generator.normal(size=(5, 4)), generator.normal(size=(7, 4)), allowed, TAU)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert np.all(p[~allowed] == 0)


def test_equal_items_have_equal_probability(generator: np.random.Generator) -> None:
    h = generator.normal(size=(3, 4))
    table = np.tile(generator.normal(size=4), (6, 1))
    assert ant.recommendation_loss(h, table, [0, 3, 5], TAU) == pytest.approx(math.log(6))


def test_recommendation_loss_is_torch_cross_entropy_with_its_gradient(generator: np.random.Generator) -> None:
    h, table, target = generator.normal(size=(4, 5)), generator.normal(size=(7, 5)), [2, 0, 6, 2]
    queries, candidates = (torch.from_numpy(x).requires_grad_() for x in (h, table))
    normalize = torch.nn.functional.normalize
    logits = normalize(queries, dim=-1) @ normalize(candidates, dim=-1).T / TAU
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(target))
    by_queries, by_candidates = torch.autograd.grad(loss, [queries, candidates])
    by_h, by_table = ant.recommendation_loss_gradient(h, table, target, TAU)
    assert ant.recommendation_loss(h, table, target, TAU) == pytest.approx(loss.item())
    np.testing.assert_allclose(by_h, by_queries.numpy(), atol=1e-12)
    np.testing.assert_allclose(by_table, by_candidates.numpy(), atol=1e-12)


def test_recommendation_gradient_is_the_finite_difference(generator: np.random.Generator) -> None:
    h, table, target = generator.normal(size=(4, 5)), generator.normal(size=(7, 5)), [2, 0, 6, 2]
    by_h, by_table = ant.recommendation_loss_gradient(h, table, target, TAU)
    expected_by_h = ant.finite_difference(lambda x: ant.recommendation_loss(x, table, target, TAU), h)
    expected_by_table = ant.finite_difference(lambda x: ant.recommendation_loss(h, x, target, TAU), table)
    np.testing.assert_allclose(by_h, expected_by_h, atol=1e-6)
    np.testing.assert_allclose(by_table, expected_by_table, atol=1e-6)


# Two windows: 1 -> 2 -> 3 and 4 -> 2 -> 5, with a target after each first item.
WINDOWS, WINDOW, TARGET = [[1, 2, 3], [4, 2, 5]], [0, 0, 1, 1], [2, 3, 2, 5]


def test_in_batch_negatives_exclude_the_users_own_items() -> None:
    candidates, place, allowed = ant.in_batch_candidates(TARGET, WINDOW, WINDOWS)
    assert candidates == [2, 3, 5]
    assert place == [0, 1, 0, 2]
    np.testing.assert_array_equal(allowed, [[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 1, 1]])


def test_in_batch_loss_and_gradient(generator: np.random.Generator) -> None:
    h, table = generator.normal(size=(4, 5)), generator.normal(size=(7, 5))
    arguments = TARGET, WINDOW, WINDOWS, TAU
    against = [[2, 5], [3, 5], [2, 3], [5, 3]]
    expected = [ant.recommendation_loss(h[[j]], table[items], [0], TAU) for j, items in enumerate(against)]
    assert ant.in_batch_loss(h, table, *arguments) == pytest.approx(np.mean(expected))
    by_h, by_table = ant.in_batch_loss_gradient(h, table, *arguments)
    expected_by_h = ant.finite_difference(lambda x: ant.in_batch_loss(x, table, *arguments), h)
    expected_by_table = ant.finite_difference(lambda x: ant.in_batch_loss(h, x, *arguments), table)
    np.testing.assert_allclose(by_h, expected_by_h, atol=1e-6)
    np.testing.assert_allclose(by_table, expected_by_table, atol=1e-6)
    np.testing.assert_array_equal(by_table[[0, 1, 4, 6]], 0)


def test_alignment_excludes_incomplete_items(generator: np.random.Generator) -> None:
    image, text = generator.normal(size=(6, 5)), generator.normal(size=(6, 5))
    complete = np.array([True, False, True, True, False, True])
    loss = ant.alignment_loss(image, text, complete, TAU)
    image[~complete], text[~complete] = 0, 0
    assert ant.alignment_loss(image, text, complete, TAU) == loss
    assert ant.alignment_loss(image[complete], text[complete], np.ones(4, dtype=bool), TAU) == pytest.approx(loss)
    assert ant.alignment_loss(image, text, np.zeros(6, dtype=bool), TAU) == 0


def test_alignment_gradient_is_the_finite_difference(generator: np.random.Generator) -> None:
    image, text = generator.normal(size=(6, 5)), generator.normal(size=(6, 5))
    complete = np.array([True, False, True, True, False, True])
    by_image, by_text = ant.alignment_loss_gradient(image, text, complete, TAU)
    expected_by_image = ant.finite_difference(lambda x: ant.alignment_loss(x, text, complete, TAU), image)
    expected_by_text = ant.finite_difference(lambda x: ant.alignment_loss(image, x, complete, TAU), text)
    np.testing.assert_allclose(by_image, expected_by_image, atol=1e-6)
    np.testing.assert_allclose(by_text, expected_by_text, atol=1e-6)


def test_alignment_ranks_texts_for_each_image() -> None:
    """Two equal images and two different texts: each image must choose between the texts."""
    image, text = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    both = np.ones(2, dtype=bool)
    right = math.log(1 + math.exp(-1 / TAU))
    assert ant.alignment_loss(image, text, both, TAU) == pytest.approx((right + right + 1 / TAU) / 2)
    assert ant.alignment_loss(text, image, both, TAU) == pytest.approx(math.log(2))


def test_pretraining_loss_weighs_the_alignment() -> None:
    assert ant.pretraining_loss(2.0, 5.0, 1e-3) == pytest.approx(2.005)
