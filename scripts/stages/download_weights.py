"""Fetches one file of the catalogue of public weights, or lists the catalogue, as scripts/download_weights.py describes."""

import http.client
from pathlib import Path

import torch

from configs.schema import Config
from scripts.core.runtime import Run, shown
from stylegan2.public.catalogue import CATALOGUE, FOLDER, Entry, entry_of, folders, path_of, state_of
from stylegan2.weights import WeightsError, file_hash


def download_weights(config: Config, run: Run) -> Path | None:
    if config.entry is None:
        list_catalogue()
        run.say("Choose one with entry=NAME.")
        return None
    entry, path = entry_of(config.entry), path_of(config.entry)
    run.say(f"{entry.what}: {entry.url}\nterms: {entry.licence}; please cite: {entry.citation}")
    if not path.is_file():
        fetch(entry, path)
    digest, expected = file_hash(path), entry.sha256 or ""
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} has sha256 {digest[:16]}, expected {expected[:16]}: delete it and run the command again."
        )
    verdict = "as expected" if expected else "the catalogue has none: compare it with the authors' file"
    run.say(f"{shown(path)}\nsha256 {digest}, {verdict}")
    return path


def list_catalogue() -> None:
    """Prints every entry and whether its file is present."""
    print(
        f"  looked for in {', '.join(shown(folder) for folder in folders())} ({FOLDER}=FOLDER adds a folder)"
    )
    for name, entry in CATALOGUE.items():
        known = entry.sha256[:12] if entry.sha256 else "unknown"
        size = f"{entry.megabytes} MB" if entry.megabytes else "size unknown"
        print(f"  {name:<20} {state_of(name):<32} {entry.what}, {size}, sha256 {known}; {entry.licence}")
        if path_of(name).is_file():
            print(f"  {'':<20} {shown(path_of(name))}")


def fetch(entry: Entry, target: Path) -> None:
    """Downloads a file with a progress bar. `target` exists only if the file is complete and has the entry's hash.

    Raises WeightsError, which says how to get the file by hand.
    """
    by_hand = (
        f"fetch it in a browser and put it at {target}, or name a folder that has it with {FOLDER}=FOLDER"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(entry.url, str(target), hash_prefix=entry.sha256)
    except RuntimeError as error:  # torch.hub raises it for another hash
        raise WeightsError(
            f"{entry.url} sent another file than the one in the catalogue ({error}); it was deleted: {by_hand}."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"{entry.url} cannot be fetched ({error}), this machine may be offline: {by_hand}."
        ) from error
    with open(target, "rb") as file:
        is_page = file.read(512).lstrip()[:1] == b"<"
    if is_page:  # a confirmation page of the file host; a file with a known hash was already checked above
        target.unlink()
        raise WeightsError(f"{entry.url} answers with a web page instead of {entry.file}: {by_hand}.")
