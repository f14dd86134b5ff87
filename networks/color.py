"""Colour spaces as differentiable functions of an RGB image: sRGB in [0, 1], float, (B, 3, H, W).

They return the same dtype, B, H and W, and channels in [0, 1] up to rounding: nothing is clamped at the ends,
so that pure white keeps its gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; every published detector here normalises so
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # weights of R, G, B; ITU-R BT.601-7, section 2.5
SRGB_KNEE = 0.04045  # below it sRGB is linear; IEC 61966-2-1, as are 12.92, 0.055, 1.055 and 2.4
RGB_TO_XYZ = (  # linear sRGB to CIE XYZ, primaries of ITU-R BT.709; the digits are scikit-image's
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)  # XYZ of D65 for the 2 degree observer
LAB_KNEE, LAB_SLOPE, LAB_OFFSET = 0.008856, 7.787, 16 / 116  # CIE 15, in the rounding that scikit-image uses


@dataclass(frozen=True)
class Space:
    """A colour space: the function from RGB, and mean and standard deviation of each of its channels."""

    convert: Callable
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def channels(self):
        return len(self.mean)


def gray(x):
    """Luma, the weighted sum of R, G and B; (B, 1, H, W).  Source: ITU-R BT.601."""
    return weighted_sum(x.split(1, dim=1), LUMA)


def ycbcr(x):
    """Y, Cb, Cr over the full range as in JPEG, grey at Cb = Cr = 0.5.  Source: ITU-T T.871 (JFIF)."""
    red, _, blue = x.split(1, dim=1)
    luma = gray(x)
    cb = (blue - luma) / (2 * (1 - LUMA[2])) + 0.5
    cr = (red - luma) / (2 * (1 - LUMA[0])) + 0.5
    return torch.cat([luma, cb, cr], dim=1)


def hsv(x):
    """Hue (1 is a full turn), saturation and value; a grey pixel has hue 0 and saturation 0.

    The gradient is finite, but grows as 1 / (max - min) in hue, 1 / max in S.  Source: Smith, SIGGRAPH 1978.
    """
    red, green, blue = x.split(1, dim=1)
    value = x.amax(dim=1, keepdim=True)
    spread = value - x.amin(dim=1, keepdim=True)
    tiny = torch.finfo(x.dtype).tiny  # the inverse of less would overflow
    grey = spread <= tiny
    divisor = spread.masked_fill(grey, 1)  # masked before the division, or its gradient would be NaN
    sixths = torch.where(green == value, 2 + (blue - red) / divisor, (green - blue) / divisor)
    sixths = torch.where(blue == value, 4 + (red - green) / divisor, sixths)
    hue = (sixths / 6 % 1).masked_fill(grey, 0)
    saturation = spread / value.masked_fill(value <= tiny, 1)
    return torch.cat([hue, saturation, value], dim=1)


def lab(x):
    """CIE L*a*b* for D65 and the 2 degree observer, returned as L / 100, (a + 128) / 255, (b + 128) / 255.

    sRGB has a in [-86.2, 98.3] and b in [-107.9, 94.5], so nothing leaves [0, 1].  Source: CIE 15.
    """
    linear = decode_srgb(x).split(1, dim=1)
    fx, fy, fz = (compress(weighted_sum(linear, RGB_TO_XYZ[i]) / WHITE[i]) for i in range(3))
    return torch.cat([1.16 * fy - 0.16, (500 * (fx - fy) + 128) / 255, (200 * (fy - fz) + 128) / 255], dim=1)


def weighted_sum(maps, weights):
    """Sum of maps (B, C, H, W), each times its weight: a number, or (B, 1, 1, 1).

    No matmul: autocast and TF32 would round it.
    """
    return sum(weight * part for weight, part in zip(weights, maps, strict=True))


def decode_srgb(x):
    """sRGB values in [0, 1] -> linear light in [0, 1], same shape.  Source: IEC 61966-2-1."""
    power = ((x.clamp(min=SRGB_KNEE) + 0.055) / 1.055) ** 2.4  # clamped: also safe for values below 0
    return torch.where(x > SRGB_KNEE, power, x / 12.92)


def compress(t):
    """The cube root of L*a*b*, t in [0, 1], straight near 0, where a root's gradient is infinite."""
    root = t.clamp(min=LAB_KNEE) ** (1 / 3)  # the clamp keeps 0 * inf = NaN out of the gradient of `where`
    return torch.where(t > LAB_KNEE, root, LAB_SLOPE * t + LAB_OFFSET)


# Only RGB has published ImageNet statistics. The others are measured on seven photographs of the scikit-learn
# and scikit-image wheels (named in tests/test_color.py) of equal weight: mean of their means, and root of the
# mean over them of the mean squared distance to it. Hue counts as a plain number, not as an angle.
SPACES = {
    "rgb": Space(lambda x: x, IMAGENET_MEAN, IMAGENET_STD),
    "ycbcr": Space(ycbcr, (0.403, 0.465, 0.544), (0.254, 0.073, 0.096)),
    "hsv": Space(hsv, (0.271, 0.489, 0.515), (0.282, 0.307, 0.272)),
    "lab": Space(lab, (0.431, 0.535, 0.543), (0.257, 0.063, 0.079)),
    "gray": Space(gray, (0.403,), (0.254,)),
}
