"""Pictures of DFIG's features: a face from photograph to phase, and averaged spectra of real and fake."""

from argparse import Namespace
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF
from tqdm import tqdm

import data
import networks
from common import UserError
from data.decode import read
from data.folder import LAYOUT_HELP
from data.noise import is_deep
from tools.visualize.images import read_pixels
from util.pictures import COLOURS, LINES, PERCENTILE, RULE, canvas, font_for, grid, show

# Bits of a file of noise, None for images themselves -> what it is, flags of the detector that reads it.
INPUTS = {
    None: ("images", {"lnp_input": "image", "lnp_denoiser": "none"}),
    8: ("wrapped noise", {"lnp_encoding": "wrapped"}),
    16: ("signed noise", {"lnp_encoding": "signed"}),
}
TINY = 1e-12  # under the logarithm
NOTE = (
    f"noise: absolute values, the {PERCENTILE}th percentile white; amplitude: mean of the channels' "
    "(|F| + 1e-8)^0.8, frequency 0 in the middle; phase: mean of the channels'"
)
DIFFERENCE = 98  # percentile of its absolute values that ends the scale of the difference


def detector_for(noise_bits):
    """A detector that prepares files of noise as the trunk sees them; None: images themselves."""
    return networks.create(Namespace(arch="mobilev2", **INPUTS[noise_bits][1]))


def bits_of(path):
    """8 or 16, the bits of a file of noise."""
    return 16 if is_deep(read(path)) else 8


def strength(pixels):
    """Noise of a file as a picture (H, W, 3) in [0, 1]: white is the PERCENTILE of its absolute values."""
    noise = pixels.int().abs() if pixels.dtype == torch.int16 else (256 - pixels.int()) % 256
    noise = noise.permute(1, 2, 0).numpy()
    return np.clip(noise / max(np.percentile(noise, PERCENTILE), 1), 0, 1)


def draw_lnp(opt):
    """A row per face: photograph, masked face, noise pattern, amplitude and phase of its spectrum."""
    folders = {"original": opt.original, "masked": opt.masked, "noise pattern": opt.lnp}
    folders = {name: folder for name, folder in folders.items() if folder}
    faces = common_faces(folders.values(), opt.rows)
    rows = []
    for *photographs, noise in faces.values():
        bits = bits_of(noise)
        pixels = read_pixels(noise, noise_bits=bits)
        amplitude, phase = detector_for(bits).preprocess(pixels[None])[0, -2:].numpy()
        pictures = [read_pixels(path) for path in photographs]
        rows.append([*pictures, strength(pixels), np.log10(amplitude + TINY), phase])
    heads = [*folders, "amplitude, log", "phase"]
    figure = grid(rows, heads, faces, note=NOTE)
    for axis in figure.axes[len(heads) - 1 :: len(heads)]:  # the phases
        axis.images[0].set(cmap="twilight", clim=(-np.pi, np.pi))
    return figure


def common_faces(folders, rows):
    """{relative stem: its file in each folder}, reals and fakes in turn where folders say which."""
    files = []  # of each folder, {stem: sample}
    for folder in folders:
        samples = data.files_scan([folder]).samples
        files.append({str(Path(each.path).relative_to(folder).with_suffix("")): each for each in samples})
    shared = {
        stem: sample.label for stem, sample in files[-1].items() if all(stem in other for other in files)
    }
    if not shared:
        raise UserError(f"no image has the same folders and name in {', '.join(map(str, folders))}")
    groups = [[stem for stem in shared if shared[stem] == label] for label in set(shared.values())]
    chosen = [stem for turn in zip_longest(*groups) for stem in turn if stem][:rows]
    return {stem: [Path(other[stem].path) for other in files] for stem in chosen}


def draw_spectra(opt):
    """Mean log amplitude of reals and of fakes, their difference, and both by distance from frequency 0."""
    samples = data.files_scan([opt.input]).samples
    groups = [[Path(path) for path, _, own in samples if own == label][: opt.most] for label in (0, 1)]
    if not all(groups):
        raise UserError(f"{opt.input} needs folders of reals and of fakes ({LAYOUT_HELP})")
    bits = None if opt.lnp_input == "image" else bits_of(groups[0][0])
    side = opt.size or min(min(read_pixels(path, noise_bits=bits).shape[1:]) for path in chain(*groups))
    means = [mean_spectrum(paths, bits, side) for paths in groups]
    difference = means[1] - means[0]
    figure, ((*spectra, apart, rings),) = canvas(1, 4, 12, 3.2)
    font = {"fontsize": font_for(12)}
    for label, (axis, picture) in enumerate(zip(spectra, means, strict=True)):
        name = ("real", "fake")[label]
        show(axis, picture).set(cmap="viridis", clim=tuple(np.percentile(means, [1, 99.5])))
        axis.set_title(f"{name}, mean of {len(groups[label]):,}", **font)
        rings.plot(*radial(picture), label=name, color=COLOURS[label], linestyle=LINES[label])
    limit = max(float(np.percentile(np.abs(difference), DIFFERENCE)), TINY)
    show(apart, difference).set(cmap="RdBu_r", clim=(-limit, limit))
    apart.set_title("fake - real", **font)
    bars = [figure.colorbar(axis.images[0], ax=axis, shrink=0.75, pad=0.02) for axis in (spectra[1], apart)]
    for axis in (rings, *(bar.ax for bar in bars)):
        axis.tick_params(labelsize=font["fontsize"])
    rings.set_xlabel("cycles per pixel", **font)
    rings.set_title("by frequency", **font)
    rings.grid(color=RULE)
    rings.legend(frameon=False, **font)
    words = f"log10 of the amplitude channel, (|F| + 1e-8)^0.8, of {INPUTS[bits][0]}, centre {side}x{side}"
    figure.suptitle(words, **font)
    return figure


def mean_spectrum(paths, bits, side):
    """Mean log10 amplitude (side, side) of files; UserError where one is smaller than that."""
    detector, total = detector_for(bits), np.zeros((side, side))
    for path in tqdm(paths, unit="img", leave=False, dynamic_ncols=True):
        pixels = read_pixels(path, noise_bits=bits)
        if min(pixels.shape[1:]) < side:
            raise UserError(f"{path} is smaller than --size {side}")
        amplitude = detector.preprocess(TF.center_crop(pixels, side)[None])[0, -2].numpy()
        total += np.log10(amplitude + TINY)
    return total / len(paths)


def radial(picture):
    """(cycles per pixel, mean value) over rings one bin wide around the middle of a square picture."""
    side = len(picture)
    offset = np.arange(side) - side // 2
    ring = np.hypot(offset[:, None], offset[None]).round().astype(int).ravel()
    rings = np.arange(1, side // 2)  # without frequency 0, and complete rings only
    return rings / side, (np.bincount(ring, picture.ravel()) / np.bincount(ring))[rings]
