"""The published figures: legal rows, means that recompute, and what `data.published` makes of them."""

import csv
import math
from pathlib import Path

import pytest

from common import UserError
from data import published

FOLDER = Path(published.__file__).parent
CNN13 = "ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN CRN IMLE SITD SAN Deepfake StyleGAN2 WFIR"
GENERATORS = {
    "ForenSynths": "ProGAN StyleGAN StyleGAN2 BigGAN CycleGAN StarGAN GauGAN Deepfake",
    "CNNDetection-13": CNN13,
    "GANGen-Detection": "AttGAN BEGAN CramerGAN InfoMaxGAN MMDGAN RelGAN S3GAN SNGAN STGAN",
    "DiffusionForensics": "ADM DDPM IDDPM LDM PNDM VQDiffusion SDv1 SDv2",
    "UniversalFakeDetect": "DALLE Glide100_10 Glide100_27 Glide50_27 ADM LDM100 LDM200 LDM200cfg",
    "Diffusion1kStep": "DDPM IDDPM ADM Midjourney DALLE",
    "AIGCDetectBenchmark": "ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN StyleGAN2 WFIR ADM Glide "
    "Midjourney SDv1.4 SDv1.5 VQDM Wukong DALLE2",
    "GenImage-NPR": "ADM BigGAN GLIDE Midjourney SDv1.5 VQDM Wukong",
    "GenImage-SSP": "Midjourney SDv1.4 SDv1.5 ADM GLIDE Wukong VQDM BigGAN",
    "Tiny-GenImage": "ADM BigGAN GLIDE Midjourney SDv1.5 VQDM Wukong",
    "DFIG": "StyleGAN",
    "WildRF": "Facebook Reddit X",
    "AIGIBench": "ProGAN R3GAN StyleGAN3 StyleGAN-XL StyleSwin WFIR BlendFace E4S FaceSwap InSwap SimSwap "
    "DALLE3 FLUX1-dev GLIDE Imagen3 Midjourney-V6 SD3 SDXL BLIP Infinite-ID InstantID IP-Adapter PhotoMaker "
    "CommunityAI SocialRF",
    # Only means are published of these.
    **dict.fromkeys("Synthbuster DRCT-2M DDA-COCO EvalGEN".split(), ""),
    **dict.fromkeys("GenImage-DDA ForenSynths-DDA AIGCDetectBenchmark-DDA".split(), ""),
}
GENERATORS = {slug: names.split() for slug, names in GENERATORS.items()}
KINDS = {"paper", "README", "report", "log", "issue", "re-run"}
METRICS = ("acc", "ap", "r_acc", "f_acc")
COLUMNS = ["protocol", "method", "generator", *METRICS, "average", "kind", "source", "note"]
COLUMNS_AIGC = "CNNSpot FreDect Fusing GramNet LNP LGrad DIRE-G DIRE-D UnivFD RPTCon NPR".split()
MICRO = {"Midjourney": 6000, "SDv1.4": 6000, "SDv1.5": 8000}  # images per class; 6000 for the rest
TRAINED_ON = ["", *(f"-{name}" for name in "MJ SDv1.5 ADM GLIDE Wukong VQDM BigGAN".split())]
SSP = ["SSP" + trained for trained in TRAINED_ON]  # printed averages are over images
BASELINE = ["ResNet50" + trained for trained in TRAINED_ON]  # in the same figure, over generators
SSP_NOT_MACRO = [method for method in SSP if method not in ("SSP-ADM", "SSP-GLIDE")]  # these two fit either
# (protocol, method, metric): (printed, recomputed)
DISCREPANCIES = {}


def raw(name):
    with open(FOLDER / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_method():
    """{(protocol, method): {generator: row}} with the text of the files."""
    tables = {}
    for row in published._rows():
        tables.setdefault((row["protocol"], row["method"]), {})[row["generator"]] = row
    return tables


def half_unit(text):
    """Half of the last printed decimal; at least that of one decimal, for "100" stands for 100.0."""
    decimals = len(text.partition(".")[2])
    return 0.5 * 10.0 ** -max(decimals, 1)


def recomputed():
    """(key, printed, recomputed, bound) of every mean whose cells are all given; micro rows left out."""
    for (protocol, method), rows in by_method().items():
        if "Mean" not in rows or (protocol == "GenImage-SSP" and method in SSP):
            continue
        for metric in METRICS:
            cells = [rows[name][metric] for name in GENERATORS[protocol] if name in rows]
            printed = rows["Mean"][metric]
            if printed and cells and all(cells) and len(cells) == len(GENERATORS[protocol]):
                value = sum(map(float, cells)) / len(cells)
                bound = half_unit(printed) + max(half_unit(cell) for cell in cells)
                yield (protocol, method, metric), float(printed), value, bound + 1e-9


def micro_average(rows):
    weights = {name: MICRO.get(name, 6000) for name in GENERATORS["GenImage-SSP"]}
    return sum(weights[name] * float(rows[name]["acc"]) for name in weights) / sum(weights.values())


def macro_average(rows):
    names = GENERATORS["GenImage-SSP"]
    return sum(float(rows[name]["acc"]) for name in names) / len(names)


def test_rows_are_legal():
    for path in FOLDER.glob("*.csv"):
        if path.name not in ("notes.csv", "series.csv"):
            assert list(raw(path.name)[0]) == COLUMNS, path.name
    for row in published._rows():
        assert set(row) == set(COLUMNS), row
        assert row["generator"] in [*GENERATORS[row["protocol"]], "Mean"], row
        assert row["kind"] in KINDS, row
        assert row["source"] and row["source"].strip() == row["source"], row
        assert row["acc"], row
        assert all(0 <= float(row[name]) <= 100 for name in METRICS if row[name]), row


def test_rows_are_unique():
    keys = [(row["protocol"], row["method"], row["generator"]) for row in published._rows()]
    assert len(keys) == len(set(keys))
    assert not {"none", "NPR-typo"} & set(published.methods())


def test_every_protocol_has_figures():
    assert {row["protocol"] for row in published._rows()} == set(GENERATORS)


def test_means_recompute():
    seen = set()
    for key, printed, value, bound in recomputed():
        if key in DISCREPANCIES:
            assert DISCREPANCIES[key] == pytest.approx((printed, value), abs=0.005), key
            assert abs(printed - value) > bound, f"{key} is no discrepancy"
            seen.add(key)
        else:
            assert abs(printed - value) <= bound, (key, printed, value)
    assert seen == set(DISCREPANCIES)


def test_enough_means_are_checked():
    keys = {key for key, *_ in recomputed()}
    assert {("AIGCDetectBenchmark", name, "acc") for name in COLUMNS_AIGC} <= keys
    protocols = {slug for slug, names in GENERATORS.items() if names}
    protocols -= {"CNNDetection-13", "GenImage-SSP", "DFIG", "WildRF"}
    assert {
        (slug, "NPR", metric) for slug in protocols - {"Tiny-GenImage"} for metric in ("acc", "ap")
    } <= keys
    assert {("Tiny-GenImage", "CVIMG", metric) for metric in METRICS} <= keys
    assert {("AIGIBench", "NPR", metric) for metric in METRICS} | {("WildRF", "NPR", "acc")} <= keys


def test_thirty_eight_subsets_average_to_table_six():
    slugs = [
        "ForenSynths",
        "GANGen-Detection",
        "DiffusionForensics",
        "UniversalFakeDetect",
        "Diffusion1kStep",
    ]
    cells = [cell.acc for slug in slugs for cell in published.lookup(slug, "NPR").cells.values()]
    assert len(cells) == 38
    assert 100 * sum(cells) / 38 == pytest.approx(92.2, abs=0.05)


@pytest.mark.parametrize("method", SSP)
def test_ssp_average_is_over_images(method):
    rows = by_method()["GenImage-SSP", method]
    assert set(rows) == {*GENERATORS["GenImage-SSP"], "Mean"}
    assert micro_average(rows) == pytest.approx(float(rows["Mean"]["acc"]), abs=0.1)


def far_off(methods, average):
    """The methods whose printed average is not the given one."""
    tables = {method: by_method()["GenImage-SSP", method] for method in methods}
    return [m for m, rows in tables.items() if abs(average(rows) - float(rows["Mean"]["acc"])) > 0.1001]


def test_ssp_average_is_not_over_generators():
    assert far_off(SSP, macro_average) == SSP_NOT_MACRO


def test_baseline_average_is_over_generators_not_over_images():
    """Beside SSP stands another kind of average: test_means_recompute holds it to the macro average too."""
    assert far_off(BASELINE, macro_average) == []
    assert far_off(BASELINE, micro_average) == BASELINE


def test_the_corrected_readme_column():
    cells = published.lookup("AIGCDetectBenchmark", "NPR").cells
    assert [cells[name].acc for name in ("StarGAN", "GauGAN", "StyleGAN2")] == pytest.approx(
        [0.996, 0.854, 0.981]
    )


def test_eleven_columns_of_sixteen():
    for method in COLUMNS_AIGC:
        found = published.lookup("AIGCDetectBenchmark", method)
        assert set(found.cells) == set(GENERATORS["AIGCDetectBenchmark"]), method
        assert found.mean is not None


def test_parity_reference_is_complete():
    found = published.lookup("ForenSynths", "issue4")
    assert set(found.cells) == set(GENERATORS["ForenSynths"])
    for metric, mean in (("acc", 92.3), ("ap", 94.2)):
        values = [getattr(cell, metric) for cell in found.cells.values()]
        assert 100 * sum(values) / 8 == pytest.approx(mean, abs=0.05)
        assert getattr(found.mean, metric) == pytest.approx(mean / 100)


def test_lookup_gives_fractions_and_nan():
    found = published.lookup("ForenSynths", "NPR")
    assert found.cells["ProGAN"][:2] == (0.998, 1.0)
    assert math.isnan(found.cells["ProGAN"].r_acc)
    assert "Mean" not in found.cells
    assert found.mean.ap == pytest.approx(0.961)
    assert len(found.sources) == 1
    assert any("issue4" in note for note in found.notes)
    assert published.lookup("Tiny-GenImage", "CVIMG").cells["ADM"] == pytest.approx(
        (0.972, 0.9978, 0.958, 0.986)
    )


def test_lookup_without_mean_or_cells():
    assert published.lookup("ForenSynths", "NPR-retrain30").mean is None
    assert published.lookup("ForenSynths", "NPR-l2-w2").cells == {}
    assert published.lookup("DFIG", "NPR") is None
    assert published.lookup("ForenSynths", "nobody") is None
    assert published.lookup("nowhere", "NPR") is None


DDA_SETS = [slug for slug in GENERATORS if slug not in ("DFIG",) and "DDA" in published.methods(slug)]


def test_ddas_table_is_balanced_accuracy_and_of_fakes_only_recall():
    means = [published.lookup(slug, "NPR").mean.acc for slug in sorted(DDA_SETS)]
    assert means == pytest.approx([0.531, 0.422, 0.373, 0.029, 0.479, 0.515, 0.5, 0.635])
    methods = {"NPR", "UnivFD", "SAFE", "AIDE", "DRCT", "AlignedForensics", "DDA"}
    for slug in DDA_SETS:
        assert set(published.methods(slug)) == methods
        recalls = slug == "EvalGEN"
        for method in methods:
            table = published.lookup(slug, method)
            assert table.accuracy == ("f_acc" if recalls else "bal_acc")
            assert any(("recalls" if recalls else "balanced") in note for note in table.notes)
    for row in published._rows():
        if row["protocol"] in DDA_SETS:
            assert ("recall" if row["protocol"] == "EvalGEN" else "balanced accuracy") in row["note"]


def test_aigibench_has_means_of_twelve_methods_and_ferretnet_re_ran_npr():
    assert len(published.methods("AIGIBench")) == 12
    for method in published.methods("AIGIBench"):
        mean = published.lookup("AIGIBench", method).mean
        assert (mean.r_acc + mean.f_acc) / 2 == pytest.approx(mean.acc, abs=0.004)
    table = published.lookup("UniversalFakeDetect", "NPR-FerretNet")
    assert table.mean is None and len(table.cells) == 8
    assert table.cells["ADM"] == pytest.approx((0.74, 0.781, 0.629, 0.85))


def test_lookup_hands_out_copies():
    published.lookup("ForenSynths", "NPR").cells.clear()
    assert len(published.lookup("ForenSynths", "NPR").cells) == 8


def test_methods():
    assert published.methods() == sorted(set(published.methods()))
    assert published.methods("GenImage-NPR") == ["NPR"]
    assert published.methods("Sample") == []
    assert {"issue4", "NPR", "LocalGrad"} <= set(published.methods("ForenSynths"))


def test_a_method_is_named_in_any_case_and_a_wrong_name_lists_those_of_the_protocols_asked_for():
    assert published.method_named("npr", []) == published.method_named("NPR", ["DFIG"]) == "NPR"
    assert len({name.lower() for name in published.methods()}) == len(published.methods())
    with pytest.raises(UserError, match="GenImage-NPR"):
        published.method_named("NPR-typo", ["GenImage-NPR"])


def test_notes_belong_to_figures():
    rows = raw("notes.csv")
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    for row in rows:
        for method in row["methods"].split():
            assert row["note"] in published.lookup(row["protocol"], method).notes
        assert row["note"].endswith(".")


def test_series():
    lengths = {"CVIMG": 20, "CVIMG-multiscale": 20}
    rows = raw("series.csv")
    for method in {row["method"] for row in rows}:
        own = [row for row in rows if row["method"] == method]
        assert [int(row["epoch"]) for row in own] == list(range(lengths.get(method, 10)))
        last = published.lookup("Tiny-GenImage", method).mean.acc
        assert float(own[-1]["acc"]) == pytest.approx(100 * last)
    assert max(float(row["acc"]) for row in rows if row["method"] == "CVIMG") == 97.39
