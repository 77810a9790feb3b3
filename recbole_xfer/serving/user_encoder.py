"""The user encoder of a model as an ONNX graph, checked against the model.

Symbols in comments: B histories or users, L positions, N items, d width.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.evaluation.vectors import Products
from recbole_xfer.log import progress_bar
from recbole_xfer.model.base import VectorRecommender

TOLERANCE = 1e-5
"""Largest difference of vectors or scores, relative to the largest entry of their batch."""

TINY = 1e-30
"""The smallest size by which a difference is divided."""

EXTERNAL = 2**30
"""Bytes of parameters above which an ONNX file has them in a second file; ONNX allows 2 GiB in one."""

BATCHES = (1, 2, 3, 7, 16, 32)
"""Sizes of the batches of a check."""

REPEATS = 4
"""Histories of each length in a check."""

NO_PRODUCTS = "its scores are not products of a vector of the user and one of the item"

Histories = tuple[Tensor, Tensor]
"""Items padded with 0 on the right, [B, L], and lengths, [B]."""


class NotExportable(Exception):
    """The reason why a model cannot be exported, as the end of a sentence without its full stop."""


def factors(model: Any, rows: Interaction, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all items, without those added to repeats, and the factors of the product that they are.

    Args:
        model: in the mode of evaluation.
        rows: with the histories.
        count: N.

    Returns:
        scores [B, N], users [B, d], items [d, N].

    Raises:
        NotExportable: if the model computes no such product, or reads more than the rows have.
    """
    try:
        with Products(count) as products:
            scores = model.products(rows) if isinstance(model, VectorRecommender) else model.full_sort_predict(rows)
    except (NotImplementedError, AttributeError):
        raise NotExportable("it does not score all items at once") from None
    except KeyError as error:
        raise NotExportable(f"it also reads the column {error}") from error
    except TypeError:
        raise NotExportable("it also reads other columns") from None
    if not products.found:
        raise NotExportable(NO_PRODUCTS)
    users, items = products.found[-1]
    return scores.reshape(users.shape[0], -1), users, items


def item_vectors(scores: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """Vectors of items [N, d] whose products with users [B, d] are scores [B, N].

    Args:
        scores: the products of ``users`` and ``items``, or these times a number, such as 1 / temperature.
        users: [B, d].
        items: [d, N].

    Raises:
        NotExportable: if the scores are something else.
    """
    products = (users @ items).double()
    if products.shape == scores.shape:
        factor = float((products * scores).sum() / products.square().sum())
        if (factor * products - scores).abs().max() <= TOLERANCE * scores.abs().max():
            return items.T if abs(factor - 1) < TOLERANCE else items.T * factor
    raise NotExportable(NO_PRODUCTS)


class UserEncoder(nn.Module):
    """Histories to the vectors of their users: what a model's ``full_sort_predict`` multiplies with the items.

    Args:
        model: a sequential model.
        longest: the longest history that it reads.
        count: N, the padding included.
    """

    def __init__(self, model: Any, longest: int, count: int) -> None:
        super().__init__()
        self.model = model
        self.longest = longest
        self.count = count
        self.pads = not isinstance(model, VectorRecommender)  # some of RecBole's models attend to padding
        self.eval()

    def factors(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :func:`factors`; items [B, L], lengths [B]."""
        if self.pads:
            items = F.pad(items, (0, self.longest - items.shape[1]))
        rows = Interaction({self.model.ITEM_SEQ: items, self.model.ITEM_SEQ_LEN: lengths})
        return factors(self.model, rows, self.count)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Items [B, L] and lengths [B] to users [B, d]."""
        return self.factors(items, lengths)[1]


def random_histories(groups: Sequence[np.ndarray], longest: int, seed: int = 0) -> Iterator[Histories]:
    """Random histories of every length from 1 to ``longest``, in batches of several sizes.

    Args:
        groups: ids of items; a history has items of one group.
        longest: length.
        seed: equal seeds give equal histories.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(np.repeat(np.arange(1, longest + 1), REPEATS))
    first = number = 0
    while first < len(lengths):
        batch = lengths[first : first + BATCHES[number % len(BATCHES)]]
        width = longest if number % 2 else batch.max()
        items = np.stack([rng.choice(groups[int(rng.integers(len(groups)))], width) for _ in batch])
        yield torch.from_numpy(items * (np.arange(width) < batch[:, None])).long(), torch.from_numpy(batch)
        first, number = first + len(batch), number + 1


def write_onnx(encoder: UserEncoder, path: Path) -> None:
    """Writes a user encoder as a graph that reads ``item_ids`` [B, L] and ``lengths`` [B], both int64.

    Raises:
        NotExportable: if an operation of the model has no equivalent.
    """
    width = min(encoder.longest, 3)
    lengths = torch.arange(width, 0, -1)
    items = torch.ones(width, width, dtype=torch.long) * (torch.arange(width) < lengths[:, None])
    if width == 1:
        items, lengths = items.expand(2, 1), lengths.expand(2)
    batch = torch.export.Dim("batch")
    of_items = {0: batch} if width == 1 else {0: batch, 1: torch.export.Dim("length", max=encoder.longest)}
    try:
        with quietly(), torch.no_grad():
            encoder(items, lengths)  # encodes the catalogue, a constant of the graph
            program = torch.onnx.export(
                encoder,
                (items, lengths),
                dynamo=True,
                verbose=False,
                input_names=["item_ids", "lengths"],
                output_names=["user_vectors"],
                dynamic_shapes=(of_items, {0: batch}),
            )
    except Exception as error:  # every library on the way has its own
        raise NotExportable(f"ONNX has no equivalent of what it computes ({reason(error)})") from error
    assert program is not None
    constants = [value.const_value for value in program.model.graph.initializers.values()]
    sizes = [int(constant.nbytes) for constant in constants if constant is not None]
    program.save(path, external_data=sum(sizes) > EXTERNAL)


def check(encoder: UserEncoder, path: Path, groups: Sequence[np.ndarray], shown: bool) -> tuple[np.ndarray, float]:
    """Compares a graph with its model on :func:`random_histories`.

    Args:
        encoder: the original.
        path: of the graph.
        groups: see :func:`random_histories`.
        shown: whether to show progress.

    Returns:
        users of the graph [B, d], and the largest difference.

    Raises:
        NotExportable: if a difference is above :data:`TOLERANCE`, or the graph does not read a batch.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    found, largest = [], 0.0
    with progress_bar(shown, total=REPEATS * encoder.longest, desc="Checking histories") as progress, torch.no_grad():
        for items, lengths in random_histories(groups, encoder.longest):
            expected = encoder(items, lengths).numpy()
            try:
                [users] = session.run(None, {"item_ids": items.numpy(), "lengths": lengths.numpy()})
            except Exception as error:  # onnxruntime's errors have no common class
                raise NotExportable(f"its graph does not read every batch ({reason(error)})") from error
            difference = float(np.abs(users - expected).max() / max(TINY, np.abs(expected).max()))
            if not difference <= TOLERANCE:
                raise NotExportable(
                    f"its graph gives other vectors: the largest difference is {difference:.1e} on histories of up to "
                    f"{lengths.max()} items, and {TOLERANCE:.0e} is allowed"
                )
            largest = max(largest, difference)
            found.append(users)
            progress.update(len(lengths))
    return np.concatenate(found), largest


def reason(error: BaseException) -> str:
    """The first line of the error that caused another."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(". ")


@contextmanager
def quietly() -> Iterator[None]:
    """Prints and logs nothing in the block: the exporter reports its steps, and on errors the whole graph."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
