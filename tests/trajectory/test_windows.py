"""Windows of the training split: cut exactly, drawn repeatably, and augmented."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from audio.features import FeatureConfig, extract_features
from audio.waveform import Waveform
from trajectory.data.augmentation import AugmentConfig, augment, warp_matrix
from trajectory.data.windows import (
    TrajectoryClip,
    WindowSampler,
    offsets_of,
    read_clip,
    read_window,
    split_of,
    store_features,
    stored_tempo,
)
from trajectory.model.displacement import TrajectoryError

FEATURES = FeatureConfig(n_mels=40, context_ms=200)
ROWS, DIM = 3, 8
STILL = AugmentConfig(warp=0, gain=0, tilt=0, noise=0)


def clips(folder, lengths=(10, 20, 6), config=FEATURES):
    """Clips whose latent at frame t of clip n is w_ref + n + t / 100 everywhere."""
    records = []
    for n, frames in enumerate(lengths):
        rng = np.random.default_rng(n)
        features = extract_features(
            Waveform(rng.standard_normal(frames * 640).astype(np.float32) * 0.1), config
        )
        paths = folder / f"w{n}.safetensors", folder / f"x{n}.safetensors"
        w_ref = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        offset = n + np.arange(frames)[:, None, None] / 100
        save_file({"w": (w_ref + offset).astype(np.float16), "w_ref": w_ref}, paths[0])
        store_features(features, config, paths[1])
        records.append(TrajectoryClip(f"clip{n}", f"s{n}", "train" if n < 2 else "val", frames, *paths))
    return records


@pytest.mark.parametrize(
    "config", [FEATURES, FeatureConfig(kind="mfcc", hop=320), FeatureConfig(context_ms=40)]
)
def test_stored_windows_are_the_extracted_ones(tmp_path, config):
    waveform = Waveform(np.random.default_rng(0).standard_normal(10 * 640).astype(np.float32) * 0.1)
    values = extract_features(waveform, config).values
    batch = read_clip(clips(tmp_path, (10,), config)[0], config)
    assert batch.values.shape[1:] == values.shape and batch.values.dtype == np.float32
    assert np.allclose(batch.values[0], values, rtol=1e-3, atol=1e-3)  # float16 on disk


def test_a_window_equals_that_part_of_the_whole_clip(tmp_path):
    clip = clips(tmp_path)[1]
    rows, w, w_ref = read_window(clip, FEATURES, 0, 20)
    part, w_part, _ = read_window(clip, FEATURES, 5, 8)
    step = FEATURES.rows_per_frame
    assert np.array_equal(part, rows[5 * step : 13 * step + FEATURES.rows - step])
    assert np.array_equal(w_part, w[5:13]) and np.allclose(
        w - w_ref, 1 + np.arange(20)[:, None, None] / 100, atol=0.01
    )


def test_batch_shapes_and_padding(tmp_path):
    train = split_of(clips(tmp_path), "train")
    batch = next(WindowSampler(train, FEATURES, STILL, batch=6, length=14))
    assert batch.values.shape == (6, 14, FEATURES.rows, 40) and batch.d.shape == (6, 14, ROWS, DIM)
    assert batch.w_ref.shape == (6, ROWS, DIM) and batch.mask.shape == (6, 14)
    lengths = set(batch.mask.sum(1).tolist())
    assert lengths <= {10, 14} and not batch.d[~batch.mask].any()
    assert {round(x) for x in batch.d[:, 0, 0, 0]} <= {0, 1}  # the validation clip is never drawn


def test_batches_depend_on_seed_and_step_alone(tmp_path):
    train = split_of(clips(tmp_path), "train")
    first = WindowSampler(train, FEATURES, AugmentConfig(), batch=3, length=8, seed=4)
    batches = [next(first) for _ in range(5)]
    second = WindowSampler(train, FEATURES, AugmentConfig(), batch=3, length=8)
    second.load_state_dict({"seed": 4, "step": 3})
    later = next(second)
    assert np.array_equal(later.values, batches[3].values) and np.array_equal(later.d, batches[3].d)
    assert second.state_dict() == {"seed": 4, "step": 4}


def test_processes_share_one_batch(tmp_path):
    """Each reads its part of the batch that one process would read whole, padding and augmentation included."""
    train = split_of(clips(tmp_path), "train")
    augmentation = AugmentConfig()
    single_process = next(WindowSampler(train, FEATURES, augmentation, batch=6, length=14, seed=4))
    for rank in range(3):
        part = next(WindowSampler(train, FEATURES, augmentation, 2, 14, seed=4, rank=rank, world=3))
        share = slice(2 * rank, 2 * rank + 2)
        assert part.places == single_process.places[share]
        for name in ("values", "d", "w_ref", "mask"):
            assert np.array_equal(getattr(part, name), getattr(single_process, name)[share]), name


def test_offsets_are_spread_over_all_clips(tmp_path):
    records = clips(tmp_path)
    assert offsets_of(records, 1000).shape == (36, ROWS, DIM)
    few = offsets_of(records, 6)
    assert len(few) == 6 and set(np.round(few[:, 0, 0]).astype(int)) == {0, 1, 2}


def test_a_damaged_latent_file_is_named(tmp_path):
    records = clips(tmp_path)
    records[1].latents.write_bytes(records[1].latents.read_bytes()[:200])
    with pytest.raises(TrajectoryError, match=f"cannot read clip {records[1].name}"):
        offsets_of(records, 100)


def test_broken_inputs_are_named(tmp_path):
    with pytest.raises(TrajectoryError, match="no clip"):
        WindowSampler([], FEATURES, STILL)
    clip = clips(tmp_path)[0]
    with pytest.raises(TrajectoryError, match="another audio config"):
        read_clip(clip, FeatureConfig(n_mels=64, context_ms=200))
    clip.features.write_bytes(b"cut short")
    with pytest.raises(TrajectoryError, match="clip0"):
        read_clip(clip, FEATURES)


def test_augmentation_can_be_off_and_does_not_change_its_input():
    rows, rng = (
        np.random.default_rng(0).standard_normal((2, 30, 40)).astype(np.float32),
        np.random.default_rng(1),
    )
    original = rows.copy()
    assert np.array_equal(augment(rows, STILL, FEATURES, rng), rows)
    changed = augment(rows, AugmentConfig(), FEATURES, rng)
    assert changed.shape == rows.shape and changed.dtype == np.float32 and not np.allclose(changed, rows)
    assert np.array_equal(rows, original)


def test_cepstra_are_never_warped_or_tilted():
    mfcc = FeatureConfig(kind="mfcc")
    rows = np.random.default_rng(0).standard_normal((2, 30, 12)).astype(np.float32)
    settings = AugmentConfig(warp=0.2, gain=0, tilt=0.5, noise=0)
    assert np.array_equal(augment(rows, settings, mfcc, np.random.default_rng(0)), rows)


def test_warping_moves_a_formant_by_its_factor():
    import librosa

    centres = librosa.mel_frequencies(FEATURES.n_mels + 2, fmin=FEATURES.fmin, fmax=FEATURES.fmax)[1:-1]
    row = np.exp(-(((centres - 1500) / 300) ** 2))
    for factor in (0.85, 1.0, 1.15):
        warped = row @ warp_matrix(FEATURES, factor)
        assert (warped * centres).sum() / warped.sum() == pytest.approx(1500 * factor, rel=0.05)
    assert np.allclose(warp_matrix(FEATURES, 1.0), np.eye(40), atol=1e-5)


def test_copy_of_another_tempo_reads_the_codes_of_its_moments(tmp_path):
    """A copy of 20 frames at tempo 1.25 lasts 16; its frame t shows the recording at (t + 1/2) 1.25 - 1/2."""
    source = clips(tmp_path)[1]
    sound = Waveform(np.random.default_rng(0).standard_normal(16 * 640).astype(np.float32) * 0.1)
    path = tmp_path / "copy.safetensors"
    store_features(extract_features(sound, FEATURES), FEATURES, path, 1.25)
    assert stored_tempo(path, FEATURES) == (1.25, 16)
    copy = TrajectoryClip("copy", "s1", "train", 16, source.latents, path, None, 1.25)
    _, w, w_ref = read_window(copy, FEATURES, 3, 8)
    moments = (np.arange(3, 11) + 0.5) * 1.25 - 0.5
    assert np.allclose((w - w_ref)[:, 0, 0], 1 + moments / 100, atol=2e-3)


def test_copy_longer_than_its_recording_is_refused(tmp_path):
    source = clips(tmp_path)[1]
    copy = TrajectoryClip("copy", "s1", "train", 20, source.latents, source.features, None, 1.25)
    with pytest.raises(TrajectoryError, match="made with another audio config"):
        read_window(copy, FEATURES, 0, 20)
