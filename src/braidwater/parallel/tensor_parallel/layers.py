"""Layers of which each worker of a group holds a part.

Each takes the place of a layer of torch and keeps its parameters' names; `shards` says for a parameter's name which entries
of which dimension this worker holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from braidwater.errors import UnsupportedError
from braidwater.parallel.talk import Talk
from braidwater.parallel.tensor_parallel.collectives import copied, joined, parted, summed


@dataclass(frozen=True)
class Shard:
    """The entries `own` of dimension `dim` of a parameter that is `whole` entries long there."""

    dim: int
    own: torch.Tensor
    whole: int


class ShardedLayer(nn.Module):
    """A layer that holds a part of the parameters of another one."""

    shards: dict[str, Shard]
    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self.talk = talk
        self.shards = {}

    def hold(self, name: str, parameter: torch.Tensor | None, dim: int | None, own: torch.Tensor | None = None) -> None:
        """Register this worker's entries of a parameter: those numbered `own`, else an even part; all where `dim` is None."""
        if parameter is None or dim is None:
            self.register_parameter(name, cast(nn.Parameter | None, parameter))
            return
        whole = parameter.shape[dim]
        if own is None:
            own = torch.arange(*self.talk.own(whole))
        self.shards[name] = Shard(dim, own, whole)
        held = parameter.detach().index_select(dim, own.to(parameter.device)).contiguous()
        self.register_parameter(name, nn.Parameter(held, requires_grad=parameter.requires_grad))


class ColumnLinear(ShardedLayer):
    """A linear layer parted by its outputs, which stay parted unless `gather`. Backward: one all-reduce of the inputs."""

    def __init__(self, layer: nn.Linear, talk: Talk, gather: bool = False) -> None:
        super().__init__(talk)
        self.in_features, self.out_features, self.gather = layer.in_features, layer.out_features, gather
        self.hold("weight", layer.weight, 0)
        self.hold("bias", layer.bias, 0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        own = functional.linear(copied(inputs, self.talk), self.weight, self.bias)
        return joined(own, self.talk, self.out_features) if self.gather else own


class RowLinear(ShardedLayer):
    """A linear layer parted by its inputs, which come parted unless `scatter`. Forward: one all-reduce of the outputs."""

    def __init__(self, layer: nn.Linear, talk: Talk, scatter: bool = False) -> None:
        super().__init__(talk)
        self.in_features, self.out_features, self.scatter = layer.in_features, layer.out_features, scatter
        self.hold("weight", layer.weight, 1)
        self.hold("bias", layer.bias, None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        own = parted(inputs, self.talk) if self.scatter else inputs
        total = summed(functional.linear(own, self.weight), self.talk)
        return total if self.bias is None else total + self.bias


class RowEmbedding(ShardedLayer):
    """An embedding parted by the rows of its table. Forward: one all-reduce of what was looked up."""

    def __init__(self, layer: nn.Embedding, talk: Talk) -> None:
        super().__init__(talk)
        if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
            raise UnsupportedError(
                "An embedding with max_norm, scale_grad_by_freq or sparse=True cannot be parted. Leave it out of `plan`."
            )
        self.num_embeddings, self.embedding_dim, self.padding_idx = (
            layer.num_embeddings,
            layer.embedding_dim,
            layer.padding_idx,
        )
        self.hold("weight", layer.weight, 0)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        begin, end = self.talk.own(self.num_embeddings)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= self.num_embeddings):
            raise IndexError(
                f"index out of range: {int(index.min())} to {int(index.max())} of {self.num_embeddings} rows"
            )
        elsewhere = (index < begin) | (index >= end)
        padding = self.padding_idx
        found = functional.embedding(
            (index - begin).masked_fill(elsewhere, 0),
            self.weight,
            padding_idx=padding - begin if padding is not None and begin <= padding < end else None,
        )
        return summed(found.masked_fill(elsewhere.unsqueeze(-1), 0.0), self.talk)


class HeadsAttention(ShardedLayer):
    """`nn.MultiheadAttention` parted by heads: projections by columns, the output by rows.

    Forward one all-reduce of the output; backward one of each different input. The random numbers of dropout are each
    worker's own part of what one process draws where heads divide evenly; they are of the same kind anyway.
    """

    in_proj_weight: torch.Tensor
    in_proj_bias: torch.Tensor | None
    _qkv_same_embed_dim: ClassVar[bool] = False  # keeps nn.TransformerEncoderLayer from its kernel for whole weights

    def __init__(self, layer: nn.MultiheadAttention, talk: Talk) -> None:
        super().__init__(talk)
        if layer.bias_k is not None or layer.add_zero_attn or not layer._qkv_same_embed_dim:
            raise UnsupportedError(
                "nn.MultiheadAttention with add_bias_kv, add_zero_attn, kdim or vdim cannot be parted by heads. Leave it out "
                "of `plan`, or write an attention with linear layers for query, key and value."
            )
        self.embed_dim, self.num_heads, self.head_dim = layer.embed_dim, layer.num_heads, layer.head_dim
        self.dropout, self.batch_first = layer.dropout, layer.batch_first
        begin, end = self.talk.own(self.num_heads)
        own = torch.arange(begin * self.head_dim, end * self.head_dim)
        thrice = torch.cat([own, own + self.embed_dim, own + 2 * self.embed_dim])
        self.own_heads = end - begin
        self.hold("in_proj_weight", layer.in_proj_weight, 0, thrice)
        self.hold("in_proj_bias", layer.in_proj_bias, 0, thrice)
        self.out_proj = _RowsOf(layer.out_proj, talk, own)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if query.ndim != 3 or (attn_mask is not None and attn_mask.ndim == 3):
            raise UnsupportedError("Attention parted by heads takes batches of sequences, and one mask for all heads.")
        once = query is key and key is value
        inputs = [copied(query, self.talk)] * 3 if once else [copied(x, self.talk) for x in (query, key, value)]
        if not self.batch_first:
            inputs = [tensor.transpose(0, 1) for tensor in inputs]
        q, k, v = (self._heads(tensor, place) for place, tensor in enumerate(inputs))
        mask = _mask(attn_mask, key_padding_mask, q.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / self.head_dim**0.5
            probabilities = (scores if mask is None else scores + mask).softmax(-1)
            found = functional.dropout(probabilities, dropout) @ v
            weights = self._weights(probabilities, average_attn_weights)
        else:
            found = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(found.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, tensor: torch.Tensor, place: int) -> torch.Tensor:
        """Project to (batch, own heads, length, width of a head)."""
        width = self.own_heads * self.head_dim
        rows = slice(place * width, (place + 1) * width)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        projected = functional.linear(tensor, self.in_proj_weight[rows], bias)
        return projected.view(*projected.shape[:2], self.own_heads, self.head_dim).transpose(1, 2)

    def _weights(self, probabilities: torch.Tensor, average: bool) -> torch.Tensor:
        if average:
            return summed(probabilities.sum(1) / self.num_heads, self.talk)
        raise UnsupportedError("Attention parted by heads gives the mean of the heads' weights only.")


class _RowsOf(ShardedLayer):
    """The projection of heads to outputs."""

    def __init__(self, layer: nn.Linear, talk: Talk, own: torch.Tensor) -> None:
        super().__init__(talk)
        self.hold("weight", layer.weight, 1, own)
        self.hold("bias", layer.bias, None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        total = summed(functional.linear(inputs, self.weight), self.talk)
        return total if self.bias is None else total + self.bias


class PartedDropout(nn.Module):
    """Dropout of a parted activation: draws the random numbers of the whole, so that the result is that of one process."""

    def __init__(self, layer: nn.Dropout, talk: Talk, width: int) -> None:
        super().__init__()
        self.p, self.talk, self.width = layer.p, talk, width

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return inputs
        kept = inputs.new_empty(*inputs.shape[:-1], self.width).bernoulli_(1 - self.p)
        begin, end = self.talk.own(self.width)
        return inputs * (kept[..., begin:end] / (1 - self.p))


def _mask(attention: torch.Tensor | None, padding: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Both masks as numbers to add to the scores (batch, heads, length, length)."""
    found = None if attention is None else _added(attention, dtype)
    if padding is None:
        return found
    own = _added(padding, dtype)[:, None, None, :]
    return own if found is None else found + own


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def gather_state(module: nn.Module, state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A state of `module` with every part replaced by the whole. Collective; each parted parameter travels once."""
    whole = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
    for prefix, layer in module.named_modules():
        if isinstance(layer, ShardedLayer):
            for name, shard in layer.shards.items():
                path = f"{prefix}.{name}" if prefix else name
                if path not in whole:
                    continue
                shape = list(whole[path].shape)
                shape[shard.dim] = shard.whole
                own = whole[path].new_zeros(shape).index_copy_(shard.dim, shard.own, whole[path])
                whole[path] = layer.talk.sum(own)
    return whole


def sharded_parameters(module: nn.Module) -> set[nn.Parameter]:
    """The parameters of which this worker holds only a part."""
    layers = [layer for layer in module.modules() if isinstance(layer, ShardedLayer)]
    return {layer.get_parameter(name) for layer in layers for name in layer.shards}
