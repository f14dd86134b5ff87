"""Centres of images at their stored size, uncompressed, for a training that need not decode large files."""

from data.transforms import center_crop
from tools.extract.tree import Extraction, encoded


def extract_crops(opt):
    """Writes the centre of every image of --input, or a smaller image whole."""

    def make_files(images):
        centres = center_crop(images, *(min(opt.side, length) for length in images.shape[2:]))
        return (encoded(".bmp", centre) for centre in centres.permute(0, 2, 3, 1).numpy())

    Extraction(opt, {"side": opt.side}, ".bmp").run(make_files)
