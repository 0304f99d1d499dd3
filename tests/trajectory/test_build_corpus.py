"""The synthetic corpus: no text in two splits, the same bytes for the same seed, and mouth motion predictable from
speech.
"""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch

from encoders.bases.viseme_basis import VisemeBasis
from scripts.core.runtime import compose, resolve
from trajectory.synthetic_corpus.sentences import FREE_SENTENCES, SentenceSource, grid_sentence, splits_of
from trajectory.synthetic_corpus.speakers import FACE_SEEDS, VARIANTS, draw_speakers

ROWS, WIDTH, SIZE = 4, 8, 128  # x264 is not reproducible in pictures smaller than this


class ToyGenerator(torch.nn.Module):
    """Renders four rows of eight numbers as a smooth image."""

    num_rows, w_dim, resolution = ROWS, WIDTH, SIZE
    w_avg: torch.Tensor
    paint: torch.Tensor

    def __init__(self, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.register_buffer("w_avg", torch.zeros(WIDTH))
        self.register_buffer("paint", torch.randn(ROWS * WIDTH, 3 * 4 * 4, generator=draw) * 0.2)

    def mapping(self, z):
        return z

    def synthesis(self, w, noise="const"):
        coarse = (w.reshape(len(w), -1) @ self.paint).reshape(-1, 3, 4, 4)
        return torch.nn.functional.interpolate(coarse.tanh(), size=SIZE, mode="bilinear")


# One direction for each of three axes, in another order than coarticulation.AXES.
DIRECTIONS = np.random.default_rng(0).standard_normal((3, ROWS, WIDTH)).astype(np.float32)
BASIS = VisemeBasis(("press", "open", "blink"), DIRECTIONS)


def corpus_module():
    pytest.importorskip("espeakng_loader")
    from trajectory.synthetic_corpus import build_corpus as corpus

    return corpus


def small(**fields):
    return corpus_module().CorpusConfig(**{"speakers": 3, "unseen_speakers": 1, "sentences": 3, **fields})


def build(out, config, **fields):
    return json.loads(
        corpus_module().build_corpus(config, ToyGenerator(), BASIS, out, progress=False, **fields).read_text()
    )


def test_the_free_sentences_are_many_and_different():
    assert len(set(FREE_SENTENCES)) == len(FREE_SENTENCES) >= 60
    assert all(any(letter in text.lower() for letter in "pbm") for text in FREE_SENTENCES)


def test_grid_grammar():
    rng = np.random.default_rng(0)
    for _ in range(100):
        sentence = grid_sentence(rng)
        words = sentence.text.split()
        assert len(words) == 6 and len(sentence.name) == 6 and words[3] != "W"
        assert sentence.name.startswith("".join(word[0].lower() for word in words[:4]))
        assert " A " not in sentence.spoken


@pytest.mark.parametrize(
    ("sentences", "expected"), [(3, (1, 1, 1)), (6, (4, 1, 1)), (20, (16, 2, 2)), (100, (80, 10, 10))]
)
def test_split_sizes(sentences, expected):
    splits = splits_of(sentences, unseen=False)
    assert tuple(splits.count(name) for name in ("train", "val", "seen")) == expected
    assert splits_of(sentences, unseen=True) == ["unseen"] * sentences


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("speakers", "sentences", "share"), [(8, 6, 0.5), (8, 60, 0.5), (4, 100, 0.0), (2, 3, 1.0)]
)
def test_no_test_text_is_ever_trained_on(seed, speakers, sentences, share):
    module = corpus_module()
    config = module.CorpusConfig(seed, speakers, speakers // 4, sentences, grid_share=share)
    plan = module.plan_corpus(config)
    texts = defaultdict(set)
    for _, sentence, split in plan:
        texts[split].add(sentence.text)
    assert not texts["train"] & (texts["val"] | texts["seen"] | texts["unseen"])
    assert not texts["val"] & (texts["seen"] | texts["unseen"])
    assert len({(speaker.name, sentence.name) for speaker, sentence, _ in plan}) == speakers * sentences
    if (speakers, sentences) == (8, 6):
        kinds = [sentence.kind for _, sentence, _ in plan]
        assert kinds.count("grid") == kinds.count("free")
        assert len({sentence.text for _, sentence, _ in plan}) == len(plan)


def test_pools_of_free_sentences_do_not_overlap():
    source = SentenceSource(3)
    drawn = {
        split: {source.draw(split, "free").text for _ in range(100)} for split in ("train", "val", "seen")
    }
    assert (
        sum(len(texts) for texts in drawn.values())
        == len(FREE_SENTENCES)
        == len(set().union(*drawn.values()))
    )


@pytest.mark.parametrize("seed", range(5))
def test_speakers_differ_and_voices_fit_their_faces(seed):
    speakers = draw_speakers(seed, 8, 2)
    assert len({s.face for s in speakers}) == len({s.voice.split("+")[1] for s in speakers}) == 8
    assert [s.unseen for s in speakers] == [False] * 6 + [True] * 2
    assert all(s.voice.split("+")[1] in VARIANTS[s.sex] and (s.face, s.sex) in FACE_SEEDS for s in speakers)


def test_the_seed_changes_everything():
    module = corpus_module()
    a, b = (
        [module.perform(config, *planned) for planned in module.plan_corpus(config)[:3]]
        for config in (small(seed=0), small(seed=1))
    )
    assert {p.speaker.face for p in a} != {p.speaker.face for p in b} or a[0].speaker.voice != b[
        0
    ].speaker.voice
    assert not {p.sentence.text for p in a} & {p.sentence.text for p in b}
    assert not any(
        p.waveform.samples.shape == q.waveform.samples.shape for p, q in zip(a, b, strict=True)
    ) or any(not np.array_equal(p.waveform.samples, q.waveform.samples) for p, q in zip(a, b, strict=True))


def test_a_corpus_on_disk(tmp_path):
    video = pytest.importorskip("encoders.footage.video_reader")
    listing = build(tmp_path, small(), workers=2)
    assert listing["synthetic"] and len(listing["clips"]) == 9
    for clip in listing["clips"]:
        info = video.probe(tmp_path / clip["file"])
        with np.load(tmp_path / "truth" / clip["file"].replace(".mp4", ".npz")) as truth:
            frames = len(truth["w"])
            weights_TV = truth["weights"][:, [list(truth["axes"]).index(name) for name in BASIS.names]]
            expected = truth["w_speaker"] + BASIS.displacement(weights_TV)
            np.testing.assert_allclose(truth["w"], expected, atol=5e-3)
            assert abs(truth["seconds"][-1, 1] - frames / 25) < 0.04
        assert (info.frames, info.width, info.fps) == (frames, SIZE, 25) and info.has_audio
        sound = video.read_audio(tmp_path / clip["file"])
        assert abs(len(sound.samples) - frames * 640) <= 640 and 0.2 < np.abs(sound.samples).max() <= 1.1


def test_an_interrupted_build_continues_and_makes_the_same_bytes(tmp_path):
    config = small(speakers=2)
    listing = build(tmp_path / "a", config)
    content = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    files = [tmp_path / "a" / clip["file"] for clip in listing["clips"]]
    files[0].unlink()
    (tmp_path / "a" / "truth" / listing["clips"][1]["file"].replace(".mp4", ".npz")).write_bytes(b"cut short")
    stamps = [file.stat().st_mtime_ns for file in files[1:]]
    assert build(tmp_path / "a", config) == listing
    assert [file.stat().st_mtime_ns > stamp for file, stamp in zip(files[1:], stamps, strict=True)] == [
        True
    ] + [False] * 4
    build(tmp_path / "b", config, workers=2)
    for folder in ("a", "b"):
        again = {
            path.relative_to(tmp_path / folder): path.read_bytes()
            for path in (tmp_path / folder).rglob("*.*")
        }
        assert again == content


def test_a_changed_generator_remakes_the_clips(tmp_path):
    module, config = corpus_module(), small(speakers=2)
    listing = build(tmp_path, config)
    file = tmp_path / listing["clips"][0]["file"]
    before = file.read_bytes()
    module.build_corpus(config, ToyGenerator(seed=1), BASIS, tmp_path, progress=False)
    assert file.read_bytes() != before


def test_a_basis_with_an_unknown_axis_is_refused(tmp_path):
    basis = VisemeBasis(("open", "tongue", "blink"), DIRECTIONS)
    with pytest.raises(ValueError, match="tongue"):
        corpus_module().build_corpus(small(), ToyGenerator(), basis, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("speakers", 0),
        ("speakers", 10**6),
        ("unseen_speakers", 12),
        ("sentences", 2),
        ("grid_share", 1.5),
    ],
)
def test_a_wrong_config_is_refused(field, value):
    with pytest.raises(ValueError, match=f"corpus.{field}"):
        corpus_module().CorpusConfig(**{field: value})


def test_the_demo_is_about_a_minute_of_training_speech():
    module = corpus_module()
    config = resolve(compose(["experiment=demo"])).corpus
    frames = [
        (len(module.perform(config, *planned).weights), planned[2]) for planned in module.plan_corpus(config)
    ]
    assert 2300 < sum(count for count, _ in frames) < 3000
    assert 45 < sum(count for count, split in frames if split == "train") / 25 < 70


def test_speech_predicts_the_mouth():
    """Ridge regression from feature windows to `open`, trained on three speakers, tested on other
    sentences of theirs and on an unseen speaker."""
    from audio.features import FeatureConfig, extract_features

    module = corpus_module()
    config = module.CorpusConfig(seed=0, speakers=4, unseen_speakers=1, sentences=6)
    clips = defaultdict(list)
    for planned in module.plan_corpus(config):
        performance = module.perform(config, *planned)
        windows = extract_features(performance.waveform, FeatureConfig(), len(performance.weights)).values
        clips[planned[2]].append((windows.reshape(len(windows), -1), performance.weights[:, 0]))
    x, y = (np.concatenate(parts) for parts in zip(*clips["train"], strict=True))
    fitted = x.T @ np.linalg.solve(x @ x.T + 20000 * np.eye(len(x), dtype=np.float32), y - y.mean())

    def correlation(split):
        return np.mean([np.corrcoef(windows @ fitted, mouth)[0, 1] for windows, mouth in clips[split]])

    assert correlation("seen") > 0.7 and correlation("unseen") > 0.5
