"""All settings of a run: `Config` and the dataclasses it is composed of.

The settings of a class are in a dataclass beside that class; those defined here belong to no single class. `register`
lets Hydra check names and types on the command line; `configs.typed.build` turns the composed values into a `Config`.
"""

from dataclasses import dataclass, field
from typing import Literal

from hydra.core.config_store import ConfigStore

from audio.features import FeatureConfig
from audio.sync.lip_sync_net import SyncConfig
from configs.typed import twin
from encoders.bases.viseme_fit import BasisConfig
from encoders.footage.corpora import DataConfig
from encoders.footage.live_video import StreamConfig
from encoders.footage.prepare import PrepareConfig
from encoders.invert import InversionConfig
from encoders.networks.e4e import FullEncoderConfig
from encoders.networks.e4e_compact import CompactE4EConfig
from encoders.training.encoder_config import EncoderTrainConfig
from encoders.training.sync_trainer import SyncTrainConfig
from metrics.measures.sync_distance import Choice
from stylegan2.embedded.cut_mobile import HeadConfig
from trajectory.adapt.personal_adaptation import AdaptConfig
from trajectory.data.augmentation import AugmentConfig
from trajectory.losses.stage1_losses import LossConfig
from trajectory.model.displacement import DisplacementConfig
from trajectory.model.predictor import shipped_stage1
from trajectory.model.recurrent_net import TrajectoryConfig
from trajectory.motion.motion_config import MotionConfig
from trajectory.synthetic_corpus.build_corpus import CorpusConfig
from trajectory.training.train_config import TrainConfig
from tuning.pivotal import PivotalConfig


@dataclass
class GeneratorConfig:
    """Which generators are used."""

    # "embedded" or a safetensors file (scripts/convert_weights.py makes one from public checkpoints). The latents of
    # all frames belong to this generator.
    weights: str = "embedded"
    # The generator that renders the videos and is tuned in stage 2. None: the same as `weights`. "mobile_1024": the
    # uncut embedded generator at 1024 px, read from the random-face wheel. Otherwise a safetensors file of a generator
    # that uses the same latents.
    render: str | None = None


@dataclass
class TeacherConfig:
    """The perceptual distance that inversion, stage 1 and stage 2 minimise (encoders.features.perceptual).

    Evaluation uses another one (metrics.perceptual, metrics.net), because the distance that was minimised would
    overrate the results.
    """

    # "st-lpips": its weights come with its package. "lpips": the paper's; scripts/download_weights.py fetches its trunks.
    family: Literal["st-lpips", "lpips"] = "st-lpips"
    # Trunk of the distance; alex is the faster one.
    net: Literal["alex", "vgg"] = "alex"


@dataclass
class EncoderConfig:
    """How frames are inverted to W+."""

    # "embedded" or a safetensors file of a compact or a full e4e.
    weights: str = "embedded"
    # Whether the encoder's codes are refined by optimisation, and how.
    inversion: InversionConfig = field(default_factory=InversionConfig)


@dataclass
class PairsConfig:
    """Images with known codes, on which train_encoder.py, fit_generator.py and fit_visemes.py train."""

    # Folder with faces-NNN.tar and w-NNN.npz files (stylegan2.latent_pairs). None: the generator makes the pairs.
    folder: str | None = None
    # Number of images of different people.
    count: int = 2000
    # Number of people with 6 expressions each, from which the encoder learns how speech changes the code.
    groups: int = 300

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"pairs.count is {self.count}; it must be at least 1.")


@dataclass
class Stage1Config:
    """The stage-1 model that drives the face; by default the one trained on this run's data."""

    # A trajectory.safetensors file; given, `source` has no effect.
    weights: str | None = None
    # "data": trained on this run's data when it is absent. "shipped": the model that comes with the project, trained on
    # real and synthetic speech (docs/models/stage1.md); generate.py's default. "streaming": the shipped one that needs
    # little of the sound to come; stream.py's default.
    source: Literal["data", "shipped", "streaming"] = "data"
    # Name of the run whose results hold the model that is trained. None: this run.
    name: str | None = None

    @property
    def file(self) -> str | None:
        """The model's file, or None if it is trained on this run's data."""
        if self.weights or self.source == "data":
            return self.weights
        return str(shipped_stage1(streaming=self.source == "streaming"))


@dataclass
class Stage2Config:
    """The run in whose results tuned generators are stored and searched for.

    A tuned generator depends on the face, the encoder, the generator and `tuning`, never on stage 1, so runs that
    differ in stage 1 alone can share it.
    """

    # Name of the run whose results hold the tuned generators. None: this run.
    name: str | None = None


@dataclass
class WindowConfig:
    """One training batch of stage 1."""

    batch: int = 16  # windows in each process
    length: int = 32  # video frames of a window, 1.3 s; the paper's preset uses 16
    # Changed copies of the sound of each training clip, from which windows are drawn too: other tempo, voice, room and
    # microphone (audio/sound_copies.py; ours).
    sound_copies: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.length < 2 or self.sound_copies < 0:
            raise ValueError(
                "windows.batch must be at least 1, windows.length at least 2 and windows.sound_copies at least 0."
            )


@dataclass
class TargetConfig:
    """The speaker of the data on whom stage 2 tunes the generator if neither photo= nor clip= is given.

    All of one clip is used for tuning, and the speaker's other clips are scored. If the speaker has one clip only, its
    first part is used and the rest is scored.
    """

    # Name of the speaker. None: the first unseen one.
    speaker: str | None = None
    # Share of a speaker's only clip, from its start, that is used for tuning; the rest is scored (ours).
    share: float = 0.6
    # Speakers that evaluate_clips.py scores but leaves out of the averages, such as clips whose sound is known not to
    # match the lips.
    controls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"target.share is {self.share}; it must lie between 0 and 1.")


@dataclass
class MetricsConfig:
    """The rows and measures of evaluate.py, and the networks that compute them."""

    # Test clips scored per split at most, taken from the speakers in turn; a full corpus takes hours
    clips: int = 9
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
    # Compute FVD if the I3D weights are there
    fvd: bool = True
    # Also fill the columns of metrics/measures/legacy_definitions.py
    legacy: bool = False
    # Sync network: the public SyncNet (LSE-C, LSE-D), this project's own (in columns of its own), none, or auto: the
    # public one if its weights are present, otherwise this project's
    sync: Choice = "auto"
    # Weights of the own sync network: "embedded", or a file of train_sync.py
    sync_weights: str = "embedded"
    # Score all control baselines (metrics/scoring/control_baselines.py), or only those needed to compute other figures
    controls: bool = True
    # Also score the prediction after encoding it once more, H.264 at CRF 28 (the row `reencoded`): by how much each measure
    # of sync and sharpness moves is in the report; takes as long as another row
    reencode: bool = False

    # The settings below apply only to predictions= and references=, where `controls` means ground_truth, static and
    # shift_5. Part of the frame that the image measures compare (metrics/scoring/score_videos.py)
    crop: Literal["face", "mouth", "full"] = "face"
    # Trunks of LPIPS, or of ST-LPIPS (in columns of its own) where LPIPS's weights are absent
    nets: tuple[str, ...] = ("alex", "vgg")
    # Frames per call of the networks; bounds memory
    batch: int = 16
    # The predictions are driven by other speech than the references': figures that compare frames are left out, the
    # others use each video's own sound (metrics/scoring/score_unpaired.py)
    unpaired: bool = False

    def __post_init__(self) -> None:
        if self.unpaired and self.crop != "face":
            raise ValueError(
                f"metrics.unpaired=true measures the face crop; leave out metrics.crop={self.crop}."
            )
        if not set(self.nets) <= {"alex", "vgg"}:
            raise ValueError(f"metrics.nets is {list(self.nets)}; it may hold alex and vgg.")
        if min(self.batch, self.clips, self.perceptual_frames) < 1 or self.perceptual_size < 16:
            raise ValueError(
                "metrics.batch, clips and perceptual_frames must be at least 1 and metrics.perceptual_size at least 16."
            )


@dataclass
class CheckConfig:
    """The embedded weights that check_assets.py measures, and the numbers of samples."""

    # The parts that are measured; the others keep their earlier figures.
    what: tuple[Literal["generator", "encoder", "visemes", "corpus", "motion", "likeness"], ...] = (
        "generator",
        "encoder",
        "visemes",
        "corpus",
        "motion",
        "likeness",
    )
    # Truncation psi of the generator's samples: 0.7 is customary for faces, 1.0 is no truncation.
    psi: tuple[float, ...] = (0.7, 1.0)
    # Samples of the generator at each psi.
    samples: int = 1000
    # Samples that the encoder reconstructs.
    reconstructions: int = 500
    # People whose mouths the viseme basis moves.
    people: int = 100
    # People whose single photo is inverted and tuned on.
    faces: int = 6
    # Frames of each clip in data.root that the encoder reconstructs.
    frames: int = 4
    # Seed of the samples' codes, far from the seeds of training so that no sample was trained on.
    seed: int = 90_000

    def __post_init__(self) -> None:
        if not self.what:
            raise ValueError(
                "check.what is empty; it may hold generator, encoder, visemes, corpus, motion, likeness."
            )
        if min(self.samples, self.reconstructions) < 8 or min(self.people, self.faces, self.frames) < 1:
            raise ValueError(
                "check.samples and check.reconstructions are at least 8, people, faces and frames 1."
            )


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
    """Settings of benchmark.py."""

    # Resolutions in px of the StyleGAN2s (config F) whose synthesis is measured.
    sizes: tuple[int, ...] = (256, 1024)
    # Resolution in px of the StyleGAN2 whose tuning step is measured.
    step_size: int = 256
    # Numbers of threads; 0 stands for all cores.
    threads: tuple[int, ...] = (1, 0)
    # Each measurement lasts at least this many seconds; the median of its calls is reported.
    min_seconds: float = 5.0
    # Length in seconds of the speech in end_to_end, and of the sound whose frames a second are measured in streaming.
    clip_seconds: float = 4.0
    # Length in seconds of the sound that comes in real time in streaming.
    stream_seconds: float = 60.0
    # Number of processes that keep one core busy each while this is measured, as on a shared machine.
    beside: int = 0

    def __post_init__(self) -> None:
        if self.beside < 0:
            raise ValueError(f"benchmark.beside is {self.beside}; it cannot be negative.")
        positive = (self.min_seconds, self.clip_seconds, self.stream_seconds, self.step_size, *self.sizes)
        if min(positive) <= 0 or min(self.threads, default=-1) < 0:
            raise ValueError(
                "benchmark: sizes and seconds must be positive, and threads hold one or more counts."
            )


@dataclass
class PageConfig:
    """The web page of app.py, which is served to this computer alone (127.0.0.1)."""

    # Port of the page.
    port: int = 7860
    # Largest upload in megabytes, and longest speech in seconds.
    max_mb: int = 20
    max_seconds: float = 60.0
    # Jobs that may wait while one is computed; further ones are refused.
    queue: int = 8

    def __post_init__(self) -> None:
        if min(self.port, self.max_mb, self.queue) < 1 or self.max_seconds <= 0:
            raise ValueError("page.port, page.max_mb, page.max_seconds and page.queue must be positive.")


@dataclass
class Config:
    """All settings of a run. The files that one call reads or writes come after the settings of the run itself."""

    # Results go to results_dir/name.
    name: str = "demo"
    # Whether a sweep appends the job's number to the name, so that no run overwrites another. Switch it off if the
    # names of the runs already differ.
    numbered: bool = True
    # Seed of everything random that has no seed of its own.
    seed: int = 0
    # auto, cpu, cuda or mps.
    device: str = "auto"
    # Processes on each machine, and machines (docs/SETTINGS.md).
    devices: int = 1
    nodes: int = 1
    # A precision of Lightning Fabric, or "auto": bf16-mixed where the device has instructions for bfloat16, otherwise
    # 32-true. generate.py, stream.py and app.py take "auto". With bf16-mixed, stage 1, rendering, tuning, scoring,
    # persons' offsets and the corpus are computed in bfloat16; what is kept of them gets folders of its own.
    precision: str = "32-true"
    # Threads of torch; 0: torch's default.
    threads: int = 0
    # Processes of prepare_data and evaluate, and speakers inverted at once.
    workers: int = 2
    # "auto": a stopped training is resumed from its last state. A state file: resume from it. "none": train anew.
    resume: str = "auto"
    # Prints the traceback of an error that is otherwise reported in one sentence.
    debug: bool = False
    # Folders of caches and of results; relative paths are relative to the repository.
    data_dir: str = "data"
    results_dir: str = "results"

    # Speech that generate.py gives the face.
    wav: str | None = None
    # Photo of the face, or a folder with several photos of one person.
    photo: str | None = None
    # Video of the face, instead of a photo.
    clip: str | None = None
    # File that convert_weights.py reads.
    input: str | None = None
    # What the video of generate.py shows. "crop": the face's crop. "frame": the frames of clip=, whose mouth alone is
    # replaced. "photo": the whole of photo=.
    compose: Literal["crop", "photo", "frame"] = "crop"
    # File or folder that the script writes. None: under results_dir/name.
    output: str | None = None
    # Folders of videos that evaluate.py compares.
    predictions: str | None = None
    references: str | None = None
    # report.json of another method, to whose clips evaluate.py adds paired differences.
    against: str | None = None
    # Tuned generator. "auto": the one that stage 2 tuned on this face; if there is none, generate.py tunes one on photo= or
    # clip=. Or a file, or "none".
    tuned: str = "auto"
    # Stage 1 adapted to this person, with the same options. "auto" applies only if adapt=personal.
    adapted: str = "auto"
    # Which of a weight file's networks convert_weights.py takes.
    network: Literal["g_ema", "g", "d", "encoder"] = "g_ema"
    # Tensor names of the weights that convert_weights.py exports: those of rosinality's or NVIDIA's code.
    layout: Literal["rosinality", "nvidia"] = "rosinality"
    # Entry of the catalogue of public weights that download_weights.py fetches.
    entry: str | None = None
    # Part that benchmark.py measures.
    what: Literal["all", "synthesis", "encoder", "tuning_step", "stage1_step", "end_to_end", "streaming"] = (
        "all"
    )

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
    motion: MotionConfig = field(default_factory=MotionConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tables: TablesConfig = field(default_factory=TablesConfig)
    check: CheckConfig = field(default_factory=CheckConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    page: PageConfig = field(default_factory=PageConfig)
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
                f"name={self.name} is no valid name for a results folder: use letters, digits, - and _."
            )
        if min(self.devices, self.nodes) < 1:
            raise ValueError("devices and nodes must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")

    @property
    def bf16(self) -> bool:
        """Whether `precision` is one of Lightning Fabric's names for bfloat16."""
        return self.precision.startswith("bf16")


def register() -> None:
    """Registers `Config` with Hydra under the name `schema`, the first entry of configs/config.yaml."""
    ConfigStore.instance().store("schema", node=twin(Config))
