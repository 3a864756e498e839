"""The module that an ensemble is: its members, and how their answers become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn

from braidwater.errors import OptionError

Combine = Literal["mean", "vote", "learned", "stacking"]
COMBINATIONS = ("mean", "vote", "learned", "stacking")

_TIE = 1e-3  # of a vote: as much as the mean probability may add, which decides between equal counts


class EnsembleModule(nn.Module):
    """Several modules for the same rows and the same label, whose answers are combined.

    For classes members give the logarithms of odds ``(rows, classes)``, and so does the ensemble: the logarithm of

    - ``"mean"``: the mean of the members' probabilities;
    - ``"vote"``: the share of members that choose a class (classes only; the mean probability decides between equals);
    - ``"learned"``: a weighted mean of the probabilities, the weights (softmax of a parameter each) being trained;
    - ``"stacking"``: a linear layer over the logarithms of the members' probabilities (Wolpert 1992), which is trained.

    For a number ``(rows, 1)`` or ``(rows,)`` the same is done with the numbers themselves. Both trained forms start as the mean.
    `outputs` is the number of classes (1 for a number); only stacking needs it.

    >>> modules = [nn.Linear(2, 3), nn.Linear(2, 3)]
    >>> EnsembleModule(modules)(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(self, members: Sequence[nn.Module], combine: Combine = "mean", *, outputs: int | None = None) -> None:
        super().__init__()
        if not members:
            raise OptionError("members", list(members), "at least one module")
        if combine not in COMBINATIONS:
            raise OptionError("combine", combine, f"one of {', '.join(COMBINATIONS)}")
        self.members = nn.ModuleList(members)
        self.combine = combine
        self._frozen = False
        if combine == "learned":
            self.shares = nn.Parameter(torch.zeros(len(members)))
        elif combine == "stacking":
            if outputs is None:
                raise OptionError("outputs", outputs, "the number of classes (1 for a number), which stacking needs")
            self.stack = nn.Linear(len(members) * outputs, outputs)
            with torch.no_grad():
                self.stack.weight.copy_(torch.eye(outputs).repeat(1, len(members)) / len(members))
                self.stack.bias.zero_()

    @property
    def learns_to_combine(self) -> bool:
        """Whether there is something to train once the members are."""
        return self.combine in ("learned", "stacking")

    def freeze_members(self) -> Self:
        """From now on only the combination is trained; members answer as in evaluation."""
        self.members.requires_grad_(False)
        self._frozen = True
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._frozen:
            self.members.eval()
        return self

    def forward(self, features: Tensor) -> Tensor:
        answers = torch.stack([member(features) for member in self.members])
        return self._numbers(answers) if answers[0].numel() == len(features) else self._classes(answers)

    def _classes(self, answers: Tensor) -> Tensor:
        """Of log-odds ``(members, rows, classes)``."""
        logs = answers.log_softmax(2)
        if self.combine == "vote":
            votes = nn.functional.one_hot(logs.argmax(2), logs.shape[2]).to(logs.dtype).mean(0)
            return ((votes + _TIE * logs.exp().mean(0)) / (1 + _TIE)).log()
        if self.combine == "learned":
            return (logs + self.shares.log_softmax(0)[:, None, None]).logsumexp(0)
        if self.combine == "stacking":
            stacked: Tensor = self.stack(logs.transpose(0, 1).flatten(1))
            return stacked.log_softmax(1)
        return logs.logsumexp(0) - torch.log(torch.tensor(float(len(logs)), dtype=logs.dtype))

    def _numbers(self, answers: Tensor) -> Tensor:
        if self.combine == "vote":
            raise OptionError("combine", "vote", "mean, learned or stacking where the label is a number")
        if self.combine == "learned":
            weighted: Tensor = torch.tensordot(self.shares.softmax(0), answers, 1)
            return weighted
        if self.combine == "stacking":
            stacked: Tensor = self.stack(answers.reshape(len(answers), -1).T)
            return stacked.view(answers.shape[1:])
        return answers.mean(0)
