"""The report as one HTML page that opens from disk: no script or style from elsewhere, relative links only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote

from metrics.report.report_files import COLUMNS, footnotes, shown

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 13px } th, td { padding: .25rem .6rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr:nth-child(even) { background: #f4f4f2 }
td { white-space: nowrap } td small { color: #777; margin-left: .5rem }
.what, th:last-child { white-space: normal; text-align: left; color: #555; font-size: 12px }
.wide { overflow-x: auto } .pair { display: flex; gap: .5rem; flex-wrap: wrap } figure { margin: 0 0 .5rem }
video { width: 20rem; max-width: 100%; background: #000 } img { max-width: 100% } .bad { color: #b3261e }
section { border-top: 1px solid #ccc; margin-top: 1.5rem }
"""
# Both videos of a pair start, stop and jump together; the left one leads.
SCRIPT = """
for (const pair of document.querySelectorAll('.pair')) {
  const [lead, ...rest] = pair.querySelectorAll('video');
  if (!lead) continue;
  const each = action => rest.forEach(action);
  lead.addEventListener('play', () => each(v => { v.currentTime = lead.currentTime; v.play(); }));
  lead.addEventListener('pause', () => each(v => v.pause()));
  lead.addEventListener('seeked', () => each(v => { v.currentTime = lead.currentTime; }));
}
"""
SHOWN = (
    *("psnr", "ssim", "lmd", "lmd_mouth", "mouth_corr", "mouth_corr_best", "mouth_lag"),
    *("sync_confidence", "sync_offset", "lse_c", "lse_offset", "detection_rate"),
)


@dataclass(frozen=True)
class ClipView:
    """One clip of the page. videos: caption -> path, pictures: paths; all relative to the page."""

    name: str
    status: str
    notes: Sequence[str]
    figures: Mapping[str, float | None]
    videos: Mapping[str, str]
    pictures: Sequence[str] = field(default_factory=tuple)


def page(report: Mapping[str, Any], clips: Sequence[ClipView], pictures: Sequence[str] = ()) -> str:
    """report: the content of report.json; pictures: of all clips together, relative paths."""
    title = f"{report.get('method', 'method')} against the truth"
    rows = report["rows"]
    parts = [f"<h1>{escape(title)}</h1>"]
    clips_line = f"{rows[0]['n_clips']} clips of {rows[0].get('n_speakers', '?')} speakers, {rows[0]['n_frames']} frames"
    parts.append(
        f"<p>{escape(clips_line)}; means over clips with their 95 % bootstrap interval; image measures on the {escape(str(report.get('crop', 'face')))} crop.</p>"
    )
    parts += [f'<p class="bad">{escape(line)}</p>' for line in report.get("warnings", [])]
    parts.append(_table(rows))
    parts += [f"<p>{escape(line)}</p>" for line in footnotes(rows, report.get("absent", {}))]
    parts += [f'<p><img src="{_link(path)}" alt="figures of every clip"></p>' for path in pictures]
    parts.append("<h2>Files</h2>" + _files(report.get("files", [])))
    parts += [_section(clip) for clip in clips]
    parts.append("<h2>Rules</h2><dl>")
    parts += [f"<dt><b>{escape(k)}</b></dt><dd>{escape(v)}</dd>" for k, v in report.get("rules", {}).items()]
    parts.append(
        f"</dl><details><summary>Versions and weights</summary><pre>{_made_from(report)}</pre></details>"
    )
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n<script>{SCRIPT}</script>\n</body></html>\n'


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What report.json says of one file: why it was not scored as it is, if so, and its notes."""
    return [*([record["reason"]] if record.get("reason") else []), *record.get("notes", [])]


def _link(path: str) -> str:
    return escape(quote(path))


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a measure, one column a row: thirty measures beside one another would not fit."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in ("", *(str(row["name"]) for row in rows), ""))]
    for name, (definition, _) in COLUMNS.items():
        if all(row.get(name) is None for row in rows):
            continue
        cells = [f"<td>{escape(name)}</td>"]
        for row in rows:
            low, high = (shown(name, end) for end in row.get("interval", {}).get(name, (None, None)))
            spread = f"<small>{low} … {high}</small>" if low != high else ""
            cells.append(f"<td>{shown(name, row.get(name))}{spread}</td>")
        lines.append("".join([*cells, f'<td class="what">{escape(definition)}</td>']))
    return '<div class="wide"><table>' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _files(files: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for record in files:
        if notes := remarks(record):
            kind = "" if record["status"] == "scored" else ' class="bad"'
            lines.append(
                f"<li{kind}><b>{escape(record['name'])}</b> ({record['status']}): {escape('; '.join(notes))}</li>"
            )
    rest = len(files) - len(lines)
    return f"<ul>{''.join(lines)}</ul><p>{rest} files without a remark.</p>"


def _section(clip: ClipView) -> str:
    known = (name for name in SHOWN if clip.figures.get(name) is not None)
    figures = ", ".join(f"{name} {shown(name, clip.figures[name])}" for name in known)
    videos = "".join(
        f'<figure><video controls preload="metadata" src="{_link(path)}"></video><figcaption>{escape(caption)}</figcaption></figure>'
        for caption, path in clip.videos.items()
    )
    pictures = "".join(
        f'<p><img src="{_link(path)}" alt="{escape(clip.name)}"></p>' for path in clip.pictures
    )
    notes = f"<p>{escape('; '.join(clip.notes))}</p>" if clip.notes else ""
    return (
        f"<section><h3>{escape(clip.name)} ({escape(clip.status)})</h3><p>{escape(figures)}</p>{notes}"
        f'<div class="pair">{videos}</div>{pictures}</section>'
    )


def _made_from(report: Mapping[str, Any]) -> str:
    return escape(
        json.dumps({key: report.get(key) for key in ("versions", "weights", "code", "command")}, indent=1)
    )
