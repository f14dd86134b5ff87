"""Image files and folders as a user names them, for predict.py: any folder structure, labels optional."""

import os
from pathlib import Path

from data.folder import EXTENSIONS, LABELS, Sample, Scan

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
            raise ValueError(f"no file or folder {entry}")
        for path in _images(place, found.passed_over) if place.is_dir() else [str(place)]:
            if os.path.abspath(path) not in seen:
                seen.add(os.path.abspath(path))
                above = os.path.abspath(place if place.is_dir() else place.parent)
                inside = os.path.relpath(os.path.abspath(path), os.path.dirname(above))
                found.samples.append(Sample(path, "", label_of(inside)))
    if not found.samples:
        raise ValueError(
            f"no images in {', '.join(map(str, inputs))}; found {passed_over(found) or 'nothing'}; "
            f"known extensions: {' '.join(sorted(EXTENSIONS))}"
        )
    return found


def passed_over(found):
    """The files that were left out, in words; "" for none."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.passed_over.items()))


def label_of(path):
    """1 or 0 by the nearest labelled folder above a file, else UNLABELLED."""
    names = [part.lower() for part in Path(path).parent.parts]
    return next((LABELS[name] for name in reversed(names) if name in LABELS), UNLABELLED)


def _images(folder, left_out):
    visited = set()  # real paths, so that a link that leads back ends the walk
    for place, subfolders, names in os.walk(folder, followlinks=True, onerror=_raise):
        if os.path.realpath(place) in visited:
            subfolders[:] = []
            continue
        visited.add(os.path.realpath(place))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                left_out["hidden"] += 1
            elif extension in EXTENSIONS:
                yield os.path.join(place, name)
            else:
                left_out[extension or "without extension"] += 1


def _raise(error):  # os.walk leaves unreadable folders out unless told what to do
    raise error
