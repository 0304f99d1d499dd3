"""invert_frames, train_stage2 and generate, unchanged, with a StyleGAN2 and a full e4e of other sizes than the default's.

Weights are random, from a seed: what is tested is that every stage takes its sizes from the networks.
"""

import json
import resource
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audio.waveform import write_wav
from encoders.footage.video_reader import iter_frames, probe
from encoders.footage.video_writer import write_video
from encoders.networks.e4e import FullEncoder, FullEncoderConfig
from encoders.networks.e4e_compact import save_encoder
from scripts.core import runtime
from scripts.stages.identity_frames import Portrait
from scripts.stages.invert_frames import Inverter
from scripts.stages.standalone import generate_alone, invert_frames_alone, train_stage2_alone
from stylegan2.networks.generator import StyleGAN2
from stylegan2.render import render
from stylegan2.weights import WeightsError, save_weights


def networks(folder: Path, resolution: int, generator: dict, encoder: dict) -> list[str]:
    """Both weight files; returns the arguments that name them."""
    torch.manual_seed(0)
    generator_network = StyleGAN2(resolution, **generator)
    generator_network.mapping.estimate_w_avg(1000)
    save_weights(generator_network, folder / "generator.safetensors", "stylegan2", generator_network.config)
    network = FullEncoder(
        FullEncoderConfig(num_rows=generator_network.num_rows, **encoder), generator_network.w_avg
    )
    save_encoder(network, folder / "encoder.safetensors", {})
    return [f"{name}.weights={folder / f'{name}.safetensors'}" for name in ("generator", "encoder")]


FRAMES = 6  # number of frames of the clip, enough for the four components of stage 1


def run_stages(arguments: list[str], clips: Path, speech, folder: Path, resolution: int) -> None:
    """Inverts one clip, tunes on one photo for one step, and generates three frames."""
    rows = 2 * int(np.log2(resolution)) - 2
    frames = list(islice(iter_frames(next(clips.rglob("*.mp4"))), FRAMES))
    photo, wav, output = folder / "me.png", folder / "speech.wav", folder / "out.mp4"
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "me.mp4", frames, speech(FRAMES))
    Image.fromarray(frames[0]).save(photo)
    write_wav(wav, speech(3))
    common = [
        *arguments, "experiment=smoke", "data=folder", f"data.root={folder / 'clips'}", "workers=1",
        f"prepare.min_frames={FRAMES}", "data.seen=0.0", "data.validation=0.0", "data.unseen=0.0",
        "encoder.inversion.person.frames=1", "tuning.steps=1",
        "train.steps=2", "losses.image=0",  # stage 1 only has to exist
        f"results_dir={folder / 'results'}", f"data_dir={folder / 'data'}", "device=cpu",
    ]  # fmt: skip
    config = runtime.resolve(runtime.compose(common))
    latents = invert_frames_alone(config, runtime.start(config, quiet=True))
    clip = latents.codes(latents.entries()[0])
    assert clip.w.shape == (FRAMES, rows, 512) and np.isfinite(clip.w).all()

    raw = runtime.compose([*common, f"photo={photo}", f"wav={wav}", f"output={output}"])
    assert runtime.attempt(train_stage2_alone, raw) == 0
    assert runtime.attempt(generate_alone, raw) == 0
    assert len(list(iter_frames(output))) == 3
    info = probe(output)
    assert (info.width, info.height) == (resolution, resolution) and info.has_audio
    hashes = json.loads(output.with_name("out.mp4.json").read_text())["weights"]
    assert set(hashes) == {
        "generator",
        "renderer",
        "encoder",
        "trajectory",
        "tuned",
    }  # stage 2's file was found


def tiny(folder: Path) -> list[str]:
    generator = {"channels": {size: 8 for size in (4, 8, 16, 32, 64)}, "mapping_layers": 2}
    encoder = {"side": 64, "head_width": 16, "widths": (8, 8, 8, 16, 16), "depths": (1, 1, 2, 1)}
    return networks(folder, 64, generator, encoder)


def test_inversion_and_rendering_take_their_sizes_from_the_networks(tmp_path, monkeypatch) -> None:
    generator, encoder = tiny(tmp_path)
    config = runtime.resolve(runtime.compose([generator, encoder, "experiment=smoke"]))
    inverter = Inverter(config, runtime.start(config, quiet=True))
    frames = np.random.default_rng(0).integers(0, 255, (3, 256, 256, 3)).astype(np.uint8)
    points = np.random.default_rng(1).uniform(60, 200, (3, 68, 2)).astype(np.float32)
    both, third = Portrait(frames[:2], points[:2]), Portrait(frames[2:], points[2:])
    offset = inverter.fitted_offset(both)
    assert offset is not None and offset.shape == (10, 512) and offset.any()
    threads = torch.get_num_threads()
    portraits = {"a": both, "b": third}
    offsets = inverter.person_offsets(portraits, tmp_path / "offsets")
    assert torch.get_num_threads() == threads and list(offsets) == ["a", "b"]
    for found, wanted in ((offsets["a"], offset), (offsets["b"], inverter.fitted_offset(third))):
        assert found is not None and wanted is not None and torch.allclose(found, wanted, atol=5e-3)
    monkeypatch.setattr(inverter, "fitted_offset", None)  # kept offsets are read, not fitted again
    kept = inverter.person_offsets(portraits, tmp_path / "offsets")
    for name in portraits:
        again, first = kept[name], offsets[name]
        assert again is not None and first is not None and torch.equal(again, first)
    w = inverter(frames, offset)
    alone = inverter(frames[:1])
    assert w.shape == (3, 10, 512) and np.isfinite(w).all()
    np.testing.assert_allclose(w[:1], alone + offset.numpy(), atol=1e-4)
    assert [frame.shape for frame in render(inverter.generator, w)] == [(64, 64, 3)] * 3

    config = runtime.resolve(
        runtime.compose([encoder, "experiment=smoke"])
    )  # the default generator has 14 rows
    with pytest.raises(WeightsError, match="writes 10 rows"):
        Inverter(config, runtime.start(config, quiet=True))


@pytest.mark.slow
def test_64_px_and_ten_rows(clip_folder, speech, tmp_path) -> None:
    run_stages(tiny(tmp_path), clip_folder, speech, tmp_path, 64)


@pytest.mark.slow
def test_1024_px_and_eighteen_rows(clip_folder, speech, tmp_path, capsys) -> None:
    """StyleGAN2 config F at 1024 px and all 267 M parameters of e4e."""
    started, times = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    run_stages(networks(tmp_path, 1024, {}, {}), clip_folder, speech, tmp_path, 1024)
    seconds, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    processor = now.ru_utime + now.ru_stime - times.ru_utime - times.ru_stime
    with capsys.disabled():
        print(
            f"\n1024 px: {seconds:.0f} s ({processor:.0f} s of processor time), peak {now.ru_maxrss / 2**20:.1f} GiB"
        )
