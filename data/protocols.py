"""Benchmarks, one row each: folders, generators in the paper's order, geometry, source.

A row is all that a script knows of a benchmark.  To add one, add a row and a test that builds its tree, or
write it in a YAML file of your own (data/protocol.py) and name that with --protocol_file.
"""

from dataclasses import replace

from common import UserError
from data.protocol import STORED, Generator, Protocol, load_file
from data.transforms import Geometry

SQUARE_256 = Geometry(load_size=256, crop_size=None)  # upstream's test.py for most sets
NPR_PAPER = "Tan et al., CVPR 2024"
DDA_PAPER = "Dual Data Alignment (Chen et al., NeurIPS 2025)"
UPSTREAM = "https://github.com/chuangchuangtan/NPR-DeepfakeDetection"
LSUN = """airplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor""".split()  # the classes of ProGAN's images


def _family(family, words, count=None, within=0):
    """Generators of one family, from "Name=folder,other_folder Name2 ..."; count: images per class."""
    images = {"images": (count, count), "images_within": within} if count else {}
    pairs = (word.partition("=")[::2] for word in words.split())
    return tuple(
        Generator(name, tuple((folders or name).split(",")), family, **images) for name, folders in pairs
    )


def _named(generators, names):
    known = {generator.name: generator for generator in generators}
    return tuple(known[name] for name in names.split())


# Images of the CNNDetection test set as its paper gives them, half of the total per class, rounded there.
_CNN = (
    *_family("gan", "ProGAN=progan", 4000, 25),
    *_family("gan", "StyleGAN=stylegan", 6000, 25),
    *_family("gan", "StyleGAN2=stylegan2", 8000, 50),
    *_family("gan", "BigGAN=biggan StarGAN=stargan", 2000, 25),
    *_family("gan", "CycleGAN=cyclegan", 1300, 25),
    *_family("gan", "GauGAN=gaugan", 5000, 25),
    *_family("gan", "WFIR=whichfaceisreal,wfir", 1000),
    *_family("face-swap", "Deepfake=deepfake", 2700, 25),
    *_family("rendering", "CRN=crn IMLE=imle", 6400, 25),
    *_family("rendering", "SITD=seeingdark,sitd", 180),
    *_family("rendering", "SAN=san", 220, 5),
)
# GenImage's validation folders, which are its test set: 6,000 + 6,000 images, SDv1.5 8,000 + 8,000.
_GENIMAGE = tuple(
    Generator(name, (inner, f"{outer}/{inner}", inner.rpartition("_")[2]), family, (count, count))
    for name, family, count, outer, inner in (
        ("ADM", "diffusion", 6000, "ADM", "imagenet_ai_0508_adm"),
        ("BigGAN", "gan", 6000, "BigGAN", "imagenet_ai_0419_biggan"),
        ("GLIDE", "diffusion", 6000, "glide", "imagenet_glide"),
        ("Midjourney", "diffusion", 6000, "Midjourney", "imagenet_midjourney"),
        ("SDv1.4", "diffusion", 6000, "stable_diffusion_v_1_4", "imagenet_ai_0419_sdv4"),
        ("SDv1.5", "diffusion", 8000, "stable_diffusion_v_1_5", "imagenet_ai_0424_sdv5"),
        ("VQDM", "diffusion", 6000, "VQDM", "imagenet_ai_0419_vqdm"),
        ("Wukong", "diffusion", 6000, "wukong", "imagenet_ai_0424_wukong"),
    )
)
_GENIMAGE_FOLDERS = {
    "roots": ("GenImage", "genimage"),
    "places": ("{generator}/val", "test/{generator}", "{generator}"),  # original; as NPR's train.py has it
    "train_places": ("{generator}/train", "train/{generator}"),
    "labels": ("nature", "ai"),
    "split": "val",
    "training": tuple(replace(row, images=None) for row in _GENIMAGE),
    "train_on": ("SDv1.4",),
    "url": "https://github.com/GenImage-Dataset/GenImage",
}
_GENIMAGE_8 = _named(_GENIMAGE, "Midjourney SDv1.4 SDv1.5 ADM GLIDE Wukong VQDM BigGAN")
_TINY = _named(_GENIMAGE, "ADM BigGAN GLIDE Midjourney SDv1.5 VQDM Wukong")

_COCO = ("../MSCOCO/val2017", "MSCOCO/val2017", "../val2017", "val2017")

ROWS = (
    Protocol(
        slug="ForenSynths",
        roots=("ForenSynths_test", "ForenSynths"),
        generators=_named(_CNN, "ProGAN StyleGAN StyleGAN2 BigGAN CycleGAN StarGAN GauGAN Deepfake"),
        geometry=SQUARE_256,
        training=tuple(Generator(name, images=(18_000, 18_000)) for name in LSUN),
        train_roots=("ForenSynths_train_val", "../ForenSynths_train_val"),
        train_places=("train/{generator}",),
        val_places=("val/{generator}",),
        train_on=("car", "cat", "chair", "horse"),
        seed=100,
        source=f"{NPR_PAPER}, Table 1; images of Wang et al., CVPR 2020",
        url="https://github.com/PeterWang512/CNNDetection",
    ),
    Protocol(
        slug="CNNDetection-13",
        roots=("CNN_synth_testset", "CNNDetection"),
        borrowed=("ForenSynths_test", "ForenSynths"),
        generators=_named(
            _CNN, "ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN CRN IMLE SITD SAN Deepfake StyleGAN2 WFIR"
        ),
        geometry=Geometry(None, 224),  # theirs pads images below 224; here they repeat
        source="Wang et al., CVPR 2020 (eval.py: stored size, centre crop 224)",
        url="https://github.com/PeterWang512/CNNDetection",
    ),
    Protocol(
        slug="GANGen-Detection",
        roots=("GANGen-Detection",),
        generators=_family("gan", "AttGAN BEGAN CramerGAN InfoMaxGAN MMDGAN RelGAN S3GAN SNGAN STGAN", 2000),
        geometry=STORED,
        seed=100,
        source=f"{NPR_PAPER}, Table 2; images of FreqNet, AAAI 2024",
        url="https://github.com/chuangchuangtan/GANGen-Detection",
    ),
    Protocol(
        slug="DiffusionForensics",
        roots=("DiffusionForensics",),
        generators=_family(
            "diffusion",
            "ADM=adm DDPM=ddpm IDDPM=iddpm LDM=ldm PNDM=pndm VQDiffusion=vqdiffusion "
            "SDv1=sdv1_new,sdv1 SDv2=sdv2",
        ),
        geometry=SQUARE_256,
        seed=100,
        source=f"{NPR_PAPER}, Table 3; images of DIRE, ICCV 2023",
        url="https://github.com/ZhendongWang6/DIRE",
    ),
    Protocol(
        slug="UniversalFakeDetect",
        roots=("UniversalFakeDetect",),
        generators=(
            *_family("autoregressive", "DALLE=dalle", 1000),
            *_family(
                "diffusion",
                "Glide100_10=glide_100_10 Glide100_27=glide_100_27 Glide50_27=glide_50_27 ADM=guided "
                "LDM100=ldm_100 LDM200=ldm_200 LDM200cfg=ldm_200_cfg",
                1000,
            ),
        ),
        geometry=SQUARE_256,
        seed=100,
        source=f"{NPR_PAPER}, Table 4; images of Ojha et al., CVPR 2023",
        url="https://github.com/Yuheng-Li/UniversalFakeDetect",
    ),
    Protocol(
        slug="Diffusion1kStep",
        roots=("Diffusion1kStep",),
        generators=(
            *_family(
                "diffusion",
                "DDPM=ddpm IDDPM=improved-diffusion,iddpm ADM=guided-diffusion,adm Midjourney=midjourney",
            ),
            *_family("autoregressive", "DALLE"),
        ),
        geometry=SQUARE_256,  # upstream's test.py has no line for it; taken as its neighbours
        seed=100,
        source=f"{NPR_PAPER}, Table 5",
        url=UPSTREAM,
    ),
    Protocol(
        slug="AIGCDetectBenchmark",
        roots=("AIGCDetectBenchmark", "AIGCDetectBenchmark/test", "AIGCDetect_testset/test"),
        generators=(
            *_named(_CNN, "ProGAN StyleGAN BigGAN CycleGAN StarGAN GauGAN StyleGAN2 WFIR"),
            *_family("diffusion", "ADM Glide Midjourney SDv1.4=stable_diffusion_v_1_4,sdv4", 6000),
            *_family("diffusion", "SDv1.5=stable_diffusion_v_1_5,sdv5", 8000),
            *_family("diffusion", "VQDM Wukong=wukong", 6000),
            *_family("diffusion", "DALLE2", 1000),
        ),
        geometry=Geometry(load_size=None, crop_size=None, even=True),
        seed=100,
        source="README of NPR-DeepfakeDetection, AIGCDetectBenchmark; benchmark of Zhong et al., 2023",
        url="https://github.com/Ekko-zn/AIGCDetectBenchmark",
    ),
    Protocol(
        slug="GenImage-NPR",
        generators=_TINY,
        geometry=Geometry(load_size=None, crop_size=224),
        seed=70,
        source="README of NPR-DeepfakeDetection, GenImage; images of Zhu et al., NeurIPS 2023",
        **_GENIMAGE_FOLDERS,
    ),
    Protocol(
        slug="GenImage-SSP",
        generators=_GENIMAGE_8,
        geometry=SQUARE_256,  # for a whole image; SSP itself takes patches at the stored size
        average="micro",
        seed=42,
        source="README of SSP-AI-Generated-Image-Detection; images of Zhu et al., NeurIPS 2023",
        **_GENIMAGE_FOLDERS,
    ),
    Protocol(
        slug="Tiny-GenImage",
        roots=("Tiny-GenImage", "tiny_genimage", "genimage"),
        generators=tuple(replace(row, images=(500, 500)) for row in _TINY),
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
        slug="WildRF",
        roots=("WildRF",),
        generators=(Generator("Facebook"), Generator("Reddit"), Generator("X", ("twitter", "x"))),
        geometry=STORED,
        places=("test/{generator}",),
        training=(Generator("Reddit"),),
        train_places=("train",),
        val_places=("val",),
        source="Cavia et al., arXiv 2406.09398; input as stored, since the paper's detector takes any size",
        url="https://github.com/barcavia/RealTime-DeepfakeDetection-in-the-RealWorld",
    ),
    Protocol(
        slug="Synthbuster",
        roots=("Synthbuster",),
        generators=_family(
            "diffusion",
            "DALLE2=dalle2 DALLE3=dalle3 Firefly=firefly Glide=glide Midjourney-v5=midjourney-v5 "
            "SDv1.3=stable-diffusion-1-3 SDv1.4=stable-diffusion-1-4 SDv2=stable-diffusion-2 "
            "SDXL=stable-diffusion-xl",
            1000,
        ),
        geometry=STORED,
        places=("synthbuster/{generator}", "{generator}"),  # as unpacked in a folder for it and for its reals
        bare=True,
        reals=("real_RAISE_1k", "../real_RAISE_1k", "RAISE-1k"),
        source="Bammey, IEEE OJSP 2023; reals: RAISE-1k, Dang-Nguyen et al., MMSys 2015",
        url="https://zenodo.org/records/10066460",
    ),
    Protocol(
        slug="DRCT-2M",
        roots=("DRCT-2M",),
        # Names as in the paper's tables: its folders are called after the hub's models.
        generators=_family(
            "diffusion",
            "LDM=ldm-text2im-large-256 SDv1.4=stable-diffusion-v1-4 SDv1.5=stable-diffusion-v1-5 "
            "SDv2=stable-diffusion-2-1 SDXL=stable-diffusion-xl-base-1.0 "
            "SDXL-Refiner=stable-diffusion-xl-refiner-1.0 SD-Turbo=sd-turbo SDXL-Turbo=sdxl-turbo "
            "LCM-SDv1.5=lcm-lora-sdv1-5 LCM-SDXL=lcm-lora-sdxl SDv1-Ctrl=sd-controlnet-canny "
            "SDv2-Ctrl=sd21-controlnet-canny SDXL-Ctrl=controlnet-canny-sdxl-1.0 "
            "SDv1-DR=stable-diffusion-inpainting SDv2-DR=stable-diffusion-2-inpainting "
            "SDXL-DR=stable-diffusion-xl-1.0-inpainting-0.1",
        ),
        geometry=STORED,
        places=("{generator}/val2017",),
        bare=True,
        reals=_COCO,
        source="Chen et al., ICML 2024; reals: MS COCO, val2017",
        url="https://modelscope.cn/datasets/BokingChen/DRCT-2M",
    ),
    Protocol(
        slug="DDA-COCO",
        roots=("DDA-COCO",),
        generators=_family(
            "diffusion",
            "SDXL-VAE=sdxl-vae SD-VAE-EMA=sd-vae-ft-ema SD-VAE-MSE=sd-vae-ft-mse SD2.1=stable-diffusion-2-1 "
            "SD3.5=stable-diffusion-3.5-large",
        ),
        geometry=STORED,
        bare=True,
        reals=_COCO,
        source=f"{DDA_PAPER}: MS COCO, val2017, through five autoencoders",
        url="https://huggingface.co/datasets/Junwei-Xi/DDA-COCO",
    ),
    Protocol(
        slug="EvalGEN",
        roots=("EvalGEN", "GenEval-JPEG"),
        generators=(
            *_family("diffusion", "Flux GoT OmniGen"),
            *_family("autoregressive", "Infinity NOVA"),
        ),
        geometry=STORED,
        bare=True,
        source=f"{DDA_PAPER}: fakes only, so that accuracy is recall",
        url="https://huggingface.co/datasets/Junwei-Xi/EvalGEN",
    ),
    Protocol(
        slug="Open-Test",  # one row: its photographs belong to no single generator
        generators=(Generator("unseen", ("manifest/test",), images=(465, 546)),),
        geometry=Geometry(load_size=None, crop_size=256),
        source="the part test of weights/manifest.csv (docs/training-aligned.md)",
    ),
    Protocol(
        slug="AIGIBench",
        roots=("AIGIBench",),
        generators=(
            *_family("gan", "ProGAN R3GAN StyleGAN3 StyleGAN-XL StyleSwin=StyleSwim,StyleSwin"),
            *_family("gan", "WFIR", 1000),
            *_family("face-swap", "BlendFace E4S"),
            *_family("face-swap", "FaceSwap InSwap", 4000),
            *_family("face-swap", "SimSwap"),
            *_family("diffusion", "DALLE3=DALLE-3,DALLE3 FLUX1-dev GLIDE Imagen3"),
            *_family("diffusion", "Midjourney-V6=Midjourney-V6,Midjourney SD3 SDXL"),
            *_family("diffusion", "BLIP Infinite-ID InstantID IP-Adapter PhotoMaker"),
            *_family("", "CommunityAI", 6000),
            *_family("", "SocialRF", 3000),
        ),
        geometry=SQUARE_256,  # of its test of NPR
        places=("test/{generator}", "{generator}"),
        training=tuple(map(Generator, ("car", "cat", "chair", "horse", "sdv1.4"))),  # its Setting II
        train_places=("train/{generator}",),
        val_places=("val/{generator}",),
        source="README of AIGIBench; Li et al., NeurIPS 2025",
        url="https://github.com/HorizonTEL/AIGIBench",
    ),
    Protocol(
        slug="Sample",
        roots=("sample/test", "test"),
        generators=_family("upsampler", "nearest bilinear bicubic transposed pixelshuffle"),
        geometry=STORED,
        source="data/sample.py; trained on `nearest`, the others are unseen",
    ),
)
PROTOCOLS = {row.slug: row for row in ROWS}


def _dda(slug, like, generators, note):
    """The row called `like` with its fakes at the quality of most of its photographs: DDA's evaluation."""
    own = {"slug": slug, "generators": generators, "source": f"README of {DDA_PAPER}; {note}", "seed": None}
    untrained = {"training": (), "train_roots": (), "train_places": (), "val_places": (), "train_on": ()}
    return replace(PROTOCOLS[like], **own, **untrained, reencode=(("fake", "jpeg:96"),))


_GANS = "ProGAN StyleGAN StyleGAN2 BigGAN CycleGAN StarGAN GauGAN Deepfake CRN IMLE WFIR"
_NO_INPUT = "its resize and crop are not stated, taken from the protocol"
_ALIGNED = (
    _dda("GenImage-DDA", "GenImage-NPR", _GENIMAGE_8, f"{_NO_INPUT} GenImage-NPR"),
    _dda(
        "ForenSynths-DDA",
        "ForenSynths",
        _named(_CNN, _GANS),
        f"{_NO_INPUT} ForenSynths; its eleven sets are not named, taken as the thirteen without SITD and SAN",
    ),
    _dda(
        "AIGCDetectBenchmark-DDA",
        "AIGCDetectBenchmark",
        (*PROTOCOLS["AIGCDetectBenchmark"].generators, *_family("diffusion", "SDXL=sd_xl")),
        f"{_NO_INPUT} AIGCDetectBenchmark",
    ),
)
PROTOCOLS |= {row.slug: row for row in _ALIGNED}
# What test.py runs without being asked: upstream's four and Diffusion1kStep.
DEFAULT = ("ForenSynths", "GANGen-Detection", "DiffusionForensics", "UniversalFakeDetect", "Diffusion1kStep")


def known(protocol_file=None):
    """{slug: row} of all protocols, with those of a user's YAML file."""
    rows = dict(PROTOCOLS)
    for row in load_file(protocol_file) if protocol_file else ():
        if row.slug.lower() in map(str.lower, rows):
            raise UserError(f"{protocol_file}: there is a protocol {row.slug} already; give it another slug")
        rows[row.slug] = row
    return rows


def get(slug, protocol_file=None):
    """The row called `slug`, in any case; UserError lists the known ones."""
    rows = known(protocol_file)
    for name, row in rows.items():
        if name.lower() == slug.lower():
            return row
    raise UserError(f"unknown protocol {slug!r}; known: {', '.join(rows)}")
