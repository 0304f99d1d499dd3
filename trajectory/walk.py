"""Windows that walk through whole clips, so that a recurrent net goes on where the window before ended.

Truncated back-propagation through time (Williams and Peng 1990): the state is carried from window to window, the
gradient is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajectory.augment import augment
from trajectory.dataset import Batch, Place, TrajectoryClip, WindowSampler
from trajectory.temporal import State


class ClipWalk(WindowSampler):
    """Like `WindowSampler`, but window n of a batch goes on where window n of the batch before ended, clip after clip.

    lanes: of each of the world's windows, how many clips came before, and the next first frame. Which clip comes next, and
    the voice that augmentation gives it, are functions of (seed, lane, number of the clip) alone. A rest of a single
    frame is left out.
    """

    lanes: list[tuple[int, int]] | None = None

    def __next__(self) -> Batch:
        lanes = self.lanes or [(0, 0)] * (self.batch * self.world)
        self.step += 1
        places: list[Place] = [(self._clip(n, turn), start) for n, (turn, start) in enumerate(lanes)]
        batch = self._read(places, lambda rows: self._voices(rows, lanes))
        self.lanes = []
        for (turn, start), (clip, _) in zip(lanes, places, strict=True):
            following = start + self.length
            self.lanes.append((turn, following) if clip.num_frames - following > 1 else (turn + 1, 0))
        fresh = np.array([start == 0 for _, start in lanes[self.mine]])
        return Batch(batch.values, batch.d, batch.w_ref, batch.mask, batch.places, fresh)

    def _clip(self, lane: int, turn: int) -> TrajectoryClip:
        rng = np.random.default_rng([self.seed, 1, lane, turn])
        return self.clips[int(rng.choice(len(self.clips), p=self.share))]

    def _voices(self, rows_NJM: np.ndarray, lanes: list[tuple[int, int]]) -> np.ndarray:
        """One voice and one room for each clip, whatever window of it this is."""
        voices = (np.random.default_rng([self.seed, 2, n, turn]) for n, (turn, _) in enumerate(lanes))
        varied = [
            augment(rows_NJM[n : n + 1], self.augmentation, self.features, rng)
            for n, rng in enumerate(voices)
        ]
        return np.concatenate(varied)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"lanes": self.lanes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.lanes = None if state["lanes"] is None else [(turn, start) for turn, start in state["lanes"]]


def handed_on(state: State) -> State:
    """The same numbers without their gradient: back-propagation ends where the window begins."""
    if isinstance(state, Tensor):
        return state.detach()
    return None if state is None else tuple(part.detach() for part in state)


def begun(state: State, fresh_N: np.ndarray | None) -> State:
    """A GRU's or LSTM's state (layers, N, H), zero where a clip begins; None without a state to go on from."""
    if state is None or fresh_N is None:
        return None
    keep_N1 = torch.from_numpy(~fresh_N)[:, None]
    parts = state if isinstance(state, tuple) else (state,)
    kept = tuple(part * keep_N1.to(part.device) for part in parts)
    return kept if isinstance(state, tuple) else kept[0]
