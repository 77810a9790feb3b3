"""Reads the files of one domain or of several joined domains into a RecBole dataset.

RecBole's filters and id mapping work on it unchanged. Mistakes in the files are reported as XferError.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_xfer.config.config import FIELDS, item_features
from recbole_xfer.config.schema import check
from recbole_xfer.config.value_types import Interval, Tokens
from recbole_xfer.config.values import join_domains, split_domains
from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file, read_header, split_sequences
from recbole_xfer.data.atomic_writer import check_domain_name
from recbole_xfer.data.domain_folder import check_domain
from recbole_xfer.data.histories import Sequences, ranges
from recbole_xfer.data.parts import FILE, LINE, PART, assemble, concatenate, numbered, part_files
from recbole_xfer.data.splits import (
    NOWHERE,
    Ranges,
    by_part,
    describe,
    holds_nothing_out,
    split,
    trained_text,
    untrained_parts,
)
from recbole_xfer.data.users import hide_overlap, join_users
from recbole_xfer.errors import XferError


class AtomicFilesMixin(Dataset):
    """Reads the atomic files of one or several domains, and splits their histories, for any RecBole dataset.

    Attributes:
        domains: names of the domains; with ``single_domain``, only this one.
        sequences: all histories, once the dataset is built.
        target_ranges: in a part of the split, start (inclusive) and end (exclusive) of each history's targets, as
            indices into ``sequences.items``, ([S], [S]).
        parts: each interaction's part, [M], if the split is given by files (``benchmark_filename``), or is that of the
            joined domains (``single_domain``).
    """

    sequences: Sequences
    target_ranges: Ranges
    inter_feat: Any
    parts: np.ndarray | None = None

    def _get_preset(self) -> None:
        super()._get_preset()
        self.domains: list[str] = split_domains(self.dataset_name)
        for domain in self.domains:
            check_domain_name(domain)
        if len(set(self.domains)) < len(self.domains):
            raise XferError(f"dataset={self.dataset_name} must name different domains, such as Books+Toys.")
        self.benchmark_filename_list = None  # RecBole would read the parts itself, and skip the filters
        single = self.config["single_domain"]
        if single is not None and (single not in self.domains or len(self.domains) < 2):
            raise XferError(f"single_domain={single} must be one of several domains of dataset={self.dataset_name}.")

    @property
    def root(self) -> Path:
        """The folder with one folder per domain."""
        return Path(self.dataset_path).parent

    def files_read(self) -> list[Path]:
        """The files from which the dataset has been read so far, those of domains left out included."""
        inter = [f"{part}.inter" for part in self.config["benchmark_filename"] or ()] or ["inter"]
        suffixes = [*inter, "user", "item", *(self.config["additional_feat_suffix"] or ())]
        names = split_domains(self.dataset_name)
        paths = [self.root / name / f"{name}.{suffix}" for name in names for suffix in suffixes]
        return [path for path in paths if path.is_file()]

    @cached_property
    def item_domain(self) -> np.ndarray:
        """Index into ``domains`` of each item id, [n_items]; 0 for the padding item."""
        if len(self.domains) == 1:
            return np.zeros(self.item_num, dtype=np.int16)
        names = pd.Series(self.field2id_token[self.iid_field][1:]).str.partition("/")[0]
        return np.r_[0, pd.Index(self.domains).get_indexer(names)].astype(np.int16)

    @cached_property
    def item_tokens(self) -> np.ndarray:
        """The token of each item id in the files of its domain, [n_items]."""
        tokens = self.field2id_token[self.iid_field]
        if len(self.domains) == 1:
            return tokens
        return np.r_[tokens[:1], pd.Series(tokens[1:]).str.partition("/")[2].to_numpy(dtype=str)]

    @property
    def target_counts(self) -> np.ndarray:
        """The number of targets of each item id in this part of the split, [n_items]."""
        return np.bincount(self.inter_feat[self.iid_field].numpy(), minlength=self.item_num)

    @property
    def shared_users(self) -> int:
        """How many users have interactions in several domains."""
        users = np.repeat(self.sequences.users, self.sequences.ends - self.sequences.starts).astype(np.int64)
        pairs = np.unique(users * len(self.domains) + self.item_domain[self.sequences.items])
        return int((np.unique(pairs // len(self.domains), return_counts=True)[1] > 1).sum())

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
        self._check_features()
        if self.time_field in self.inter_feat:
            self._check_times()
        if self.time_field in self.inter_feat and not self.inter_feat[self.time_field].is_monotonic_increasing:
            self.inter_feat = self.inter_feat.sort_values(self.time_field, kind="stable", ignore_index=True)

    def _load_domain(self, domain: str) -> dict[str, pd.DataFrame | None]:
        folder = self.root / domain
        check_domain(folder)
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
        folder = Path(dataset_path)
        if self.config["benchmark_filename"] is None:
            self._check_interactions(folder / f"{token}.inter", FIELDS)
            self.inter_feat = self._load_feat(str(folder / f"{token}.inter"), FeatureSource.INTERACTION)
            return
        paths = part_files(folder, token, self.config["benchmark_filename"])
        history = self.iid_field + self.config["LIST_SUFFIX"]
        headers = {path: read_header(path, AtomicFormat.of(self.config)) for path in paths}
        have = [path for path, columns in headers.items() if history in columns]
        if have and len(have) < len(paths):
            raise XferError(f"{have[0]} has the column '{history}', but other parts lack it. Add it, or remove it.")
        timed = any(self.time_field in columns for columns in headers.values())
        for path in paths:
            self._check_interactions(path, FIELDS if timed and not have else FIELDS[:2])
        rows = self._load_sequences(paths, history) if have else concatenate(paths, self._load_plain_part)
        self.inter_feat = rows.assign(**{PART: numbered(rows[FILE], paths)}).drop(columns=[FILE, LINE], errors="ignore")

    def _load_plain_part(self, path: Path) -> pd.DataFrame:
        return self._load_feat(str(path), FeatureSource.INTERACTION)

    def _load_sequences(self, paths: list[Path], history: str) -> pd.DataFrame:
        """Returns the interactions of files whose rows have histories; the time is the position in a sequence."""
        if len(self.domains) > 1 and self.config["histories"] == "across":
            raise XferError(
                f"{paths[0]} has histories without times, which cannot be joined with other domains. Set "
                f"--histories=per_domain, or name one domain."
            )
        form, names = AtomicFormat.of(self.config), (self.uid_field, history, self.iid_field)
        load, unload = self._get_load_and_unload_col(FeatureSource.INTERACTION)
        for name in read_header(paths[0], form):
            wanted = (load is None or name in load) and name not in (unload or ())
            if wanted and name not in (*names, self.time_field):
                raise XferError(
                    f"{paths[0]}: the column '{name}' cannot be read, because only targets have it. Leave it out of "
                    f"load_col."
                )

        def read(path: Path) -> pd.DataFrame:
            rows = read_atomic_file(path, names, form)
            before = split_sequences(rows[history], self.config["seq_separator"], str, path)
            return pd.DataFrame({"user": rows[self.uid_field], "item": rows[self.iid_field]}).assign(before=before)

        for name, kind in zip(FIELDS, (FeatureType.TOKEN, FeatureType.TOKEN, FeatureType.FLOAT), strict=True):
            self.set_field_property(self.config[name], kind, FeatureSource.INTERACTION, 1)
        self.field2bucketnum[self.time_field] = 2  # RecBole's value for floats
        columns = {"user": self.uid_field, "item": self.iid_field, "position": self.time_field}
        return assemble(concatenate(paths, read)).rename(columns=columns)

    def _check_interactions(self, path: Path, needed: Sequence[str]) -> None:
        """Raises XferError if a file of interactions lacks the column of a key, or has another type of it."""
        columns = read_header(path, AtomicFormat.of(self.config))
        load, unload = self._get_load_and_unload_col(FeatureSource.INTERACTION)
        for key, kind in zip(needed, ("token", "token", "float"), strict=False):
            name = self.config[key]
            if name not in columns:
                raise XferError(
                    f"{path} has no column '{name}' (columns: {', '.join(columns)}). Rename the column or set --{key}."
                )
            if (load is not None and name not in load) or name in (unload or ()):
                raise XferError(f"The column '{name}' of {path} is required. Do not leave it out of load_col.")
            if columns[name] != kind:
                raise XferError(f"{path}: the column '{name}:{columns[name]}' of the header must be '{name}:{kind}'.")

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """Replaces RecBole's reader (see its docstring): uses pandas' parser in C and reports clear errors."""
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        path, form = Path(filepath), AtomicFormat.of(self.config)
        types = read_header(path, form)
        columns = [name for name in types if (load is None or name in load) and name not in (unload or ())]
        if not columns:
            return None
        ids = {FeatureSource.USER: self.uid_field, FeatureSource.ITEM: self.iid_field}.get(source)
        if ids is not None and ids not in columns:
            remedy = "Do not leave it out of load_col" if ids in types else "Add it"
            raise XferError(f"The column '{ids}' of {path} is required. {remedy}.")
        frame = read_atomic_file(path, columns, form)
        for name in columns:
            kind = FeatureType(types[name])
            longest = self.field2seqlen.get(name, 1)  # in other domains or parts
            self.set_field_property(name, kind, source, 1)
            if kind in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ):
                self.field2bucketnum[name] = 2
            if kind in (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ):
                element = str if kind == FeatureType.TOKEN_SEQ else float
                limit = (self.config["seq_len"] or {}).get(name)
                sequences = split_sequences(frame[name], self.config["seq_separator"], element, path)
                cells = [cell[:limit] for cell in sequences]
                frame[name] = pd.Series(cells, dtype=object)
                self.field2seqlen[name] = max(longest, *map(len, cells))
        return frame

    def _load_additional_feat(self, token: str, dataset_path: str) -> None:
        """Reads the files of ``additional_feat_suffix``, which belong to one domain."""
        for suffix in self.config["additional_feat_suffix"] or ():
            if suffix in ("inter", "user", "item", "kg", "link"):
                raise XferError(f"additional_feat_suffix={suffix} names a file that is always read. Leave it out.")
            if len(self.domains) > 1:
                raise XferError(
                    f"additional_feat_suffix={suffix} needs one domain, not {join_domains(self.domains)}. Leave it out."
                )
            path = Path(dataset_path) / f"{token}.{suffix}"
            read_header(path, AtomicFormat.of(self.config))  # it must exist, even if load_col names no column of it
            setattr(self, f"{suffix}_feat", self._load_feat(str(path), suffix))

    def _drop_unused_col(self) -> None:
        """Drops the columns of ``unused_col``, after a check."""
        for name, columns in (self.config["unused_col"] or {}).items():
            required = [column for column in (self.uid_field, self.iid_field) if column in columns]
            if required or getattr(self, f"{name}_feat", None) is None:
                problem = f"the column '{required[0]}' is required" if required else f"there is no .{name} file"
                raise XferError(f"unused_col.{name}={columns} is invalid for {self.dataset_name}: {problem}.")
        super()._drop_unused_col()

    def _check_features(self) -> None:
        """Raises XferError if a feature that the model reads is missing, or has numbers that it does not expect."""
        of_items = [] if self.item_feat is None else list(self.item_feat.columns)
        named = item_features(self.config.final_config_dict)
        for name in named:
            if name not in of_items:
                example = (
                    "--selected_features='[text]'" if self.config["selected_features"] else "--item_attribute=text"
                )
                raise XferError(
                    f"{self.config['model']} reads the item column '{name}', but {self.dataset_name} does not have it. "
                    f"Name a column of its .item file, such as {example}, or add the column."
                )
        for name in self.config["numerical_features"]:
            if self.field2type.get(name) in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ):
                raise XferError(
                    f"numerical_features={self.config['numerical_features']}: the column '{name}' of "
                    f"{self.dataset_name} has tokens, not numbers. Leave it out."
                )
        if self.config["double_tower"]:  # reads all features of users and items
            named = [*of_items, *([] if self.user_feat is None else self.user_feat.columns)]
        for name in named:
            number = self.field2type[name] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
            if number and name not in self.config["numerical_features"]:
                raise XferError(
                    f"{self.config['model']} reads the column '{name}', which has numbers. Set "
                    f"--numerical_features='[{name}]', or leave the column out."
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
        """Applies RecBole's k-core filter, unless its intervals are the defaults, which keep everything."""
        keys = ("user_inter_num_interval", "item_inter_num_interval")
        if any(self.config[key] not in (None, "[0,inf)") for key in keys):
            super()._filter_by_inter_num()

    def _filter_by_field_value(self) -> None:
        """Applies RecBole's filter by values, after a check: intervals for numbers, lists for tokens."""
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
                f"Filtering removes all users of {self.dataset_name} (user_inter_num_interval "
                f"{self.config['user_inter_num_interval']}, item_inter_num_interval "
                f"{self.config['item_inter_num_interval']}, val_interval {self.config['val_interval']}). "
                f"Widen these intervals."
            ) from error
        if PART in self.inter_feat:  # within a part, interactions keep their order of time
            self.inter_feat = self.inter_feat.sort_values(PART, kind="stable", ignore_index=True)
            users = pd.factorize(self.inter_feat[self.uid_field])[0]
            self.parts = untrained_parts(users, self.inter_feat.pop(PART).to_numpy(), 1 - self._train_share)
        if self.config["single_domain"] is not None:
            self._keep_one_domain(self.config["single_domain"])

    def _keep_one_domain(self, domain: str) -> None:
        """Keeps one domain's interactions and items, and each interaction's part of the joined split in ``parts``."""
        names = self.inter_feat[self.iid_field].str.partition("/")[0]
        self.parts = (self._joined_parts(names) if self.parts is None else self.parts)[names == domain]
        if not len(self.parts):
            raise XferError(f"Filtering removes all interactions of {domain}. Widen the intervals of the filters.")
        for name in ("inter_feat", "item_feat"):
            frame = getattr(self, name)
            if frame is not None:
                own = frame[frame[self.iid_field].str.startswith(f"{domain}/")].reset_index(drop=True)
                own[self.iid_field] = own[self.iid_field].str.partition("/")[2]
                setattr(self, name, own)
        self.domains = [domain]

    def _joined_parts(self, domains: pd.Series) -> np.ndarray:
        """Returns each interaction's part of the joined split, given its domain."""
        users = pd.factorize(self.inter_feat[self.uid_field])[0]  # in the order of RecBole's own ids
        separate = pd.Index(self.domains).get_indexer(domains) if self.config["histories"] == "per_domain" else None
        histories = Sequences.from_interactions(users, np.arange(len(users)), separate)
        parts = np.full(len(users), NOWHERE)
        for number, part in enumerate(self._split_of(histories), start=NOWHERE + 1):
            parts[histories.items[ranges(*part)]] = number
        return parts

    def _group(self) -> Sequences:
        """Groups the interactions, which are tensors by now, into histories."""
        users, items = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        separate = self.config["histories"] == "per_domain" and len(self.domains) > 1
        return Sequences.from_interactions(users, items, self.item_domain[items] if separate else None)

    def _split(self) -> list[Ranges]:
        if self.parts is None or self._is_whole:
            parts = self._split_of(self.sequences)
        else:
            parts = by_part(self.sequences, self.parts)
        first, end = parts[0]
        if not (first < end).any():
            name = join_domains(self.domains)
            if self._train_share < 1:
                raise XferError(f"train_share={self._train_share} leaves no training target of {name}. Raise it.")
            raise XferError(f"{name} has no user with two training interactions. Use more data.")
        return parts

    @property
    def _is_whole(self) -> bool:
        return holds_nothing_out(self.config["eval_args"])

    @property
    def _train_share(self) -> float:
        return self.config["train_share"] or 1

    def _split_of(self, sequences: Sequences) -> list[Ranges]:
        return split(sequences, self.config["eval_args"], self.config["held_out_targets"] or 1, self._train_share)

    @property
    def split_text(self) -> str:
        """What the split is, such as ``leave one out by time``."""
        if self.config["benchmark_filename"] is not None and not self._is_whole:
            files = ", ".join(self.config["benchmark_filename"])
            return f"split given by the files {files}{trained_text(self._train_share)}"
        return describe(self.config["eval_args"], self.config["held_out_targets"] or 1, self._train_share)
