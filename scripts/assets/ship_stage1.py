"""Makes the stage-1 models that come with the project: trains one (experiment=shipped, or shipped_streaming for live sound)
and writes it to trajectory/assets as float16, with its lineage.
"""

from dataclasses import replace
from pathlib import Path

from configs.schema import Config
from scripts.core.runtime import Run, RunError, shown
from scripts.stages.standalone import train_stage1_alone
from stylegan2.weights import file_hash, read_weights
from trajectory.model.predictor import load_trajectory, save_trajectory, shipped_stage1

NOTES = {
    "data": "GRID, speaker s1 (Cooke, Barker, Cunningham, Shao 2006, CC BY 4.0), and the embedded synthetic speakers",
    "licence": "moves the embedded generator's W+, so for non-commercial research use only; see docs/models/stage1.md",
    "made_by": "scripts/ship_stage1.py",
}


def ship_stage1(config: Config, run: Run) -> Path:
    """Returns the asset's path. Raises RunError for another experiment."""
    if config.name not in ("shipped", "shipped_streaming"):
        raise RunError(
            "The shipped stage 1 is made by experiment=shipped or experiment=shipped_streaming: give one, with "
            "data.root=FOLDER."
        )
    trained = train_stage1_alone(config, run)
    path = shipped_stage1(streaming=config.name == "shipped_streaming")
    notes = read_weights(trained).notes | NOTES | {"trained": file_hash(trained)}
    model = load_trajectory(trained)
    # The wheel's version fixes the speech encoder; its hash also covers settings that another transformers may add to.
    model.features = replace(model.features, encoder_sha256="")
    save_trajectory(model, path, notes, half=True)
    run.say(f"wrote {shown(path)} ({path.stat().st_size / 1e6:.1f} MB)")
    return path
