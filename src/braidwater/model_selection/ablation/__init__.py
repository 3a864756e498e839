"""What each component of a model is worth: the model is trained again without it (leave one component out)."""

from braidwater.model_selection.ablation.components import Columns, Component, Layers, Setting
from braidwater.model_selection.ablation.result import Ablation
from braidwater.model_selection.ablation.run import ablate

__all__ = ["Ablation", "Columns", "Component", "Layers", "Setting", "ablate"]
