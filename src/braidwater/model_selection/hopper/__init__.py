"""Model hopper: the rows stay with their workers, the models go from one to the next."""

from braidwater.model_selection.hopper.found import Hopped
from braidwater.model_selection.hopper.hopping import hop

__all__ = ["Hopped", "hop"]
