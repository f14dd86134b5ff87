"""Options of test.py."""

from data import protocols, published
from options.types import file_path
from options.val_options import ValOptions

ALL = "all"
NO_COMPARISON = "none"


class TestOptions(ValOptions):
    """Scores the papers' benchmarks with one checkpoint and prints a table for each."""

    script = "test.py"
    __test__ = False  # the name starts like a test class; pytest must not collect it

    def initialize(self, parser):
        super().initialize(parser)
        parser.set_defaults(dataroot="./datasets/Generalization_Test")
        add = parser.add_argument_group("protocols").add_argument
        add(
            "--protocols",
            nargs="+",
            default=(),
            metavar="NAME",
            help=f"benchmarks to run: {', '.join(protocols.PROTOCOLS)}, or all; by default those found of "
            f"{', '.join(protocols.DEFAULT)}",
        )
        add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
        add(
            "--published",
            default="NPR",
            metavar="METHOD",
            help="whose published numbers stand beside ours, or none; a wrong name lists all",
        )
        add(
            "--expect",
            metavar="METHOD",
            help="check every generator against these published numbers within 0.2 points; exit status 1 "
            "when one differs (issue4: NPR.pth on ForenSynths)",
        )

    def check(self, opt):
        super().check(opt)
        try:
            self.rows = self.choose(opt)
            for method in {opt.published, opt.expect} - {None, NO_COMPARISON}:
                published.require_method(method)
        except (ValueError, OSError) as error:
            self.parser.error(str(error))

    def choose(self, opt):
        """The protocols to run, in the order asked for; `self.asked`: each of them has to be there."""
        rows = protocols.known(opt.protocol_file)
        every = [name.lower() for name in opt.protocols] == [ALL]
        self.asked = bool(opt.protocols) and not every
        if every:
            return list(rows.values())
        if self.asked:
            return [protocols.get(slug, opt.protocol_file) for slug in dict.fromkeys(opt.protocols)]
        if opt.expect:
            return [row for row in rows.values() if published.lookup(row.slug, opt.expect)]
        own = [row for row in rows.values() if row.slug not in protocols.PROTOCOLS]
        return own or [rows[slug] for slug in protocols.DEFAULT]
