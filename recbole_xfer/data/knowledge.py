"""The datasets of RecBole's models that read a knowledge graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import KnowledgeBasedDataset
from recbole.utils import FeatureSource

from recbole_xfer.data.atomic import AtomicFormat, read_header
from recbole_xfer.data.dataset import InteractionDataset, TransferDataset
from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.errors import XferError


class KnowledgeMixin(AtomicFilesMixin, KnowledgeBasedDataset):
    """Reads the knowledge graph of one domain: ``<domain>.kg`` and ``<domain>.link``."""

    kg_feat: Any

    def _load_data(self, token: str, dataset_path: str) -> None:
        if len(self.domains) > 1:
            raise XferError(
                f"{self.config['model']} reads one knowledge graph, but dataset={self.dataset_name} has several "
                f"domains. Name one."
            )
        super()._load_data(token, dataset_path)
        path = self.root / token / token
        self.kg_feat = self._load_table(
            path.with_name(f"{token}.kg"),
            FeatureSource.KG,
            [self.head_entity_field, self.relation_field, self.tail_entity_field],
        )
        linked = [self.iid_field, self.entity_field]
        link = self._load_table(path.with_name(f"{token}.link"), "link", linked)
        for name, other in (linked, linked[::-1]):
            repeated = link[name][link[name].duplicated()]
            if len(repeated):
                raise XferError(
                    f"{path}.link: {name} {repeated.iloc[0]} has several rows. Keep one {other} for each {name}."
                )
        items, entities = (link[name].tolist() for name in linked)
        self.item2entity, self.entity2item = (
            dict(zip(items, entities, strict=True)),
            dict(zip(entities, items, strict=True)),
        )

    def files_read(self) -> list[Path]:
        """The files from which the dataset has been read so far."""
        path = self.root / self.dataset_name / self.dataset_name
        return [*super().files_read(), path.with_name(f"{path.name}.kg"), path.with_name(f"{path.name}.link")]

    def _load_table(self, path: Path, source: FeatureSource | str, needed: list[str]) -> pd.DataFrame:
        """Reads a file of tokens, and checks its columns."""
        types = read_header(path, AtomicFormat.of(self.config))
        for name in needed:
            if types.get(name) != "token":
                raise XferError(
                    f"{path} has no column '{name}:token' (columns: {', '.join(types)}). Rename the column."
                )
        frame = self._load_feat(str(path), source)
        if frame is None or not set(needed) <= set(frame):
            raise XferError(f"{self.config['model']} needs {', '.join(needed)} of {path}. Add them to load_col.")
        return frame.dropna(subset=needed, ignore_index=True)

    def _data_filtering(self) -> None:
        super()._data_filtering()
        if not len(self.inter_feat):
            raise XferError(
                f"{self.dataset_name}.link links no item of {self.dataset_name}.inter with an entity of "
                f"{self.dataset_name}.kg. Check the tokens of these files."
            )


class KnowledgeDataset(KnowledgeMixin, InteractionDataset):
    """For models without sequences that read a knowledge graph (KGAT, CKE, ...)."""


class KnowledgeSequencesDataset(KnowledgeMixin, TransferDataset):
    """For sequential models that read a knowledge graph and vectors of its entities (KSR, GRU4RecKG)."""

    _preloaded_weight: dict[str, np.ndarray]

    def _preload_weight_matrix(self) -> None:
        super()._preload_weight_matrix()  # in float64, which KSR does not convert
        self._preloaded_weight = {name: values.astype(np.float32) for name, values in self._preloaded_weight.items()}
