"""Architectures for tests. Worker processes import them."""

from __future__ import annotations

from braidwater.model_selection.architecture import Architecture, Cell, OneOf, Optional, Repeat, Residual, blocks
from braidwater.model_selection.space import Choice


def plain() -> Architecture:
    """Of linear layers: a width, up to three hidden layers with an activation each, dropout or not."""
    return Architecture(
        blocks.linear(Choice([4, 16, 48])),
        Repeat(Cell(blocks.linear(Choice([8, 32])), blocks.activation(Choice(["relu", "tanh"]))), 0, 3),
        Optional(blocks.dropout(0.5)),
    )


def shared() -> Architecture:
    """Whose options have one shape: residual blocks of two kinds, one to three of them, with an option more."""
    return Architecture(
        blocks.linear(12),
        blocks.activation(),
        Repeat(
            Residual(
                OneOf(
                    one=Cell(blocks.linear(12), blocks.activation("tanh")),
                    two=Cell(blocks.linear(24), blocks.activation(), blocks.linear(12)),
                )
            ),
            1,
            3,
        ),
        Optional(blocks.norm()),
    )


def pictures() -> Architecture:
    """Of convolutions, the cell being the same wherever it is repeated."""
    return Architecture(
        blocks.conv(4),
        Repeat(
            Residual(Cell(OneOf(small=blocks.conv(4, 3), large=blocks.conv(4, 5)), blocks.norm(), blocks.activation())),
            1,
            2,
            alike=True,
        ),
        blocks.pool(2),
    )
