"""What is wrong, or worth knowing, in the folders of a benchmark: judged from the facts of its files.

A problem is something to mend before numbers are believed; a note is something to know.
"""

import fnmatch
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from common import UserError
from data.folder import LAYOUT_HELP, Sample, scan
from data.inspection import Facts, keeps_promise
from data.protocol import Generator, Protocol

CLASSES = ("real", "fake")
BETRAYAL = 0.8  # balanced accuracy that one yes-or-no question on format or size must reach to be told
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


@dataclass
class Contents:
    """The images of one folder: listed once, inspected once, even where two protocols share it."""

    folder: Path
    samples: list[Sample] = field(default_factory=list)  # paths are relative to the folder
    passed_over: Counter = field(default_factory=Counter)
    trouble: str = ""  # why it could not be listed
    facts: list[Facts] = field(default_factory=list)  # one per sample

    def paths(self):
        """Paths of the images, in order."""
        return (os.path.join(self.folder, sample.path) for sample in self.samples)

    def counts(self):
        """[number of real, number of fake]"""
        counts = Counter(sample.label for sample in self.samples)
        return [counts[0], counts[1]]

    def pairs(self, label=None):
        """(sample, facts) of the files that could be read, of one label or of both."""
        for sample, facts in zip(self.samples, self.facts, strict=True):
            if not facts.error and label in (None, sample.label):
                yield sample, facts

    def histogram(self, label, name):
        """{value: number of files} of one class; name: "format" or "size"."""
        return Counter(getattr(facts, name) for _, facts in self.pairs(label))


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
        return self.generator.name + (" (train)" if self.part == "train" else "")


@dataclass(frozen=True)
class Finding:
    """One thing found; files are paths below --dataroot or absolute, as the folder was."""

    protocol: str
    generator: str
    kind: str
    problem: bool
    text: str
    files: tuple[str, ...] = ()


def list_folder(folder, labels):
    """The contents of a generator's folder, by the rules by which test.py reads it; nothing is opened."""
    try:
        found = scan(folder, [("", folder)], labels)
    except (UserError, OSError) as error:
        return Contents(folder, trouble=str(error))
    return Contents(folder, found.samples, found.passed_over)


def judge(entries):
    """All findings of one protocol's entries, whose files have been inspected."""
    found = [finding for entry in entries for finding in _judge_entry(entry)]
    return [*found, *_duplicates(entries)]


def _judge_entry(entry):
    if entry.contents is None:
        return [_finding(entry, "missing", f"no folder; looked for {entry.looked_for}")]
    if entry.contents.trouble:
        return [_finding(entry, "layout", f"contradictory layout: {entry.contents.trouble}")]
    return [finding for check in CHECKS for finding in check(entry)]


def _finding(entry, kind, text, samples=(), problem=True):
    files = tuple(os.path.join(entry.contents.folder, sample.path) for sample in samples)
    return Finding(entry.protocol.slug, entry.title, kind, problem, text, files)


def _number_of_images(entry):
    counts, expected = entry.contents.counts(), entry.generator.images
    if not any(counts):
        yield _finding(
            entry, "empty", f"no images in a known layout in {entry.contents.folder}; expected {LAYOUT_HELP}"
        )
    elif 0 in counts:
        yield _finding(
            entry,
            "one-sided",
            f"only {CLASSES[counts[0] == 0]} images: {counts[0]:,} real, {counts[1]:,} fake",
        )
    for name, count, published in zip(CLASSES, counts, expected or (), strict=bool(expected)):
        if abs(count - published) > entry.generator.images_within:
            within = f" within {entry.generator.images_within}" if entry.generator.images_within else ""
            yield _finding(entry, "count", f"{count:,} {name} images, published: {published:,}{within}")


def _unreadable(entry):
    bad = [
        (sample, facts.error)
        for sample, facts in zip(entry.contents.samples, entry.contents.facts, strict=True)
        if facts.error
    ]
    for sample, error in bad:
        known = known_defect(entry, sample)
        text = f"unreadable: {error}" + (f"; known defect of the distributed set: {known}" if known else "")
        yield _finding(entry, "known defect" if known else "unreadable", text, [sample], problem=not known)


def known_defect(entry, sample):
    """The sentence of KNOWN_DEFECTS on a file, or ""."""
    for slug, generator, path, sentence in KNOWN_DEFECTS:
        if (
            fnmatch.fnmatch(entry.protocol.slug, slug)
            and entry.generator.name == generator
            and fnmatch.fnmatchcase(sample.path, path)
        ):
            return sentence
    return ""


def _names(entry):
    kinds = defaultdict(list)
    for sample, facts in entry.contents.pairs():
        if not keeps_promise(sample.path, facts):
            kinds[os.path.splitext(sample.path)[1], facts.format].append(sample)
    for (extension, kind), samples in kinds.items():
        yield _finding(
            entry,
            "extension",
            f"{len(samples):,} files named {extension} are {kind} inside (the content decides here)",
            samples,
        )
    upper = [sample for sample in entry.contents.samples if _extension(sample) != _extension(sample).lower()]
    if upper:
        known = known_defect(entry, upper[-1])
        text = f"{len(upper):,} files with an upper-case extension ({_extension(upper[0])}); counted here"
        yield _finding(entry, "upper-case", text + (f". {known}" if known else ""), upper, problem=False)
    if entry.contents.passed_over:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(entry.contents.passed_over.items()))
        yield _finding(entry, "passed over", f"files passed over: {kinds}", problem=False)


def _extension(sample):
    return os.path.splitext(sample.path)[1]


def _looks_swapped(entry):
    labels = entry.protocol.label_map
    inside = [
        sample
        for sample in entry.contents.samples
        if 1 - sample.label in {labels.get(step.lower()) for step in Path(sample.path).parts[:-1]}
    ]
    if inside:
        yield _finding(
            entry,
            "swapped",
            f"looks swapped: {len(inside):,} files stand below folders of both labels",
            inside,
        )
    own = {word for name in (entry.generator.name, *entry.generator.aliases) for word in _words(name)}
    fakes = FAKE_WORDS | {word for word in own - REAL_WORDS - {"imagenet"} if len(word) > 2}
    in_real, in_fake = ([], [])
    for sample in entry.contents.samples:
        (in_fake if sample.label else in_real).append(_words(Path(sample.path).name))
    if _share(in_real, fakes - REAL_WORDS) > HALF and _share(in_fake, REAL_WORDS) > HALF:
        yield _finding(
            entry,
            "swapped",
            "looks swapped: the real folder holds names of fakes, the fake folder names of reals",
        )
    named = [
        {
            (Path(sample.path).name, facts.digest)
            for sample, facts in entry.contents.pairs(label)
            if facts.digest
        }
        for label in (0, 1)
    ]
    both = len(named[0] & named[1])
    if both and both > HALF * min(map(len, named)):
        yield _finding(
            entry,
            "swapped",
            f"looks swapped: {both:,} files have the same name and content in "
            "the real and in the fake folder; one is a copy of the other",
        )


def _words(name):
    return set(re.findall("[a-z]+", name.lower()))


def _share(names, words):
    return sum(bool(name & words) for name in names) / max(1, len(names))


def _betrayal(entry):
    for name in ("format", "size"):
        real, fake = (entry.contents.histogram(label, name) for label in (0, 1))
        if not real or not fake:
            continue
        shares = {value: (real[value] / real.total(), fake[value] / fake.total()) for value in real | fake}
        value, (of_real, of_fake) = max(shares.items(), key=lambda item: abs(item[1][0] - item[1][1]))
        accuracy = 0.5 + abs(of_real - of_fake) / 2
        if accuracy >= BETRAYAL:
            text = (
                f"{name} betrays the label: {spell(value)} are {of_real:.0%} of the reals and "
                f"{of_fake:.0%} of the fakes; that alone tells them apart with {accuracy:.0%} "
                "balanced accuracy"
            )
            yield _finding(entry, f"{name} betrays", text, problem=False)


def spell(value):
    """A format or a (width, height) for people."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


CHECKS = (_number_of_images, _unreadable, _names, _looks_swapped, _betrayal)


def _duplicates(entries):
    """Files with the same bytes: within a class, across labels, across generators, across test and train."""
    groups = defaultdict(list)
    for entry in entries:
        for sample, facts in entry.contents.pairs() if entry.contents else ():
            if facts.digest:
                groups[facts.digest].append((entry, sample))
    kinds = defaultdict(list)  # (kind, generators concerned) -> groups
    for group in groups.values():
        if len(group) > 1:
            for kind, titles, members in _kinds(group):
                kinds[kind, titles].append(members)
    return [_tell(kind, titles, groups) for (kind, titles), groups in kinds.items()]


def _kinds(group):
    """(kind, generators concerned, files concerned) of one group of equal files."""
    places, shared = defaultdict(list), defaultdict(list)
    for entry, sample in group:
        places[entry.title, sample.label].append((entry, sample))
        shared[entry.part, sample.label].append((entry, sample))
    for (title, label), members in places.items():
        if len(members) > 1:
            yield f"duplicates within {CLASSES[label]}", title, members
    if len({sample.label for _, sample in group}) > 1:
        yield "duplicates across labels", _titles(group), group
    if len({entry.part for entry, _ in group}) > 1:
        yield "leakage", _titles(group), group
    for (_, label), members in shared.items():
        if len({entry.title for entry, _ in members}) > 1:
            yield f"duplicates of {CLASSES[label]}s across generators", _titles(members), members


def _titles(members):
    return ", ".join(dict.fromkeys(entry.title for entry, _ in members))


HARMLESS = ("duplicates of reals across generators",)  # sets like GenImage draw them from one pool
SENTENCES = {
    "duplicates within real": "{} reals stand in its folder more than once",
    "duplicates within fake": "{} fakes stand in its folder more than once",
    "duplicates across labels": "{} files stand under both labels, real and fake",
    "leakage": "leakage: {} files stand in the training and in the test part",
    "duplicates of reals across generators": "generators share {} reals",
    "duplicates of fakes across generators": "{} fakes stand under more than one generator",
}


def _tell(kind, titles, groups):
    paths = tuple(
        os.path.join(entry.contents.folder, sample.path) for group in groups for entry, sample in group
    )
    slug = groups[0][0][0].protocol.slug
    return Finding(
        slug, titles, kind, kind not in HARMLESS, SENTENCES[kind].format(f"{len(groups):,}"), paths
    )
