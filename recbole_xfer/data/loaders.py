"""From a configuration to a dataset and RecBole's loaders for training, validation and test."""

from __future__ import annotations

from typing import Any

import numpy as np
import recbole.data.dataset as recbole_datasets
from recbole.data import create_dataset, data_preparation
from recbole.data.utils import get_dataloader
from recbole.sampler import RepeatableSampler
from recbole.utils import ModelType

from recbole_xfer.data.dataset import AtomicFilesMixin, InteractionDataset, TransferDataset
from recbole_xfer.data.negatives import DomainSampler, HistorySampler, RepeatableDomainSampler
from recbole_xfer.errors import XferError

PHASES = ["train", "valid", "test"]
READ_ROWS = {"FEARec"}
"""Models that look rows of the dataset up themselves, and need RecBole's, where all are there."""
SCORES_IN_BATCH = 2**25
"""Scores that evaluation holds at a time: users of a batch times items."""


def make_dataset(config: Any) -> Any:
    """The dataset of a model: ours for general and sequential models, RecBole's where a model brings its own."""
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
        return create_dataset(config)
    except ValueError as error:  # how RecBole says that a file is missing
        raise XferError(f"{config['model']} cannot read {config['dataset']}: {error}") from error


def make_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """RecBole's loaders over the parts of the split; None for a part without rows.

    In sampled evaluation ``mask_history`` keeps a user's earlier items out of the negatives, and without it they may
    be among them; RecBole by itself decides that by the type of the model.
    """
    if not isinstance(dataset, AtomicFilesMixin):
        if config["rank_within_domain"]:
            raise XferError(
                f"{config['model']} reads its data itself and cannot be ranked within domains. "
                f"Leave out --rank_within_domain."
            )
        return data_preparation(config, dataset)
    parts = dataset.build()
    if max(config["topk"]) >= dataset.item_num:
        raise XferError(
            f"topk={config['topk']} asks for more than the {dataset.item_num - 1} items of "
            f"{'+'.join(dataset.domains)}. "
            f"Set shorter rankings, such as --topk=[5]."
        )
    if config["rank_within_domain"] or config["negatives_within_domain"]:
        check_domains(dataset, parts)
    loaders = []
    for phase, part in zip(PHASES, parts, strict=True):
        training = phase == "train"
        sampler = _sampler(
            config, dataset, parts, phase, config["repeatable"] if training else not config["mask_history"]
        )
        shuffle = config["shuffle"] if training else False
        keys = config if training else config.replace(eval_batch_size=_eval_batch_size(config, phase, dataset.item_num))
        loaders.append(get_dataloader(keys, phase)(keys, part, sampler, shuffle=shuffle) if len(part) else None)
    return loaders[0], loaders[1], loaders[2]


def _sampler(config: Any, dataset: Any, parts: list[Any], phase: str, repeatable: bool) -> Any:
    """RecBole's sampler of negatives for a phase, None where the phase needs none."""
    arguments = config[f"{phase}_neg_sample_args"]
    ranks_all = config["MODEL_TYPE"] == ModelType.SEQUENTIAL and arguments["sample_num"] == "none"
    if arguments["distribution"] == "none" or ranks_all:
        return None
    if arguments["sample_num"] != "none" and dataset.item_num < 3:  # the padding item counts
        raise XferError(
            f"{'+'.join(dataset.domains)} has one item, so that no negative can be drawn against it. Use more data, or "
            f"a loss and an evaluation over all items."
        )
    alpha = arguments.get("alpha", 1.0)
    within = config["negatives_within_domain" if phase == "train" else "rank_within_domain"]
    within = within and arguments["sample_num"] != "none"
    if repeatable:
        kind = RepeatableDomainSampler if within else RepeatableSampler
        return kind(PHASES, dataset, arguments["distribution"], alpha).set_phase(phase)
    kind = DomainSampler if within else HistorySampler
    return kind(PHASES, parts, arguments["distribution"], alpha).set_phase(phase)


def check_domains(dataset: AtomicFilesMixin, parts: list[Any]) -> None:
    """Raises XferError if a domain has no target in a part that has targets, or nothing to rank a target against."""
    items = np.bincount(dataset.item_domain[1:], minlength=len(dataset.domains)).tolist()
    for domain, count in zip(dataset.domains, items, strict=True):
        if count < 2:
            raise XferError(
                f"The domain {domain} of {dataset.dataset_name} has {count} item{'s' * (count != 1)}, so that a target "
                f"cannot be ranked within it. Leave it out of --dataset, or use more data of it."
            )
    for phase, part in zip(PHASES, parts, strict=True):
        there = np.bincount(dataset.item_domain[part.inter_feat[dataset.iid_field].numpy()], minlength=len(items))
        for domain, count in zip(dataset.domains, there, strict=True):
            if len(part) and not count:
                apart = dataset.config["histories"] == "per_domain"
                remedy = "" if apart else ", or set --histories=per_domain to split each domain by itself"
                raise XferError(
                    f"No {phase} target of {dataset.dataset_name} lies in the domain {domain}. Leave it out of "
                    f"--dataset, or use more data of it{remedy}."
                )


def _eval_batch_size(config: Any, phase: str, items: int) -> int:
    """So many rows, or fewer where their scores of all items would be too many.

    Where a model without sequences ranks all items, RecBole counts scores instead, of which a batch holds more.
    """
    rows = config["eval_batch_size"]
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL and config["eval_args"]["mode"][phase] == "full":
        return max(rows, SCORES_IN_BATCH)
    return max(1, min(rows, SCORES_IN_BATCH // items))
