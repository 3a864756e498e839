"""Applies rules as long as the estimated cost of the whole block falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from braidwater.dml.hops import Dag, Hop, reachable, to_text
from braidwater.dml.rewrites.base import Rule

PASSES = 8  # a pass applies every rule everywhere; blocks of the classic scripts are done after two or three
STEPS = 8  # rules applied one after the other at one place within a pass
LEAST_GAIN = 1e-8  # seconds: below a call of the cheapest kernel

Price = Callable[[Hop], float]


@dataclass(frozen=True)
class Choice:
    """A candidate that was weighed: its rule, both expressions, and how many seconds it saves (negative: costs)."""

    rule: str
    before: Hop
    after: Hop
    gain: float

    def __str__(self) -> str:
        return f"{self.rule}: {to_text(self.before)} -> {to_text(self.after)} ({-self.gain * 1e6:+.3g} us)"


@dataclass
class Weighed:
    """What became of the candidates."""

    applied: list[Choice] = field(default_factory=list)
    rejected: list[Choice] = field(default_factory=list)


def optimise(roots: Sequence[Hop], dag: Dag, rules: Sequence[Rule], price: Price) -> tuple[list[Hop], Weighed]:
    """Roots of equal values that cost less, and the candidates that were weighed.

    `price` gives the seconds of one operator, its inputs given. A candidate is applied if what becomes unused by it costs more
    than what it adds; operators that others use too do not become unused. Each pass must lower the cost of the block, so it
    ends. `price` is asked often for one hop and should remember.

    Cost: passes * operators * rules that match; about 10 us an operator.
    """
    by_operator: dict[str, list[Rule]] = {}
    for rule in rules:
        for op in rule.operators:
            by_operator.setdefault(op, []).append(rule)
    weighed = Weighed()
    current = list(roots)
    for _ in range(PASSES):
        improved, applied, rejected = _Pass(dag, by_operator, price).run(current)
        weighed.rejected = rejected  # those of the last pass: what still stands
        if not applied or total(improved, price) >= total(current, price):
            break
        weighed.applied += applied
        current = improved
    return current, weighed


def total(roots: Sequence[Hop], price: Price) -> float:
    """Seconds of a block: every distinct operator once."""
    return sum(map(price, reachable(roots)))


class _Pass:
    """One walk from the leaves to the roots."""

    def __init__(self, dag: Dag, rules: dict[str, list[Rule]], price: Price) -> None:
        self.dag = dag
        self.rules = rules
        self.price = price
        self.uses: Counter[Hop] = Counter()
        self.live: set[Hop] = set()
        self.applied: list[Choice] = []
        self.rejected: list[Choice] = []

    def run(self, roots: Sequence[Hop]) -> tuple[list[Hop], list[Choice], list[Choice]]:
        order = reachable(roots)
        self.live.update(order)
        self.uses.update(roots)
        for hop in order:
            self.uses.update(hop.inputs)
        made: dict[Hop, Hop] = {}
        for hop in order:
            moved = self.dag.with_inputs(hop, tuple(made[each] for each in hop.inputs))
            self._take_over(hop, moved)
            made[hop] = self._improved(moved)
        return [made[root] for root in roots], self.applied, self.rejected

    def _improved(self, hop: Hop) -> Hop:
        for _ in range(STEPS):
            best = self._best(hop)
            if best is None:
                break
            self.applied.append(best)
            self._adopt(hop, best.after)
            hop = best.after
        return hop

    def _best(self, hop: Hop) -> Choice | None:
        best: Choice | None = None
        freed: set[Hop] | None = None
        for rule in self.rules.get(hop.op, ()):
            for candidate in rule.candidates(hop, self.dag):
                if candidate is hop:
                    continue
                freed = self._freed(hop) if freed is None else freed
                choice = Choice(rule.name, hop, candidate, self._gain(candidate, freed))
                if choice.gain <= LEAST_GAIN:
                    self.rejected.append(choice)
                elif best is None or choice.gain > best.gain:
                    best = choice
        return best

    def _gain(self, candidate: Hop, freed: set[Hop]) -> float:
        """Seconds of what becomes unused, less those of what is needed instead."""
        needed: set[Hop] = set()
        waiting = [candidate]
        while waiting:
            hop = waiting.pop()
            if hop not in needed and (hop not in self.live or hop in freed):
                needed.add(hop)
                waiting.extend(hop.inputs)
        return sum(map(self.price, freed - needed)) - sum(map(self.price, needed - freed))

    def _freed(self, hop: Hop) -> set[Hop]:
        """What nobody uses any more without `hop`."""
        left: dict[Hop, int] = {}
        freed = {hop}
        waiting = [hop]
        while waiting:
            for each in waiting.pop().inputs:
                left[each] = left.get(each, self.uses[each]) - 1
                if left[each] <= 0 and each not in freed:
                    freed.add(each)
                    waiting.append(each)
        return freed

    def _adopt(self, old: Hop, new: Hop) -> None:
        waiting = [new]
        while waiting:
            hop = waiting.pop()
            if hop not in self.live:
                self.live.add(hop)
                self.uses.update(hop.inputs)
                waiting.extend(hop.inputs)
        self._take_over(old, new)

    def _take_over(self, old: Hop, new: Hop) -> None:
        """`new` is used where `old` was."""
        if new is old:
            return
        if new not in self.live:
            self.live.add(new)
            self.uses.update(new.inputs)
        self.uses[new] += self.uses.pop(old, 0)
        self._drop(old)

    def _drop(self, hop: Hop) -> None:
        self.live.discard(hop)
        for each in hop.inputs:
            self.uses[each] -= 1
            if self.uses[each] <= 0 and each in self.live:
                self._drop(each)
