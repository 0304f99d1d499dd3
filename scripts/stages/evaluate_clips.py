"""Every speaker of a folder in turn, as run_pipeline.py treats one: generator and stage 1 are fitted to the first
target.share of the clip and tested on the rest of it. Writes results/<name>/clips.json and clips.md: all rows per clip,
means weighted by duration with bootstrap intervals over clips, and on how many clips the method beats static and ridge.
Speakers in target.controls are scored but kept out of the means. A clip that cannot be used is listed with the reason.
Reports that are there already, made with the same settings, are not made again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.schema import Config
from metrics.measures.intervals import weighted_interval, weighted_mean
from metrics.measures.lip_motion import lip_gain
from metrics.report.report_files import COLUMNS
from metrics.report.report_files import format_figure as figure
from metrics.report.report_schema import ReportError, read_report
from metrics.scoring.control_baselines import ROWS
from scripts.core.networks import renderer_path, weight_hashes
from scripts.core.provenance import plain, provenance, write_json
from scripts.core.runtime import USER_ERRORS, Run, RunError, sentence, shown
from scripts.stages.adapt_stage1 import demand_speech
from scripts.stages.evaluate import evaluate
from scripts.stages.evaluators import judge_hashes, the_judges
from scripts.stages.face import face_of_data
from scripts.stages.scored_clips import chosen_clips, trained_elsewhere
from scripts.stages.stage_results import Latents
from scripts.stages.train_stage2 import train_stage2
from stylegan2.weights import atomic_path

SPLIT = "tuned"
LISTED = ("lmd_mouth", "lip_gain", "mouth_corr", "width_corr", "closure_recall", "psnr", "identity")
AGAINST = (("static", "lmd_mouth", -1), ("ridge", "mouth_corr", 1), ("stage1_base", "mouth_corr", 1))
PERSONAL = frozenset(("tuned", "adapted"))  # weights that each speaker has of their own
HOW_COMPUTED = ("resume", "workers", "threads", "device", "debug")  # settings that decide no figure
Figures = dict[str, float | None]


def evaluate_clips(
    config: Config, run: Run, latents: Latents, training: Latents | None, checkpoint: Path
) -> Path:
    """clips.json of every speaker of the folder. training: the codes that stage 1 was trained on."""
    if not trained_elsewhere(latents, config):
        raise RunError(
            "Stage 1 would learn the clips that it is tested on: give stage1.source=embedded (experiment=own_clip) or "
            "stage1.weights=FILE."
        )
    files = {"renderer": renderer_path(config, run), "trajectory": checkpoint}
    if config.adapted not in ("auto", "none"):
        files["adapted"] = Path(config.adapted)
    judges = judge_hashes(config, the_judges(config, run.device))
    made_with = weight_hashes(config, **files) | judges | {"latents": latents.name}
    speakers = list(dict.fromkeys(entry.speaker for entry in latents.entries()))
    if unknown := [name for name in config.target.controls if name not in speakers]:
        raise RunError(
            f"target.controls={unknown[0]} has no usable clip; the speakers are {', '.join(speakers)}."
        )
    # Each speaker has a folder of results, so stage 1 is named by its file and not by the run beside it.
    config = replace(config, stage1=replace(config.stage1, weights=str(checkpoint)), photo=None, clip=None)
    clips: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, name in enumerate(speakers, 1):
        one = replace(config, target=replace(config.target, speaker=name))
        folder = run.results / "clips" / name.replace("/", "_")
        run.say(f"--- {name} ({number} of {len(speakers)})")
        try:
            report = _finished(folder, one, made_with) or _evaluate_speaker(
                one, replace(run, results=folder), latents, training, checkpoint
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
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(markdown(content), encoding="utf-8")
    run.say(markdown(content))
    run.say(f"clips: {shown(path)}")
    return path


def _evaluate_speaker(
    config: Config, run: Run, latents: Latents, training: Latents | None, checkpoint: Path
) -> dict[str, Any]:
    """Stage 2 and the evaluation of one speaker (target.speaker); the report."""
    chosen = chosen_clips(latents, config)
    face = face_of_data(config, latents)
    demand_speech(face, config)
    person = train_stage2(config, run, face, training, checkpoint)
    return read_report(evaluate(config, run, chosen, latents, training, checkpoint, person))


def _finished(folder: Path, config: Config, made_with: Mapping[str, str]) -> dict[str, Any] | None:
    """A report of these very settings, weights and codes, unless everything is to be made anew."""
    if config.resume == "none" or not (folder / "report.json").is_file():
        return None
    try:
        report = read_report(folder / "report.json")
    except ReportError:
        return None
    told = dict(report["weights"]) | {"latents": report.get("data", {}).get("latents")}
    for name in PERSONAL.difference(made_with):
        told.pop(name, None)
    same = _figured(report.get("config", {})) == _figured(json.loads(json.dumps(plain(config))))
    return report if same and told == made_with else None


def _figured(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config decides a clip's figures: neither how they are computed nor which clips are controls."""
    target = dict(config.get("target", {})) | {"controls": None}
    return {key: value for key, value in config.items() if key not in HOW_COMPUTED} | {"target": target}


def records(report: Mapping[str, Any], control: bool) -> list[dict[str, Any]]:
    """One record a clip and row of a report: clip, row, frames, control, figures with the clip's own lip_gain."""
    mine = [r for r in report["clips"] if r["split"] == SPLIT]
    distance = {(r["clip"], r["row"]): r["figures"]["lmd_mouth"] for r in mine}
    return [
        {
            "clip": r["clip"],
            "row": r["row"],
            "frames": r["n_frames"],
            "control": control,
            "figures": {
                **r["figures"],
                "lip_gain": lip_gain(
                    r["figures"]["lmd_mouth"],
                    *(distance.get((r["clip"], row)) for row in ("static", "inversion")),
                ),
            },
        }
        for r in sorted(mine, key=lambda r: ROWS.index(r["row"]))
    ]


def gather(clips: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """clips: the records; rows: means over the clips that are no controls, weighted by their frames; against: the
    method's paired differences from other rows and on how many of the clips it is better."""
    counted = [r for r in clips if not r["control"]]
    rows = []
    for row in (name for name in ROWS if any(r["row"] == name for r in counted)):
        mine = [r for r in counted if r["row"] == row]
        weights = [r["frames"] for r in mine]
        record: dict[str, Any] = {"row": row, "clips": len(mine), "frames": sum(weights), "interval": {}}
        for column in COLUMNS:
            values = [r["figures"].get(column) for r in mine]
            record[column] = weighted_mean(values, weights)
            if span := weighted_interval(values, weights):
                record["interval"][column] = span
        rows.append(record)
    against = [_against(counted, *rival) for rival in AGAINST]
    return {"clips": list(clips), "rows": rows, "against": [entry for entry in against if entry]}


def _against(clips: Sequence[Mapping[str, Any]], rival: str, column: str, sign: int) -> dict[str, Any] | None:
    """full - rival in one column; better where the sign of the difference is `sign` (0: as good)."""
    ours, theirs = (
        {r["clip"]: r for r in clips if r["row"] == row and r["figures"].get(column) is not None}
        for row in ("full", rival)
    )
    shared = [name for name in ours if name in theirs]
    if not shared:
        return None
    gaps = [ours[n]["figures"][column] - theirs[n]["figures"][column] for n in shared]
    weights = [ours[n]["frames"] for n in shared]
    return {
        "row": "full",
        "against": rival,
        "measure": column,
        "mean": weighted_mean(gaps, weights),
        "interval": weighted_interval(gaps, weights),
        "better_on": [name for name, gap in zip(shared, gaps, strict=True) if sign * gap > 0],
        "clips": shared,
    }


def markdown(content: Mapping[str, Any]) -> str:
    """One table of all clips and the means, then what was compared."""
    head = ["clip", "row", "frames", *LISTED]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for r in content["clips"]:
        name = f"{r['clip']} (control)" if r["control"] else r["clip"]
        lines.append([name, r["row"], str(r["frames"]), *(figure(c, r["figures"].get(c)) for c in LISTED)])
    for row in content["rows"]:
        cells = [_with_interval(c, row[c], row["interval"].get(c)) for c in LISTED]
        lines.append([f"all {row['clips']}, by duration", row["row"], str(row["frames"]), *cells])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    for entry in content["against"]:
        text += (
            f"\n{entry['row']} is better than {entry['against']} in {entry['measure']} on {len(entry['better_on'])} "
            f"of {len(entry['clips'])} clips ({', '.join(entry['better_on']) or 'none'}); difference "
            f"{_with_interval(entry['measure'], entry['mean'], entry['interval'])}.\n"
        )
    for name, reason in content.get("failed", {}).items():
        text += f"\n{name} was left out: {reason}\n"
    return text + "\nControls are kept out of the means. Intervals: 95 %, clips drawn with replacement.\n"


def _with_interval(column: str, value: float | None, span: Sequence[float] | None) -> str:
    if span is None:
        return figure(column, value)
    return f"{figure(column, value)} [{figure(column, span[0])}, {figure(column, span[1])}]"
