"""Architecture search: nets declared as a space of cells and blocks, tried one by one, evolved, or trained as one supernet."""

from braidwater.model_selection.architecture import blocks
from braidwater.model_selection.architecture.evolution import AgeingEvolution, evolve
from braidwater.model_selection.architecture.inheritance import inherit, morph
from braidwater.model_selection.architecture.nodes import Cell, Layer, Node, OneOf, Optional, Repeat, Residual
from braidwater.model_selection.architecture.one_shot import OneShot, one_shot
from braidwater.model_selection.architecture.path_evolution import PathEvolution
from braidwater.model_selection.architecture.space import Architecture
from braidwater.model_selection.architecture.supernet import Supernet

__all__ = [
    "AgeingEvolution",
    "Architecture",
    "Cell",
    "Layer",
    "Node",
    "OneOf",
    "OneShot",
    "Optional",
    "PathEvolution",
    "Repeat",
    "Residual",
    "Supernet",
    "blocks",
    "evolve",
    "inherit",
    "morph",
    "one_shot",
]
