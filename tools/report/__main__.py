"""One page about evaluations: a verdict in words, tables, curves, the audit, the most wrong images.

    python -m tools.report results/NPR/ForenSynths -o report.html
    python -m tools.report results/A results/B -o report.html --audit audit/audit.json --latex tables
    python -m tools.report results/A/my_set -o report.html --model_path A.pth --dataroot my_set --images 6

A folder is results/NAME/PROTOCOL, or results/NAME for every protocol in it.  The page holds everything in one
file and needs no network.  With --model_path the calibration of the weights is applied, and with --dataroot
the highest-scored reals and the lowest-scored fakes are shown.
Results: the page, and with --latex each table as .tex (booktabs) and .csv (fractions).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # also when started by its path
    import util.quiet  # noqa: F401

from html import escape

from common import Parser, UserError, file_path, positive_int, probability, written_whole
from data import published
from networks import checkpoint
from options.test_options import NO_COMPARISON
from tools import audit
from tools.report import drawings, evaluation
from tools.report.style import STYLE
from tools.visualize.robustness import note_of
from util import run, tables
from util.identity import read_side_file
from util.results import folders_of

SHOWN = 20  # bad files in the list of a page
AUDITED = ("verdict", "generators", "features", "view", "dataroot")  # keys of audit.json


def main(argv=None):
    """Reads the results, writes the page and with --latex the tables."""
    opt = parse(argv)
    output = Path(opt.output)
    require_free(opt, output)
    audited = read_side_file(Path(opt.audit), "run tools.audit again", AUDITED) if opt.audit else None
    folders = [folder for path in opt.results for folder in folders_of(path)]
    models = {loaded.sha256: loaded for loaded in map(checkpoint.load, opt.model_path)}
    method = opt.published
    if method and method.lower() != NO_COMPARISON:
        method = published.method_named(method, [folder.resolve().name for folder in folders])
    found = [evaluation.read(folder, models, method, opt.threshold) for folder in dict.fromkeys(folders)]
    if unused := models.keys() - {one.meta["checkpoint_sha256"] for one in found}:
        names = ", ".join(models[digest].path for digest in unused)
        raise UserError(f"--model_path {names}: not the weights of these results")
    page = whole_page(found, audited, models, opt)
    with written_whole(output) as file:
        file.write(page)
    print(f"-> {output}")
    if opt.latex:
        for one in found:
            for slug, _, rows, columns in evaluation.all_tables(one):
                tables.write_latex(Path(opt.latex), f"{one.slug}-{slug}", rows, columns)
        print(f"-> {opt.latex}")


def parse(argv):
    """The command line."""
    parser = Parser(prog="python -m tools.report", description="Writes a page about evaluations.")
    add = parser.add_argument
    add("results", nargs="+", type=file_path, help="results folders")
    add("-o", "--output", type=file_path, required=True, help="page to write, .html")
    add("--overwrite", action="store_true", help="replace the page and the tables")
    add("--audit", type=file_path, help="audit.json of tools.audit --output")
    weights = "weights of the results"
    add("--model_path", nargs="+", type=checkpoint.named_or_path, default=(), metavar="FILE", help=weights)
    add("--dataroot", type=file_path, help="folder of the images, as for val.py or test.py: shows some")
    add("--images", type=positive_int, default=4, help="most wrong images to show, of each class")
    method = "whose published numbers to compare, or none; default: those that test.py printed last, else NPR"
    add("--published", metavar="METHOD", help=method)
    threshold = (
        "score above which an image is called fake; default: that of the tables printed last, else 0.5"
    )
    add("--threshold", type=probability, help=threshold)
    add("--latex", type=file_path, help="folder for each table as .tex and .csv")
    opt = parser.parse_args(argv)
    if opt.dataroot and not opt.model_path:
        parser.error("--dataroot shows images as the weights see them: it needs --model_path")
    return opt


def require_free(opt, output):
    """UserError where an output is in the way."""
    if output.is_dir():
        raise UserError(f"{output} is a folder; --output names a page such as report.html")
    if output.exists() and not opt.overwrite:
        raise UserError(f"{output} exists; --overwrite replaces it")
    if opt.latex and not opt.overwrite and any(Path(opt.latex).glob("*.tex")):
        raise UserError(f"{opt.latex} holds tables already; --overwrite replaces them")
    if opt.dataroot and not Path(opt.dataroot).is_dir():
        raise UserError(f"no folder {opt.dataroot}")


# ----- the page -----


def whole_page(evaluations, audited, models, opt):
    """The page as HTML."""
    several = len(evaluations) > 1
    title = f"Report: {len(evaluations)} evaluations" if several else f"Report: {evaluations[0].title}"
    parts = [f"<h1>{escape(title)}</h1>", "<h2>Verdict</h2>"]
    for one in evaluations:
        name = f"<strong>{escape(one.title)}.</strong> " if several else ""
        parts.append(paragraph(" ".join(evaluation.verdict(one)), name))
    if audited:
        parts.append(paragraph(f"Audit of the files: {audited['verdict']}"))
    if several:
        parts.append(table("All evaluations, means over generators", *evaluation.overview(evaluations)))
    parts += robustness(evaluations)
    for one in evaluations:
        parts += section(one, models.get(one.meta["checkpoint_sha256"]), opt)
    if audited:
        parts += audit_section(audited)
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def robustness(evaluations):
    """A figure per protocol and family of views."""
    groups = {}
    for one in evaluations:
        groups.setdefault(one.meta["protocol"], []).append(one)
    figures = [figure(*drawn) for group in groups.items() for drawn in drawings.robustness(*group)]
    note = paragraph(f"{note_of([one.threshold for one in evaluations])}.", kind="note")
    return ["<h2>Robustness</h2>", note, box(figures)] if figures else []


def section(one, loaded, opt):
    """Tables, figures, images and the making of an evaluation."""
    parts = [f'<h2 id="{escape(one.slug)}">{escape(one.title)}</h2>', "<h3>Tables</h3>"]
    parts += [table(caption, rows, columns) for _, caption, rows, columns in evaluation.all_tables(one)]
    parts += [paragraph(note, kind="note") for note in one.notes]
    parts += ["<h3>Curves</h3>", box(figure(*drawn) for drawn in drawings.curves(one))]
    if opt.dataroot and loaded:
        shown, notices = drawings.most_wrong(one, loaded, opt.dataroot, opt.images)
        parts.append("<h3>Highest-scored reals, lowest-scored fakes</h3>")
        notices.insert(0, "The pixels that the detector gets; of large images the centre.")
        parts += [paragraph(notice, kind="note") for notice in notices]
        parts.append(box(thumbnails(*image) for image in shown))
    return [*parts, "<h3>How it was made</h3>", made(one)]


def made(one):
    """Command, commit, weights, protocol, input, counts and bad files, of meta.json."""
    meta, environment, bad = one.meta, one.meta.get("environment", {}), {}
    for record in (meta, *meta.get("views", {}).values()):
        bad |= record["bad_files"]
    source = meta.get("protocol_row", {}).get("source")
    facts = {
        "command": environment.get("argv"),
        "time": environment.get("time"),
        "commit": environment.get("git"),
        "weights": f"{meta['checkpoint']} (sha256 {meta['checkpoint_sha256']})",
        "detector": meta.get("arch"),
        "protocol": f"{meta['protocol']}: {source}" if source else meta["protocol"],
        "input": meta.get("input"),
        "precision": meta.get("precision"),
        "views": ", ".join(f"{view.name} ({view.chain})" for view in one.rows if view.steps),
        "finished": f"{len(meta['finished'])} of {len(meta['counts'])} generators",
        "images (real+fake)": ", ".join(f"{name} {r:,}+{f:,}" for name, (r, f) in meta["counts"].items()),
        "bad files": "; ".join([f"{len(bad)} left out", *map(": ".join, list(bad.items())[:SHOWN])]),
    }
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(str(fact))}</dd>" for name, fact in facts.items() if fact]
    return f"<dl>{''.join(lines)}</dl>"


def audit_section(audited):
    """The audit of file headers."""
    text = "AUC of real against fake from file headers; below 0.85 healthy, above 0.95 a leak"
    drawn = drawings.svg(audit.draw(audited["generators"]))
    return [
        "<h2>Audit of the files</h2>",
        paragraph(f"{audited['verdict']} Files: {audited['dataroot']}, view {audited['view']}."),
        table("File headers by generator", audited["generators"], audit.GENERATORS),
        table("File headers by feature, all files", audited["features"], audit.FEATURES),
        box([figure("audit", text, drawn)]),
    ]


def paragraph(text, before="", kind=""):
    """A paragraph of plain text; no line breaks before a percent sign."""
    return f'<p class="{kind}">{before}{escape(text).replace(" %", "&nbsp;%")}</p>'


def table(caption, rows, columns):
    """A table that scrolls inside its own box; the first cell of a row is its heading."""
    lines, sides = tables.as_text(rows, columns)
    head, *body = [[escape(cell) for cell in line] for line in lines]
    heads = "".join(
        f'<th scope="col" class="{side}">{cell}</th>' for side, cell in zip(sides, head, strict=True)
    )
    drawn = []
    for first, *cells in body:
        row = "".join(f'<td class="{side}">{cell}</td>' for side, cell in zip(sides[1:], cells, strict=True))
        drawn.append(f'<tr><th scope="row" class="l">{first}</th>{row}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{escape(caption)}</span></caption><thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{chr(10).join(drawn)}</tbody></table></div>"
    )


def figure(name, text, source):
    """A picture with its caption."""
    image = f'<img src="{source}" alt="{escape(name)}: {escape(text)}">'
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


def thumbnails(title, pictures):
    """An image and its maps next to each other."""
    images = "".join(f'<img src="{source}" alt="{escape(name)}">' for name, source in pictures)
    names = " | ".join(name for name, _ in pictures)
    text = f"{escape(title)}<br>{escape(names)}"
    return f'<figure class="strip"><div>{images}</div><figcaption>{text}</figcaption></figure>'


def box(figures):
    """Figures in as many columns as the page is wide."""
    return f'<div class="figures">{"".join(figures)}</div>'


if __name__ == "__main__":
    run.guard(main)
