"""The functions: importing this package fills the registry."""

from braidwater.sql.functions import (
    correlation,
    deep_data,
    k_means,
    linear,
    logistic,
    mini_batches,
    multinomial,
    pca,
    split,
    summary,
    torch_automl,
    torch_fit,
    torch_models,
    torch_select,
    torch_use,
)

__all__ = [
    "correlation", "deep_data", "k_means", "linear", "logistic", "mini_batches", "multinomial", "pca", "split", "summary",
    "torch_automl", "torch_fit", "torch_models", "torch_select", "torch_use",
]  # fmt: skip
