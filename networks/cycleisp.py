"""CycleISP's RGB denoiser, whose residual is the learned noise pattern (LNP), and the files that hold one.

    noise = image - denoised = -(what the network adds to the image)

Source: Zamir et al., "CycleISP", CVPR 2020, and its networks/denoising_rgb.py; as a noise pattern: Liu et
al., arXiv 2211.00962, and DFIG's Project_LNP.py.  2,834,947 parameters.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from networks import checkpoint

WIDTH, GROUPS, BLOCKS, REDUCTION = 64, 4, 8, 16
REACH = 103  # pixels that an output pixel sees to each side, apart from the pooling of the channel attention
TILE = 1024  # side of the tiles of a larger image, which take a few GB
SIGNED_ZERO, SIGNED_ONE = 32768, 32767  # 16-bit files hold SIGNED_ZERO + SIGNED_ONE * noise


class ChannelAttention(nn.Module):
    """(B, C, H, W) weighted per channel by what its mean over the whole image says."""

    def __init__(self, width, reduction):
        super().__init__()
        first, second = nn.Conv2d(width, width // reduction, 1), nn.Conv2d(width // reduction, width, 1)
        self.conv_du = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Sigmoid())

    def forward(self, x):
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class SpatialAttention(nn.Module):
    """(B, C, H, W) weighted per position by the largest and the mean value over its channels."""

    def __init__(self):
        super().__init__()
        self.spatial = nn.Module()  # the level that the published names have here
        self.spatial.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x):
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * self.spatial.conv(pooled).sigmoid()


class DualAttentionBlock(nn.Module):
    """Two 3x3 convolutions, both kinds of attention side by side, joined by 1x1; around it a shortcut."""

    def __init__(self, width, reduction, activation):
        super().__init__()
        self.SA = SpatialAttention()
        self.CA = ChannelAttention(width, reduction)
        self.body = nn.Sequential(conv3x3(width, width), activation, conv3x3(width, width))
        self.conv1x1 = nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        inner = self.body(x)
        return x + self.conv1x1(torch.cat([self.SA(inner), self.CA(inner)], dim=1))


class ResidualGroup(nn.Module):
    """Dual attention blocks and a convolution; around them a shortcut."""

    def __init__(self, activation):
        super().__init__()
        blocks = [DualAttentionBlock(WIDTH, REDUCTION, activation) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*blocks, conv3x3(WIDTH, WIDTH))

    def forward(self, x):
        return x + self.body(x)


class CycleISP(nn.Module):
    """The denoiser of RGB photographs.  One PReLU is shared by all blocks, as published."""

    def __init__(self):
        super().__init__()
        activation = nn.PReLU(WIDTH)
        groups = [ResidualGroup(activation) for _ in range(GROUPS)]
        self.head = nn.Sequential(conv3x3(3, WIDTH))
        self.body = nn.Sequential(*groups, conv3x3(WIDTH, WIDTH), activation)
        self.tail = nn.Sequential(conv3x3(WIDTH, 3))

    def forward(self, images):
        """Images (B, 3, H, W) in [0, 1] -> denoised images of the same shape, not clipped."""
        return images - self.noise(images)

    def noise(self, images):
        """Images (B, 3, H, W) in [0, 1] -> what the network considers noise, float32, about 0."""
        return -self.tail(self.body(self.head(images))).float()

    def noise_in_tiles(self, images, side, margin=REACH):
        """`noise` in tiles of `side` pixels, each computed with `margin` more on all sides that have them.

        It is an approximation, since the channel attention of a tile sees only the tile.
        """
        height, width = images.shape[-2:]
        if max(height, width) <= side:
            return self.noise(images)
        result = torch.empty_like(images, dtype=torch.float32)
        for top in range(0, height, side):
            for left in range(0, width, side):
                first_row, first_column = max(0, top - margin), max(0, left - margin)
                bottom, right = min(height, top + side), min(width, left + side)
                part = images[..., first_row : bottom + margin, first_column : right + margin]
                noise = self.noise(part)[..., top - first_row :, left - first_column :]
                result[..., top:bottom, left:right] = noise[..., : bottom - top, : right - left]
        return result

    def encoded_noise(self, images, encoding, tile=TILE):
        """Images (B, 3, H, W), RGB in [0, 1] -> what an LNP file in this encoding holds, as RGB."""
        _, encode, bgr = ENCODINGS[encoding]
        noise = encode(self.noise_in_tiles(images.flip(1) if bgr else images, tile))
        return noise.flip(1) if bgr else noise


def wrapped(noise):
    """Noise -> uint8 as in DFIG's files: what is below 0 becomes 0, v of 255 becomes (256 - v) % 256.

    Source: Project_LNP.py, which multiplies an image of bytes by 255, modulo 256.
    """
    v = (noise.float().clamp(0, 1) * 255).round().to(torch.int16)
    return ((256 - v) % 256).to(torch.uint8)


def signed(noise):
    """Noise in [-1, 1] -> int16 from -32767 to 32767; a 16-bit file holds this plus 32768."""
    return (noise.float().clamp(-1, 1) * SIGNED_ONE).round().to(torch.int16)


class Encoding(NamedTuple):
    """How files hold noise."""

    bits: int  # of a channel
    encode: Callable
    bgr: bool  # the denoiser sees the channels in this order, as in DFIG


ENCODINGS = {"wrapped": Encoding(8, wrapped, bgr=True), "signed": Encoding(16, signed, bgr=False)}


def conv3x3(inputs, outputs):
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def load(path):
    """The denoiser of a weight file, on the CPU; CheckpointError where the file holds something else.

    Its weights are buffers that are not saved: as part of a detector it moves with it, while no optimiser,
    no state_dict and no strict loading sees it.
    """
    denoiser, state = CycleISP().eval(), checkpoint.unwrapped(checkpoint.read(path), path)[0]
    checkpoint.load_weights(denoiser, state, path, "CycleISP's denoiser of RGB images (sidd_rgb.pth)")
    denoiser.to(memory_format=torch.channels_last)  # faster
    for module in denoiser.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return denoiser
