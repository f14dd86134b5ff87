"""Every table that is printed or written: fixed width on the terminal, Markdown, LaTeX and CSV in files.

Numbers become percent with one decimal, except in CSV, which keeps fractions at full precision.
"""

import csv
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import written_whole

LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX = str.maketrans(LATEX | {"<": r"\textless{}", ">": r"\textgreater{}"})


def fixed_width(lines, align="", summary=False):
    """A table for the terminal: lines of cells, the heading first.

    align: "l" or "r" per column; default: the first column left, all others right.
    summary: a rule sets the last line off, as a mean or a total.
    """
    heading, *body = ["  ".join(line).rstrip() for line in _padded(lines, align)]
    rule = "-" * max(map(len, [heading, *body]))
    if summary and len(body) > 1:
        body.insert(-1, rule)
    return "\n".join([heading, rule, *body])


def markdown(lines, align="", padded=False):
    """The same table as Markdown; padded: its columns line up in the source, too."""
    heading, *body = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    marks = [":--" if side == "l" else "--:" for side in _sides(heading, align)]
    if padded:
        heading, *body = _padded([heading, *body], align)
        marks = [mark.replace("--", "-" * (len(cell) - 1)) for mark, cell in zip(marks, heading, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, marks, *body))


def _sides(heading, align):
    return align or "l" + "r" * (len(heading) - 1)


def _padded(lines, align):
    """The cells of each line, filled with spaces to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    fill = [str.ljust if side == "l" else str.rjust for side in _sides(lines[0], align)]
    return [[pad(cell, width) for pad, cell, width in zip(fill, line, widths, strict=True)] for line in lines]


def percent(value):
    """0.924 -> '92.4'; NaN -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def points(value):
    """A difference in percentage points: 0.031 -> '+3.1'; NaN -> '-'."""
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def ratio(value):
    """0.1234 -> '0.123'; NaN -> '-'."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def p_value(p):
    """0.0421 -> '0.042', 0.3 -> '0.30', 0.0002 -> '<0.001'; NaN -> '-'."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value):
    """1234 -> '1,234'."""
    return f"{value:,}"


@dataclass(frozen=True)
class Column:
    """A column of a table of results."""

    heading: str
    cell: Callable = percent  # writes a value; None is left empty
    side: str = "r"


RESULTS = {
    "generator": Column("generator", str, "l"),
    "acc": Column("acc %"),
    "acc_low": Column("low"),
    "acc_high": Column("high"),
    "cal_acc": Column("cal. acc"),
    "bal_acc": Column("bal. acc"),
    "bal_acc_low": Column("low"),
    "bal_acc_high": Column("high"),
    "cal_bal_acc": Column("cal. bal."),
    "bal_acc_drop": Column("change", points),
    "ap": Column("AP %"),
    "ap_low": Column("low"),
    "ap_high": Column("high"),
    "ap_drop": Column("change", points),
    "r_acc": Column("real %"),
    "r_acc_low": Column("low"),
    "r_acc_high": Column("high"),
    "f_acc": Column("fake %"),
    "f_acc_low": Column("low"),
    "f_acc_high": Column("high"),
    "fpr": Column("FPR %"),
    "auc": Column("AUC %"),
    "auc_low": Column("low"),
    "auc_high": Column("high"),
    "tpr1": Column("TPR@1%"),
    "tpr5": Column("TPR@5%"),
    "tpr10": Column("TPR@10%"),
    "fpr95": Column("FPR@95%"),
    "eer": Column("EER %"),
    "brier": Column("Brier", ratio),
    "cal_brier": Column("cal.", ratio),
    "nll": Column("NLL", ratio),
    "cal_nll": Column("cal.", ratio),
    "ece": Column("ECE %"),
    "cal_ece": Column("cal."),
    "ece_bal": Column("bal. ECE"),
    "cal_ece_bal": Column("cal."),
    "oracle": Column("oracle"),
    "images": Column("images", count),
    "published_acc": Column("pub. acc"),
    "diff_acc": Column("diff", points),
    "published_ap": Column("pub. AP"),
    "diff_ap": Column("diff", points),
    "reason": Column("note", str, "l"),
}
# Columns that every table.csv has; others only where a row has them.
ALWAYS = "generator acc ap r_acc f_acc auc images published_acc diff_acc published_ap diff_ap reason".split()


def text(rows, columns):
    """Rows of numbers, without a mean, as a table for the terminal."""
    return fixed_width(*as_text(rows, columns))


def results(rows, columns=RESULTS):
    """Rows of numbers, the last of them the mean, as a table for the terminal."""
    return fixed_width(*as_text(rows, columns), summary=True)


def results_markdown(rows, columns=RESULTS):
    """The same table as Markdown."""
    return markdown(*as_text(rows, columns))


def as_text(rows, columns=RESULTS):
    """(lines of cells, alignment) of rows of numbers; a column without content is left out."""
    filled = {name for row in rows for name, value in row.items() if value not in (None, "")}
    shown = {name: column for name, column in columns.items() if name in filled}
    lines = [[column.heading for column in shown.values()]]
    for row in rows:
        values = [(column, row.get(name)) for name, column in shown.items()]
        lines.append(["" if value is None else column.cell(value) for column, value in values])
    return lines, "".join(column.side for column in shown.values())


def write_csv(path, rows, columns=RESULTS):
    """All columns, also those without content; values as they are."""
    with written_whole(path) as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_latex(folder, name, rows, columns=RESULTS):
    """<name>.tex in percent and <name>.csv with fractions, for papers."""
    with written_whole(folder / f"{name}.tex") as file:
        file.write(latex(*as_text(rows, columns)))
    write_csv(folder / f"{name}.csv", rows, columns)


def latex(lines, sides):
    """A table for LaTeX's package booktabs; a minus before a digit becomes a minus sign."""
    cells = [[re.sub(r"^-(?=\d)", "$-$", cell.translate(LATEX)) for cell in line] for line in lines]
    head, *body = [" & ".join(line) + r" \\" for line in cells]
    begin, end = rf"\begin{{tabular}}{{{sides}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end]) + "\n"


def write_results(folder, rows, caption, name_of=str):
    """table.csv and table.md, with the caption, in a results folder; returns the table for the terminal.

    name_of: what the files are called instead.
    """
    named = set(ALWAYS).union(*rows)
    write_csv(Path(folder) / name_of("table.csv"), rows, [name for name in RESULTS if name in named])
    with written_whole(Path(folder) / name_of("table.md")) as file:
        file.write("\n\n".join([results_markdown(rows), *caption.splitlines()]) + "\n")
    return results(rows)
