"""What an experiment says: its tables, verdicts and answers, in words and numbers, from results.csv alone."""

from pathlib import Path

import pandas as pd

from util.stats import ALPHA, between_groups, compare, interaction, sentence, summarise

COARSE, PUBLISHED = 0.25, 0.5  # the two factors that the first question compares
QUESTIONS = (
    "Does factor 0.25 catch other artifacts than 0.5?",
    "Are traces of GANs and of diffusion models visible at different scales?",
    "Does fusing scales generalise better than one scale?",
)


def summary(sweep, metric="acc"):
    """A row per variant: description, parameters, seeds, mean, std over seeds, interval (fractions).

    Columns beside these are the mean of each protocol, where there are several.
    """
    several = sweep.protocols if len(sweep.protocols) > 1 else []
    rows = {}
    for variant, frame in sweep.values(metric).items():
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
            **{protocol: summarise(frame.xs(protocol, axis=1, level=0)).mean for protocol in several
               if protocol in frame.columns.get_level_values(0)},
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def by_family(sweep, families, metric="acc"):
    """Mean of each variant over the generators of each family (fractions): a row per variant."""
    rows = {}
    for variant, frame in sweep.values(metric).items():
        kinds = frame.columns.map(lambda pair: families.get(pair) or "unknown")
        rows[variant] = {kind: summarise(frame.loc[:, kinds == kind]).mean for kind in dict.fromkeys(kinds)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("variant")


def verdicts(sweep, reference, metric="acc"):
    """A sentence per variant other than the reference."""
    name = {"acc": "accuracy", "ap": "AP"}.get(metric, metric)
    return [f"{name}, {sentence(one)}" for one in compare(sweep.values(metric), reference)]


def answers(sweep, families, metric="acc"):
    """[(question, sentences)] for QUESTIONS; one that these cells cannot answer says what is missing."""
    values, factors = sweep.values(metric), sweep.factors()
    single = {name: values[name] for name in values if len(factors[name]) == 1}
    fused = [name for name in values if len(factors[name]) > 1]
    of_factor = {factors[name][0]: name for name in reversed(single)}  # the first variant of a factor counts
    told = (
        _other_artifacts(values, of_factor),
        _families_apart(values, of_factor, families),
        _fusion(values, single, fused),
    )
    return list(zip(QUESTIONS, told, strict=True))


def _other_artifacts(values, of_factor):
    if not {COARSE, PUBLISHED} <= of_factor.keys():
        return [f"Not answered: needs a variant of factor {COARSE} and one of {PUBLISHED}."]
    pair = {of_factor[factor]: values[of_factor[factor]] for factor in (COARSE, PUBLISHED)}
    apart = _per_generator(*pair.values()).sort_values()
    p = interaction(pair)
    if pd.isna(p):
        return ["Not answered: needs two seeds of both factors and two generators."]
    verdict = (
        "Yes: what each gains and loses depends on the generator beyond the noise of the seeds"
        if p < ALPHA
        else "Within noise: the two profiles over the generators do not differ more than seeds do"
    )
    ends = [f"{100 * apart.iloc[place]:+.1f} points on {'/'.join(apart.index[place])}" for place in (0, -1)]
    return [
        f"{verdict} (generator x factor interaction p = {p:.3g}).",
        f"{COARSE} minus {PUBLISHED} runs from {ends[0]} to {ends[1]}.",
    ]


def _families_apart(values, of_factor, families):
    others = [factor for factor in sorted(of_factor) if factor != PUBLISHED]
    if PUBLISHED not in of_factor or not others:
        return [f"Not answered: needs a variant of factor {PUBLISHED} and one of another factor."]
    told = []
    for factor in others:
        apart = _per_generator(values[of_factor[factor]], values[of_factor[PUBLISHED]])
        groups = [
            apart[[families.get(pair) == kind for pair in apart.index]] for kind in ("gan", "diffusion")
        ]
        if min(map(len, groups)) < 2:
            counts = " and ".join(f"{len(group)} {kind}" for group, kind in
                                  zip(groups, ("GANs", "diffusion models"), strict=True))  # fmt: skip
            return [f"Not answered: needs at least two generators of each family, tested were {counts}."]
        difference, p = between_groups(*groups)
        verdict = "Yes" if p * len(others) < ALPHA else "Within noise"
        changes = [f"{100 * group.mean():+.1f} points on {len(group)}" for group in groups]
        change = f"{changes[0]} GANs, {changes[1]} diffusion models (difference {100 * difference:+.1f}"
        told.append(
            f"{verdict}: {factor} against {PUBLISHED} gives {change}, Welch p = "
            f"{min(1.0, p * len(others)):.3g}, corrected for {len(others)} comparisons)."
        )
    return told


def _fusion(values, single, fused):
    if not fused or not single:
        return ["Not answered: needs a variant with several factors and one with a single factor."]
    told = []
    for name in fused:
        found = compare({**single, name: values[name]}, name)  # each single scale minus the fused one
        better = [one.variant for one in found if one.verdict == "worse"]
        worse = [one.variant for one in found if one.verdict == "better"]
        parts = [f"better than {', '.join(better)}"] if better else []
        parts += [f"worse than {', '.join(worse)}"] if worse else []
        undecided = [one.variant for one in found if one.variant not in (*better, *worse)]
        parts += [f"within noise of {', '.join(undecided)}"] if undecided else []
        told.append(f"{name}: {'; '.join(parts)}.")
    return told


def _per_generator(first, second):
    """Mean over common seeds of first minus second: a number per generator that both have."""
    return (first - second).dropna(how="all").mean().dropna()


def write_report(folder, sweep, reference, families, question="", drawn=()):
    """Writes report.md and table.csv (fractions) into a folder; returns the table and verdicts as text."""
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
    asked = [line for title, told in answers(sweep, families) for line in (f"**{title}**", "", *told, "")]
    lines = [
        f"# {question or 'Experiment'}",
        "",
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
    lines += [f"![{Path(path).stem}]({Path(path).relative_to(folder).as_posix()})" for path in drawn]
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return "\n".join(["", table, "", *words])


def _table(tables):
    accuracy, precision = tables["acc"], tables["ap"]
    heads = ["variant", "acc %", "AP %", *accuracy.columns[9:], "seeds", "parameters", "what it is"]
    rows = []
    for name, row in accuracy.iterrows():
        rows.append([name, _spread(row), _spread(precision.loc[name]),
                     *(f"{100 * row[protocol]:.1f}" for protocol in accuracy.columns[9:]),
                     str(row["seeds"]), f"{row['parameters']:,}", row["description"]])  # fmt: skip
    return _markdown(heads, rows)


def _caption(sweep):
    epochs = sorted({int(row["epochs"]) for row in sweep.finished})
    return (
        "Mean over generators ± standard deviation over seeds [95 % interval, seeds and generators drawn "
        f"anew]; {len(sweep.columns)} generators of {', '.join(sweep.protocols)}; "
        f"{' or '.join(map(str, epochs))} epochs."
    )


def _spread(row):
    return (
        f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    )


def _percent(frame):
    rows = [[name, *(f"{100 * value:.1f}" for value in row)] for name, row in
            zip(frame.index, frame.to_numpy(), strict=True)]  # fmt: skip
    return _markdown(["variant", *frame.columns], rows)


def _markdown(heads, rows):
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
