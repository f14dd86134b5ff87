"""Options of test.py."""

from data.protocols import PROTOCOLS
from options.val_options import ValOptions


class TestOptions(ValOptions):
    """Scores the papers' benchmarks with one checkpoint and prints a table for each."""

    script = "test.py"
    __test__ = False  # the name starts like a test class; pytest must not collect it

    def initialize(self, parser):
        super().initialize(parser)
        parser.set_defaults(dataroot="./datasets/Generalization_Test")
        parser.add_argument_group("protocols").add_argument(
            "--protocols",
            nargs="+",
            choices=sorted(PROTOCOLS),
            metavar="NAME",
            help=f"benchmarks to run, by default those found; known: {', '.join(sorted(PROTOCOLS))}",
        )
