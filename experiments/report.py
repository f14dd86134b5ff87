"""What an experiment says: its tables, verdicts and answers, in words and numbers, from results.csv only."""

import math
from dataclasses import asdict
from pathlib import Path

from common import UserError, written_whole
from data import protocols
from experiments import figures
from experiments.cells import run_command
from experiments.results import Sweep, pandas
from util import stats
from util.results import read_scores
from util.tables import count, markdown, percent

SPREAD = ("mean", "std", "low", "high")
EXAMPLES = 6  # images and variants in the picture of Grad-CAM
COARSE, PUBLISHED = 0.25, 0.5  # the two factors that the first question compares
FAMILIES = {"gan": "GANs", "diffusion": "diffusion models"}
QUESTIONS = (
    "Does factor 0.25 catch other artifacts than 0.5?",
    "Are traces of GANs and of diffusion models visible at different scales?",
    "Does fusing scales generalise better than one scale?",
)


def conclude(experiment):
    """Draws the figures of an experiment, writes its report and prints table and verdicts."""
    folder, grid = experiment.folder, experiment.grid
    sweep = Sweep.read(folder / "results.csv")
    if not sweep.finished:
        raise UserError(f"no cell finished; first: {sweep.failed[0]['error']}")
    reference, notes = sweep.reference, []
    if reference != grid.reference:
        notes = [f"No cell of the reference {grid.reference} is finished: compared with {reference}."]
    families = families_of(experiment.testing.protocol_file)
    comparisons = stats.compare(sweep.values("acc"), reference)
    suffix = f".{experiment.opt.figures}"
    drawn = figures.draw_all(sweep, families, comparisons, folder / "figures", suffix)
    drawn += draw_examples(experiment, sweep)
    print(write_report(folder, sweep, reference, families, grid.question, drawn, notes))
    print(f"-> {folder} (results.csv, report.md, table.csv, figures/)")


def draw_examples(experiment, sweep):
    """NPR maps of a test image, Grad-CAM of a cell per variant; returns the paths of what could be drawn."""
    cells = {row["variant"]: row["cell"] for row in reversed(sweep.finished)}  # the first of each variant
    slug = next(iter(sweep.protocols), "")
    scores = experiment.tests / sweep.finished[0]["cell"] / slug / "scores.csv"
    if slug not in experiment.test_roots or not scores.is_file():
        print("no pictures of test images: images or scores no longer exist")
        return []
    root = experiment.test_roots[slug].resolve()
    first = {row[1:3]: root / row[0] for row in reversed(read_scores(scores))}  # of each generator and label
    reals, fakes = ([path for (_, label), path in first.items() if label == wanted] for wanted in (0, 1))
    images = [*reals[:1], *fakes][:EXAMPLES]
    runs = experiment.runs.resolve()
    models = [experiment.grid.weights(cells[variant], runs) for variant in sweep.variants[:EXAMPLES]]
    commands = {
        "npr_maps": ["maps", "--image", images[-1]],
        "grad_cam": ["cam", "--model_path", *models, "--images", *images],
    }
    drawn = []
    for name, words in commands.items():
        path = experiment.folder / "figures" / f"{name}.{experiment.opt.figures}"
        command = ["-m", "tools.visualize", *words, "--output", path.resolve()]
        done = run_command(command, capture_output=True, text=True)
        if done.returncode == 0:
            drawn.append(path)
        else:
            print(f"no {path.name}: {(done.stderr.splitlines() or ['no output'])[-1]}")
    return drawn


def families_of(protocol_file=None):
    """{(protocol, generator): family} of all protocols, and of those in a YAML file."""
    rows = protocols.known(protocol_file).values()
    return {(row.slug, generator.name): generator.family for row in rows for generator in row.generators}


def summary(sweep, metric="acc"):
    """A row per variant: description, parameters, epochs, and a stats.Summary (fractions).

    The generators are those that every cell has.  Further columns are the mean of each protocol, where there
    are several.
    """
    rows = {}
    for variant, frame in common(sweep.values(metric)).items():
        cell = next(row for row in sweep.finished if row["variant"] == variant)
        facts = {name: int(cell[name]) for name in ("parameters", "epochs")}
        rows[variant] = {"description": cell["description"], **facts, **asdict(stats.summarise(frame))}
        protocols = frame.columns.unique(0) if len(sweep.protocols) > 1 else []
        rows[variant] |= {name: stats.summarise(frame[name]).mean for name in protocols}
    return _table_of(rows)


def _table_of(rows):
    return pandas().DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def common(values):
    """The values of the generators that have one in every cell, so that means are of the same generators."""
    values = {variant: frame.dropna(how="all") for variant, frame in values.items()}
    complete = list(pandas().concat(values.values()).dropna(axis=1).columns)
    return {variant: frame[complete] for variant, frame in values.items()}


def by_family(sweep, families, metric="acc"):
    """Mean of each variant over the generators of each family (fractions): a row per variant."""
    rows = {}
    for variant, frame in common(sweep.values(metric)).items():
        groups = figures.split_by_family(frame, families)
        rows[variant] = {family: stats.summarise(group).mean for family, group in groups.items()}
    return _table_of(rows)


def verdicts(sweep, reference, metric="acc"):
    """A sentence per variant other than the reference."""
    name = {"acc": "accuracy", "ap": "AP"}.get(metric, metric)
    comparisons = stats.compare(sweep.values(metric), reference)
    return [f"{name}, {stats.sentence(comparison)}" for comparison in comparisons]


def answers(sweep, families, reference, metric="acc"):
    """[(question, sentences)] for QUESTIONS; what these cells cannot answer says what is missing.

    Only variants that differ from the reference in factor and fusion count: a variant with attention and
    several scales says nothing about the scales.
    """
    settings, factors, values = sweep.settings, sweep.factors, sweep.values(metric)
    values = {name: values[name] for name in values if settings[name] == settings[reference]}
    single = {name: values[name] for name in values if len(factors[name]) == 1}
    fused = {name: values[name] for name in values if len(factors[name]) > 1}
    # Of several variants with the same factor the first counts.
    of_factor = {factors[name][0]: single[name] for name in reversed(single)}
    sentences = _other_artifacts(of_factor), _families_apart(of_factor, families), _fusion(single, fused)
    return list(zip(QUESTIONS, sentences, strict=True))


def _other_artifacts(of_factor):
    if not {COARSE, PUBLISHED} <= of_factor.keys():
        return [f"Not answered: needs a variant of factor {COARSE} and one of {PUBLISHED}."]
    pair = of_factor[COARSE], of_factor[PUBLISHED]
    p, careful = stats.profile(*pair)
    if math.isnan(p):
        return ["Not answered: needs two common seeds of both factors and two generators."]
    apart = stats.paired(*pair).mean().sort_values()
    ends = [f"{_points(apart.iloc[end])} points on {'/'.join(apart.index[end])}" for end in (0, -1)]
    return [
        f"{_verdict(p, careful)} (generator x factor: p = {p:.3g}, {careful:.3g} if errors are shared).",
        f"{COARSE} minus {PUBLISHED} runs from {ends[0]} to {ends[1]}.",
    ]


def _verdict(p_generators, p_seeds):
    """A verdict from two p-values: with generators taken as independent, and over seeds only."""
    if p_generators >= stats.ALPHA:
        return "Within noise"
    return "Yes" if p_seeds < stats.ALPHA else "Within noise of the seeds"


def _points(fraction):
    return f"{100 * fraction:+z.1f}"


def _families_apart(of_factor, families):
    others = [factor for factor in sorted(of_factor) if factor != PUBLISHED]
    if PUBLISHED not in of_factor or not others:
        return [f"Not answered: needs a variant of factor {PUBLISHED} and one of another factor."]
    return [_apart(factor, of_factor, families, len(others)) for factor in others]


def _apart(factor, of_factor, families, comparisons):
    """The answer for one factor against the published one."""
    apart = stats.paired(of_factor[factor], of_factor[PUBLISHED])
    names = [families.get(generator) for generator in apart.columns]
    groups = [apart.loc[:, [name == family for name in names]] for family in FAMILIES]
    gans, diffusion = (
        f"{group.shape[1]} {name}" for group, name in zip(groups, FAMILIES.values(), strict=True)
    )
    if len(apart) < 2 or min(group.shape[1] for group in groups) < 2:
        return (
            f"Not answered for {factor}: needs two seeds and two generators of each family that it and "
            f"{PUBLISHED} have in common; there are {len(apart)} seeds, {gans} and {diffusion}."
        )
    changes = [float(group.mean().mean()) for group in groups]
    ps = stats.between_groups(*(group.mean() for group in groups)), stats.over_seeds(*groups)
    ps = [min(1.0, p * comparisons) for p in ps]  # Bonferroni
    corrected = "" if comparisons == 1 else f", corrected for {comparisons} comparisons"
    return (
        f"{_verdict(*ps)}; {factor} against {PUBLISHED} gives {_points(changes[0])} points on {gans}, "
        f"{_points(changes[1])} points on {diffusion} (difference {_points(changes[0] - changes[1])}, "
        f"p = {ps[0]:.3g} over generators, {ps[1]:.3g} over seeds{corrected})."
    )


FUSION_ANSWERS = {  # by the verdict that all comparisons have
    "better": "Yes: {} is better than every single scale.",
    "worse": "No: {} is worse than every single scale.",
    "within noise": "Within noise: {} is not surely better or worse than a single scale.",
}


def _fusion(single, fused):
    if not fused or not single:
        return ["Not answered: needs a variant with several factors and one with a single factor."]
    lines = []
    for name, values in fused.items():
        comparisons = stats.compare_pairs({**single, name: values}, [(name, other) for other in single])
        verdicts = sorted({comparison.verdict for comparison in comparisons})
        if len(verdicts) > 1:
            lines.append(f"In part: {name} against single scales is {' or '.join(verdicts)}.")
        elif verdicts[0] in FUSION_ANSWERS:
            lines.append(FUSION_ANSWERS[verdicts[0]].format(name))
        else:
            lines.append(f"Not answered for {name}: {verdicts[0]}.")
        lines += [f"{stats.sentence(comparison)}." for comparison in comparisons]
    return lines


def write_report(folder, sweep, reference, families, question="", drawn=(), notes=()):
    """Writes report.md and table.csv (fractions) into a folder; returns the table and verdicts as text.

    drawn: paths of figures below the folder; notes: sentences above the table.
    """
    folder = Path(folder)
    accuracy, precision = (summary(sweep, metric) for metric in ("acc", "ap"))
    columns = accuracy.rename(columns={name: f"acc_{name}" for name in SPREAD})
    columns = columns.join(precision[[*SPREAD]].add_prefix("ap_"))
    columns.to_csv(folder / "table.csv", lineterminator="\n")
    table = _table(accuracy, precision, [name for name in accuracy.columns if name in sweep.protocols])
    sentences = [*verdicts(sweep, reference), *verdicts(sweep, reference, "ap")]
    caption = _caption(sweep, accuracy["generators"].iloc[0])
    parts = [f"# {question or 'Experiment'}", *notes, table, caption, f"## Against {reference}"]
    parts += [_bullets(sentences) or "There is only one variant.", "## Means per family, accuracy %"]
    means = by_family(sweep, families)
    rows = [[name, *map(percent, row)] for name, row in means.iterrows()]
    parts += [markdown([["variant", *means.columns], *rows]), "## Questions"]
    for title, answer in answers(sweep, families, reference):
        parts += [f"**{title}**", _bullets(answer)]
    if sweep.failed:
        parts += ["## Failed cells", _bullets(f"{row['cell']}: {row['error']}" for row in sweep.failed)]
    links = [f"[{path.stem}]({path.relative_to(folder).as_posix()})" for path in map(Path, drawn)]
    # Only pictures are shown inside a text.
    parts.append("\n".join(link if link.endswith(".pdf)") else f"!{link}" for link in links))
    with written_whole(folder / "report.md") as file:
        file.write("\n\n".join(parts).rstrip() + "\n")
    return "\n".join(["", *notes, table, "", *sentences])


def _bullets(sentences):
    return "\n".join(f"* {text}" for text in sentences)


def _table(accuracy, precision, protocols):
    lines = [["variant", "acc %", "AP %", *protocols, "seeds", "parameters", "what it is"]]
    for variant, row in accuracy.iterrows():
        means = [percent(row[name]) for name in protocols]
        facts = [str(row["seeds"]), count(row["parameters"]), row["description"]]
        lines.append([variant, _spread(row), _spread(precision.loc[variant]), *means, *facts])
    return markdown(lines)


def _caption(sweep, generators):
    epochs = sorted({int(row["epochs"]) for row in sweep.finished})
    return (
        "Mean over generators ± standard deviation over seeds [95 % interval from resampled seeds and "
        f"generators; too short with fewer than about five seeds]; the {generators} of {len(sweep.columns)} "
        f"generators of {', '.join(sweep.protocols)} that every cell has; "
        f"epochs: {' or '.join(map(str, epochs))}."
    )


def _spread(row):
    """'92.4 ± 0.3 [91.8, 93.0]', as far as there are numbers."""
    mean, std, low, high = (100 * row[name] for name in SPREAD)
    spread = "" if math.isnan(std) else f" ± {std:.1f}"
    interval = "" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return f"{mean:.1f}{spread}{interval}"
