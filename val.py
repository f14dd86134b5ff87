"""Scores one folder of real and fake images with one checkpoint: a row per generator.

    python val.py --model_path checkpoints/NAME/model_epoch_best.pth --dataroot DIR

DIR holds generators, each with 0_real/1_fake, nature/ai or real/fake, or is itself such a pair of folders.
Images are prepared as in the checkpoint's own validation, and for a published file as the detector's own code
does it (NPR: 256x256, centre crop 224); --no_resize, --no_crop, --loadSize and --cropSize override that.
--calibrate fits a calibration on these images and writes it next to the weights: later tables show both.
Results: the table here, and results/<run name>/<folder name>/{scores.csv, meta.json, table.csv, table.md}.
"""

if __name__ == "__main__":
    import util.quiet  # noqa: F401

from functools import partial
from pathlib import Path

import data
from networks import checkpoint
from options import ValOptions
from util import calibrate, run
from util.evaluate import Task, evaluate
from util.identity import file_list_sha256


def main(argv=None):
    """Scores one folder and prints its table; with --calibrate fits a calibration on it."""
    # Options and device.
    options = ValOptions()
    opt = options.parse(argv)
    print(options.describe(opt))
    device = run.start(opt)

    # The detector.
    loaded = checkpoint.load(opt.model_path, opt.arch, opt).for_evaluation(opt)
    print("\n".join(loaded.notes))
    config = loaded.detector.data_config

    # The images.
    folders = data.discover(opt.dataroot, opt.classes)
    geometry = data.eval_geometry(opt, config, trained=loaded.options)
    scan = data.scan(opt.dataroot, folders)
    dataset = data.evaluation_images(opt, scan.lossless() if opt.only else scan, config, geometry)
    print(dataset.scan.describe(opt.classes))
    make_loaders = partial(data.loaders_over, opt, device=device)

    # Scores and a table.
    task = Task(Path(opt.dataroot).resolve().name, [name for name, _ in folders], notes=loaded.marks)
    if opt.calibrate:
        calibrate.require_free(loaded, opt)
    with run.StopSignal("resume with the same command and --resume (without --overwrite)") as stop:
        result = evaluate(opt, loaded, device, task, dataset, make_loaders, stop)
    print(f"\n{result.describe()}")

    # A calibration.
    if opt.calibrate:
        about = {"set": task.name, "files_sha256": file_list_sha256(dataset.samples)}
        about |= {"crop": geometry.crop_size, "crops": geometry.crops}
        print(f"\n{calibrate.fit_and_save(loaded, result, opt, about)}")


if __name__ == "__main__":
    run.guard(main)
