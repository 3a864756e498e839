"""Values that travel to a worker once: afterwards their names stand for them, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

Value = TypeVar("Value")


class Once(Generic[Value]):
    """A value that is large and used again: the state of an optimizer, a training with its module. Nobody changes it.

    It pickles like any other. Between an engine and a worker that lives on (inside `exchange`), it is sent whole the first
    time only; a worker's own are known by name when they come back to it.

    >>> import pickle
    >>> pickle.loads(pickle.dumps(Once([1, 2]))).value
    [1, 2]
    """

    def __init__(self, value: Value, key: str | None = None) -> None:
        self.value = value
        self.key = key or uuid4().hex

    def __reduce__(self) -> tuple[Any, ...]:
        exchange = _exchange.get()
        if exchange is None:
            return Once, (self.value, self.key)
        if self.key in exchange.shared:
            return _recalled, (self.key,)
        exchange.told[self.key] = self
        return _told, (self.value, self.key)


@dataclass
class _Exchange:
    """What both ends have, and what one of them has sent or received since it began."""

    shared: MutableMapping[str, Once[Any]]
    told: dict[str, Once[Any]] = field(default_factory=dict)


_exchange: ContextVar[_Exchange | None] = ContextVar("braidwater_exchange", default=None)


@contextmanager
def exchange(shared: MutableMapping[str, Once[Any]]) -> Iterator[None]:
    """Pickle and unpickle with somebody who has `shared` too, by name. What is sent or received whole is added to it, unless
    an error ends the ``with`` block: then the other end may not have got it.
    """
    found = _Exchange(shared)
    token = _exchange.set(found)
    try:
        yield
    finally:
        _exchange.reset(token)
    shared.update(found.told)


def _told(value: Any, key: str) -> Once[Any]:
    one = Once(value, key)
    exchange = _exchange.get()
    if exchange is not None:
        exchange.told[key] = one
    return one


def _recalled(key: str) -> Once[Any]:
    exchange = _exchange.get()
    assert exchange is not None
    return exchange.told.get(key) or exchange.shared[key]
