"""Images of Parquet files, as hubs publish them, as folders that val.py and test.py take.

    python -m data.download parquet test-*.parquet --output datasets/OpenFake --generator model

Each row has an image (bytes, or {bytes, path}), a label and a generator; --image, --label and --generator
name the columns.  It becomes OUTPUT/<generator>/{0_real,1_fake}/<file>-<row>.<extension>, the bytes as they
are.
Run the same command again to resume.  OUTPUT/parquet.json holds the columns and the labels of each file, so
that no image ends up under both.
"""

import io
import re
from collections import Counter
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from common import (
    BadImage,
    Parser,
    UserError,
    file_path,
    names_list,
    owned,
    require_package,
    write_json,
    written_whole,
)
from data.folder import EXTENSIONS, LABELS, LAYOUTS
from util.identity import read_side_file, require_same

ROWS_AT_ONCE = 64
LABEL_FOLDERS = LAYOUTS[0]
ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}  # others: as the format
WRITTEN, THERE = "written", "there already"
BAD = "without a readable image"
RECORD = "parquet.json"


def extract(argv):
    """Writes what a command line asks for; returns what was written, in words."""
    opt = parse(argv)
    output, counts, generators = Path(opt.output), Counter(), Counter()
    parquet = require_package("pyarrow", "reading Parquet files", "pyarrow.parquet")
    files = [open_file(parquet, path, opt) for path in opt.files]
    total = sum(file.metadata.num_rows for file in files)
    rules = {Path(path).stem: rule_of(file, opt) for path, file in zip(opt.files, files, strict=True)}
    with owned(output), tqdm(total=total, unit="img", dynamic_ncols=True) as progress:
        record(output, rules)
        for path, file in zip(opt.files, files, strict=True):
            for number, row in enumerate(rows_of(file, opt)):
                folder = folder_name(row[opt.generator])
                label = LABEL_FOLDERS[label_of(row[opt.label], opt.real)]
                target = output / folder / label / f"{Path(path).stem}-{number:06d}"
                counts[write(target, row[opt.image])] += 1
                generators[f"{folder}/{label}"] += 1
                progress.update()
    summary = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    folders = [f"  {name}: {count:,}" for name, count in sorted(generators.items())]
    return "\n".join([f"{output}: {summary}", *folders])


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="python -m data.download parquet",
        description="Writes the images of Parquet files as folders <generator>/{0_real,1_fake}.",
    )
    add = parser.add_argument
    add("files", nargs="+", type=file_path, metavar="FILE", help="Parquet files of one set")
    add("--output", type=file_path, required=True, help="folder to write")
    add("--image", default="image", metavar="COLUMN", help="bytes of a file, or {bytes, path}")
    add("--label", default="label", metavar="COLUMN", help="0 and 1, real and fake, or other words (--real)")
    add("--generator", default="generator", metavar="COLUMN", help="what made the image")
    add(
        "--real",
        type=names_list,
        default=(),
        help="labels of reals, if others than 0 and real; the rest: fake",
    )
    opt = parser.parse_args(argv)
    stems = Counter(Path(path).stem for path in opt.files)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        parser.error(f"images are named after their files, and two are called {', '.join(twice)}")
    return opt


def open_file(parquet, path, opt):
    """A ParquetFile that has the columns; else UserError."""
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow raises its own, and OSError without a file's name
        raise UserError(f"{path}: no readable Parquet file ({' '.join(str(error).split())})") from error
    names = file.schema_arrow.names
    missing = [flag for flag in ("image", "label", "generator") if getattr(opt, flag) not in names]
    if missing:
        flags = " and ".join(f"--{flag} COLUMN" for flag in missing)
        raise UserError(f"{path}: {flags} needed; it has the columns {', '.join(names)}")
    return file


def rule_of(file, opt):
    """What decides where the images of a file go: its columns, and which label each word means."""
    words = set()
    for batch in file.iter_batches(columns=[opt.label]):
        words.update(map(str, batch.column(0).to_pylist()))
    labels = {word: label_of(word, opt.real) for word in sorted(words)}
    return {"image": opt.image, "label": opt.label, "generator": opt.generator, "labels": labels}


def record(output, rules):
    """Adds the rules {stem of a file: `rule_of`} to those of the folder; UserError where one was another."""
    path, known = output / RECORD, {}
    if path.is_file():
        known = read_side_file(path, "--output another folder")
        again = {stem: rule for stem, rule in rules.items() if stem in known}
        require_same(known, again, output, "remove the folder, or --output another one")
    write_json(path, known | rules)


def rows_of(file, opt):
    """The rows as dicts of the three columns, a few at a time in memory."""
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=[opt.image, opt.label, opt.generator]):
        yield from batch.to_pylist()


def label_of(value, real=()):
    """0 or 1 of a cell: one of `real` or not, else 0, 1, True, False, or a name of LAYOUTS."""
    text = str(value).strip().lower()
    if real:
        return int(text not in {name.lower() for name in real})
    known = {"0": 0, "1": 1, "false": 0, "true": 1, **LABELS}
    if text not in known:
        raise UserError(f"label {value!r} is not one of {', '.join(known)}; --real A,B names those of reals")
    return known[text]


def folder_name(generator):
    """A generator's name as the name of one folder, never that of a label or of a hidden folder."""
    name = re.sub(r"[^\w+=(), .-]", "_", str(generator or "")).strip(". ") or "unnamed"
    return f"{name}_images" if name.lower() in LABELS else name


def ending_of(content):
    """The extension that the format of an image's bytes asks for; BadImage."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            ending = ENDINGS.get(image.format, f".{image.format.lower()}")
    except Exception as error:  # Pillow raises many
        raise BadImage("not an image") from error
    if ending not in EXTENSIONS:
        raise BadImage(f"{image.format} is not a format that is read here")
    return ending


def write(target, cell):
    """Writes the bytes of a cell to target.<extension of their format>; returns WRITTEN, THERE or BAD."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    try:
        file = target.with_name(target.name + ending_of(content))
    except BadImage:
        return BAD
    if file.is_file():
        if file.read_bytes() != content:
            raise UserError(f"{file} is there already with other content; --output another folder")
        return THERE
    with written_whole(file, binary=True) as stream:
        stream.write(content)
    return WRITTEN
