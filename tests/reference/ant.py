"""ANT's equations, literally, in NumPy float64.

Paper: Peng et al., "Multi-modality Meets Re-learning: Mitigating Negative Transfer in Sequential Recommendation".
Each sum of the paper is a loop: the code is written to be compared with the paper by eye, not to be fast.

Symbols: D width of a modality's vector, d width of an item representation, n_h projection heads, n items,
L length of a sequence, T targets. The parameters of a modality (Eq. 10) are a dict with the paper's names:
`b` (text and image [n_h, D], price [n_h, d]), `W` [n_h, D, d], `B` [D, n_h] and `U` [D, n_h].

Equations that leave nothing to compute here: Eq. 1 and 2 are the text and the image encoder, whose vectors are
given. Eq. 10 names the parameters of an item representation. Eq. 16 is Eq. 13 over the target's items. Eq. 19 says
which parameters are trained.

Eq. 13 and 14 are sums in the paper and means here, as a mini-batch needs; lambda of Eq. 15 weighs the two means.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.sasrec import Array, Parameters, softmax


def scale_prices(prices: ArrayLike) -> Array:
    """Scale prices [n] linearly so that the cheapest is 0 and the dearest 100; NaN (a missing price) stays NaN."""
    prices = np.asarray(prices, dtype=np.float64)
    low, high = np.nanmin(prices), np.nanmax(prices)
    if low == high:
        return prices - low
    return 100 * (prices - low) / (high - low)


def standardize(vectors: ArrayLike, present: ArrayLike) -> Array:
    """Vectors [n, D] minus their mean, with entries whose mean square is 1; items without a vector do not count."""
    vectors = np.asarray(vectors, dtype=np.float64)
    centered = vectors - vectors[np.asarray(present)].mean(axis=0)
    return centered / np.sqrt((centered[np.asarray(present)] ** 2).mean())


def price_embedding(price: float, d_p: int, omega: float) -> Array:
    """Eq. 3: the sinusoidal embedding [d_p] of a price that is scaled to 0..100; d_p is even."""
    embedding = np.empty(d_p)
    for j in range(d_p // 2):
        omega_j = omega ** (-2 * j / d_p)
        embedding[2 * j] = math.sin(omega_j * price)
        embedding[2 * j + 1] = math.cos(omega_j * price)
    return embedding


def whitening(v: Array, b: Array, W: Array) -> Array:
    """Eq. 4: parametric whitening of v [D] by each head, with b [n_h, D] and W [n_h, D, d]; returns [n_h, d]."""
    return np.stack([(v - b[k]) @ W[k] for k in range(len(W))])


def linear(v: Array, W: Array, b: Array) -> Array:
    """Eq. 5: linear projection of v [D] by each head, with W [n_h, D, d] and b [n_h, d]; returns [n_h, d]."""
    return np.stack([v @ W[k] + b[k] for k in range(len(W))])


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), element by element."""
    return np.logaddexp(0, x)


def routing_logits(v: Array, B: Array, U: Array, noise: Array | None) -> Array:
    """Eq. 7: alpha [n_h] of an item's vector v [D], with B and U [D, n_h].

    `noise` [n_h] is a draw from the standard normal distribution; None gives the mean of alpha.
    """
    mean = v @ B
    if noise is None:
        return mean
    return mean + softplus(v @ U) * noise


def gaussian_weights(v: Array, B: Array, U: Array, noise: Array | None) -> Array:
    """Eq. 6 and 7: Softmax(alpha) [n_h], the share of each head; arguments as in `routing_logits`."""
    return softmax(routing_logits(v, B, U, noise))


def transformed(heads: Array, weights: Array) -> Array:
    """Eq. 6: the sum [d] of the projections `heads` [n_h, d], each times its weight; weights [n_h]."""
    z = np.zeros(heads.shape[1])
    for weight, head in zip(weights, heads, strict=True):
        z += weight * head
    return z


def text_or_image_vector(v: Array | None, parameters: Parameters, noise: Array | None = None) -> Array:
    """Eq. 4, 6 and 7: the transformed text or image vector z [d] of v [D]; zero where the item has none."""
    W = parameters["W"]
    if v is None:
        return np.zeros(W.shape[2])
    heads = whitening(v, parameters["b"], W)
    return transformed(heads, gaussian_weights(v, parameters["B"], parameters["U"], noise))


def price_vector(v: Array | None, parameters: Parameters, noise: Array | None = None) -> Array:
    """Eq. 5, 6 and 7: the transformed price vector z [d] of v [d_p] (Eq. 3); zero where the item has no price."""
    W = parameters["W"]
    if v is None:
        return np.zeros(W.shape[2])
    heads = linear(v, W, parameters["b"])
    return transformed(heads, gaussian_weights(v, parameters["B"], parameters["U"], noise))


def fusion(text: Array, image: Array) -> Array:
    """Eq. 8: the synergy [d] of a transformed text and a transformed image [d]."""
    return text * image


def item_representation(text: Array, image: Array, price: Array, beta: float) -> Array:
    """Eq. 9: an item's representation [d] from its transformed text, image and price [d].

    A missing modality is zero here, after the projection: before it, the shift of Eq. 4 would make it a constant.
    """
    return text + image + price + beta * fusion(text, image)


def ant_e(items: Array, embeddings: Array) -> Array:
    """Eq. 18: item representations [n, d] plus an embedding learned from interactions for each item [n, d]."""
    return items + embeddings


def sequence_matrix(items: Array, sequence: Sequence[int]) -> Array:
    """Eq. 11: M [L, d], the representations of a sequence's items; items [n, d]."""
    return np.stack([items[i] for i in sequence])


def cosine(x: Array, y: Array) -> float:
    """Cosine similarity of two vectors [d]; zero where one of them is zero."""
    norms = math.sqrt(x @ x) * math.sqrt(y @ y)
    return float(x @ y) / norms if norms > 0 else 0.0


def score(h: Array, items: Array) -> Array:
    """Eq. 17: the recommendation score [n] of each item for a user h [d]; items [n, d]."""
    return np.array([cosine(h, item) for item in items])


def probabilities(queries: Array, candidates: Array, allowed: NDArray[np.bool_], tau: float) -> Array:
    """Softmax of cosine / tau over the allowed candidates, the p of Eq. 13 and the q of Eq. 14.

    queries [T, d], candidates [n, d], allowed [T, n]; returns [T, n], zero where not allowed.
    """
    result = np.zeros((len(queries), len(candidates)))
    for j, query in enumerate(queries):
        columns = np.flatnonzero(allowed[j])
        result[j, columns] = softmax(score(query, candidates[columns]) / tau)
    return result


def negative_log_likelihood(
    queries: Array, candidates: Array, target: Sequence[int], allowed: NDArray[np.bool_], tau: float
) -> float:
    """Mean over T queries of -log of the target's probability; target [T] are rows of `candidates`, else as above."""
    p = probabilities(queries, candidates, allowed, tau)
    return sum(-math.log(p[j, target[j]]) for j in range(len(queries))) / len(queries)


def negative_log_likelihood_gradient(
    queries: Array, candidates: Array, target: Sequence[int], allowed: NDArray[np.bool_], tau: float
) -> tuple[Array, Array]:
    """The gradient of `negative_log_likelihood` with respect to queries [T, d] and candidates [n, d].

    The gradient of -log p_g by the cosine with candidate i is (p_i - [i = g]) / tau, and that of cos(x, y) by x is
    (y / |y| - cos(x, y) x / |x|) / |x|.
    """
    p = probabilities(queries, candidates, allowed, tau)
    by_queries, by_candidates = np.zeros_like(queries), np.zeros_like(candidates)
    for j, query in enumerate(queries):
        query_norm = math.sqrt(query @ query)
        for i, candidate in enumerate(candidates):
            if not allowed[j, i]:
                continue
            by_cosine = (p[j, i] - (i == target[j])) / tau / len(queries)
            candidate_norm = math.sqrt(candidate @ candidate)
            similarity = cosine(query, candidate)
            by_queries[j] += by_cosine * (candidate / candidate_norm - similarity * query / query_norm) / query_norm
            by_candidates[i] += (
                by_cosine * (query / query_norm - similarity * candidate / candidate_norm) / candidate_norm
            )
    return by_queries, by_candidates


def recommendation_loss(h: Array, table: Array, target: Sequence[int], tau: float) -> float:
    """Eq. 13 and 16 as a mean: h [T, d] users, table [n, d] all items, target [T] rows of the table."""
    return negative_log_likelihood(h, table, target, np.ones((len(h), len(table)), dtype=bool), tau)


def recommendation_loss_gradient(h: Array, table: Array, target: Sequence[int], tau: float) -> tuple[Array, Array]:
    """The gradient of `recommendation_loss` with respect to h [T, d] and table [n, d]."""
    return negative_log_likelihood_gradient(h, table, target, np.ones((len(h), len(table)), dtype=bool), tau)


def in_batch_candidates(
    target: Sequence[int], window: Sequence[int], windows: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], NDArray[np.bool_]]:
    """The candidates of the in-batch loss: each item that is a target in the batch, once.

    target [T] item ids, window [T] the window that each target is in, windows [w] the items of each window, inputs
    and targets. Returns the candidates' item ids [c] in rising order, the place of each target among them [T], and
    which candidates count for which target [T, c]: the target itself, and no other item of the same window.
    """
    candidates = sorted(set(target))
    allowed = np.ones((len(target), len(candidates)), dtype=bool)
    for j, own in enumerate(target):
        for c, item in enumerate(candidates):
            allowed[j, c] = item == own or item not in windows[window[j]]
    return candidates, [candidates.index(item) for item in target], allowed


def in_batch_loss(
    h: Array,
    table: Array,
    target: Sequence[int],
    window: Sequence[int],
    windows: Sequence[Sequence[int]],
    tau: float,
) -> float:
    """Eq. 13 with the candidates of `in_batch_candidates`: h [T, d], table [n, d] indexed by item id."""
    candidates, place, allowed = in_batch_candidates(target, window, windows)
    return negative_log_likelihood(h, table[candidates], place, allowed, tau)


def in_batch_loss_gradient(
    h: Array,
    table: Array,
    target: Sequence[int],
    window: Sequence[int],
    windows: Sequence[Sequence[int]],
    tau: float,
) -> tuple[Array, Array]:
    """The gradient of `in_batch_loss` with respect to h [T, d] and table [n, d]."""
    candidates, place, allowed = in_batch_candidates(target, window, windows)
    by_h, by_candidates = negative_log_likelihood_gradient(h, table[candidates], place, allowed, tau)
    by_table = np.zeros_like(table)
    by_table[candidates] = by_candidates
    return by_h, by_table


def alignment_loss(image: Array, text: Array, complete: ArrayLike, tau: float) -> float:
    """Eq. 14 as a mean: each image looks for its own text among the texts of all items.

    image and text [n, d] are transformed vectors (Eq. 6), complete [n] says which items have both. The others are
    neither anchors nor candidates; without any complete item the loss is zero.
    """
    rows = np.flatnonzero(complete)
    if len(rows) == 0:
        return 0.0
    return recommendation_loss(image[rows], text[rows], range(len(rows)), tau)


def alignment_loss_gradient(image: Array, text: Array, complete: ArrayLike, tau: float) -> tuple[Array, Array]:
    """The gradient of `alignment_loss` with respect to image and text [n, d]."""
    by_image, by_text = np.zeros_like(image), np.zeros_like(text)
    rows = np.flatnonzero(complete)
    if len(rows) > 0:
        by_image[rows], by_text[rows] = recommendation_loss_gradient(image[rows], text[rows], range(len(rows)), tau)
    return by_image, by_text


def pretraining_loss(recommendation: float, alignment: float, lambda_: float) -> float:
    """Eq. 15: the recommendation loss plus lambda times the alignment loss."""
    return recommendation + lambda_ * alignment


def finite_difference(f: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    """The gradient of a function f of an array x by central differences, in x's shape."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (f(above) - f(below)) / (2 * step)
    return gradient
