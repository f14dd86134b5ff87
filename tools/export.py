"""Writes a checkpoint of train.py as a small file to share: weights, settings and calibration.

    python -m tools.export --model_path checkpoints/NAME/model_epoch_best.pth --output NAME.safetensors

Optimiser, history and paths are left out.  A calibration next to the weights (of val.py --calibrate) goes in;
the size and number of its crops become those of later evaluations.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

from common import Parser, UserError, file_path
from data.pairs import BY_NAME
from networks import checkpoint
from util import calibrate, run

PATHS = "dataroot checkpoints_dir model_path init_weights continue_train overwrite protocol_file".split()


def main(argv=None):
    """Reads a checkpoint and writes what is to be shared of it."""
    opt = parse(argv)
    if opt.output.exists() and not opt.overwrite:
        raise UserError(f"{opt.output} exists; --overwrite replaces it")
    loaded = checkpoint.load(opt.model_path)
    if opt.output.exists() and opt.output.samefile(loaded.path):
        raise UserError(f"--output {opt.output} is the checkpoint itself; name another file")
    if not checkpoint.is_own(loaded.content):
        raise UserError(
            f"{opt.model_path} was not written by train.py; published files are shared as they are"
        )
    calibration = calibrate.of(loaded)
    options = {name: value for name, value in loaded.options.items() if name not in PATHS}
    options |= {"name": opt.output.stem, "pairs": BY_NAME if options.get("pairs") else None}
    fitted_on = calibration.fitted_on if calibration else {}
    seen = {"val_crop": fitted_on.get("crop"), "crops": fitted_on.get("crops")}
    options |= {name: value for name, value in seen.items() if value}
    kept = {"options": options, "calibration": calibration and calibration.as_dict()}
    kept |= {"companions": loaded.content.get("companions", {})}
    checkpoint.save(opt.output, loaded.detector, **kept)
    calibrated = calibration.describe() if calibration else "without a calibration (val.py --calibrate)"
    print(f"{opt.output}: {opt.output.stat().st_size:,} bytes, detector {loaded.arch}, {calibrated}")


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m tools.export", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model_path", type=checkpoint.named_or_path, required=True, help="checkpoint of train.py")
    add("--output", type=weight_file, required=True, help="file to write: .safetensors or .pth")
    add("--overwrite", action="store_true", help="replace the file")
    return parser.parse_args(argv)


def weight_file(text):
    """Type of --output: a path that ends in .safetensors or .pth."""
    path = Path(file_path(text))
    if path.suffix not in (".safetensors", ".pth"):
        raise argparse.ArgumentTypeError(f"expected a name in .safetensors or .pth, got {text!r}")
    return path


if __name__ == "__main__":
    run.guard(main)
