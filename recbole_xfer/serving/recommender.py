"""Ranks the items of a catalogue for users of a run's data, or for anybody with a history."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.utils import ModelType
from torch import Tensor

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.histories import Sequences
from recbole_xfer.data.loaders import SCORES_IN_BATCH
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.device import seeded
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.evaluation.ties import TieOrder, best, row_numbers
from recbole_xfer.evaluation.tiles import Repeated, VectorScores
from recbole_xfer.evaluation.vectors import Vectors, vectors_of
from recbole_xfer.experiment import Experiment, label
from recbole_xfer.serving.approximate import best_by_index, check_faiss, hnsw, recall
from recbole_xfer.serving.catalogue import Catalogue
from recbole_xfer.serving.histories import Fields, Histories

BATCH = 1024
"""Users that are ranked at once, if their model ranks by vectors."""

EVERYTHING = "[0,inf)"
"""RecBole's default of the intervals."""

FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval")
"""Keys by which RecBole removes users and items from the data."""


@dataclass(frozen=True)
class Request:
    """Users to whom items are recommended.

    Attributes:
        users: their ids, [S].
        row: of each user in ``part``; -1 for the most popular items, [S].
        part: one row per ranked user (see ``following`` of the datasets).
        domain: index of the domain whose items alone a row ranks, [rows]; None for all.
        number: of each row in the order of ties, [rows].
        notes: what the user should know, as sentences.
    """

    users: np.ndarray
    row: np.ndarray
    part: Any
    domain: np.ndarray | None
    number: Tensor
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.users)


MEASURED = 256
"""Users for whom the recall of approximate search is measured."""

EVERY = -1
"""Stands for the items of all domains."""


@dataclass(frozen=True)
class Candidates:
    """Items that are ranked together.

    Attributes:
        ids: [C].
        position: of each item id among them, -1 for others, [n_items].
        number: in the order of ties, [C].
        vectors: [C, d], or None.
        index: for approximate search, or None.
    """

    ids: Tensor
    position: Tensor
    number: Tensor
    vectors: Tensor | None
    index: Any

    def pairs(self, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Those of some pairs of a row and an item id whose item is ranked, with its position."""
        place = self.position[item]
        return row[place >= 0], place[place >= 0]


class Recommender:
    """Ranks the items of a catalogue with the model of a finished run.

    Args:
        experiment: a loaded run.
        catalogue: the items that may be recommended.
        mask_history: whether items of a user's history are left out.
        approximate: whether the best items are searched approximately; only for models that rank by vectors.

    Raises:
        XferError: for approximate search without faiss, or by a model that does not rank by vectors.
    """

    def __init__(
        self, experiment: Experiment, catalogue: Catalogue, mask_history: bool = True, approximate: bool = False
    ) -> None:
        self.experiment, self.catalogue = experiment, catalogue
        self.dataset, self.model = experiment.dataset, experiment.model
        self.config = experiment.config.replace(mask_history=mask_history)
        self.device = self.config["device"]
        if self.model.training:  # otherwise it keeps the encoded catalogue of the previous call
            self.model.eval()
        self.reads_histories = isinstance(self.dataset, TransferDataset)
        self.order = TieOrder.draw(self.config["seed"], len(catalogue.tokens), self.device)
        if experiment.trainer.item_tensor is None:
            experiment.trainer.item_tensor = self.dataset.get_item_feature().to(self.device)
        self._known: dict[int, Candidates] = {}
        self.approximate = approximate
        if approximate:
            check_faiss()
            if self.vectors is None:
                raise XferError(
                    f"{label(experiment.config)} ranks by no vectors that can be searched approximately. Leave out "
                    f"--approximate."
                )

    @property
    def _by_domain(self) -> bool:
        """Whether a user has a history in each domain."""
        return self.config["histories"] == "per_domain" and len(self.dataset.domains) > 1

    @cached_property
    def everybody(self) -> Any:
        """The users of the data, by all of their interactions."""
        return self.dataset.following()

    @cached_property
    def vectors(self) -> Vectors | None:
        """The vectors by which the model ranks; None if its scores are not products of such vectors."""
        rows = np.unique(self.everybody.sequences.users, return_index=True)[1][:2]
        if len(rows) < 2:
            return None
        return vectors_of(self.model, TargetLoader(self.config, self.everybody).collate_fn(rows)[0].to(self.device))

    # --- requests --------------------------------------------------------------------------------------------------

    def for_users(self, users: Collection[str] | None = None) -> Request:
        """Everybody in the data, by all of their interactions; or some users by id.

        Raises:
            XferError: if none of the users is in the data.
        """
        tokens = np.asarray(self.dataset.field2id_token[self.dataset.uid_field], dtype=object)
        histories, notes = self.dataset.sequences, []
        row = np.arange(len(histories))
        if users is not None:
            ids = pd.Index(tokens).get_indexer(pd.Index(list(dict.fromkeys(users)), dtype=object))
            unknown = int((ids < 1).sum())
            if unknown == len(ids):
                first = next(iter(users), "")
                raise XferError(
                    f"None of the users is in {self.dataset.dataset_name}, such as '{first}'"
                    f"{did_you_mean(first, tokens[1:])}{self._filtered()}"
                )
            if unknown:
                notes.append(f"Users who are not in {self.dataset.dataset_name} and are skipped: {unknown:,}.")
            place = np.full(len(tokens), len(ids))
            place[ids[ids > 0]] = np.flatnonzero(ids > 0)
            row = row[place[histories.users] < len(ids)]
            row = row[np.argsort(place[histories.users[row]], kind="stable")]
        return self._request(tokens[histories.users[row]], row, self.everybody, notes)

    def _filtered(self) -> str:
        """The end of a sentence about users who are not in the data: filters may have removed them."""
        keys = [key for key in FILTERS if self.config[key] not in (None, EVERYTHING)]
        return f" The run filters by {' and '.join(keys)}; rank others with --histories." if keys else ""

    def for_targets(self, phase: str) -> Request:
        """The users of the test or validation split, by their histories before the target, as evaluation ranks it."""
        loader = {"valid": self.experiment.valid_data, "test": self.experiment.test_data}[phase]
        if loader is None:
            raise XferError(f"{self.experiment.folder} has no {phase} split. Leave out --part.")
        part = loader._dataset
        targets = TargetLoader(self.config, part).targets
        users = np.asarray(self.dataset.field2id_token[self.dataset.uid_field], dtype=object)
        tokens = users[part.sequences.users[part.sequences.history_of(targets)]]
        number = row_numbers(self.order.rows(), len(targets))
        domain = None
        if self.config["rank_within_domain"]:
            domain = self.dataset.item_domain[part.sequences.items[targets]]
        return Request(tokens, np.arange(len(targets)), part, domain, number)

    def for_histories(self, histories: Histories) -> Request:
        """Users with these histories, who need not be in the data.

        A model that reads no histories, such as BPR, ranks for users of the data by its own parameters.
        """
        ids, offsets, unknown = histories.known(self.catalogue.tokens)
        tokens = pd.Index(self.dataset.field2id_token[self.dataset.uid_field], dtype=object)
        users = tokens.get_indexer(pd.Index(histories.users, dtype=object)).clip(min=0)
        name, notes = label(self.experiment.config), []
        if unknown:
            notes.append(
                f"Entries of the histories with items that {name} does not know, which are skipped: {unknown:,}."
            )
        everyone = np.arange(len(histories))
        sequences = Sequences(ids.astype(np.int32), offsets, everyone, np.arange(len(ids)))
        if self._by_domain:
            owner = np.repeat(everyone, np.diff(offsets))
            sequences = Sequences.from_interactions(owner, ids, self.catalogue.domain[ids])
        who = sequences.users
        ranked = sequences.ends > sequences.starts if self.reads_histories else users[who] > 0
        if not self.reads_histories and self.config["MODEL_TYPE"] != ModelType.TRADITIONAL:
            notes.append(f"{name} reads no histories; they only say which items are left out.")
        part = self.dataset.following(_some(sequences, ranked, users))
        empty = np.setdiff1d(everyone, who[ranked])
        if len(empty):
            why = "a known item in their history" if self.reads_histories else "parameters in the run"
            notes.append(f"Users without {why}, who get the most popular items, without a score: {len(empty):,}.")
        place = np.r_[who[ranked], empty]
        row = np.r_[np.arange(ranked.sum()), np.full(len(empty), -1)]
        order = np.argsort(place, kind="stable")
        return self._request(histories.users[place[order]], row[order], part, notes)

    def _request(self, users: np.ndarray, row: np.ndarray, part: Any, notes: list[str]) -> Request:
        domain = None
        if self._by_domain:
            domain = self.catalogue.domain[part.sequences.items[part.sequences.starts]]
        return Request(users, row, part, domain, torch.ones(len(part), dtype=torch.long), notes)

    # --- ranking ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def rank(self, request: Request, k: int, first: int = 0, end: int | None = None) -> pd.DataFrame:
        """The best items of some of the users, best first: user, ``rank``, item and ``score``.

        Args:
            request: the users.
            k: items for each user; fewer where fewer are left.
            first, end: of the users.
        """
        rows = request.row[first:end]
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        ids = np.zeros((len(rows), k), dtype=np.int64)
        popular = self.popular(k)
        ids[rows < 0, : len(popular)], scores[rows < 0, : len(popular)] = popular, np.nan
        loader = TargetLoader(self.config, request.part)
        batches = list(self._batches(request, rows))  # before: finding out vectors may draw random numbers, too
        with seeded(self.config["seed"]):
            for some, candidates in batches:
                values, places = self._best(loader, rows[some], k, candidates, request.number)
                scores[some, : values.shape[1]] = values.cpu().numpy()
                ids[some, : values.shape[1]] = candidates.ids[places].cpu().numpy()
        user, place = np.nonzero(~np.isneginf(scores))
        fields = Fields.of(self.config)
        return pd.DataFrame(
            {
                fields.user: request.users[first:end][user],
                "rank": (place + 1).astype(np.int32),
                fields.item: self.catalogue.tokens.to_numpy()[ids[user, place]],
                "score": scores[user, place],
            }
        )

    def popular(self, k: int) -> np.ndarray:
        """The ids of the candidates with the most interactions in the data."""
        candidates = self.catalogue.candidates
        return candidates[np.argsort(-self.catalogue.popularity[candidates], kind="stable")][:k]

    def _batches(self, request: Request, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Candidates]]:
        """Positions of the ranked rows of a batch, which rank the same items."""
        size = BATCH
        if self.vectors is None:
            size = max(1, min(self.config["eval_batch_size"], SCORES_IN_BATCH // len(self.catalogue.tokens)))
        ranked = np.flatnonzero(rows >= 0)
        domains = np.full(len(ranked), EVERY) if request.domain is None else request.domain[rows[ranked]]
        for domain in np.unique(domains):
            own, candidates = ranked[domains == domain], self._candidates(int(domain))
            if len(candidates.ids):
                yield from ((own[start : start + size], candidates) for start in range(0, len(own), size))

    def _candidates(self, domain: int) -> Candidates:
        """The items that are ranked, all or those of a domain."""
        if domain not in self._known:
            chosen = self.catalogue.candidates
            chosen = chosen if domain == EVERY else chosen[self.catalogue.domain[chosen] == domain]
            ids = torch.from_numpy(chosen).to(self.device)
            position = torch.full((len(self.catalogue.tokens),), -1, device=self.device)
            position[ids] = torch.arange(len(ids), device=self.device)
            vectors = None if self.vectors is None else self.vectors.items[ids].float()
            index = hnsw(vectors.cpu().numpy()) if self.approximate and vectors is not None else None
            self._known[domain] = Candidates(ids, position, self.order.items[ids], vectors, index)
        return self._known[domain]

    def _best(
        self,
        loader: TargetLoader,
        index: np.ndarray,
        k: int,
        candidates: Candidates,
        number: Tensor,
        exact: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Scores and positions of the best candidates of rows of a loader; always ``exact`` without an index."""
        rows, seen, _, _ = loader.collate_fn(index)
        rows, row = rows.to(self.device), number[index].to(self.device)
        who, items = (part.to(self.device) for part in seen or (torch.zeros(0, dtype=torch.long),) * 2)
        if candidates.vectors is None:
            ranked = torch.zeros(len(index), len(self.catalogue.tokens), dtype=torch.bool, device=self.device)
            ranked[:, candidates.ids] = True
            ranked[who, items] = False
            scores = self.experiment.trainer.scores(rows, ranked)[:, candidates.ids]
            return best(scores, min(k, len(candidates.ids)), candidates.number, row)
        assert self.vectors is not None
        users, repeated = self.vectors.users(rows).float(), self.vectors.repeated(rows)
        self.experiment.trainer.check_finite(users.isfinite())
        if repeated is not None:
            repeated = Repeated(*candidates.pairs(repeated.row, repeated.item), repeated.score)
        found = VectorScores(users, candidates.vectors, candidates.pairs(who, items), repeated)
        if candidates.index is not None and not exact:
            return best_by_index(found, candidates.index, k, candidates.number, row)
        return found.best(k, candidates.number, row)[:2]

    @torch.no_grad()
    def recall(self, request: Request, k: int) -> tuple[float, int]:
        """The share of the best items that approximate search finds, for the first users with a history.

        Returns:
            the share, and the number of users.
        """
        loader, found, users = TargetLoader(self.config, request.part), [], 0
        for some, candidates in self._batches(request, request.row[:MEASURED]):
            arguments = loader, request.row[some], k, candidates, request.number
            places = [self._best(*arguments, exact=exact)[1].cpu().numpy() for exact in (False, True)]
            found.append(len(some) * recall(*places))
            users += len(some)
        return sum(found) / max(users, 1), users


def _some(sequences: Sequences, kept: np.ndarray, users: np.ndarray) -> Sequences:
    """Some of the histories, with the ids of their users."""
    lengths = (sequences.ends - sequences.starts)[kept]
    entries = np.repeat(kept, sequences.ends - sequences.starts)
    return Sequences(
        items=sequences.items[entries],
        offsets=np.r_[0, lengths.cumsum()].astype(np.int64),
        users=users[sequences.users[kept]].astype(np.int32),
        order=np.arange(int(lengths.sum())),
    )
