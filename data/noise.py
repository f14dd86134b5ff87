"""Files of noise patterns (tools.extract lnp): 8 bits wrapped around 256, or 16 bits around 32768.

Their values are not colours: a detector of one kind must not be given the other, or a photograph.
"""

import cv2
import numpy as np
import torch

from common import BadImage
from data.decode import decode_bytes, opened, read

ZERO = 32768  # value of no noise in a 16-bit file
PNG, DEPTH_BYTE, COLOUR_BYTE, RGB = b"\x89PNG\r\n\x1a\n", 24, 25, 2  # of a PNG's header
KINDS = {8: "an 8-bit PNG of wrapped noise", 16: "a 16-bit RGB PNG of signed noise"}
STRONG = 127  # values from 1 to this are, in a wrapped file, noise beyond half of the range
MOST_STRONG = 0.1  # share of such values; 28 files of DFIG have none
REMEDY = "noise: --lnp_encoding and tools.extract lnp; photographs: --lnp_input image"


def is_deep(content):
    """Whether the bytes of a file are a PNG of three channels of 16 bits."""
    return content[:8] == PNG and tuple(content[DEPTH_BYTE : COLOUR_BYTE + 1]) == (16, RGB)


def decode_noise(path, bits, max_mpx):
    """The noise that a file holds: 8 bits as an RGB PIL image, 16 bits as int16 (3, H, W), 0 for no noise.

    BadImage where the file is of the other kind, broken or too large.
    """
    content = read(path)
    if content and (content[:8] != PNG or is_deep(content) != (bits == 16)):
        raise BadImage(f"not {KINDS[bits]}, which the detector takes ({REMEDY})")
    if bits == 8:
        image = decode_bytes(content, max_mpx)
        strong = (np.asarray(image) - np.uint8(1) < STRONG).mean()
        if strong > MOST_STRONG:
            share = f"{100 * strong:.0f} %"
            raise BadImage(f"not a noise pattern: {share} of it would be beyond half of the range ({REMEDY})")
        return image
    with opened(content, max_mpx):
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if values is None:
        raise BadImage("truncated or damaged PNG")
    noise = (values[..., ::-1].astype(np.int32) - ZERO).clip(-ZERO, ZERO - 1).astype(np.int16)
    return torch.from_numpy(noise.transpose(2, 0, 1).copy())


def noise_sample(noise, geometry, augment=None, rng=None):
    """int16 (3, H, W) -> its crop: central, or with `augment` random and maybe flipped, as rng decides.

    Noise smaller than the crop is repeated until it covers it, as images are.
    """
    noise = geometry.tile(noise)
    if augment is None:
        return geometry.center_crop(noise)
    return augment.crop_and_flip([noise], geometry.crop_size, rng)[0].contiguous()
