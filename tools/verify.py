"""Checks image folders before anything is measured: layout, counts, broken files, duplicates, leaks.

    python -m tools.verify --dataroot datasets
    python -m tools.verify --dataroot datasets --protocols ForenSynths GenImage-NPR --json report.json
    python -m tools.verify --dataroot my_folder --no_decode

--dataroot holds benchmarks (data/protocols.py), or is any folder that val.py takes.  Every file is read once.
A problem is something to mend before numbers are believed; a note is something to know.
Exit status: 0 all is well (notes at most), 1 there are problems, 2 wrong usage.
"""

import fnmatch
import os
import re
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from common import Parser, UserError, file_path, names_list, non_negative_int, positive_float, write_json
from data import protocols
from data.decode import DEFAULT_MAX_MPX
from data.folder import LABELS, LAYOUT_HELP, Scan, discover, scan
from data.inspection import HASH, Depth, Facts, inspect_files, keeps_promise
from data.protocol import Generator, Protocol
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
# What the distributed sets are known for: protocol, generator, path in its folder, what to know.
KNOWN_DEFECTS = (
    (
        "AIGCDetectBenchmark",
        "DALLE2",
        "0_real/000000097792.jpg",
        "broken in the distributed archive (AIGCDetectBenchmark issue #8); --on_bad_image skip leaves it out",
    ),
    (
        "GenImage-*",
        "ADM",
        "ai/*.PNG",
        "GenImage's ADM fakes are named .PNG; loaders that know only .png drop them all",
    ),
)


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
        record = {
            "dataroot": opt.dataroot,
            "hash": None if opt.no_hash else HASH,
            "decoded": not opt.no_decode,
        }
        record |= {"files": files, "seconds": seconds, "ok": not problems, "generators": lines}
        write_json(opt.json, record | {"findings": list(map(asdict, findings)), "notes": notes})
        print(f"-> {opt.json}")
    sys.exit(1 if problems else 0)


def make_parser():
    """The command line."""
    parser = Parser(prog="tools.verify", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--dataroot",
        type=file_path,
        required=True,
        help="folder of benchmarks, or of generators as for val.py",
    )
    add(
        "--protocols",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"benchmarks that have to be there: {', '.join(protocols.PROTOCOLS)}; all (the default): "
        "those that are found",
    )
    add("--protocol_file", type=file_path, help="YAML file with protocols of your own")
    add("--classes", type=names_list, default=(), help="comma list of generators to check")
    add("--test_only", action="store_true", help="leave out the training part; it can be large")
    add("--json", type=file_path, help="write everything found here as well")
    add("--no_decode", action="store_true", help="check headers only; many truncated files go unnoticed")
    add("--no_hash", action="store_true", help="do not look for duplicates")
    add(
        "--num_threads",
        type=non_negative_int,
        help="processes; default: one per core, at most 8; 0: none but this one",
    )
    add(
        "--max_mpx",
        type=positive_float,
        default=DEFAULT_MAX_MPX,
        help="files of more million pixels count as unreadable",
    )
    return parser


# ----- what is checked -----


@dataclass
class Contents:
    """The images of one folder: listed once, inspected once, even where two protocols share it."""

    folder: Path
    scan: Scan
    facts: list[Facts] = field(default_factory=list)  # one per sample
    trouble: str = ""  # why it could not be listed

    def path(self, sample):
        """Where the file of a sample is."""
        return os.path.join(self.folder, sample.path)

    def counts(self):
        """[number of real, number of fake]"""
        return self.scan.counts().get("", [0, 0])

    def files(self, label=None, readable=True):
        """[(sample, facts)] of the files that can be read, or cannot; of one label, or of both."""
        pairs = zip(self.scan.samples, self.facts, strict=True)
        return [
            (sample, facts)
            for sample, facts in pairs
            if bool(facts.error) != readable and label in (None, sample.label)
        ]

    def histogram(self, label, name):
        """{value: number of files} of one class; name: "format" or "size"."""
        return Counter(getattr(facts, name) for _, facts in self.files(label))


@dataclass
class Entry:
    """One generator of a protocol, in its test or training part, and what its folder holds."""

    protocol: Protocol
    generator: Generator
    part: str
    contents: Contents | None  # None: no such folder
    looked_for: str = ""

    @property
    def title(self):
        """The generator's name in tables and findings."""
        return self.generator.name + (" (train)" if self.part == "train" else "")


def by_protocol(entries):
    """{slug: its entries}"""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.protocol.slug].append(entry)
    return groups


def plan(opt):
    """(entries to check, notes); UserError for what was asked for wrongly or when nothing is there."""
    if not Path(opt.dataroot).is_dir():
        raise UserError(f"--dataroot: no folder {opt.dataroot}")
    asked = asked_for(opt)
    rows = asked or protocols.known(opt.protocol_file)
    roots = {slug: root for slug, row in rows.items() if (root := row.locate(opt.dataroot))}
    if not roots and not asked:
        return list_own_folder(opt), [f"{opt.dataroot} is not a known benchmark; checked as val.py takes it"]
    cache, entries = {}, {}
    for row, wanted in pick(rows.values() if asked else [rows[slug] for slug in roots], opt.classes).items():
        entries[row.slug] = list_protocol(row, roots.get(row.slug), opt, wanted, cache)
    if asked:
        return [entry for own in entries.values() for entry in own], []
    return without_subsets(entries)


def asked_for(opt):
    """{slug: row} of the protocols that --protocols names; none for all."""
    names = [name for name in opt.protocols if name.lower() != ALL]
    if names and len(names) < len(opt.protocols):
        raise UserError(f"--protocols takes names or all, not both, got {' '.join(opt.protocols)}")
    return {row.slug: row for row in (protocols.get(name, opt.protocol_file) for name in names)}


def list_own_folder(opt):
    """Entries of a folder that is not a known benchmark: the generators that val.py takes it for."""
    root = Path(opt.dataroot)
    row = Protocol(root.resolve().name, (), protocols.STORED, "")
    return [
        Entry(
            row, Generator(name), "train" if name.lower() == "train" else "test", list_folder(folder, LABELS)
        )
        for name, folder in discover(root, opt.classes)
    ]


def names_of(generator):
    """Every name of a generator, in lower case."""
    return {name.lower() for name in (generator.name, *generator.aliases)}


def pick(rows, classes):
    """{protocol: its generators of these names}; UserError for a name that no protocol has."""
    names = {row: set().union(*map(names_of, (*row.generators, *row.training))) for row in rows}
    unknown = [name for name in classes if not any(name.lower() in own for own in names.values())]
    if unknown:
        legal = ", ".join(dict.fromkeys(generator.name for row in names for generator in row.generators))
        slugs = ", ".join(row.slug for row in names)
        raise UserError(f"--classes: {slugs} has no generator {', '.join(unknown)}; legal: {legal}")
    wanted = {row: {name.lower() for name in classes if name.lower() in own} for row, own in names.items()}
    return {row: chosen for row, chosen in wanted.items() if chosen or not classes}


def list_protocol(row, root, opt, wanted, cache):
    """Entries of a protocol: every generator of its test part, and of its training part what is there."""
    entries = []
    for part in ("test", "train") if row.train_places and not opt.test_only else ("test",):
        above = root if part == "test" else row.locate(opt.dataroot, part="train")
        for generator in row.members(part):
            if wanted and not wanted & names_of(generator):
                continue
            entry = Entry(row, generator, part, None, where(row, above, opt.dataroot, generator))
            folder = row.find(above, generator, part) if above else None
            if folder:
                key = (folder, tuple(row.label_map))
                entry.contents = cache[key] = cache.get(key) or list_folder(folder, row.label_map)
            if folder or part == "test":
                entries.append(entry)
    return entries


def list_folder(folder, labels):
    """The contents of a generator's folder, by the rules by which test.py reads it; nothing is opened."""
    try:
        return Contents(folder, scan(folder, [("", folder)], labels))
    except (UserError, OSError) as error:
        return Contents(folder, Scan(folder), trouble=str(error))


def where(row, root, dataroot, generator):
    """The paths that were tried for one generator, in words."""
    if root is None:
        roots, inside = ",".join((*row.roots, ".")), ", ".join(each.aliases[0] for each in row.generators)
        return f"{row.slug}: {dataroot}/{{{roots}}}/{{{','.join(row.places)}}} with {inside}"
    places = (place.format(generator=name) for place in row.places for name in generator.aliases)
    return " or ".join(str(root / place) for place in dict.fromkeys(places))


def without_subsets(entries):
    """Leaves out protocols found only because a complete one shares its folders; a note names each."""

    def folders(slug):
        return {entry.contents.folder for entry in entries[slug] if entry.contents and entry.part == "test"}

    complete = {slug for slug, own in entries.items() if all(entry.contents for entry in own)}
    covered = set().union(*(folders(slug) for slug in complete))
    apart = [slug for slug in entries if slug not in complete and folders(slug) <= covered]
    notes = [
        f"{slug} left out: only {len(folders(slug))} of its {len(entries[slug])} folders are there, all "
        f"part of a complete benchmark; --protocols {slug} checks it"
        for slug in apart
    ]
    return [entry for slug, own in entries.items() if slug not in apart for entry in own], notes


def inspect(entries, depth, workers):
    """Reads every file once and keeps its facts; returns the number of files."""
    contents = list({id(entry.contents): entry.contents for entry in entries if entry.contents}.values())
    files = [(each, sample) for each in contents for sample in each.scan.samples]
    facts = inspect_files((each.path(sample) for each, sample in files), depth, min(workers, len(files)))
    bar = tqdm(total=len(files), unit="file", disable=None, dynamic_ncols=True)
    with run.StopSignal("nothing was written; start it again for a report") as stop, bar:
        try:
            for (owner, _), of_file in zip(files, facts, strict=True):
                owner.facts.append(of_file)
                bar.update()
                stop.check()
        finally:
            facts.close()
    return len(files)


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
    if entry.contents is None:
        return [note(entry, "missing", f"no folder; looked for {entry.looked_for}", problem=True)]
    if entry.contents.trouble:
        return [note(entry, "layout", f"contradictory layout: {entry.contents.trouble}", problem=True)]
    return [finding for each in CHECKS for finding in each(entry)]


def note(entry, kind, text, samples=(), problem=False):
    """A finding on one generator."""
    files = tuple(map(entry.contents.path, samples)) if samples else ()
    return Finding(entry.protocol.slug, entry.title, kind, problem, text, files)


def check_counts(entry):
    """Images of both classes, as many as published."""
    real, fake = entry.contents.counts()
    if not real and not fake:
        text = f"no images in a known layout in {entry.contents.folder}; expected {LAYOUT_HELP}"
        yield note(entry, "empty", text, problem=True)
    elif not real or not fake:
        only = CLASSES[not real]
        text = f"only {only} images: {real:,} real, {fake:,} fake"
        yield note(entry, "one-sided", text, problem=True)
    within = entry.generator.images_within
    for name, count, published in zip(CLASSES, (real, fake), entry.generator.images or (), strict=False):
        if abs(count - published) > within:
            text = f"{count:,} {name} images, published: {published:,}" + (
                f" within {within}" if within else ""
            )
            yield note(entry, "count", text, problem=True)


def check_readable(entry):
    """Files that cannot be read; those of KNOWN_DEFECTS are notes."""
    for sample, facts in entry.contents.files(readable=False):
        text, known = f"unreadable: {facts.error}", known_defect(entry, sample)
        if known:
            text = f"{text}; known defect of the distributed set: {known}"
            yield note(entry, "known defect", text, [sample])
        else:
            yield note(entry, "unreadable", text, [sample], problem=True)


def known_defect(entry, sample):
    """The sentence of KNOWN_DEFECTS on a file, or ""."""
    for slug, generator, path, sentence in KNOWN_DEFECTS:
        of_row = fnmatch.fnmatch(entry.protocol.slug, slug) and entry.generator.name == generator
        if of_row and fnmatch.fnmatchcase(sample.path, path):
            return sentence
    return ""


def check_names(entry):
    """Extensions against the formats inside, upper-case ones, and what was passed over."""
    groups = defaultdict(list)
    for sample, facts in entry.contents.files():
        if not keeps_promise(sample.path, facts):
            groups[extension(sample), facts.format].append(sample)
    for (named, inside), samples in groups.items():
        text = f"{len(samples):,} files named {named} are {inside} inside (the content decides here)"
        yield note(entry, "extension", text, samples, problem=True)
    listed = entry.contents.scan
    upper = [sample for sample in listed.samples if extension(sample) != extension(sample).lower()]
    if upper:
        known = known_defect(entry, upper[-1])
        text = f"{len(upper):,} files with an upper-case extension ({extension(upper[0])}); counted here"
        yield note(entry, "upper-case", text + (f". {known}" if known else ""), upper)
    if listed.passed_over:
        yield note(entry, "passed over", f"passed over: {listed.others()}")


def extension(sample):
    """The extension as it is written."""
    return os.path.splitext(sample.path)[1]


def check_labels(entry):
    """Whether the label folders hold what they say."""
    listed = entry.contents.scan
    for text in listed.notices():
        yield note(entry, "contradiction", text.removeprefix("notice: "))
    own = {word for name in names_of(entry.generator) for word in words(name)}
    fakes = FAKE_WORDS | {word for word in own - REAL_WORDS - {"imagenet"} if len(word) > 2}
    in_real, in_fake = (
        [words(Path(sample.path).name) for sample in listed.samples if sample.label == label]
        for label in (0, 1)
    )
    if share(in_real, fakes - REAL_WORDS) > HALF and share(in_fake, REAL_WORDS) > HALF:
        text = "looks swapped: the real folder holds names of fakes, the fake folder names of reals"
        yield note(entry, "swapped", text, problem=True)
    real, fake = (
        {
            (Path(sample.path).name, facts.digest)
            for sample, facts in entry.contents.files(label)
            if facts.digest
        }
        for label in (0, 1)
    )
    both = len(real & fake)
    if both > HALF * min(len(real), len(fake)):
        text = (
            f"looks swapped: {both:,} files have the same name and content in the real and in the fake folder"
        )
        yield note(entry, "swapped", f"{text}; one is a copy of the other", problem=True)


def words(name):
    """The words of a file name, in lower case."""
    return set(re.findall("[a-z]+", name.lower()))


def share(names, wanted):
    """Share of the names that have one of these words."""
    return sum(bool(name & wanted) for name in names) / max(1, len(names))


def check_leaks(entry):
    """Whether the format, or the size, of a file says what its label is."""
    for name in ("format", "size"):
        real, fake = (entry.contents.histogram(label, name) for label in (0, 1))
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
            yield note(entry, f"{name} leaks", text)


def as_text(value):
    """A format or a (width, height) for people."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


CHECKS = (check_counts, check_readable, check_names, check_labels, check_leaks)

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
    groups = defaultdict(list)
    for entry in entries:
        for sample, facts in entry.contents.files() if entry.contents else ():
            if facts.digest:
                groups[facts.digest].append((entry, sample))
    kinds = defaultdict(list)  # (kind, generators concerned) -> groups
    for group in groups.values():
        for kind, members in kinds_of_duplicates(group) if len(group) > 1 else ():
            titles = ", ".join(dict.fromkeys(entry.title for entry, _ in members))
            kinds[kind, titles].append(members)
    for (kind, titles), groups in kinds.items():
        files = [
            os.path.join(entry.contents.folder, sample.path) for group in groups for entry, sample in group
        ]
        text = DUPLICATES[kind].format(f"{len(groups):,}")
        yield Finding(entries[0].protocol.slug, titles, kind, kind not in HARMLESS, text, tuple(files))


def kinds_of_duplicates(group):
    """(kind, files concerned) of one group of equal files."""
    by_folder, by_part = defaultdict(list), defaultdict(list)
    for entry, sample in group:
        by_folder[entry.title, sample.label].append((entry, sample))
        by_part[entry.part, sample.label].append((entry, sample))
    for (_, label), members in by_folder.items():
        if len(members) > 1:
            yield f"duplicates within {CLASSES[label]}", members
    if len({sample.label for _, sample in group}) > 1:
        yield "duplicates across labels", group
    if len({entry.part for entry, _ in group}) > 1:
        yield "leakage", group
    for (_, label), members in by_part.items():
        if len({entry.title for entry, _ in members}) > 1:
            yield f"duplicates of {CLASSES[label]}s across generators", members


# ----- how it is shown -----


def report_entry(entry, findings, opt):
    """One generator, as plain values."""
    held, slug = entry.contents, entry.protocol.slug
    own = [finding for finding in findings if finding.protocol == slug]
    line = {
        "protocol": slug,
        "generator": entry.generator.name,
        "part": entry.part,
        "folder": str(held.folder) if held else None,
        "published": entry.generator.images,
        "published_within": entry.generator.images_within,
        "ok": not any(each.problem and entry.title in each.generator.split(", ") for each in own),
    }
    if held:
        start = os.path.join(held.folder, "")
        copies = {path for each in own if each.kind in DUPLICATES for path in each.files}
        line |= {
            "images": held.counts(),
            "unreadable": len(held.files(readable=False)),
            "duplicates": None if opt.no_hash else sum(path.startswith(start) for path in copies),
            "passed_over": dict(held.scan.passed_over),
        }
        line |= {
            f"{name}s": [counts_of(held, label, name) for label in (0, 1)] for name in ("format", "size")
        }
    return line


def counts_of(held, label, name):
    """{format or size as text: number of files} of one class, the most frequent first."""
    return {as_text(value): count for value, count in held.histogram(label, name).most_common()}


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
