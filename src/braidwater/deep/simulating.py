"""A torch module in the figures that the simulator takes."""

from __future__ import annotations

import torch

from braidwater.deep.building import import_factory, parameter_bytes
from braidwater.deep.layers import find_layers
from braidwater.errors import OptionError
from braidwater.planner.simulate import Model


def model_of(path: str, inputs: int | tuple[int, ...], outputs: int) -> Model:
    """The net that the factory at ``"package.module:name"`` makes of `inputs` (a width, or a shape) and `outputs`."""
    with torch.random.fork_rng(devices=[]):
        module = import_factory(path)(inputs, outputs)
    shape = (inputs,) if isinstance(inputs, int) else inputs
    module.eval()
    try:
        found = find_layers(module, torch.zeros(1, *shape))
    except (RuntimeError, ValueError, IndexError) as error:
        raise OptionError("inputs", shape, f"the shape of a row that {path} takes: {error}") from error
    return Model(
        name=path.rpartition(":")[2],
        weights=parameter_bytes(module),
        flops_per_row=3 * found.flops,  # backward computes the gradients of weights and of inputs
        activations=2 * found.activations,
        layers=found.layers,
    )
