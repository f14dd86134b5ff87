"""Which images are drawn, and how they are read."""

from common import UserError
from data import Geometry, RealFakeFolder, discover, scan
from data.decode import DEFAULT_MAX_MPX
from data.folder import Sample, Scan
from data.transforms import Limits

AS_STORED = Geometry(None, None)
AS_LARGE_AS_READABLE = Limits(max_input_mpx=DEFAULT_MAX_MPX)


def examples(opt):
    """[(title, path)]: --images, or of --dataroot a real image and a fake per generator, number --index."""
    if opt.images and opt.index:
        raise UserError("--index chooses from --dataroot; --images names its files")
    if opt.images:
        return [("/".join(path.parts[-3:]), path) for path in opt.images]
    images = scan(opt.dataroot, discover(opt.dataroot))
    chosen = []
    for generator, label in [(images.folders[0], 0), *((name, 1) for name in images.folders)]:
        files = [path for path, *folder in images.samples if folder == [generator, label]]
        if opt.index >= len(files):
            word = "fake" if label else "real"
            raise UserError(f"--index {opt.index}: {generator} has {len(files)} {word} images")
        chosen.append((f"fake: {generator}" if label else "real", images.root / files[opt.index]))
    return chosen


def read_pixels(path, geometry=AS_STORED, limits=AS_LARGE_AS_READABLE, **rules):
    """uint8 pixels (3, H, W) of a file, int16 of 16-bit noise; UserError with the path and the reason.

    rules: further fields of RealFakeFolder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name an image file")
    file = Scan(path.parent, [Sample(path.name, "", 0)])
    item = RealFakeFolder(file, geometry, limits=limits, **rules)[0]
    if "bad" in item:
        raise UserError(f"bad image {path}: {item['bad']}")
    return item["image"]
