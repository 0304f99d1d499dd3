"""The settings of encoder training (encoder_train.*)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from encoders.networks.latent_discriminator import AdversaryConfig


@dataclass
class EncoderTrainConfig:
    """The encoder to train, its data and its losses (equation in encoders/training/encoder_trainer.py)."""

    network: Literal["compact", "full"] = "compact"
    # "pairs": images with codes from a folder, made when absent; "live": the same, new ones at every step;
    # "photos": the folder `images`, without codes; "samples": the generator's samples, without their codes.
    source: Literal["pairs", "live", "photos", "samples"] = "pairs"
    images: str | None = None  # folder of photographs, aligned as FFHQ is
    steps: int = 6000
    warm_start: bool = False  # start from the weights of encoder.weights instead of random ones
    batch: int = 16  # images per step
    lr: float = 1e-3  # learning rate of Adam
    # "cosine": warm-up over 100 steps, then down to a twentieth.
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: float | None = 1.0  # largest norm of the gradient; None: not clipped
    # Share of groups (one person, several expressions) in a batch of images with codes
    group_share: float = 0.5
    displacement_weight: float = 20.0  # a; large, because expressions change the code only slightly
    delta_weight: float = 2e-4  # b, as in e4e
    # Step at which the first delta of a full encoder is added to w_0; None: all deltas from the beginning.
    progressive_start: int | None = None
    progressive_every: int = 2000  # steps between two added deltas, as in e4e
    pixel: Literal["l1", "l2"] = "l1"  # norm of the pixel term
    pixel_weight: float = 0.0  # p; 0 switches a term off
    perceptual_weight: float = 0.0  # q
    perceptual: Literal["st-lpips", "lpips"] = "st-lpips"  # st-lpips needs no download
    landmark_weight: float = 0.0  # m, per px of the 256 px crop, the mouth's points counted three times
    identity_weight: float = 0.0  # r
    # File of the IR-SE recognition network, for the identity term; a new full encoder's backbone starts from it.
    identity: str | None = None
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)  # weight is s
    image_batch: int = 2  # images of a batch to which the image terms are applied: they need the generator
    image_size: int = 128  # px at which images are compared
    ema: float = 0.998  # decay of the exported running mean of the weights; 0 exports the last step's
    augment: bool = True  # apply encoder_data.augment to the inputs; their codes stay the same
    validation: int = 200  # images at the end of the folder that are held out for validation
    save_every: int = 200  # steps between checkpoints, each with a validation
    bf16: bool = False  # autocast of the encoder; on a CPU without AVX-512 BF16 it is 25 times slower

    def __post_init__(self) -> None:
        if not 0 <= self.group_share <= 1 or self.image_batch > self.batch:
            raise ValueError("group_share lies in [0, 1] and image_batch is at most batch")
        if min(self.steps, self.batch, self.save_every) < 1 or self.image_batch < 1 or self.image_size < 16:
            raise ValueError(
                "encoder_train.steps, batch, image_batch and save_every must be at least 1, image_size at least 16."
            )
        if self.validation < 1:
            raise ValueError(f"encoder_train.validation is {self.validation}; it must be 1 or more.")
        if self.source == "photos" and not self.images:
            raise ValueError("encoder_train.source=photos needs encoder_train.images=FOLDER.")
        if self.source in ("photos", "samples") and not (self.pixel_weight or self.perceptual_weight):
            raise ValueError(
                "Without codes an encoder can only be trained with image terms: set encoder_train.pixel_weight or "
                "encoder_train.perceptual_weight."
            )
        if self.identity_weight and not self.identity:
            raise ValueError(
                "encoder_train.identity_weight needs encoder_train.identity=FILE, an IR-SE recognition network; "
                "encoder_train.identity_weight=0 trains without it."
            )
        if self.progressive_start is not None and (self.network != "full" or self.progressive_every < 1):
            raise ValueError(
                "progressive_start needs encoder_train.network=full, and progressive_every at least 1"
            )

    @property
    def has_image_terms(self) -> bool:
        """Whether a term of the loss needs the generator: for G(E(x)), or for samples of W."""
        weights = (self.pixel_weight, self.perceptual_weight, self.landmark_weight, self.identity_weight)
        return any(weights) or self.adversary.weight > 0
