"""Makes the dataset and RecBole's loaders for training, validation and test from a configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.data.dataloader import KnowledgeBasedDataLoader, TrainDataLoader, UserDataLoader
from recbole.data.utils import get_dataloader
from recbole.sampler import KGSampler
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_xfer.config.values import join_domains
from recbole_xfer.data.candidates import draw_candidates
from recbole_xfer.data.dataset import InteractionDataset, NegativeHistoriesDataset, StoredRowsDataset, TransferDataset
from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.data.knowledge import KnowledgeDataset, KnowledgeSequencesDataset
from recbole_xfer.data.negatives import (
    DomainSampler,
    HistorySampler,
    RepeatableDomainSampler,
    RepeatableItemSampler,
)
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import hooks_of

PHASES = ["train", "valid", "test"]
BY_TYPE = {
    ModelType.GENERAL: InteractionDataset,
    ModelType.TRADITIONAL: InteractionDataset,
    ModelType.CONTEXT: InteractionDataset,
    ModelType.KNOWLEDGE: KnowledgeDataset,
    ModelType.SEQUENTIAL: TransferDataset,
}
"""The dataset of models of a type."""

BY_MODEL = {
    "DIEN": NegativeHistoriesDataset,
    "FEARec": StoredRowsDataset,
    "GRU4RecKG": KnowledgeSequencesDataset,
    "KSR": KnowledgeSequencesDataset,
}
"""The dataset of models that need another one than their type."""

SCORES_IN_BATCH = 2**25
"""Maximal number of scores in a batch of evaluation: users times items."""


def make_dataset(config: Any) -> Any:
    """Makes a model's dataset.

    RecBole's ``create_dataset`` is not called, because it unpickles saved datasets, which can run code.
    """
    return BY_MODEL.get(config["model"], BY_TYPE[config["MODEL_TYPE"]])(config)


def make_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Makes the loaders of the parts of the split: RecBole's for training, ours of targets to rank; None without rows.

    RecBole's evaluation of labels (``eval_args.mode: labeled``, or metrics such as AUC) has its loaders.
    """
    parts = dataset.build()
    if max(config["topk"]) >= dataset.item_num:
        raise XferError(
            f"topk={config['topk']} exceeds the {dataset.item_num - 1} items of {join_domains(dataset.domains)}. "
            f"Set shorter rankings, such as --topk=[{min(5, dataset.item_num - 1)}]."
        )
    _check_candidates(config, dataset)
    if config["rank_within_domain"] or config["negatives_within_domain"]:
        check_domains(dataset, parts)
    training = _train_loader(config, dataset, parts) if len(parts[0]) else None
    valid, test = (
        _eval_loader(config, dataset, parts, phase) if len(part) else None
        for phase, part in zip(PHASES[1:], parts[1:], strict=True)
    )
    return training, valid, test


def _train_loader(config: Any, dataset: Any, parts: list[Any]) -> Any:
    kind, negatives = get_dataloader(config, "train"), config["train_neg_sample_args"]
    in_pairs = config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and config["loss_type"] != "CE"
    if negatives["distribution"] == "none" and (
        kind is KnowledgeBasedDataLoader or (kind is TrainDataLoader and in_pairs)
    ):
        raise XferError(
            f"{config['model']} learns from negatives, but train_neg_sample_args draws none. Leave the key out, or set "
            f"--train_neg_sample_args='{{distribution: uniform, sample_num: 1}}'."
        )
    # RecBole's UserDataLoader has batches of users
    drawn = kind is not UserDataLoader and not hooks_of(config.model_class).draws_negatives
    sampler = _sampler(config, dataset, parts, "train", config["repeatable"]) if drawn else None
    samplers, shuffle = [sampler], config["shuffle"]
    if kind is KnowledgeBasedDataLoader:
        samplers.append(KGSampler(dataset, negatives["distribution"], negatives["alpha"]))
        shuffle = True
    return kind(config, parts[0], *samplers, shuffle=shuffle)


def _eval_loader(config: Any, dataset: Any, parts: list[Any], phase: str) -> Any:
    part, ranked = parts[PHASES.index(phase)], config["eval_type"] == EvaluatorType.RANKING
    config = config.replace(eval_batch_size=_eval_batch_size(config, dataset.item_num))
    if config[f"{phase}_neg_sample_args"]["distribution"] == "none":
        _check_labels(config, part, phase)
    elif ranked:
        return TargetLoader(config, part, draw_candidates(config, part, phase))
    sampler = _sampler(config, dataset, parts, phase, not config["mask_history"])
    return get_dataloader(config, phase)(config, part, sampler, shuffle=False)


def _check_labels(config: Any, part: Any, phase: str) -> None:
    """Raises XferError if labels cannot be evaluated, because of the metrics or the data."""
    mode = f"eval_args.mode={config['eval_args']['mode'][phase]}"
    if config["eval_type"] == EvaluatorType.RANKING:
        raise XferError(f"{mode} evaluates labels, which needs metrics such as --metrics='[AUC, LogLoss]'. Set them.")
    if config["LABEL_FIELD"] not in part.inter_feat:
        raise XferError(
            f"{mode} needs the column '{config['LABEL_FIELD']}', which {config['dataset']} does not have. Set "
            f"--threshold, such as --threshold='{{rating: 4}}', or add the column to load_col."
        )


def _sampler(config: Any, dataset: Any, parts: list[Any], phase: str, repeatable: bool) -> Any:
    """Returns the sampler of negatives for a phase; None if the phase needs none."""
    arguments = config[f"{phase}_neg_sample_args"]
    ranks_all = config["MODEL_TYPE"] == ModelType.SEQUENTIAL and arguments["sample_num"] == "none"
    if arguments["distribution"] == "none" or ranks_all:
        return None
    if arguments["sample_num"] != "none" and dataset.item_num < 3:  # the padding item counts
        raise XferError(
            f"{join_domains(dataset.domains)} has one item, so no negative can be drawn. "
            f"Use more data, or a loss and an evaluation over all items."
        )
    alpha = arguments.get("alpha", 1.0)
    within = config["negatives_within_domain" if phase == "train" else "rank_within_domain"]
    within = within and arguments["sample_num"] != "none"
    if repeatable:
        kind = RepeatableDomainSampler if within else RepeatableItemSampler
        return kind(PHASES, parts[0], arguments["distribution"], alpha).set_phase(phase)
    kind = DomainSampler if within else HistorySampler
    return kind(PHASES, parts, arguments["distribution"], alpha).set_phase(phase)


def _check_candidates(config: Any, dataset: Any) -> None:
    """Raises XferError if an evaluation samples more negatives than there are items."""
    for phase in PHASES[1:]:
        negatives, items = config[f"{phase}_neg_sample_args"]["sample_num"], dataset.item_num - 1
        if negatives != "none" and negatives > items:
            mode = config["eval_args"]["mode"][phase]
            raise XferError(
                f"eval_args.mode={mode} needs {negatives:,} negatives, but {config['dataset']} has {items:,} items. "
                f"Set fewer, such as uni{min(99, max(items - 1, 1))}, or full."
            )


def check_domains(dataset: AtomicFilesMixin, parts: list[Any]) -> None:
    """Raises XferError if a domain has no target in a part with targets, or fewer than two items to rank."""
    items = np.bincount(dataset.item_domain[1:], minlength=len(dataset.domains)).tolist()
    for domain, count in zip(dataset.domains, items, strict=True):
        if count < 2:
            raise XferError(
                f"The domain {domain} of {dataset.dataset_name} has {count} item{'s' * (count != 1)}, so a target "
                f"cannot be ranked within it. Leave the domain out of --dataset, or use more of its data."
            )
    for phase, part in zip(PHASES, parts, strict=True):
        targets = np.bincount(dataset.item_domain[part.inter_feat[dataset.iid_field].numpy()], minlength=len(items))
        for domain, count in zip(dataset.domains, targets, strict=True):
            if len(part) and not count:
                separate = dataset.config["histories"] == "per_domain"
                remedy = "" if separate else ", or set --histories=per_domain to split each domain separately"
                raise XferError(
                    f"No {phase} target of {dataset.dataset_name} is in the domain {domain}. Leave the domain out of "
                    f"--dataset, or use more of its data{remedy}."
                )


def _eval_batch_size(config: Any, items: int) -> int:
    """Returns the number of rows in a batch, reduced if their scores would exceed ``SCORES_IN_BATCH``."""
    return max(1, min(config["eval_batch_size"], SCORES_IN_BATCH // items))
