"""Measures how fast this machine runs each part of the method and writes results/<name>/benchmark.json, or output=.

Parts (what= chooses one): synthesis of one frame, the encoders, one step of pivotal tuning, one step of stage 1, photo +
speech -> video from end to end, and frames of live sound. Each part prints one table. StyleGAN2 (config F, random weights) and its tuning
step are compared with the formulation in tests/reference_synthesis.py, computed in float32 in the same process.
Times are medians of torch.utils.benchmark, at batch size 1. As in every script, glibc's allocator keeps freed memory
(scripts.core.runtime.keep_freed_memory). Run it on an idle machine; benchmark.beside=N starts N busy processes beside.

Shapes: N images, T frames, K x M feature windows, L rows of W+, D latent width, C coefficients.
"""

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.benchmark import Timer

from audio.features import extract_features
from audio.timing import FPS, RATE
from audio.waveform import Waveform
from configs.schema import Config
from encoders.features.perceptual import load_perceptual
from encoders.footage.prepare import align_photo
from encoders.footage.video_writer import write_video
from encoders.networks.e4e import FullEncoder
from scripts.core.cpu import computes_bfloat16, cpu_field
from scripts.core.networks import (
    build_detector,
    build_encoder,
    build_generator,
    build_renderer,
    build_teacher,
)
from scripts.core.provenance import ROOT, provenance, write_json
from scripts.core.runtime import Run, shown
from scripts.stages.identity_frames import Portrait
from scripts.stages.invert_frames import Inverter
from scripts.stages.live_speed import live_speed
from stylegan2.networks.generator import StyleGAN2
from stylegan2.protocol import sample_w
from stylegan2.render import render
from trajectory.losses.rendered_losses import RenderedLoss
from trajectory.losses.stage1_losses import LossConfig, stage1_losses
from trajectory.model.displacement import fit_space
from trajectory.model.predictor import TrajectoryPredictor, predict
from trajectory.model.recurrent_net import TrajectoryNet
from tuning.pivotal_losses import l2, perceptual_at

REFERENCE = ROOT / "tests" / "reference_synthesis.py"
FACE_SEED = 3  # a generator sample in which dlib finds the face
Row = dict[str, Any]


def benchmark(config: Config, run: Run) -> Path:
    """The JSON file: the machine, the rows of each measured part, and the package versions."""
    output = Path(config.output) if config.output else run.results / "benchmark.json"
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else str(run.device)
    content: dict[str, Any] = {"cpu": cpu_field("model name"), "cores": os.cpu_count(), "device": device}
    content["beside"] = config.benchmark.beside
    with busy_processes(config.benchmark.beside):
        for part in (synthesis, encoder, tuning_step, stage1_step, end_to_end, streaming):
            if config.what in ("all", part.__name__):
                run.say(f"measuring {part.__name__}")
                content[part.__name__] = part(config, run)
                print_table(part.__name__, content[part.__name__])
    write_json(output, content | provenance())
    run.say(f"benchmark: {shown(output)}")
    return output


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """`count` processes that compute without a pause until the block ends."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@torch.inference_mode()
def synthesis(config: Config, run: Run) -> list[Row]:
    """Frames a second of config F at each size and of the config's generator; config F against the reference."""
    rows: list[Row] = []
    generators = {f"config F, {size} px": config_f(size, run) for size in config.benchmark.sizes}
    for name, generator in [*generators.items(), (config.generator.weights, build_generator(config, run))]:
        w_NLD = sample_w(generator, 1, seed=0)
        reference = partial(load_reference(), generator, w_NLD) if name in generators else None
        reference_seconds = measure(reference, config) if reference else {}
        for precision, dtype in precisions(run).items():
            generator.compute_in(dtype)
            snr = snr_db(reference(), generator.synthesis(w_NLD)) if reference else None
            for threads, seconds in measure(partial(generator.synthesis, w_NLD), config).items():
                ratio = reference_seconds[threads] / seconds if reference else None
                row = {"generator": name, "precision": precision, "threads": threads}
                rows.append(row | {"frames_per_s": 1 / seconds, "ratio_to_reference": ratio, "snr_db": snr})
    return rows


@torch.no_grad()
def encoder(config: Config, run: Run) -> list[Row]:
    """Images a second of the config's encoder, and of the full e4e with random weights."""
    full = FullEncoder(config.encoder_full).to(run.device).eval()
    image = torch.randn(1, 3, 256, 256, device=run.device)
    return [
        {"encoder": name, "threads": threads, "images_per_s": 1 / seconds}
        for name, network in ((config.encoder.weights, build_encoder(config, run)), ("full e4e", full))
        for threads, seconds in measure(partial(network, image), config).items()
    ]


def tuning_step(config: Config, run: Run) -> list[Row]:
    """Seconds of one step of tuning.pivotal on config F, against the same step around the reference."""
    size = config.benchmark.step_size
    target = torch.rand(1, 3, size, size, device=run.device) * 2 - 1
    perceptual = load_perceptual("alex").to(run.device)
    w_NLD = sample_w(config_f(size, run), 1, seed=0)

    def seconds_of_step(dtype: torch.dtype | None, reference: bool = False) -> dict[int, float]:
        generator = config_f(size, run).requires_grad_(True)
        generator.compute_in(dtype)
        synthesise = partial(load_reference(), generator) if reference else generator.synthesis
        optimiser = torch.optim.Adam(generator.synthesis.parameters(), lr=1e-6)

        def step() -> None:
            image = synthesise(w_NLD)
            distance = perceptual_at(perceptual, image, target, config.tuning.perceptual_size)
            optimiser.zero_grad(set_to_none=True)
            (l2(image, target).mean() + distance.mean()).backward()
            optimiser.step()

        return measure(step, config)

    reference = seconds_of_step(None, reference=True)
    return [
        {"precision": name, "threads": n, "seconds": seconds, "ratio_to_reference": reference[n] / seconds}
        for name, dtype in precisions(run).items()
        for n, seconds in seconds_of_step(dtype).items()
    ]


def stage1_step(config: Config, run: Run) -> list[Row]:
    """Seconds of one training step of stage 1 on random windows, without and with the rendered image term."""
    generator = build_generator(config, run)
    model = untrained_stage1(config, generator).to(run.device).train()
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=1e-6)
    shape = (config.windows.batch, config.windows.length)
    values = torch.randn(*shape, config.audio.rows, config.audio.width, device=run.device)
    w_ref = sample_w(generator, config.windows.batch, seed=FACE_SEED, psi=0.5)
    d = torch.randn(*shape, generator.num_rows, generator.w_dim, device=run.device) * 0.1
    mask = torch.ones(shape, dtype=torch.bool, device=run.device)
    image_loss = LossConfig(image_size=config.losses.image_size)
    rendered = RenderedLoss(generator, image_loss, build_teacher(config, run))

    def step(image_term: bool) -> None:
        coefficients, _ = model.coefficients(values, w_ref)
        terms = stage1_losses(coefficients, d, mask, model.space, config.losses)
        if image_term:
            terms["image"] = rendered(coefficients, d, w_ref, mask, model.space, np.random.default_rng(0))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()

    return [
        {"image_term": image_term, "threads": threads, "seconds": seconds}
        for image_term in (False, True)
        for threads, seconds in measure(partial(step, image_term), config).items()
    ]


def end_to_end(config: Config, run: Run) -> list[Row]:
    """Makes one mp4 from a photo and speech with torch's current number of threads; returns seconds of each part and
    real-time factors.

    Real-time factor: seconds of computation for one second of video, without and with the steps that are done once per
    face. Stage 1 has random weights; its computing time is that of a trained one.
    """
    length, timer = config.benchmark.clip_seconds, replace(run, seconds={})
    noise = np.random.default_rng(0).standard_normal(round(length * RATE)) * 0.1
    waveform = Waveform(noise.astype(np.float32))
    # Steps that are done once per face
    with timer.timed("load"):
        generator, renderer = build_generator(config, run), build_renderer(config, run)
        inverter, detector = Inverter(config, run), build_detector(config.data, str(run.device))
        extract_features(waveform, config.audio, 1)  # librosa imports most of its modules at its first use
    photo = next(iter(render(generator, sample_w(generator, 1, FACE_SEED, 0.5))))
    with timer.timed("face"):
        aligned = align_photo(photo, detector, "the benchmark's face")
        crop = aligned.crop[None]
    with timer.timed("inversion"):
        w_ref_LD = inverter(crop, inverter.fitted_offset(Portrait(crop, aligned.landmarks[None])))[0]
    once = sum(timer.seconds.values())
    # Steps that are done for every clip
    model = untrained_stage1(config, generator).to(run.device).eval()
    with timer.timed("features"):
        features = extract_features(waveform, config.audio, round(length * FPS))
    with timer.timed("trajectory"):
        w_TLD = predict(model, features, w_ref_LD)
    with timer.timed("synthesis"):
        frames = list(render(renderer, w_TLD))
    with timer.timed("video"), TemporaryDirectory() as folder:
        write_video(Path(folder) / "clip.mp4", frames, waveform)
    total = sum(timer.seconds.values())
    row = {"resolution": renderer.resolution, "threads": torch.get_num_threads(), "clip_seconds": length}
    row |= {f"{part}_seconds": seconds for part, seconds in timer.seconds.items()}
    row |= {"real_time_factor": (total - once) / length, "real_time_factor_with_face": total / length}
    return [row]


def streaming(config: Config, run: Run) -> list[Row]:
    """Frames from live sound with the shipped stage 1 and the config's generator (scripts/stages/live_speed.py)."""
    return live_speed(config, run, precisions(run))


def measure(step: Callable[[], Any], config: Config) -> dict[int, float]:
    """Number of threads -> median seconds of a call; the first call is not counted. 0 threads: all cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = sorted({count or cores for count in config.benchmark.threads})
    timers = {n: Timer("step()", globals={"step": step}, num_threads=n) for n in counts}
    shortest = config.benchmark.min_seconds
    return {n: timer.blocked_autorange(min_run_time=shortest).median for n, timer in timers.items()}


def precisions(run: Run) -> dict[str, torch.dtype | None]:
    """float32 and bfloat16, for compute_in. bfloat16 is left out on a CPU without such instructions, which would
    emulate them.
    """
    if run.device.type != "cpu" or computes_bfloat16():
        return {"float32": None, "bfloat16": torch.bfloat16}
    run.say("bfloat16 is not measured: this CPU has no instructions for it")
    return {"float32": None}


def load_reference() -> Callable[[StyleGAN2, Tensor], Tensor]:
    """The function of tests/reference_synthesis.py; FileNotFoundError in a copy of the project without tests/."""
    spec = importlib.util.spec_from_file_location("reference_synthesis", REFERENCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference_synthesis


def config_f(resolution: int, run: Run) -> StyleGAN2:
    """StyleGAN2's config F with random weights; its speed does not depend on them."""
    torch.manual_seed(0)
    return StyleGAN2(resolution).to(run.device).eval().requires_grad_(False)


def snr_db(signal: Tensor, approximation: Tensor) -> float | None:
    """10 log10(sum signal^2 / sum error^2); None if there is no error."""
    error = (approximation - signal).double().square().sum().item()
    return 10 * math.log10(signal.double().square().sum().item() / error) if error else None


def untrained_stage1(config: Config, generator: Any) -> TrajectoryPredictor:
    """Stage 1 with the config's sizes. Its last layer, which is initialised to zero, is made random, so that every
    frame differs.
    """
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((2, 128, generator.num_rows, generator.w_dim)).astype(np.float32)
    space = fit_space(samples[0] * 0.1, samples[1], config.displacement)
    torch.manual_seed(0)
    window = (config.audio.rows, config.audio.width)
    net = TrajectoryNet(config.trajectory, window, space.identity_dims, space.num_coefficients)
    torch.nn.init.normal_(net.decoder[-1].weight)  # type: ignore[arg-type]
    return TrajectoryPredictor(net, space, config.audio)


def print_table(title: str, rows: list[Row]) -> None:
    table = Table(*(name.replace("_", "\n") for name in rows[0]), title=title)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
