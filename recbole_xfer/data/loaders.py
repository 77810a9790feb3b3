"""Makes the dataset and RecBole's loaders for training, validation and test from a configuration."""

from __future__ import annotations

from typing import Any

import numpy as np
import recbole.data.dataset as recbole_datasets
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler, RepeatableSampler
from recbole.utils import EvaluatorType, ModelType

from recbole_xfer.config.values import join_domains
from recbole_xfer.data.candidates import draw_candidates
from recbole_xfer.data.dataset import InteractionDataset, TransferDataset
from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.data.negatives import DomainSampler, HistorySampler, RepeatableDomainSampler
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.errors import XferError

PHASES = ["train", "valid", "test"]
READ_ROWS = {"FEARec"}
"""Models that look up rows of the dataset, and need RecBole's dataset, which has them all."""
SCORES_IN_BATCH = 2**25
"""Maximal number of scores in a batch of evaluation: users times items."""


def make_dataset(config: Any) -> Any:
    """Makes a model's dataset: ours for general and sequential models, RecBole's for models with their own.

    RecBole's ``create_dataset`` is not called, because it unpickles saved datasets, which can run code.
    """
    by_type = {
        ModelType.SEQUENTIAL: TransferDataset,
        ModelType.GENERAL: InteractionDataset,
        ModelType.TRADITIONAL: InteractionDataset,
    }
    named = getattr(recbole_datasets, f"{config['model']}Dataset", None)
    own = by_type.get(config["MODEL_TYPE"]) if named is None else named
    rows_needed = config["model"] in READ_ROWS or config["benchmark_filename"]
    if own is not None and issubclass(own, AtomicFilesMixin) and not rows_needed:
        return own(config)
    try:
        return (named or _recboles_dataset(config["MODEL_TYPE"]))(config)
    except ValueError as error:  # RecBole's error for a missing file
        raise XferError(f"{config['model']} cannot read {config['dataset']}: {error}") from error


def _recboles_dataset(kind: ModelType) -> type:
    """RecBole's dataset for a type of models without a dataset of their own."""
    by_type = {
        ModelType.SEQUENTIAL: recbole_datasets.SequentialDataset,
        ModelType.KNOWLEDGE: recbole_datasets.KnowledgeBasedDataset,
    }
    return by_type.get(kind, recbole_datasets.Dataset)


def make_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Makes RecBole's loaders over the parts of the split; None for a part without rows.

    In sampled evaluation, ``mask_history`` decides whether a user's previous items can be negatives. RecBole decides
    this by the type of the model.
    """
    if not isinstance(dataset, AtomicFilesMixin):
        if config["rank_within_domain"]:
            raise XferError(
                f"{config['model']} reads its own data and cannot be ranked within domains. "
                f"Leave out --rank_within_domain."
            )
        _check_candidates(config, dataset)
        return _recboles_loaders(config, dataset)
    parts = dataset.build()
    if max(config["topk"]) >= dataset.item_num:
        raise XferError(
            f"topk={config['topk']} exceeds the {dataset.item_num - 1} items of {join_domains(dataset.domains)}. "
            f"Set shorter rankings, such as --topk=[{min(5, dataset.item_num - 1)}]."
        )
    _check_candidates(config, dataset)
    if config["rank_within_domain"] or config["negatives_within_domain"]:
        check_domains(dataset, parts)
    loaders: list[Any] = []
    for phase, part in zip(PHASES, parts, strict=True):
        training = phase == "train"
        keys = config if training else config.replace(eval_batch_size=_eval_batch_size(config, dataset.item_num))
        labeled = config[f"{phase}_neg_sample_args"]["distribution"] == "none"
        if not training and config["eval_type"] == EvaluatorType.RANKING and not labeled:
            loaders.append(TargetLoader(keys, part, draw_candidates(config, part, phase)) if len(part) else None)
            continue
        sampler = _sampler(
            config, dataset, parts, phase, config["repeatable"] if training else not config["mask_history"]
        )
        shuffle = config["shuffle"] if training else False
        loaders.append(get_dataloader(keys, phase)(keys, part, sampler, shuffle=shuffle) if len(part) else None)
    return loaders[0], loaders[1], loaders[2]


def _recboles_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """The loaders of RecBole's ``data_preparation``, which is not called, because it unpickles saved loaders."""
    parts = dataset.build()
    loaders = []
    for phase, part, sampler in zip(PHASES, parts, create_samplers(config, dataset, parts), strict=True):
        samplers, shuffle = [sampler], config["shuffle"] and phase == "train"
        if phase == "train" and config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
            negatives = config["train_neg_sample_args"]
            samplers.append(KGSampler(dataset, negatives["distribution"], negatives["alpha"]))
            shuffle = True
        loaders.append(get_dataloader(config, phase)(config, part, *samplers, shuffle=shuffle))
    return loaders[0], loaders[1], loaders[2]


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
        kind = RepeatableDomainSampler if within else RepeatableSampler
        return kind(PHASES, dataset, arguments["distribution"], alpha).set_phase(phase)
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
