"""Fits the viseme basis: axes of the mouth, and the blink, as W+ displacements of a few rows.

For people w and random amplitudes a_k, minimises over the directions D_k (the same for everybody)

    landmarks   |F(G(w + sum_k a_k D_k)) - (F(G(w)) + iod sum_k a_k T_k)|, points weighted
    rest        |G(w + sum_k a_k D_k) - G(w)| outside the mouth and jaw (and outside the eyes, for the blink)
    size        |D|^2

where F is the landmark network, T_k the target displacement of the 68 landmarks for axis k, in units of the
inter-ocular distance iod. Shapes: N people, A axes, L rows of W+ (of which only `rows` move), D = 512.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from encoders.bases.viseme_basis import AXES, HEAD_AXES, MOUTH_AXES
from stylegan2.images import resize
from stylegan2.latent_pairs import draw_codes
from stylegan2.protocol import Generator, sample_w

# Axes fitted through landmarks; the head's axes are found by encoders/bases/attribute_regression.py.
FITTED: tuple[str, ...] = (*MOUTH_AXES, "blink")
UPPER_OUTER, LOWER_OUTER = (50, 51, 52), (58, 57, 56)
UPPER_INNER, LOWER_INNER = (61, 62, 63), (67, 66, 65)
LEFT_CORNER, RIGHT_CORNER = (48, 60), (54, 64)
CHIN = (6, 7, 8, 9, 10)
UPPER_LIDS, LOWER_LIDS = (37, 38, 43, 44), (41, 40, 47, 46)
# How many times longer than fitted an axis may become (see `calibrated`). Beyond, dlib no longer recognises the person;
# "wide" tolerates five times.
LONGEST = {"open": 2.0, "wide": 5.2, "round": 2.0}


@dataclass
class BasisConfig:
    """How the viseme basis is fitted. The defaults are those of the embedded basis (docs/models/visemes.md)."""

    # First and last row of W+ that move: earlier rows turn the head, later ones change colours.
    rows: tuple[int, int] = (3, 7)
    # Axes that are fitted anew; the others stay those of the embedded basis.
    axes: tuple[str, ...] = AXES
    # Gradient steps.
    steps: int = 300
    # People in a step.
    batch: int = 3
    # Adam's learning rate at the start; it falls to a tenth along a cosine.
    lr: float = 0.01
    # Truncation with which people are sampled.
    psi: float = 0.7
    # People sampled; the turned and the open-mouthed ones are left out.
    people: int = 96
    # Training steps of the landmark network before the basis; 0 takes the embedded network.
    landmark_steps: int = 1500
    # Weight of the change outside the mouth.
    rest_weight: float = 6.0
    # Weight of the squared length of the mouth's axes; the blink needs a long one and has none.
    size_weight: float = 0.02
    # Of the people and amplitudes.
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.axes or not set(self.axes) <= set(AXES):
            raise ValueError(f"basis.axes is {list(self.axes)}; it may hold {', '.join(AXES)}")


def iod_of(points_N682: Tensor) -> Tensor:
    """Inter-ocular distance, [N, 68, 2] -> [N]."""
    return (points_N682[:, 42:48].mean(1) - points_N682[:, 36:42].mean(1)).norm(dim=1)


def axis_targets() -> Tensor:
    """Displacement of the 68 points at full amplitude, [A, 68, 2], in inter-ocular distances (x right, y down).

    open: the jaw drops and the corners move in a little; wide: the corners move apart; round: they come together and
    the lips part slightly; press and blink: zero here, because they depend on the face (see `closing`).
    """
    target = {axis: torch.zeros(68, 2) for axis in FITTED}

    def move(axis: str, points: tuple[int, ...], x: float, y: float) -> None:
        target[axis][list(points)] = torch.tensor([x, y])

    move("open", LOWER_INNER, 0, 0.30)
    move("open", LOWER_OUTER, 0, 0.30)
    move("open", (59, 55), 0, 0.22)
    move("open", CHIN, 0, 0.20)
    move("open", (5, 11), 0, 0.12)
    move("open", UPPER_INNER, 0, -0.03)
    move("open", UPPER_OUTER, 0, -0.03)
    move("open", LEFT_CORNER, 0.03, 0.06)
    move("open", RIGHT_CORNER, -0.03, 0.06)
    move("wide", LEFT_CORNER, -0.09, -0.03)
    move("wide", RIGHT_CORNER, 0.09, -0.03)
    move("wide", (49, 59), -0.05, 0)
    move("wide", (53, 55), 0.05, 0)
    move("round", LEFT_CORNER, 0.14, 0)
    move("round", RIGHT_CORNER, -0.14, 0)
    move("round", (49, 59), 0.08, 0)
    move("round", (53, 55), -0.08, 0)
    move("round", UPPER_INNER + UPPER_OUTER, 0, -0.03)
    move("round", LOWER_INNER + LOWER_OUTER, 0, 0.05)
    return torch.stack([target[axis] for axis in FITTED])


def closing(points_N682: Tensor, iod_N: Tensor) -> dict[str, Tensor]:
    """Displacements that bring two contours together, [N, 68, 2] in iod: the lips for "press", the lids for "blink"."""
    result = {}
    for axis, upper, lower, share in (
        ("press", UPPER_INNER, LOWER_INNER, 0.5),
        ("blink", UPPER_LIDS, LOWER_LIDS, 0.85),
    ):
        gap = (points_N682[:, list(lower)] - points_N682[:, list(upper)]) / iod_N[:, None, None]
        gap[..., 0] = 0
        move = torch.zeros_like(points_N682)
        move[:, list(upper)] += share * gap
        move[:, list(lower)] -= (1 - share) * gap
        if axis == "press":  # the lips also become thinner: the outer contour follows
            move[:, list(UPPER_OUTER), 1] += share * gap[..., 1] + 0.02
            move[:, list(LOWER_OUTER), 1] -= (1 - share) * gap[..., 1] + 0.02
        result[axis] = move
    return result


def point_weights() -> Tensor:
    """[A, 68]: the mouth (for the blink also the eyes) weighs most, the outline of the jaw, which may move, least."""
    weight = torch.ones(len(FITTED), 68)
    weight[:, 0:17] = 0.5
    weight[:, 48:68] = 3.0
    weight[FITTED.index("blink"), 36:48] = 4.0
    return weight


def change_mask(points_N682: Tensor, iod_N: Tensor, side: int, blink_N: Tensor) -> Tensor:
    """1 where the image must not change, [N, 1, side, side] in [0, 1]: outside mouth and jaw, and eyes if they blink."""
    grid = (torch.arange(side, device=points_N682.device) + 0.5) * (256 / side)
    y, x = grid[None, :, None], grid[None, None, :]

    def blob(centre_N2: Tensor, width: float, height: float) -> Tensor:
        cx, cy = centre_N2[:, 0, None, None], centre_N2[:, 1, None, None]
        unit = iod_N[:, None, None]
        return torch.sigmoid(8 * (1 - (((x - cx) / (width * unit)) ** 2 + ((y - cy) / (height * unit)) ** 2)))

    mouth = points_N682[:, 48:68].mean(1)
    mouth = mouth + torch.stack([torch.zeros_like(iod_N), 0.25 * iod_N], 1)
    moving = blob(mouth, 0.85, 0.75)
    for eye in (slice(36, 42), slice(42, 48)):
        moving = torch.maximum(moving, blink_N[:, None, None] * blob(points_N682[:, eye].mean(1), 0.35, 0.3))
    return (1 - moving)[:, None]


@torch.no_grad()
def choose_people(generator: Generator, landmarks: nn.Module, config: BasisConfig) -> Tensor:
    """Codes [n, L, D] of frontal people with nearly closed mouths, which stand for the neutral face of a speaker."""
    w = sample_w(generator, config.people, config.seed, config.psi)
    points = torch.cat([landmarks(generator.synthesis(chunk)) for chunk in w.split(8)])
    iod = iod_of(points)
    gap = (points[:, 66] - points[:, 62]).norm(dim=1) / iod
    nose = points[:, 30, 0] - 0.5 * (points[:, 36:42].mean(1) + points[:, 42:48].mean(1))[:, 0]
    return w[(gap < gap.quantile(0.6)) & (nose.abs() / iod < 0.25)]


def random_amplitudes(n: int, axes: tuple[str, ...], random: torch.Generator) -> Tensor:
    """[n, A]: for each of n people one of the mouth's `axes`, in 40 % a second one, and in 25 % a blink."""
    a = torch.zeros(n, len(FITTED))
    mouth = [FITTED.index(axis) for axis in MOUTH_AXES if axis in axes]
    for i in range(n):
        order = [mouth[k] for k in torch.randperm(len(mouth), generator=random).tolist()]
        if order:
            a[i, order[0]] = 0.3 + 0.7 * torch.rand((), generator=random)
        both = len(order) > 1 and FITTED.index("press") not in order[:2]
        if both and torch.rand((), generator=random) < 0.4:
            a[i, order[1]] = 0.7 * torch.rand((), generator=random)
        if "blink" in axes and (not mouth or torch.rand((), generator=random) < 0.25):
            a[i, FITTED.index("blink")] = 0.5 + 0.5 * torch.rand((), generator=random)
    return a


def start_directions(basis_ALD: Tensor, config: BasisConfig) -> Tensor:
    """The moving rows of the FITTED axes, [A, rows, D]: zero for the mouth's axes in config.axes, else as in basis_ALD.

    The blink starts from the given basis, because the landmarks of open eyes give no gradient towards shut ones.
    """
    first, last = config.rows
    moving = basis_ALD[: len(FITTED), first : last + 1].clone()
    for axis in MOUTH_AXES:
        if axis in config.axes:
            moving[FITTED.index(axis)] = 0
    return moving


def in_all_rows(moving: Tensor, generator: Generator, config: BasisConfig) -> Tensor:
    """[N, rows, D] -> [N, L, D] with zeros in the other rows."""
    first, last = config.rows
    before = moving.new_zeros(len(moving), first, generator.w_dim)
    after = moving.new_zeros(len(moving), generator.num_rows - 1 - last, generator.w_dim)
    return torch.cat([before, moving, after], dim=1)


def fit_basis(
    generator: Generator, landmarks: nn.Module, moving: Tensor, config: BasisConfig
) -> Iterator[dict[str, float]]:
    """Fits `moving` [A, rows, D] (see `start_directions`) in place; yields each step's losses."""
    random = torch.Generator().manual_seed(config.seed)
    people = choose_people(generator, landmarks, config)
    moving.requires_grad_(True)
    optimiser = torch.optim.Adam([moving], lr=config.lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps, eta_min=0.1 * config.lr)
    fixed, weights = axis_targets().to(people.device), point_weights().to(people.device)
    press, blink = FITTED.index("press"), FITTED.index("blink")
    mouth = [FITTED.index(axis) for axis in MOUTH_AXES if axis in config.axes]
    for _ in range(config.steps):
        # Draw people and amplitudes, and move the landmarks of their neutral faces to the targets.
        w = people[torch.randint(len(people), (config.batch,), generator=random)]
        a = random_amplitudes(config.batch, config.axes, random).to(people.device)
        with torch.no_grad():
            neutral = generator.synthesis(w)
            points = landmarks(neutral)
            iod = iod_of(points)
            meet = closing(points, iod)
            shift = torch.einsum("na,apc->npc", a, fixed)
            shift = shift + a[:, press, None, None] * meet["press"] + a[:, blink, None, None] * meet["blink"]
            target = points + iod[:, None, None] * shift
            weight = torch.einsum("na,ap->np", a, weights) / a.sum(1, keepdim=True)
            stays = change_mask(points, iod, 128, a[:, blink])
        # Render with the current directions and take a gradient step.
        shifts = in_all_rows(torch.einsum("na,ald->nld", a, moving), generator, config)
        image = generator.synthesis(w + shifts)
        miss = (landmarks(image) - target).norm(dim=2) / iod[:, None]
        terms = {
            "landmarks": 10 * (weight * miss).mean(),
            "rest": config.rest_weight * (stays * (resize(image, 128) - resize(neutral, 128))).abs().mean(),
            "size": config.size_weight * moving[mouth].square().sum((1, 2)).sum() / len(FITTED),
        }
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        schedule.step()
        yield {key: value.item() for key, value in terms.items()}
    moving.requires_grad_(False)


@torch.no_grad()
def calibrated(
    generator: Generator, landmarks: nn.Module, directions_ALD: Tensor, config: BasisConfig
) -> Tensor:
    """Directions scaled so that weight 1 reaches the target on average, at most by the factor LONGEST.

    The penalties keep every axis short of its target. The reach of an axis is <moved, T> / <T, T> over the mouth's
    points, measured by the landmark network on people who were not used in the fit. Press and blink, which have no
    fixed target, keep their length.
    """
    people = choose_people(generator, landmarks, replace(config, people=48, seed=config.seed + 1))[:16]
    neutral = landmarks(generator.synthesis(people))
    iod = iod_of(neutral)
    factors = torch.ones(len(FITTED), device=people.device)
    for k, target in enumerate(axis_targets()[:, 48:68].to(people.device)):
        if target.any() and FITTED[k] in config.axes:
            moved = (landmarks(generator.synthesis(people + directions_ALD[k])) - neutral)[:, 48:68]
            reach = ((moved / iod[:, None, None]).mean(0) * target).sum() / target.square().sum()
            factors[k] = (1 / reach.clamp(min=0.01)).clamp(1, LONGEST[FITTED[k]])
    return directions_ALD * factors[:, None, None]


def draw_expressions(
    generator: Generator, directions_ALD: Tensor, people: int, group: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Codes [group, L, D] of one person at a time: neutral, then random articulations, blinks and turns of the head.

    They are the training data of the encoder's displacement term. Amplitudes go up to 1.15, beyond the 1 of the corpus.
    """
    for _ in range(people):
        neutral = draw_codes(generator, 1, rng, psi=(0.5, 0.9), mixing=0.3)
        low = np.array([-1.15 if axis in HEAD_AXES else 0.0 for axis in AXES])
        a = rng.uniform(low, 1.15, (group, len(AXES))) * (rng.random((group, len(AXES))) < 0.5)
        a[0] = 0
        amplitudes = torch.from_numpy(a.astype(np.float32)).to(neutral.device)
        yield neutral + torch.einsum("na,ald->nld", amplitudes, directions_ALD.to(neutral.device))
