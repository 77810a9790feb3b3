"""VQ-Rec: vector-quantized item representations for transferable sequential recommenders (Hou et al., WWW 2023).

Symbols in comments: N items, n vectors, D codes of an item, M values of a code, w width of a part of a text vector, C
candidates, d width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import drawn, gather
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.errors import XferError
from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.layers.items import SCALING, TINY, FeatureTables
from recbole_xfer.layers.losses import cosine_cross_entropy
from recbole_xfer.model.base import EMBEDDING_RANGE, FeatureRecommender, Step, check_texts

FITTED, ROUNDS = 2**16, 25
"""Texts from which codes are learned, at most, and the most rounds of k-means."""

BLOCK = 1024
"""Texts whose codes are computed at a time."""

FAR = 1e9
"""Coordinates of centroids that no text is nearest to, where there are fewer texts than values of a code."""

SINKHORN_ROUNDS = 3
"""Rounds of normalising the rows and the columns of an alignment."""

RATE = 10.0
"""The logits of a permutation are learned this much faster than other parameters: with Adam, by this many rates."""

START = 0.9
"""The share of its own embedding that a value has in the initial permutation."""


class Quantizer(nn.Module):
    """Codes of texts by optimised product quantisation, learned from the texts of training.

    The vector of a text is rotated and cut into D parts; a code is the centroid that is nearest to a part. The rotation
    is the parametric solution of Ge et al. (CVPR 2013): principal components, dealt to the parts so that the products
    of their variances are similar. Centroids are found by k-means.

    Args:
        width: of a text vector; the smallest components are left out where it is no multiple of D.
        codes: D.
        values: M.
        seed: of the k-means.
    """

    center: Tensor
    rotation: Tensor
    centroids: Tensor

    def __init__(self, width: int, codes: int, values: int, seed: int) -> None:
        super().__init__()
        self.seed = seed
        part = width // codes
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("rotation", torch.zeros(width, codes * part))
        self.register_buffer("centroids", torch.full((codes, values, part), FAR))  # until they are learned
        self._codes: Tensor | None = None

    def forward(self, features: FeatureTables, ids: Tensor) -> Tensor:
        """Codes of items, [N, D]; all are computed at once, and those of items without a text mean nothing."""
        if self._codes is None:
            with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                if not self.learned:
                    self.learn(features)
                blocks = torch.arange(len(features.text_present), device=ids.device).split(BLOCK)
                self._codes = torch.cat([self.nearest(features.rows("text", block)) for block in blocks])
        return self._codes[ids]

    @property
    def learned(self) -> bool:
        """Whether there are centroids."""
        return bool((self.centroids < FAR).any())

    def forget(self) -> None:
        """Forgets the codes, because items or parameters have changed."""
        self._codes = None

    def _load_from_state_dict(self, *args: Any) -> None:
        self.forget()
        super()._load_from_state_dict(*args)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The nearest centroids of the parts of vectors: [n, width] to [n, D]."""
        distance = self.centroids.square().sum(dim=-1)[:, None] - 2 * self.parts(vectors) @ self.centroids.mT
        return distance.argmin(dim=-1).T  # of [D, n, M]

    def parts(self, vectors: Tensor) -> Tensor:
        """Rotated vectors [n, width] in parts, [D, n, w]."""
        return ((vectors - self.center) @ self.rotation).unflatten(-1, (len(self.centroids), -1)).transpose(0, 1)

    @torch.no_grad()
    def learn(self, features: FeatureTables) -> None:
        """Learns codes from the texts of all items, or from :data:`FITTED` of them.

        Learned codes are learned further, in the same rotation: their centroids move to the texts.
        """
        ids = features.text_present.nonzero().flatten()
        if len(ids) > FITTED:
            chosen = np.random.default_rng(self.seed).choice(len(ids), FITTED, replace=False)
            ids = ids[torch.from_numpy(np.sort(chosen)).to(ids.device)]
        vectors = features.rows("text", ids)
        starts: Any = self.centroids.cpu().numpy() if self.learned else [None] * len(self.centroids)
        if not self.learned:
            self.center.copy_(vectors.mean(dim=0))
            self.rotation.copy_(balanced_rotation((vectors - self.center).cpu(), len(self.centroids)))
        for centroids, points, start in zip(self.centroids, self.parts(vectors), starts, strict=True):
            found = k_means(points.cpu().numpy(), len(centroids), start, self.seed)
            centroids[: len(found)] = torch.from_numpy(found).to(centroids)
        self.forget()


def balanced_rotation(vectors: Tensor, parts: int) -> Tensor:
    """Principal components of centred vectors [n, width], dealt to parts of equal size, [width, parts * w].

    In the order of their variances, each goes to the part with the smallest product of variances that has room.
    """
    variances, components = torch.linalg.eigh(vectors.double().T @ vectors.double() / len(vectors))
    room = vectors.shape[1] // parts
    kept = variances[-parts * room :].clamp(min=TINY)  # ascending
    gains = (kept / kept[0]).log().tolist()  # with the smallest as the unit, a product never falls
    dealt: list[list[int]] = [[] for _ in range(parts)]
    products = [0.0] * parts  # logarithms
    for place in reversed(range(len(gains))):
        part = min((p for p in range(parts) if len(dealt[p]) < room), key=products.__getitem__)
        dealt[part].append(place)
        products[part] += gains[place]
    return components[:, -len(gains) :][:, [place for part in dealt for place in part]].to(vectors.dtype)


def k_means(points: np.ndarray, count: int, start: np.ndarray | None, seed: int) -> np.ndarray:
    """Centroids of points [n, w], at most as many as there are points.

    Args:
        points: to cluster.
        count: of centroids.
        start: initial centroids, which are returned where there are fewer points; None draws them.
        seed: of the draw.
    """
    if start is not None and len(points) < count:
        return start
    method = KMeans(
        min(count, len(points)),
        init="k-means++" if start is None else start,
        n_init=1,
        max_iter=ROUNDS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal texts
        return method.fit(points).cluster_centers_


class Alignment(nn.Module):
    """A doubly stochastic matrix for each code, by which the embeddings of its values are permuted softly."""

    def __init__(self, codes: int, values: int) -> None:
        super().__init__()
        logit = math.log(START / (1 - START) * max(values - 1, 1))
        self.weight = nn.Parameter(torch.eye(values).repeat(codes, 1, 1) * (logit / RATE))

    def matrices(self) -> Tensor:
        """Sinkhorn's normalisation of the exponentials of the logits, [D, M, M]."""
        logits = RATE * self.weight
        for _ in range(SINKHORN_ROUNDS):
            logits = logits - logits.logsumexp(dim=-1, keepdim=True)
            logits = logits - logits.logsumexp(dim=-2, keepdim=True)
        return logits.exp()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings [D, M, d] to the same."""
        return self.matrices() @ embeddings


class VQRec(FeatureRecommender):
    """Text => codes => representation: an item is the mean of the embeddings of its codes, which transfer.

    Pre-training finds the next item among the batch's targets of all domains and semi-synthetic negatives, which are
    these targets with a proportion of their codes replaced at random.

    ``--adaptation=align`` is the paper's: the target has codes of its own, so the embeddings of the sources' codes are
    permuted. For ``align_epochs`` the permutation alone is trained, then everything. With ``--adaptation=finetune``
    (ours) the target's texts have the codes of the sources' quantizer, without a permutation; everything is trained.

    Deviation: the rotation is OPQ's parametric solution, not the iterated one. Deviation: the target's codes start from
    those of the sources, and the permutation near the identity, where the paper learns both anew (docs/decisions/0032).
    Deviation: a semi-synthetic negative is one of all users of the batch. Deviation: training is at all positions, and
    items of a user's own window are not negatives in a batch.
    """

    shares_batches: ClassVar[bool] = True
    kept: ClassVar = dict.fromkeys(
        ("finetune", "align"), ("code_embedding", "encoder.", "position_embedding.", "quantizer.", *SCALING)
    )

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        check_texts(dataset, self.features)
        codes, self.values, width = config["codes"], config["code_values"], self.features.sizes()["text"]
        if codes > width:
            raise XferError(f"codes={codes} exceeds the {width} values of a text vector. Set --codes={width} or fewer.")
        self.random_codes = float(config["random_codes"])
        if self.random_codes and self.negatives != "in_batch":
            raise XferError(
                f"random_codes={config['random_codes']} adds negatives to those of a batch, but negatives="
                f"{self.negatives}. Set --negatives=in_batch or --random_codes=0."
            )
        self.quantizer = Quantizer(width, codes, self.values, config["seed"])
        self.code_embedding = nn.Parameter(torch.empty(codes, self.values, self.width))
        nn.init.normal_(self.code_embedding, std=EMBEDDING_RANGE * codes**0.5)  # so that items have EMBEDDING_RANGE
        self.alignment = Alignment(codes, self.values) if config["adaptation"] == "align" else None
        self.encoder = CausalEncoder(config)

    def adapt(self, pretrained: Mapping[str, Tensor], adaptation: str) -> None:
        """See :meth:`~recbole_xfer.hooks.Hooks.adapt`; alignment moves the codes to the target's texts."""
        super().adapt(pretrained, adaptation)
        if adaptation == "align":
            self.quantizer.learn(self.features)

    def use_items(self, features: ItemFeatures) -> None:
        """See :meth:`~recbole_xfer.model.base.ContentRecommender.use_items`; the codes keep their meaning."""
        super().use_items(features)
        self.quantizer.forget()

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to the mean embedding of their codes, [N, d]; zero for an item without text."""
        items = self.mean_embedding(self.quantizer(self.features, ids))
        return items * self.features.present("text", ids)[:, None], {}

    def mean_embedding(self, codes: Tensor) -> Tensor:
        """Codes [N, D] to the mean of their embeddings, [N, d]."""
        embeddings = self.code_embedding if self.alignment is None else self.alignment(self.code_embedding)
        first = self.values * torch.arange(codes.shape[1], device=codes.device)
        return F.embedding_bag(codes + first, embeddings.flatten(0, 1), mode="mean")

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; ``real`` is bool [B, L]."""
        return self.encoder(embedded, real)

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.encode_at`."""
        return self.encoder.at(position, self.embed(items), items > 0)

    def align_alone(self, alone: bool) -> None:
        """Trains the permutation alone, or everything."""
        self.requires_grad_(not alone)
        if self.alignment is not None:
            self.alignment.requires_grad_(True)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The next-item loss, with semi-synthetic negatives where ``random_codes`` is not 0."""
        step = self.encode_step(interaction)
        return self._loss_with_synthetic(step) if self.random_codes else self.next_item_loss(step)

    def _loss_with_synthetic(self, step: Step) -> Tensor:
        """The loss over the batch's targets, followed by a semi-synthetic form of each."""
        target = step.targets[step.targets > 0]
        candidates = gather(target).unique()  # [C]
        synthetic = self.mean_embedding(self.with_random_codes(self.quantizer(self.features, candidates)))
        items = torch.cat([step.table[step.row(candidates)], synthetic])  # [2 C, d]
        excluded = F.pad(self._in_window(step, candidates), (0, len(candidates)))
        return cosine_cross_entropy(
            step.users, items, torch.searchsorted(candidates, target), self.temperature, excluded
        )

    def with_random_codes(self, codes: Tensor) -> Tensor:
        """Codes [C, D] of which each is replaced, with a probability of ``random_codes``, by a uniform draw."""
        draws = drawn(torch.empty(codes.shape, device=codes.device), Tensor.uniform_, shared=True)
        others = drawn(torch.empty_like(codes), lambda values: values.random_(0, self.values), shared=True)
        return torch.where(draws < self.random_codes, others, codes)
