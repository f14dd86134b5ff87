"""Pictures of DFIG's features: a face from photograph to phase, and averaged spectra of real and fake.

Part of tools/visualize.py, which reads the options.
"""

from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF
from tqdm import tqdm

import data
import networks
from common import BadImage, UserError
from data.decode import DEFAULT_MAX_MPX, read
from data.noise import decode_noise, is_deep
from data.transforms import to_tensor
from tools.maps import PERCENTILE, read_image, show
from util.plot import COLOURS, GREY, canvas, font_for, save, wrap

MOST_FACES = 6
LABEL_NAMES = ("real", "fake")
TINY = 1e-12  # under the logarithm
WORDS = (
    f"noise: absolute values, the {PERCENTILE}th percentile white; amplitude: mean of the channels' "
    "(|F| + 1e-8)^0.8, frequency 0 in the middle; phase: mean of the channels'"
)
DIFFERENCE = 98  # percentile of its absolute values that ends the scale of the difference


def detector_for(noise_bits):
    """A detector that prepares files of that kind as the trunk sees them; None: images themselves."""
    encoding = {16: "signed"}.get(noise_bits, "wrapped")
    source = (
        {"lnp_input": "image", "lnp_denoiser": "none"} if noise_bits is None else {"lnp_encoding": encoding}
    )
    return networks.create(Namespace(arch="mobilev2", **source))


def bits_of(path):
    """8 or 16, the bits of a file of noise."""
    return 16 if is_deep(read(path)) else 8


def pixels_of(path, noise_bits):
    """(3, H, W): int16 of 16-bit noise, else uint8; ValueError with the path where the file is broken."""
    if noise_bits is None:
        return to_tensor(read_image(path))
    try:
        found = decode_noise(path, noise_bits, DEFAULT_MAX_MPX)
        return found if noise_bits == 16 else to_tensor(found)
    except BadImage as error:
        raise UserError(f"bad image {path}: {error}") from error


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
    heads = ["original", "masked", "noise pattern", "amplitude, log", "phase"]
    heads = [head for head in heads if head != "masked" or opt.masked]
    width = 1.9 * len(heads) + 0.6
    font = font_for(width)
    figure, axes = canvas(len(faces), len(heads), width, 2.0 * len(faces) + 5 * font / 72)
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=font)
    for line, (stem, paths) in zip(axes, faces, strict=True):
        *photographs, noise = paths
        bits = bits_of(noise)
        pixels = pixels_of(noise, bits)
        amplitude, phase = detectors[bits].preprocess(pixels[None])[0, -2:].numpy()
        pictures = [np.asarray(read_image(path)) for path in photographs]
        pictures += [strength(pixels), np.log10(amplitude + TINY)]
        for axis, picture in zip(line, pictures, strict=False):
            show(axis, picture)
        drawn = show(line[-1], phase)
        drawn.set(cmap="twilight", clim=(-np.pi, np.pi))
        line[0].set_ylabel(wrap(stem, 22), fontsize=font)
    figure.suptitle(wrap(WORDS, 110), fontsize=font, color=GREY)
    return save(figure, opt.output)


def common_faces(folders, rows):
    """[(relative stem, its file in each folder)], reals and fakes in turn where folders say which."""
    if rows > MOST_FACES:
        raise UserError(f"--rows is at most {MOST_FACES}, got {rows}")
    found = [
        {
            str(Path(sample.path).relative_to(folder).with_suffix("")): sample
            for sample in data.files_scan([folder]).samples
        }
        for folder in folders
    ]
    stems = [stem for stem in found[-1] if all(stem in one for one in found)]
    if not stems:
        raise UserError(f"no image has the same folders and name in {', '.join(map(str, folders))}")
    labels, turn = Counter(), {}
    for stem in stems:
        label = found[-1][stem].label
        turn[stem] = (labels[label], label)
        labels[label] += 1
    chosen = sorted(stems, key=turn.get)[:rows]
    return [(stem, [Path(one[stem].path) for one in found]) for stem in chosen]


def draw_spectra(opt):
    """Mean log amplitude of reals and of fakes, their difference, and both by distance from frequency 0."""
    groups = labelled(opt.input, opt.most)
    bits = None if opt.lnp_input == "image" else bits_of(groups[0][0])
    side = opt.size or min(min(pixels_of(path, bits).shape[1:]) for paths in groups for path in paths)
    detector = detector_for(bits)
    means = [mean_spectrum(paths, bits, side, detector) for paths in groups]
    figure, axes = canvas(1, 4, 12, 3.2)
    font = font_for(12)
    low, high = np.percentile(np.stack(means), [1, 99.5])
    for axis, picture, name, paths in zip(axes[0], means, LABEL_NAMES, groups, strict=False):
        both = show(axis, picture)
        both.set(cmap="viridis", clim=(low, high))
        axis.set_title(f"{name}, mean of {len(paths):,}", fontsize=font)
    difference = means[1] - means[0]
    limit = max(float(np.percentile(np.abs(difference), DIFFERENCE)), TINY)
    drawn = show(axes[0, 2], difference)
    drawn.set(cmap="RdBu_r", clim=(-limit, limit))
    axes[0, 2].set_title("fake - real", fontsize=font)
    for image, axis in ((both, axes[0, 1]), (drawn, axes[0, 2])):
        figure.colorbar(image, ax=axis, shrink=0.75, pad=0.02).ax.tick_params(labelsize=font)
    for name, picture, colour, line in zip(LABEL_NAMES, means, COLOURS, ("-", "--"), strict=False):
        frequency, value = radial(picture)
        axes[0, 3].plot(frequency, value, label=name, color=colour, linestyle=line)
    axes[0, 3].set_xlabel("cycles per pixel", fontsize=font)
    axes[0, 3].set_title("by frequency", fontsize=font)
    axes[0, 3].tick_params(labelsize=font)
    axes[0, 3].grid(color="0.92")
    axes[0, 3].legend(fontsize=font, frameon=False)
    what = {None: "images", 8: "wrapped noise", 16: "signed noise"}[bits]
    figure.suptitle(
        f"log10 of the amplitude channel, (|F| + 1e-8)^0.8, of {what}, centre {side}x{side}", fontsize=font
    )
    return save(figure, opt.output)


def labelled(folder, most):
    """(paths of reals, paths of fakes), at most so many each, by the folder names above them."""
    found = data.files_scan([folder]).samples
    groups = [[Path(sample.path) for sample in found if sample.label == label][:most] for label in (0, 1)]
    if not all(groups):
        raise UserError(
            f"{folder} needs reals and fakes, told by a folder above them ({data.folder.LAYOUT_HELP})"
        )
    return groups


def mean_spectrum(paths, bits, side, detector):
    """Mean log10 amplitude (side, side) of files; ValueError where one is smaller than that."""
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
    rings = np.arange(1, side // 2)  # without frequency 0, and complete rings alone
    return rings / side, (np.bincount(ring, picture.ravel()) / count)[rings]
