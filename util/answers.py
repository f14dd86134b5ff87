"""What an experiment says: its tables, verdicts and answers, in words and numbers, from results.csv alone."""

from pathlib import Path

import pandas as pd

from util.stats import (
    ALPHA,
    between_groups,
    compare,
    over_seeds,
    paired,
    profile,
    sentence,
    summarise,
    turned,
)

OF_SUMMARY = ("description", "parameters", "epochs", "seeds", "generators", "mean", "std", "low", "high")
COARSE, PUBLISHED = 0.25, 0.5  # the two factors that the first question compares
QUESTIONS = (
    "Does factor 0.25 catch other artifacts than 0.5?",
    "Are traces of GANs and of diffusion models visible at different scales?",
    "Does fusing scales generalise better than one scale?",
)


def summary(sweep, metric="acc"):
    """A row per variant: description, parameters, seeds, mean, std over seeds, interval (fractions).

    The generators are those that every cell has.  Columns beside these are the mean of each protocol, where
    there are several.
    """
    several = sweep.protocols if len(sweep.protocols) > 1 else []
    rows = {}
    for variant, frame in common(sweep.values(metric)).items():
        cell = next(row for row in sweep.finished if row["variant"] == variant)
        one = summarise(frame)
        rows[variant] = {
            "description": cell["description"],
            "parameters": int(cell["parameters"]),
            "epochs": int(cell["epochs"]),
            "seeds": one.seeds,
            "generators": one.generators,
            "mean": one.mean,
            "std": one.std,
            "low": one.low,
            "high": one.high,
            **{
                protocol: summarise(frame.xs(protocol, axis=1, level=0)).mean
                for protocol in several
                if protocol in frame.columns.get_level_values(0)
            },
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def common(values):
    """The values of the generators that have one in every cell, so that means are of the same generators."""
    values = {variant: frame.dropna(how="all") for variant, frame in values.items()}
    whole = [
        pair
        for pair in next(iter(values.values())).columns
        if not any(frame[pair].isna().any() for frame in values.values())
    ]
    return {variant: frame[whole] for variant, frame in values.items()}


def by_family(sweep, families, metric="acc"):
    """Mean of each variant over the generators of each family (fractions): a row per variant."""
    rows = {}
    for variant, frame in common(sweep.values(metric)).items():
        kinds = frame.columns.map(lambda pair: families.get(pair) or "other")
        rows[variant] = {kind: summarise(frame.loc[:, kinds == kind]).mean for kind in dict.fromkeys(kinds)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def verdicts(sweep, reference, metric="acc"):
    """A sentence per variant other than the reference."""
    name = {"acc": "accuracy", "ap": "AP"}.get(metric, metric)
    return [f"{name}, {sentence(one)}" for one in compare(sweep.values(metric), reference)]


def answers(sweep, families, reference, metric="acc"):
    """[(question, sentences)] for QUESTIONS; one that these cells cannot answer says what is missing.

    Only variants that differ from the reference in factor and fusion alone count: one with attention beside
    several scales says nothing about the scales.
    """
    values, factors = alike(sweep, reference, metric), sweep.factors()
    single = {name: values[name] for name in values if len(factors[name]) == 1}
    fused = [name for name in values if len(factors[name]) > 1]
    of_factor = {factors[name][0]: name for name in reversed(single)}  # the first variant of a factor counts
    told = (
        _other_artifacts(values, of_factor),
        _families_apart(values, of_factor, families),
        _fusion(values, single, fused),
    )
    return list(zip(QUESTIONS, told, strict=True))


def alike(sweep, reference, metric="acc"):
    """The values of the variants that are built as the reference but for factor and fusion."""
    settings = sweep.settings()
    return {
        name: frame for name, frame in sweep.values(metric).items() if settings[name] == settings[reference]
    }


def _other_artifacts(values, of_factor):
    if not {COARSE, PUBLISHED} <= of_factor.keys():
        return [f"Not answered: needs a variant of factor {COARSE} and one of {PUBLISHED}."]
    pair = [values[of_factor[factor]] for factor in (COARSE, PUBLISHED)]
    p, careful = profile(*pair)
    if pd.isna(p):
        return ["Not answered: needs two common seeds of both factors and two generators."]
    said = "what each gains and loses depends on the generator"
    verdict = _judge(p, careful, f"Yes: {said}", f"{said.capitalize()} no more than seeds do")
    apart = paired(*pair).mean().sort_values()
    ends = [f"{100 * apart.iloc[place]:+z.1f} points on {'/'.join(apart.index[place])}" for place in (0, -1)]
    return [
        f"{verdict} (generator x factor: p = {p:.3g}, {careful:.3g} if generators share their errors).",
        f"{COARSE} minus {PUBLISHED} runs from {ends[0]} to {ends[1]}.",
    ]


def _judge(bold, careful, yes, no):
    """A verdict from two p-values: one that takes generators as independent, one that rests on seeds."""
    if bold < ALPHA and careful < ALPHA:
        return yes
    return f"Within noise{' of the seeds' if bold < ALPHA else ''}: {no[0].lower()}{no[1:]}"


def _families_apart(values, of_factor, families):
    others = [factor for factor in sorted(of_factor) if factor != PUBLISHED]
    if PUBLISHED not in of_factor or not others:
        return [f"Not answered: needs a variant of factor {PUBLISHED} and one of another factor."]
    told = []
    for factor in others:
        apart = paired(values[of_factor[factor]], values[of_factor[PUBLISHED]])
        if len(apart) < 2:
            told.append(f"Not answered for {factor}: needs two seeds that it and {PUBLISHED} have in common.")
            continue
        kinds = [families.get(generator) for generator in apart.columns]
        groups = [apart.loc[:, [kind == family for kind in kinds]] for family in ("gan", "diffusion")]
        if min(group.shape[1] for group in groups) < 2:
            told.append(
                f"Not answered for {factor}: needs two generators of each family that it and {PUBLISHED} "
                f"have; there are {groups[0].shape[1]} GANs and {groups[1].shape[1]} diffusion models."
            )
            continue
        told.append(_apart(factor, *groups, len(others)))
    return told


def _apart(factor, gans, diffusion, comparisons):
    difference, bold = between_groups(gans.mean(), diffusion.mean())
    ps = [min(1.0, p * comparisons) for p in (bold, over_seeds(gans, diffusion))]  # Bonferroni
    changes = [f"{100 * group.mean().mean():+z.1f} points on {group.shape[1]}" for group in (gans, diffusion)]
    corrected = "" if comparisons == 1 else f", corrected for {comparisons} comparisons"
    return (
        f"{_judge(*ps, 'Yes', 'the families do not differ for sure')}; {factor} against {PUBLISHED} gives "
        f"{changes[0]} GANs, {changes[1]} diffusion models (difference {100 * difference:+z.1f}, p = "
        f"{ps[0]:.3g} over generators, {ps[1]:.3g} over seeds{corrected})."
    )


def _fusion(values, single, fused):
    if not fused or not single:
        return ["Not answered: needs a variant with several factors and one with a single factor."]
    told = []
    for name in fused:
        found = [turned(one) for one in compare({**single, name: values[name]}, name)]
        kinds = {one.verdict for one in found}
        if kinds == {"better"}:
            told.append(f"Yes: {name} is better than every single scale.")
        elif kinds == {"worse"}:
            told.append(f"No: {name} is worse than every single scale.")
        elif kinds & {"better", "worse"}:
            told.append(f"In part: what {name} does depends on the scale it is compared with.")
        elif any("noise" in kind for kind in kinds):
            told.append(f"Within noise: {name} is neither better nor worse than a single scale for sure.")
        else:
            told.append(f"Not answered for {name}: {', '.join(sorted(kinds))}.")
        told += [f"{sentence(one)}." for one in found]
    return told


def write_report(folder, sweep, reference, families, question="", drawn=(), notes=()):
    """Writes report.md and table.csv (fractions) into a folder; returns the table and verdicts as text.

    drawn: paths of figures below the folder; notes: sentences above the table.
    """
    folder = Path(folder)
    tables = {metric: summary(sweep, metric) for metric in ("acc", "ap")}
    both = tables["acc"].join(
        tables["ap"][["mean", "std", "low", "high"]].add_prefix("ap_").rename_axis("variant")
    )
    both.rename(columns={name: f"acc_{name}" for name in ("mean", "std", "low", "high")}).to_csv(
        folder / "table.csv", lineterminator="\n"
    )
    table = _table(tables)
    words = [*verdicts(sweep, reference), *verdicts(sweep, reference, "ap")]
    asked = [
        line
        for title, told in answers(sweep, families, reference)
        for line in (f"**{title}**", "", *(f"* {one}" for one in told), "")
    ]
    lines = [
        f"# {question or 'Experiment'}",
        "",
        *(part for note in notes for part in (note, "")),
        table,
        "",
        _caption(sweep),
        "",
        f"## Against {reference}",
        "",
    ]
    lines += [f"* {word}" for word in words] or ["There is one variant alone."]
    lines += ["", "## Means per family, accuracy %", "", _percent(by_family(sweep, families)), ""]
    lines += ["## Questions", "", *asked]
    if sweep.failed:
        lines += ["## Failed cells", "", *(f"* {row['cell']}: {row['error']}" for row in sweep.failed), ""]
    for path in map(Path, drawn):  # only pictures show inside a text
        mark = "" if path.suffix == ".pdf" else "!"
        lines.append(f"{mark}[{path.stem}]({path.relative_to(folder).as_posix()})")
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return "\n".join(["", *notes, table, "", *words])


def _table(tables):
    accuracy, precision = tables["acc"], tables["ap"]
    protocols = [name for name in accuracy.columns if name not in OF_SUMMARY]
    heads = ["variant", "acc %", "AP %", *protocols, "seeds", "parameters", "what it is"]
    rows = []
    for name, row in accuracy.iterrows():
        rows.append(
            [
                name,
                _spread(row),
                _spread(precision.loc[name]),
                *(f"{100 * row[protocol]:.1f}" for protocol in protocols),
                str(row["seeds"]),
                f"{row['parameters']:,}",
                row["description"],
            ]
        )
    return _markdown(heads, rows)


def _caption(sweep):
    epochs = sorted({int(row["epochs"]) for row in sweep.finished})
    generators = len(next(iter(common(sweep.values()).values())).columns)
    tested = len(sweep.columns)
    missing = "" if generators == tested else f" (of {tested} tested; not every cell has the others)"
    return (
        "Mean over generators ± standard deviation over seeds [95 % interval, seeds and generators drawn "
        f"anew; too short with fewer than about five seeds]; {generators} generators{missing} of "
        f"{', '.join(sweep.protocols)}; {' or '.join(map(str, epochs))} epoch{'s' * (epochs != [1])}."
    )


def _spread(row):
    spread = "" if pd.isna(row["std"]) else f" ± {100 * row['std']:.1f}"
    interval = "" if pd.isna(row["low"]) else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return f"{100 * row['mean']:.1f}{spread}{interval}"


def _percent(frame):
    rows = [
        [name, *(f"{100 * value:.1f}" for value in row)]
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return _markdown(["variant", *frame.columns], rows)


def _markdown(heads, rows):
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
