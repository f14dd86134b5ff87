"""Image files and folders as a user names them, for predict.py: any folder structure, labels optional."""

import os
from pathlib import Path

from common import UserError
from data.folder import EXTENSIONS, LABELS, Sample, Scan, image_files

UNLABELLED = -1


def files_scan(inputs):
    """Lists the images of files and folders, folders with everything below them, each file once.

    A sample's label is that of the nearest folder above it with a known label name (0_real, ai, ...), else
    UNLABELLED; folders above a named one say nothing, nor do those above a named file's own.  A file that is
    named itself is taken whatever its extension.
    """
    found = Scan(Path())
    seen = set()
    for entry in inputs:
        place = Path(entry)
        if not place.exists():
            raise UserError(f"no file or folder {entry}")
        for path in _images(place, found.passed_over) if place.is_dir() else [str(place)]:
            if os.path.abspath(path) not in seen:
                seen.add(os.path.abspath(path))
                above = os.path.abspath(place if place.is_dir() else place.parent)
                inside = os.path.relpath(os.path.abspath(path), os.path.dirname(above))
                found.samples.append(Sample(path, "", label_of(inside)))
    if not found.samples:
        raise UserError(
            f"no images in {', '.join(map(str, inputs))}; found {found.others() or 'nothing'}; "
            f"known extensions: {' '.join(sorted(EXTENSIONS))}"
        )
    return found


def label_of(path):
    """1 or 0 by the nearest labelled folder above a file, else UNLABELLED."""
    names = [part.lower() for part in Path(path).parent.parts]
    return next((LABELS[name] for name in reversed(names) if name in LABELS), UNLABELLED)


def _images(folder, passed_over):
    for place, names in image_files(folder, passed_over):
        yield from (os.path.join(place, name) for name in names)
