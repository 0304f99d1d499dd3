"""Recomputes the figures of the embedded weights and of the faces that the corpus may draw: the generator against the
uncut network of the random-face wheel, the encoder on held-out samples (and on the clips of data.root), the viseme
basis on other people than its fit's, every face of the corpus speaking. Prints a table, each figure beside the bar it
was made for, and writes results/<name>/assets.json and, as sheets, generator_psi_*.png (the uncut network above the
embedded one) and visemes.png. Parts that are left out of check.what keep their older figures.
"""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from configs.schema import Config
from encoders.bases.viseme_basis import VISEMES, load_viseme_basis
from scripts.assets.face_checks import encoder_on_clips, encoder_on_samples, generator_against
from scripts.assets.mouth_checks import corpus, visemes
from scripts.core.networks import encoder_path, generator_path, the_detector, the_encoder, the_generator
from scripts.core.provenance import provenance, write_json
from scripts.core.runtime import Run, shown
from stylegan2.embedded.openvino_ir import load_uncut_generator
from stylegan2.weights import file_hash

# Figure -> (the bar, whether it must not fall below it): what the embedded weights are meant to reach.
BARS: dict[str, tuple[float, bool]] = {
    "generator.psi_0.7.st_lpips_alex": (0.06, False),
    "generator.psi_0.7.identity_median": (0.35, False),
    "generator.psi_0.7.diversity": (0.8, True),
    "generator.psi_0.7.sharpness": (0.6, True),
    "encoder.samples.st_lpips_alex": (0.15, False),
    "encoder.samples.identity_median": (0.35, False),
    "visemes.open.aperture_reach": (0.8, True),
    "visemes.wide.width_reach": (0.8, True),
    "visemes.round.width_reach": (0.8, True),
    "visemes.open.outside_px": (1.5, False),
    "visemes.wide.outside_px": (1.5, False),
    "visemes.round.outside_px": (1.5, False),
    "visemes.press.outside_px": (1.5, False),
    "visemes.open.identity": (0.25, False),
    "visemes.wide.identity": (0.25, False),
    "visemes.round.identity": (0.25, False),
    "visemes.press.identity": (0.25, False),
    "corpus.detection_rate": (1.0, True),
    "corpus.worst_aperture_corr": (0.9, True),
    "corpus.least_aperture_std": (0.05, True),
}
# Which of these bars each figure of a single face answers to.
FACE_BARS = {
    "detection_rate": "detection_rate",
    "aperture_corr": "worst_aperture_corr",
    "aperture_std": "least_aperture_std",
}


def check_assets(config: Config, run: Run) -> Path:
    """The JSON file of the figures."""
    path = Path(config.output) if config.output else run.results / "assets.json"
    figures: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    )
    generator, detector = the_generator(config, run), the_detector(config.data)
    files = {"generator": generator_path(config), "encoder": encoder_path(config), "visemes": VISEMES}
    made = {"device": str(run.device), "threads": torch.get_num_threads(), "seconds": run.seconds}
    made |= {"weights": {name: file_hash(file) for name, file in files.items()}}
    for what in config.check.what:
        with run.timed(what):
            if what == "generator":
                teacher = load_uncut_generator().to(run.device)
                figures[what] = {
                    f"psi_{psi}": generator_against(
                        teacher, generator, psi, config, detector, path.with_name(f"generator_psi_{psi}.png")
                    )
                    for psi in config.check.psi
                }
            elif what == "encoder":
                encoder = the_encoder(config, run)
                figures[what] = {"samples": encoder_on_samples(encoder, generator, config, detector)}
                if config.data.kind == "folder":
                    figures[what]["clips"] = encoder_on_clips(encoder, generator, config, run, detector)
            elif what == "visemes":
                figures[what] = visemes(
                    config, generator, load_viseme_basis(), detector, path.with_name("visemes.png")
                )
            else:
                figures[what] = corpus(config, generator, load_viseme_basis(), detector)
        write_json(path, {"figures": figures, "bars": judged(figures)} | made | provenance())
    if run.first:
        show(figures)
    run.say(f"figures: {shown(path)}")
    return path


def judged(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The bars whose figures are there: value, bar and whether it is met."""
    found = {}
    for name, (bar, at_least) in BARS.items():
        value: Any = figures
        for part in _parts(name):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[name] = {"value": value, "bar": bar, "met": value >= bar if at_least else value <= bar}
    return found


def _parts(name: str) -> list[str]:
    """ "generator.psi_0.7.sharpness" -> generator, psi_0.7, sharpness: the middle may hold a point."""
    first, rest = name.split(".", 1)
    return [first, *rest.rsplit(".", 1)]


def show(figures: dict[str, Any]) -> None:
    table = Table("figure", "value", "bar", "met")
    for name, found in judged(figures).items():
        sign = ">=" if BARS[name][1] else "<="
        table.add_row(
            name, f"{found['value']:.4f}", f"{sign} {found['bar']}", "yes" if found["met"] else "NO"
        )
    Console().print(table)
    for face in figures.get("corpus", {}).get("each", []):
        if any(face[figure] < BARS[f"corpus.{bar}"][0] for figure, bar in FACE_BARS.items()):
            Console().print(f"face {face['face']} is misread: {face}")
