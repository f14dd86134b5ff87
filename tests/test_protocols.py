"""Every benchmark in its published layout, from the folders to the table: order, input, labels, published."""

import csv
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import networks
import test as test_script
import val
from data import protocols, published
from data.protocols import PROTOCOLS
from networks import checkpoint
from networks.base import DataConfig, Detector
from util import run
from util.results import read_scores

# slug: (root, real, fake, "printed name=folder below the root:classes in it ..."), rows as published.
ROWS = {
    "Open-Test": (
        *("", "0_real", "1_fake"),
        "unseen=manifest/test:sd+real_coco",
    ),
    "ForenSynths": (
        *("ForenSynths_test", "0_real", "1_fake"),
        "ProGAN=progan:airplane+bird StyleGAN=stylegan:bedroom+car+cat "
        "StyleGAN2=stylegan2:cat+church BigGAN=biggan CycleGAN=cyclegan:apple+zebra "
        "StarGAN=stargan GauGAN=gaugan Deepfake=deepfake",
    ),
    "CNNDetection-13": (
        *("CNN_synth_testset", "0_real", "1_fake"),
        "ProGAN=progan:airplane+bird StyleGAN=stylegan:bedroom+car+cat BigGAN=biggan "
        "CycleGAN=cyclegan:apple+zebra StarGAN=stargan GauGAN=gaugan CRN=crn IMLE=imle "
        "SITD=seeingdark SAN=san Deepfake=deepfake StyleGAN2=stylegan2:cat+church "
        "WFIR=whichfaceisreal",
    ),
    "GANGen-Detection": (
        *("GANGen-Detection", "0_real", "1_fake"),
        "AttGAN=AttGAN BEGAN=BEGAN CramerGAN=CramerGAN InfoMaxGAN=InfoMaxGAN MMDGAN=MMDGAN "
        "RelGAN=RelGAN S3GAN=S3GAN SNGAN=SNGAN STGAN=STGAN",
    ),
    "DiffusionForensics": (
        *("DiffusionForensics", "0_real", "1_fake"),
        "ADM=adm DDPM=ddpm IDDPM=iddpm LDM=ldm PNDM=pndm VQDiffusion=vqdiffusion SDv1=sdv1_new SDv2=sdv2",
    ),
    "UniversalFakeDetect": (
        *("UniversalFakeDetect", "0_real", "1_fake"),
        "DALLE=dalle Glide100_10=glide_100_10 Glide100_27=glide_100_27 Glide50_27=glide_50_27 "
        "ADM=guided LDM100=ldm_100 LDM200=ldm_200 LDM200cfg=ldm_200_cfg",
    ),
    "Diffusion1kStep": (
        *("Diffusion1kStep", "0_real", "1_fake"),
        "DDPM=ddpm IDDPM=improved-diffusion ADM=guided-diffusion Midjourney=midjourney DALLE=DALLE",
    ),
    "AIGCDetectBenchmark": (
        *("AIGCDetectBenchmark", "0_real", "1_fake"),
        "ProGAN=progan:airplane+bird StyleGAN=stylegan:bedroom+car+cat BigGAN=biggan "
        "CycleGAN=cyclegan:apple+zebra StarGAN=stargan GauGAN=gaugan "
        "StyleGAN2=stylegan2:cat+church WFIR=whichfaceisreal ADM=ADM Glide=Glide "
        "Midjourney=Midjourney SDv1.4=stable_diffusion_v_1_4 SDv1.5=stable_diffusion_v_1_5 "
        "VQDM=VQDM Wukong=wukong DALLE2=DALLE2",
    ),
    "GenImage-NPR": (
        *("GenImage", "nature", "ai"),
        "ADM=ADM/imagenet_ai_0508_adm/val BigGAN=BigGAN/imagenet_ai_0419_biggan/val "
        "GLIDE=glide/imagenet_glide/val Midjourney=Midjourney/imagenet_midjourney/val "
        "SDv1.5=stable_diffusion_v_1_5/imagenet_ai_0424_sdv5/val "
        "VQDM=VQDM/imagenet_ai_0419_vqdm/val Wukong=wukong/imagenet_ai_0424_wukong/val",
    ),
    "GenImage-SSP": (
        *("GenImage", "nature", "ai"),
        "Midjourney=Midjourney/imagenet_midjourney/val "
        "SDv1.4=stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val "
        "SDv1.5=stable_diffusion_v_1_5/imagenet_ai_0424_sdv5/val ADM=ADM/imagenet_ai_0508_adm/val "
        "GLIDE=glide/imagenet_glide/val Wukong=wukong/imagenet_ai_0424_wukong/val "
        "VQDM=VQDM/imagenet_ai_0419_vqdm/val BigGAN=BigGAN/imagenet_ai_0419_biggan/val",
    ),
    "Tiny-GenImage": (
        *("genimage", "nature", "ai"),
        "ADM=val/adm BigGAN=val/biggan GLIDE=val/glide Midjourney=val/midjourney SDv1.5=val/sdv5 "
        "VQDM=val/vqdm Wukong=val/wukong",
    ),
    "DFIG": (
        *("DFIG", "0_real", "1_fake"),
        "StyleGAN=test",
    ),
    "Sample": (
        *("sample/test", "0_real", "1_fake"),
        "nearest=nearest bilinear=bilinear bicubic=bicubic transposed=transposed pixelshuffle=pixelshuffle",
    ),
    "WildRF": (
        *("WildRF", "0_real", "1_fake"),
        "Facebook=test/facebook Reddit=test/reddit X=test/twitter",
    ),
    "AIGIBench": (
        *("AIGIBench", "0_real", "1_fake"),
        "ProGAN=test/ProGAN R3GAN=test/R3GAN StyleGAN3=test/StyleGAN3 StyleGAN-XL=test/StyleGAN-XL "
        "StyleSwin=test/StyleSwim WFIR=test/WFIR BlendFace=test/BlendFace E4S=test/E4S "
        "FaceSwap=test/FaceSwap InSwap=test/InSwap SimSwap=test/SimSwap DALLE3=test/DALLE-3 "
        "FLUX1-dev=test/FLUX1-dev GLIDE=test/GLIDE Imagen3=test/Imagen3 Midjourney-V6=test/Midjourney-V6 "
        "SD3=test/SD3 SDXL=test/SDXL BLIP=test/BLIP Infinite-ID=test/Infinite-ID InstantID=test/InstantID "
        "IP-Adapter=test/IP-Adapter PhotoMaker=test/PhotoMaker CommunityAI=test/CommunityAI "
        "SocialRF=test/SocialRF",
    ),
    # Folders of fakes; the name of the reals is the folder that all of them share, if there is one.
    "Synthbuster": (
        *("Synthbuster", "real_RAISE_1k", ""),
        "DALLE2=synthbuster/dalle2 DALLE3=synthbuster/dalle3 Firefly=synthbuster/firefly "
        "Glide=synthbuster/glide Midjourney-v5=synthbuster/midjourney-v5 "
        "SDv1.3=synthbuster/stable-diffusion-1-3 SDv1.4=synthbuster/stable-diffusion-1-4 "
        "SDv2=synthbuster/stable-diffusion-2 SDXL=synthbuster/stable-diffusion-xl",
    ),
    "DRCT-2M": (
        *("DRCT-2M", "../MSCOCO/val2017", ""),
        "LDM=ldm-text2im-large-256/val2017 SDv1.4=stable-diffusion-v1-4/val2017 "
        "SDv1.5=stable-diffusion-v1-5/val2017 SDv2=stable-diffusion-2-1/val2017 "
        "SDXL=stable-diffusion-xl-base-1.0/val2017 SDXL-Refiner=stable-diffusion-xl-refiner-1.0/val2017 "
        "SD-Turbo=sd-turbo/val2017 SDXL-Turbo=sdxl-turbo/val2017 LCM-SDv1.5=lcm-lora-sdv1-5/val2017 "
        "LCM-SDXL=lcm-lora-sdxl/val2017 SDv1-Ctrl=sd-controlnet-canny/val2017 "
        "SDv2-Ctrl=sd21-controlnet-canny/val2017 SDXL-Ctrl=controlnet-canny-sdxl-1.0/val2017 "
        "SDv1-DR=stable-diffusion-inpainting/val2017 SDv2-DR=stable-diffusion-2-inpainting/val2017 "
        "SDXL-DR=stable-diffusion-xl-1.0-inpainting-0.1/val2017",
    ),
    "DDA-COCO": (
        *("DDA-COCO", "../val2017", ""),
        "SDXL-VAE=sdxl-vae/val2017 SD-VAE-EMA=sd-vae-ft-ema/val2017 SD-VAE-MSE=sd-vae-ft-mse/val2017 "
        "SD2.1=stable-diffusion-2-1/val2017 SD3.5=stable-diffusion-3.5-large/val2017",
    ),
    "EvalGEN": (
        *("EvalGEN", "", ""),
        "Flux=Flux GoT=GoT OmniGen=OmniGen Infinity=Infinity NOVA=NOVA",
    ),
}
BARE = [slug for slug, (_, _, fake, _) in ROWS.items() if not fake]
ROWS["GenImage-DDA"] = ROWS["GenImage-SSP"]
ROWS["ForenSynths-DDA"] = (
    *("ForenSynths_test", "0_real", "1_fake"),
    "ProGAN=progan:airplane+bird StyleGAN=stylegan:bedroom+car+cat StyleGAN2=stylegan2:cat+church "
    "BigGAN=biggan CycleGAN=cyclegan:apple+zebra StarGAN=stargan GauGAN=gaugan Deepfake=deepfake CRN=crn "
    "IMLE=imle WFIR=whichfaceisreal",
)
ROWS["AIGCDetectBenchmark-DDA"] = (
    *ROWS["AIGCDetectBenchmark"][:3],
    ROWS["AIGCDetectBenchmark"][3] + " SDXL=sd_xl",
)


def parsed(words):
    """ "A=a:x+y B=b" -> [("A", "a", ["x", "y"]), ("B", "b", [""])]."""
    pairs = [word.partition("=")[::2] for word in words.split()]
    return [(name, place.partition(":")[0], place.partition(":")[2].split("+")) for name, place in pairs]


LAYOUTS = {slug: (root, real, fake, parsed(words)) for slug, (root, real, fake, words) in ROWS.items()}
CNN8 = LAYOUTS["ForenSynths"][3]
GENIMAGE = {name: folder for name, folder, _ in LAYOUTS["GenImage-SSP"][3]}
# Stored (width, height) of the images in every label folder, and what reaches the detector.
REAL_SIZE, FAKE_SIZES = (225, 226), ((37, 41), (300, 211))
SQUARE = {(37, 41): (256, 256), (225, 226): (256, 256), (300, 211): (256, 256)}
CROPPED = {(37, 41): (224, 224), (225, 226): (224, 224), (300, 211): (224, 224)}
STORED = {(37, 41): (37, 41), (225, 226): (225, 226), (300, 211): (300, 211)}
FED = {
    "ForenSynths": SQUARE,
    "CNNDetection-13": CROPPED,
    "GANGen-Detection": STORED,
    "DiffusionForensics": SQUARE,
    "UniversalFakeDetect": SQUARE,
    "Diffusion1kStep": SQUARE,
    "AIGCDetectBenchmark": {(37, 41): (36, 40), (225, 226): (224, 226), (300, 211): (300, 210)},
    "GenImage-NPR": CROPPED,
    "GenImage-SSP": SQUARE,
    "Tiny-GenImage": CROPPED,
    "DFIG": CROPPED,
    "Sample": STORED,
    "AIGIBench": SQUARE,
    "Open-Test": {(37, 41): (256, 256), (225, 226): (256, 256), (300, 211): (256, 256)},
    **dict.fromkeys(["WildRF", *BARE], STORED),
}
FED |= {f"{name}-DDA": FED[name] for name in ("ForenSynths", "AIGCDetectBenchmark")}
FED["GenImage-DDA"] = FED["GenImage-NPR"]
UPSTREAMS = ["ForenSynths", "GANGen-Detection", "DiffusionForensics", "UniversalFakeDetect"]


class Brightness(Detector):
    """Bright means fake: logit = gain * (mean grey value - 127.5) / 16.  `seen` keeps what came in."""

    arch = "brightness"
    data_config = DataConfig(load_size=None, crop_size=None)
    seen: list = []

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, images):
        self.seen.extend(images.clone())
        return self.gain * (images.float().mean(dim=(1, 2, 3)) - 127.5) / 16


@pytest.fixture(autouse=True)
def bright(tmp_path, monkeypatch):
    """A weight file of the Brightness detector, named as a published one; the working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_git", lambda *_: "")
    monkeypatch.setitem(networks._REGISTRY, "brightness", Brightness)
    monkeypatch.setattr(Brightness, "seen", [])
    checkpoint.save(tmp_path / "bright.pth", Brightness(), options={"name": "bright"})


def grey(path, value, size=(8, 8)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def greys(folder, real, fake, names=("0_real", "1_fake")):
    """Writes one small image per grey value into folder/<real name> and folder/<fake name>."""
    for name, values in zip(names, (real, fake), strict=True):
        for number, value in enumerate(values):
            grey(Path(folder, name, f"{number}.png"), value)


def publish(slug, real=(50,), fake=(200,), only=None, dataroot="data"):
    """A protocol's tree of small grey images below `dataroot`; only: printed names."""
    root, real_name, fake_name, rows = LAYOUTS[slug]
    for name, folder, classes in rows:
        for inner in classes:
            if only is None or name in only:
                greys(Path(dataroot, root, folder, inner), real, fake, (real_name, fake_name))


def run_test(*flags, weights="bright.pth", dataroot="data"):
    argv = ["--model_path", weights, "--dataroot", dataroot, "--num_threads", "0", "--device", "cpu"]
    test_script.main([*argv, *flags])


def status(*flags, **options):
    """Exit status of a run that ends in sys.exit."""
    with pytest.raises(SystemExit) as stopped:
        run_test(*flags, **options)
    return stopped.value.code


def done(name="bright"):
    return {folder.name for folder in Path("results", name).iterdir()}


def table(slug, name="bright"):
    with open(Path("results", name, slug, "table.csv"), newline="") as file:
        return {row["generator"]: row for row in csv.DictReader(file)}


def numbers(row, *columns):
    return [float(row[column]) for column in columns]


def blank(row):
    return {row[name] for name in ("published_acc", "published_ap", "diff_acc", "diff_ap")} == {""}


def meta(slug, name="bright"):
    return json.loads(Path("results", name, slug, "meta.json").read_text())


def own_row(slug="own", generators="[g]", **keys):
    """A protocol file of one row."""
    lines = [f"slug: {slug}", f"generators: {generators}", *(f"{key}: {text}" for key, text in keys.items())]
    Path(f"{slug}.yaml").write_text("\n".join(lines))
    return f"{slug}.yaml"


def test_every_protocol_is_laid_out_here():
    assert set(PROTOCOLS) == set(LAYOUTS) == set(FED)


@pytest.mark.parametrize("slug", [slug for slug in LAYOUTS if slug not in BARE])
def test_a_published_tree_gives_the_papers_rows_from_the_papers_input(slug):
    root, real, fake, rows = LAYOUTS[slug]
    leaves = Counter()
    for name, folder, classes in rows:
        for inner in classes:
            place = Path("data", root, folder, inner)
            grey(place / real / "0.PNG", 50, REAL_SIZE)
            grey(place / fake / "0.JPEG", 200, FAKE_SIZES[0])
            grey(place / fake / "1.png", 210, FAKE_SIZES[1])
            leaves[name] += 1
    run_test("--protocols", slug)

    lines = table(slug)
    assert list(lines) == [name for name, _, _ in rows] + ["Mean"]
    record = meta(slug)
    assert record["counts"] == {name: [count, 2 * count] for name, count in leaves.items()}
    assert {name: int(lines[name]["images"]) for name in leaves} == {
        name: 3 * count for name, count in leaves.items()
    }
    assert {line["acc"] for line in lines.values()} == {"1.0"}  # no image under the wrong label
    assert len(record["protocol_sha256"]) == 64
    assert record["protocol_row"]["slug"] == slug
    fed = Counter((image.shape[2], image.shape[1]) for image in Brightness.seen)
    expected = Counter()
    for size in (REAL_SIZE, *FAKE_SIZES):
        expected[FED[slug][size]] += leaves.total()
    assert fed == expected


@pytest.mark.parametrize("slug", BARE)
def test_folders_of_fakes_share_a_folder_of_reals(slug):
    root, reals, _, rows = LAYOUTS[slug]
    for _, folder, _ in rows:
        grey(Path("data", root, folder, "0.png"), 200, FAKE_SIZES[0])
    Path("data", root, "note.txt").write_text("x")
    if reals:
        for number in range(3):
            grey(Path("data", root, reals, f"{number}.png"), 50, REAL_SIZE)
    run_test("--protocols", slug)

    lines, count = table(slug), 3 if reals else 0
    assert list(lines) == [name for name, _, _ in rows] + ["Mean"]
    assert meta(slug)["counts"] == {name: [count, 1] for name, _, _ in rows}
    scores = read_scores(Path("results/bright", slug, "scores.csv"))
    assert {row[2]: row[3] > 0.5 for row in scores} == ({0: False, 1: True} if reals else {1: True})
    assert {Path("data", root, row[0]).is_file() for row in scores} == {True}
    assert {(image.shape[2], image.shape[1]) for image in Brightness.seen} == {
        FED[slug][size] for size in ([REAL_SIZE] if reals else []) + [FAKE_SIZES[0]]
    }
    assert {line["f_acc"] for line in lines.values()} == {"1.0"}
    assert lines["Mean"]["acc"] == ("1.0" if reals else "nan")


def test_where_the_folder_of_reals_is_missing_recall_is_what_is_left(capsys):
    grey("data/Synthbuster/synthbuster/dalle2/0.png", 200)
    grey("data/Synthbuster/synthbuster/dalle2/deeper/1.png", 50)
    run_test("--protocols", "Synthbuster")
    assert "real_RAISE_1k" in capsys.readouterr().out
    assert table("Synthbuster")["DALLE2"]["reason"].startswith("no real images; recall 50.0%")


def test_label_folders_that_a_user_made_count_in_folders_of_fakes_too():
    greys("data/EvalGEN/Flux", [50, 60], [200])
    grey("data/EvalGEN/NOVA/0.png", 200)
    run_test("--protocols", "EvalGEN")
    assert meta("EvalGEN")["counts"] == {"Flux": [2, 1], "NOVA": [0, 1]}


def test_ddas_rows_give_the_pixels_of_fakes_encoded_by_hand(rng):
    place = Path("data/GenImage", GENIMAGE["ADM"])
    pixels = rng.integers(0, 256, (2, 230, 240, 3), dtype=np.uint8)
    for name, image in zip(("nature", "ai"), pixels, strict=True):
        (place / name).mkdir(parents=True)
        Image.fromarray(image).save(place / name / "0.png")
    run_test("--protocols", "GenImage-DDA")
    Image.fromarray(pixels[1]).save("hand.jpg", quality=96)
    expected = [pixels[0], np.array(Image.open("hand.jpg"))]
    for seen, image in zip(Brightness.seen, expected, strict=True):
        assert np.array_equal(seen.permute(1, 2, 0).numpy(), image[3:227, 8:232])
    said = Path("results/bright/GenImage-DDA/table.md").read_text()
    assert "fakes as jpeg:96" in said and "balanced accuracies" in said
    assert meta("GenImage-DDA")["protocol_row"]["reencode"] == {"fake": "jpeg:96"}


def test_published_recalls_are_compared_with_ours():
    for name, folder, _ in LAYOUTS["EvalGEN"][3]:
        grey(Path("data/EvalGEN", folder, "0.png"), 50 if name == "Flux" else 200)
    run_test("--protocols", "EvalGEN", "--metrics", "auc")
    mean = table("EvalGEN")["Mean"]
    assert numbers(mean, "f_acc", "published_acc", "diff_acc") == pytest.approx([0.8, 0.029, 0.771])


def test_published_balanced_accuracy_is_compared_with_balanced_accuracy(capsys):
    greys("data/WildRF/test/reddit", [50, 60, 70, 200], [210])
    run_test("--protocols", "WildRF", "--metrics", "auc")
    row = table("WildRF")["Reddit"]
    assert numbers(row, "acc", "bal_acc", "published_acc", "diff_acc") == pytest.approx(
        [0.8, 0.875, 0.61, 0.265]
    )
    assert status("--protocols", "WildRF", "--expect", "NPR") == 2
    assert "WildRF" in capsys.readouterr().err


def test_reals_from_gives_fakes_the_fpr_of_a_named_set():
    greys("data/photos", [50, 60, 70, 200], [210])
    run_test("--protocol_file", own_row(generators="[photos]"), "--name", "base", "--views", "native,jpeg:50")
    for generator in ("Flux", "NOVA"):
        grey(Path("data/EvalGEN", generator, "0.png"), 200)
    for number, source in enumerate(("results/base/own", "results/base/own/scores.csv")):
        run_test("--protocols", "EvalGEN", "--reals_from", source, "--name", f"run{number}")
        rows = table("EvalGEN", f"run{number}")
        for name in ("Flux", "Mean"):
            assert float(rows[name]["fpr"]) == 0.25
            assert "recall 100.0% at threshold 0.5; FPR 25.0% of 4 reals of base/own" in rows[name]["reason"]
    run_test("--protocols", "EvalGEN", "--reals_from", source, "--name", "web", "--views", "native,jpeg:50")
    with pytest.raises(ValueError, match=r"scores\.web\.csv"):
        run_test("--protocols", "EvalGEN", "--reals_from", source, "--name", "x", "--views", "web")
    run_test("--protocols", "EvalGEN", "--reals_from", source, "--name", "hard", "--threshold", "0.999")
    assert float(table("EvalGEN", "hard")["Flux"]["fpr"]) == 0


def test_reals_from_refuses_other_weights_and_folders_without_reals():
    greys("data/photos", [50], [210])
    grey("data/EvalGEN/Flux/0.png", 200)
    run_test("--protocol_file", own_row(generators="[photos]"), "--name", "base")
    run_test("--protocols", "EvalGEN", "--name", "fakes")
    with pytest.raises(ValueError, match="no scores of reals"):
        run_test("--protocols", "EvalGEN", "--reals_from", "results/fakes/EvalGEN", "--name", "x")
    with pytest.raises(ValueError, match=r"results/none/meta\.json"):
        run_test("--protocols", "EvalGEN", "--reals_from", "results/none", "--name", "x")
    checkpoint.save("bright.pth", Brightness(-1.0), options={"name": "bright"})
    with pytest.raises(ValueError, match="checkpoint_sha256"):
        run_test("--protocols", "EvalGEN", "--reals_from", "results/base/own", "--name", "x")
    assert not Path("results/x").exists()


# Of the rows before `reencode`, `bare` and `reals`: results that were made with them are resumed.
SHA256 = {
    "ForenSynths": "18bc7fdde6b54446ebb03fc37a3a821e3e23031ed45fe6cc30fbf2cb54dcfdb0",
    "CNNDetection-13": "3ec77142545a8890ca203e25116a1fb1efdf54379059d6a7c31e3dae1fe0b03a",
    "GANGen-Detection": "4847312409da3992a3d19f7438b75897c9dd469db8081758057f2e230a059a3e",
    "DiffusionForensics": "e207863fc0b1ea03541779b3e458e67e551841d72e3e1ca4a6a7bc858721ad21",
    "UniversalFakeDetect": "db3c6c62a242b44c7e9511c24ae3b765485f40120f7329e98e2d6543ce1bc59b",
    "Diffusion1kStep": "2696ad6d763b9524e5d7432b58c169c123181774a686b50f66e5f23d5f57a379",
    "AIGCDetectBenchmark": "8d836caef64f7bfd6202b39de0691a7953e128e35556701560680cc7bf3889a2",
    "GenImage-NPR": "cf7b3ffa763fe7050bf9cd95fdbcbfd38f079a5774437029ec1549d29f57d091",
    "GenImage-SSP": "3e3ea6f15e2fa631a46cf056dd0fce7cdd5343e91bd03965b541769b531ad86d",
    "Tiny-GenImage": "33b6d84d87c3f9ba155416cb35eb3db324b0e097c2c778312873461303092884",
    "DFIG": "e81a341780f2d780e732779c43da155c0b10ff44b80e980c5eb617fe445e792e",
    "Sample": "dcc28b0498c4a8d4c7f0c62ffd9778e624d8a497f18cc84a6f1c19d6b2529c93",
}


def test_the_sha256_of_a_row_is_the_one_of_earlier_results():
    assert {slug: PROTOCOLS[slug].sha256 for slug in SHA256} == SHA256


def test_each_protocol_has_a_sha256_of_its_own():
    assert len({row.sha256 for row in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_the_recorded_sha256_is_the_rows():
    publish("DFIG")
    run_test("--protocols", "DFIG")
    assert meta("DFIG")["protocol_sha256"] == PROTOCOLS["DFIG"].sha256


@pytest.mark.parametrize(
    "size, repeats, top, left",
    [  # (width, height), how often it is repeated (down, across), the crop's place by hand
        ((37, 41), (6, 7), 11, 18),  # 246 x 259
        ((300, 41), (6, 1), 11, 38),  # 246 x 300: one side too short is enough
        ((224, 100), (3, 1), 38, 0),  # 300 x 224
        ((226, 230), (1, 1), 3, 1),  # large enough: not repeated
    ],
)
def test_genimage_repeats_a_small_image_and_takes_the_centre(size, repeats, top, left, rng):
    publish("GenImage-NPR", only=["ADM"])
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    place = Path("data/GenImage", GENIMAGE["ADM"], "ai")
    (place / "0.png").unlink()
    Image.fromarray(pixels).save(place / "0.png")
    run_test("--protocols", "GenImage-NPR")
    tiled = np.tile(pixels, (*repeats, 1))
    expected = tiled[top : top + 224, left : left + 224]
    assert any(np.array_equal(image.permute(1, 2, 0).numpy(), expected) for image in Brightness.seen)


@pytest.mark.parametrize("place", ["imagenet_ai_0419_sdv4/val", "test/sdv4", "test/imagenet_ai_0419_sdv4"])
@pytest.mark.parametrize("names", [("nature", "ai"), ("0_real", "1_fake")])
def test_genimage_is_found_as_unpacked_and_as_sorted_for_npr(place, names):
    publish("GenImage-SSP", only=["ADM", "BigGAN", "GLIDE", "VQDM"])
    greys(Path("data/GenImage", place), [50, 60], [200], names)
    run_test("--protocols", "GenImage-SSP")
    assert meta("GenImage-SSP")["counts"]["SDv1.4"] == [2, 1]
    assert table("GenImage-SSP")["SDv1.4"]["acc"] == "1.0"


@pytest.mark.parametrize("folder", ["ADM/imagenet_ai_0508_adm", "imagenet_ai_0508_adm", "ADM"])
def test_training_images_of_genimage_are_not_taken_for_its_test_images(folder, capsys):
    publish("GenImage-NPR", only=["BigGAN"])
    greys(Path("data/GenImage", folder, "train"), [50], [200], ("nature", "ai"))
    run_test("--protocols", "GenImage-NPR")
    assert "ADM" not in meta("GenImage-NPR")["counts"]
    assert table("GenImage-NPR")["ADM"]["reason"] == "no images"
    assert "no folder in data/GenImage for ADM" in capsys.readouterr().out


def test_nested_classes_are_pooled_into_one_row():
    greys("data/ForenSynths_test/progan/airplane", [50, 60, 200], [210])  # 3 of 4
    greys("data/ForenSynths_test/progan/bird", [70], [80, 90])  # 1 of 3
    publish("ForenSynths", only=["BigGAN"])
    run_test("--protocols", "ForenSynths")
    row = table("ForenSynths")["ProGAN"]
    assert int(row["images"]) == 7
    # AP: ranking 210 fake, 200 real, 90 fake, 80 fake, then reals: (1 + 2/3 + 3/4) / 3
    assert numbers(row, "acc", "r_acc", "f_acc") == pytest.approx([4 / 7, 3 / 4, 1 / 3])
    assert float(row["ap"]) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_folder_names_of_generators_and_labels_compare_without_case():
    greys("data/Diffusion1kStep/Guided-Diffusion", [50], [200], ("0_Real", "1_FAKE"))
    greys("data/Diffusion1kStep/dalle", [50], [200])
    run_test("--protocols", "Diffusion1kStep")
    assert meta("Diffusion1kStep")["counts"] == {"ADM": [1, 1], "DALLE": [1, 1]}


def test_the_root_of_a_protocol_is_found_without_case():
    publish("DFIG")
    Path("data/DFIG").rename("data/dfig")
    run_test("--protocols", "DFIG")
    assert meta("DFIG")["counts"] == {"StyleGAN": [1, 1]}


@pytest.mark.parametrize(
    "slug", ["ForenSynths", "GenImage-NPR", "Tiny-GenImage", "DFIG", "Sample", "WildRF", "AIGIBench"]
)
def test_dataroot_may_be_the_protocols_own_root(slug):
    publish(slug)
    run_test("--protocols", slug, dataroot=str(Path("data", LAYOUTS[slug][0])))
    assert int(table(slug)["Mean"]["images"]) == 2 * sum(len(classes) for _, _, classes in LAYOUTS[slug][3])


def test_a_run_without_protocols_takes_upstreams_four_and_diffusion1kstep():
    for slug in [*UPSTREAMS, "Diffusion1kStep", "AIGCDetectBenchmark", "DFIG", "Sample"]:
        publish(slug)
    run_test()
    assert done() == {*UPSTREAMS, "Diffusion1kStep"}


def test_a_run_without_protocols_names_those_that_are_not_there(capsys):
    publish("GANGen-Detection")
    run_test()
    assert done() == {"GANGen-Detection"}
    left_out = capsys.readouterr().out.partition("not found, left out:\n")[2].splitlines()[:4]
    assert [line.partition(":")[0] for line in left_out] == [
        "ForenSynths",
        "DiffusionForensics",
        "UniversalFakeDetect",
        "Diffusion1kStep",
    ]


def test_all_runs_every_protocol_that_is_found():
    for slug in ("ForenSynths", "GenImage-NPR", "DFIG"):
        publish(slug)
    # GenImage-SSP has the same folders; the 13-set is not complete there.
    run_test("--protocols", "all")
    aligned = {"ForenSynths-DDA", "GenImage-DDA"}
    assert done() == {"ForenSynths", "GenImage-NPR", "GenImage-SSP", "DFIG", *aligned}


def test_protocols_run_in_the_order_asked_for(capsys):
    publish("DFIG")
    publish("GANGen-Detection")
    run_test("--protocols", "gangen-detection", "DFIG")
    out = capsys.readouterr().out
    assert 0 < out.index("\nGANGen-Detection\n") < out.index("\nDFIG\n")


def test_an_asked_protocol_that_is_absent_is_refused_before_any_other_is_scored():
    publish("ForenSynths")
    with pytest.raises(ValueError, match="DFIG"):
        run_test("--protocols", "ForenSynths", "DFIG")
    assert not Path("results").exists()
    assert not Brightness.seen


def test_one_protocol_in_two_spellings_runs_once():
    publish("DFIG")
    run_test("--protocols", "DFIG", "dfig")
    assert len(Brightness.seen) == 2


@pytest.mark.parametrize("asked", [["Foren"], ["DFIG", "Foren"], ["all", "Foren"]])
def test_an_unknown_protocol_exits_with_the_list(asked, capsys):
    assert status("--protocols", *asked) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "unknown protocol" in last
    assert all(slug in last for slug in LAYOUTS)


@pytest.mark.parametrize(
    "flags, fed",
    [
        (["--no_resize"], (225, 226)),
        (["--loadSize", "64"], (64, 64)),
        (["--cropSize", "100"], (100, 100)),
        (["--no_resize", "--cropSize", "32"], (32, 32)),
    ],
)
def test_a_flag_changes_a_protocols_input_and_the_table_says_so(flags, fed):
    grey("data/ForenSynths_test/biggan/0_real/0.png", 50, (225, 226))
    grey("data/ForenSynths_test/biggan/1_fake/0.png", 200, (225, 226))
    run_test("--protocols", "ForenSynths", *flags)
    assert {(image.shape[2], image.shape[1]) for image in Brightness.seen} == {fed}
    note = "the published input is resize 256x256, no crop; this one is "
    assert note in Path("results/bright/ForenSynths/table.md").read_text()


# Reals 40, 60, 100, 140 and fakes 90, 200 where above 127.5 means fake: one real and one fake are missed.
# Ranking: 200 fake, 140, 100, 90 fake, 60, 40, so AP = (1 + 2/4) / 2.
KNOWN_REALS, KNOWN_FAKES = (40, 60, 100, 140), (90, 200)
KNOWN = {"acc": 4 / 6, "ap": 0.75, "r_acc": 3 / 4, "f_acc": 1 / 2, "auc": 6 / 8}
# The opposite rule ranks 40, 60, 90 fake, 100, 140, 200 fake, so AP = (1/3 + 2/6) / 2.
OPPOSITE = {"acc": 2 / 6, "ap": 1 / 3, "r_acc": 1 / 4, "f_acc": 1 / 2, "auc": 2 / 8}
PAIRS = [("0_real", "1_fake"), ("nature", "ai"), ("real", "fake")]


@pytest.mark.parametrize("gain, expected", [(1.0, KNOWN), (-1.0, OPPOSITE)])
@pytest.mark.parametrize("names", [*PAIRS, ("photos", "generated"), ("z_real", "a_fake")])
def test_a_known_rule_gets_the_same_numbers_in_every_layout_of_test_py(names, gain, expected):
    checkpoint.save("bright.pth", Brightness(gain), options={"name": "bright"})
    greys("data/g", KNOWN_REALS, KNOWN_FAKES, names)
    own = {} if names in PAIRS else {"real": names[0], "fake": names[1]}
    run_test("--protocol_file", own_row(**own))
    row = table("own")["g"]
    assert numbers(row, *expected) == pytest.approx(list(expected.values()))


@pytest.mark.parametrize("gain, expected", [(1.0, KNOWN), (-1.0, OPPOSITE)])
@pytest.mark.parametrize("names", PAIRS)
def test_a_known_rule_gets_the_same_numbers_in_every_layout_of_val_py(names, gain, expected):
    checkpoint.save("bright.pth", Brightness(gain), options={"name": "bright"})
    greys("data/g", KNOWN_REALS, KNOWN_FAKES, names)
    val.main("--model_path bright.pth --dataroot data --num_threads 0 --device cpu".split())
    row = table("data")["g"]
    assert numbers(row, *expected) == pytest.approx(list(expected.values()))


def test_a_known_rule_gets_the_same_numbers_where_a_protocol_names_its_own_label_folders():
    greys("data/GenImage/ADM/imagenet_ai_0508_adm/val", KNOWN_REALS, KNOWN_FAKES, ("nature", "ai"))
    greys("data/Diffusion1kStep/ddpm", KNOWN_REALS, KNOWN_FAKES)
    run_test("--protocols", "GenImage-NPR", "Diffusion1kStep")
    for row in (table("GenImage-NPR")["ADM"], table("Diffusion1kStep")["DDPM"]):
        assert numbers(row, *KNOWN) == pytest.approx(list(KNOWN.values()))


def forensynths_with_one_biggan_error(only=None):
    """Everything right but one of BigGAN's 8: accuracy 0.875, AP below 1; seven others at 1."""
    others = [name for name, _, _ in CNN8 if name != "BigGAN" and (only is None or name in only)]
    publish("ForenSynths", only=others)
    greys("data/ForenSynths_test/biggan", [50, 50, 50, 50], [200, 200, 200, 100])


def test_published_numbers_stand_beside_ours_with_the_difference():
    forensynths_with_one_biggan_error()
    run_test("--protocols", "ForenSynths")
    rows = table("ForenSynths")
    columns = ("acc", "published_acc", "diff_acc", "ap", "published_ap", "diff_ap")
    assert numbers(rows["BigGAN"], *columns) == pytest.approx([0.875, 0.875, 0, 1, 0.945, 0.055])
    assert numbers(rows["ProGAN"], *columns) == pytest.approx([1, 0.998, 0.002, 1, 1, 0])
    assert numbers(rows["Deepfake"], *columns) == pytest.approx([1, 0.774, 0.226, 1, 0.862, 0.138])
    assert numbers(rows["Mean"], *columns) == pytest.approx([0.984375, 0.925, 0.059375, 1, 0.961, 0.039])
    assert "published: NPR, " in Path("results/bright/ForenSynths/table.md").read_text()


def test_published_none_leaves_the_columns_empty():
    forensynths_with_one_biggan_error()
    run_test("--protocols", "ForenSynths", "--published", "none")
    assert all(blank(row) for row in table("ForenSynths").values())
    assert "pub. acc" not in Path("results/bright/ForenSynths/table.md").read_text()


def test_another_methods_numbers_can_stand_beside_ours():
    forensynths_with_one_biggan_error()
    run_test("--protocols", "ForenSynths", "--published", "issue4")
    rows = table("ForenSynths")
    assert numbers(rows["BigGAN"], "published_acc", "diff_acc") == pytest.approx([0.844, 0.031])
    assert numbers(rows["Mean"], "published_acc", "published_ap") == pytest.approx([0.923, 0.942])


def test_a_method_with_a_mean_alone_is_compared_on_the_mean_of_all_generators_only():
    forensynths_with_one_biggan_error()
    run_test("--protocols", "ForenSynths", "--published", "NPR-l2-avg")
    rows = table("ForenSynths")
    assert numbers(rows["Mean"], "published_acc", "diff_acc") == pytest.approx([0.883, 0.101375])
    assert all(blank(row) for name, row in rows.items() if name != "Mean")
    run_test(
        "--protocols", "ForenSynths", "--published", "NPR-l2-avg", "--classes", "BigGAN", "--name", "part"
    )
    assert all(blank(row) for row in table("ForenSynths", "part").values())


def test_a_method_without_numbers_for_a_protocol_leaves_the_columns_empty_and_says_so():
    publish("ForenSynths")
    run_test("--protocols", "ForenSynths", "--published", "SSP")
    assert all(blank(row) for row in table("ForenSynths").values())
    note = "no published numbers of SSP here; --published knows "
    assert note in Path("results/bright/ForenSynths/table.md").read_text()


def test_an_unknown_published_method_exits_with_the_list(capsys):
    assert status("--published", "npr2") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "unknown method 'npr2'" in last
    assert "issue4" in last


def assert_mean_of_progan_and_biggan(row):
    assert numbers(row, "published_acc", "published_ap") == pytest.approx([0.9365, 0.9725])
    assert numbers(row, "acc", "diff_acc") == pytest.approx([0.9375, 0.001])


def test_with_chosen_classes_the_published_mean_is_that_of_the_same_generators():
    forensynths_with_one_biggan_error()
    run_test("--protocols", "ForenSynths", "--classes", "progan,BigGAN")
    assert_mean_of_progan_and_biggan(table("ForenSynths")["Mean"])


def test_with_missing_generators_the_published_mean_is_that_of_the_present_ones():
    forensynths_with_one_biggan_error(only=["ProGAN"])
    run_test("--protocols", "ForenSynths")
    rows = table("ForenSynths")
    assert_mean_of_progan_and_biggan(rows["Mean"])
    assert numbers(rows["GauGAN"], "published_acc") == pytest.approx([0.866])
    assert rows["GauGAN"]["diff_acc"] == ""
    assert math.isnan(float(rows["GauGAN"]["acc"]))


def test_genimage_ssp_pools_its_mean_over_images_and_genimage_npr_does_not():
    greys(Path("data/GenImage", GENIMAGE["Midjourney"]), [50], [60], ("nature", "ai"))  # 1 of 2
    greys(Path("data/GenImage", GENIMAGE["VQDM"]), [40, 50, 60], [200, 210, 220], ("nature", "ai"))  # 6 of 6
    run_test("--protocols", "GenImage-NPR", "GenImage-SSP", "--published", "none")
    macro, micro = table("GenImage-NPR")["Mean"], table("GenImage-SSP")["Mean"]
    assert numbers(macro, "acc", "r_acc", "f_acc") == pytest.approx([0.75, 1, 0.5])
    assert numbers(micro, "acc", "r_acc", "f_acc") == pytest.approx([7 / 8, 1, 3 / 4])
    # Macro: 1 (60 above 50) and 1.  Pooled: 220, 210, 200 fake, then 60 fake and a real of 60 at one score:
    # (1 + 1 + 1 + 4/5) / 4.
    assert float(macro["ap"]) == pytest.approx(1)
    assert float(micro["ap"]) == pytest.approx((3 + 4 / 5) / 4)
    assert micro["reason"] == "over all images; mean over 2 of 8"
    assert macro["reason"] == "mean over 2 of 7"


def expecting(monkeypatch, **cells):
    """Makes "issue4" on ForenSynths these accuracies, or (accuracy, AP) pairs, and nothing else."""
    cells = {name: value if isinstance(value, tuple) else (value, math.nan) for name, value in cells.items()}
    numbers = {name: published.Cell(*pair) for name, pair in cells.items()}
    figures = published.Published("ForenSynths", "issue4", numbers, None, "macro", ("a test",), [])
    keys = ("ForenSynths", "issue4")
    monkeypatch.setattr(published, "lookup", lambda *key: figures if key == keys else None)


def test_expect_succeeds_within_a_fifth_of_a_point(monkeypatch, capsys):
    forensynths_with_one_biggan_error()
    expecting(monkeypatch, BigGAN=0.8765, ProGAN=0.9985, Deepfake=(1.0, 0.999))
    assert status("--expect", "issue4") == 0
    assert "every generator of ForenSynths within 0.2 points" in capsys.readouterr().out


def test_expect_accepts_exactly_a_fifth_of_a_point(monkeypatch):
    forensynths_with_one_biggan_error()  # AP of ours is 1, as printed 100 beside 99.8
    expecting(monkeypatch, ProGAN=0.998, BigGAN=0.877, Deepfake=(1.0, 0.998))
    assert status("--expect", "issue4") == 0


def test_expect_fails_with_the_generators_and_metrics_that_differ(monkeypatch, capsys):
    forensynths_with_one_biggan_error()
    expecting(monkeypatch, BigGAN=0.878, ProGAN=0.999, Deepfake=(1.0, 0.9))
    assert status("--expect", "issue4") == 1
    out = capsys.readouterr().out
    assert "2 numbers are missing or differ" in out
    assert "ForenSynths BigGAN acc: expected 87.8, got 87.5" in out
    assert "ForenSynths Deepfake ap: expected 90.0, got 100.0" in out
    assert "ForenSynths ProGAN acc" not in out
    assert (Path("results/bright/ForenSynths") / "table.csv").is_file()


def test_expect_fails_for_a_generator_that_is_not_there(monkeypatch, capsys):
    forensynths_with_one_biggan_error(only=[])
    expecting(monkeypatch, BigGAN=0.875, ProGAN=0.998)
    assert status("--expect", "issue4") == 1
    assert "ForenSynths ProGAN: no images" in capsys.readouterr().out


def test_expect_fails_for_a_generator_of_one_class_alone(monkeypatch):
    greys("data/ForenSynths_test/biggan", [], [200, 200])
    greys("data/ForenSynths_test/progan/cat", [50], [200])
    expecting(monkeypatch, BigGAN=1.0, ProGAN=1.0)
    assert status("--expect", "issue4") == 1


def test_expect_checks_the_printed_numbers_of_issue_4(capsys):
    forensynths_with_one_biggan_error()
    assert status("--expect", "issue4") == 1
    out = capsys.readouterr().out
    assert "ForenSynths BigGAN acc: expected 84.4, got 87.5" in out
    assert "ForenSynths BigGAN ap: expected 87.8, got 100.0" in out
    assert "ForenSynths ProGAN ap" not in out


@pytest.mark.parametrize("method, chosen", [("issue4", {"ForenSynths"}), ("SSP", {"GenImage-SSP"})])
def test_expect_alone_runs_the_protocols_that_it_has_numbers_for(method, chosen):
    for slug in ("ForenSynths", "GANGen-Detection", "GenImage-NPR"):
        publish(slug)
    status("--expect", method)
    assert done() == chosen


def test_expect_of_a_method_without_numbers_for_the_protocol_fails(capsys):
    publish("DFIG")
    assert status("--protocols", "DFIG", "--expect", "issue4") == 2
    assert "has numbers per generator for ForenSynths, not for DFIG" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["isue4", "none"])
def test_expect_of_an_unknown_method_exits_before_anything_is_read(method, capsys):
    assert status("--expect", method) == 2
    assert "unknown method" in capsys.readouterr().err.splitlines()[-1]


def test_resume_scores_no_image_a_second_time():
    publish("ForenSynths", only=["BigGAN", "GauGAN"])
    run_test("--protocols", "ForenSynths")
    assert len(Brightness.seen) == 4
    before = Path("results/bright/ForenSynths/scores.csv").read_bytes()
    run_test("--protocols", "ForenSynths", "--resume")
    assert len(Brightness.seen) == 4
    assert Path("results/bright/ForenSynths/scores.csv").read_bytes() == before


def test_resume_may_compare_the_kept_scores_with_another_method():
    publish("ForenSynths", only=["BigGAN", "GauGAN"])
    run_test("--protocols", "ForenSynths")
    run_test("--protocols", "ForenSynths", "--resume", "--published", "issue4")
    assert numbers(table("ForenSynths")["BigGAN"], "published_acc") == pytest.approx([0.844])
    assert len(Brightness.seen) == 4


def test_resume_goes_on_with_the_generators_that_an_earlier_run_left():
    publish("DiffusionForensics")
    run_test("--protocols", "DiffusionForensics")
    record = meta("DiffusionForensics")
    del record["finished"]["SDv1"]
    Path("results/bright/DiffusionForensics/meta.json").write_text(json.dumps(record))
    Brightness.seen.clear()
    run_test("--protocols", "DiffusionForensics", "--resume")
    assert len(Brightness.seen) == 2
    paths = [row[0] for row in read_scores(Path("results/bright/DiffusionForensics/scores.csv"))]
    assert len(paths) == len(set(paths)) == 16


@pytest.mark.parametrize(
    "change",
    [
        *({"crop": 4}, {"resize": 16}, {"even": "true"}, {"average": "micro"}, {"interpolation": "nearest"}),
        {"reencode": "{fake: jpeg:96}"},
        {"bare": "true"},
    ],
)
def test_resume_refuses_scores_of_another_row_of_the_same_name(change):
    greys("data/g", [50], [200])
    run_test("--protocol_file", own_row())
    with pytest.raises(ValueError, match="protocol_sha256"):
        run_test("--protocol_file", own_row(**change), "--resume")
    assert len(Brightness.seen) == 2


def test_resume_refuses_scores_of_another_input():
    publish("DFIG")
    run_test("--protocols", "DFIG")
    with pytest.raises(ValueError, match="geometry"):
        run_test("--protocols", "DFIG", "--resume", "--cropSize", "4")


def test_resume_refuses_scores_of_other_weights():
    publish("DFIG")
    run_test("--protocols", "DFIG")
    checkpoint.save("bright.pth", Brightness(-1.0), options={"name": "bright"})
    with pytest.raises(ValueError, match="checkpoint_sha256"):
        run_test("--protocols", "DFIG", "--resume")
    assert len(Brightness.seen) == 2


def test_resume_scores_a_generator_that_was_added_and_keeps_the_others():
    publish("ForenSynths", only=["BigGAN", "GauGAN"])
    run_test("--protocols", "ForenSynths")
    seen = len(Brightness.seen)
    publish("ForenSynths", only=["StarGAN"])
    run_test("--protocols", "ForenSynths", "--resume")
    assert len(Brightness.seen) == seen + 2
    rows = table("ForenSynths")
    assert [rows[name]["images"] for name in ("BigGAN", "StarGAN", "GauGAN")] == ["2", "2", "2"]


def test_resume_after_a_run_of_some_classes_scores_the_rest():
    publish("ForenSynths", only=["BigGAN", "GauGAN"])
    run_test("--protocols", "ForenSynths", "--classes", "biggan")
    run_test("--protocols", "ForenSynths", "--resume")
    assert len(Brightness.seen) == 4
    assert table("ForenSynths")["Mean"]["images"] == "4"


def test_resume_refuses_a_finished_generator_whose_files_changed():
    publish("ForenSynths", only=["BigGAN"])
    run_test("--protocols", "ForenSynths")
    next(Path("data/ForenSynths_test/biggan/0_real").iterdir()).unlink()
    with pytest.raises(ValueError, match="BigGAN"):
        run_test("--protocols", "ForenSynths", "--resume")


def test_a_protocol_without_images_does_not_stop_the_others(capsys):
    publish("GANGen-Detection")
    Path("data/UniversalFakeDetect/dalle/0_real").mkdir(parents=True)
    run_test()
    assert done() == {"GANGen-Detection"}
    assert "UniversalFakeDetect (" in capsys.readouterr().out
    with pytest.raises(ValueError, match="UniversalFakeDetect"):
        run_test("--protocols", "GANGen-Detection", "UniversalFakeDetect", "--name", "other")


@pytest.mark.parametrize("method, compared", [("SSP", True), ("ResNet50", False), ("SSP-rerun", False)])
def test_a_mean_over_images_is_compared_with_no_mean_over_generators(method, compared):
    publish("GenImage-SSP")
    run_test("--protocols", "GenImage-SSP", "--published", method)
    rows = table("GenImage-SSP")
    assert rows["ADM"]["published_acc"]
    assert bool(rows["Mean"]["published_acc"]) == compared


def test_forensynths_lends_its_folder_to_the_thirteen_only_when_all_are_there():
    publish("ForenSynths")
    row = protocols.get("CNNDetection-13")
    assert row.locate("data") is None
    for folder in ("crn", "imle", "seeingdark", "san", "whichfaceisreal"):
        greys(Path("data/ForenSynths_test", folder), [50], [200])
    assert row.locate("data") == Path("data/ForenSynths_test")


def test_a_folder_called_test_is_dfig_only_when_asked_for():
    greys("data/test", [50], [200])
    with pytest.raises(ValueError, match="--dataroot"):
        run_test("--protocols", "all")
    run_test("--protocols", "DFIG")
    assert table("DFIG")["StyleGAN"]["images"] == "2"
