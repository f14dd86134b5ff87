"""Which images are drawn, and how they are read."""

from contextlib import contextmanager

from common import BadImage, UserError
from data import discover, scan
from data.decode import decode

MOST_IMAGES = 6  # rows of a picture


def examples_of(opt):
    """([(title, path)], a note): the files named, or one real image and a fake per generator."""
    if opt.images:
        if opt.index is not None:
            raise UserError("--index chooses from --dataroot; --images names its files")
        if len(opt.images) > MOST_IMAGES:
            raise UserError(f"--images takes at most {MOST_IMAGES} files, got {len(opt.images)}")
        return [("/\n".join(path.parts[-3:]), path) for path in opt.images], ""
    examples = examples_below(opt.dataroot, opt.index or 0)
    left_out = len(examples) - MOST_IMAGES
    return examples[:MOST_IMAGES], f"Left out: {left_out} more." if left_out > 0 else ""


def examples_below(dataroot, index):
    """[(title, path)]: one real image, then one fake per generator; of each folder the image `index`."""
    images = scan(dataroot, discover(dataroot))
    generators = list(dict.fromkeys(sample.generator for sample in images.samples))
    examples = []
    for generator, label in [(generators[0], 0), *((name, 1) for name in generators)]:
        files = [one.path for one in images.samples if (one.generator, one.label) == (generator, label)]
        if index >= len(files):
            word = "fake" if label else "real"
            raise UserError(f"--index {index}: {generator} has {len(files)} {word} images")
        examples.append((f"fake: {generator}" if label else "real", images.root / files[index]))
    return examples


def read_image(path):
    """The RGB image of a file; UserError with the path and the reason."""
    with naming(path):
        return decode(path)


@contextmanager
def naming(path):
    """Adds the path to the reason why an image cannot be used."""
    try:
        yield
    except BadImage as error:
        raise UserError(f"bad image {path}: {error}") from error
