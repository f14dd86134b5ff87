"""Checks image folders before anything is measured: layout, counts, broken files, duplicates, leaks.

    python -m tools.verify --dataroot datasets
    python -m tools.verify --dataroot datasets --protocols ForenSynths GenImage-NPR --json report.json
    python -m tools.verify --dataroot my_folder --no_decode

--dataroot holds benchmarks (data/protocols.py), or is any folder that val.py takes.  Every file is read once.
A problem is something to mend before numbers are believed; a note is something to know.
Exit status: 0 all is well (notes at most), 1 there are problems, 2 wrong usage.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # also when started by its path
    import util.quiet  # noqa: F401

import itertools
import os
import re
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass

from tqdm import tqdm

from common import Parser, UserError, file_path, names_list, non_negative_int, positive_float, write_json
from data import protocols
from data.decode import DEFAULT_MAX_MPX
from data.folder import LAYOUT_HELP, Scan, discover, require_folder
from data.inspection import HASH, inspect_files, keeps_promise
from data.protocol import STORED, Generator, Protocol
from util import run, tables

ALL = "all"
SHOWN = 3  # findings of one kind per generator, and files of each, on the terminal; JSON has all
CLASSES = ("real", "fake")
LEAK = 0.8  # balanced accuracy that one question on format or size must reach to be reported
HALF = 0.5  # share of the files that makes a folder look like something
# Words in file names that speak for a label; a generator's own names are added to those of fakes.
REAL_WORDS = frozenset(("real", "nature", "ilsvrc"))
FAKE_WORDS = frozenset(("fake", "ai", "generated", "synthetic"))
# (protocol, generator, file in its folder) of the distributed sets -> what to know.
KNOWN_DEFECTS = {
    ("AIGCDetectBenchmark", "DALLE2", "0_real/000000097792.jpg"): "; it is broken in the distributed archive "
    "(AIGCDetectBenchmark issue #8); --on_bad_image skip leaves it out",
}


def main(argv=None):
    """Checks the folders and prints what is wrong with them; exit status 1 if anything is."""
    started = time.perf_counter()
    parser = make_parser()
    opt = parser.parse_args(argv)
    if opt.json and Path(opt.json).is_dir():
        parser.error(f"--json {opt.json} is a folder; name a file in it")
    try:
        entries, notes = plan(opt)
    except (UserError, OSError) as error:
        parser.error(run.one_line(error))
    files = inspect(entries, opt)
    findings = [*itertools.chain.from_iterable(map(check, entries)), *find_duplicates(entries)]
    lines = [report_entry(entry, findings, opt) for entry in entries]
    show(entries, lines, findings, notes, opt.dataroot)
    problems = sum(finding.problem for finding in findings)
    seconds = time.perf_counter() - started
    print(
        f"{files:,} files in {seconds:.1f} s ({files / seconds:,.0f} files/s), {problems:,} problems, "
        f"{len(findings) - problems + len(notes):,} notes: {'PROBLEMS' if problems else 'ok'}"
    )
    if opt.json:
        record = {"dataroot": opt.dataroot, "hash": None if opt.no_hash else HASH}
        record |= {"decoded": not opt.no_decode, "files": files, "seconds": seconds, "ok": not problems}
        record |= {"generators": lines, "findings": list(map(asdict, findings)), "notes": notes}
        write_json(opt.json, record)
        print(f"-> {opt.json}")
    sys.exit(1 if problems else 0)


def make_parser():
    """The command line."""
    parser = Parser(prog="python -m tools.verify", description=__doc__.splitlines()[0])
    add = parser.add_argument
    root = "folder of benchmarks, or of generators as for val.py"
    names = f"benchmarks that have to be there: {', '.join(protocols.PROTOCOLS)}"
    add("--dataroot", type=file_path, required=True, help=root)
    add("--protocols", nargs="+", default=(ALL,), metavar="NAME", help=f"{names}; all: those that are found")
    add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
    add("--classes", type=names_list, default=(), help="comma list of generators to check")
    add("--test_only", action="store_true", help="leave out the training part; it can be large")
    add("--json", type=file_path, help="write everything found here as well")
    add("--no_decode", action="store_true", help="check headers only; many truncated files go unnoticed")
    add("--no_hash", action="store_true", help="do not look for duplicates")
    processes = "processes; default: one per core, at most 8; 0: only this one"
    add("--num_threads", type=non_negative_int, help=processes)
    too_large = "files of more million pixels count as unreadable"
    add("--max_mpx", type=positive_float, default=DEFAULT_MAX_MPX, help=too_large)
    return parser


# ----- what is checked -----


@dataclass
class Entry:
    """One generator of a protocol, in its test or training part, and what its folder holds."""

    protocol: Protocol
    generator: Generator
    part: str
    folder: Path | None  # None: not found
    root: Path | None = None  # where it was looked for

    def __post_init__(self):
        """Lists the folder by the rules by which test.py reads it; no image is opened."""
        self.scan, self.trouble, self.facts = Scan(self.folder), "", ()
        try:
            if self.folder:
                self.scan = self.protocol.scan(self.folder, [("", self.folder)], self.root)
        except (UserError, OSError) as error:
            self.trouble = str(error)
        self.counts = self.scan.counts().get("", [0, 0])  # real, fake
        self.title = self.generator.name + (" (train)" if self.part == "train" else "")

    def path(self, sample):
        """Where the file of a sample is."""
        return os.path.normpath(os.path.join(self.folder, sample.path))

    def files(self, readable=True):
        """[(sample, facts)] of the files that can be read, or cannot."""
        pairs = zip(self.scan.samples, self.facts, strict=True)
        return [(sample, facts) for sample, facts in pairs if bool(facts.error) != readable]

    def histograms(self, name):
        """[{value: number of reals}, the same of fakes], most frequent first; name: "format" or "size"."""
        counters = Counter(), Counter()
        for sample, facts in self.files():
            value = getattr(facts, name)
            counters[sample.label][value if name == "format" else "{}x{}".format(*value)] += 1
        return [Counter(dict(counter.most_common())) for counter in counters]

    def finding(self, kind, text, samples=(), problem=False):
        """A finding on this generator."""
        files = tuple(map(self.path, samples))
        return Finding(self.protocol.slug, self.title, kind, problem, text, files)


def grouped(items, key):
    """{key of an item: the items that have it}"""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def named_protocols(opt):
    """The rows that --protocols names; none for `all`."""
    every = ALL in [name.lower() for name in opt.protocols]
    if every and len(opt.protocols) > 1:
        raise UserError(f"--protocols takes {ALL}, or names; got both")
    return [] if every else [protocols.get(name, opt.protocol_file) for name in opt.protocols]


def plan(opt):
    """(entries to check, notes); UserError for what was asked for wrongly or when nothing is there."""
    require_folder(opt.dataroot)
    asked = named_protocols(opt)
    # A row that re-encodes images has the files of another one.
    rows = asked or [row for row in protocols.known(opt.protocol_file).values() if not row.reencode]
    roots = {row: row.locate(opt.dataroot) for row in rows}
    if not asked:
        roots = {row: root for row, root in roots.items() if root}
    if not roots:
        return list_own_folder(opt), [f"{opt.dataroot} is not a known benchmark; checked as val.py takes it"]
    members = [member for row, root in roots.items() for member in list_protocol(row, root, opt)]
    entries = choose(members, {name.lower() for name in opt.classes})
    return (entries, []) if asked else without_subsets(entries)


def choose(members, classes):
    """The entries of these generators, of all without names; UserError for an unknown name."""
    known = set().union(*(names_of(generator) for _, generator, *_ in members))
    if unknown := classes - known:
        legal = ", ".join(dict.fromkeys(generator.name for _, generator, *_ in members))
        raise UserError(f"--classes: no generator {', '.join(sorted(unknown))}; there are: {legal}")
    return [Entry(*member) for member in members if not classes or classes & names_of(member[1])]


def list_own_folder(opt):
    """Entries of a folder that is not a known benchmark: the generators that val.py takes it for."""
    root = Path(opt.dataroot)
    row = Protocol(root.resolve().name, (), STORED, "")
    return [
        Entry(row, Generator(name), "train" if name.lower() == "train" else "test", folder)
        for name, folder in discover(root, opt.classes)
    ]


def list_protocol(row, root, opt):
    """Fields of Entry for every generator of the test part, and for what is there of the training part."""
    for generator in row.generators:
        yield row, generator, "test", row.find(root, generator) if root else None, root
    root = row.locate(opt.dataroot, part="train") if row.train_places and not opt.test_only else None
    for generator in row.training if root else ():
        if folder := row.find(root, generator, "train"):
            yield row, generator, "train", folder, root


def names_of(generator):
    """Every name of a generator, in lower case."""
    return {name.lower() for name in (generator.name, *generator.aliases)}


def without_subsets(entries):
    """Leaves out protocols found only because a complete one shares their folders; a note names each."""
    groups = grouped(entries, lambda entry: entry.protocol.slug).items()
    folders = {slug: {entry.folder for entry in own if entry.part == "test"} for slug, own in groups}
    complete = set().union(*(own for own in folders.values() if None not in own))
    subsets = [slug for slug, own in folders.items() if None in own and own - {None} <= complete]
    text = "left out: it lacks folders, and those it has are part of a complete benchmark"
    notes = [f"{slug} {text}; --protocols {slug} checks it" for slug in subsets]
    return [entry for entry in entries if entry.protocol.slug not in subsets], notes


def inspect(entries, opt):
    """Reads every file once, even where two protocols share it; returns the number of files."""
    paths = list(dict.fromkeys(entry.path(sample) for entry in entries for sample in entry.scan.samples))
    workers = min(run.worker_count(opt.num_threads), len(paths))
    depth = {"hashes": not opt.no_hash, "pixels": not opt.no_decode, "max_mpx": opt.max_mpx}
    results = inspect_files(paths, workers, **depth)
    with run.StopSignal("nothing was written; start it again for a report") as stop, closing(results):
        bar = tqdm(stop.watch(results), total=len(paths), unit="file", disable=None, dynamic_ncols=True)
        facts = dict(zip(paths, bar, strict=True))
    for entry in entries:
        entry.facts = [facts[entry.path(sample)] for sample in entry.scan.samples]
    return len(paths)


# ----- what is wrong, or worth knowing -----


@dataclass(frozen=True)
class Finding:
    """One thing found; files are paths below --dataroot or absolute, as the folder was."""

    protocol: str
    generator: str
    kind: str
    problem: bool
    text: str
    files: tuple[str, ...] = ()


def check(entry):
    """Findings of one generator, whose files have been inspected."""
    if entry.folder is None:
        places = " or ".join(entry.protocol.places).format(generator="|".join(entry.generator.aliases))
        above = entry.root or " or ".join(("--dataroot", *entry.protocol.roots))
        yield entry.finding("missing", f"no folder; looked for {places} in {above}", problem=True)
    elif entry.trouble:
        yield entry.finding("layout", f"contradictory layout: {entry.trouble}", problem=True)
    else:
        for check_one in (check_counts, check_readable, check_names, check_labels, check_leaks):
            yield from check_one(entry)


def check_counts(entry):
    """Images of both classes, as many as published."""
    counts, within = entry.counts, entry.generator.images_within
    fakes_only = entry.protocol.bare and not entry.protocol.reals and counts[1]
    if 0 in counts and not fakes_only:
        text = f"{counts[0]:,} real and {counts[1]:,} fake images in {entry.folder}; expected {LAYOUT_HELP}"
        yield entry.finding("one-sided" if any(counts) else "empty", text, problem=True)
    for name, count, published in zip(CLASSES, counts, entry.generator.images or (), strict=False):
        if abs(count - published) > within:
            text = f"{count:,} {name} images, published: {published:,}" + (f" ±{within}" if within else "")
            yield entry.finding("count", text, problem=True)


def check_readable(entry):
    """Files that cannot be read; those of KNOWN_DEFECTS are notes."""
    for sample, facts in entry.files(readable=False):
        known = KNOWN_DEFECTS.get((entry.protocol.slug, entry.generator.name, sample.path), "")
        kind, text = "known defect" if known else "unreadable", f"unreadable: {facts.error}{known}"
        yield entry.finding(kind, text, [sample], problem=not known)


def check_names(entry):
    """Extensions against the formats inside, upper-case ones, and what was passed over."""
    wrong = [pair for pair in entry.files() if not keeps_promise(pair[0].path, pair[1])]
    by_names = grouped(wrong, lambda pair: (Path(pair[0].path).suffix, pair[1].format))
    for (named, inside), pairs in by_names.items():
        text = f"{len(pairs):,} files named {named} are {inside} inside (the content decides here)"
        yield entry.finding("extension", text, [sample for sample, _ in pairs], problem=True)
    upper = [sample for sample in entry.scan.samples if not Path(sample.path).suffix.islower()]
    if upper:
        named = Path(upper[0].path).suffix
        text = f"{len(upper):,} files named {named}; loaders that know only lower case miss them"
        yield entry.finding("upper-case", text, upper)
    if entry.scan.passed_over:
        yield entry.finding("passed over", f"passed over: {entry.scan.others()}")


def check_labels(entry):
    """Whether the label folders hold what they say."""
    for text in entry.scan.notices():
        yield entry.finding("contradiction", text.removeprefix("notice: "))
    own = {word for name in names_of(entry.generator) for word in words(name) if len(word) > 2}
    fake_words = (FAKE_WORDS | own) - REAL_WORDS - {"imagenet"}
    if share_named(entry, 0, fake_words) > HALF and share_named(entry, 1, REAL_WORDS) > HALF:
        text = "looks swapped: the real folder holds names of fakes, the fake folder names of reals"
        yield entry.finding("swapped", text, problem=True)


def share_named(entry, label, known_words):
    """Share of the files of one label whose name has one of these words."""
    names = [os.path.basename(sample.path) for sample in entry.scan.samples if sample.label == label]
    return sum(bool(words(name) & known_words) for name in names) / max(1, len(names))


def words(name):
    """The words of a file name, in lower case."""
    return set(re.findall("[a-z]+", name.lower()))


def check_leaks(entry):
    """Whether the format, or the size, of a file says what its label is."""
    for name in ("format", "size"):
        real, fake = entry.histograms(name)
        if not real or not fake:
            continue
        shares = {value: (real[value] / real.total(), fake[value] / fake.total()) for value in real | fake}
        value, (of_real, of_fake) = max(shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        accuracy = 0.5 + abs(of_real - of_fake) / 2
        if accuracy >= LEAK:
            text = (
                f"the {name} leaks the label: {value} are {of_real:.0%} of the reals and {of_fake:.0%} of "
                f"the fakes, so a rule on {name} reaches {accuracy:.0%} balanced accuracy"
            )
            yield entry.finding(f"{name} leaks", text)


ACROSS_LABELS, LEAKAGE = "duplicates across labels", "leakage"
WHERE = {ACROSS_LABELS: "under both labels, real and fake", LEAKAGE: "in the training and in the test part"}
HARMLESS = "duplicates of reals across generators"  # sets like GenImage draw them from one pool


def find_duplicates(entries):
    """Files of a protocol with the same bytes: within a class, across labels, generators, test and train."""
    files = {}  # each once: reals that generators share are one file
    for entry in entries:
        for sample, facts in entry.files():
            if facts.digest:
                files.setdefault((entry.protocol.slug, entry.path(sample)), (entry, sample, facts))
    found = defaultdict(list)  # (protocol, generators concerned, kind) -> groups of equal files
    for (slug, _), equal in grouped(
        files.values(), lambda file: (file[0].protocol.slug, file[2].digest)
    ).items():
        for kind, members in kinds_of_duplicates(equal):
            titles = ", ".join(dict.fromkeys(entry.title for entry, *_ in members))
            found[slug, titles, kind].append([entry.path(sample) for entry, sample, _ in members])
    for (slug, titles, kind), groups in found.items():
        text = f"{kind}: {len(groups):,} files are {WHERE.get(kind, 'there more than once')}"
        paths = tuple(itertools.chain.from_iterable(groups))
        yield Finding(slug, titles, kind, kind != HARMLESS, text, paths)


def kinds_of_duplicates(equal):
    """(kind, files concerned) of equal files, each an (entry, sample, facts)."""
    for (_, label), members in grouped(equal, lambda file: (file[0].title, file[1].label)).items():
        if len(members) > 1:
            yield f"duplicates within {CLASSES[label]}", members
    if len({sample.label for _, sample, _ in equal}) > 1:
        yield ACROSS_LABELS, equal
    if len({entry.part for entry, *_ in equal}) > 1:
        yield LEAKAGE, equal
    for (_, label), members in grouped(equal, lambda file: (file[0].part, file[1].label)).items():
        if len({entry.title for entry, *_ in members}) > 1:
            yield f"duplicates of {CLASSES[label]}s across generators", members


# ----- how it is shown -----


def report_entry(entry, findings, opt):
    """One generator, as plain values."""
    own = [finding for finding in findings if finding.protocol == entry.protocol.slug]
    equal = [finding for finding in own if finding.kind.startswith(("duplicates", "leakage"))]
    copies = {path for finding in equal for path in finding.files}
    return {
        "protocol": entry.protocol.slug,
        "generator": entry.generator.name,
        "part": entry.part,
        "folder": str(entry.folder) if entry.folder else None,
        "published": entry.generator.images,
        "published_within": entry.generator.images_within,
        "ok": not any(each.problem and entry.title in each.generator.split(", ") for each in own),
        "images": entry.counts,
        "unreadable": len(entry.files(readable=False)),
        "duplicates": None if opt.no_hash else len(copies.intersection(map(entry.path, entry.scan.samples))),
        "passed_over": dict(entry.scan.passed_over),
        "formats": entry.histograms("format"),
        "sizes": entry.histograms("size"),
    }


def cells(title, line, dataroot):
    """A generator's line of the table: {heading: text}."""
    published, within, duplicates = line["published"], line["published_within"], line["duplicates"]
    formats = (" ".join(f"{name} {count:,}" for name, count in of.items()) or "-" for of in line["formats"])
    return {
        "generator": title,
        "folder": os.path.relpath(line["folder"], dataroot) if line["folder"] else "missing",
        "real": tables.count(line["images"][0]),
        "fake": tables.count(line["images"][1]),
        "published": "/".join(map(tables.count, published or ())) + (f" ±{within}" if within else ""),
        "unreadable": tables.count(line["unreadable"]),
        "duplicates": "" if duplicates is None else tables.count(duplicates),
        "formats real | fake": " | ".join(formats),
        "sizes real | fake": " | ".join(map(sizes_cell, line["sizes"])),
        "verdict": "ok" if line["ok"] else "PROBLEM",
    }


def sizes_cell(sizes):
    """The most frequent size, how many others there are, and the range of sides."""
    if len(sizes) < 2:
        return "".join(sizes) or "-"
    sides = [int(side) for size in sizes for side in size.split("x")]
    return f"{next(iter(sizes))} +{len(sizes) - 1:,} ({min(sides)}-{max(sides)} px)"


def show(entries, lines, findings, notes, dataroot):
    """A table per protocol, then problems, then notes."""
    for slug, pairs in grouped(zip(entries, lines, strict=True), lambda pair: pair[1]["protocol"]).items():
        rows = [cells(entry.title, line, dataroot) for entry, line in pairs]
        text = tables.fixed_width([list(rows[0]), *(row.values() for row in rows)], "ll" + "r" * 5 + "lll")
        print(f"\n{slug}\n{text}")
    problems = describe([finding for finding in findings if finding.problem], dataroot)
    notes = describe([finding for finding in findings if not finding.problem], dataroot) + notes
    for title, text in (("problems", problems), ("notes", notes)):
        if text:
            print("\n" + "\n  ".join([f"{title}:", *text]))
    print()


def describe(findings, dataroot):
    """Lines on findings; of many of one kind in one generator, the first few."""
    lines = []
    groups = grouped(findings, lambda finding: (finding.protocol, finding.generator, finding.kind))
    for (slug, generator, kind), own in groups.items():
        for finding in own[:SHOWN]:
            names = ", ".join(os.path.relpath(path, dataroot) for path in finding.files[:SHOWN])
            more = f" and {len(finding.files) - SHOWN:,} more" if len(finding.files) > SHOWN else ""
            lines.append(f"{slug} {generator}: {finding.text}{': ' * bool(names)}{names}{more}")
        if len(own) > SHOWN:
            lines.append(f"{slug} {generator}: {kind}: {len(own) - SHOWN:,} more; --json FILE lists all")
    return lines


if __name__ == "__main__":
    run.guard(main)
