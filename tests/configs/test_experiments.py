"""Every experiment and every option of every config group composes into a valid Config."""

import dataclasses
from pathlib import Path

import pytest

from configs.schema import Config
from scripts.core.runtime import RunError, compose, resolve
from trajectory.model.predictor import shipped_stage1

CONFIGS = Path(__file__).parents[2] / "configs"
NEEDS = {
    "own_clip": ["data.root=somewhere"],
    "data": ["data.root=somewhere"],
    "embedded": [],
    "grid_s1": ["data.root=somewhere"],
    "shipped": ["data.root=somewhere"],
    "shipped_streaming": ["data.root=somewhere"],
    "paper_tcd_timit": ["data.root=somewhere"],
    "paper_grid": ["data.root=somewhere"],
    "e4e_ffhq": ["encoder_train.images=somewhere", "encoder_train.identity=something"],
}
OPTIONS = [
    (group.name, file.stem)
    for group in sorted(CONFIGS.iterdir())
    if group.is_dir() and group.name not in ("hydra", "__pycache__")
    for file in sorted(group.glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group, option):
    config = resolve(compose([f"{group}={option}", *NEEDS.get(option, NEEDS.get(group, []))]))
    assert isinstance(config, Config)


def test_default_is_the_demo():
    assert resolve(compose()) == resolve(compose(["experiment=demo"]))


def test_own_clip_starts_from_the_shipped_stage_1():
    own_clip = resolve(compose(["experiment=own_clip", "data.root=x"]))
    assert own_clip.stage1.file == str(shipped_stage1()) and shipped_stage1().is_file()


def test_paper_lstm_follows_the_paper():
    config = resolve(compose(["trajectory=paper_lstm"]))
    assert config.audio.kind == "mfcc" and (config.audio.rows, config.audio.width) == (28, 12)
    net = config.trajectory
    assert (net.frontend, net.cell, net.layers, net.hidden) == ("atvgnet", "lstm", 3, 256)
    assert config.losses.space == "w" and config.train.lr == 1e-4


def test_e4e_follows_its_paper_and_has_a_smoke_version():
    config = resolve(compose(["experiment=e4e_ffhq", *NEEDS["e4e_ffhq"]]))
    train = config.encoder_train
    weights = (train.pixel_weight, train.perceptual_weight, train.identity_weight, train.delta_weight)
    assert weights == (1.0, 0.8, 0.1, 2e-4) and train.pixel == "l2" and train.perceptual == "lpips"
    assert (train.progressive_start, train.progressive_every) == (20_000, 2000)
    adversary = train.adversary
    assert (adversary.weight, adversary.lr, adversary.r1_every, adversary.pool) == (0.1, 2e-5, 16, 50)
    assert (train.batch, train.lr, train.image_size, config.encoder_full.side) == (8, 1e-4, 256, 256)
    smoke = resolve(compose(["experiment=e4e_ffhq_smoke"])).encoder_train
    assert smoke.network == "full" and smoke.adversary.weight == 0.1 and smoke.progressive_start == 1


def test_seed_sets_the_seeds_of_training_and_tuning():
    config = resolve(compose(["seed=7"]))
    assert config.train.seed == config.tuning.seed == 7


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=folder"], "data.root=FOLDER"),
        (["audio.context_ms=33"], "audio.context_ms"),
        (["name=a/b"], "name=a/b"),
        (["target.share=1.5"], "target.share"),
        (["check.what=[generator,nose]"], "check.what"),
        (["benchmark.threads=[]"], "benchmark"),
        (["teacher.family=dlib"], "teacher.family"),
        (["experiment=e4e_ffhq"], "encoder_train.images=FOLDER"),
        (["experiment=e4e_ffhq", "encoder_train.images=x"], "encoder_train.identity=FILE"),
        (["encoder_train.progressive_start=10"], "encoder_train.network=full"),
        (["encoder_train.source=samples"], "encoder_train.pixel_weight"),
        (["encoder_train.steps=0"], "encoder_train.steps"),
        (["encoder.inversion.size=0"], "encoder.inversion"),
        (["encoder.inversion.person.size=0"], "encoder.inversion.person"),
        (["encoder_net.rank=0"], "rank"),
        (["encoder_full.w_dim=0"], "encoder_full.w_dim"),
        (["sync_net.dim=0"], "sync_net.dim"),
        (["tuning.perceptual_size=0"], "tuning.perceptual_size"),
        (["metrics.clips=0"], "metrics.batch, clips"),
        (["pairs.count=0"], "pairs.count"),
        (["basis.people=0"], "basis.people"),
        (["fit.batch=0"], "fit: counts"),
    ],
)
def test_impossible_values_are_refused_with_advice(overrides, words):
    with pytest.raises(RunError, match=words.replace(".", r"\.")):
        resolve(compose(overrides))


def test_every_field_has_a_default():
    assert dataclasses.asdict(Config())["name"] == "demo"
