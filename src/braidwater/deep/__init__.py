"""Deep learning: any torch module, trained and applied where the table lies. Importing this part imports torch."""

from braidwater.deep.modules import CNN, MLP, replace_head
from braidwater.deep.trainer import EarlyStopping, Trainer
from braidwater.deep.wrappers import cnn, mlp

__all__ = ["CNN", "MLP", "EarlyStopping", "Trainer", "cnn", "mlp", "replace_head"]
