"""The project's readers in a process of their own, limited in memory, whose outcome for one input is told in words."""

import contextlib
import io
import os
import resource
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LONGEST_S = 60.0  # for one input
MEMORY = 3 * 2**30  # bytes of addresses beyond what the imports take; a photo of 250 megapixels takes a third


class ReaderProcess:
    """Reads inputs one after another in a process that is started again after one that it did not survive."""

    def __init__(self, folder: Path) -> None:
        """folder: empty; the process has it as its current folder and as its folder for temporary files."""
        self.folder = folder
        self._process: Any = None

    def outcome(self, kind: str, given: Any) -> str:
        """ "read", "refused: SENTENCE", or what must not happen: a traceback, "ended", "took too long".

        kind: a key of `_readers`; given: a path, for "settings" the words of a command line.
        """
        if self._process is None:
            context = get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other, self.folder), daemon=True)
            self._process.start()
            other.close()
            assert self._connection.poll(300) and self._connection.recv() == "ready"
        self._connection.send((kind, given))
        try:
            if self._connection.poll(LONGEST_S):
                return self._connection.recv()
            told = f"took longer than {LONGEST_S:g} s"
        except EOFError:
            self._process.join()
            told = f"ended with code {self._process.exitcode}"
        self.close()
        return told

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(connection: Connection, folder: Path) -> None:
    os.environ |= {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = (
        f"{folder}-torch"  # torch makes this folder, empty, when it is imported
    )
    os.chdir(folder)
    readers = _readers()
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    connection.send("ready")
    while True:
        try:
            kind, given = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(readers[kind], given))


def _outcome(read: Callable[[Any], Any], given: Any) -> str:
    from scripts.core.runtime import USER_ERRORS, sentence

    try:
        read(given)
    except USER_ERRORS as error:
        return f"refused: {sentence(error)}"
    except BaseException:
        return traceback.format_exc()
    return "read"


def _readers() -> dict[str, Callable[[Any], Any]]:
    import torch
    from brightness_face import Reader

    from encoders.footage.faces import DlibDetector
    from encoders.footage.prepare import PrepareConfig, align_photo, prepare_clip, read_photo
    from encoders.footage.video_reader import own_rate, read_audio
    from encoders.manifest import read_manifest
    from encoders.networks.e4e_compact import load_encoder
    from encoders.records import FrameClip, LatentClip
    from metrics.report.report_schema import read_report
    from scripts.core.runtime import keep_freed_memory, launch
    from scripts.stages.generate import read_speech
    from stylegan2.load import load_generator
    from stylegan2.public.checkpoints import read_public_checkpoint
    from trajectory.model.predictor import load_trajectory
    from trajectory.motion.natural_motion import load_natural_motion
    from tuning.tuned_weights import load_tuned

    torch.set_num_threads(1)
    keep_freed_memory()
    detector, base = DlibDetector(), load_generator()
    easily = PrepareConfig(min_frames=1, sync="none", size=64)

    def photo(path: Path) -> None:
        align_photo(read_photo(path), detector, path)

    def video(path: Path) -> None:
        own_rate(path)
        prepare_clip(path, Reader(), "clip", "speaker", "sentence", "train", easily)

    def public(path: Path) -> None:
        checkpoint = read_public_checkpoint(path)
        for name in checkpoint.networks:
            checkpoint.build(name)

    def settings(words: list[str]) -> None:
        """As a script does it: code 1 and one line on stderr, or none of both."""
        sys.argv[1:] = words
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                launch(lambda config: None, computes=False)
        except SystemExit as error:
            assert error.code == 1
            lines = said.getvalue().splitlines()
            assert len(lines) == 1 and lines[0].startswith("Error: "), lines
            raise OSError(lines[0]) from None

    return {
        "photo": photo,
        "sound": read_speech,
        "sound of a video": read_audio,
        "video": video,
        "generator": load_generator,
        "encoder": load_encoder,
        "trajectory": load_trajectory,
        "tuned": lambda path: load_tuned(path, base, "base"),
        "frame clip": lambda path: np_frames(FrameClip.load(path)),
        "latent clip": LatentClip.load,
        "manifest": read_manifest,
        "report": read_report,
        "motion": load_natural_motion,
        "public": public,
        "settings": settings,
    }


def np_frames(clip: Any) -> None:
    for _ in clip.frames:
        pass
