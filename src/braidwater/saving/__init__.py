"""Models on disk: a folder with JSON and safetensors, written in one step and never unpickled."""

from braidwater.saving.load import Saved, load_model
from braidwater.saving.save import save_model

__all__ = ["Saved", "load_model", "save_model"]
