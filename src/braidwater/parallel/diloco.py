"""DiLoCo: many local steps of the trainer's optimiser, then one step of an outer optimiser along what all of them moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist

from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError
from braidwater.parallel.averaging import average_in_place
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.flat import cut, flatten, floating_buffers, spread, trained_parameters
from braidwater.parallel.group import GroupReplica
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs


@dataclass(frozen=True)
class DiLoCo(Strategy):
    """`every` local steps from common weights w, then an outer step with momentum against ``w - mean(w_i)``, weighted by rows.

    Douillard et al. 2023 ("DiLoCo: Distributed Low-Communication Training of Language Models", arXiv 2311.08105). The local
    steps are those of the trainer's optimiser (AdamW in the paper), whose state stays with its worker. The outer step is
    ``m = outer_momentum * m + d; w = w - outer_learning_rate * (d + outer_momentum * m)``. With rate 1 and momentum 0 that
    is `Averaging`. It is taken at an epoch's end too, so that the epoch's weights can be validated.

    With `fragments` above 1 the parameters are cut into that many runs of about the same size, one of which is exchanged every
    ``every / fragments`` steps in turn: the same bytes, no peaks. With `delay` above 0 an exchange runs beside the next
    `delay` steps and is applied after them. Then `mixing` of a worker's own weights is kept, 0 taking the common ones alone
    (Douillard et al. 2025, "Streaming DiLoCo with overlapping communication", arXiv 2501.18512, section 2; 0.5 there).

    A worker sends the bytes of the weights once every `every` steps: ``1 / every`` of all-reduce's. It holds them twice more,
    for the common weights and the outer momentum.
    """

    name: ClassVar[str] = "diloco"
    exact: ClassVar[bool] = False
    workers: int = 2
    every: int = 100
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    fragments: int = 1
    delay: int = 0
    mixing: float = 0.0

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if not isinstance(self.every, int) or self.every < 1:
            raise OptionError("every", self.every, "a number of steps from 1 on")
        if not self.outer_learning_rate > 0:
            raise OptionError("outer_learning_rate", self.outer_learning_rate, "above 0 (0.7 in the paper)")
        if not 0 <= self.outer_momentum < 1:
            raise OptionError("outer_momentum", self.outer_momentum, "from 0 to below 1 (0.9 in the paper)")
        if not 1 <= self.fragments <= self.every:
            raise OptionError("fragments", self.fragments, f"from 1 to every={self.every}")
        if not 0 <= self.delay < self.every:
            raise OptionError("delay", self.delay, f"a number of steps from 0 to below every={self.every}")
        if not 0 <= self.mixing < 1:
            raise OptionError("mixing", self.mixing, "from 0 to below 1 (0.5 in the paper)")

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        count = len(trained_parameters(training.module))
        if self.fragments > count:
            raise OptionError(
                "fragments", self.fragments, f"at most {count}, the number of parameters that are trained"
            )
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            trained = run_epochs(training, stores, DiLoCoReplica(member, self), strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class DiLoCoReplica(GroupReplica):
    """A worker that steps on its own, and exchanges each fragment of the parameters every `every` steps."""

    replicated = False

    def __init__(self, member: Member, options: DiLoCo) -> None:
        super().__init__(member)
        self._options = options
        self._steps = 0

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        parameters = trained_parameters(module)
        parts = cut([parameter.numel() for parameter in parameters], self._options.fragments)
        self._fragments = [Fragment(parameters[part]) for part in parts]
        return module

    def stepped(self, learner: Learner, weight: float) -> None:
        self._steps += 1
        every, delay = self._options.every, self._options.delay
        for place, fragment in enumerate(self._fragments):
            fragment.weight += weight
            turn = self._steps - every * place // len(self._fragments)
            if turn > 0 and turn % every == 0:
                self.bytes_exchanged += fragment.send()
            if turn > every - 1 and turn % every == delay:
                self._receive(fragment, self._options.mixing if delay else 0.0)

    def settle(self, learner: Learner) -> None:
        for fragment in self._fragments:
            self._receive(fragment, self._options.mixing)
        weights = self.sum([fragment.weight for fragment in self._fragments])
        for fragment, weight in zip(self._fragments, weights, strict=True):
            if weight:
                self.bytes_exchanged += fragment.send()
                self._receive(fragment, 0.0)
            fragment.start_over()
        if buffers := floating_buffers(learner.module):
            average_in_place(buffers, 1 / self.size)

    def _receive(self, fragment: Fragment, mixing: float) -> None:
        with self.talking():
            fragment.receive(self._options.outer_learning_rate, self._options.outer_momentum, mixing)

    def state(self) -> dict[str, Any]:
        return {"steps": self._steps, "fragments": [fragment.state() for fragment in self._fragments]}

    def load_state(self, state: dict[str, Any], learner: Learner) -> None:
        self._steps = int(state["steps"])
        for fragment, found in zip(self._fragments, state["fragments"], strict=True):
            fragment.load_state(found)


class Fragment:
    """Some of the parameters: their common values, the outer momentum, and the message that is under way."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.weight = 0.0  # rows since the last exchange
        self._common = flatten(parameters)
        self._momentum = torch.zeros_like(self._common)
        self._message: torch.Tensor | None = None
        self._work: dist.Work | None = None

    def send(self) -> int:
        """Add what this worker moved, times its rows, to what the others moved. Returns before they have; the bytes sent."""
        moved = (self._common - flatten(self.parameters)) * self.weight
        self._message = torch.cat([moved, moved.new_tensor([self.weight])])
        self._work = dist.all_reduce(self._message, async_op=True)
        self.weight = 0.0
        return moved.nbytes

    def receive(self, rate: float, momentum: float, mixing: float) -> None:
        """Wait for the message under way, if there is one; take the outer step, and the common weights."""
        message = self._arrived()
        if message is None:
            return
        self._message = None
        if message[-1] > 0:
            moved = message[:-1] / message[-1]
            self._momentum.mul_(momentum).add_(moved)
            self._common.sub_(moved.add_(self._momentum, alpha=momentum), alpha=rate)
        spread(torch.lerp(self._common, flatten(self.parameters), mixing), self.parameters)

    def start_over(self) -> None:
        """Take the common weights, whatever was mixed."""
        spread(self._common, self.parameters)

    def _arrived(self) -> torch.Tensor | None:
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._message

    def state(self) -> dict[str, Any]:
        message = self._arrived()  # what has arrived is applied when it would have been
        return {"weight": self.weight, "common": self._common, "momentum": self._momentum, "message": message}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight, self._message = state["weight"], state["message"]
        self._common.copy_(state["common"])
        self._momentum.copy_(state["momentum"])
