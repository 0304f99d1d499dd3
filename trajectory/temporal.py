"""Nets over frames beside torch's GRU and LSTM: dilated convolutions and a small transformer, both with carried state.

Each takes what `nn.GRU` takes and gives what it gives: forward(x, state) -> (hidden, state). One direction streams: a
clip in pieces, each with the state of the piece before, gives what the whole clip gives. Both directions see the future.

Shapes: N clips, T frames, E width of the input, H hidden width, A attention heads, S frames that are attended to.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Tensor | tuple[Tensor, ...] | None  # what a net carries from chunk to chunk; None: the clip begins

BLOCK = 256  # frames whose attention is computed at once: memory is linear in the clip's length


class TemporalConvolution(nn.Module):
    """Residual blocks h <- h + conv(norm(h)), the dilation doubling from block to block (van den Oord et al. 2016).

    One direction: frame t sees (kernel - 1) (2^layers - 1) frames of the past. Both: half of them on either side.
    """

    def __init__(
        self, dim: int, hidden: int, layers: int, kernel: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        self.reach = [(kernel - 1) * 2**i for i in range(layers)]  # frames a block sees besides its own
        self.inward = nn.Linear(dim, hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, dilation=2**i) for i in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NTE: Tensor, state: State = None) -> tuple[Tensor, State]:
        """State: of each block, the last `reach` frames that entered its convolution."""
        h_NTH, kept = self.inward(x_NTE), []
        for i, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            inside = norm(h_NTH)
            if self.bidirectional:
                inside = F.pad(inside, (0, 0, self.reach[i] // 2, self.reach[i] // 2))
            else:
                past = inside.new_zeros(len(inside), self.reach[i], inside.shape[2])
                inside = torch.cat([past if state is None else state[i], inside], dim=1)
                kept.append(inside[:, -self.reach[i] :])
            out_NTH = convolution(inside.transpose(1, 2)).transpose(1, 2)
            h_NTH = h_NTH + self.dropout(F.silu(out_NTH))
        return h_NTH, tuple(kept) or None


class Transformer(nn.Module):
    """Pre-norm blocks h <- h + attention(norm(h)); h <- h + mlp(norm(h)) (Vaswani et al. 2017).

    A frame attends to frames at most `context` - 1 away (None: the whole clip), the future ones only in both directions.
    Instead of positions, which streaming does not have, each head takes off a slope times the distance (ALiBi, Press et
    al. 2022), so that windows of training and whole clips are alike.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        layers: int,
        heads: int,
        context: int | None,
        bidirectional: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads, self.context, self.bidirectional, self.dropout = heads, context, bidirectional, dropout
        self.inward = nn.Linear(dim, hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(hidden),
                    "query": nn.Linear(hidden, hidden),
                    "key_value": nn.Linear(hidden, 2 * hidden),
                    "out": nn.Linear(hidden, hidden),
                    "mlp": nn.Sequential(
                        nn.LayerNorm(hidden),
                        nn.Linear(hidden, 2 * hidden),
                        nn.SiLU(),
                        nn.Dropout(dropout),
                        nn.Linear(2 * hidden, hidden),
                    ),
                }
            )
            for _ in range(layers)
        )
        self.slopes_A: Tensor
        self.register_buffer("slopes_A", 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads), persistent=False)

    def forward(self, x_NTE: Tensor, state: State = None) -> tuple[Tensor, State]:
        """State: of each block, the last frames that entered its attention, at most context - 1 of them."""
        h_NTH, kept = self.inward(x_NTE), []
        for i, block in enumerate(cast(list[nn.ModuleDict], list(self.blocks))):
            inside = block["norm"](h_NTH)
            past = inside[:, :0] if state is None else state[i]
            seen_NSH = torch.cat([past, inside], dim=1)
            if self.context is not None and not self.bidirectional:
                kept.append(seen_NSH[:, max(0, seen_NSH.shape[1] - self.context + 1) :])
            h_NTH = h_NTH + self._dropped(block["out"](self._attention(block, inside, seen_NSH)))
            h_NTH = h_NTH + self._dropped(block["mlp"](h_NTH))
        return h_NTH, tuple(kept) or None

    def _attention(self, block: nn.ModuleDict, inside_NTH: Tensor, seen_NSH: Tensor) -> Tensor:
        """Frame t of `inside` is frame t + S - T of `seen`."""
        q_NATd = self._split(block["query"](inside_NTH))
        k_NASd, v_NASd = (self._split(x) for x in block["key_value"](seen_NSH).chunk(2, dim=2))
        frames, before = seen_NSH.shape[1], seen_NSH.shape[1] - inside_NTH.shape[1]
        reach = frames if self.context is None else self.context - 1
        pieces = []
        for start in range(0, inside_NTH.shape[1], BLOCK):
            at = torch.arange(start, min(start + BLOCK, inside_NTH.shape[1]), device=seen_NSH.device) + before
            first = max(0, int(at[0]) - reach)
            last = min(frames, int(at[-1]) + 1 + (reach if self.bidirectional else 0))
            distance = at[:, None] - torch.arange(first, last, device=at.device)
            hidden = (distance.abs() > reach) | ((distance < 0) & (not self.bidirectional))
            bias = -self.slopes_A[:, None, None] * distance.abs()
            bias = bias.masked_fill(hidden, -torch.inf).to(q_NATd.dtype)
            q = q_NATd[:, :, start : start + BLOCK]
            k, v = k_NASd[:, :, first:last], v_NASd[:, :, first:last]
            pieces.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
        return torch.cat(pieces, dim=2).transpose(1, 2).flatten(2)

    def _split(self, x_NSH: Tensor) -> Tensor:
        return x_NSH.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
