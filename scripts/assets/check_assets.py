"""Measures the embedded weights again and compares each figure with its limit (scripts/check_assets.py)."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from configs.schema import Config
from encoders.bases.viseme_basis import MOUTH_AXES, VISEMES, load_viseme_basis
from scripts.assets.face_checks import encoder_on_clips, encoder_on_samples, generator_against
from scripts.assets.likeness_checks import likeness
from scripts.assets.motion_checks import motion
from scripts.assets.mouth_checks import corpus, visemes
from scripts.core.networks import build_detector, build_encoder, build_generator, encoder_path, generator_path
from scripts.core.provenance import provenance, write_json
from scripts.core.runtime import Run, shown
from stylegan2.embedded.openvino_ir import load_uncut_generator
from stylegan2.weights import file_hash

# Figure -> its limit (bar): (">=" or "<=", value).
BARS: dict[str, tuple[str, float]] = {
    "generator.psi_0.7.st_lpips_alex": ("<=", 0.06),
    "generator.psi_0.7.identity_median": ("<=", 0.35),
    "generator.psi_0.7.diversity": (">=", 0.8),
    "generator.psi_0.7.sharpness": (">=", 0.6),
    "encoder.samples.st_lpips_alex": ("<=", 0.15),
    "encoder.samples.identity_median": ("<=", 0.35),
    "visemes.open.aperture_reach": (">=", 0.8),
    "visemes.wide.width_reach": (">=", 0.8),
    "visemes.round.width_reach": (">=", 0.8),
    **{f"visemes.{axis}.outside_px": ("<=", 1.5) for axis in MOUTH_AXES},
    **{f"visemes.{axis}.identity": ("<=", 0.25) for axis in MOUTH_AXES},
    "corpus.detection_rate": (">=", 1.0),
    "corpus.worst_aperture_corr": (">=", 0.9),
    "corpus.least_aperture_std": (">=", 0.05),
    "motion.synthetic.identity_worse": ("<=", 0.03),
    "motion.synthetic.lips": (">=", 0.98),
    "motion.clips.identity_worse": ("<=", 0.03),
    "motion.clips.mouth_corr_worse": ("<=", 0.02),
}
# Figure of a single face -> the entry of BARS that limits it.
FACE_BARS = {
    "detection_rate": "corpus.detection_rate",
    "aperture_corr": "corpus.worst_aperture_corr",
    "aperture_std": "corpus.least_aperture_std",
}


def check_assets(config: Config, run: Run) -> Path:
    """Returns the JSON file of the figures."""
    path = Path(config.output) if config.output else run.results / "assets.json"
    figures: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    )
    generator, detector = build_generator(config, run), build_detector(config.data)
    files = {"generator": generator_path(config), "encoder": encoder_path(config), "visemes": VISEMES}
    about = {"device": str(run.device), "threads": torch.get_num_threads(), "seconds": run.seconds}
    about |= {"weights": {name: file_hash(file) for name, file in files.items()}}
    for what in config.check.what:
        with run.timed(what):
            if what == "generator":
                uncut = load_uncut_generator().to(run.device)
                figures[what] = {}
                for psi in config.check.psi:
                    sheet = path.with_name(f"generator_psi_{psi}.png")
                    measured = generator_against(uncut, generator, psi, config, detector, sheet)
                    figures[what][f"psi_{psi}"] = measured
            elif what == "encoder":
                encoder = build_encoder(config, run)
                figures[what] = {"samples": encoder_on_samples(encoder, generator, config, detector)}
                if config.data.kind == "folder":
                    figures[what]["clips"] = encoder_on_clips(encoder, generator, config, run, detector)
            elif what == "visemes":
                sheet = path.with_name("visemes.png")
                figures[what] = visemes(config, generator, load_viseme_basis(), detector, sheet)
            elif what == "motion":
                figures[what] = motion(config, run, detector, path.with_name("motion.png"))
            elif what == "likeness":
                sheet = path.with_name("likeness.png")
                figures[what] = likeness(config, run, generator, load_viseme_basis(), detector, sheet)
            else:
                figures[what] = corpus(config, generator, load_viseme_basis(), detector)
        write_json(path, {"figures": figures, "bars": against_bars(figures)} | about | provenance())
    if run.first:
        show(figures)
    run.say(f"figures: {shown(path)}")
    return path


def meets(value: float, bar: tuple[str, float]) -> bool:
    return value >= bar[1] if bar[0] == ">=" else value <= bar[1]


def against_bars(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Value, limit and whether it is met, for every limit in BARS whose figure was measured."""
    result = {}
    for name, bar in BARS.items():
        part, rest = name.split(".", 1)  # only the middle key may contain dots
        value: Any = figures
        for key in (part, *rest.rsplit(".", 1)):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            result[name] = {"value": value, "bar": bar[1], "met": meets(value, bar)}
    return result


def show(figures: dict[str, Any]) -> None:
    table = Table("figure", "value", "bar", "met")
    for name, row in against_bars(figures).items():
        bar = f"{BARS[name][0]} {row['bar']}"
        table.add_row(name, f"{row['value']:.4f}", bar, "yes" if row["met"] else "NO")
    Console().print(table)
    for face in figures.get("corpus", {}).get("each", []):
        if not all(meets(face[figure], BARS[bar]) for figure, bar in FACE_BARS.items()):
            Console().print(f"face {face['face']} misses a limit: {face}")
