"""DFIG: a noise pattern, the amplitude and the phase of its spectrum, fused, on ResNet-50 or MobileNetV2.

    LNP file (or a photograph through networks/cycleisp.py) -> 3 channels, normalised
          -> FFT -> amplitude, phase (a channel each) -> fusion by --train_mode -> trunk with a 5-channel stem

Source: the code of Detecting-Face-Images-Generated-by-AI (networks/resnet.py, mobilenetv2.py), which follows
Liu et al., "Detecting Generated Images by Real Images Only", arXiv 2211.00962.  The trunks: lnp_trunks.py.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from torch import fft, nn

from common import UserError, sha256
from networks import cycleisp
from networks.base import DataConfig, Detector

EPSILON, POWER = 1e-8, 0.8  # of the amplitude: (|F| + EPSILON) ** POWER
GRAYS = {"equal": (1 / 3, 1 / 3, 1 / 3), "weighted": (0.11, 0.59, 0.3)}  # DFIG's code; LNP's code
FEATURES = {"lnp": 3, "fft": 2, "lnp+fft": 5}  # channels that the trunk sees
MODES = {  # --train_mode: what is attended to
    0: "attention over amplitude and phase",
    1: "attention over all channels",
    2: "no attention",
}
SIGNED_STD = 0.0155  # signed noise is divided by it: RMS of the noise above 0 in 28 files of DFIG
DENOISER_SHARE = 6  # memory per pixel of the denoiser, over that of a trunk


def spectra(x, gray="equal"):
    """(B, 3, H, W) -> amplitude and phase of its orthonormal FFT, float32 (B, 2, H, W), frequency 0 central.

    Amplitude (|F| + 1e-8)^0.8, phase in (-pi, pi]; both are averaged over the channels after that.  Odd sides
    are shifted as by ifftshift, as published.  Frequencies that are real in exact arithmetic are real here,
    lest rounding decide between -pi and pi.
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
    """n channels, attended to; two convolutions and a weight per channel, around them a shortcut.

    Of the published block SA, conv1x1 and conv1x1_c are registered and never used; published files hold them.
    """

    def __init__(self, width):
        super().__init__()
        self.SA = cycleisp.SpatialAttention()
        self.CA = cycleisp.ChannelAttention(width, reduction=1)
        self.body = nn.Sequential(
            cycleisp.conv3x3(width, width), nn.ReLU(inplace=True), cycleisp.conv3x3(width, width)
        )
        self.conv1x1 = nn.Conv2d(2 * width, width, 1)
        self.conv1x1_c = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.CA(self.body(x))


class LNPDetector(Detector):
    """What both trunks share; a subclass gives `make_trunk` and `classify`."""

    data_config = DataConfig(load_size=None, crop_size=224)
    recipe = "dfig"
    trunk_words = ""

    def __init__(self, flags=None):
        """flags: of `flags`; None: the published setting."""
        super().__init__()
        given = flags or self.flags(argparse.Namespace())
        self.check_options(given)
        self.mode, self.gray, self.feature = given.train_mode, given.lnp_gray, given.lnp_feature
        self.encoding = given.lnp_encoding
        self.denoiser_path = None if given.lnp_denoiser == "none" else given.lnp_denoiser
        as_it_is = given.lnp_input == "image" and self.denoiser_path is None
        self.source = "image" if as_it_is else self.encoding
        self.data_config = replace(
            self.data_config,
            noise_bits={"wrapped": 8, "signed": 16}[self.encoding] if given.lnp_input == "lnp" else None,
            geometry_source={"train": "training", "full": "stored"}[given.lnp_eval],
        )
        self.denoiser = ()  # (CycleISP,) once ready: no module of the detector, so not among its weights
        self.make_trunk(FEATURES[self.feature])
        width = self.attended
        if width:
            self.DAB = DAB(width)
            self.start_attention()

    @property
    def attended(self):
        """Channels of the attention block; mode 2 has one of 5 and leaves it out, as published."""
        if self.feature == "lnp" or (self.feature == "fft" and self.mode == 2):
            return 0
        return 2 if self.mode == 0 else 5

    def start_attention(self):
        """Start weights of the attention block; PyTorch's own unless a trunk says otherwise."""

    @classmethod
    def add_arguments(cls, group):
        group.add_argument(
            "--train_mode",
            "--lnp_fusion",
            type=int,
            choices=sorted(MODES),
            default=0,
            help="0: attention over amplitude and phase, 1: over all five channels, 2: none",
        )
        group.add_argument(
            "--lnp_input",
            choices=("lnp", "image"),
            default="lnp",
            help="files of noise patterns (tools.extract lnp), or images: see --lnp_denoiser",
        )
        group.add_argument(
            "--lnp_denoiser",
            metavar="FILE",
            help="CycleISP's weights (sidd_rgb.pth): noise is taken of the crop that the network gets, not "
            "of the whole image as by tools.extract; none: use the image itself",
        )
        group.add_argument(
            "--lnp_encoding",
            choices=cycleisp.ENCODINGS,
            default="wrapped",
            help="of the noise: 8 bits as DFIG's files, or 16 bits with its sign",
        )
        group.add_argument(
            "--lnp_feature",
            choices=tuple(FEATURES),
            default="lnp+fft",
            help="what the trunk sees: the noise, amplitude and phase of its spectrum, or both",
        )
        group.add_argument(
            "--lnp_gray",
            choices=tuple(GRAYS),
            default="equal",
            help="weights of the channels' spectra: equal (DFIG), or 0.11, 0.59, 0.3 (LNP)",
        )
        group.add_argument(
            "--lnp_eval",
            choices=("train", "full"),
            default="train",
            help="an evaluation crops as in training, or takes whole images (DFIG's demo)",
        )

    @classmethod
    def evaluation_flags(cls):
        return ("lnp_input", "lnp_denoiser", "lnp_eval")

    @classmethod
    def check_options(cls, opt):
        flags = cls.flags(opt)
        if flags.lnp_input == "image" and not flags.lnp_denoiser:
            raise UserError("--lnp_input image needs --lnp_denoiser FILE (sidd_rgb.pth), or none")
        if flags.lnp_input == "lnp" and flags.lnp_denoiser not in (None, "none"):
            raise UserError("--lnp_denoiser concerns --lnp_input image alone; files take --lnp_denoiser none")
        if flags.lnp_denoiser == "none" and flags.lnp_encoding != "wrapped":
            raise UserError("--lnp_encoding concerns noise; --lnp_denoiser none leaves the image as it is")
        if flags.lnp_feature == "lnp" and flags.train_mode != 0:
            raise UserError("--train_mode concerns the spectra, which --lnp_feature lnp leaves out")
        if flags.lnp_feature == "fft" and flags.train_mode == 1:
            raise UserError("--train_mode 1 of --lnp_feature fft would be 0: there are two channels alone")

    @classmethod
    def from_options(cls, opt):
        return cls(cls.flags(opt))

    @classmethod
    def recognise(cls, state, given=None):
        """Keys tell the trunk and mode 0; modes 1 and 2 have the same."""
        flags, state = dict(given or {}), cls.from_published(state)[0]
        attention = state.get("DAB.body.0.weight")
        possible = () if attention is None else {2: (0,), 5: (1, 2)}.get(len(attention), ())
        if not possible:
            return None
        if flags.get("lnp_feature", "lnp+fft") != "lnp+fft":
            raise UserError(f"holds lnp+fft, not --lnp_feature {flags['lnp_feature']}")
        with torch.device("meta"):
            own = cls(cls.flags(argparse.Namespace(**{**flags, "train_mode": possible[0]}))).state_dict()
        if {name: one.shape for name, one in own.items()} != {name: one.shape for name, one in state.items()}:
            return None
        mode = flags.get("train_mode", possible[0] if len(possible) == 1 else None)
        if mode is None:
            raise UserError(
                f"holds DFIG's fusion mode 1 or 2, which have the same entries; add --arch {cls.arch} and "
                "--train_mode 1 (attention over all channels) or 2 (none)"
            )
        if mode not in possible:
            raise UserError(f"holds mode {' or '.join(map(str, possible))}, not --train_mode {mode}")
        return {**flags, "train_mode": mode}

    def ready(self):
        """Loads the denoiser, if there is one."""
        if self.denoiser_path is not None:
            if not Path(self.denoiser_path).is_file():
                raise UserError(
                    f"no denoiser at {self.denoiser_path}; name CycleISP's weights with --arch {self.arch} "
                    "--lnp_input image --lnp_denoiser FILE"
                )
            self.denoiser = (cycleisp.load(self.denoiser_path),)
            self.companions = {"denoiser_sha256": sha256(self.denoiser_path)}
            self.enlargement = DENOISER_SHARE

    def noise(self, images):
        """What files of the encoding hold, of RGB images (B, 3, H, W), uint8 or in [0, 1]."""
        [denoiser] = self.denoiser
        if denoiser.head[0].weight.device != images.device:
            denoiser.to(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return denoiser.encoded_noise(self.unit(images), self.encoding)

    def pattern(self, images):
        """Input of the network -> the normalised three channels that stand for the image, float32."""
        if self.denoiser:
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
        if not self.attended or self.mode == 2:
            return x
        if self.mode == 1:
            return self.DAB(x)
        return torch.cat([x[:, :-2], self.DAB(x[:, -2:])], dim=1)

    def forward(self, images):
        """Input as of `preprocess` -> logits (B,), float32."""
        return self.classify(self.fused_channels(self.preprocess(images)))

    @property
    def unused_for_key_compat(self):
        """Names of parameters that published files hold and no output depends on."""
        dead = ("DAB.",) if self.mode == 2 else ("DAB.SA.", "DAB.conv1x1")
        return tuple(name for name, _ in self.named_parameters() if name.startswith(dead))

    @property
    def configuration(self):
        """What the weights depend on; where the noise comes from in an evaluation is recorded beside them."""
        built = {
            "source": (self.source, "wrapped"),
            "train_mode": (self.mode, 0),
            "feature": (self.feature, "lnp+fft"),
            "gray": (self.gray, "equal"),
        }
        return {name: value for name, (value, usual) in built.items() if value != usual}

    def describe(self):
        kind = {"image": "the image itself"}.get(self.source, f"{self.source} noise patterns")
        what = {"lnp": kind, "fft": f"the spectra of {kind}", "lnp+fft": f"{kind} and spectra"}[self.feature]
        mode = "" if self.feature == "lnp" else f", mode {self.mode}: {MODES[self.mode]}"
        return f"DFIG's fusion of {what} on {self.trunk_words}{mode}"
