"""What a model takes along to a worker that sees none of its files: its newest checkpoint, in memory."""

from __future__ import annotations

from braidwater.parallel.checkpoint import Checkpoint, Checkpoints, Progress, Written
from braidwater.parallel.member_state import MemberState


class Luggage(Checkpoint):
    """A checkpoint of one worker that lies in no folder. It pickles."""

    def __init__(self, state: MemberState, progress: Progress) -> None:
        self.state = state
        self.progress = progress

    @property
    def members(self) -> int:
        return 1

    def member(self, rank: int) -> MemberState:
        return self.state

    @staticmethod
    def packed(checkpoints: Checkpoints) -> Luggage | None:
        """The newest of `checkpoints`."""
        found = checkpoints.newest()
        return None if found is None else Luggage(found.member(0), found.progress)

    def unpack(self, checkpoints: Checkpoints) -> Written | None:
        """Have it on the disk."""
        checkpoints.write(0, 1, self.state, self.progress)
        return checkpoints.wait()


class Carried(Checkpoints):
    """The checkpoints of a training that goes on from what was `brought`, and keeps the newest in memory."""

    def __init__(self, brought: Luggage | None) -> None:
        super().__init__("", {})
        self.luggage = brought

    def newest(self) -> Luggage | None:
        return self.luggage

    def write(self, rank: int, size: int, state: MemberState, progress: Progress) -> None:
        self.luggage = Luggage(state.copied(), progress)

    def sweep(self) -> None:
        pass
