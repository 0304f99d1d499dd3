"""Adaptation of stage 1 to one person uses only the frames that may be fitted to."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.features import FeatureConfig, extract_features
from audio.waveform import Waveform
from encoders.manifest import ClipEntry, Manifest, write_manifest
from encoders.records import FrameClip, LatentClip
from scripts.core import runtime
from scripts.stages import adapt_stage1 as stage
from scripts.stages.adapt_stage1 import (
    adapt_stage1,
    adapted_path,
    demand_speech,
    existing_adapted,
    load_stage1_for,
)
from scripts.stages.face import face_of_data
from scripts.stages.stage_results import Face, Latents
from stylegan2.weights import file_hash
from trajectory.adapt import personal_adaptation
from trajectory.adapt.adaptation_data import AdaptationData, PersonalSpeech, personal_speech
from trajectory.adapt.personal_adaptation import (
    AdaptConfig,
    _mixture,
    adapt,
    load_adapted,
    rendered_spread,
    save_adapted,
)
from trajectory.model.displacement import DisplacementConfig, TrajectoryError, fit_space
from trajectory.model.predictor import TrajectoryPredictor, predict, save_trajectory
from trajectory.model.recurrent_net import TrajectoryConfig, TrajectoryNet

FEATURES = FeatureConfig(n_mels=40, context_ms=120)
ROWS, DIM, FRAMES, USED = 4, 8, 160, 96
HELD = 0.486  # share of the movement in talk() that lies in the basis of `base`
QUICK = AdaptConfig(enabled=True, steps=4, every=2, batch=2, length=8, shortcut=0.75)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base() -> TrajectoryPredictor:
    """An untrained stage 1 whose basis contains the direction in which the test clip's codes move."""
    rng = np.random.default_rng(0)
    offsets = rng.standard_normal((60, ROWS, DIM)) * np.array([3.0, 1, 1, 1])[:, None]
    space = fit_space(offsets, rng.standard_normal((20, ROWS, DIM)), DisplacementConfig(6, 3))
    torch.manual_seed(0)
    config = TrajectoryConfig(channels=4, audio_dim=16, hidden=16, decoder=32)
    net = TrajectoryNet(config, (FEATURES.rows, FEATURES.width), space.identity_dims, 6)
    return TrajectoryPredictor(net, space, FEATURES).eval()


def talk(frames: int = FRAMES, seed: int = 0) -> PersonalSpeech:
    """Noise that is loud while the lips are open."""
    rng = np.random.default_rng(seed)
    level = np.convolve(rng.standard_normal(frames + 4), np.ones(5) / 5, "valid")
    level = (level - level.min()) / np.ptp(level)
    samples = rng.standard_normal(640 * frames) * np.repeat(0.01 + level, 640)
    w_ref = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    axis = np.random.default_rng(1).standard_normal((ROWS, DIM))
    axis[1:] = 0
    w = w_ref + 4 * level[:, None, None] * axis + 0.1 * rng.standard_normal((frames, ROWS, DIM))
    return PersonalSpeech(
        Waveform((0.1 * samples).astype(np.float32)),
        w.astype(np.float32),
        w_ref,
        0.02 + 0.2 * level,
        np.ones(frames, bool),
    )


def equal(one: TrajectoryPredictor, other: TrajectoryPredictor) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_adaptation_fits_the_person_and_does_not_change_the_base(base):
    before = {key: value.clone() for key, value in base.state_dict().items()}
    adapted = adapt(base, talk(), QUICK)
    assert adapted.before["lips"] == 0  # the untrained model predicts no motion
    assert adapted.after["lips"] > 0.8 and adapted.after["latent"] < adapted.before["latent"]
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    assert adapted.predictor.shortcut is not None and adapted.after["gain"] >= 1
    assert not any(p.requires_grad for p in adapted.predictor.parameters())


def test_the_figures_before_are_those_of_the_base(base):
    base = copy.deepcopy(base)
    base.state_dict()["net.decoder.5.bias"].add_(1)  # the untrained model predicts no motion
    before = adapt(base, talk(), QUICK).before["latent"]
    base.gain.mul_(2)
    assert adapt(base, talk(), QUICK).before["latent"] > before
    adapted = adapt(base, talk(), QUICK).predictor
    with pytest.raises(TrajectoryError, match="already adapted to one person"):
        adapt(adapted, talk(), QUICK)


def test_frames_without_a_face_are_not_used(base):
    speech = talk()
    known = np.ones(len(speech.w), bool)
    known[20:40] = known[150:155] = False  # among the training and the held-out frames
    changed_codes = speech.w + 9.0 * ~known[:, None, None]
    reference, changed = (
        adapt(base, replace(speech, w=w.astype(np.float32), known=known), QUICK)
        for w in (speech.w, changed_codes)
    )
    assert equal(reference.predictor, changed.predictor) and reference.after == changed.after
    assert not equal(
        reference.predictor, adapt(base, replace(speech, w=changed_codes.astype(np.float32)), QUICK).predictor
    )


def test_share_of_the_regression_follows_how_well_the_base_predicts(base):
    """A base that predicts the opening itself leaves nothing to the regression, one that predicts noise leaves it all."""
    data = AdaptationData(base, talk())
    noise = np.random.default_rng(3).standard_normal(data.c.shape) * data.c.std()
    assert data.share(data.c) == 0.0 and data.share(noise) == 1.0
    chosen = adapt(base, talk(), replace(QUICK, shortcut=None)).config.shortcut
    assert chosen is not None and chosen > 0  # the untrained base predicts no motion


def test_the_base_stays_where_no_adaptation_is_better(base, monkeypatch):
    def worse(base, part, whole, config):
        cut = len(part.x)
        return 25, -(whole.c[cut:] @ part.axis)

    monkeypatch.setattr(personal_adaptation, "_choose_steps", worse)
    adapted = adapt(base, talk(), QUICK)
    assert (adapted.steps, adapted.config.shortcut, adapted.after["lips"]) == (0, 0.0, adapted.before["lips"])
    assert adapted.predictor.shortcut is None


def test_the_lips_open_as_far_in_the_persons_frames_as_in_the_persons_own(base):
    """Through a generator whose lips open less far than the codes say, and 0.01 wider, the opening gets the person's mean and
    the spread `spread`."""
    speech, mean = talk(), float(talk().opening.mean())
    code = np.random.default_rng(1).standard_normal((ROWS, DIM))[0]  # as in talk()

    def rendered(w_KLD: np.ndarray) -> np.ndarray:
        level_K = ((w_KLD[:, 0] - speech.w_ref[0]) @ code) / (4 * code @ code)
        return mean + 0.01 + 1.4 * (0.2 * level_K - HELD * 0.2 * level.mean())

    level = (speech.opening - 0.02) / 0.2
    adapted = adapt(base, speech, QUICK, rendered)
    assert adapted.after["slope"] == pytest.approx(1.4 * HELD, abs=0.03)
    assert adapted.after["offset"] == pytest.approx(0.01, abs=0.005)
    features = extract_features(speech.sound, FEATURES, FRAMES)
    shown = rendered(predict(adapted.predictor, features, speech.w_ref))
    assert shown.mean() == pytest.approx(mean, abs=0.01)
    assert shown.std() / speech.opening.std() == pytest.approx(adapted.after["spread"], abs=0.1)
    plain = rendered(predict(adapt(base, speech, QUICK).predictor, features, speech.w_ref))
    assert plain.std() < 0.8 * shown.std() and plain.mean() - mean > 0.005


def test_lips_move_less_where_the_prediction_is_worse():
    true = np.random.default_rng(0).standard_normal(400)
    noise = np.random.default_rng(1).standard_normal(400)
    spreads = [rendered_spread(true + k * noise, true, AdaptConfig()) for k in (0.0, 1.8, 50.0)]
    assert spreads[0] == 0.9 and 0.6 < spreads[1] < 0.85 and spreads[2] == 0.4
    assert rendered_spread(true + 50 * noise, true, AdaptConfig(spread=0.3)) == 0.3


def test_the_prediction_is_the_mean_of_net_and_regression(base):
    """After the same steps, shares of 0 and 1 give the net and the regression alone, and a share of 0.5 their mean."""
    data, values = AdaptationData(base, talk(80)), torch.randn(1, 5, FEATURES.rows, FEATURES.width)
    with torch.no_grad():
        models = [
            _mixture(base, data, replace(QUICK, shortcut=share), 2, 1.0).eval() for share in (0.0, 0.5, 1.0)
        ]
        net, mean, line = (model.coefficients(values, data.w_ref)[0] for model in models)
    assert (
        models[0].shortcut is None and float(models[2].state_dict()["net.decoder.5.weight"].abs().max()) == 0
    )
    assert float(net.std(1).max()) > 0 and float(line.std(1).max()) > 0
    torch.testing.assert_close(mean, (net + line) / 2, atol=1e-4, rtol=1e-4)


def test_only_the_lips_opening_moves_and_the_gain_scales_it_about_the_mean(base):
    data, values = AdaptationData(base, talk(80)), torch.randn(1, 5, FEATURES.rows, FEATURES.width)
    with torch.no_grad():
        one, two = (
            _mixture(base, data, QUICK, 2, gain).eval().coefficients(values, data.w_ref)[0][0].numpy()
            for gain in (1.0, 2.0)
        )
    assert np.linalg.matrix_rank(one - one[0], tol=1e-3) == 1
    mean = data.mean.astype(np.float32)
    np.testing.assert_allclose(two - mean, 2 * (one - mean), atol=1e-3)
    # the regression alone predicts the coefficients of its lip opening
    opening = data.regression.predict(data.x.reshape(80, -1))
    opening -= opening[data.known].mean()
    with torch.no_grad():
        line = _mixture(base, data, replace(QUICK, shortcut=1.0), 0, 1.5).eval()
        predicted = line.coefficients(torch.from_numpy(data.x)[None], data.w_ref)[0][0].numpy()
    np.testing.assert_allclose(predicted, data.coefficients(opening, 1.5), atol=1e-3)


def test_a_face_may_be_found_late_in_the_clip(base):
    late = replace(talk(), known=np.arange(FRAMES) >= FRAMES - 50)
    assert adapt(base, late, QUICK).after["lips"] > 0.5


def test_adaptation_is_repeatable_and_leaves_the_callers_random_state(base):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = adapt(base, talk(), QUICK)
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(6)
    assert equal(first.predictor, adapt(base, talk(), QUICK).predictor)


def test_too_little_speech_is_refused(base):
    with pytest.raises(TrajectoryError, match=r"49 frames \(2\.0 s\).*needs 50.*adapt=none"):
        adapt(base, talk(49), QUICK)
    faceless = replace(talk(), known=np.arange(FRAMES) < 30)
    with pytest.raises(TrajectoryError, match="30 frames"):
        adapt(base, faceless, QUICK)
    none = np.zeros((0,))
    photo = Face("me", none, none, none, none, none)
    with pytest.raises(runtime.RunError, match="a photo has no speech"):
        demand_speech(photo, _config(["adapt=personal"]))
    demand_speech(photo, _config([]))


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"shortcut": 1.5},
        {"validation": 0.0},
        {"validation": 0.9},
        {"length": 1},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="adapt"):
        AdaptConfig(**bad)


def test_a_file_round_trips_and_another_base_is_refused(base, tmp_path):
    adapted = adapt(base, talk(), QUICK)
    path = tmp_path / "adapted.safetensors"
    save_adapted(path, adapted, "ab" * 32, {"face": "me"})
    assert equal(load_adapted(path, "ab" * 32), adapted.predictor)
    with pytest.raises(
        TrajectoryError, match=r"was adapted from the stage-1 model abab.*cdcd.*adapt=personal"
    ):
        load_adapted(path, "cd" * 32)
    save_trajectory(base, tmp_path / "plain.safetensors")
    with pytest.raises(TrajectoryError, match="is no adapted stage 1"):
        load_adapted(tmp_path / "plain.safetensors", "ab" * 32)


# ------------------------------------------------------------------------------------- scored frames are never used


def _config(overrides: list[str]):
    return runtime.resolve(runtime.compose(["data=folder", "data.root=x", *overrides]))


def _clip(folder: Path, tail: int) -> FrameClip:
    """A speaker's only clip as output by prepare and invert; `tail` replaces everything after the first USED frames."""
    own = talk()
    rng = np.random.default_rng(tail)
    samples, w, opening = own.sound.samples.copy(), own.w.copy(), own.opening.copy()
    if tail:
        samples[640 * USED :] = 0.3 * rng.standard_normal(640 * (FRAMES - USED))
        w[USED:] = 5 * rng.standard_normal(w[USED:].shape)
        opening[USED:] = rng.random(FRAMES - USED)
    points = np.tile(np.arange(136.0).reshape(68, 2), (FRAMES, 1, 1))
    points[:, 62], points[:, 66] = [128, 180], np.stack([np.full(FRAMES, 128), 180 + 80 * opening], axis=1)
    frames = np.zeros((FRAMES, 16, 16, 3), np.uint8)
    if tail:
        frames[USED:] = 200
    clip = FrameClip(
        *("me/one", "me", "one", "train", "x.mp4", "0", frames, points.astype(np.float32)),
        *(np.zeros((FRAMES, 4, 2), np.float32), np.ones(FRAMES, bool), samples.astype(np.float32)),
    )
    (folder / "prepared").mkdir(parents=True)
    clip.save(folder / "prepared" / "one.safetensors")
    codes = LatentClip("me/one", "me", "one", "train", w.astype(np.float16), w[0], 0, "0", "0", "0")
    (folder / "latents").mkdir()
    codes.save(folder / "latents" / "one.safetensors")
    entry = ClipEntry("me/one", "one.safetensors", "me", "one", "train", FRAMES)
    write_manifest(folder / "latents", Manifest((entry,), {"prepared": "prepared"}))
    return clip


def _own(folder: Path, tail: int, share: float = 0.6) -> PersonalSpeech:
    _clip(folder, tail)
    config = _config([f"target.share={share}", "adapt=personal"])
    face = face_of_data(config, Latents(folder / "latents", folder / "prepared"))
    assert face.own is not None and face.used == len(face.own.w)
    return face.own


def test_scored_frames_are_never_used(base, tmp_path):
    """Face, adapted weights and the file's key do not depend on picture or sound of the scored frames."""
    owns = [_own(tmp_path / str(tail), tail) for tail in (0, 1)]
    assert all(len(own.w) == len(own.opening) == len(own.known) == USED for own in owns)
    assert all(len(own.sound.samples) == 640 * USED for own in owns)
    first, second = (adapt(base, own, QUICK).predictor for own in owns)
    assert equal(first, second)
    save_trajectory(base, checkpoint := tmp_path / "trajectory.safetensors")
    config = _config(["adapt=personal"])
    assert len({adapted_path(own, tmp_path, checkpoint, config) for own in owns}) == 1
    # Check of the test itself: if some of the scored frames are used, the results differ.
    leaking = [_own(tmp_path / f"leak {tail}", tail, share=0.7) for tail in (0, 1)]
    first, second = (adapt(base, own, QUICK).predictor for own in leaking)
    assert not equal(first, second)


def test_personal_speech_holds_the_used_frames_only(tmp_path):
    clip = _clip(tmp_path, 1)
    own = personal_speech(clip, np.zeros((FRAMES, ROWS, DIM)), 60, np.zeros((ROWS, DIM)))
    assert {len(own.w), len(own.opening), len(own.known), len(own.sound.samples) // 640} == {60}


# ---------------------------------------------------------------------------------------------- files and settings


def test_a_finished_adaptation_is_not_repeated(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stage, "opening_in_frames", lambda generator, detector, w: np.full(len(w), np.nan))
    config = replace(_config(["adapt=personal"]), adapt=QUICK)
    run = runtime.start(replace(config, results_dir=str(tmp_path), device="cpu"), quiet=True)
    save_trajectory(base, checkpoint := tmp_path / "trajectory.safetensors")
    own = talk()
    assert existing_adapted(own, tmp_path, checkpoint, config) is None
    path = adapt_stage1(own, "me", tmp_path, checkpoint, lambda: None, config, run)
    assert existing_adapted(own, tmp_path, checkpoint, config) == path
    first = path.stat().st_mtime_ns
    assert adapt_stage1(own, "me", tmp_path, checkpoint, lambda: None, config, run) == path
    assert path.stat().st_mtime_ns == first
    assert (
        adapt_stage1(own, "me", tmp_path, checkpoint, lambda: None, replace(config, resume="none"), run)
        == path
    )
    assert path.stat().st_mtime_ns != first
    # other settings or another base: another file; no adaptation requested: none
    changed = replace(config, adapt=replace(QUICK, lr=1e-4))
    assert existing_adapted(own, tmp_path, checkpoint, changed) is None
    save_trajectory(base, second := tmp_path / "second.safetensors", {"run": 2})
    assert existing_adapted(own, tmp_path, second, config) is None
    assert existing_adapted(own, tmp_path, checkpoint, replace(config, adapted="none")) is None
    assert existing_adapted(own, tmp_path, checkpoint, replace(config, adapt=AdaptConfig())) is None
    # a given file is used, but refused with another base
    named = existing_adapted(None, tmp_path, second, replace(config, adapted=str(path)))
    assert named == path and load_stage1_for(named, checkpoint, config, run).shortcut is not None
    with pytest.raises(TrajectoryError, match=file_hash(checkpoint)[:12]):
        load_stage1_for(named, second, config, run)


def test_adaptation_is_on_for_own_clips_only():
    assert not runtime.resolve(runtime.compose([])).adapt.enabled
    assert runtime.resolve(runtime.compose(["experiment=own_clip", "data.root=x"])).adapt.enabled
    assert asdict(_config(["adapt=personal"]).adapt) == asdict(AdaptConfig(enabled=True))
