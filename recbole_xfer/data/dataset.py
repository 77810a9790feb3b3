"""TransferDataset: one domain or several, behind RecBole's dataset contract.

RecBole's filters, id mapping and evaluation loaders work on it unchanged. What differs is that histories are kept
once (see :mod:`recbole_xfer.data.histories`), that ``A+B`` joins domains, and that mistakes in files are explained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_xfer.config.config import FIELDS, item_features
from recbole_xfer.config.schema import check
from recbole_xfer.config.value_types import Interval, Tokens
from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file, read_header, split_sequences
from recbole_xfer.data.features import ItemFeatures, load_item_features, load_word_drop
from recbole_xfer.data.histories import Sequences, Windows, gather, prefixes, ranges, windows
from recbole_xfer.data.splits import NOWHERE, Ranges, by_part, split
from recbole_xfer.data.users import hide_overlap, join_users
from recbole_xfer.data.vectors import VectorTable
from recbole_xfer.errors import XferError

DOMAIN_SEPARATOR = "+"
TARGETS = "target_list"
"""Field of a training batch: the item behind each position, 0 where there is no target, [B, L]."""
NEGATIVES = "negative_list"
"""Field of a training batch, for losses by pairs: an item drawn against each target, [B, L]."""


class AtomicFilesMixin(Dataset):
    """Reads the atomic files of one domain or of several, and splits their histories, for any RecBole dataset.

    Attributes:
        domains: names of the domains; the one that ``single_domain`` names, where it names one.
        sequences: all histories; they exist once the dataset was built.
        target_ranges: of a part, first and behind-last index of each history's targets, ([S], [S]).
        parts: with ``single_domain``, the part of the joined split that each interaction is in, [M].
    """

    sequences: Sequences
    target_ranges: Ranges
    inter_feat: Any
    parts: np.ndarray | None = None

    def _get_preset(self) -> None:
        super()._get_preset()
        self.domains: list[str] = self.dataset_name.split(DOMAIN_SEPARATOR)
        if len(set(self.domains)) < len(self.domains) or not all(self.domains):
            raise XferError(f"dataset={self.dataset_name} must name different domains, such as Books+Toys.")
        single = self.config["single_domain"]
        if single is not None and (single not in self.domains or len(self.domains) < 2):
            raise XferError(f"single_domain={single} must be one of several domains of dataset={self.dataset_name}.")

    @property
    def root(self) -> Path:
        """The folder that holds one folder for each domain."""
        return Path(self.dataset_path).parent

    @cached_property
    def item_domain(self) -> np.ndarray:
        """Index into ``domains`` of each item id, [n_items]; the padding item counts to the first."""
        if len(self.domains) == 1:
            return np.zeros(self.item_num, dtype=np.int16)
        names = pd.Series(self.field2id_token[self.iid_field][1:]).str.partition("/")[0]
        return np.r_[0, pd.Index(self.domains).get_indexer(names)].astype(np.int16)

    @cached_property
    def item_tokens(self) -> np.ndarray:
        """The token of each item id as its own domain's files have it, [n_items]."""
        tokens = self.field2id_token[self.iid_field]
        if len(self.domains) == 1:
            return tokens
        return np.r_[tokens[:1], pd.Series(tokens[1:]).str.partition("/")[2].to_numpy(dtype=str)]

    def _load_data(self, token: str, dataset_path: str) -> None:
        frames = {domain: self._load_domain(domain) for domain in self.domains}
        if self.config["overlap_file"] is not None:
            join_users(Path(self.config["overlap_file"]), frames, self.uid_field)
        hide_overlap(self.config["overlap"], self.config["seed"], frames, self.uid_field)
        for name in ("inter", "user", "item"):
            parts = [frame[name] for frame in frames.values() if frame[name] is not None]
            joined = pd.concat(parts, ignore_index=True) if len(parts) > 1 else next(iter(parts), None)
            if joined is not None and name == "user":
                joined = joined.drop_duplicates(self.uid_field, ignore_index=True)
            setattr(self, f"{name}_feat", joined)
        self._check_item_features()
        if self.time_field in self.inter_feat:
            self._check_times()
        if self.time_field in self.inter_feat and not self.inter_feat[self.time_field].is_monotonic_increasing:
            self.inter_feat = self.inter_feat.sort_values(self.time_field, kind="stable", ignore_index=True)

    def _load_domain(self, domain: str) -> dict[str, pd.DataFrame | None]:
        folder = self.root / domain
        if not folder.is_dir():
            raise XferError(f"{folder} is not there. {preparation_hint(domain)}")
        self._load_inter_feat(domain, str(folder))
        frames = {
            "inter": self.inter_feat,
            "user": self._load_user_or_item_feat(domain, str(folder), FeatureSource.USER, "uid_field"),
            "item": self._load_user_or_item_feat(domain, str(folder), FeatureSource.ITEM, "iid_field"),
        }
        self._load_additional_feat(domain, str(folder))
        if len(self.domains) > 1:
            for frame in (frames["inter"], frames["item"]):
                if frame is not None:
                    frame[self.iid_field] = f"{domain}/" + frame[self.iid_field]
        return frames

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        path = Path(dataset_path) / f"{token}.inter"
        columns = read_header(path, AtomicFormat.of(self.config))
        load, unload = self._get_load_and_unload_col(FeatureSource.INTERACTION)
        for key, kind in zip(FIELDS, (FeatureType.TOKEN, FeatureType.TOKEN, FeatureType.FLOAT), strict=True):
            name = self.config[key]
            if name not in columns:
                raise XferError(
                    f"{path} has no column '{name}', only {', '.join(columns)}. "
                    f"Rename the column, or name it with --{key}."
                )
            if (load is not None and name not in load) or name in (unload or ()):
                raise XferError(f"The column '{name}' of {path} is needed. Do not leave it out of load_col.")
            if columns[name] != kind:
                raise XferError(f"{path}: '{name}:{columns[name].value}' of the header must be '{name}:{kind.value}'.")
        super()._load_inter_feat(token, dataset_path)

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """RecBole's reader (see its docstring), with the parser written in C and with clear errors."""
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        path, written = Path(filepath), AtomicFormat.of(self.config)
        types = read_header(path, written)
        columns = [name for name in types if (load is None or name in load) and name not in (unload or ())]
        if not columns:
            return None
        ids = {FeatureSource.USER: self.uid_field, FeatureSource.ITEM: self.iid_field}.get(source)
        if ids is not None and ids not in columns:
            remedy = "Do not leave it out of load_col" if ids in types else "Add it"
            raise XferError(f"The column '{ids}' of {path} is needed. {remedy}.")
        frame = read_atomic_file(path, columns, written)
        for name in columns:
            kind = types[name]
            self.set_field_property(name, kind, source, 1)
            if kind in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                self.field2bucketnum[name] = 2
            if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
                element = str if kind == FeatureType.TOKEN_SEQ else float
                limit = (self.config["seq_len"] or {}).get(name)
                sequences = split_sequences(frame[name], self.config["seq_separator"], element, path)
                cells = [cell[:limit] for cell in sequences]
                frame[name] = pd.Series(cells, dtype=object)
                self.field2seqlen[name] = max(map(len, cells))
        return frame

    def _check_item_features(self) -> None:
        there = [] if self.item_feat is None else list(self.item_feat.columns)
        for name in item_features(self.config.final_config_dict):
            if name not in there:
                example = (
                    "--selected_features='[text]'" if self.config["selected_features"] else "--item_attribute=text"
                )
                raise XferError(
                    f"{self.config['model']} reads the item column '{name}', which {self.dataset_name} does not have. "
                    f"Name a column of its .item file, such as {example}, or add one."
                )

    def _check_times(self) -> None:
        missing = self.inter_feat[self.time_field].isna()
        if missing.any():
            row = self.inter_feat[missing].iloc[0]
            raise XferError(
                f"{self.dataset_name}: the interaction of user {row[self.uid_field]} with item {row[self.iid_field]} "
                f"has no {self.time_field}. Fill in the time, or remove the row."
            )

    def _filter_by_inter_num(self) -> None:
        """RecBole's k-core filter, left out where its intervals are the defaults that let everything through."""
        keys = ("user_inter_num_interval", "item_inter_num_interval")
        if any(self.config[key] not in (None, "[0,inf)") for key in keys):
            super()._filter_by_inter_num()

    def _filter_by_field_value(self) -> None:
        """RecBole's filter, behind a check of what a column of numbers, and one of tokens, can be filtered by."""
        for name, kept in (self.config["val_interval"] or {}).items():
            if name not in self.field2type:
                raise XferError(f"val_interval: {self.dataset_name} has no column '{name}', or load_col leaves it out.")
            numbers = self.field2type[name] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
            check(f"val_interval.{name}", kept, Interval if numbers else Tokens)
        super()._filter_by_field_value()

    def _data_filtering(self) -> None:
        try:
            super()._data_filtering()
        except (ValueError, IndexError) as error:
            if len(self.inter_feat):
                raise
            raise XferError(
                f"No user of {self.dataset_name} is left after filtering (user_inter_num_interval "
                f"{self.config['user_inter_num_interval']}, item_inter_num_interval "
                f"{self.config['item_inter_num_interval']}, val_interval {self.config['val_interval']}). "
                f"Widen these intervals."
            ) from error
        if self.config["single_domain"] is not None:
            self._leave_alone(self.config["single_domain"])

    def _leave_alone(self, domain: str) -> None:
        """Keeps the interactions and items of a domain, each interaction in its part of the joined split."""
        users = pd.factorize(self.inter_feat[self.uid_field])[0]  # in the order of RecBole's own ids
        names = self.inter_feat[self.iid_field].str.partition("/")[0]
        places = np.arange(len(users))
        apart = pd.Index(self.domains).get_indexer(names) if self.config["histories"] == "per_domain" else None
        histories = Sequences.from_interactions(users, places, apart)
        parts = np.full(len(users), NOWHERE)
        for number, part in enumerate(self._split_of(histories), start=NOWHERE + 1):
            parts[histories.items[ranges(*part)]] = number
        self.parts = parts[names == domain]
        if not len(self.parts):
            raise XferError(f"No interaction of {domain} is left after filtering. Widen the intervals of the filters.")
        for name in ("inter_feat", "item_feat"):
            frame = getattr(self, name)
            if frame is not None:
                own = frame[frame[self.iid_field].str.startswith(f"{domain}/")].reset_index(drop=True)
                own[self.iid_field] = own[self.iid_field].str.partition("/")[2]
                setattr(self, name, own)
        self.domains = [domain]

    def _group(self) -> Sequences:
        """The interactions, now tensors, as histories."""
        users, items = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        apart = self.config["histories"] == "per_domain" and len(self.domains) > 1
        return Sequences.from_interactions(users, items, self.item_domain[items] if apart else None)

    def _split(self) -> list[Ranges]:
        given = self.parts
        parts = self._split_of(self.sequences) if given is None else by_part(self.sequences, given)
        first, end = parts[0]
        if not (first < end).any():
            name = DOMAIN_SEPARATOR.join(self.domains)
            raise XferError(f"{name} has no user with two training interactions. Use more data.")
        return parts

    def _split_of(self, sequences: Sequences) -> list[Ranges]:
        return split(sequences, self.config["eval_args"], self.config["held_out_targets"] or 1)


class InteractionDataset(AtomicFilesMixin, Dataset):
    """RecBole's dataset for models without sequences (Pop, BPR, ...), on the same rows as TransferDataset."""

    def build(self) -> list[InteractionDataset]:
        """Training, validation and test parts; what is a history's first item is trained besides."""
        self._change_feat_format()
        self.sequences = self._group()
        train, *held_out = self._split()
        parts = []
        for first, end in [(train[0] - (train[0] < train[1]), train[1]), *held_out]:
            parts.append(self.copy(self.inter_feat[self.sequences.order[ranges(first, end)]]))
            parts[-1].target_ranges = first, end
        return parts


class TransferDataset(AtomicFilesMixin, SequentialDataset):
    """Histories of one domain or of several, with the features of their items.

    Configuration (see properties/overall.yaml): ``histories``, ``train_rows``, ``window_stride``,
    ``MAX_ITEM_LIST_LENGTH`` and RecBole's ``eval_args`` and filters.
    """

    ROW = "history_end"  # column of inter_feat: index of the row's target in ``sequences.items``

    def __init__(self, config: Any) -> None:
        if config["benchmark_filename"] is not None:
            raise XferError("benchmark_filename is not read here. Join the parts with `recbole-xfer prepare unisrec`.")
        super().__init__(config)

    # --- histories ---------------------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        """Turns frames into tensors, as RecBole does, and groups interactions into histories without copies."""
        Dataset._change_feat_format(self)
        self._aug_presets()
        columns = {field: values.numpy() for field, values in self.inter_feat.interaction.items()}
        self.sequences = self._group()
        listed = (
            [self.iid_field] if self.config["train_rows"] == "windows" else [f for f in columns if f != self.uid_field]
        )
        self._columns = {field: columns[field][self.sequences.order] for field in listed}
        self.inter_feat = self._rows(ranges(self.sequences.starts + 1, self.sequences.ends))

    def _rows(self, targets: np.ndarray) -> Interaction:
        """One row for each target: user, the target's columns, and where its history ends."""
        rows = {self.uid_field: self.sequences.users[self.sequences.history_of(targets)].astype(np.int64)}
        rows |= {field: values[targets] for field, values in self._columns.items()}
        return Interaction(
            {field: torch.from_numpy(values) for field, values in rows.items()} | {self.ROW: torch.from_numpy(targets)}
        )

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows as RecBole's SequentialDataset gives them; the lists are gathered now."""
        rows = self.inter_feat[index]
        if isinstance(rows, dict):  # a single index
            rows = Interaction({field: values.unsqueeze(0) for field, values in rows.items()})
        targets = rows[self.ROW].numpy()
        starts = np.maximum(self.sequences.starts[self.sequences.history_of(targets)], targets - self.max_item_list_len)
        lengths = targets - starts
        lists: dict[str, torch.Tensor] = {self.item_list_length_field: torch.from_numpy(lengths)}
        for field, values in self._columns.items():
            cells = gather(values, starts, lengths, self.max_item_list_len)
            lists[field + self.config["LIST_SUFFIX"]] = torch.from_numpy(cells)
        rows.update(Interaction(lists))
        return self.join(rows) if join else rows

    def seen_items(self, rows: Interaction) -> tuple[torch.Tensor, torch.Tensor]:
        """What the users of evaluation rows interacted with before, the rows' own targets left out.

        Returns:
            (row [K], item [K]): pairs to be masked when history is masked.
        """
        targets = rows[self.ROW].cpu().numpy()
        starts = self.sequences.starts[self.sequences.history_of(targets)]
        row = np.repeat(np.arange(len(targets)), targets - starts)
        items = self.sequences.items[ranges(starts, targets)].astype(np.int64)
        other = items != self.sequences.items[targets][row]
        return torch.from_numpy(row[other]), torch.from_numpy(items[other])

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Users by items, of this part's targets."""
        return Dataset.inter_matrix(self, form, value_field)

    # --- training windows ----------------------------------------------------------------------------------------

    @cached_property
    def windows(self) -> Windows:
        """Training inputs that cover every training target once."""
        first, ends = self.target_ranges
        starts = first - 1  # a history's first item is read, never a target
        if self.config["train_rows"] == "prefixes":
            return prefixes(starts, ends, self.max_item_list_len)
        stride = self.config["window_stride"] or max(self.max_item_list_len // 2, 1)
        if not 1 <= stride <= self.max_item_list_len:
            raise XferError(
                f"window_stride={stride} must lie between 1 and MAX_ITEM_LIST_LENGTH={self.max_item_list_len}."
            )
        return windows(starts, ends, self.max_item_list_len, stride)

    def training_batch(self, which: np.ndarray) -> Interaction:
        """Windows as tensors: items [B, L], their targets [B, L] (0: none), lengths [B] and users [B]."""
        start, length, skip = (part[which] for part in (self.windows.start, self.windows.length, self.windows.skip))
        items = gather(self.sequences.items, start, length)
        targets = gather(self.sequences.items, start + 1, length)
        targets[np.arange(targets.shape[1]) < skip[:, None]] = 0
        return Interaction(
            {
                self.uid_field: torch.from_numpy(
                    self.sequences.users[self.sequences.history_of(start)].astype(np.int64)
                ),
                self.iid_field + self.config["LIST_SUFFIX"]: torch.from_numpy(items.astype(np.int64)),
                TARGETS: torch.from_numpy(targets.astype(np.int64)),
                self.item_list_length_field: torch.from_numpy(length),
            }
        )

    def build(self) -> list[TransferDataset]:
        """Training, validation and test parts (see :mod:`recbole_xfer.data.splits`)."""
        self._change_feat_format()
        parts = []
        for first, end in self._split():
            parts.append(self.copy(self._rows(ranges(first, end))))
            parts[-1].target_ranges = first, end
        return parts

    # --- items -----------------------------------------------------------------------------------------------------

    @cached_property
    def word_drop(self) -> VectorTable | None:
        """Vectors of the texts without some of their words, aligned to item ids; None where they are not there."""
        text = self.features.text
        return text and load_word_drop(self.root, self.domains, self.item_domain, self.item_tokens, text)

    @cached_property
    def features(self) -> ItemFeatures:
        """Text, image and price of every item, aligned to item ids."""
        written = AtomicFormat.of(self.config)
        return load_item_features(
            self.root, self.domains, self.item_domain, self.item_tokens, self.config["modalities"], written
        )


def tables_digest(dataset: Dataset) -> str:
    """Stands for the tokens and columns of any dataset of RecBole's; taken before the split, it depends on none."""
    columns = [column.to_numpy() for name in dataset.feat_name_list for _, column in getattr(dataset, name).items()]
    flat = [part for column in columns for part in _flat(column)]
    return _digest([*flat, *(tokens.astype(str, copy=False) for tokens in dataset.field2id_token.values())])


def features_digest(dataset: Dataset) -> str:
    """Stands for the vectors and prices that a model has read."""
    features = dataset.__dict__.get("features") or ItemFeatures(None, None, None)
    tables = (features.text, features.image, dataset.__dict__.get("word_drop"))
    arrays = [None if table is None else table.values for table in tables]
    return _digest(np.empty(0) if array is None else array for array in (features.price, *arrays))


def _flat(column: np.ndarray) -> list[np.ndarray]:
    """A column as arrays of plain values; one of lists as their lengths and their entries."""
    if column.dtype != object:
        return [column]
    cells = [np.atleast_1d(cell) for cell in column]
    return [np.array([len(cell) for cell in cells]), np.concatenate(cells)]


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def preparation_hint(domain: str) -> str:
    """The command that makes a dataset of this name."""
    family = domain.split("-")[0]
    source = {"CJ": "completejourney", "Toy": "toy"}.get(family)
    if source:
        return f"Make it with `recbole-xfer prepare {source}`."
    return (
        f"Make it from your own data with `recbole-xfer prepare table --name {domain} ...`, or see dataset/README.md."
    )
