"""Deep learning: any torch module, trained and applied where the table lies. Importing this part imports torch."""

from braidwater.deep.ensembles import ensemble
from braidwater.deep.modules import CNN, MLP, replace_head
from braidwater.deep.trainer import EarlyStopping, Trainer
from braidwater.deep.wrappers import cnn, mlp
from braidwater.parallel.augmentation import Augmentation, Crop, Erase, Flip

__all__ = [
    "CNN",
    "MLP",
    "Augmentation",
    "Crop",
    "EarlyStopping",
    "Erase",
    "Flip",
    "Trainer",
    "cnn",
    "ensemble",
    "mlp",
    "replace_head",
]
