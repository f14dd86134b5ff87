"""DFIG: a noise pattern, the amplitude and the phase of its spectrum, fused, on ResNet-50 or MobileNetV2.

    LNP file (or a photograph through networks/cycleisp.py) -> 3 channels, normalised
          -> FFT -> amplitude, phase (a channel each) -> fusion by --train_mode -> trunk with a 5-channel stem

Source: the code of Detecting-Face-Images-Generated-by-AI, which follows Liu et al., "Detecting Generated
Images by Real Images Only", arXiv 2211.00962.  The trunks: lnp_trunks.py.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import fft, nn

from common import UserError, sha256
from networks import cycleisp
from networks.base import DataConfig, Detector, Published, differing, own_flags

EPSILON, POWER = 1e-8, 0.8  # the amplitude is (|F| + EPSILON) ** POWER
# Weights of the channels' spectra: DFIG's code, LNP's code.
GRAYS = {"equal": (1 / 3, 1 / 3, 1 / 3), "weighted": (0.11, 0.59, 0.3)}
FEATURES = {"lnp": 3, "fft": 2, "lnp+fft": 5}  # --lnp_feature: channels that the trunk sees
# --train_mode: channels of the attention block, the last ones of lnp+fft.  Mode 2 holds a block, as its
# published files do, without using it.
MODES = {0: 2, 1: 5, 2: 5}
UNUSED = 2
EVALUATIONS = {"train": "training", "full": "stored"}  # --lnp_eval: where an evaluation's crop is from
# What `config` leaves out.
PUBLISHED = {"source": "wrapped", "train_mode": 0, "feature": "lnp+fft", "gray": "equal"}
SIGNED_STD = 0.0155  # signed noise is divided by it: RMS of the noise above 0 in 28 files of DFIG
DENOISER_SHARE = 6.0  # memory per pixel of the denoiser, over that of a trunk


def spectra(x, gray="equal"):
    """(B, 3, H, W) -> amplitude and phase of its orthonormal FFT, float32 (B, 2, H, W), frequency 0 central.

    Amplitude (|F| + 1e-8)^0.8, phase in (-pi, pi]; both are averaged over the channels after that.  Odd sides
    are shifted as by ifftshift, as published.  Frequencies that are real in exact arithmetic are made real
    here, so that rounding does not decide between -pi and pi.
    """
    with torch.autocast(x.device.type, enabled=False):
        transformed = fft.fft2(x.float(), norm="ortho")
        height, width = x.shape[-2:]
        for row, column in product((0, height // 2)[: 2 - height % 2], (0, width // 2)[: 2 - width % 2]):
            transformed.imag[..., row, column] = 0
        phase = torch.atan2(transformed.imag + EPSILON, transformed.real + EPSILON)
        amplitude = (transformed.abs() + EPSILON) ** POWER
        weights = torch.tensor(GRAYS[gray], device=x.device).view(1, 3, 1, 1)
        both = [(weights * part).sum(dim=1, keepdim=True) for part in (amplitude, phase)]
        return fft.ifftshift(torch.cat(both, dim=1), dim=(2, 3))


class DAB(nn.Module):
    """Attention over n channels: two convolutions and a weight per channel, around them a shortcut.

    SA, conv1x1 and conv1x1_c of the published block are registered and never used; published files hold them.
    """

    def __init__(self, width):
        super().__init__()
        self.SA = cycleisp.SpatialAttention()
        self.CA = cycleisp.ChannelAttention(width, reduction=1)
        first, second = cycleisp.conv3x3(width, width), cycleisp.conv3x3(width, width)
        self.body = nn.Sequential(first, nn.ReLU(inplace=True), second)
        self.conv1x1 = nn.Conv2d(2 * width, width, 1)
        self.conv1x1_c = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.CA(self.body(x))


class LNPDetector(Detector):
    """What both trunks share; a subclass gives `make_trunk` and `classify`."""

    remark = " (DFIG's, for files of noise patterns; NPR is --arch npr)"
    data_config = DataConfig(load_size=None, crop_size=224)

    def __init__(self, flags=None):
        """flags: a Namespace of this detector's flags; None: the published setting."""
        super().__init__()
        flags = flags or own_flags(type(self))
        _check(flags)
        self.mode, self.gray, self.feature = flags.train_mode, flags.lnp_gray, flags.lnp_feature
        self.encoding = flags.lnp_encoding
        self.denoiser_path = None if flags.lnp_denoiser == "none" else flags.lnp_denoiser
        plain = flags.lnp_input == "image" and self.denoiser_path is None
        self.source = "image" if plain else self.encoding
        self.data_config = replace(
            self.data_config,
            noise_bits=cycleisp.ENCODINGS[self.encoding].bits if flags.lnp_input == "lnp" else None,
            geometry_source=EVALUATIONS[flags.lnp_eval],
            enlargement=DENOISER_SHARE if self.denoiser_path else 1.0,
        )
        self.denoiser = None
        self.make_trunk(FEATURES[self.feature])
        without = self.feature == "lnp" or (self.feature == "fft" and self.mode == UNUSED)
        self.attended = 0 if without else MODES[self.mode]
        if self.attended:
            self.DAB = DAB(self.attended)

    @classmethod
    def add_arguments(cls, group):
        add = group.add_argument
        mode = "0: attention over amplitude and phase, 1: over all five channels, 2: none"
        add("--train_mode", "--lnp_fusion", type=int, choices=MODES, default=0, help=mode)
        source = "files of noise patterns (tools.extract lnp), or images: see --lnp_denoiser"
        add("--lnp_input", choices=("lnp", "image"), default="lnp", help=source)
        denoiser = "CycleISP's weights (sidd_rgb.pth): noise of the network's crop; none: the image itself"
        add("--lnp_denoiser", metavar="FILE", help=denoiser)
        encoding = "of the noise: 8 bits as in DFIG's files, or 16 bits with its sign"
        add("--lnp_encoding", choices=cycleisp.ENCODINGS, default="wrapped", help=encoding)
        feature = "what the trunk sees: the noise, amplitude and phase of its spectrum, or both"
        add("--lnp_feature", choices=FEATURES, default="lnp+fft", help=feature)
        gray = "weights of the channels' spectra: equal (DFIG), or 0.11, 0.59, 0.3 (LNP)"
        add("--lnp_gray", choices=GRAYS, default="equal", help=gray)
        evaluation = "an evaluation crops as in training, or takes whole images (DFIG's demo)"
        add("--lnp_eval", choices=EVALUATIONS, default="train", help=evaluation)

    @classmethod
    def from_options(cls, opt):
        return cls(own_flags(cls, opt))

    @classmethod
    def from_published(cls, state, given):
        """Keys decide the trunk and mode 0; modes 1 and 2 have the same keys."""
        width = len(state["DAB.body.0.weight"])
        possible = [mode for mode, channels in MODES.items() if channels == width]
        if len(possible) == 1:
            given = {"train_mode": possible[0], **given}
        if possible and given.get("train_mode") not in possible:
            modes = " or ".join(map(str, possible))
            raise UserError(f"holds DFIG's fusion mode {modes}; say so with --arch {cls.arch} --train_mode N")
        return Published(given, state)

    def load_companions(self):
        """Loads the denoiser, if there is one; it is not trained and not saved with the weights."""
        if self.denoiser_path is None:
            return
        if not Path(self.denoiser_path).is_file():
            flags = f"--arch {self.arch} --lnp_input image --lnp_denoiser FILE"
            raise UserError(f"no denoiser at {self.denoiser_path}; name its weights with {flags}")
        self.denoiser = cycleisp.load(self.denoiser_path)
        self.companions = {"denoiser_sha256": sha256(self.denoiser_path)}

    def noise(self, images):
        """What files of the encoding hold, computed from RGB images (B, 3, H, W), uint8 or in [0, 1]."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.denoiser.encoded_noise(self.unit(images), self.encoding)

    def pattern(self, images):
        """Input of the network -> the normalised three channels that stand for the image, float32."""
        if self.denoiser is not None:
            images = self.noise(images)
        if self.source != "signed":
            return self.normalise(images)
        if images.dtype != torch.int16:
            raise ValueError(f"signed noise comes as int16, got {images.dtype}")
        return images.float() / (cycleisp.SIGNED_ONE * SIGNED_STD)

    def preprocess(self, images):
        """uint8 (int16 with signed noise), or float in [0, 1], (B, 3, H, W) -> (B, 5, H, W), float32.

        The channels: three of the pattern, amplitude, phase; those of them that --lnp_feature names.
        """
        x = self.pattern(images)
        if self.feature == "lnp":
            return x
        both = spectra(x, self.gray)
        return both if self.feature == "fft" else torch.cat([x, both], dim=1)

    def fused_channels(self, x):
        """What `preprocess` gives -> the same channels after the attention of the mode."""
        if not self.attended or self.mode == UNUSED:
            return x
        return torch.cat([x[:, : -self.attended], self.DAB(x[:, -self.attended :])], dim=1)

    def forward(self, images):
        """Input as of `preprocess` -> logits (B,), float32."""
        return self.classify(self.fused_channels(self.preprocess(images)))

    @property
    def config(self):
        """What the weights depend on; where the noise comes from in an evaluation is recorded separately."""
        build = {"source": self.source, "train_mode": self.mode, "feature": self.feature, "gray": self.gray}
        return differing(build, PUBLISHED)


def _check(flags):
    """UserError where the flags do not go together."""
    image, denoiser = flags.lnp_input == "image", flags.lnp_denoiser
    feature, mode = flags.lnp_feature, flags.train_mode
    rules = {
        "--lnp_input image needs --lnp_denoiser FILE (sidd_rgb.pth), or none": image and not denoiser,
        "--lnp_denoiser FILE needs --lnp_input image": not image and denoiser not in (None, "none"),
        "--lnp_encoding needs noise, not none": denoiser == "none" and flags.lnp_encoding != "wrapped",
        "--train_mode needs the spectra, not --lnp_feature lnp": feature == "lnp" and mode != 0,
        "--train_mode 1 with --lnp_feature fft is mode 0": feature == "fft" and mode == 1,
    }
    for words, broken in rules.items():
        if broken:
            raise UserError(words)
