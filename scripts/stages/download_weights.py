"""Fetches one file of the catalogue of public weights (stylegan2/public/catalogue.py; without entry= it is listed) into torch's
hub cache, or into the folder that TALKING_HEADS_WEIGHTS names, goes on where it broke off, and checks the hash.
"""

from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from configs.schema import Config
from scripts.core.runtime import Run, shown
from stylegan2.public.catalogue import CATALOGUE, entry_of, has_hash, path_of
from stylegan2.public.download import fetch
from stylegan2.weights import file_hash


def download_weights(config: Config, run: Run) -> Path | None:
    if config.entry is None:
        for name, entry in CATALOGUE.items():
            size = f"{entry.megabytes} MB" if entry.megabytes else "size unknown"
            run.say(f"  {name:<20} {entry.what}, {size}; {entry.licence}")
        run.say("Choose one with entry=NAME.")
        return None
    entry = entry_of(config.entry)
    run.say(f"{entry.what}: {entry.url}\nterms: {entry.licence}; please cite: {entry.citation}")
    found = path_of(config.entry)
    with Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(entry.file, total=entry.size)
        path = fetch(
            entry,
            found.parent if found.is_file() else None,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    digest = file_hash(path)
    known = has_hash(entry, digest)
    verdict = (
        f"as known from {entry.known_from}" if known else "unknown to the catalogue: compare it yourself"
    )
    run.say(f"{shown(path)}\nsha256 {digest}, {verdict}")
    return path
