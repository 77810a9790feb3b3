"""Types of RecBole's own keys: those that every model reads, and those of its models' yaml files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from recbole_xfer.config import value_types as t

SPARSE_ADAM = "sparse_adam"
"""The ``learner`` that updates only the rows of item embeddings that a step reads."""

SPLITS: Mapping[str, Any] = {
    "LS": Literal["valid_and_test", "valid_only", "test_only", "none"],
    "RS": t.Ratios,
    "HU": t.Ratios,
    "NU": t.InnerFraction,
}
"""The ways to split, and the argument of each; HU and NU are ours."""

GENERAL: Mapping[str, Any] = {
    # Environment
    "gpu_id": t.GpuIds,
    "use_gpu": bool,
    "worker": t.CountOrZero,
    "seed": t.Seed,
    "state": t.any_case("debug", "info", "warning", "error", "critical") | None,
    "reproducibility": bool,
    "config_file": t.NameOrNames | None,
    "data_path": t.FilePath,
    "checkpoint_dir": t.FilePath,
    "show_progress": bool,
    "save_dataset": t.NoPickle,
    "dataset_save_path": t.NoPicklePath,
    "save_dataloaders": t.NoPickle,
    "dataloaders_save_path": t.NoPicklePath,
    "log_wandb": bool,
    "wandb_project": t.Text,
    "shuffle": bool,
    # Training
    "epochs": t.CountOrZero,
    "train_batch_size": t.Count,
    "learner": t.any_case("adam", "adamw", "sgd", "adagrad", "rmsprop", SPARSE_ADAM),
    "learning_rate": t.NotNegative,
    "train_neg_sample_args": t.Keys | None,
    "train_neg_sample_args.distribution": Literal["uniform", "popularity"] | None,
    "train_neg_sample_args.sample_num": t.Count,
    "train_neg_sample_args.alpha": t.Number,
    "train_neg_sample_args.dynamic": bool,
    "train_neg_sample_args.candidate_num": t.CountOrZero,
    "eval_step": t.CountOrZero,
    "stopping_step": t.CountOrZero,
    "clip_grad_norm": t.Clipping | None,
    "clip_grad_norm.max_norm": t.Positive,
    "clip_grad_norm.norm_type": t.NormType,
    "weight_decay": t.NotNegative,
    "loss_decimal_place": t.CountOrZero,
    "require_pow": bool,
    "enable_amp": bool,
    "enable_scaler": bool,
    "transform": Literal["mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined"] | None,
    # Evaluation
    "eval_args": t.Keys,
    "eval_args.split": t.one_key_of(*SPLITS),
    **{f"eval_args.split.{kind}": argument for kind, argument in SPLITS.items()},
    "eval_args.group_by": Literal["user", "none"] | None,
    "eval_args.order": Literal["TO", "RO"],
    "eval_args.mode": t.Mode,
    "repeatable": bool,
    "metrics": t.Metrics,
    "topk": t.Ranks,
    "valid_metric": t.MetricOfRank,
    "valid_metric_bigger": bool,
    "eval_batch_size": t.Count,
    "metric_decimal_place": t.CountOrZero,
    # Atomic files
    "field_separator": t.Character,
    "seq_separator": t.Character,
    **dict.fromkeys(
        (
            "USER_ID_FIELD", "ITEM_ID_FIELD", "RATING_FIELD", "TIME_FIELD", "LABEL_FIELD", "NEG_PREFIX",
            "ITEM_LIST_LENGTH_FIELD", "LIST_SUFFIX", "POSITION_FIELD", "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD",
            "RELATION_ID_FIELD", "ENTITY_ID_FIELD",
        ),
        t.Name,
    ),
    "MAX_ITEM_LIST_LENGTH": t.Count,
    "seq_len": t.Lengths | None,
    "threshold": t.Threshold | None,
    "numerical_features": t.Names,
    "load_col": t.Columns | None,
    "unload_col": t.Columns | None,
    "unused_col": t.Columns | None,
    "additional_feat_suffix": t.NameOrNames | None,
    "benchmark_filename": t.Names | None,
    # Filters
    "rm_dup_inter": Literal["first", "last"] | None,
    "val_interval": t.Filter | None,
    "filter_inter_by_user_or_item": bool,
    **dict.fromkeys(
        ("user_inter_num_interval", "item_inter_num_interval", "entity_kg_num_interval", "relation_kg_num_interval"),
        t.Interval | None,
    ),
    # Preprocessing
    **dict.fromkeys(
        ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id", "normalize_field"),
        t.Names | None,
    ),
    "normalize_all": bool | None,
    "preload_weight": t.Vectors | None,
    "discretization": t.Buckets | None,
    "kg_reverse_r": bool,
}  # fmt: skip
"""Keys of RecBole's overall.yaml, of its sample.yaml and of its lists of arguments."""

OF_MODELS: Mapping[str, Any] = {
    **dict.fromkeys(
        (
            "attention_size", "block_num", "class_num", "context_hops", "conv_kernel_size", "cross_layer_num", "depth",
            "embedding_size", "expert_num", "gcn_output_dim", "hidden_dimension", "hidden_size", "high_order",
            "history_len", "history_num_per_term", "hyper_layers", "inner_size", "interest_size", "item_agg_layer",
            "item_embedding_size", "k", "k_interests", "kernel_size", "kfac", "kg_embedding_size", "kge_interval",
            "latent_dimension", "lgb_num_boost_round", "lightgcn_layer", "low_rank", "m_step", "metrics_k",
            "mf_embedding_size", "mlp_embedding_size", "n_cate", "n_factors", "n_heads", "n_hop", "n_hops", "n_iter",
            "n_iterations", "n_layers", "n_memory", "neigh_embedding_size", "neigh_num", "neighbor_sample_size", "nh",
            "num_basis_functions", "num_clusters", "num_conv_kernel", "num_heads", "num_layers", "nv", "order_len",
            "pool_kernel_size", "prototype_size", "rank", "save_step", "short_item_length", "step", "steps", "t_depth",
            "token_num_threhold", "train_kg_step", "train_rec_step", "ui_embedding_size", "user_embedding_size",
            "weight_size", "xgb_num_boost_round",
        ),
        t.Count,
    ),
    **dict.fromkeys(
        (
            "anneal_steps", "high_layers_num", "low_layers_num", "n_dec_epochs", "n_enc_epochs", "pretrain_epochs",
            "sampling_steps", "split_to", "total_anneal_steps", "vae_anneal_steps", "warm_up_step",
        ),
        t.CountOrZero,
    ),
    **dict.fromkeys(
        (
            "anneal_cap", "attn_dropout_prob", "corruption_ratio", "drop_ex", "drop_im", "drop_ratio", "dropout",
            "dropout_prob", "ft_ratio", "global_ratio", "hidden_dropout_prob", "item_dropout", "l1_ratio",
            "lambda_coeff", "mask_ratio", "mess_dropout", "mess_dropout_rate", "message_dropout", "node_dropout",
            "node_dropout_rate", "sess_dropout", "spatial_ratio", "vae_anneal_cap",
        ),
        t.Fraction,
    ),
    **dict.fromkeys(
        (
            "aap_weight", "align_weight", "cor_weight", "initializer_range", "kg_weight", "lambda1", "lambda2",
            "lamda", "lmd", "lmd_sem", "ls_weight", "map_weight", "margin", "mip_weight", "negative_weight",
            "noise_max", "noise_min", "noise_scale", "proto_reg", "reg_loss_ratio", "reg_weight", "reg_weight_1",
            "reg_weight_2", "second_order_loss_weight", "shrink", "sim_regularity", "sp_weight", "ssl_reg",
            "ssl_weight", "w_max", "w_min",
        ),
        t.NotNegative,
    ),
    **dict.fromkeys(
        (
            "layer_norm_eps", "resolution", "rho", "ssl_tau", "ssl_temp", "tau", "tau_ratio", "temperature",
            "topk_factor",
        ),
        t.Positive,
    ),
    **dict.fromkeys(("alpha", "beta", "gamma", "weight"), t.Number),
    **dict.fromkeys(
        (
            "L1_flag", "apply_norm", "beta_fixed", "build_graph_separately", "center_columns",
            "convert_token_to_onehot", "direct", "double_tower", "dual_domain", "fredom", "freeze_kg", "hide_item",
            "joint_train", "mf_train", "mixed", "mlp_train", "nogb", "positive_only", "reparam", "reweight",
            "sampling_noise", "sparse_feature", "time-aware", "use_inner", "use_inner_product", "use_outer",
            "use_pretrain", "use_st_gumbel",
        ),
        bool,
    ),
    **dict.fromkeys(
        (
            "cin_layer_size", "cnn_channels", "cnn_kernels", "cnn_strides", "dilations", "dims_dnn",
            "encoder_hidden_size", "hidden_size_list", "in_dims", "item_hidden_size_list", "layers",
            "mlp_hidden_size", "order_list", "out_dims", "t_cin", "user_hidden_size_list",
        ),
        t.Counts,
    ),
    **dict.fromkeys(("mixture_weights", "reg_weights"), t.Weights),
    "dropout_probs": t.Fractions,
    **dict.fromkeys(("pre_model_path", "warm_up"), t.FilePath),
    **dict.fromkeys(("mf_pretrain_path", "mlp_pretrain_path", "pretrain_path", "xgb_model"), t.FilePath | None),
    **dict.fromkeys(("lgb_params", "xgb_params"), t.Keys),
    **dict.fromkeys(("lgb_early_stopping_rounds", "xgb_nthread"), t.Count | None),
    "xgb_silent": bool | None,
    "xgb_verbose_eval": bool | t.CountOrZero,
    "fields": t.Keys | None,
    "selected_features": t.NameOrNames,
    "item_attribute": t.Name,
    # Choices
    "accum": Literal["sum", "stack"],
    "ae_act_func": t.any_case("sigmoid", "tanh", "relu", "leakyrelu", "none"),
    "aggregator": Literal["sum", "neighbor", "concat"],
    "aggregator_type": Literal["gcn", "graphsage", "bi"],
    "algorithm": Literal["prod", "concat"],
    "dnn_type": Literal["trm", "ave"],
    "fredom_type": Literal["us", "un", "su", "us_x", "None"] | None,
    "gru_type": Literal["GRU", "AIGRU", "AGRU", "AUGRU"],
    "hid_activation": Literal["sigmoid", "relu", "tanh"],
    "hidden_act": Literal["gelu", "relu", "swish", "tanh", "sigmoid"],
    "ind": Literal["mi", "distance", "cosine"],
    "inter_matrix_type": Literal["01", "rating"],
    "loss_function": Literal["inner_product", "transe"],
    "loss_type": t.Name,  # which ones, the model's class says
    "mean_type": Literal["x0", "eps"],
    "mlp_act_func": t.any_case("sigmoid", "tanh", "relu", "leakyrelu", "none"),
    "neigh_info_method": Literal["random", "knn", "louvain"],
    "noise_schedule": Literal["linear", "linear-var", "cosine", "binomial"],
    "order": Literal[1, 2],
    "out_activation": Literal["sigmoid", "relu"],
    "phase": Literal["teacher_training", "distillation", "finetuning"],
    "pooling_mode": Literal["mean", "max", "sum"],
    "pooling_type": Literal["average", "max"],
    "pooling_type_layer_1": Literal["average", "max"],
    "pooling_type_layer_2": Literal["average", "max"],
    "structure": Literal["stacked", "parallel"],
    "teacher": Literal["CrossNet", "CIN", "CINComp"],  # RecBole evaluates it
    "train_method": Literal["after_pretrain", "no_pretrain"],
}  # fmt: skip
"""Keys of RecBole's models that mean the same in every model."""

STAGES: Mapping[str, tuple[str, ...]] = {
    "RaCT": ("actor_pretrain", "critic_pretrain", "finetune"),
    "S3Rec": ("pretrain", "finetune"),
}
"""RecBole's models that are trained in stages, and the values of ``train_stage`` in their order."""

BY_MODEL: Mapping[str, Mapping[str, Any]] = {
    "CDAE": {"loss_type": Literal["BCE", "MSE"]},
    "FEARec": {"std": bool},
    "HGN": {"reg_weight": t.TwoWeights},
    "KD_DAGFM": {"type": Literal["inner", "outer"]},
    "MCCLK": {"loss_type": t.any_case("BPR", "BCE")},
    "MacridVAE": {"std": t.Positive},
    "RaCT": {"critic_layers": t.Counts, "train_stage": t.choice(STAGES["RaCT"]) | None},
    "S3Rec": {"train_stage": t.choice(STAGES["S3Rec"]) | None},
    "SGL": {"type": Literal["ED", "ND", "RW"]},
    "SHAN": {"reg_weight": t.TwoWeights},
    "SimpleX": {"aggregator": Literal["mean", "user_attention", "self_attention"]},
}
"""Keys of RecBole's models that mean another thing in each model."""
