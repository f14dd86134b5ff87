"""Tables for people: fixed width on the terminal, Markdown and CSV in files.

Percent with one decimal, except in CSV, which keeps fractions at full precision.
"""

import csv
import math
from pathlib import Path

HEADINGS = {
    "generator": "generator",
    "acc": "acc %",
    "ap": "AP %",
    "r_acc": "real %",
    "f_acc": "fake %",
    "auc": "AUC %",
    "images": "images",
    "published_acc": "pub. acc",
    "diff_acc": "diff",
    "published_ap": "pub. AP",
    "diff_ap": "diff",
    "reason": "note",
}
COUNTS = ("images", "gained", "lost")  # columns of whole numbers


def cells(rows, headings=HEADINGS):
    """Rows of numbers -> rows of text, heading first; a column without content is left out."""
    columns = [name for name in headings if any(row.get(name) not in (None, "") for row in rows)]
    text = [[headings[name] for name in columns]]
    return text + [[_spell(name, row.get(name)) for name in columns] for row in rows]


def fixed_width(rows, headings=HEADINGS):
    """A table for the terminal, the last row (the mean) set off by a rule."""
    text = cells(rows, headings)
    widths = [max(len(line[column]) for line in text) for column in range(len(text[0]))]
    left = {column for column, heading in enumerate(text[0]) if heading in ("generator", "note")}
    lines = [
        "  ".join(
            word.ljust(width) if column in left else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in text
    ]
    rule = "-" * max(len(line) for line in lines)
    body = [*lines[1:-1], rule] if lines[1:-1] else []
    return "\n".join([lines[0], rule, *body, lines[-1]])


def markdown(rows, headings=HEADINGS):
    """The same table for a README or an issue."""
    heading, *body = cells(rows, headings)
    align = [":--" if name in ("generator", "note") else "--:" for name in heading]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in [heading, align, *body]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_tables(folder, rows, caption):
    """table.csv (fractions, full precision) and table.md (percent, with the caption) in a results folder."""
    folder = Path(folder)
    with open(folder / "table.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(
            file, ["generator", *(name for name in HEADINGS if name != "generator")], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    paragraphs = "\n\n".join([markdown(rows), *caption.splitlines()])
    (folder / "table.md").write_text(f"{paragraphs}\n", encoding="utf-8", errors="surrogateescape")


def _spell(name, value):
    if value is None:
        return ""
    if name in ("generator", "reason"):
        return str(value)
    if name in COUNTS:
        return f"{value:,}"
    if name.startswith("diff_"):
        return f"{100 * value:+.1f}"
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
