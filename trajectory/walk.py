"""Windows that walk through whole clips, so that a recurrent net goes on where the window before ended.

Truncated back-propagation through time (Williams and Peng 1990): the state is carried from window to window, the
gradient is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trajectory.data.augmentation import augment
from trajectory.data.windows import Batch, Place, TrajectoryClip, WindowSampler
from trajectory.temporal import State


class ClipWalk(WindowSampler):
    """Like `WindowSampler`, but window n of a batch goes on where window n of the batch before ended, clip after clip.

    lanes: of each of the world's windows, how many clips came before, and the next first frame. Which clip comes next, and
    the voice that augmentation gives it, are functions of (seed, lane, number of the clip) alone. Clips are drawn alike,
    whatever their length. A lane's first one begins anywhere, so that clips of one length do not all end together, and a
    rest of a single frame is left out. Lanes of another number of windows (a resumed run with other devices) begin anew.
    """

    lanes: list[tuple[int, int]] | None = None

    def __next__(self) -> Batch:
        total, lanes, anew = self.batch * self.world, self.lanes, False
        if lanes is None or len(lanes) != total:
            lanes, anew = [(0, self._first(n)) for n in range(total)], True
        self.step += 1
        places: list[Place] = [(self._clip(n, turn), start) for n, (turn, start) in enumerate(lanes)]
        batch = self._read(places, lambda rows: self._voices(rows, lanes))
        self.lanes = []
        for (turn, start), (clip, _) in zip(lanes, places, strict=True):
            following = start + self.length
            self.lanes.append((turn, following) if clip.num_frames - following > 1 else (turn + 1, 0))
        fresh = np.array([anew or start == 0 for _, start in lanes[self.mine]])
        return replace(batch, fresh=fresh)

    def _clip(self, lane: int, turn: int) -> TrajectoryClip:
        rng = np.random.default_rng([self.seed, 1, lane, turn])
        return self.clips[int(rng.integers(len(self.clips)))]

    def _first(self, lane: int) -> int:
        room = max(self._clip(lane, 0).num_frames - self.length, 0)
        return int(np.random.default_rng([self.seed, 2, lane]).integers(0, room + 1))

    def _voices(self, rows_NJM: np.ndarray, lanes: list[tuple[int, int]]) -> np.ndarray:
        """This process's windows: one voice for each clip, whatever window of it this is; noise and masks anew."""
        voice = replace(self.augmentation, noise=0, mask_ms=0, mask_bins=0)
        window = replace(self.augmentation, warp=0, gain=0, tilt=0)
        for n, (turn, start) in list(enumerate(lanes))[self.mine]:
            for seed, change in (((3, n, turn), voice), ((4, n, turn, start), window)):
                rng = np.random.default_rng([self.seed, *seed])
                rows_NJM[n : n + 1] = augment(rows_NJM[n : n + 1], change, self.features, rng)
        return rows_NJM

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"lanes": self.lanes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.lanes = None if state["lanes"] is None else [(turn, start) for turn, start in state["lanes"]]


def walks_on(carried: State, walk: ClipWalk) -> bool:
    """Whether a checkpoint's state is that of all the windows of a resumed walk: it holds one process's own."""
    part = carried[0] if isinstance(carried, tuple) else carried
    return walk.world == 1 and (part is None or part.shape[1] == walk.batch)


def handed_on(state: State) -> State:
    """The same numbers without their gradient: back-propagation ends where the window begins."""
    if isinstance(state, Tensor):
        return state.detach()
    return None if state is None else tuple(part.detach() for part in state)


def begun(state: State, fresh_N: np.ndarray | None, device: torch.device | str = "cpu") -> State:
    """A GRU's or LSTM's state (layers, N, H) on the device, zero where a clip begins; None where all of them begin."""
    if state is None or fresh_N is None or fresh_N.all():
        return None
    keep_N1 = torch.from_numpy(~fresh_N)[:, None].to(device)
    parts = state if isinstance(state, tuple) else (state,)
    kept = tuple(part.to(device) * keep_N1 for part in parts)
    return kept if isinstance(state, tuple) else kept[0]
