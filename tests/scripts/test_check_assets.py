"""check_assets.py: each measure on a case with a known answer, and the script on few samples."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from encoders.bases.viseme_basis import AXES, load_viseme_basis
from encoders.bases.viseme_targets import FITTED
from encoders.footage.faces import DlibDetector
from scripts.assets.check_assets import BARS, against_bars, check_assets
from scripts.assets.face_checks import UNLIKE, generator_against, identity_or_unlike
from scripts.assets.mouth_checks import corpus, intended_aperture, sharpness, visemes
from scripts.core.runtime import RunError, compose, resolve, start
from stylegan2.load import load_generator
from trajectory.synthetic_corpus.coarticulation import VISEMES


def test_intended_aperture_grows_with_open_and_not_with_wide():
    weights = np.eye(len(FITTED))
    opening = dict(zip(FITTED, intended_aperture(weights), strict=True))
    assert opening["open"] == pytest.approx(0.33)  # the lower lip 0.30 down, the upper one 0.03 up
    assert opening["wide"] == 0 and 0 < opening["round"] < 0.1
    assert intended_aperture(2 * weights)[FITTED.index("open")] == pytest.approx(0.66)


def test_sharpness_falls_under_blur_and_is_zero_without_edges():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = ((noise[:-1].astype(int) + noise[1:]) // 2).astype(np.uint8)
    assert sharpness(np.full((64, 64, 3), 90, np.uint8)) == 0
    assert 0 < sharpness(blurred) < sharpness(noise)


def test_a_face_that_is_not_found_counts_as_another_person():
    face = np.ones(128, np.float32)
    assert identity_or_unlike(face, face) == 0
    assert (
        identity_or_unlike(None, face)
        == identity_or_unlike(face, None)
        == identity_or_unlike(None, None)
        == UNLIKE
    )


def test_bars_are_lower_or_upper_limits():
    figures = {
        "generator": {"psi_0.7": {"st_lpips_alex": 0.05, "sharpness": 0.5}},
        "corpus": {"detection_rate": 1.0, "worst_aperture_corr": 0.2},
    }
    rows = against_bars(figures)
    assert set(rows) == {
        "generator.psi_0.7.st_lpips_alex",
        "generator.psi_0.7.sharpness",
        "corpus.detection_rate",
        "corpus.worst_aperture_corr",
    }
    assert [rows[name]["met"] for name in sorted(rows)] == [True, False, False, True]
    assert set(rows) < set(BARS)


@pytest.mark.parametrize("wrong", ["what=[]", "what=[faces]", "samples=4", "people=0"])
def test_settings_that_check_nothing_are_refused(wrong: str):
    with pytest.raises(RunError, match="check"):
        resolve(compose([f"check.{wrong}"]))


def test_the_script_writes_the_figures_and_keeps_those_of_the_other_parts(tmp_path: Path):
    output = tmp_path / "a figure = [1].json"
    output.write_text(json.dumps({"figures": {"corpus": {"detection_rate": 1.0}}}))
    overrides = [
        "check.what=[encoder]",
        "check.reconstructions=8",
        f"output={output}",
        f"results_dir={tmp_path}",
    ]
    config = resolve(compose(overrides))
    check_assets(config, start(config, quiet=True))
    report = json.loads(output.read_text())
    measured = report["figures"]["encoder"]["samples"]
    assert report["figures"]["corpus"] == {"detection_rate": 1.0}
    assert measured["samples"] == 8 and 0 < measured["st_lpips_alex"] < 0.5 and 0 < measured["jitter"] < 0.5
    assert report["bars"]["encoder.samples.st_lpips_alex"]["bar"] == 0.15
    assert set(report["weights"]) == {"generator", "encoder", "visemes"} and report["versions"]["torch"]


def test_visemes_are_measured_against_their_targets_and_shown(tmp_path: Path):
    basis, config = load_viseme_basis(), resolve(compose(["check.people=1"]))
    figures = visemes(config, load_generator("embedded"), basis, DlibDetector(), tmp_path / "sheet.png")
    assert set(figures) == {"people", "detected", *VISEMES, *AXES} - {"sil"} and figures["detected"] == 1
    assert figures["aa"]["aperture"] > 0.1 > figures["PP"]["aperture"]
    assert figures["aa"]["aperture_reach"] > 0.4
    assert figures["blink"]["blink"] < -0.05 and figures["yaw"]["yaw"] > 0.02
    assert "outside_px" not in figures["yaw"]
    assert json.loads(json.dumps(figures)) == figures
    assert Image.open(tmp_path / "sheet.png").size == (256 * (len(VISEMES) + len(AXES)), 256)


@pytest.mark.slow
def test_a_generator_against_itself_is_perfect_and_the_corpus_check_ranks_faces(monkeypatch, tmp_path: Path):
    generator, detector = load_generator("embedded"), DlibDetector()
    config = resolve(compose(["check.samples=8"]))
    same = generator_against(generator, generator, 0.7, config, detector, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (512, 2048, 3) and (sheet[:256] == sheet[256:]).all()
    assert same["st_lpips_alex"] == same["identity_median"] == 0
    assert (
        same["diversity"] == same["sharpness"] == 1
        and same["frechet_dlib"] < 1e-6 < same["frechet_dlib_floor"]
    )
    monkeypatch.setattr("scripts.assets.mouth_checks.FACE_SEEDS", (None,) * 2)
    still = SimpleNamespace(names=AXES, displacement=lambda a: load_viseme_basis().displacement(0 * a))
    moving = corpus(config, generator, load_viseme_basis(), detector)
    frozen = corpus(config, generator, still, detector)  # type: ignore[arg-type]
    assert moving["worst_aperture_corr"] > 0.5 > frozen["mean_aperture_corr"]
    assert moving["detection_rate"] == 1 and [face["face"] for face in moving["each"]]
