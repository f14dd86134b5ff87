"""Pairs of a photograph and its re-synthesis, which training shows in one batch with one random draw.

A twin has the name of its photograph in the other label folder: esrgan/0_real/a.png, esrgan/1_fake/a.png.
A CSV with the columns real and fake, paths below the training folder, pairs files of any names.
Source: AlignedForensics (ICLR 2025); DDA, arXiv 2505.14359.
"""

from pathlib import PurePosixPath

from common import UserError, read_table

BY_NAME = "name"


def pair_up(scan, pairs=BY_NAME):
    """[(index of a real, index of its fake)] of a Scan's samples; no image is in two pairs.

    pairs: BY_NAME, or the path of a CSV.  UserError where there are no pairs, or an image has two twins.
    """
    found = _by_name(scan) if pairs == BY_NAME else _by_table(scan, pairs)
    seen = set()
    for index in (index for pair in found for index in pair):
        if index in seen:
            raise UserError(f"--pairs: {scan.samples[index].path} is in two pairs")
        seen.add(index)
    if not found:
        expected = "the same name in both label folders, as x/0_real/a.png and x/1_fake/a.png"
        raise UserError(f"--pairs: {scan.root} has no pair; expected {expected}, or a CSV with real,fake")
    return found


def _by_name(scan):
    groups = {}
    for index, sample in enumerate(scan.samples):
        path = PurePosixPath(sample.path)
        steps = list(path.parts[:-1])
        labelled = next((place for place, step in enumerate(steps) if step.lower() in scan.labels), None)
        if labelled is not None:
            steps.pop(labelled)
        groups.setdefault((sample.generator, *steps, path.stem), ([], []))[sample.label].append(index)
    for key, (reals, fakes) in groups.items():
        if reals and fakes and len(reals) + len(fakes) > 2:
            raise UserError(f"--pairs: several files of one class are called {'/'.join(key)}")
    return [(reals[0], fakes[0]) for reals, fakes in groups.values() if reals and fakes]


def _by_table(scan, path):
    known = {sample.path: index for index, sample in enumerate(scan.samples)}
    pairs = []
    for number, row in enumerate(read_table(path, ("real", "fake")), 2):
        for label, name in enumerate(("real", "fake")):
            index = known.get(row[name])
            if index is None or scan.samples[index].label != label:
                problem = "there is no such image" if index is None else f"it is not in a folder of {name}s"
                raise UserError(f"{path}, line {number}: {name} {row[name]}: {problem} below {scan.root}")
        pairs.append((known[row["real"]], known[row["fake"]]))
    return pairs
