"""Benchmarks, one row each: folders, generators in the paper's order, geometry, source.

A row is all that a script knows of a benchmark.  To add one, add a row and a test that builds its tree, or
write it in a YAML file of your own (data/protocol.py) and name that with --protocol_file.
"""

from dataclasses import replace

from common import UserError
from data.protocol import Generator, Protocol, load_file
from data.transforms import Geometry

SQUARE_256 = Geometry(load_size=256, crop_size=None)  # upstream's test.py for most sets
STORED = Geometry(load_size=None, crop_size=None)
NPR_PAPER = "Tan et al., CVPR 2024"
UPSTREAM = "https://github.com/chuangchuangtan/NPR-DeepfakeDetection"
LSUN = """airplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor""".split()  # the classes of ProGAN's images


def _family(family, *rows):
    """Generators of one family: a name (its folder is the same word), or (name, folders, extras)."""
    entries = [(row, (row,), {}) if isinstance(row, str) else (*row, {})[:3] for row in rows]
    return [Generator(name, tuple(folders), family, **extras) for name, folders, extras in entries]


def _counted(per_class, within=0, nested=False):
    return {"images": (per_class, per_class), "images_within": within, "nested": nested}


# Images of the CNNDetection test set as its paper gives them, half of the total per class, rounded there.
_CNN = {
    row.name: row
    for row in (
        *_family(
            "gan",
            ("ProGAN", ["progan"], _counted(4000, 25, nested=True)),
            ("StyleGAN", ["stylegan"], _counted(6000, 25, nested=True)),
            ("StyleGAN2", ["stylegan2"], _counted(8000, 50, nested=True)),
            ("BigGAN", ["biggan"], _counted(2000, 25)),
            ("CycleGAN", ["cyclegan"], _counted(1300, 25, nested=True)),
            ("StarGAN", ["stargan"], _counted(2000, 25)),
            ("GauGAN", ["gaugan"], _counted(5000, 25)),
        ),
        *_family("face-swap", ("Deepfake", ["deepfake"], _counted(2700, 25))),
        *_family(
            "rendering",
            ("CRN", ["crn"], _counted(6400, 25)),
            ("IMLE", ["imle"], _counted(6400, 25)),
            ("SITD", ["seeingdark", "sitd"], _counted(180)),
            ("SAN", ["san"], _counted(220, 5)),
        ),
        *_family("gan", ("WFIR", ["whichfaceisreal", "wfir"], _counted(1000))),
    )
}


def _cnn(names):
    return tuple(_CNN[name] for name in names.split())


# GenImage's validation folders, which are its test set: 6,000 + 6,000 images, SDv1.5 8,000 + 8,000.
_GENIMAGE = {
    name: Generator(name, (inner, f"{outer}/{inner}", short), family, images=(count, count))
    for name, outer, inner, short, family, count in (
        ("ADM", "ADM", "imagenet_ai_0508_adm", "adm", "diffusion", 6000),
        ("BigGAN", "BigGAN", "imagenet_ai_0419_biggan", "biggan", "gan", 6000),
        ("GLIDE", "glide", "imagenet_glide", "glide", "diffusion", 6000),
        ("Midjourney", "Midjourney", "imagenet_midjourney", "midjourney", "diffusion", 6000),
        ("SDv1.4", "stable_diffusion_v_1_4", "imagenet_ai_0419_sdv4", "sdv4", "diffusion", 6000),
        ("SDv1.5", "stable_diffusion_v_1_5", "imagenet_ai_0424_sdv5", "sdv5", "diffusion", 8000),
        ("VQDM", "VQDM", "imagenet_ai_0419_vqdm", "vqdm", "diffusion", 6000),
        ("Wukong", "wukong", "imagenet_ai_0424_wukong", "wukong", "diffusion", 6000),
    )
}
_GENIMAGE_FOLDERS = {
    "roots": ("GenImage", "genimage"),
    "places": ("{generator}/val", "test/{generator}", "{generator}"),  # original; as NPR's train.py has it
    "train_places": ("{generator}/train", "train/{generator}"),
    "labels": ("nature", "ai"),
    "split": "val",
    "training": tuple(replace(row, images=None) for row in _GENIMAGE.values()),
    "train_on": ("SDv1.4",),
    "url": "https://github.com/GenImage-Dataset/GenImage",
}


def _genimage(names):
    return tuple(_GENIMAGE[name] for name in names.split())


_TINY = tuple(
    replace(row, images=(500, 500)) for row in _genimage("ADM BigGAN GLIDE Midjourney SDv1.5 VQDM Wukong")
)

ROWS = (
    Protocol(
        slug="ForenSynths",
        roots=("ForenSynths_test", "ForenSynths"),
        generators=_cnn("ProGAN StyleGAN StyleGAN2 BigGAN CycleGAN StarGAN GauGAN Deepfake"),
        geometry=SQUARE_256,
        training=tuple(Generator(name, images=(18_000, 18_000)) for name in LSUN),
        train_roots=("ForenSynths_train_val", "../ForenSynths_train_val"),
        train_places=("train/{generator}",),
        val_places=("val/{generator}",),
        train_on=("car", "cat", "chair", "horse"),
        seed=100,
        source=f"{NPR_PAPER}, Table 1; images of Wang et al., CVPR 2020",
        url="https://github.com/PeterWang512/CNNDetection",
        default=True,
    ),
    Protocol(
        slug="CNNDetection-13",
        roots=("CNN_synth_testset", "CNNDetection"),
        borrowed=("ForenSynths_test", "ForenSynths"),
        generators=_cnn(
            "ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN CRN IMLE SITD SAN Deepfake StyleGAN2 WFIR"
        ),
        geometry=Geometry(None, 224),  # theirs pads images below 224; here they repeat
        source="Wang et al., CVPR 2020 (eval.py: stored size, centre crop 224)",
        url="https://github.com/PeterWang512/CNNDetection",
    ),
    Protocol(
        slug="GANGen-Detection",
        roots=("GANGen-Detection",),
        generators=tuple(
            _family(
                "gan",
                *(
                    (name, [name], _counted(2000))
                    for name in "AttGAN BEGAN CramerGAN InfoMaxGAN MMDGAN RelGAN S3GAN SNGAN STGAN".split()
                ),
            )
        ),
        geometry=STORED,
        seed=100,
        source=f"{NPR_PAPER}, Table 2; images of FreqNet, AAAI 2024",
        url="https://github.com/chuangchuangtan/GANGen-Detection",
        default=True,
    ),
    Protocol(
        slug="DiffusionForensics",
        roots=("DiffusionForensics",),
        generators=tuple(
            _family(
                "diffusion",
                ("ADM", ["adm"]),
                ("DDPM", ["ddpm"]),
                ("IDDPM", ["iddpm"]),
                ("LDM", ["ldm"]),
                ("PNDM", ["pndm"]),
                ("VQDiffusion", ["vqdiffusion"]),
                ("SDv1", ["sdv1_new", "sdv1"]),
                ("SDv2", ["sdv2"]),
            )
        ),
        geometry=SQUARE_256,
        seed=100,
        source=f"{NPR_PAPER}, Table 3; images of DIRE, ICCV 2023",
        url="https://github.com/ZhendongWang6/DIRE",
        default=True,
    ),
    Protocol(
        slug="UniversalFakeDetect",
        roots=("UniversalFakeDetect",),
        generators=(
            *_family("autoregressive", ("DALLE", ["dalle"], _counted(1000))),
            *_family(
                "diffusion",
                ("Glide100_10", ["glide_100_10"], _counted(1000)),
                ("Glide100_27", ["glide_100_27"], _counted(1000)),
                ("Glide50_27", ["glide_50_27"], _counted(1000)),
                ("ADM", ["guided"], _counted(1000)),
                ("LDM100", ["ldm_100"], _counted(1000)),
                ("LDM200", ["ldm_200"], _counted(1000)),
                ("LDM200cfg", ["ldm_200_cfg"], _counted(1000)),
            ),
        ),
        geometry=SQUARE_256,
        seed=100,
        source=f"{NPR_PAPER}, Table 4; images of Ojha et al., CVPR 2023",
        url="https://github.com/Yuheng-Li/UniversalFakeDetect",
        default=True,
    ),
    Protocol(
        slug="Diffusion1kStep",
        roots=("Diffusion1kStep",),
        generators=(
            *_family(
                "diffusion",
                ("DDPM", ["ddpm"]),
                ("IDDPM", ["improved-diffusion", "iddpm"]),
                ("ADM", ["guided-diffusion", "adm"]),
                ("Midjourney", ["midjourney"]),
            ),
            *_family("autoregressive", ("DALLE", ["DALLE"])),
        ),
        geometry=SQUARE_256,  # upstream's test.py has no line for it; taken as its neighbours
        seed=100,
        source=f"{NPR_PAPER}, Table 5",
        url=UPSTREAM,
        default=True,
    ),
    Protocol(
        slug="AIGCDetectBenchmark",
        roots=("AIGCDetectBenchmark", "AIGCDetectBenchmark/test", "AIGCDetect_testset/test"),
        generators=(
            *_cnn("ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN StyleGAN2 WFIR"),
            *_family(
                "diffusion",
                ("ADM", ["ADM"], _counted(6000)),
                ("Glide", ["Glide"], _counted(6000)),
                ("Midjourney", ["Midjourney"], _counted(6000)),
                ("SDv1.4", ["stable_diffusion_v_1_4", "sdv4"], _counted(6000)),
                ("SDv1.5", ["stable_diffusion_v_1_5", "sdv5"], _counted(8000)),
                ("VQDM", ["VQDM"], _counted(6000)),
                ("Wukong", ["wukong"], _counted(6000)),
                ("DALLE2", ["DALLE2"], _counted(1000)),
            ),
        ),
        geometry=Geometry(load_size=None, crop_size=None, even=True),
        seed=100,
        source="README of NPR-DeepfakeDetection, AIGCDetectBenchmark; benchmark of Zhong et al., 2023",
        url="https://github.com/Ekko-zn/AIGCDetectBenchmark",
    ),
    Protocol(
        slug="GenImage-NPR",
        generators=_genimage("ADM BigGAN GLIDE Midjourney SDv1.5 VQDM Wukong"),
        geometry=Geometry(load_size=None, crop_size=224),
        seed=70,
        source="README of NPR-DeepfakeDetection, GenImage; images of Zhu et al., NeurIPS 2023",
        **_GENIMAGE_FOLDERS,
    ),
    Protocol(
        slug="GenImage-SSP",
        generators=_genimage("Midjourney SDv1.4 SDv1.5 ADM GLIDE Wukong VQDM BigGAN"),
        geometry=SQUARE_256,  # for a whole image; SSP itself takes patches at the stored size
        average="micro",
        seed=42,
        source="README of SSP-AI-Generated-Image-Detection; images of Zhu et al., NeurIPS 2023",
        **_GENIMAGE_FOLDERS,
    ),
    Protocol(
        slug="Tiny-GenImage",
        roots=("Tiny-GenImage", "tiny_genimage", "genimage"),
        generators=_TINY,
        geometry=Geometry(load_size=256, crop_size=224),
        places=("val/{generator}",),
        train_places=("train/{generator}",),
        labels=("nature", "ai"),
        split="val",
        seed=100,
        training=tuple(replace(row, images=(2000, 2000)) for row in _TINY),
        source="README of CVIMGDetection, folder NPR",
        url="https://github.com/CVLabWorks/CVIMGDetection",
    ),
    Protocol(
        slug="DFIG",
        roots=("DFIG", "results_mask/LNP"),
        generators=(Generator("StyleGAN", (), "gan", images=(10_000, 10_000)),),
        geometry=Geometry(None, 224),  # of its training; its demo_dir.py takes the 256-px faces whole
        places=("test",),
        train_places=("train",),
        val_places=("val", "valid"),
        training=(Generator("StyleGAN", (), "gan", images=(50_000, 50_000)),),
        source="README of Detecting-Face-Images-Generated-by-AI",
        url="https://github.com/YueWan1/Detecting-Face-Images-Generated-by-AI",
    ),
    Protocol(
        slug="Sample",
        roots=("sample/test", "test"),
        generators=tuple(
            _family("upsampler", "nearest", "bilinear", "bicubic", "transposed", "pixelshuffle")
        ),
        geometry=STORED,
        source="data/sample.py; trained on `nearest`, the others are unseen",
    ),
)
PROTOCOLS = {row.slug: row for row in ROWS}
DEFAULT = tuple(row.slug for row in ROWS if row.default)  # upstream's four and Diffusion1kStep


def known(protocol_file=None):
    """{slug: row} of all protocols, with those of a user's YAML file."""
    rows = dict(PROTOCOLS)
    for row in load_file(protocol_file) if protocol_file else ():
        if row.slug.lower() in {slug.lower() for slug in rows}:
            raise UserError(f"{protocol_file}: there is a protocol {row.slug} already; give it another slug")
        rows[row.slug] = row
    return rows


def get(slug, protocol_file=None):
    """The row called `slug`, in any case; UserError lists the known ones."""
    rows = known(protocol_file)
    row = {name.lower(): row for name, row in rows.items()}.get(slug.lower())
    if row is None:
        raise UserError(f"unknown protocol {slug!r}; known: {', '.join(rows)}")
    return row
