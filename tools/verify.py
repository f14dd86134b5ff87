"""Checks downloaded benchmarks before anything is measured: folders, counts, broken files, duplicates.

    python -m tools.verify --dataroot datasets
    python -m tools.verify --dataroot datasets --protocols ForenSynths GenImage-NPR --json report.json
    python -m tools.verify --dataroot datasets --protocol_file my.yaml --no_decode

Every file is read once.  Exit status: 0 all is well (notes at most), 1 there are problems, 2 wrong usage.
"""

import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from common import Parser, UserError, file_path, names_list, non_negative_int, positive_float, write_json
from data import protocols
from data.decode import DEFAULT_MAX_MPX
from data.findings import Entry, judge, list_folder, spell
from data.inspection import HASH, Depth, inspect_files
from util import run

ALL = "all"
SHOWN = 3  # files named per finding on the terminal, and findings of one kind per generator; JSON has all
HEADINGS = (
    "generator",
    "folder",
    "real",
    "fake",
    "published",
    "unreadable",
    "duplicates",
    "formats real | fake",
    "sizes real | fake",
    "verdict",
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
    slugs = dict.fromkeys(entry.protocol.slug for entry in entries)
    found = [one for slug in slugs for one in judge([e for e in entries if e.protocol.slug == slug])]
    show(opt, entries, found, notes)
    problems = sum(one.problem for one in found)
    seconds = time.perf_counter() - started
    print(
        f"{files:,} files in {seconds:.1f} s ({files / seconds:,.0f} files/s), {problems:,} problems, "
        f"{len(found) - problems + len(notes):,} notes: {'PROBLEMS' if problems else 'ok'}"
    )
    if opt.json:
        write_json(opt.json, report(opt, entries, found, notes, files, seconds))
        print(f"-> {opt.json}")
    sys.exit(1 if problems else 0)


def make_parser():
    """The command line."""
    parser = Parser(prog="tools.verify", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataroot", type=file_path, required=True, help="folder that holds the benchmarks")
    add(
        "--protocols",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"benchmarks that have to be there: {', '.join(protocols.PROTOCOLS)}; all (the default): "
        "those that are found",
    )
    add("--protocol_file", type=file_path, metavar="FILE", help="YAML file with protocols of your own")
    add("--classes", type=names_list, default=(), metavar="A,B", help="comma list of generators to check")
    add("--test_only", action="store_true", help="leave the training part alone; it can be large")
    add("--json", type=file_path, metavar="FILE", help="write everything found here as well")
    add("--no_decode", action="store_true", help="check headers only; many truncated files go unnoticed")
    add("--no_hash", action="store_true", help="do not look for duplicates")
    add(
        "--num_threads",
        type=non_negative_int,
        metavar="N",
        help="processes; default: one per core, at most 8; 0: none but this one",
    )
    add(
        "--max_mpx",
        type=positive_float,
        default=DEFAULT_MAX_MPX,
        metavar="X",
        help="files of more million pixels count as unreadable [default: 100]",
    )
    return parser


def plan(opt):
    """(entries to check, notes); ValueError for what was asked for wrongly or when nothing is there."""
    if not Path(opt.dataroot).is_dir():
        raise UserError(f"--dataroot: no folder {opt.dataroot}")
    asked = [name for name in opt.protocols if name.lower() != ALL]
    if asked and len(asked) < len(opt.protocols):
        raise UserError(f"--protocols takes names or all, not both, got {' '.join(opt.protocols)}")
    known = protocols.known(opt.protocol_file)
    rows = {row.slug: row for row in (protocols.get(slug, opt.protocol_file) for slug in asked)} or known
    roots = {slug: root for slug, row in rows.items() if (root := row.locate(opt.dataroot))}
    if not roots and not asked:
        looked = "; ".join(looked_for(row, opt.dataroot) for row in rows.values())
        raise UserError(f"{opt.dataroot} holds no known benchmark; looked for {looked}")
    cache = {}
    chosen = pick(rows.values() if asked else [rows[slug] for slug in roots], opt.classes)
    entries = {
        row.slug: list_protocol(row, roots.get(row.slug), opt, wanted, cache)
        for row, wanted in chosen.items()
    }
    if asked:
        return [one for own in entries.values() for one in own], []
    return without_subsets(entries)


def pick(rows, classes):
    """{protocol: its generators of these names}; ValueError for a name that no protocol has."""
    names = {
        row: {alias.lower() for one in (*row.generators, *row.training) for alias in (one.name, *one.aliases)}
        for row in rows
    }
    unknown = [name for name in classes if not any(name.lower() in own for own in names.values())]
    if unknown:
        legal = ", ".join(dict.fromkeys(one.name for row in names for one in row.generators))
        slugs = ", ".join(row.slug for row in names)
        raise UserError(f"--classes: {slugs} has no generator {', '.join(unknown)}; legal: {legal}")
    wanted = {row: [name for name in classes if name.lower() in own] for row, own in names.items()}
    return {row: chosen for row, chosen in wanted.items() if chosen or not classes}


def looked_for(row, dataroot):
    """Where a protocol is looked for, in words."""
    roots = ",".join((*row.roots, "."))
    inside = ", ".join(one.aliases[0] for one in row.generators)
    return f"{row.slug}: {dataroot}/{{{roots}}}/{{{','.join(row.places)}}} with {inside}"


def list_protocol(row, root, opt, wanted, cache):
    """Entries of a protocol: every generator of its test part, and of its training part what is there."""
    entries = []
    for part in ("test", "train") if row.train_places and not opt.test_only else ("test",):
        place = root if part == "test" else row.locate(opt.dataroot, part="train")
        for generator in row.members(part):
            if wanted and not {one.lower() for one in wanted} & {
                one.lower() for one in (generator.name, *generator.aliases)
            }:
                continue
            entry = Entry(row, generator, part, None, where(row, place, opt.dataroot, generator))
            folder = row.find(place, generator, part) if place else None
            if folder:
                key = (folder, tuple(row.label_map))
                entry.contents = cache[key] = cache.get(key) or list_folder(folder, row.label_map)
            if folder or part == "test":
                entries.append(entry)
    return entries


def where(row, root, dataroot, generator):
    """The paths that were tried for one generator."""
    if root is None:
        return looked_for(row, dataroot)
    places = (place.format(generator=name) for place in row.places for name in generator.aliases)
    return " or ".join(str(root / place) for place in dict.fromkeys(places))


def without_subsets(entries):
    """Leaves out protocols found only because a complete one shares its folders; a note names each."""

    def folders(slug):
        return {one.contents.folder for one in entries[slug] if one.contents and one.part == "test"}

    complete = {slug for slug, own in entries.items() if all(one.contents for one in own)}
    covered = set().union(*(folders(slug) for slug in complete))
    apart = [slug for slug in entries if slug not in complete and folders(slug) <= covered]
    notes = [
        f"{slug} left out: only {len(folders(slug))} of its {len(entries[slug])} folders are there, all "
        f"part of a complete benchmark; --protocols {slug} checks it"
        for slug in apart
    ]
    return [one for slug, own in entries.items() if slug not in apart for one in own], notes


def inspect(entries, depth, workers):
    """Reads every file once and keeps its facts; returns the number of files."""
    contents = list({id(one.contents): one.contents for one in entries if one.contents}.values())
    total = sum(len(one.samples) for one in contents)
    paths = (path for one in contents for path in one.paths())
    owners = (one for one in contents for _ in one.samples)
    facts = inspect_files(paths, depth, min(workers, total))
    bar = tqdm(total=total, unit="file", disable=None, dynamic_ncols=True)
    with run.StopSignal("nothing was written; start it again for a report") as stop, bar:
        try:
            for owner, one in zip(owners, facts, strict=True):
                owner.facts.append(one)
                bar.update()
                stop.check()
        finally:
            facts.close()
    return total


def show(opt, entries, found, notes):
    """A table per protocol, then problems, then notes."""
    for slug in dict.fromkeys(entry.protocol.slug for entry in entries):
        own = [entry for entry in entries if entry.protocol.slug == slug]
        print(f"\n{slug}\n{table([row(entry, found, opt) for entry in own])}")
    for title, wanted in (("problems", True), ("notes", False)):
        lines = list(tell([one for one in found if one.problem == wanted], opt.dataroot))
        lines += [] if wanted else notes
        if lines:
            print("\n" + "\n  ".join([f"{title}:", *lines]))
    print()


def tell(found, dataroot):
    """Lines on findings; of many alike in one generator, the first few."""
    seen = Counter()
    for one in found:
        key = (one.protocol, one.generator, one.kind)
        seen[key] += 1
        if seen[key] <= SHOWN:
            more = f" and {len(one.files) - SHOWN:,} more" if len(one.files) > SHOWN else ""
            names = ", ".join(os.path.relpath(path, dataroot) for path in one.files[:SHOWN])
            files = f": {names}{more}" if names else ""
            yield f"{one.protocol} {one.generator}: {one.text}{files}"
    for (slug, generator, kind), count in seen.items():
        if count > SHOWN:
            yield f"{slug} {generator}: {kind}: {count - SHOWN:,} more; --json FILE lists all"


def row(entry, found, opt):
    """The cells of one generator."""
    held = entry.contents
    own = [
        one
        for one in found
        if one.protocol == entry.protocol.slug and one.problem and entry.title in one.generator.split(", ")
    ]
    verdict = "PROBLEM" if own else "ok"
    published = "/".join(f"{count:,}" for count in entry.generator.images or ()) or "no published count"
    if entry.generator.images and entry.generator.images_within:
        published += f" ±{entry.generator.images_within}"
    if held is None:
        return [entry.title, "missing", "", "", published, "", "", "", "", verdict]
    real, fake = held.counts()
    copies = "" if opt.no_hash else f"{duplicates(entry, found):,}"
    bad = sum(bool(one.error) for one in held.facts)
    formats = " | ".join(
        " ".join(f"{kind} {count:,}" for kind, count in held.histogram(label, "format").most_common()) or "-"
        for label in (0, 1)
    )
    sizes = " | ".join(size_cell(held.histogram(label, "size")) for label in (0, 1))
    folder = os.path.relpath(held.folder, opt.dataroot)
    return [
        entry.title,
        folder,
        f"{real:,}",
        f"{fake:,}",
        published,
        f"{bad:,}",
        copies,
        formats,
        sizes,
        verdict,
    ]


def duplicates(entry, found):
    """Files of an entry that have the bytes of another file of the protocol."""
    start = os.path.join(entry.contents.folder, "")
    copies = [
        one
        for one in found
        if one.protocol == entry.protocol.slug and one.kind.startswith(("duplicates", "leakage"))
    ]
    return len({path for one in copies for path in one.files if path.startswith(start)})


def size_cell(sizes):
    """The most frequent size, how many others there are, and the range of sides."""
    if not sizes:
        return "-"
    common = spell(sizes.most_common(1)[0][0])
    sides = [side for size in sizes for side in size]
    return common if len(sizes) == 1 else f"{common} +{len(sizes) - 1:,} ({min(sides)}-{max(sides)} px)"


def table(rows):
    """Fixed-width text."""
    lines = [HEADINGS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    right = range(2, 7)
    text = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def report(opt, entries, found, notes, files, seconds):
    """Everything, as plain values."""
    generators = []
    for entry in entries:
        held = entry.contents
        line = {
            "protocol": entry.protocol.slug,
            "generator": entry.generator.name,
            "part": entry.part,
            "folder": str(held.folder) if held else None,
            "published": entry.generator.images,
            "published_within": entry.generator.images_within,
        }
        if held:
            line |= {
                "images": held.counts(),
                "unreadable": sum(bool(one.error) for one in held.facts),
                "duplicates": None if opt.no_hash else duplicates(entry, found),
                "passed_over": dict(held.passed_over),
            }
            for name in ("format", "size"):
                line[f"{name}s"] = [
                    {spell(value): count for value, count in held.histogram(label, name).most_common()}
                    for label in (0, 1)
                ]
        line["ok"] = row(entry, found, opt)[-1] == "ok"
        generators.append(line)
    return {
        "dataroot": opt.dataroot,
        "hash": None if opt.no_hash else HASH,
        "decoded": not opt.no_decode,
        "files": files,
        "seconds": seconds,
        "ok": not any(one.problem for one in found),
        "generators": generators,
        "findings": [asdict(one) for one in found],
        "notes": notes,
    }


if __name__ == "__main__":
    run.guard(main)
