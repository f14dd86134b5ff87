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

import fnmatch
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
from data.folder import LAYOUT_HELP, Scan, discover, scan
from data.inspection import HASH, Depth, inspect_files, keeps_promise
from data.protocol import STORED, Generator, Protocol
from util import run, tables

ALL = "all"
SHOWN = 3  # files named per finding on the terminal, and findings of one kind per generator; JSON has all
CLASSES = ("real", "fake")
HEADINGS = (
    *("generator", "folder", "real", "fake", "published", "unreadable", "duplicates"),
    *("formats real | fake", "sizes real | fake", "verdict"),
)
LEAK = 0.8  # balanced accuracy that one question on format or size must reach to be reported
HALF = 0.5  # share of the files that makes a folder look like something
# Words in file names that speak for a label; a generator's own names are added to those of fakes.
REAL_WORDS = frozenset(("real", "nature", "ilsvrc"))
FAKE_WORDS = frozenset(("fake", "ai", "generated", "synthetic"))
# What the distributed sets are known for: (protocol, generator, path in its folder) -> what to know.
KNOWN_DEFECTS = {
    ("AIGCDetectBenchmark", "DALLE2", "0_real/000000097792.jpg"): "broken in the distributed archive "
    "(AIGCDetectBenchmark issue #8); --on_bad_image skip leaves it out",
    ("GenImage-*", "ADM", "ai/*.PNG"): "GenImage's ADM fakes are named .PNG; loaders that know only .png "
    "drop them all",
}


def main(argv=None):
    started = time.perf_counter()
    parser = make_parser()
    opt = parser.parse_args(argv)
    try:
        entries, notes = plan(opt)
    except (UserError, OSError) as error:
        parser.error(run.one_line(error))
    depth = Depth(not opt.no_hash, not opt.no_decode, opt.max_mpx)
    files = inspect(entries, depth, run.worker_count(opt.num_threads))
    findings = [finding for own in by_protocol(entries).values() for finding in check(own)]
    lines = [report_entry(entry, findings, opt) for entry in entries]
    show(entries, lines, findings, notes, opt.dataroot)
    problems = sum(finding.problem for finding in findings)
    seconds = time.perf_counter() - started
    print(
        f"{files:,} files in {seconds:.1f} s ({files / seconds:,.0f} files/s), {problems:,} problems, "
        f"{len(findings) - problems + len(notes):,} notes: {'PROBLEMS' if problems else 'ok'}"
    )
    if opt.json:
        record = {"dataroot": opt.dataroot, "hash": HASH if depth.hashes else None, "decoded": depth.pixels}
        record |= {"files": files, "seconds": seconds, "ok": not problems, "generators": lines}
        write_json(opt.json, record | {"findings": list(map(asdict, findings)), "notes": notes})
        print(f"-> {opt.json}")
    sys.exit(1 if problems else 0)


def make_parser():
    """The command line."""
    parser = Parser(prog="tools.verify", description=__doc__.splitlines()[0])
    add = parser.add_argument
    benchmarks = f"benchmarks that have to be there: {', '.join(protocols.PROTOCOLS)}"
    which = f"{benchmarks}; all (the default): those that are found"
    processes = "processes; default: one per core, at most 8; 0: none but this one"
    too_large = "files of more million pixels count as unreadable"
    add(
        "--dataroot",
        type=file_path,
        required=True,
        help="folder of benchmarks, or of generators as for val.py",
    )
    add("--protocols", nargs="+", default=(), metavar="NAME", help=which)
    add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
    add("--classes", type=names_list, default=(), help="comma list of generators to check")
    add("--test_only", action="store_true", help="leave out the training part; it can be large")
    add("--json", type=file_path, help="write everything found here as well")
    add("--no_decode", action="store_true", help="check headers only; many truncated files go unnoticed")
    add("--no_hash", action="store_true", help="do not look for duplicates")
    add("--num_threads", type=non_negative_int, help=processes)
    add("--max_mpx", type=positive_float, default=DEFAULT_MAX_MPX, help=too_large)
    return parser


# ----- what is checked -----


@dataclass
class Entry:
    """One generator of a protocol, in its test or training part, and what its folder holds."""

    protocol: Protocol
    generator: Generator
    part: str
    folder: Path | None
    looked_for: str = ""

    def __post_init__(self):
        """Lists the folder by the rules by which test.py reads it; no image is opened."""
        self.scan, self.trouble, self.facts = Scan(self.folder), "", ()
        try:
            if self.folder:
                self.scan = scan(self.folder, [("", self.folder)], self.protocol.label_map)
        except (UserError, OSError) as error:
            self.trouble = str(error)

    @property
    def title(self):
        """The generator's name in tables and findings."""
        return self.generator.name + (" (train)" if self.part == "train" else "")

    def path(self, sample):
        """Where the file of a sample is."""
        return os.path.join(self.folder, sample.path)

    def counts(self):
        """[number of real, number of fake]"""
        return self.scan.counts().get("", [0, 0])

    def files(self, label=None, readable=True):
        """[(sample, facts)] of the files that can be read, or cannot; of one label, or of both."""
        pairs = zip(self.scan.samples, self.facts, strict=True)
        pairs = [(sample, facts) for sample, facts in pairs if bool(facts.error) != readable]
        return [pair for pair in pairs if label in (None, pair[0].label)]

    def histogram(self, label, name):
        """{value: number of files} of one class; name: "format" or "size"."""
        return Counter(getattr(facts, name) for _, facts in self.files(label))

    def finding(self, kind, text, samples=(), problem=False):
        """A finding on this generator."""
        files = tuple(map(self.path, samples))
        return Finding(self.protocol.slug, self.title, kind, problem, text, files)


def by_protocol(entries):
    """{slug: its entries}"""
    return grouped(entries, lambda entry: entry.protocol.slug)


def grouped(items, key):
    """{key of an item: the items that have it}"""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def plan(opt):
    """(entries to check, notes); UserError for what was asked for wrongly or when nothing is there."""
    if not Path(opt.dataroot).is_dir():
        raise UserError(f"--dataroot: no folder {opt.dataroot}")
    asked = asked_protocols(opt)
    rows = asked or protocols.known(opt.protocol_file).values()
    roots = {row: row.locate(opt.dataroot) for row in rows}
    if not asked:
        roots = {row: root for row, root in roots.items() if root}
    if not roots:
        return list_own_folder(opt), [f"{opt.dataroot} is not a known benchmark; checked as val.py takes it"]
    require_known(opt.classes, roots)
    entries = [entry for row, root in roots.items() for entry in list_protocol(row, root, opt)]
    return (entries, []) if asked else without_subsets(entries)


def asked_protocols(opt):
    """The rows that --protocols names; none for all."""
    names = [name for name in opt.protocols if name.lower() != ALL]
    if names and len(names) < len(opt.protocols):
        raise UserError(f"--protocols takes names or all, not both, got {' '.join(opt.protocols)}")
    return [protocols.get(name, opt.protocol_file) for name in names]


def list_own_folder(opt):
    """Entries of a folder that is not a known benchmark: the generators that val.py takes it for."""
    root = Path(opt.dataroot)
    row = Protocol(root.resolve().name, (), STORED, "")
    return [
        Entry(row, Generator(name), "train" if name.lower() == "train" else "test", folder)
        for name, folder in discover(root, opt.classes)
    ]


def names_of(generator):
    """Every name of a generator, in lower case."""
    return {name.lower() for name in (generator.name, *generator.aliases)}


def require_known(classes, rows):
    """UserError for a name that no generator of these protocols has."""
    generators = [generator for row in rows for generator in row.generators]
    training = [generator for row in rows for generator in row.training]
    known = set().union(*map(names_of, generators + training))
    unknown = [name for name in classes if name.lower() not in known]
    if unknown:
        legal = ", ".join(dict.fromkeys(generator.name for generator in generators))
        slugs = ", ".join(row.slug for row in rows)
        raise UserError(f"--classes: {slugs} has no generator {', '.join(unknown)}; legal: {legal}")


def list_protocol(row, root, opt):
    """Entries of a protocol: every generator of its test part, and of its training part what is there."""
    wanted = {name.lower() for name in opt.classes}
    for part in ("test", "train") if row.train_places and not opt.test_only else ("test",):
        above = root if part == "test" else row.locate(opt.dataroot, part="train")
        for generator in row.members(part):
            folder = row.find(above, generator, part) if above else None
            if (folder or part == "test") and (not wanted or wanted & names_of(generator)):
                yield Entry(row, generator, part, folder, looked_for(row, above, opt.dataroot, generator))


def looked_for(row, root, dataroot, generator):
    """The paths that were tried for one generator, in words."""
    if root is None:
        return row.looked_for(dataroot)
    places = (place.format(generator=name) for place in row.places for name in generator.aliases)
    return " or ".join(str(root / place) for place in dict.fromkeys(places))


def without_subsets(entries):
    """Leaves out protocols found only because a complete one shares its folders; a note names each."""
    groups = by_protocol(entries)
    folders = {
        slug: {entry.folder for entry in own if entry.folder and entry.part == "test"}
        for slug, own in groups.items()
    }
    complete = {slug for slug, own in groups.items() if all(entry.folder for entry in own)}
    covered = set().union(*(folders[slug] for slug in complete))
    subsets = [slug for slug in groups if slug not in complete and folders[slug] <= covered]
    notes = [
        f"{slug} left out: only {len(folders[slug])} of its {len(groups[slug])} folders are there, all "
        f"part of a complete benchmark; --protocols {slug} checks it"
        for slug in subsets
    ]
    return [entry for entry in entries if entry.protocol.slug not in subsets], notes


def inspect(entries, depth, workers):
    """Reads every file once, even where two protocols share it; returns the number of files."""
    paths = list(dict.fromkeys(entry.path(sample) for entry in entries for sample in entry.scan.samples))
    results = inspect_files(paths, depth, min(workers, len(paths)))
    bar = tqdm(total=len(paths), unit="file", disable=None, dynamic_ncols=True)
    facts = {}
    stop_message = "nothing was written; start it again for a report"
    with run.StopSignal(stop_message) as stop, bar, closing(results):
        for path, of_file in zip(paths, results, strict=True):
            facts[path] = of_file
            bar.update()
            stop.check()
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


def check(entries):
    """All findings of one protocol's entries, whose files have been inspected."""
    return [*(finding for entry in entries for finding in check_entry(entry)), *find_duplicates(entries)]


def check_entry(entry):
    """Findings of one generator."""
    if entry.folder is None:
        yield entry.finding("missing", f"no folder; looked for {entry.looked_for}", problem=True)
    elif entry.trouble:
        yield entry.finding("layout", f"contradictory layout: {entry.trouble}", problem=True)
    else:
        for check_one in (check_counts, check_readable, check_names, check_labels, check_leaks):
            yield from check_one(entry)


def check_counts(entry):
    """Images of both classes, as many as published."""
    real, fake = entry.counts()
    if not real and not fake:
        text = f"no images in a known layout in {entry.folder}; expected {LAYOUT_HELP}"
        yield entry.finding("empty", text, problem=True)
    elif not real or not fake:
        text = f"only {CLASSES[not real]} images: {real:,} real, {fake:,} fake"
        yield entry.finding("one-sided", text, problem=True)
    within = entry.generator.images_within
    rounded = f" within {within}" if within else ""
    for name, count, published in zip(CLASSES, (real, fake), entry.generator.images or (), strict=False):
        if abs(count - published) > within:
            text = f"{count:,} {name} images, published: {published:,}{rounded}"
            yield entry.finding("count", text, problem=True)


def check_readable(entry):
    """Files that cannot be read; those of KNOWN_DEFECTS are notes."""
    for sample, facts in entry.files(readable=False):
        text, known = f"unreadable: {facts.error}", known_defect(entry, sample)
        if known:
            text = f"{text}; known defect of the distributed set: {known}"
        yield entry.finding("known defect" if known else "unreadable", text, [sample], problem=not known)


def known_defect(entry, sample):
    """The sentence of KNOWN_DEFECTS on a file, or ""."""
    file = (entry.protocol.slug, entry.generator.name, sample.path)
    for patterns, sentence in KNOWN_DEFECTS.items():
        if all(map(fnmatch.fnmatchcase, file, patterns)):
            return sentence
    return ""


def check_names(entry):
    """Extensions against the formats inside, upper-case ones, and what was passed over."""
    wrong = [pair for pair in entry.files() if not keeps_promise(pair[0].path, pair[1])]
    for (named, inside), pairs in grouped(wrong, lambda pair: (extension(pair[0]), pair[1].format)).items():
        text = f"{len(pairs):,} files named {named} are {inside} inside (the content decides here)"
        yield entry.finding("extension", text, [sample for sample, _ in pairs], problem=True)
    upper = [sample for sample in entry.scan.samples if extension(sample) != extension(sample).lower()]
    if upper:
        known = known_defect(entry, upper[-1])
        text = f"{len(upper):,} files with an upper-case extension ({extension(upper[0])}); counted here"
        yield entry.finding("upper-case", text + (f". {known}" if known else ""), upper)
    if entry.scan.passed_over:
        yield entry.finding("passed over", f"passed over: {entry.scan.others()}")


def extension(sample):
    """The extension as it is written."""
    return os.path.splitext(sample.path)[1]


def check_labels(entry):
    """Whether the label folders hold what they say."""
    for text in entry.scan.notices():
        yield entry.finding("contradiction", text.removeprefix("notice: "))
    own = {word for name in names_of(entry.generator) for word in words(name)}
    fake_words = FAKE_WORDS | {word for word in own - {"imagenet"} if len(word) > 2}
    if share_named(entry, 0, fake_words - REAL_WORDS) > HALF and share_named(entry, 1, REAL_WORDS) > HALF:
        text = "looks swapped: the real folder holds names of fakes, the fake folder names of reals"
        yield entry.finding("swapped", text, problem=True)
    real, fake = (
        {(Path(sample.path).name, facts.digest) for sample, facts in entry.files(label) if facts.digest}
        for label in (0, 1)
    )
    both = len(real & fake)
    if both > HALF * min(len(real), len(fake)):
        same = f"{both:,} files have the same name and content in the real and in the fake folder"
        text = f"looks swapped: {same}; one is a copy of the other"
        yield entry.finding("swapped", text, problem=True)


def words(name):
    """The words of a file name, in lower case."""
    return set(re.findall("[a-z]+", name.lower()))


def share_named(entry, label, wanted):
    """Share of the files of one label whose name has one of these words."""
    names = [Path(sample.path).name for sample in entry.scan.samples if sample.label == label]
    return sum(bool(words(name) & wanted) for name in names) / max(1, len(names))


def check_leaks(entry):
    """Whether the format, or the size, of a file says what its label is."""
    for name in ("format", "size"):
        real, fake = (entry.histogram(label, name) for label in (0, 1))
        if not real or not fake:
            continue
        shares = {value: (real[value] / real.total(), fake[value] / fake.total()) for value in real | fake}
        value, (of_real, of_fake) = max(shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        accuracy = 0.5 + abs(of_real - of_fake) / 2
        if accuracy >= LEAK:
            text = (
                f"the {name} leaks the label: {as_text(value)} are {of_real:.0%} of the reals and "
                f"{of_fake:.0%} of the fakes, so {name} alone tells them apart with {accuracy:.0%} balanced "
                "accuracy"
            )
            yield entry.finding(f"{name} leaks", text)


def as_text(value):
    """A format or a (width, height) for people."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


# Kind of duplicates -> sentence.
DUPLICATES = {
    "duplicates within real": "{} reals are in its folder more than once",
    "duplicates within fake": "{} fakes are in its folder more than once",
    "duplicates across labels": "{} files are under both labels, real and fake",
    "leakage": "leakage: {} files are in the training and in the test part",
    "duplicates of reals across generators": "generators share {} reals",
    "duplicates of fakes across generators": "{} fakes are under more than one generator",
}
HARMLESS = ("duplicates of reals across generators",)  # sets like GenImage draw them from one pool


def find_duplicates(entries):
    """Files with the same bytes: within a class, across labels, generators, or test and train."""
    files = [(entry, *pair) for entry in entries for pair in entry.files() if pair[1].digest]
    kinds = defaultdict(list)  # (kind, generators concerned) -> groups of equal files
    for equal in grouped(files, lambda file: file[2].digest).values():
        copies = [(entry, sample) for entry, sample, _ in equal]
        for kind, members in kinds_of_duplicates(copies):
            titles = ", ".join(dict.fromkeys(entry.title for entry, _ in members))
            kinds[kind, titles].append(members)
    for (kind, titles), groups in kinds.items():
        paths = tuple(entry.path(sample) for members in groups for entry, sample in members)
        text = DUPLICATES[kind].format(f"{len(groups):,}")
        yield Finding(entries[0].protocol.slug, titles, kind, kind not in HARMLESS, text, paths)


def kinds_of_duplicates(copies):
    """(kind, copies concerned) of equal files, each an (entry, sample)."""
    for (_, label), members in grouped(copies, lambda copy: (copy[0].title, copy[1].label)).items():
        if len(members) > 1:
            yield f"duplicates within {CLASSES[label]}", members
    if len({sample.label for _, sample in copies}) > 1:
        yield "duplicates across labels", copies
    if len({entry.part for entry, _ in copies}) > 1:
        yield "leakage", copies
    for (_, label), members in grouped(copies, lambda copy: (copy[0].part, copy[1].label)).items():
        if len({entry.title for entry, _ in members}) > 1:
            yield f"duplicates of {CLASSES[label]}s across generators", members


# ----- how it is shown -----


def report_entry(entry, findings, opt):
    """One generator, as plain values."""
    own = [finding for finding in findings if finding.protocol == entry.protocol.slug]
    line = {
        "protocol": entry.protocol.slug,
        "generator": entry.generator.name,
        "part": entry.part,
        "folder": str(entry.folder) if entry.folder else None,
        "published": entry.generator.images,
        "published_within": entry.generator.images_within,
        "ok": not any(each.problem and entry.title in each.generator.split(", ") for each in own),
    }
    if entry.folder:
        copies = {path for finding in own if finding.kind in DUPLICATES for path in finding.files}
        duplicates = copies.intersection(map(entry.path, entry.scan.samples))
        line |= {
            "images": entry.counts(),
            "unreadable": len(entry.files(readable=False)),
            "duplicates": None if opt.no_hash else len(duplicates),
            "passed_over": dict(entry.scan.passed_over),
            "formats": [counts_of(entry, label, "format") for label in (0, 1)],
            "sizes": [counts_of(entry, label, "size") for label in (0, 1)],
        }
    return line


def counts_of(entry, label, name):
    """{format or size as text: number of files} of one class, the most frequent first."""
    return {as_text(value): count for value, count in entry.histogram(label, name).most_common()}


def cells(title, line, dataroot):
    """A generator's line of the table."""
    published = "/".join(f"{count:,}" for count in line["published"] or ()) or "no published count"
    if line["published"] and line["published_within"]:
        published += f" ±{line['published_within']}"
    if line["folder"] is None:
        return [title, "missing", "", "", published, "", "", "", "", "PROBLEM"]
    formats = (" ".join(f"{name} {count:,}" for name, count in of.items()) or "-" for of in line["formats"])
    return [
        title,
        os.path.relpath(line["folder"], dataroot),
        *map(tables.count, line["images"]),
        published,
        tables.count(line["unreadable"]),
        "" if line["duplicates"] is None else tables.count(line["duplicates"]),
        " | ".join(formats),
        " | ".join(map(sizes_cell, line["sizes"])),
        "ok" if line["ok"] else "PROBLEM",
    ]


def sizes_cell(sizes):
    """The most frequent size, how many others there are, and the range of sides."""
    if len(sizes) < 2:
        return "".join(sizes) or "-"
    sides = [int(side) for size in sizes for side in size.split("x")]
    return f"{next(iter(sizes))} +{len(sizes) - 1:,} ({min(sides)}-{max(sides)} px)"


def show(entries, lines, findings, notes, dataroot):
    """A table per protocol, then problems, then notes."""
    for slug in by_protocol(entries):
        own = [
            cells(entry.title, line, dataroot)
            for entry, line in zip(entries, lines, strict=True)
            if entry.protocol.slug == slug
        ]
        print(f"\n{slug}\n{tables.fixed_width([HEADINGS, *own], 'll' + 'r' * 5 + 'lll')}")
    for title, wanted in (("problems", True), ("notes", False)):
        text = list(describe([finding for finding in findings if finding.problem == wanted], dataroot))
        text += [] if wanted else notes
        if text:
            print("\n" + "\n  ".join([f"{title}:", *text]))
    print()


def describe(findings, dataroot):
    """Lines on findings; of many of one kind in one generator, the first few."""
    seen = Counter()
    for finding in findings:
        key = (finding.protocol, finding.generator, finding.kind)
        seen[key] += 1
        if seen[key] <= SHOWN:
            more = f" and {len(finding.files) - SHOWN:,} more" if len(finding.files) > SHOWN else ""
            names = ", ".join(os.path.relpath(path, dataroot) for path in finding.files[:SHOWN])
            files = f": {names}{more}" if names else ""
            yield f"{finding.protocol} {finding.generator}: {finding.text}{files}"
    for (slug, generator, kind), count in seen.items():
        if count > SHOWN:
            yield f"{slug} {generator}: {kind}: {count - SHOWN:,} more; --json FILE lists all"


if __name__ == "__main__":
    run.guard(main)
