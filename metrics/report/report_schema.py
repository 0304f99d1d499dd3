"""The schema of report.json: a version number, and a check that names the first error.

Version 2 adds figures per clip, speakers, paired differences and sync checks to version 1. Version 3 adds columns
(silence, dynamics, sharpness) and means by speaker and by clip length, version 4 the column sface, version 5 the column fvd;
no figure of an earlier version changed. Files of version 1 have no version number (docs/results/embedded_seed*.json). All
versions can still be read.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metrics.scoring.row_accumulator import MEANS

SCHEMA_VERSION = 5
FIGURES = (*MEANS, "lip_gain", "lip_gain_denominator", "fid", "kid", "fvd")
# Required keys and their types, per version
_ROW: dict[int, dict[str, type]] = {1: {"name": str, "split": str, "n_frames": int, "n_clips": int}}
_ROW[2] = _ROW[3] = _ROW[4] = _ROW[5] = _ROW[1] | {
    "n_speakers": int,
    "interval": dict,
    "interval_speakers": dict,
}
_TOP: dict[int, dict[str, type]] = {1: {"rows": list, "weights": dict, "versions": dict, "measures": dict}}
_TOP[2] = _TOP[1] | {"clips": list, "paired": list, "sync": list}
_TOP[3] = _TOP[4] = _TOP[5] = _TOP[2] | {"strata": list, "reencoded": list}
_STRATUM = {
    "row": str,
    "split": str,
    "by": str,
    "stratum": str,
    "n_clips": int,
    "n_frames": int,
    "figures": dict,
}
_CLIP = {"row": str, "split": str, "clip": str, "speaker": str, "n_frames": int, "figures": dict}


class ReportError(ValueError):
    """A report that does not match the schema; the message names the entry."""


def check_report(report: Any, where: str = "report") -> int:
    """The schema version of a valid report. Raises ReportError."""
    if not isinstance(report, Mapping):
        raise ReportError(f"{where} is {type(report).__name__}, expected an object")
    version = report.get("schema_version", 1)
    if version not in _TOP:
        raise ReportError(f"{where} has schema version {version!r}; this code reads 1 to {SCHEMA_VERSION}")
    _check_fields(report, _TOP[version], where)
    for index, row in enumerate(report["rows"]):
        place = f"{where}.rows[{index}]"
        _check_fields(row, _ROW[version], place)
        _check_figures(row, place)
        if row["n_clips"] < 1:
            raise ReportError(f"{place}.n_clips is {row['n_clips']}, expected at least 1")
        for key, span in [*row.get("interval", {}).items(), *row.get("interval_speakers", {}).items()]:
            if not _is_interval(span):
                raise ReportError(f"{place}: the interval of {key} is {span}, expected [low, high]")
    if version > 1:
        _check_clips(report, where)
    for index, stratum in enumerate(report.get("strata", [])):
        place = f"{where}.strata[{index}]"
        _check_fields(stratum, _STRATUM, place)
        _check_figures(stratum["figures"], f"{place}.figures")
    return version


def _check_clips(report: Mapping[str, Any], where: str) -> None:
    """Every clip's record, and that each row's n_clips is the number of its clips."""
    for index, clip in enumerate(report["clips"]):
        place = f"{where}.clips[{index}]"
        _check_fields(clip, _CLIP, place)
        _check_figures(clip["figures"], f"{place}.figures")
    count = Counter((clip["row"], clip["split"]) for clip in report["clips"])
    for row in report["rows"]:
        listed = count[row["name"], row["split"]]
        if listed != row["n_clips"]:
            raise ReportError(
                f"{where}: row {row['name']} ({row['split']}) is a mean over {row['n_clips']} clips, {listed} are listed"
            )


def _check_fields(record: Any, required: Mapping[str, type], where: str) -> None:
    if not isinstance(record, Mapping):
        raise ReportError(f"{where} is {type(record).__name__}, expected an object")
    for key, kind in required.items():
        if key not in record:
            raise ReportError(f"{where} lacks {key}")
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            raise ReportError(f"{where}.{key} is {record[key]!r}, expected {kind.__name__}")


def _check_figures(record: Mapping[str, Any], where: str) -> None:
    for key in FIGURES:
        value = record.get(key)
        if value is not None and not _is_number(value):
            raise ReportError(f"{where}.{key} is {value!r}, expected a finite number or null")


def _is_interval(span: Any) -> bool:
    return (
        isinstance(span, list | tuple)
        and len(span) == 2
        and all(map(_is_number, span))
        and span[0] <= span[1]
    )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )


def read_report(path: str | Path) -> dict[str, Any]:
    """A valid report.json. Raises ReportError."""
    path = Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ReportError(f"{path} is no JSON file ({error}); give a report.json of evaluate.py") from error
    check_report(report, str(path))
    return report
