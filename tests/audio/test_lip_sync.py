"""Audio-visual synchrony: distances over offsets, our network, the public SyncNet, the result columns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.sync import syncnet
from audio.sync.lip_sync_net import (
    WINDOW,
    LipSyncNet,
    SyncConfig,
    contrastive_loss,
    embed_clip,
    mouth_windows,
    offset_distances,
    sound_windows,
    sync_figures,
)
from audio.sync.syncnet import SyncNet, mfcc_13
from audio.waveform import Waveform
from encoders.features.mouth_crop import EMBEDDED, load_sync, mouth_picture, save_sync
from metrics.measures import sync_distance as judging
from metrics.measures.sync_distance import OwnSync, PublicSync, clip_figures, load_judge, syncnet_picture
from metrics.report.report_files import report_table
from metrics.report.sync_sanity import sync_check, unsynced, unsynced_lines
from metrics.scoring.row_accumulator import ClipScore
from stylegan2.weights import WeightsError, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
RNG = np.random.default_rng(0)
TINY = SyncConfig(channels=(8, 8, 8, 16), dim=16, n_mels=20)


def embeddings(n: int = 80, dim: int = 16) -> np.ndarray:
    x = RNG.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("late", [-15, -5, 0, 1, 5, 15])
def test_the_signed_offset_is_found(late, padded):
    sequence = embeddings(120)
    sound, video = sequence[20:100], sequence[20 - late : 100 - late]  # video[t] = sound[t - late]
    figures = sync_figures(video, sound, padded=padded)
    assert figures.offset == late and figures.confidence > 0.5


def test_distances_against_a_loop_over_frames():
    video, sound = embeddings(40), embeddings(40)
    for padded in (False, True):
        distances = offset_distances(video, sound, 15, padded)
        assert list(distances) == list(range(-15, 16))
        for k, value in distances.items():
            pairs = []
            for t in range(40):  # frame t of the video, which at offset k belongs to the sound of t - k
                if 0 <= t - k < 40:
                    pairs.append(np.linalg.norm(video[t] - sound[t - k]))
                elif padded:
                    pairs.append(np.linalg.norm(video[t]))
            assert value == pytest.approx(np.mean(pairs), rel=1e-5)
        result = sync_figures(video, sound, padded=padded)
        values = np.array(list(distances.values()))
        assert result.distance == values.min()
        assert result.confidence == pytest.approx(np.median(values) - values.min())


def test_a_delay_changes_the_offset_but_neither_confidence_nor_distance():
    sequence = embeddings(120)
    now, late = (sync_figures(sequence[20 - k : 100 - k], sequence[20:100]) for k in (0, 5))
    assert late.distance == pytest.approx(now.distance, abs=1e-6)
    assert late.confidence == pytest.approx(now.confidence, rel=0.1)
    assert (now.offset, late.offset) == (0, 5)


def test_a_frozen_face_and_silence_have_no_offset_and_short_clips_fewer_offsets():
    assert sync_figures(np.ones((40, 4)), embeddings(40, 4)).offset is None
    assert sync_figures(embeddings(40, 4), np.ones((40, 4))).offset is None
    assert sync_figures(embeddings(40, 4), np.ones((40, 4))).confidence == 0
    short = embeddings(6)
    assert set(offset_distances(short, short)) == set(range(-3, 4)) and sync_figures(short, short).offset == 0
    with pytest.raises(ValueError, match="one shape"):
        offset_distances(embeddings(5), embeddings(6))


# ------------------------------------------------------------------------------------------------------ windows


def test_mouth_and_sound_windows_cover_the_same_time(speech):
    mouths = RNG.integers(0, 256, (12, 48, 48), dtype=np.uint8)
    windows = mouth_windows(mouths)
    assert windows.shape == (8, 5, 48, 48) and windows.dtype == np.float32
    plain = (mouths - mouths.mean(0)) / np.std(mouths - mouths.mean(0))
    np.testing.assert_allclose(windows[3], plain[3:8], atol=1e-4)
    loud = np.full(12 * 640, 1e-3, np.float32)
    loud[6 * 640 : 7 * 640] = speech(1).samples  # frame 6: in the middle of window 4
    level = sound_windows(Waveform(loud), 12, SyncConfig()).mean(axis=2)
    assert level.shape == (8, 20) and 8 <= level[4].argmax() < 12  # rows 8-11 are the window's middle frame
    assert (mouth_windows(np.full((9, 48, 48), 7, np.uint8)) == 0).all()
    with pytest.raises(ValueError, match="at least 5 frames"):
        mouth_windows(mouths[:4])


def test_the_mouth_picture_shows_the_mouth_region():
    crop = np.zeros((256, 256, 3), np.uint8)
    crop[190:192, 128:130] = 255
    picture = mouth_picture(crop)
    assert picture.shape == (48, 48) and np.flatnonzero(picture).tolist() == [23 * 48 + 24]
    assert picture.max() == 255
    with pytest.raises(ValueError, match="256"):
        mouth_picture(crop[:128])


# ------------------------------------------------------------------------------------------ loss and weight file


def test_the_loss_in_closed_form():
    same = torch.eye(4)[None]
    loss = contrastive_loss(same, same, torch.tensor(2.0))
    assert loss.item() == pytest.approx(-2 + np.log(np.exp(2) + 3))
    assert contrastive_loss(same, same.roll(1, 1), torch.tensor(2.0)) > loss
    # Windows of other clips are no negatives: their embeddings do not change the loss.
    two_clips = torch.cat([same, torch.ones(1, 4, 4)])
    apart = torch.cat([same, -torch.ones(1, 4, 4)])
    assert contrastive_loss(two_clips, two_clips, torch.tensor(2.0)) == contrastive_loss(
        apart, apart, torch.tensor(2.0)
    )


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="divisible by 8"):
        SyncConfig(channels=(8, 8, 8))


def test_weights_rebuild_their_network(tmp_path, speech):
    net = LipSyncNet(TINY).eval()
    save_sync(net, tmp_path / "sync.safetensors", {"clips": 3})
    again = load_sync(tmp_path / "sync.safetensors")
    mouths = RNG.integers(0, 256, (12, 48, 48), dtype=np.uint8)
    for a, b in zip(*(embed_clip(n, mouths, speech(12)) for n in (net, again)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)  # float16
    save_weights({"x": torch.zeros(1)}, tmp_path / "other.safetensors", "stylegan2", {})
    with pytest.raises(WeightsError, match="not a sync network"):
        load_sync(tmp_path / "other.safetensors")


def test_the_embedded_weights_are_small_and_load():
    assert EMBEDDED.stat().st_size < 1e6
    net = load_sync()
    assert sum(p.numel() for p in net.parameters()) < 500_000 and not net.training


# ----------------------------------------------------------------------------------------------- public SyncNet


def test_the_public_architecture_has_the_published_names_and_shapes():
    torch.manual_seed(0)
    net = SyncNet().eval()
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    convolutions = {
        "netcnnaud": {0: (64, 1, 3, 3), 4: (192, 64, 3, 3), 8: (384, 192, 3, 3), 11: (256, 384, 3, 3)}
        | {14: (256, 256, 3, 3), 18: (512, 256, 5, 4)},
        "netcnnlip": {0: (96, 3, 5, 7, 7), 4: (256, 96, 1, 5, 5), 8: (256, 256, 1, 3, 3)}
        | {11: (256, 256, 1, 3, 3), 14: (256, 256, 1, 3, 3), 18: (512, 256, 1, 6, 6)},
        "netfcaud": {0: (512, 512), 3: (1024, 512)},
        "netfclip": {0: (512, 512), 3: (1024, 512)},
    }
    for stack, layers in convolutions.items():
        weights = {
            k: v for k, v in shapes.items() if k.startswith(stack) and k.endswith("weight") and len(v) > 1
        }
        assert weights == {f"{stack}.{index}.weight": shape for index, shape in layers.items()}
    assert shapes["netcnnaud.19.running_mean"] == (512,) and shapes["netfclip.1.weight"] == (512,)
    with torch.inference_mode():
        assert net.lips(torch.rand(1, 3, 5, 224, 224)).shape == (1, 1024)
        assert net.sounds(torch.rand(2, 1, 13, 20)).shape == (2, 1024)


def test_mfcc_of_the_public_network_in_closed_form(speech):
    """One row by the formulas of python_speech_features: frame, pre-emphasis, power, energy, bands, DCT, lifter."""
    samples = speech(4).samples
    rows = mfcc_13(samples)
    assert rows.shape == (1 + int(np.ceil((2560 - 400) / 160)), 13)
    x = samples.astype(float) * 32768
    x = np.append(x[0], x[1:] - 0.97 * x[:-1])[3 * 160 : 3 * 160 + 400]
    power = np.abs(np.fft.rfft(x, 512)) ** 2 / 512
    assert rows[3, 0] == pytest.approx(np.log(power.sum()), rel=1e-5)
    bands = np.log(syncnet.triangular_filters(26) @ power)
    n = np.arange(26)
    c2 = np.sqrt(2 / 26) * (bands * np.cos(np.pi * 2 * (2 * n + 1) / 52)).sum()
    assert rows[3, 2] == pytest.approx(c2 * (1 + 11 * np.sin(np.pi * 2 / 22)), rel=1e-3)
    assert np.isfinite(mfcc_13(np.zeros(700, np.float32))).all()
    windows = syncnet.sound_windows(Waveform(samples), 6)  # two frames longer than the sound
    assert windows.shape == (2, 1, 13, 20)
    np.testing.assert_allclose(windows[1, 0, :, :4], mfcc_13(samples)[4:8].T, rtol=1e-4)


def test_picture_crop_of_the_public_network():
    crop = np.zeros((256, 256, 3), np.uint8)
    crop[:, :, 0] = 200  # red
    picture = syncnet_picture(crop)
    assert picture.shape == (224, 224, 3) and picture[100, 100].tolist() == [0, 0, 200]


class SmallPublic(SyncNet):
    """Replaces the large network in tests of windows only; its lip embedding is the mean of each frame."""

    def lips(self, frames_N35HW):
        return frames_N35HW.mean(dim=(1, 3, 4))

    def sounds(self, mfcc_N1CR):
        return mfcc_N1CR[:, 0, 0, :5]


def test_the_public_judge_gives_the_same_embeddings_for_any_batch_size():
    crops = [np.full((256, 256, 3), 10 * t, np.uint8) for t in range(13)]
    results = []
    for batch in (1, 4, 100):
        embedder = PublicSync(SmallPublic(), batch).video_embedder()
        for crop in crops:
            embedder.add(crop)
            assert len(embedder.waiting) <= batch + WINDOW - 1  # type: ignore[attr-defined]
        results.append(embedder.embeddings())
    for result in results:
        np.testing.assert_allclose(result, [[10 * (t + i) for i in range(5)] for t in range(9)], atol=0.1)


# ------------------------------------------------------------------------------------------------------ columns


def test_a_clip_of_75_frames_is_scored():
    """The public script drops face tracks of fewer than 100 frames, which is every clip of GRID."""
    sequence = embeddings(120)
    # 75 frames have 71 windows.
    late = clip_figures(PublicSync(SmallPublic()), sequence[17:88], sequence[20:91])
    assert late["lse_offset"] == 3 and None not in late.values()


def test_each_network_fills_columns_of_its_own_name(tmp_path, monkeypatch, speech):
    monkeypatch.setenv("TALKING_HEADS_WEIGHTS", str(tmp_path))
    judge, absent = load_judge()
    assert isinstance(judge, OwnSync) and "download_weights.py entry=syncnet" in absent["lse_c, lse_d"]
    assert set(clip_figures(judge, embeddings(), embeddings())) == set(judging.OURS)
    assert clip_figures(judge, embeddings(), None) == {}
    torch.save({"a": torch.zeros(1)}, tmp_path / "syncnet_v2.model")
    judge, absent = load_judge()
    assert isinstance(judge, OwnSync) and "is not the public SyncNet" in absent["lse_c, lse_d"]
    torch.manual_seed(0)
    state = {k: v for k, v in SyncNet().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "syncnet_v2.model")
    judge, absent = load_judge()
    assert isinstance(judge, PublicSync) and not absent
    assert set(clip_figures(judge, embeddings(), embeddings())) == set(judging.LSE)
    assert isinstance(load_judge("own")[0], OwnSync) and load_judge("none")[0] is None


def test_missing_weights_are_reported_for_their_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(judging, "EMBEDDED", Path(tmp_path / "none.safetensors"))
    judge, absent = load_judge()
    assert judge is None and len(absent) == 2
    row = {
        "name": "ours",
        "split": "all",
        "psnr": 30.0,
        "identical_frames": 0.4,
        "n_frames": 9,
        "n_clips": 3,
        "n_psnr": 2,
    }
    text = report_table([row], absent).markdown()
    assert (
        "No lse_c, lse_d: no SyncNet weights" in text
        and "No sync_confidence, sync_distance: no weights" in text
    )
    assert "1 of 3 clips are identical to the truth" in text
    with pytest.raises(WeightsError, match="no weight file"):
        load_judge(own_weights=str(tmp_path / "mine.safetensors"))


def score(row: str, offset: float | None, confidence: float = 0.6, clip: str = "a") -> ClipScore:
    figures = {"sync_offset": offset, "sync_confidence": confidence, "sync_distance": 0.8}
    return ClipScore(row, "all", clip, 9, figures, np.zeros(1), np.zeros(1))


def test_a_sync_measure_that_does_not_react_to_the_shift_is_broken():
    def verdict(late: float, confidence: float = 0.6, measure: str = "sync_offset") -> str:
        scores = [score("ours", 0.0, confidence), score("shift_5", late, confidence)]
        (check,) = sync_check(scores, "ours", measures=[measure])
        return check["verdict"]

    assert verdict(5) == "moves" and verdict(0) == verdict(-5) == "broken"
    assert verdict(5, confidence=0.1) == "no signal"
    # The usual figures, LSE-C and LSE-D without the offset, do not change under the delay.
    assert verdict(5, measure="sync_confidence") == verdict(5, measure="sync_distance") == "broken"
    assert sync_check([score("ours", 0.0), score("shift_5", 5.0)], "ours", measures=["lse_offset"]) == []
    for late, expected in ((-1.0, "broken"), (4.0, "moves")):  # the undelayed lips are one frame early
        pair = [
            replace(score(row, None), figures={"lse_c": 5.0, "lse_offset": offset})
            for row, offset in (("ours", -1.0), ("shift_5", late))
        ]
        assert sync_check(pair, "ours", measures=["lse_offset"])[0]["verdict"] == expected


def test_clips_out_of_sync_are_listed():
    scores = [score("ours", 0.0), score("ours", 5.0, clip="b"), score("ours", 1.0, 0.1, clip="c")]
    records = unsynced([*scores, score("static", None, 0.0)], ["ours"])
    assert [record["clip"] for record in records] == ["b", "c"]
    assert "5 frames late" in records[0]["reason"] and "unrelated" in records[1]["reason"]
    (line,) = unsynced_lines(records, scores)
    assert "2 of 3 clips" in line
    (still,) = unsynced([score("ours", None, 0.0)], ["ours"])
    assert "never move" in still["reason"]


def test_a_clip_of_much_lower_confidence_than_the_others_is_listed():
    """Confidences of five real clips: all are below the limit, but only that of clip e is below half of the median."""
    real = {"a": 0.060, "b": 0.063, "c": 0.047, "d": 0.067, "e": 0.020}
    reasons = {
        r["clip"]: r["reason"] for r in unsynced([score("x", 0.0, v, k) for k, v in real.items()], ["x"])
    }
    assert [clip for clip, reason in reasons.items() if "half of the median 0.06 of 5 clips" in reason] == [
        "e"
    ]
    assert all("unlike those" in reasons[clip] for clip in "abcd")
    # no limit is known for lse_c
    figures = [{"lse_c": c, "lse_offset": o} for c, o in ((6.0, 0.0), (5.0, 4.0), (7.0, 1.0), (1.0, 0.0))]
    public = [
        ClipScore("x", "all", str(i), 9, dict(f), np.zeros(1), np.zeros(1)) for i, f in enumerate(figures)
    ]
    public_reasons = {r["clip"]: r["reason"] for r in unsynced(public, ["x"])}
    assert (
        set(public_reasons) == {"1", "3"}
        and "no limit is known" in public_reasons["1"]
        and "unrelated" in public_reasons["3"]
    )
    assert [r["clip"] for r in unsynced(public[1:], ["x"])] == ["1"]  # three clips are too few for a median


def test_offsets_are_compared_by_the_median():
    """The offset of one unrelated mouth jumps to the other end of the lags under the shift, so the mean hardly
    changes.
    """
    offsets = ((0.0, 5.0), (4.0, 9.0), (-1.0, -13.0), (0.0, 5.0))
    scores = [
        score(row, pair[late], 0.5, str(i))
        for i, pair in enumerate(offsets)
        for late, row in enumerate(("ours", "shift_5"))
    ]
    (check,) = sync_check(scores, "ours", measures=["sync_offset"])
    assert check["moved"]["mean"] < 1 and check["moved"]["median"] == 5 and check["verdict"] == "moves"
