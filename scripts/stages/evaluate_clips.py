"""Runs the evaluation for every speaker of a folder in turn: generator and stage 1 are fitted to the first target.share
of the clip and tested on the rest of it. Writes results/<name>/clips.json and clips.md: all rows per clip, means
weighted by duration with bootstrap intervals over clips, and on how many clips the method beats static and ridge.
Speakers in target.controls are scored but left out of the means. A clip that cannot be used is listed with the reason.
Existing reports that were made with the same settings are reused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.schema import Config
from metrics.measures.intervals import weighted_interval, weighted_mean
from metrics.measures.lip_motion import LEAST_DENOMINATOR, lip_gain, lip_gain_denominator
from metrics.report.report_files import COLUMNS, format_figure
from metrics.report.report_schema import ReportError, read_report
from metrics.report.tables import Table
from metrics.scoring.control_baselines import ROWS
from scripts.core.networks import renderer_path, weight_hashes
from scripts.core.provenance import plain, provenance, write_json
from scripts.core.runtime import USER_ERRORS, Run, RunError, sentence, shown
from scripts.stages.adapt_stage1 import demand_speech
from scripts.stages.evaluate import evaluate
from scripts.stages.evaluators import build_judges, judge_hashes
from scripts.stages.face import face_of_data
from scripts.stages.scored_clips import chosen_clips, trained_elsewhere
from scripts.stages.stage_results import Latents
from scripts.stages.train_stage2 import train_stage2

SPLIT = "tuned"
LISTED = (
    *("lmd_mouth", "lip_gain", "mouth_corr", "mouth_corr_best", "mouth_lag", "aperture_spread_ratio"),
    *("width_corr", "closure_recall", "psnr", "identity", "sface"),
)
AGAINST = (("static", "lmd_mouth", -1), ("ridge", "mouth_corr", 1), ("stage1_base", "mouth_corr", 1))
PERSONAL = frozenset(("tuned", "adapted"))  # weights that differ between speakers
HOW_COMPUTED = ("resume", "workers", "threads", "device", "debug")  # settings that do not change any figure
Figures = dict[str, float | None]


def evaluate_clips(
    config: Config, run: Run, latents: Latents, training: Latents | None, checkpoint: Path
) -> Path:
    """Writes clips.json for all speakers of the folder and returns its path. training: the codes that stage 1 was
    trained on.
    """
    if not trained_elsewhere(latents, config):
        raise RunError(
            "Stage 1 would be trained on the clips that it is tested on: give stage1.source=shipped (experiment=own_clip) or "
            "stage1.weights=FILE."
        )
    files = {"renderer": renderer_path(config, run), "trajectory": checkpoint}
    if config.adapted not in ("auto", "none"):
        files["adapted"] = Path(config.adapted)
    judges = judge_hashes(config, build_judges(config, run.device))
    made_with = weight_hashes(config, **files) | judges | {"latents": latents.name}
    speakers = list(dict.fromkeys(entry.speaker for entry in latents.entries()))
    if unknown := [name for name in config.target.controls if name not in speakers]:
        raise RunError(
            f"target.controls={unknown[0]} has no usable clip; the speakers are {', '.join(speakers)}."
        )
    # Each speaker has a results folder of their own, so stage 1 is given as a file and not by the name of its run.
    config = replace(config, stage1=replace(config.stage1, weights=str(checkpoint)), photo=None, clip=None)
    clips: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, name in enumerate(speakers, 1):
        speaker_config = replace(config, target=replace(config.target, speaker=name))
        folder = run.results / "clips" / name.replace("/", "_")
        run.say(f"--- {name} ({number} of {len(speakers)})")
        try:
            report = _finished(folder, speaker_config, made_with) or _evaluate_speaker(
                speaker_config, replace(run, results=folder), latents, training, checkpoint
            )
        except USER_ERRORS as error:
            failed[name] = sentence(error)
            run.say(f"{name} is left out: {failed[name]}")
            continue
        clips += records(report, control=name in config.target.controls)
    if not clips:
        raise RunError(f"No clip could be scored: {'; '.join(f'{n}: {why}' for n, why in failed.items())}")
    content = gather(clips) | {"failed": failed, "config": plain(config), **provenance()}
    path = run.results / "clips.json"
    write_json(path, content)
    table = clips_table(content)
    table.write(path.with_suffix(""))
    run.say(table.markdown())
    run.say(f"clips: {shown(path)}")
    return path


def _evaluate_speaker(
    config: Config, run: Run, latents: Latents, training: Latents | None, checkpoint: Path
) -> dict[str, Any]:
    """Runs stage 2 and the evaluation for one speaker (target.speaker); returns the report."""
    chosen = chosen_clips(latents, config)
    face = face_of_data(config, latents)
    demand_speech(face, config)
    person = train_stage2(config, run, face, checkpoint)
    return read_report(evaluate(config, run, chosen, latents, training, checkpoint, person))


def _finished(folder: Path, config: Config, made_with: Mapping[str, str]) -> dict[str, Any] | None:
    """An existing report with the same settings, weights and codes; None if there is none or with resume=none."""
    if config.resume == "none" or not (folder / "report.json").is_file():
        return None
    try:
        report = read_report(folder / "report.json")
    except ReportError:
        return None
    report_weights = dict(report["weights"]) | {"latents": report.get("data", {}).get("latents")}
    for name in PERSONAL.difference(made_with):
        report_weights.pop(name, None)
    same = _figured(report.get("config", {})) == _figured(json.loads(json.dumps(plain(config))))
    return report if same and report_weights == made_with else None


def _figured(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine a clip's figures: all except HOW_COMPUTED and the choice of control clips."""
    target = dict(config.get("target", {})) | {"controls": None}
    return {key: value for key, value in config.items() if key not in HOW_COMPUTED} | {"target": target}


def records(report: Mapping[str, Any], control: bool) -> list[dict[str, Any]]:
    """One record for each clip and row of a report: clip, row, frames, control, figures including the clip's
    lip_gain and what it divides by.
    """
    tuned = [r for r in report["clips"] if r["split"] == SPLIT]
    distance = {(r["clip"], r["row"]): r["figures"]["lmd_mouth"] for r in tuned}
    listed = []
    for r in sorted(tuned, key=lambda r: ROWS.index(r["row"])):
        static, inversion = (distance.get((r["clip"], row)) for row in ("static", "inversion"))
        gain = {
            "lip_gain": lip_gain(r["figures"]["lmd_mouth"], static, inversion),
            "lip_gain_denominator": lip_gain_denominator(static, inversion),
        }
        listed.append(
            {
                "clip": r["clip"],
                "row": r["row"],
                "frames": r["n_frames"],
                "control": control,
                "figures": {**r["figures"], **gain},
            }
        )
    return listed


def gather(clips: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """clips: the records; rows: means over the clips that are no controls, weighted by their frames; against: paired
    differences between the method and other rows, with the number of clips on which the method is better.
    """
    counted = [r for r in clips if not r["control"]]
    rows = []
    for row in (name for name in ROWS if any(r["row"] == name for r in counted)):
        of_row = [r for r in counted if r["row"] == row]
        weights = [r["frames"] for r in of_row]
        record: dict[str, Any] = {"row": row, "clips": len(of_row), "frames": sum(weights), "interval": {}}
        for column in COLUMNS:
            values = [r["figures"].get(column) for r in of_row]
            record[column] = weighted_mean(values, weights)
            if span := weighted_interval(values, weights):
                record["interval"][column] = span
        rows.append(record)
    against = [_against(counted, *rival) for rival in AGAINST]
    return {"clips": list(clips), "rows": rows, "against": [entry for entry in against if entry]}


def _against(clips: Sequence[Mapping[str, Any]], rival: str, column: str, sign: int) -> dict[str, Any] | None:
    """Paired differences full - rival in one column. sign: sign of a difference that means better; 0 is a tie."""
    method, other = (
        {r["clip"]: r for r in clips if r["row"] == row and r["figures"].get(column) is not None}
        for row in ("full", rival)
    )
    shared = [name for name in method if name in other]
    if not shared:
        return None
    gaps = [method[n]["figures"][column] - other[n]["figures"][column] for n in shared]
    weights = [method[n]["frames"] for n in shared]
    return {
        "row": "full",
        "against": rival,
        "measure": column,
        "mean": weighted_mean(gaps, weights),
        "interval": weighted_interval(gaps, weights),
        "better_on": [name for name, gap in zip(shared, gaps, strict=True) if sign * gap > 0],
        "clips": shared,
    }


def clips_table(content: Mapping[str, Any]) -> Table:
    """All clips and the means over them; notes: the paired comparisons, and the clips that were left out."""
    lines = []
    for r in content["clips"]:
        name = f"{r['clip']} (control)" if r["control"] else r["clip"]
        figures = (format_figure(c, r["figures"].get(c)) for c in LISTED)
        lines.append([name, r["row"], str(r["frames"]), *figures])
    for row in content["rows"]:
        figures = (format_figure(c, row[c], row["interval"].get(c)) for c in LISTED)
        lines.append([f"all {row['clips']}, by duration", row["row"], str(row["frames"]), *figures])
    notes = [
        f"{entry['row']} is better than {entry['against']} in {entry['measure']} on {len(entry['better_on'])} of "
        f"{len(entry['clips'])} clips ({', '.join(entry['better_on']) or 'none'}); difference "
        f"{format_figure(entry['measure'], entry['mean'], entry['interval'])}"
        for entry in content["against"]
    ]
    notes += [f"{name} was left out: {reason}" for name, reason in content.get("failed", {}).items()]
    denominators = {r["clip"]: r["figures"].get("lip_gain_denominator") for r in content["clips"]}
    notes += [
        f"{clip} has no lip_gain: in lmd_mouth inversion is {gap:.2f} px better than static, and {LEAST_DENOMINATOR} px are "
        "needed"
        for clip, gap in denominators.items()
        if gap is not None and gap < LEAST_DENOMINATOR
    ]
    notes.append("Controls are left out of the means. Intervals: 95 %, clips drawn with replacement")
    return Table(("clip", "row", "frames", *LISTED), lines, notes, words=2)
