"""Noise patterns (LNP) by CycleISP's denoiser."""

import torch

from common import UserError, sha256
from networks import cycleisp
from tools.extract.tree import Extraction, encoded

# Pixels of a pass on a CPU; larger ones are slower, since the system hands out their memory anew each time.
CPU_PASS = 256 * 256
LEAST_TILE = 32  # smaller ones are nearly all overlap


def extract_lnp(opt):
    """Writes the noise pattern of every image of --input."""
    if opt.amp == "bf16" and opt.encoding == "wrapped":
        raise UserError("--encoding wrapped needs --amp off: there a rounding step at 0 becomes 255")
    precision = "bf16" if opt.amp == "bf16" else "fp32"
    settings = {"encoding": opt.encoding, "precision": precision, "tile": opt.tile}
    extraction = Extraction(opt, {"weights_sha256": sha256(opt.weights), **settings}, ".png")
    device = extraction.device
    denoiser = cycleisp.load(opt.weights).to(device)

    def make_files(images):
        most = CPU_PASS if device.type == "cpu" else opt.tile**2
        count = max(1, most // (images.shape[2] * images.shape[3]))
        for part in images.split(count):
            yield from (encoded(".png", values) for values in noise_values(opt, denoiser, part.to(device)))

    extraction.run(make_files)
    print(f"train with --lnp_encoding {opt.encoding}")


@torch.inference_mode()
def noise_values(opt, denoiser, images):
    """uint8 images (B, 3, H, W) -> (B, H, W, 3), RGB: uint8 if wrapped, else uint16."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=opt.amp == "bf16"):
        noise = denoiser.encoded_noise(images.float() / 255, opt.encoding, opt.tile)
    values = noise.permute(0, 2, 3, 1).cpu().numpy()
    if opt.encoding == "wrapped":
        return values
    return (values.astype("int32") + cycleisp.SIGNED_ZERO).astype("uint16")
