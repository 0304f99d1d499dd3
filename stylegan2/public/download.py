"""Fetches one file of the catalogue: goes on where it broke off, checks the hash, and only then gives it its name."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from stylegan2.public.catalogue import FOLDER, Entry, folders, has_hash
from stylegan2.weights import WeightsError, file_hash

CHUNK = 2**20
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all


def fetch(
    entry: Entry, folder: Path | None = None, progress: Progress | None = None, timeout: float = 30
) -> Path:
    """The file, from `folder` (default: the first of catalogue.folders()) or from the network. Raises WeightsError.

    A part that was fetched before is kept as .NAME.part, and the rest is asked for (HTTP Range).
    """
    folder = folders()[0] if folder is None else folder
    target, part = folder / entry.file, folder / f".{entry.file}.part"
    if target.is_file():
        _verify(entry, target)
        return target
    folder.mkdir(parents=True, exist_ok=True)
    by_hand = f"fetch {entry.url} elsewhere and put it at {target}, or name a folder that has it with {FOLDER}=FOLDER"
    try:
        _resume(entry, part, progress, timeout)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{entry.url} answers {error.code} ({error.reason}): {by_hand}.") from error
    except urllib.error.URLError as error:
        raise WeightsError(
            f"{entry.url} cannot be reached ({error.reason}), this machine may be offline: {by_hand}."
        ) from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise WeightsError(
            f"The download of {entry.file} broke off ({type(error).__name__}): the same command goes on from there."
        ) from error
    try:
        _verify(entry, part)
    except WeightsError:
        part.unlink()
        raise
    os.replace(part, target)
    return target


def _resume(entry: Entry, part: Path, progress: Progress | None, timeout: float) -> None:
    """Appends to `part` until it is complete."""
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(entry.url, headers={"User-Agent": "talking-heads"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: there is nothing after `start`
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return
        part.unlink()
        return _resume(entry, part, progress, timeout)
    with response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise WeightsError(
                f"{entry.url} answers with a web page instead of {entry.file}: open it in a browser, and put the file "
                f"at {part.with_name(entry.file)}."
            )
        if response.status != 206:  # the server knows no ranges: from the beginning
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        limit = entry.size or total
        with open(part, "ab" if start else "wb") as file:
            done = start
            while chunk := response.read(CHUNK):
                done += len(chunk)
                if limit is not None and done > limit:
                    break  # larger than announced: the check of the size refuses it
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise WeightsError(
            f"The download of {entry.file} broke off at {done:,} of {total:,} bytes: the same command goes on from there."
        )


def _verify(entry: Entry, path: Path) -> None:
    size, digest = path.stat().st_size, file_hash(path)
    expected = (entry.size, entry.sha256)
    if (entry.size is not None and size != entry.size) or has_hash(entry, digest) is False:
        raise WeightsError(
            f"{entry.file} is not the file that is known: it has {size:,} bytes and sha256 {digest[:16]}, expected "
            f"{f'{expected[0]:,}' if expected[0] else 'any number of'} bytes and {(expected[1] or 'any')[:16]}; "
            "delete it and download it again."
        )
