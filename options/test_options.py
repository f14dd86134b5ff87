"""Options of test.py."""

from common import UserError, file_path
from data import protocols, published
from options.val_options import ValOptions
from util import run

ALL = "all"
NO_COMPARISON = "none"
# What changes the input; --expect checks the published one.
INPUT_FLAGS = set(
    "no_resize loadSize resize_rule no_crop cropSize rz_interp views only threshold "
    "lnp_input lnp_denoiser lnp_eval "
    "ssp_select ssp_stride ssp_vote essp_select essp_stride essp_vote".split()
)


class TestOptions(ValOptions):
    """Scores the papers' benchmarks with one checkpoint and prints a table for each.

    After `parse`: `rows`, the protocols to run in their order; `asked`: each of them must have images.
    """

    script = "test.py"
    calibrates = False
    __test__ = False  # the name starts like a test class; pytest must not collect it

    def initialize(self, parser):
        super().initialize(parser)
        parser.set_defaults(dataroot="./datasets/Generalization_Test")
        add = parser.add_argument_group("protocols").add_argument
        names, default = (", ".join(slugs) for slugs in (protocols.PROTOCOLS, protocols.DEFAULT))
        benchmarks = f"benchmarks to run: {names}, or all; default: those of {default} that are there"
        add("--protocols", nargs="+", default=(), metavar="NAME", help=benchmarks)
        add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
        method = "method whose published numbers are printed next to ours, or none; a wrong name lists them"
        add("--published", default="NPR", metavar="METHOD", help=method)
        expect = (
            "compare every generator with the published numbers of this method; exit status 1 if one differs "
            "by more than 0.2 points (issue4: NPR.pth on ForenSynths)"
        )
        add("--expect", metavar="METHOD", help=expect)

    def check(self, opt):
        super().check(opt)
        try:
            self.rows = self.choose(opt)
            slugs = [row.slug for row in self.rows]
            none = opt.published.lower() == NO_COMPARISON
            opt.published = NO_COMPARISON if none else published.method_named(opt.published, slugs)
            if opt.expect:
                self.check_expect(opt)
        except (UserError, OSError) as error:
            self.parser.error(run.one_line(error))

    def choose(self, opt):
        """The protocols asked for: those named, all, those of the user's file, or the default."""
        every = [name.lower() for name in opt.protocols] == [ALL]
        self.asked = bool(opt.expect) or bool(opt.protocols and not every)
        rows = protocols.known(opt.protocol_file)
        if every:
            return list(rows.values())
        if opt.protocols:
            named = [protocols.get(name, opt.protocol_file) for name in opt.protocols]
            return list({row.slug: row for row in named}.values())
        own = [row for row in rows.values() if row.slug not in protocols.PROTOCOLS]
        return own or [rows[slug] for slug in protocols.DEFAULT]

    def check_expect(self, opt):
        """--expect needs published numbers per generator and the published input."""
        opt.expect = published.method_named(opt.expect, [row.slug for row in self.rows])
        expected = [slug for slug in protocols.PROTOCOLS if has_accuracies(slug, opt.expect)]
        if not expected:
            raise UserError(f"--expect {opt.expect}: only a mean is published, no numbers per generator")
        changing = sorted(self.given & INPUT_FLAGS)
        if changing:
            raise UserError(f"--expect checks the published input; --{', --'.join(changing)} changes it")
        if "protocols" not in self.given or [name.lower() for name in opt.protocols] == [ALL]:
            self.rows = [protocols.PROTOCOLS[slug] for slug in expected]
        if missing := [row.slug for row in self.rows if row.slug not in expected]:
            numbers = f"--expect {opt.expect} has numbers per generator for {', '.join(expected)}"
            raise UserError(f"{numbers}, not for {', '.join(missing)}")


def has_accuracies(slug, method):
    """Whether accuracies per generator are published of a method on a protocol."""
    table = published.lookup(slug, method)
    return bool(table and table.accuracy == "acc" and table.cells)
