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
from encoders.bases.viseme_targets import FITTED, axis_targets, change_mask, closing, iod_of, point_weights
from stylegan2.images import resize
from stylegan2.latent_pairs import draw_codes
from stylegan2.protocol import Generator, sample_w

# Largest factor by which `calibrated` lengthens an axis. Beyond it dlib no longer recognises the person; "wide"
# tolerates a factor of five.
LONGEST = {"open": 2.0, "wide": 5.2, "round": 2.0}


@dataclass
class BasisConfig:
    """How the viseme basis is fitted. The defaults are those of the embedded basis (docs/models/visemes.md)."""

    # First and last W+ row that move; earlier rows turn the head, later ones change colours.
    rows: tuple[int, int] = (3, 7)
    axes: tuple[str, ...] = AXES  # axes to fit; the others are copied from the embedded basis
    steps: int = 300  # gradient steps
    batch: int = 3  # people per step
    lr: float = 0.01  # Adam's initial learning rate; it falls to a tenth along a cosine
    psi: float = 0.7  # truncation psi of the sampled people
    people: int = 96  # sampled people; those with turned heads or open mouths are left out
    landmark_steps: int = 1500  # training steps of the landmark network; 0: the embedded one is used
    rest_weight: float = 6.0  # weight of the change outside the mouth
    # Weight of the squared length of the mouth's axes; the blink has no such penalty
    size_weight: float = 0.02
    seed: int = 0  # seed of people and amplitudes

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.people) < 1:
            raise ValueError("basis.steps, basis.batch and basis.people must be at least 1")
        if not self.axes or not set(self.axes) <= set(AXES):
            raise ValueError(f"basis.axes is {list(self.axes)}; it may hold {', '.join(AXES)}")


@torch.no_grad()
def choose_people(generator: Generator, landmarks: nn.Module, config: BasisConfig) -> Tensor:
    """Codes [n, L, D] of frontal people with nearly closed mouths, used as neutral faces."""
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
        may_combine = len(order) > 1 and FITTED.index("press") not in order[:2]
        if may_combine and torch.rand((), generator=random) < 0.4:
            a[i, order[1]] = 0.7 * torch.rand((), generator=random)
        if "blink" in axes and (not mouth or torch.rand((), generator=random) < 0.25):
            a[i, FITTED.index("blink")] = 0.5 + 0.5 * torch.rand((), generator=random)
    return a


def start_directions(basis_ALD: Tensor, config: BasisConfig) -> Tensor:
    """The moving rows of the FITTED axes, [A, rows, D]: zero for the mouth's axes in config.axes, else as in basis_ALD.

    The blink starts from the given basis, because at open eyes the landmarks have no gradient towards closed ones.
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

    Because of the penalties every axis stays below its target. The reach of an axis is <moved, T> / <T, T> over the
    mouth's points, measured by the landmark network on people who were not used in the fit. Press and blink, which have
    no fixed target, keep their length.
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
    """Yields codes [group, L, D] of one person at a time: neutral, then random articulations, blinks and turns of the
    head.

    They are the training data of the encoder's displacement term. Amplitudes go up to 1.15, beyond the 1 of the corpus.
    """
    for _ in range(people):
        neutral = draw_codes(generator, 1, rng, psi=(0.5, 0.9), mixing=0.3)
        low = np.array([-1.15 if axis in HEAD_AXES else 0.0 for axis in AXES])
        a = rng.uniform(low, 1.15, (group, len(AXES))) * (rng.random((group, len(AXES))) < 0.5)
        a[0] = 0
        amplitudes = torch.from_numpy(a.astype(np.float32)).to(neutral.device)
        yield neutral + torch.einsum("na,ald->nld", amplitudes, directions_ALD.to(neutral.device))
