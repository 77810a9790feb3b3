"""Validates configuration keys and values before any data is loaded; reports each problem in one sentence.

:data:`KEYS` alone declares the type of each key. The yaml files of ``properties/`` hold the defaults and the meaning
of each key. A key with a dot, such as ``eval_args.mode``, is one of the keys inside ``eval_args``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from recbole_xfer.config import properties, recbole_keys
from recbole_xfer.config import value_types as t
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.config.value_types import fits, words
from recbole_xfer.errors import XferError, did_you_mean

GENERAL: Mapping[str, Any] = {
    # Names
    "model": t.Name,
    "dataset": t.Domains,
    "tp_model": t.Name,
    "config_files": t.NameOrNames | None,
    # Data
    "encoding": t.Encoding | None,
    "histories": Literal["across", "per_domain"],
    "overlap": t.Fraction,
    "overlap_file": t.FilePath | None,
    "single_domain": t.Name | None,
    "train_rows": Literal["prefixes", "windows"],
    "window_stride": t.Count | None,
    "modalities": t.subset_of("text", "image", "price") | None,
    "vector_scaling": Literal["standard", "scale", "none"],
    "held_out_targets": t.Count,
    "train_share": t.PositiveFraction,
    # Training
    "negatives_within_domain": bool,
    "precision": Literal["auto", "bf16", "float32"],
    "learning_rate_decay": t.Positive,
    # Transfer
    "source": t.Domains | None,
    "pretrained": t.FilePath | None,
    "adaptation": t.Name | None,  # which ones, the model's class says
    "run_dir": t.FilePath | None,
    "data_digest": t.Text | None,
    "pretrained_digest": t.Text | None,
    "resume": bool,
    # Evaluation
    "rank_within_domain": bool,
    "mask_history": bool,
    "head_share": t.InnerFraction,
    "eval_groups": t.NameOrNames | None,
}
"""Keys of properties/overall.yaml and keys without default, except those of RecBole."""

OF_MODELS: Mapping[str, Any] = {
    # ContentKNN, and models that start from it
    "content_start": bool,
    "decay": t.Fraction,
    "price_weight": t.Positive,
    # ANT and UniSRec
    "projection_heads": t.Count,
    "price_size": t.EvenCount,
    "price_frequency": t.Positive,
    "fusion_weight": t.NotNegative,
    "projection_dropout": t.Fraction,
    "mixture_of_experts": bool,
    "fusion": bool,
    "item_embedding": bool,
    "alignment_weight": t.NotNegative,
    "negatives": Literal["full", "sampled", "in_batch"],
    "n_negatives": t.Count,
    "catalogue_chunk": t.Count,
    "contrast_weight": t.NotNegative,
    "augmentation": t.subset_of("item_drop", "word_drop") | None,
    "item_drop": t.Fraction,
    "word_drop_share": t.Fraction,
    # VQ-Rec
    "codes": t.Count,
    "code_values": t.Count,
    "random_codes": t.Fraction,
    "align_epochs": t.CountOrZero,
    # NOVA
    "fusor": Literal["add", "concat", "gating"],
    # RETR and the Pathway models
    "pathway": bool,
    "pathway_acts_on": Literal["query", "input", "key"],
    "pathway_context": Literal["prefix", "window"],
    "pathway_route": Literal["learned", "random"],
    "pathway_hierarchical": bool,
    "pathway_temperature": t.Positive | None,
    # RecGURU
    "variant": Literal["RecGURU", "AutoRec", "SeqRec"],
    "autoencoder_epochs": t.CountOrZero,
    "autoencoder_learning_rate": t.NotNegative,
    "autoencoder_betas": t.Betas,
    "warmup_steps": t.Count,
    "user_batch_size": t.Count,
    "reconstruction_negatives": t.Count | None,
    "adversarial_epochs": t.CountOrZero,
    "adversarial_learning_rate": t.NotNegative,
    "adversarial_learning_rate_decay": t.Positive,
    "adversarial_betas": t.Betas,
    "critic_layers": t.Count,
    "critic_size": t.Count,
    "critic_steps": t.Count,
    "gradient_penalty": t.NotNegative,
    "adversarial_weight": t.NotNegative,
    "overlap_weight": t.NotNegative,
    "betas": t.Betas,
    "recommendation_loss": Literal["pairwise", "CE"],
    "representation": Literal["prefix", "window"],
    # SyNCRec
    "n_experts": t.Count,
    "cross_experts": t.Count,
    "decoupled": bool,
    "gate": Literal["window", "position"],
    "loss_correction": bool,
    "weight_temperature": t.Positive,
    "weight_scale": t.Positive,
    "weight_memory": t.Number,
    "gap_influence": t.Number,
    "repeat_bias": bool | None,
    "trained_correction": bool,
    "bounded_scores": bool,
    "harmonic_factor": t.Fraction,
    "ranking_sequence": Literal["joined", "own", "both"],
    # TP
    "inner_steps": t.Count,
    "inner_rate": t.Positive,
    "adversary_weight": t.NotNegative,
    "adversary_rate": t.Positive,
    "adversary_positions": Literal["common", "all"],
    "paths": t.Count,
    "caser_length": t.Count,
}
"""Keys of properties/model, except those that RecBole's models have too."""

PLAN: Mapping[str, Any] = {
    # Of the plan
    "datasets": t.Datasets,
    "only_rows": t.Rows | None,
    "settings": t.Settings,
    "seeds": t.Seeds,
    "ensembles": t.Ensembles | None,
    "baseline": t.Name | None,
    "published": t.Keys | None,
    # Of a row
    "name": t.Name,
    "alone": bool | t.Name,
    "alone_keys": t.Keys | None,
    "search": t.Space,
    "trials": t.Count,
}
"""Keys of a comparison's file; those of ``rows`` are checked with each row."""

BY_MODEL: Mapping[str, Mapping[str, Any]] = {
    **recbole_keys.BY_MODEL,
    "RecGURU": {"negatives": t.Count},
    "CARCA": {"negatives": Literal["full", "sampled"]},
    "NOVA": {"negatives": Literal["full", "sampled"]},
    "RETR": {"negatives": Literal["full", "sampled"]},
    "TPRETR": {"negatives": Literal["full"], "repeat_bias": Literal[False]},
}
"""Keys that mean another thing in one model."""

OURS: Mapping[str, Any] = {**GENERAL, **OF_MODELS, **PLAN}
KEYS: Mapping[str, Any] = {**recbole_keys.GENERAL, **recbole_keys.OF_MODELS, **OURS}
"""The type of each key."""

WITHOUT_DEFAULT: Mapping[str, str] = {
    "model": "Name of the model.",
    "dataset": "Name of a dataset, or several joined by +.",
    "tp_model": "With `model: TP`, the model that TP trains.",
    "config_files": "In a row of a comparison: yaml files of its keys. Elsewhere not read; RecBole's scripts pass it.",
    "encoding": "Encoding of atomic files; utf-8 where it is missing.",
    "datasets": "In a comparison, several datasets in place of `dataset`; each has a table.",
    "only_rows": "In a comparison, the rows to run (names, labels or models); all others are left out.",
    "settings": "In a comparison, groups of keys by name, such as `{texts: {modalities: [text]}}`; each has a table.",
    "seeds": "In a comparison, the seeds with which each row is trained.",
    "ensembles": "In a comparison, further rows by name; each joins the scores of rows (names, labels or models).",
    "baseline": "In a comparison, the row (name, label or model) with which all others, or one row, are compared.",
    "published": "In a comparison, figures of a paper to print beside ours; see [studies](studies.md).",
    "search": "In a row of a comparison: search it first, in a space (a file, or True for the model's own).",
    "trials": "In a comparison or a row of it: number of configurations that `search` draws.",
    "name": "In a row of a comparison, its label in the table.",
    "alone": "In a row of a comparison: compare with a model of each domain alone; True, or the name of another row.",
    "alone_keys": "In a row with `alone: True`: keys of its models of one domain, such as more epochs for equal steps.",
}
"""The keys of ours that no yaml file has, and their meaning."""

USUAL_NAMES = {
    "batch_size": "train_batch_size",
    "data_dir": "data_path",
    "device": "gpu_id",
    "dropout": "hidden_dropout_prob",
    "dropout_rate": "hidden_dropout_prob",
    "early_stop": "stopping_step",
    "early_stopping": "stopping_step",
    "embedding_dim": "hidden_size",
    "embedding_size": "hidden_size",
    "gpu": "gpu_id",
    "hidden_units": "hidden_size",
    "k": "topk",
    "lr": "learning_rate",
    "max_len": "MAX_ITEM_LIST_LENGTH",
    "max_length": "MAX_ITEM_LIST_LENGTH",
    "max_seq_len": "MAX_ITEM_LIST_LENGTH",
    "maxlen": "MAX_ITEM_LIST_LENGTH",
    "optimizer": "learner",
    "patience": "stopping_step",
}
"""Names of keys in other libraries, where their spelling does not lead to RecBole's name."""


def check_keys(given: Iterable[Any], known: Iterable[str], where: str = "") -> None:
    """Raises XferError for the first unknown key; suggests the known key of the same meaning or of similar spelling."""
    known = set(known)
    for key in map(str, given):  # yaml also allows keys that are not strings
        if key not in known:
            usual = USUAL_NAMES.get(key.lower())
            raise XferError(f"Unknown key '{where}{key}'{did_you_mean(usual if usual in known else key, known)}")


def check_values(given: Mapping[str, Any], model: str = "", defaults: Mapping[str, Any] | None = None) -> None:
    """Raises XferError for the first invalid value.

    Args:
        given: values by key.
        model: name of the model that reads them; some keys mean another thing in each model.
        defaults: of the model; their types count for keys that :data:`KEYS` does not have, those of other packages.
    """
    for key, value in given.items():
        kind = kind_of(key, model)
        check(key, value, _kind_of_default((defaults or {}).get(_stageless(key))) if kind is None else kind)
        _check_inside(key, value)


def kind_of(key: str, model: str = "") -> Any:
    """The type of a key in a model; None for a key of another package."""
    name = _stageless(key)
    base = model and (properties.recbole_model(model) or model)
    return BY_MODEL.get(base, {}).get(name, KEYS.get(name))


def check(key: str, value: Any, kind: Any) -> None:
    """Raises XferError for a value that is not of a type."""
    if not fits(value, kind):
        raise XferError(f"{key}={value} is invalid: it must be {words(kind)}.")


def typed(key: str, value: Any, model: str = "") -> Any:
    """A value, and the parts of a mapping, in the types of their keys: equal numbers become equal texts."""
    if isinstance(value, Mapping):
        return {name: typed(f"{key}.{name}", part, model) for name, part in value.items()}
    kind = kind_of(key, model)
    return value if kind is None else t.in_kind(value, kind)


def _check_inside(key: str, value: Any) -> None:
    """Checks the keys inside a value, such as ``eval_args.split``."""
    start = f"{_stageless(key)}."
    inside = {name.removeprefix(start) for name in KEYS if name.startswith(start)}
    if inside and isinstance(value, Mapping):
        check_keys(value, {name.split(".")[0] for name in inside}, f"{key}.")
        check_values({f"{key}.{name}": part for name, part in value.items()})


def _stageless(key: str) -> str:
    """A key without the prefix of pre-training; RecBole has keys of its own that begin so."""
    return key if key in KEYS else key.removeprefix(STAGE_PREFIX)


def _kind_of_default(default: Any) -> Any:
    """The type of a key's values by its default; any where the default leaves it open."""
    if isinstance(default, bool):
        return bool
    if fits(default, t.Number):
        return t.Number
    return t.Keys if isinstance(default, Mapping) else Any
