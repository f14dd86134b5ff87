"""The NPR layer: what is left of an image when its own nearest-neighbour down- and up-sampling is taken away.

Source: Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable
Deepfake Detection", CVPR 2024, section 3; window l = 2, reference w1 (the top-left pixel).
"""

# Published scale of the residual before the first convolution; NPR.pth is only valid with it.
# Written as two steps because float32 x * 2 / 3 and x * (2 / 3) differ in the last bit.
SCALE_NUMERATOR, SCALE_DENOMINATOR = 2.0, 3.0


def trim_to_even(x):
    """Drops the last row and/or column of (..., H, W) where odd (rule of NPR's README)."""
    height, width = x.shape[-2:]
    return x[..., : height - height % 2, : width - width % 2]


def neighbour_residual(x):
    """Every 2x2 block minus its own top-left pixel, which is x - up(down(x)) at factor 0.5, mode nearest.

    x: (..., H, W), at least 2x2.  Returns (..., H - H % 2, W - W % 2); a quarter of it is exactly 0.
    """
    if min(x.shape[-2:]) < 2:
        raise ValueError(f"NPR needs images of at least 2x2 pixels, got {x.shape[-1]}x{x.shape[-2]}")
    blocks = trim_to_even(x).unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (..., H/2, 2, W/2, 2)
    residual = blocks - blocks[..., :1, :, :1]
    return residual.flatten(-4, -3).flatten(-2, -1)


def scaled_residual(x):
    """The residual times 2/3, as the published network feeds it to its first convolution."""
    return neighbour_residual(x) * SCALE_NUMERATOR / SCALE_DENOMINATOR
