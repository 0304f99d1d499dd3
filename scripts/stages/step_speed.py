"""The speed of what is not synthesis alone: encoders, one step of pivotal tuning, one step of stage 1, a whole clip.

Shapes: N images, T frames, K x M feature windows, L rows of W+, D latent width, C coefficients.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from audio.features import extract_features
from audio.timing import FPS, RATE
from audio.waveform import Waveform
from configs.schema import BenchmarkConfig, Config
from encoders.features.perceptual import load_perceptual
from encoders.footage.prepare import align_photo
from encoders.footage.video_writer import write_video
from encoders.networks.e4e import FullEncoder, FullEncoderConfig
from scripts.core.networks import the_detector, the_encoder, the_generator, the_renderer, the_teacher
from scripts.core.runtime import Run, threads
from scripts.stages.benchmark_timing import medians, operations, peak, refusal, thread_counts
from scripts.stages.invert_frames import Inverter
from scripts.stages.synthesis_speed import Row, a_generator, computed_in, reference
from stylegan2.protocol import sample_w
from stylegan2.render import render
from trajectory.losses.rendered_losses import RenderedTerms
from trajectory.losses.stage1_losses import LossConfig, stage1_losses
from trajectory.model.displacement import DisplacementSpace, fit_space
from trajectory.model.predictor import TrajectoryPredictor, predict
from trajectory.model.recurrent_net import TrajectoryNet
from tuning.pivotal_losses import l2, perceptual_at

FACE = 3  # a seed whose face dlib finds


def encoder_rows(config: Config, run: Run) -> list[Row]:
    """Images a second of the config's encoder, and of the full e4e with 267 M random parameters."""
    encoders: dict[str, Any] = {config.encoder.weights: the_encoder(config, run)}
    if config.benchmark.full_encoder:
        torch.manual_seed(0)
        encoders["full e4e"] = FullEncoder(FullEncoderConfig()).to(run.device).eval().requires_grad_(False)
    rows = []
    for batch, count in product(config.benchmark.batches, thread_counts(config.benchmark)):
        images = torch.randn(batch, 3, 256, 256, device=run.device)
        rivals = {name: partial(encoder, images) for name, encoder in encoders.items()}
        with threads(count), torch.no_grad():
            work = {name: operations(encode) for name, encode in rivals.items()}
            seconds = medians(rivals, config.benchmark, run.device)
            best = peak("float32", config.benchmark, run.device)
        for name, spent in seconds.items():
            row = {"encoder": name, "batch": batch, "threads": count, "images_per_s": batch / spent}
            rows.append(row | {"share_of_peak": work[name] / spent / best})
    return rows


def tuning_rows(settings: BenchmarkConfig, size: int | None, device_name: str, allocator: str) -> list[Row]:
    """One step of tuning.pivotal on config F in this process, and the same step in float32 around the reference
    formulation. size: tuning.perceptual_size."""
    device, resolution = torch.device(device_name), settings.step_size
    target = torch.rand(1, 3, resolution, resolution, device=device) * 2 - 1
    perceptual = load_perceptual("alex").to(device)
    w_NLD = sample_w(a_generator(resolution, device), 1, seed=0)

    def stepping(precision: str | None) -> Callable[[], None]:
        """A step in this precision; None: the reference."""
        generator = a_generator(resolution, device).requires_grad_(True)
        optimiser = torch.optim.Adam(generator.synthesis.parameters(), lr=1e-6)

        def step() -> None:
            image = computed_in(generator, w_NLD, precision) if precision else reference()(generator, w_NLD)
            distance = perceptual_at(perceptual, image, target, size)
            optimiser.zero_grad(set_to_none=True)
            (l2(image, target).mean() + distance.mean()).backward()
            optimiser.step()

        return step

    refused = {p: reason for p in settings.precisions if (reason := refusal(p, device)) is not None}
    rivals = {p: stepping(p) for p in settings.precisions if p not in refused}
    rivals["reference"] = stepping(None)
    rows = []
    for count in thread_counts(settings):
        with threads(count):
            seconds = medians(rivals, settings, device)
        for p in settings.precisions:
            row: Row = {"resolution": resolution, "precision": p, "batch": 1, "threads": count}
            row |= {"seconds": seconds.get(p), "ratio_to_reference": None, "reason": refused.get(p)}
            if p in seconds:
                row["ratio_to_reference"] = seconds["reference"] / seconds[p]
            rows.append(row | {"allocator": allocator})
    return rows


def stage1_rows(config: Config, run: Run) -> list[Row]:
    """One step of trajectory.training.stage1_loop on random windows of the config's sizes, without and with the image term."""
    generator = the_generator(config, run)
    net, space = _untrained(config, generator)
    net, space = net.to(run.device).train(), space.to(run.device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-6)
    shape = (config.windows.batch, config.windows.length)
    values = torch.randn(*shape, config.audio.rows, config.audio.width, device=run.device)
    w_ref = sample_w(generator, config.windows.batch, seed=FACE, psi=0.5)
    d = torch.randn(*shape, generator.num_rows, generator.w_dim, device=run.device) * 0.1
    mask = torch.ones(shape, dtype=torch.bool, device=run.device)
    image = LossConfig(image_size=config.losses.image_size)
    rendered, rng = RenderedTerms(generator, image, the_teacher(config, run)), np.random.default_rng(0)

    def step(with_image: bool) -> None:
        coefficients, _ = net(values, space.identity(w_ref))
        terms = stage1_losses(coefficients, d, mask, space, config.losses)
        if with_image:
            terms |= rendered(coefficients, d, w_ref, mask, space, rng)
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()

    rows = []
    for count in thread_counts(config.benchmark):
        rivals = {name: partial(step, name == "image") for name in ("latent", "image")}
        with threads(count):
            seconds = medians(rivals, config.benchmark, run.device)
        for name, spent in seconds.items():
            rows.append({"image_term": name == "image", "threads": count, "seconds": spent})
    return rows


def end_to_end(config: Config, run: Run) -> Row:
    """A photo and speech to an mp4 with all threads: seconds once a face, seconds of the clip, and their sum's
    real-time factor (1: as long as the clip lasts). Stage 1 has random weights, which cost the same."""
    length = config.benchmark.clip_seconds
    random = np.random.default_rng(0)
    waveform = Waveform((random.standard_normal(round(length * RATE)) * 0.1).astype(np.float32))
    once, clip = replace(run, seconds={}), replace(run, seconds={})
    with once.timed("load"):
        generator, renderer = the_generator(config, run), the_renderer(config, run)
        inverter, detector = Inverter(config, run), the_detector(config.data, str(run.device))
        extract_features(waveform, config.audio, 1)  # librosa loads half of itself when it is first used
    photo = next(iter(render(generator, sample_w(generator, 1, FACE, 0.5))))
    with once.timed("face"):
        crop = align_photo(photo, detector, "the benchmark's face").crop[None]
    with once.timed("inversion"):
        w_ref_LD = inverter(crop, inverter.person_offset(crop))[0]
    model = TrajectoryPredictor(*_untrained(config, generator), config.audio).to(run.device).eval()
    frames = round(length * FPS)
    with clip.timed("features"):
        features = extract_features(waveform, config.audio, frames)
    with clip.timed("trajectory"):
        w_TLD = predict(model, features, w_ref_LD)
    with clip.timed("synthesis"):
        pictures = list(render(renderer, w_TLD))
    with clip.timed("video"), TemporaryDirectory() as folder:
        write_video(Path(folder) / "clip.mp4", pictures, waveform)
    spent = sum(clip.seconds.values())
    row = {"resolution": renderer.resolution, "threads": torch.get_num_threads(), "clip_seconds": length}
    row |= {"seconds_once_a_face": once.seconds, "seconds_of_the_clip": clip.seconds}
    return row | {
        "real_time_factor": spent / length,
        "real_time_factor_with_face": (spent + sum(once.seconds.values())) / length,
    }


def _untrained(config: Config, generator: Any) -> tuple[TrajectoryNet, DisplacementSpace]:
    """Stage 1 of the config's sizes, with random weights and projections: no two frames are alike."""
    random = np.random.default_rng(0)
    w_dim = generator.w_dim
    samples = random.standard_normal((2, 128, generator.num_rows, w_dim)).astype(np.float32)
    space = fit_space(samples[0] * 0.1, samples[1], config.displacement)
    window = (config.audio.rows, config.audio.width)
    torch.manual_seed(0)
    net = TrajectoryNet(config.trajectory, window, space.identity_dims, space.num_coefficients)
    last = net.decoder[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight)  # it starts at zero
    return net, space
