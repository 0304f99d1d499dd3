"""All settings of a run in one tree; each part is the dataclass that stands beside the class it builds.

Hydra checks names and types against it (`register`), `configs.typed.build` turns the composed values into it.
"""

from dataclasses import dataclass, field
from typing import Literal

from hydra.core.config_store import ConfigStore

from audio.features import FeatureConfig
from audio.sync.lip_sync_net import SyncConfig
from configs.typed import twin
from encoders.bases.viseme_fit import BasisConfig
from encoders.footage.prepare import PrepareConfig
from encoders.invert import InversionConfig
from encoders.networks.e4e import FullEncoderConfig
from encoders.networks.e4e_compact import CompactE4EConfig
from encoders.training.encoder_trainer import EncoderTrainConfig
from encoders.training.sync_trainer import SyncTrainConfig
from metrics.measures.sync_distance import Choice
from stylegan2.embedded.cut_mobile import HeadConfig
from stylegan2.pretrain import PretrainConfig
from trajectory.adapt.personal_adaptation import AdaptConfig
from trajectory.data.augmentation import AugmentConfig
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig
from trajectory.model.recurrent_net import TrajectoryConfig
from trajectory.synthetic_corpus.build_corpus import CorpusConfig
from trajectory.training.stage1_loop import TrainConfig
from tuning.pivotal import PivotalConfig


@dataclass
class DataConfig:
    """Where the clips come from.

    kind: "embedded" (synthetic speakers, built when absent) or "folder" (every video under `root`; its first
    sub-folder names the speaker, a video directly in `root` is a speaker of its own).
    validation, seen: shares of a training speaker's clips held out; unseen: share of the speakers never trained on.
    unseen_speakers, validation_speakers: instead of that share, who is never trained on, and who validates as well.
    detector: finds faces and their 68 landmarks. seed: of the split.
    """

    kind: Literal["embedded", "folder"] = "embedded"
    root: str | None = None
    detector: Literal["dlib", "face-alignment"] = "dlib"
    validation: float = 0.1
    seen: float = 0.1
    unseen: float = 0.2
    unseen_speakers: tuple[str, ...] = ()
    validation_speakers: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "folder" and not self.root:
            raise ValueError("data=folder needs data.root=FOLDER, the folder that holds the videos.")
        if self.kind == "embedded" and self.root:
            raise ValueError(f"data.root={self.root} is not looked at with data=embedded: add data=folder.")
        if (
            min(self.validation, self.seen, self.unseen) < 0
            or max(self.validation + self.seen, self.unseen) >= 1
        ):
            raise ValueError("data.validation + data.seen and data.unseen must lie in [0, 1).")
        if both := set(self.unseen_speakers) & set(self.validation_speakers):
            raise ValueError(
                f"{', '.join(sorted(both))}: both in data.unseen_speakers and validation_speakers."
            )


@dataclass
class GeneratorConfig:
    """weights: "embedded" or a safetensors file (scripts/convert_weights.py makes one from public checkpoints).

    render: what shows the latents in the end, and is tuned in stage 2: None (the same generator), "mobile_1024" (the
    embedded one uncut, 1024 px, read from the random-face wheel) or a safetensors file with as many rows of W+.
    """

    weights: str = "embedded"
    render: str | None = None


@dataclass
class TeacherConfig:
    """The perceptual distance that inversion, stage 1 and stage 2 minimise (encoders.features.perceptual).

    family: "st-lpips" (its weights come with its package) or "lpips" (the paper's; download_weights.py fetches its
    trunks). net: its trunk. Judge with another one (metrics.perceptual, metrics.net), or it marks its own work.
    """

    family: Literal["st-lpips", "lpips"] = "st-lpips"
    net: Literal["alex", "vgg"] = "alex"

    def __post_init__(self) -> None:
        if self.family not in ("st-lpips", "lpips") or self.net not in ("alex", "vgg"):
            raise ValueError(
                f"teacher is {self.family} {self.net}; family is 'st-lpips' or 'lpips', net 'alex' or 'vgg'."
            )


@dataclass
class EncoderConfig:
    """weights: "embedded" or a safetensors file. inversion: the encoder's code as it is, or refined."""

    weights: str = "embedded"
    inversion: InversionConfig = field(default_factory=InversionConfig)


@dataclass
class PairsConfig:
    """Images with known codes for train_encoder.py: `count` single ones and `groups` people with 6 expressions each.

    folder: faces-NNN.tar beside w-NNN.npz (stylegan2.latent_pairs); None: the generator makes them.
    """

    folder: str | None = None
    count: int = 2000
    groups: int = 300


@dataclass
class Stage1Config:
    """Which stage-1 model drives the face, when it is not simply the one trained on this run's data.

    weights: a trajectory.safetensors (None: train it). source: what it is trained on, this run's data or the embedded
    corpus. name: the run that holds it (None: this one).
    """

    weights: str | None = None
    source: Literal["data", "embedded"] = "data"
    name: str | None = None


@dataclass
class Stage2Config:
    """name: the run whose results hold the tuned generators (None: this one).

    A tuned generator depends on the face, the encoder, the generator and `tuning`, never on stage 1, so runs that differ
    in stage 1 alone can share it.
    """

    name: str | None = None


@dataclass
class WindowConfig:
    """One training batch of stage 1: `batch` windows of `length` video frames, in each process.

    carry: the windows walk through whole clips and the net goes on from its state of the window before (a GRU or LSTM of
    one direction, trajectory/walk.py); otherwise each is drawn anew and starts from nothing.
    """

    batch: int = 16
    length: int = 32
    carry: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1 or self.length < 2:
            raise ValueError("windows.batch must be at least 1 and windows.length at least 2.")


@dataclass
class TargetConfig:
    """Whom stage 2 tunes on, when neither photo= nor clip= says so: a speaker of the data (None: the first unseen one).

    One clip of the speaker is used whole and the others are scored; a speaker's only clip is cut in time: its
    first `share` is for tuning, the rest is scored.
    controls: speakers that evaluate_clips.py scores but keeps out of the averages, such as clips whose sound is known
    not to belong to the lips.
    """

    speaker: str | None = None
    share: float = 0.6
    controls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"target.share is {self.share}; it must lie between 0 and 1.")


@dataclass
class MetricsConfig:
    """What evaluate.py scores, and by which networks."""

    # Test clips scored per split at most, taken from the speakers in turn; a full corpus takes hours
    clips: int = 4
    # Score only the person whom the generator is tuned on, which suffices to compare ways of tuning
    target_only: bool = False
    # Family of the perceptual distance; LPIPS needs trunk weights that are not embedded
    perceptual: Literal["st-lpips", "lpips"] = "st-lpips"
    # Trunk of the perceptual distance; training minimises alex, so vgg evaluates
    net: Literal["alex", "vgg"] = "vgg"
    # px to which frames are averaged for the perceptual distances; smaller is faster
    perceptual_size: int = 128
    # Frames of each row, about, that the perceptual and identity measures use
    perceptual_frames: int = 200
    # Compute FID and KID if the Inception weights are there
    fid: bool = True
    # Also fill the columns of metrics/measures/legacy_definitions.py
    legacy: bool = False
    # Sync network: the public SyncNet (LSE-C, LSE-D), this project's own (in columns of its own), none, or auto: the public
    # one where its weights are, else the own one
    sync: Choice = "auto"
    # Weights of the own sync network: "embedded", or a file of train_sync.py
    sync_weights: str = "embedded"
    # Score all control baselines (metrics/scoring/control_baselines.py), or only those that other figures are relative to
    controls: bool = True

    # The rest is used with predictions= and references= only. There `controls` are ground_truth, static and shift_5.
    # Part of the frame that the image measures compare (metrics/scoring/score_videos.py)
    crop: Literal["face", "mouth", "full"] = "face"
    # Trunks of LPIPS, or of ST-LPIPS (in columns of its own) where LPIPS's weights are absent
    nets: tuple[str, ...] = ("alex", "vgg")
    # Frames per call of the networks; bounds memory
    batch: int = 16

    def __post_init__(self) -> None:
        if not set(self.nets) <= {"alex", "vgg"}:
            raise ValueError(f"metrics.nets is {list(self.nets)}; it may hold alex and vgg.")
        if self.batch < 1:
            raise ValueError(f"metrics.batch is {self.batch}; it must be at least 1.")


@dataclass
class CheckConfig:
    """What check_assets.py recomputes, and on how much.

    samples: of the generator, at each psi; reconstructions: of the encoder; people: of the viseme basis; frames: of
    each clip in data.root. seed: of the held-out codes, far from those of training.
    """

    what: tuple[str, ...] = ("generator", "encoder", "visemes", "corpus")
    psi: tuple[float, ...] = (0.7, 1.0)
    samples: int = 1000
    reconstructions: int = 500
    people: int = 100
    frames: int = 4
    seed: int = 90_000

    def __post_init__(self) -> None:
        known = ("generator", "encoder", "visemes", "corpus")
        if not self.what or not set(self.what) <= set(known):
            raise ValueError(f"check.what is {list(self.what)}; it may hold {', '.join(known)}.")
        if min(self.samples, self.reconstructions) < 8 or min(self.people, self.frames) < 1:
            raise ValueError("check.samples and check.reconstructions are at least 8, people and frames 1.")


@dataclass
class TablesConfig:
    """Result files that reproduce_tables.py reads."""

    # Reports for the paper's Table 1; None: results/tcd_timit/report.json and results/grid/report.json
    tcd_timit: str | None = None
    grid: str | None = None
    # An earlier ablation.json, whose runs are added to those found under results/
    ablation: str | None = None


@dataclass
class BenchmarkConfig:
    """What benchmark.py measures.

    sizes: px of the StyleGAN2s (config F); embedded: and the embedded generator. step_size: px of the tuning step.
    threads: 0 stands for all cores. allocators: "default" (glibc's) and "tuned" (as the scripts set it).
    repeats: counted rounds, whose median is reported. clock: "wall", or "cpu" on a busy machine.
    full_encoder: measure the full e4e, too. clip_seconds: of the speech in end_to_end.
    """

    sizes: tuple[int, ...] = (256, 512, 1024)
    embedded: bool = True
    step_size: int = 256
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1, 0)
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    allocators: tuple[str, ...] = ("default", "tuned")
    repeats: int = 5
    clock: Literal["wall", "cpu"] = "wall"
    full_encoder: bool = True
    clip_seconds: float = 4.0

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.clip_seconds <= 0 or min((*self.batches, *self.sizes), default=0) < 1:
            raise ValueError("benchmark.repeats, clip_seconds, batches and sizes must be positive.")
        for name, allowed in (
            ("precisions", {"float32", "bfloat16", "float16"}),
            ("allocators", {"default", "tuned"}),
        ):
            if not getattr(self, name) or not set(getattr(self, name)) <= allowed:
                raise ValueError(
                    f"benchmark.{name} is {list(getattr(self, name))}; it may hold {', '.join(sorted(allowed))}."
                )


@dataclass
class Config:
    """name: results go to results_dir/name; numbered: in a sweep, to name-<job>, so that no run overwrites another (off where
    the name itself tells them apart). resume: "auto", a state file, or "none" (train anew).

    device: auto, cpu, cuda, mps; devices, nodes: processes on each machine, and machines (README). precision: as
    Lightning Fabric names it; with bf16-mixed stage 1 is trained, and frames are rendered, tuned and scored, in it (corpus
    and inversion stay in float32). threads: of torch, 0 = its default; workers: processes of prepare_data and evaluate,
    speakers inverted at once. Relative data_dir and results_dir are relative to the repository.
    wav, photo, clip, input, output, predictions, references: files of one call. against: a report.json of another method.
    network: which of a weight file's networks convert_weights.py takes; layout: whose names it gives exported tensors.
    entry: which file of the catalogue of public weights download_weights.py fetches.
    tuned: for generate.py; "auto" (the generator that stage 2 tuned on this face, if there is one), a file, or "none".
    adapted: the same of the stage 1 that was adapted to this person; "auto" looks for it only if adapt is on.
    what: the part that benchmark.py measures.
    """

    name: str = "demo"
    numbered: bool = True
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    threads: int = 0
    workers: int = 2
    resume: str = "auto"
    debug: bool = False
    data_dir: str = "data"
    results_dir: str = "results"

    wav: str | None = None
    photo: str | None = None
    clip: str | None = None
    input: str | None = None
    output: str | None = None
    predictions: str | None = None
    references: str | None = None
    against: str | None = None
    tuned: str = "auto"
    adapted: str = "auto"
    network: Literal["g_ema", "g", "d", "encoder"] = "g_ema"
    layout: Literal["rosinality", "nvidia"] = "rosinality"
    entry: str | None = None
    what: Literal["all", "synthesis", "encoder", "tuning_step", "stage1_step", "end_to_end"] = "all"

    data: DataConfig = field(default_factory=DataConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    audio: FeatureConfig = field(default_factory=FeatureConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    trajectory: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    displacement: DisplacementConfig = field(default_factory=DisplacementConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    tuning: PivotalConfig = field(default_factory=PivotalConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tables: TablesConfig = field(default_factory=TablesConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    fit: HeadConfig = field(default_factory=HeadConfig)
    basis: BasisConfig = field(default_factory=BasisConfig)
    encoder_net: CompactE4EConfig = field(default_factory=CompactE4EConfig)
    encoder_full: FullEncoderConfig = field(default_factory=FullEncoderConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    encoder_train: EncoderTrainConfig = field(default_factory=EncoderTrainConfig)
    sync_net: SyncConfig = field(default_factory=SyncConfig)
    sync_train: SyncTrainConfig = field(default_factory=SyncTrainConfig)

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or "/" in self.name or "\\" in self.name:
            raise ValueError(
                f"name={self.name} cannot name a folder of results: use letters, digits, - and _."
            )
        if min(self.devices, self.nodes) < 1:
            raise ValueError("devices and nodes must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")

    @property
    def bf16(self) -> bool:
        """Whether `precision` computes in bfloat16."""
        return self.precision.startswith("bf16")


def register() -> None:
    """Makes the tree known to Hydra as `schema`, the first entry of configs/config.yaml."""
    ConfigStore.instance().store("schema", node=twin(Config))
