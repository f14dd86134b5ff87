"""Small convolutional autoencoders, one per way of up-sampling: the "generators" of the sample dataset.

Each halves a picture and doubles it again; what it leaves behind is the trace of its up-sampler, which is
what NPR looks for.  Source: the simulator of Zhang, Karaman and Chang, "Detecting and Simulating
Artifacts in GAN Fake Images", WIFS 2019.
"""

from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

MARGIN = 16  # pixels cut from every side: more than the zero padding reaches (8), and even, to keep phase
MIN_DETAIL = 2.0  # grey levels between neighbours; smoother windows (sky, blur) leave nothing to detect
MAX_DRAWS = 20  # tries for a window with that much detail
WIDTH = 16  # channels at full resolution
LATENT = 24  # channels at half resolution; 12 would just hold the pixels, a decent picture needs slack
SLOPE = 0.2  # of the leaky ReLU; with a plain one fewer colours come through unchanged
FIT_WINDOW = 64  # pixels
FIT_BATCH = 8
FIT_RATE = 8e-3  # peak of the one-cycle schedule


class Interpolate(nn.Module):
    """Doubles the side of (B, C, n, n) by nearest, bilinear or bicubic interpolation, then a convolution."""

    def __init__(self, mode, channels, out_channels):
        super().__init__()
        self.mode, self.conv = mode, nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(self, x):
        # Two matrix products give the same values as F.interpolate, whose bicubic is ten times slower here.
        matrix = doubling_matrix(x.shape[-1], self.mode)
        return self.conv((matrix @ x @ matrix.T).contiguous(memory_format=torch.channels_last))


def doubling_matrix(side, mode):
    """The (2 side, side) matrix that doubles a column of pixels by nearest, bilinear or bicubic."""
    corners = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(torch.eye(side)[None, None], scale_factor=(2, 1), mode=mode, **corners)[0, 0]


def pixel_shuffle(channels, out_channels):
    """A convolution to four times the channels, rearranged to twice the side."""
    return nn.Sequential(nn.Conv2d(channels, out_channels * 4, 3, padding=1), nn.PixelShuffle(2))


# The generators by name; the first is that of train and val.
UPSAMPLERS = {
    "nearest": partial(Interpolate, "nearest"),
    "bilinear": partial(Interpolate, "bilinear"),
    "bicubic": partial(Interpolate, "bicubic"),
    "transposed": partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1),
    "pixelshuffle": pixel_shuffle,
}


def make_generator(name):
    """An unfitted autoencoder of (B, 3, n, n) in [-1, 1], n even, that halves and doubles n."""
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(WIDTH, LATENT, 4, stride=2, padding=1),
        UPSAMPLERS[name](LATENT, WIDTH),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(WIDTH, 3, 3, padding=1),
    ).to(memory_format=torch.channels_last)


def draw_window(photograph, side, rng):
    """A (3, side, side) window at a uniform position, drawn again while it is smooth."""
    for _ in range(MAX_DRAWS):
        top, left = (int(torch.randint(n - side + 1, (), generator=rng)) for n in photograph.shape[1:])
        window = photograph[:, top : top + side, left : left + side]
        if window.float().diff(dim=-1).abs().mean() >= MIN_DETAIL:
            break
    return window


def to_float(pixels):
    """uint8 pixels -> [-1, 1]."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def cut(images, margin):
    """(..., height, width) without `margin` pixels on each side."""
    return images[..., margin:-margin, margin:-margin]


@contextmanager
def one_thread():
    """torch with one thread: the order of its sums depends on their number, and so do the bits of a fit.

    More of them stall each other on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(name, photographs, steps, seed):
    """A generator, fitted to repeat windows of the photographs (mean absolute error)."""
    rng = torch.Generator().manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # for the initial weights
    generator = make_generator(name)
    optimizer = torch.optim.Adam(generator.parameters(), FIT_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, FIT_RATE, total_steps=steps, pct_start=0.1)
    for _ in tqdm(range(steps), desc=f"fit {name}", unit="step"):
        windows = to_float(torch.stack([draw_fit_window(photographs, rng) for _ in range(FIT_BATCH)]))
        loss = cut(generator(windows) - windows, MARGIN // 2).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return generator.eval()


def draw_fit_window(photographs, rng):
    """A (3, FIT_WINDOW, FIT_WINDOW) uint8 window of a random photograph, every other one recoloured.

    The training photographs lack strong colours; without recolouring, fakes of others would have a cast.
    """
    photograph = photographs[int(torch.randint(len(photographs), (), generator=rng))]
    window = draw_window(photograph, FIT_WINDOW, rng)
    if torch.rand((), generator=rng) < 0.5:
        return window
    return (window * torch.rand(3, 1, 1, generator=rng)).round().to(torch.uint8)


@torch.no_grad()
def regenerate(generator, window):
    """The generator's version of a (1, 3, n, n) uint8 window; a grey window stays grey."""
    out = generator(to_float(window)).clamp(-1, 1)
    if (window == window[:, :1]).all():
        # A photograph without colour would otherwise give its fakes away by a faint tint.
        out = out.mean(dim=1, keepdim=True).expand_as(window)
    return ((out + 1) * 127.5).round().to(torch.uint8)


def psnr(first, second):
    """The peak signal-to-noise ratio of two uint8 images in dB."""
    error = (first.float() - second.float()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp_min(1e-3)))
