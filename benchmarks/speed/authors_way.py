"""Measures one training step of ANT with the computation of the authors' code, the yardstick of ant_step.py.

A row of a batch is one prefix of a history, padded to 50 positions, and its next item. Each position of each row,
padding included, passes through the projections again. So do the next items and the whole catalogue.

    python -m benchmarks.speed.authors_way

Prints one JSON object. At the paper's size a step needs about 15 GB.
"""

import argparse
import json
import resource
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.speed.data import PantryLike, pantry_like, prefix_rows

TEMPERATURE = 0.07
FUSION_WEIGHT = 0.3
PROJECTION_DROPOUT = 0.2
DROPOUT = 0.5
PRICE_FREQUENCY = 50_000


class Projection(nn.Module):
    """One head: Eq. 4 if `shift_first`, else Eq. 5."""

    def __init__(self, width: int, d: int, shift_first: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(PROJECTION_DROPOUT)
        self.shift = nn.Parameter(torch.zeros(width)) if shift_first else None
        self.linear = nn.Linear(width, d, bias=not shift_first)

    def forward(self, vectors: Tensor) -> Tensor:  # [..., width] -> [..., d]
        vectors = self.dropout(vectors)
        return self.linear(vectors if self.shift is None else vectors - self.shift)


class Modality(nn.Module):
    """Eq. 4 to 7: all heads of one modality and their Gaussian routing."""

    def __init__(self, width: int, d: int, heads: int, shift_first: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Projection(width, d, shift_first) for _ in range(heads))
        self.mean = nn.Parameter(torch.zeros(width, heads))
        self.deviation = nn.Parameter(torch.zeros(width, heads))

    def forward(self, vectors: Tensor) -> Tensor:  # [..., width] -> [..., d]
        projected = torch.stack([head(vectors) for head in self.heads], dim=-2)  # [..., heads, d]
        mean = vectors @ self.mean
        logits = mean + torch.randn_like(mean) * functional.softplus(vectors @ self.deviation)  # [..., heads]
        return (logits.softmax(dim=-1).unsqueeze(-1) * projected).sum(dim=-2)


def price_embeddings(price: Tensor, width: int) -> Tensor:
    """Eq. 3: [n] prices to [n, width]."""
    scaled = 100 * (price - price.min()) / (price.max() - price.min())
    angles = scaled[:, None] * PRICE_FREQUENCY ** (-2 * torch.arange(width // 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class AuthorsWay(nn.Module):
    """ANT that looks up the raw vectors for every occurrence of an item."""

    def __init__(self, data: PantryLike, arguments: argparse.Namespace) -> None:
        super().__init__()
        d, heads = arguments.hidden_size, arguments.projection_heads
        prices = price_embeddings(torch.from_numpy(data.price), arguments.price_size)
        self.text = nn.Embedding.from_pretrained(torch.from_numpy(data.text))
        self.image = nn.Embedding.from_pretrained(torch.from_numpy(data.image))
        self.price = nn.Embedding.from_pretrained(prices)
        self.from_text = Modality(arguments.text_size, d, heads, shift_first=True)
        self.from_image = Modality(arguments.image_size, d, heads, shift_first=True)
        self.from_price = Modality(arguments.price_size, d, heads, shift_first=False)
        self.position = nn.Embedding(arguments.length, d)
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(
            d, arguments.n_heads, arguments.inner_size, DROPOUT, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, arguments.n_layers)

    def encode(self, items: Tensor) -> Tensor:
        """Eq. 9 for each occurrence: item ids [...] to representations [..., d]."""
        text = self.from_text(self.text(items))
        image = self.from_image(self.image(items))
        return text + image + self.from_price(self.price(items)) + FUSION_WEIGHT * text * image

    def users(self, prefixes: Tensor, lengths: Tensor) -> Tensor:
        """Eq. 12: prefixes [B, L], right-padded with 0, to users [B, d]."""
        inputs = self.dropout(self.norm(self.encode(prefixes) + self.position.weight))
        later = torch.ones(prefixes.shape[1], prefixes.shape[1], dtype=torch.bool).triu(diagonal=1)
        outputs = self.encoder(inputs, mask=later, src_key_padding_mask=prefixes == 0)
        return outputs[torch.arange(len(prefixes)), lengths - 1]

    def loss(self, prefixes: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Eq. 13: the target's own encoding against the sum over the catalogue, which is encoded again."""
        users = functional.normalize(self.users(prefixes, lengths), dim=-1)
        right = functional.normalize(self.encode(targets), dim=-1)
        catalogue = functional.normalize(self.encode(torch.arange(1, self.text.num_embeddings)), dim=-1)
        return ((users @ catalogue.T / TEMPERATURE).logsumexp(dim=1) - (users * right).sum(dim=1) / TEMPERATURE).mean()


def peak_memory_gb() -> float:
    """Returns the peak memory of this process, in 10**9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss is in bytes on macOS and in KiB elsewhere.
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def parse_arguments() -> argparse.Namespace:
    """Parses the sizes of a step; the defaults are the paper's, with a data set of Amazon Pantry's size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {
        "users": 12_608,
        "items": 4_926,
        "interactions": 109_007,
        "rows": 2_048,
        "length": 50,
        "text-size": 768,
        "image-size": 1_024,
        "price-size": 64,
        "hidden-size": 256,
        "projection-heads": 8,
        "n-layers": 2,
        "n-heads": 2,
        "inner-size": 256,
        "steps": 1,
        "seed": 0,
    }
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def main() -> None:
    """Measures the steps and prints the results."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    data = pantry_like(
        arguments.users,
        arguments.items,
        arguments.interactions,
        arguments.seed,
        arguments.text_size,
        arguments.image_size,
    )
    rows = prefix_rows(data.history, data.offsets, arguments.rows, arguments.length, arguments.seed)
    prefixes, lengths, targets = (torch.from_numpy(part) for part in rows)
    model = AuthorsWay(data, arguments)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    memory_before = peak_memory_gb()
    start = time.perf_counter()
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        loss = model.loss(prefixes, lengths, targets)
        loss.backward()
        optimizer.step()
    seconds = (time.perf_counter() - start) / arguments.steps
    result = {
        "seconds_per_step": round(seconds, 3),
        "targets_per_second": round(arguments.rows / seconds, 1),
        "peak_memory_gb": round(peak_memory_gb(), 2),
        "memory_before_gb": round(memory_before, 2),
        "encoded_items_per_step": prefixes.numel() + len(targets) + arguments.items,
        "rows": arguments.rows,
        "steps": arguments.steps,
        "last_loss": round(loss.item(), 4),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
