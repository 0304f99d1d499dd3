"""Code that every script uses: Hydra's command line, device, precision, seed, result folders, one-sentence errors.

A launcher calls `launch(function)` with a function (config, run) that runs a stage.
"""

import ctypes
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from audio.waveform import AudioError
from configs.schema import Config, register
from configs.typed import build
from encoders.footage.corpora import CorpusError
from encoders.footage.faces import FaceError
from encoders.footage.file_names import legible
from encoders.footage.video_reader import VideoError
from encoders.jpeg_frames import ClipError
from encoders.training.resume import TrainingError
from metrics.report.report_schema import ReportError
from scripts.core.arguments import PATHS, quote_paths
from scripts.core.cpu import computes_bfloat16
from scripts.core.help_text import help_text
from scripts.core.provenance import ROOT
from scripts.core.signals import Ended, unwind_on_signals
from stylegan2.latent_pairs import TrainingImagesError
from stylegan2.weights import WeightsError
from trajectory.model.displacement import TrajectoryError
from tuning.pivotal import TuningError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Item = TypeVar("Item")
BARRIER_TIMEOUT = timedelta(days=2)  # processes that share a corpus finish their parts at different times


class RunError(ValueError):
    """A request that cannot be carried out; the message says why and what to do."""


USER_ERRORS = (
    RunError,
    WeightsError,
    TrainingImagesError,
    AudioError,
    VideoError,
    CorpusError,
    FaceError,
    ClipError,
    ReportError,
    TrainingError,
    TrajectoryError,
    TuningError,
    OSError,
)


@dataclass(frozen=True)
class Run:
    """Where a stage writes, the devices and processes that it computes on, and the seconds that each stage took."""

    results: Path  # results/<name>
    data: Path  # cache folders, named by the hash of their content
    fabric: "Fabric"
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files which all processes share."""
        return self.fabric.is_global_zero

    def own_share(self, items: Sequence[Item]) -> list[Item]:
        """The items that this process works on: every world_size-th one."""
        return list(items[self.fabric.global_rank :: self.fabric.world_size])

    def barrier(self) -> None:
        """Waits for the other processes."""
        self.fabric.barrier()

    def say(self, text: str) -> None:
        """Prints one line about the progress, on the first process only."""
        self.fabric.print(legible(text), flush=True)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall-clock seconds of one stage to `seconds`."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 2)


def launch(stage: Callable[..., Any], computes: bool = True, settings: Sequence[str] = ()) -> None:
    """Runs a script: composes the config from the command line, then the stage; exit code 1 after a user's error.

    computes: False for a stage (config), which needs no device, seeds or results folder; the others are called with
    (config, run). settings: defaults of this script, name=value, which the command line overrides.
    """
    unwind_on_signals()
    register()
    sys.argv[1:] = [*settings, *quote_paths(sys.argv[1:])]

    def task(raw: DictConfig) -> None:
        code = attempt(stage, raw, computes)
        if code:
            sys.exit(code)

    helps = not {"-h", "--help"}.isdisjoint(sys.argv[1:])
    words = [word for word in sys.argv[1:] if not (helps and word.startswith("-"))]
    if any(word.startswith(("-", "hydra")) for word in words):
        # Sweeps (-m) and settings of Hydra's own are Hydra's task, which also reports errors in them.
        hydra.main(version_base="1.3", config_path=str(ROOT / "configs"), config_name="config")(task)()
        return
    try:
        raw = compose(words)
    except Exception as error:  # Hydra and OmegaConf raise many types for words that they cannot read
        print(f"Error: {legible(_misread(error, words))}", file=sys.stderr)
        sys.exit(1)
    if helps:
        print(help_text(sys.modules["__main__"].__doc__ or "", raw))
    else:
        task(raw)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a command line, in this process (tests and notebooks)."""
    register()
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return hydra.compose("config", overrides=quote_paths(overrides))


def _misread(error: Exception, words: Sequence[str]) -> str:
    """Hydra's message about a command line as one sentence, with the nearest existing options for a misspelt option."""
    text = " ".join(
        str(error).split("Config search path")[0].split("\nTo append")[0].split("full_key:")[0].split()
    )
    given = [word.split("=")[0].lstrip("+~") for word in words]
    known = _options(OmegaConf.to_container(compose()))
    for name in given:
        if name not in known and (near := get_close_matches(name, known, 3, 0.75)):
            return f"{text} Did you mean {' or '.join(near)}?"
    cause = str(error.__cause__ or "").splitlines()
    return f"{text.rstrip('.')}: {cause[0]}" if cause else text


def _options(tree: Any, prefix: str = "") -> list[str]:
    """Dotted names of a config's values and groups."""
    if not isinstance(tree, dict):
        return [prefix]
    below = [
        name for key, value in tree.items() for name in _options(value, f"{prefix}.{key}" if prefix else key)
    ]
    return [prefix, *below] if prefix else [*below, "experiment"]


def attempt(stage: Callable[..., Any], raw: DictConfig, computes: bool = True) -> int:
    """Runs one stage and returns the exit code: 0, 1 (a user's error: one sentence on stderr), 130 (Ctrl-C), 128 + N
    (signal N).
    """
    try:
        config = resolve(raw)
        stage(config, start(config)) if computes else stage(config)
    except USER_ERRORS as error:
        if OmegaConf.to_container(raw).get("debug") is True:  # type: ignore[union-attr]
            traceback.print_exc()
        print(f"Error: {legible(sentence(error))}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Ended) as error:
        print("Stopped. Finished results are kept; the same command resumes from them.", file=sys.stderr)
        return int(str(error.code)) if isinstance(error, Ended) else 130
    return 0


def resolve(raw: DictConfig) -> Config:
    """OmegaConf -> dataclasses. Raises RunError for a value that a dataclass refuses. `~` in file names becomes the home
    folder, because no shell expands it after a dotted option."""
    raw = raw.copy()
    for name in PATHS:
        if str(value := OmegaConf.select(raw, name)).startswith("~"):
            OmegaConf.update(raw, name, os.path.expanduser(value))
    try:
        config = build(Config, OmegaConf.to_container(raw, resolve=True))
    except ValueError as error:
        raise RunError(f"The configuration is not usable: {sentence(error)}") from error
    return replace(config, precision=_fast_precision(config)) if config.precision == "auto" else config


def _on_gpu(config: Config) -> bool:
    return config.device in ("cuda", "gpu", "auto") and torch.cuda.is_available()


def _fast_precision(config: Config) -> str:
    """bf16-mixed where the device has instructions for bfloat16, otherwise 32-true."""
    return (
        "bf16-mixed"
        if (torch.cuda.is_bf16_supported() if _on_gpu(config) else computes_bfloat16())
        else "32-true"
    )


def demand_resume(config: Config, kind: str) -> None:
    """Raises RunError if resume= names a file that does not exist. kind: the kind of file, for the message."""
    if config.resume not in ("auto", "none") and not Path(config.resume).is_file():
        raise RunError(f"resume={config.resume} does not exist: give a {kind}, auto or none.")


def start(config: Config, quiet: bool = False) -> Run:
    """Threads, seeds, device and folders of one run."""
    # Imported here because it takes a second, as it imports torch._dynamo, and doctor.py and --help do without it.
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger
    from lightning_fabric.strategies import DDPStrategy

    warnings.filterwarnings("ignore", message=".*(weights_only|pretrained|lr_scheduler).*")
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)

    results = ROOT / config.results_dir / _run_name(config)
    for folder in (results, ROOT / config.data_dir):
        if legible(str(folder)) != str(folder):
            raise RunError(
                f"{folder} has a name that is not UTF-8, which safetensors cannot open: rename it."
            )
    # On a CPU bfloat16 is for the generator alone (`in_precision`): under autocast a step of stage 1 takes 1.5 times as long.
    autocast = config.precision != "bf16-mixed" or _on_gpu(config)
    try:
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=DDPStrategy(timeout=BARRIER_TIMEOUT) if config.devices * config.nodes > 1 else "auto",
            precision=config.precision if autocast else "32-true",  # type: ignore[arg-type]
            loggers=TensorBoardLogger(results, name="tensorboard", version=""),
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"device={config.device} precision={config.precision} cannot be used here ({sentence(error)}); "
            "device=auto takes what there is."
        ) from error
    fabric.launch()
    run = Run(results, ROOT / config.data_dir, fabric)
    if not quiet:
        if config.bf16 and run.device.type == "cpu" and not computes_bfloat16():
            run.say(f"precision={config.precision} is slower than 32-true here: this CPU emulates bfloat16")
        run.say(
            f"device {fabric.device}, precision {config.precision}, seed {config.seed}, results in {shown(results)}"
        )
    return run


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside this context torch computes with `count` threads; afterwards the previous number is restored."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Makes glibc keep large freed blocks instead of returning them to the kernel after every layer.

    Mapping and clearing new blocks took half of the time of a frame (256 px, one thread: 0.35 -> 0.17 s). All threads use
    one arena, because other arenas are trimmed regardless (two threads: 0.21 -> 0.075 s). The cost is that a process
    keeps its peak memory until it ends. Other C libraries have no mallopt, or ignore it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # malloc.h
        mallopt(arena_max, 1)
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 * 2**20)


def _run_name(config: Config) -> str:
    """`name`, in a sweep followed by the job's number, so that its runs do not overwrite one another."""
    name = config.name
    if config.numbered and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        name = f"{name}-{HydraConfig.get().job.num}"
    return name


def sentence(error: BaseException) -> str:
    """An exception as one line."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror[0].lower()}{error.strerror[1:]}."
    return " ".join(str(error).split()) or type(error).__name__


def shown(path: Path) -> str:
    """The shorter of the path and the path relative to the current folder."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
