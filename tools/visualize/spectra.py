"""Pictures of DFIG's features: a face from photograph to phase, and averaged spectra of real and fake."""

from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF
from tqdm import tqdm

import data
import networks
from common import UserError
from data.decode import DEFAULT_MAX_MPX, read
from data.noise import decode_noise, is_deep
from data.transforms import to_tensor
from tools.visualize.images import naming, read_image
from util.pictures import COLOURS, GREY, PERCENTILE, canvas, font_for, grid, show, wrap

MOST_FACES = 6
LABEL_NAMES = ("real", "fake")
LINES = {"real": {"color": COLOURS[0]}, "fake": {"color": COLOURS[1], "linestyle": "--"}}
INPUTS = {  # bits of a file of noise, None for images themselves -> flags of the detector that reads it
    None: {"lnp_input": "image", "lnp_denoiser": "none"},
    8: {"lnp_encoding": "wrapped"},
    16: {"lnp_encoding": "signed"},
}
TINY = 1e-12  # under the logarithm
WORDS = (
    f"noise: absolute values, the {PERCENTILE}th percentile white; amplitude: mean of the channels' "
    "(|F| + 1e-8)^0.8, frequency 0 in the middle; phase: mean of the channels'"
)
DIFFERENCE = 98  # percentile of its absolute values that ends the scale of the difference


def detector_for(noise_bits):
    """A detector that prepares files of noise as the trunk sees them; None: images themselves."""
    return networks.create(Namespace(arch="mobilev2", **INPUTS[noise_bits]))


def bits_of(path):
    """8 or 16, the bits of a file of noise."""
    return 16 if is_deep(read(path)) else 8


def pixels_of(path, noise_bits):
    """(3, H, W): int16 of 16-bit noise, else uint8; UserError with the path where the file is broken."""
    if noise_bits is None:
        return to_tensor(read_image(path))
    with naming(path):
        noise = decode_noise(path, noise_bits, DEFAULT_MAX_MPX)
        return noise if noise_bits == 16 else to_tensor(noise)


def strength(pixels):
    """Noise of a file as a picture (H, W, 3) in [0, 1]: white is the PERCENTILE of its absolute values."""
    unwrapped = (256 - pixels.int()) % 256
    noise = pixels.int().abs() if pixels.dtype == torch.int16 else unwrapped
    noise = noise.permute(1, 2, 0).numpy().astype(float)
    return np.clip(noise / max(float(np.percentile(noise, PERCENTILE)), 1), 0, 1)


def draw_lnp(opt):
    """A row per face: photograph, masked face, noise pattern, amplitude and phase of its spectrum."""
    folders = [folder for folder in (opt.original, opt.masked, opt.lnp) if folder]
    faces = common_faces(folders, opt.rows)
    detectors = {bits: detector_for(bits) for bits in (8, 16)}
    heads = ["original", *["masked"] * bool(opt.masked), "noise pattern", "amplitude, log", "phase"]
    rows = []
    for _, (*photographs, noise) in faces:
        bits = bits_of(noise)
        pixels = pixels_of(noise, bits)
        amplitude, phase = detectors[bits].preprocess(pixels[None])[0, -2:].numpy()
        pictures = [np.asarray(read_image(path)) for path in photographs]
        rows.append([*pictures, strength(pixels), np.log10(amplitude + TINY), phase])
    width = 1.9 * len(heads) + 0.6
    font = font_for(width)
    names = [wrap(stem, 22) for stem, _ in faces]
    figure, axes = grid(rows, heads, names, width, 2.0 * len(faces) + 5 * font / 72, font)
    for axis in axes[:, -1]:
        axis.images[0].set(cmap="twilight", clim=(-np.pi, np.pi))
    figure.suptitle(wrap(WORDS, 110), fontsize=font, color=GREY)
    return figure


def common_faces(folders, rows):
    """[(relative stem, its file in each folder)], reals and fakes in turn where folders say which."""
    files = []  # of each folder, {stem: sample}
    for folder in folders:
        samples = data.files_scan([folder]).samples
        stems = [str(Path(sample.path).relative_to(folder).with_suffix("")) for sample in samples]
        files.append(dict(zip(stems, samples, strict=True)))
    shared = [stem for stem in files[-1] if all(stem in other for other in files)]
    if not shared:
        raise UserError(f"no image has the same folders and name in {', '.join(map(str, folders))}")
    labels, turn = Counter(), {}
    for stem in shared:
        label = files[-1][stem].label
        turn[stem] = (labels[label], label)
        labels[label] += 1
    chosen = sorted(shared, key=turn.get)[:rows]
    return [(stem, [Path(other[stem].path) for other in files]) for stem in chosen]


def draw_spectra(opt):
    """Mean log amplitude of reals and of fakes, their difference, and both by distance from frequency 0."""
    groups = labelled(opt.input, opt.most)
    bits = None if opt.lnp_input == "image" else bits_of(groups[0][0])
    side = opt.size or min(min(pixels_of(path, bits).shape[1:]) for paths in groups for path in paths)
    detector = detector_for(bits)
    means = [mean_spectrum(paths, bits, side, detector) for paths in groups]
    difference = means[1] - means[0]
    figure, ((real, fake, apart, rings),) = canvas(1, 4, 12, 3.2)
    font = font_for(12)
    for axis, picture, name, paths in zip((real, fake), means, LABEL_NAMES, groups, strict=True):
        drawn = show(axis, picture)
        drawn.set(cmap="viridis", clim=tuple(np.percentile(np.stack(means), [1, 99.5])))
        axis.set_title(f"{name}, mean of {len(paths):,}", fontsize=font)
        frequency, value = radial(picture)
        rings.plot(frequency, value, label=name, **LINES[name])
    limit = max(float(np.percentile(np.abs(difference), DIFFERENCE)), TINY)
    show(apart, difference).set(cmap="RdBu_r", clim=(-limit, limit))
    apart.set_title("fake - real", fontsize=font)
    for axis in (fake, apart):
        bar = figure.colorbar(axis.images[0], ax=axis, shrink=0.75, pad=0.02)
        bar.ax.tick_params(labelsize=font)
    rings.set_xlabel("cycles per pixel", fontsize=font)
    rings.set_title("by frequency", fontsize=font)
    rings.tick_params(labelsize=font)
    rings.grid(color="0.92")
    rings.legend(fontsize=font, frameon=False)
    what = {None: "images", 8: "wrapped noise", 16: "signed noise"}[bits]
    words = f"log10 of the amplitude channel, (|F| + 1e-8)^0.8, of {what}, centre {side}x{side}"
    figure.suptitle(words, fontsize=font)
    return figure


def labelled(folder, most):
    """(paths of reals, paths of fakes), at most so many each, by the folder names above them."""
    samples = data.files_scan([folder]).samples
    groups = [[Path(sample.path) for sample in samples if sample.label == label][:most] for label in (0, 1)]
    if not all(groups):
        raise UserError(f"{folder} needs folders of reals and of fakes ({data.folder.LAYOUT_HELP})")
    return groups


def mean_spectrum(paths, bits, side, detector):
    """Mean log10 amplitude (side, side) of files; UserError where one is smaller than that."""
    total = np.zeros((side, side))
    for path in tqdm(paths, unit="img", leave=False, dynamic_ncols=True):
        pixels = pixels_of(path, bits)
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
    count = np.bincount(ring)
    rings = np.arange(1, side // 2)  # without frequency 0, and complete rings only
    return rings / side, (np.bincount(ring, picture.ravel()) / count)[rings]
