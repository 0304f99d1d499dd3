"""Selects the clips that evaluate.py scores, and the inputs of the rows of each."""

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from configs.schema import Config
from encoders.manifest import ClipEntry
from metrics.scoring.control_baselines import wrong_audio
from scripts.core.runtime import RunError
from scripts.stages.evaluate_case import Case
from scripts.stages.face import target_clip
from scripts.stages.identity_frames import fitted_frames, portrait_clip
from scripts.stages.stage_results import Face, Latents
from scripts.stages.train_stage1 import trained_on

TRAINING_SPLITS = ("train", "val")  # splits used to train stage 1 or to select its best weights


def chosen_clips(latents: Latents, config: Config) -> list[tuple[ClipEntry, str]]:
    """Test clips and the split under which each is listed, at most metrics.clips of each split.

    Clips that stage 1 was trained on are left out. Each speaker's portrait clip, to which stage 2 and the person's
    offset are fitted, is left out too, unless it is the speaker's only clip. Raises RunError if no clip is left.
    """
    if config.tuned != "auto":
        raise RunError("tuned= is for generate.py: evaluate.py scores the generator that this run tunes.")
    entries = latents.entries()
    target, only = target_clip(entries, config)
    speaker = target.speaker
    portraits = [portrait_clip(entries, name) for name in {e.speaker for e in entries}]
    fitted = {portrait.name for portrait, alone in portraits if not alone}
    test = [e for e in entries if e.split in ("seen", "unseen") and e.name not in fitted]
    chosen: list[tuple[ClipEntry, str]] = []
    if only:  # the user's own footage: the frames of the clip to which nothing was fitted
        chosen = [(target, "tuned")]
        if target.split in TRAINING_SPLITS and not trained_elsewhere(latents, config):
            raise RunError(
                f"Stage 1 was trained on all of {target.name}, the only clip of {speaker}, so it cannot be tested on it: "
                "give stage1.source=shipped (experiment=own_clip), stage1.weights=FILE or more clips."
            )
    else:
        for split in ("seen", "unseen"):
            candidates = [
                e
                for e in test
                if e.split == split and (e.speaker == speaker or not config.metrics.target_only)
            ]
            chosen += [(e, split) for e in spread(candidates, config.metrics.clips)]
        if trained_elsewhere(latents, config):
            candidates = [
                e
                for e in entries
                if e.split in TRAINING_SPLITS and e.speaker == speaker and e.name != target.name
            ]
            chosen += [(e, "tuned") for e in spread(candidates, config.metrics.clips)]
    if not chosen and config.metrics.target_only:
        raise RunError(
            f"With metrics.target_only only {speaker} is scored, and no test clip shows {speaker}: name another "
            "target.speaker, or score all speakers."
        )
    if not chosen:
        raise RunError(
            f"No clip is left to test: every clip was used to train stage 1 or to tune {speaker}'s generator. Give "
            "data.seen or data.unseen a share, or stage1.source=shipped."
        )
    return chosen


def test_cases(
    chosen: list[tuple[ClipEntry, str]], config: Config, latents: Latents, face: Face, adapted: bool = False
) -> list[Case]:
    """The chosen clips with the inputs of their rows; the clips of `face` are scored with the tuned generator too.

    The first frames of a speaker's only clip are left out, because stage 2 or the person's offset was fitted to them.
    adapted: stage 1 was adapted to this person, so their clips are listed as tuned only.
    """
    entries = latents.entries()
    speaker = next(e.speaker for e in entries if e.name == face.clip)
    wrong_clips = _clips_with_other_speech([e for e, _ in chosen], entries)
    cases = []
    for (entry, split), wrong in zip(chosen, wrong_clips, strict=True):
        codes = latents.codes(entry)
        is_target = entry.name == face.clip
        _, alone = portrait_clip(entries, entry.speaker)
        start = fitted_frames(len(codes), config) if alone else 0
        cases.append(
            Case(
                clip=latents.prepared / entry.file,
                latents=latents.folder / entry.file,
                wrong=None if wrong is None else latents.prepared / wrong.file,
                split="tuned" if adapted and entry.speaker == speaker else split,
                start=face.used if is_target else start,
                ref_index=face.ref_index if is_target else codes.ref_index,
                w_ref=face.w_ref if is_target else codes.w_ref,
                full=entry.speaker == speaker,
                keep=False,
            )
        )
    pictured = next((i for i, case in enumerate(cases) if case.full), 0)
    cases[pictured] = replace(cases[pictured], keep=True)
    return cases


def trained_elsewhere(latents: Latents, config: Config) -> bool:
    """Whether stage 1 was trained on none of these clips of any split. A model from a file counts as trained elsewhere
    unless the recipe beside it names these codes."""
    return config.stage1.file is not None and trained_on(Path(config.stage1.file)) != latents.name


def spread(entries: list[ClipEntry], most: int) -> list[ClipEntry]:
    """At most `most` clips, taken from the speakers in turn; each speaker starts one clip later than the previous one.

    Corpora list every speaker's clips in the same order (free sentences before GRID's), so the first clips of all speakers
    would be of one kind.
    """
    of_speaker: dict[str, list[ClipEntry]] = {}
    for entry in entries:
        of_speaker.setdefault(entry.speaker, []).append(entry)
    rotated = [
        clips[i % len(clips) :] + clips[: i % len(clips)] for i, clips in enumerate(of_speaker.values())
    ]
    in_turn = [entry for turn in zip_longest(*rotated) for entry in turn if entry is not None]
    chosen = {entry.name for entry in in_turn[:most]}
    return [entry for entry in entries if entry.name in chosen]


def _clips_with_other_speech(chosen: list[ClipEntry], entries: list[ClipEntry]) -> list[ClipEntry | None]:
    """For each chosen clip a clip with different speech, from the chosen clips or, if only one is chosen, from all
    clips.
    """
    if len(chosen) > 1:
        return [chosen[i] for i in wrong_audio([e.sentence for e in chosen])]
    return [next((o for o in entries if o.sentence != e.sentence), None) for e in chosen]
