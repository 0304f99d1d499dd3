"""The likeness part of check_assets.py: photos of people whose codes are known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.bases.viseme_basis import load_viseme_basis
from encoders.footage.faces import DlibDetector
from scripts.assets.likeness_checks import likeness, photographed
from scripts.core.runtime import compose, resolve, start
from stylegan2.load import load_generator


@pytest.mark.slow  # half a minute of one core
def test_the_sheet_and_the_figures_of_one_person(tmp_path: Path):
    settings = ["check.faces=1", "encoder.inversion.person.steps=12", "tuning.steps=4", "device=cpu"]
    config = resolve(compose([*settings, f"results_dir={tmp_path}", f"data_dir={tmp_path}"]))
    run = start(config, quiet=True)
    sheet = tmp_path / "sheet.png"
    figures = likeness(config, run, load_generator("embedded"), load_viseme_basis(), DlibDetector(), sheet)
    assert figures.pop("people") == 1
    assert set(figures) == {f"{s}_{m}" for s in ("encoder", "offset", "tuned") for m in ("identity", "sface")}
    assert all(0 < figures[f"{stage}_identity"] < 0.6 for stage in ("encoder", "offset", "tuned"))
    assert all(0.4 < figures[f"{stage}_sface"] < 1 for stage in ("encoder", "offset", "tuned"))
    rows = np.asarray(Image.open(sheet), np.float32).reshape(5, 256, 256, 3)
    photo, other, *shown = rows
    assert np.abs(photo - other).mean() > 3  # another picture of the person
    assert np.abs(shown[2] - photo).mean() < np.abs(shown[0] - photo).mean()  # fitted to the photo


def test_a_photographed_image_is_worse_but_the_same_picture():
    rng = np.random.default_rng(0)
    image = np.asarray(Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((256, 256)))
    poor = photographed(image, rng)
    assert poor.shape == image.shape and poor.dtype == np.uint8
    assert 3 < np.abs(poor.astype(float) - image).mean() < 40
    assert np.corrcoef(poor.ravel(), image.ravel())[0, 1] > 0.9
