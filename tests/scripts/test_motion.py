"""`motion` of generate.py: which track it gives, and errors in its settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio.waveform import Waveform
from configs.schema import Config
from scripts.core.runtime import RunError, compose, resolve
from scripts.stages.motion import check_motion, latent_motion_of, motion_track
from trajectory.motion.motion_config import MotionConfig

SPEECH = Waveform((0.1 * np.random.default_rng(0).standard_normal(80_000)).astype(np.float32))
RUN: Any = None  # natural motion needs no run


def test_the_group_sets_the_kind_and_the_seed_is_that_of_the_run():
    assert resolve(compose([])).motion == MotionConfig("natural")
    assert resolve(compose(["motion=none"])).motion.kind == "none"
    config = resolve(compose(["motion=clip", "motion.clip=x.mp4", "motion.gain=2", "seed=7"]))
    assert config.motion == MotionConfig("clip", str(config.motion.clip), gain=2, seed=7)
    with pytest.raises(RunError, match=r"motion\.gain"):
        resolve(compose(["motion.gain=-1"]))


def test_head_blink_and_gain_choose_the_parts():
    def drawn(**values: Any):
        return motion_track(Config(motion=MotionConfig(**values)), RUN, SPEECH, 125)

    whole = drawn()
    assert whole.pose.any() and whole.lids.any()
    np.testing.assert_array_equal(drawn(head=False).lids, whole.lids)
    np.testing.assert_array_equal(drawn(blink=False, gain=2).pose, 2 * whole.pose)
    assert not drawn(head=False).pose.any() and not drawn(blink=False).lids.any()
    none = drawn(kind="none")
    assert len(none) == 125 and not none.pose.any() and not none.lids.any()


def test_codes_of_another_generator_are_left_alone(tmp_path):
    said: list[str] = []

    class Spoken:
        say = staticmethod(said.append)

    run: Any = Spoken
    config = Config()
    track = motion_track(config, RUN, SPEECH, 125)
    assert [part.shape for part in latent_motion_of(config, run, track)] == 2 * [(125, 14, 512)] and not said
    config.generator.weights = str(tmp_path / "mine.safetensors")
    turns, blinks = latent_motion_of(config, run, track)
    assert len(turns) == len(blinks) == 125 and not turns.any() and not blinks.any()
    assert len(said) == 1 and "generator.weights=embedded" in said[0]


def test_motion_of_a_clip_without_its_video_is_said_in_one_sentence(tmp_path: Path):
    with pytest.raises(RunError, match=r"give motion\.clip=FILE"):
        check_motion(Config(motion=MotionConfig("clip")))
    for config in (
        Config(motion=MotionConfig("clip", str(tmp_path / "no.mp4"))),
        Config(motion=MotionConfig("clip"), clip=str(tmp_path / "no.mp4")),
    ):
        with pytest.raises(RunError, match=r"no\.mp4"):
            check_motion(config)
    check_motion(Config())
