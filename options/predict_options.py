"""Options of predict.py."""

from common import file_path
from options.val_options import ValOptions


class PredictOptions(ValOptions):
    """Scores image files with one checkpoint: how likely is each of them generated?"""

    script = "predict.py"
    calibrates = False

    def initialize(self, parser):
        super().initialize(parser)
        parser.set_defaults(on_bad_image="skip", model_path="open")

    def add_evaluation(self, parser):
        add = parser.add_argument_group("files").add_argument
        files = "image files, and folders with all images below them"
        add("paths", nargs="*", default=(), type=file_path, metavar="PATH", help=files)
        add(
            "--input",
            nargs="+",
            default=(),
            type=file_path,
            metavar="PATH",
            help="files and folders, as PATH",
        )
        add("--output", type=file_path, help="CSV to write: path, score, logit, error; default: printed")
        labels = "folder: take labels from folder names (0_real, ai, ...), and report accuracy and AP"
        add("--labels", choices=("folder",), help=labels)

    def check(self, opt):
        super().check(opt)
        opt.input = (*opt.paths, *opt.input)
        if not opt.input:
            self.parser.error("name image files or folders, e.g. predict.py photo.jpg")
        if len(opt.views) > 1:
            self.parser.error("--views takes one view here: a file has one score")
        if opt.resume and not opt.output:
            self.parser.error("--resume needs --output, the file that holds the scores so far")
