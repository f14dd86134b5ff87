"""Options of test.py."""

import networks
from common import UserError, file_path
from data import protocols, published
from options.val_options import ValOptions

ALL = "all"
NO_COMPARISON = "none"

# What changes the input, beside the flags of a detector that an evaluation may set.
BENDING = {"no_resize", "loadSize", "resize_rule", "no_crop", "cropSize", "rz_interp", "blur", "jpeg"}


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
            if opt.published != NO_COMPARISON:
                published.require_method(opt.published)
            if opt.expect:
                self.require_cells(opt.expect)
                bent = sorted(self.given & (BENDING | evaluation_flags()))
                if bent:
                    raise UserError(f"--expect checks the published input; --{', --'.join(bent)} changes it")
            self.rows = self.choose(opt)
        except (UserError, OSError) as error:
            self.parser.error(str(error))

    def require_cells(self, method):
        """--expect needs numbers per generator; `self.expected`: the protocols for which there are some."""
        published.require_method(method)
        found = {slug: published.lookup(slug, method) for slug in protocols.PROTOCOLS}
        self.expected = [slug for slug, one in found.items() if one and one.cells]
        if not self.expected:
            raise UserError(f"--expect {method}: only a mean is published, no numbers per generator")

    def choose(self, opt):
        """The protocols to run, in the order asked for; `self.asked`: each of them has to be there."""
        rows = protocols.known(opt.protocol_file)
        every = [name.lower() for name in opt.protocols] == [ALL]
        self.asked = bool(opt.expect) or (bool(opt.protocols) and not every)
        if every:
            return [row for row in rows.values() if not opt.expect or row.slug in self.expected]
        if opt.protocols:
            asked = [protocols.get(slug, opt.protocol_file) for slug in opt.protocols]
            strangers = [row.slug for row in asked if opt.expect and row.slug not in self.expected]
            if strangers:
                raise UserError(
                    f"--expect {opt.expect} has numbers per generator for {', '.join(self.expected)}, "
                    f"not for {', '.join(strangers)}"
                )
            return list({row.slug: row for row in asked}.values())
        if opt.expect:
            return [row for row in rows.values() if row.slug in self.expected]
        own = [row for row in rows.values() if row.slug not in protocols.PROTOCOLS]
        return own or [rows[slug] for slug in protocols.DEFAULT]


def evaluation_flags():
    """Names of all detectors' flags that an evaluation may set otherwise than the training did."""
    return {name for arch in networks.names() for name in networks.get(arch).evaluation_flags()}
