"""report.json's contract: a version, and a check that names the first thing that is wrong.

Version 2 adds per-clip figures, speakers, paired differences and sync checks to what version 1 held. Version 1 files
carry no number (docs/results/embedded_seed*.json) and are still read.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metrics.scoring.clip_score import MEANS

SCHEMA_VERSION = 2
FIGURES = (*MEANS, "lip_gain", "fid", "kid")
_ROW = {"name": str, "split": str, "n_frames": int, "n_clips": int}
_ROW_2 = _ROW | {"n_speakers": int, "interval": dict, "interval_speakers": dict}
_TOP = {"rows": list, "weights": dict, "versions": dict, "measures": dict}
_TOP_2 = _TOP | {"clips": list, "paired": list, "sync": list}
_CLIP = {"row": str, "split": str, "clip": str, "speaker": str, "n_frames": int, "figures": dict}


class ReportError(ValueError):
    """A report that is not what it should be; the message names the place."""


def check_report(report: Any, where: str = "report") -> int:
    """The schema version of a report that is in order; ReportError otherwise."""
    if not isinstance(report, Mapping):
        raise ReportError(f"{where} is {type(report).__name__}, expected an object")
    version = report.get("schema_version", 1)
    if version not in (1, SCHEMA_VERSION):
        raise ReportError(f"{where} has schema version {version!r}, this code reads 1 and {SCHEMA_VERSION}")
    new = version == SCHEMA_VERSION
    _fields(report, _TOP_2 if new else _TOP, where)
    for index, row in enumerate(report["rows"]):
        place = f"{where}.rows[{index}]"
        _fields(row, _ROW_2 if new else _ROW, place)
        _figures(row, place)
        if row["n_clips"] < 1:
            raise ReportError(f"{place}.n_clips is {row['n_clips']}, expected at least 1")
        for key, span in [*row.get("interval", {}).items(), *row.get("interval_speakers", {}).items()]:
            if len(span) != 2 or None in span or not span[0] <= span[1]:
                raise ReportError(f"{place}: the interval of {key} is {span}, expected [low, high]")
    if new:
        _clips(report, where)
    return version


def _clips(report: Mapping[str, Any], where: str) -> None:
    count: dict[tuple[str, str], int] = {}
    for index, clip in enumerate(report["clips"]):
        place = f"{where}.clips[{index}]"
        _fields(clip, _CLIP, place)
        _figures(clip["figures"], f"{place}.figures")
        key = clip["row"], clip["split"]
        count[key] = count.get(key, 0) + 1
    for row in report["rows"]:
        got = count.get((row["name"], row["split"]), 0)
        if got != row["n_clips"]:
            raise ReportError(
                f"{where}: row {row['name']} ({row['split']}) is a mean over {row['n_clips']} clips, {got} are listed"
            )


def _fields(record: Any, wanted: Mapping[str, type], where: str) -> None:
    if not isinstance(record, Mapping):
        raise ReportError(f"{where} is {type(record).__name__}, expected an object")
    for key, kind in wanted.items():
        if key not in record:
            raise ReportError(f"{where} lacks {key}")
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            raise ReportError(f"{where}.{key} is {record[key]!r}, expected {kind.__name__}")


def _figures(record: Mapping[str, Any], where: str) -> None:
    for key in FIGURES:
        value = record.get(key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not number:
            raise ReportError(f"{where}.{key} is {value!r}, expected a finite number or null")


def read_report(path: str | Path) -> dict[str, Any]:
    """A report.json that is in order. Raises ReportError."""
    path = Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ReportError(f"{path} is no JSON file ({error}); give a report.json of evaluate.py") from error
    check_report(report, str(path))
    return report
