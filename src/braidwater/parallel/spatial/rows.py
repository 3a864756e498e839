"""A feature map of which this worker holds a region of rows.

`Rows` is a tensor (pictures, channels, own rows, width) that knows the height of the whole. Modules need not know of it:
torch hands every operation on it to `Rows.__torch_function__`. What is registered by `handles` works on the region: sliding
layers (`sliding`) fetch their halo, layers that add up over a picture (`adding`) sum over the regions, element-wise ones
(`element_wise`) need nothing. Any other operation gets the whole map (`gathered`), which is always right. Convolutions of
whole maps make regions again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from braidwater.errors import UnsupportedError
from braidwater.parallel.spatial.regions import Regions

Handler = TypeVar("Handler", bound=Callable[..., Any])
HANDLERS: dict[Any, Callable[..., Any]] = {}
ELEMENT_WISE: dict[Any, Callable[..., Any]] = {}
Plain = torch._C.DisableTorchFunctionSubclass  # where it is entered, regions are tensors like any other

_ABOUT = frozenset(
    {torch.Tensor.dim, torch.Tensor.ndimension, torch.Tensor.is_floating_point, torch.is_floating_point}
    | {
        getattr(torch.Tensor, name).__get__
        for name in ("dtype", "device", "layout", "ndim", "requires_grad", "is_leaf")
    }
    | {getattr(torch.Tensor, name).__get__ for name in ("is_sparse", "is_quantized", "is_cuda", "is_cpu", "is_meta")}
)


def handles(*functions: Any) -> Callable[[Handler], Handler]:
    """Register what is called instead of `functions` of torch on regions; it may give NotImplemented: then maps are gathered."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


class Rows(torch.Tensor):
    """This worker's region of a feature map that is `height` rows high. It says of its shape what is true of the whole."""

    height: int
    regions: Regions

    @classmethod
    def of(cls, tensor: torch.Tensor, height: int, regions: Regions) -> Rows:
        """A region as `Rows`."""
        found = tensor.as_subclass(cls)
        found.height, found.regions = height, regions
        return found

    @property
    def own(self) -> torch.Tensor:
        """The region as a plain tensor."""
        with Plain():
            return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ABOUT:
            with Plain():
                return func(*args, **kwargs)
        if func in HANDLERS:
            found = HANDLERS[func](*args, **kwargs)
        elif func in ELEMENT_WISE:
            found = ELEMENT_WISE[func](args, kwargs)
        else:
            found = NotImplemented
        return _on_whole_maps(func, args, kwargs) if found is NotImplemented else found


def _on_whole_maps(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args and isinstance(args[0], Rows) and changes_in_place(func):
        raise UnsupportedError(
            f"SpatialParallel cannot run {func.__name__} on rows of a feature map: it changes them in place. Use an operation "
            "that makes a new tensor."
        )
    with Plain():
        return func(*tree_map(gathered, args), **tree_map(gathered, kwargs))


def gathered(value: Any) -> Any:
    """The whole of a feature map that lies in regions; any other value as it is."""
    if not isinstance(value, Rows):
        return value
    with Plain():
        return value.regions.gather(value.own, value.height)


def changes_in_place(func: Any) -> bool:
    """Whether a function of torch changes its first argument, by its name."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__int__", "__index__"))
    return name.endswith("_")


class ByRows(TorchFunctionMode):
    """Where it is entered, convolutions cut whole pictures into regions."""

    def __init__(self, regions: Regions) -> None:
        super().__init__()
        self.regions = regions

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and args and not isinstance(args[0], Rows) and args[0].ndim == 4:
            found = HANDLERS[func](*args, **kwargs, regions=self.regions)
            if found is not NotImplemented:
                return found
        return func(*args, **kwargs)


@handles(torch.Tensor.shape.__get__)  # type: ignore[attr-defined]
def _shape(tensor: Rows) -> torch.Size:
    own = tensor.own.shape
    return torch.Size((*own[:2], tensor.height, *own[3:]))


@handles(torch.Tensor.size)
def _size(tensor: Rows, dim: int | None = None) -> Any:
    return _shape(tensor) if dim is None else _shape(tensor)[dim]
