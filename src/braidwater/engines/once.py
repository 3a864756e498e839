"""Values that travel to a worker once: afterwards their names stand for them, in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import uuid4

Value = TypeVar("Value")


class Once(Generic[Value]):
    """A value that is large and used again: the state of an optimizer, a training with its module. Nobody changes it.

    It pickles like any other. Between an engine and a worker that lives on (inside `exchange`), it is sent whole the first
    time only; a worker's own are known by name when they come back to it. On its way through a worker that only hands it on
    (`passing_through`) it has no `value`.

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
        if exchange.names_only:
            return Once, (ELSEWHERE, self.key)
        if self.key in exchange.shared or self.value is ELSEWHERE:
            return _recalled, (self.key,)
        exchange.told[self.key] = self
        return _told, (self.value, self.key)


class Elsewhere:
    """The value of what is on its way through."""

    def __reduce__(self) -> str:
        return "ELSEWHERE"


ELSEWHERE: Any = Elsewhere()


@dataclass
class _Exchange:
    """What both ends have, and what one of them has sent or received since it began."""

    shared: Mapping[str, Once[Any]]
    told: dict[str, Once[Any]] = field(default_factory=dict)
    others: Mapping[str, Once[Any]] = field(default_factory=dict)  # what came from other workers
    names_only: bool = False


_exchange: ContextVar[_Exchange | None] = ContextVar("braidwater_exchange", default=None)


@contextmanager
def exchange(shared: MutableMapping[str, Once[Any]], others: Mapping[str, Once[Any]] | None = None) -> Iterator[None]:
    """Pickle and unpickle with somebody who has `shared` too, by name. What is sent or received whole is added to it, unless
    an error ends the ``with`` block: then the other end may not have got it. What that one only handed on is found in `others`.
    """
    found = _Exchange(shared, others=others or {})
    with _during(found):
        yield
    shared.update(found.told)


@contextmanager
def passing_through() -> Iterator[None]:
    """Pickle for a worker that hands on what it gets: values go by name, whether it has them or not."""
    with _during(_Exchange({}, names_only=True)):
        yield


@contextmanager
def _during(exchange: _Exchange) -> Iterator[None]:
    token = _exchange.set(exchange)
    try:
        yield
    finally:
        _exchange.reset(token)


def _told(value: Any, key: str) -> Once[Any]:
    one = Once(value, key)
    exchange = _exchange.get()
    if exchange is not None:
        exchange.told[key] = one
    return one


def _recalled(key: str) -> Once[Any]:
    exchange = _exchange.get()
    assert exchange is not None
    return exchange.told.get(key) or exchange.shared.get(key) or exchange.others[key]
