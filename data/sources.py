"""Where the public sets and weights come from: one row each, for data/download.py.

The links are the published ones; some are dead or restricted by now.  Size and sha256 are given where they
are known.
"""

from dataclasses import dataclass

DRIVE = {
    "gdrive": "https://drive.google.com/file/d/{}/view",
    "gdrive_folder": "https://drive.google.com/drive/folders/{}",
}
KINDS = ("http", "manual", *DRIVE)
ARCHIVES = "archives"  # folder of the downloaded archives below the output folder
TEST_ROOT = "Generalization_Test"
RETRIES = 3  # of a request
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """One download: what to fetch, and where it goes below the output folder."""

    where: str  # URL, or the id of a Drive file or folder
    kind: str  # one of KINDS
    target: str  # folder of the images; without `unpack` the file itself, or a copy of the Drive folder
    name: str = ""  # file name of the archive; in a Drive folder without `unpack`, of the file to check
    bytes: int | None = None  # of that file, or of `target`
    sha256: str | None = None
    unpack: bool = False  # `name`, or every archive in the Drive folder, is unpacked into `target`
    strip: bool = False  # drop a single folder around everything in the archive
    note: str = ""  # for the user: other addresses, and what to do by hand
    licence: str = ""  # of weights: what their publisher says about their use

    @property
    def page(self):
        """The address to open in a browser."""
        return DRIVE.get(self.kind, "{}").format(self.where)


def _forensynths(drive_id, target, name):
    note = "the Drive links may have moved (July 2024); a copy: huggingface.co/datasets/sywang/CNNDetection"
    return Source(drive_id, "gdrive", target, name, unpack=True, strip=True, note=note)


def _drive_folder(drive_id, name, other=""):
    note = f"another folder, named by its authors: {DRIVE['gdrive_folder'].format(other)}" if other else ""
    return Source(drive_id, "gdrive_folder", f"{TEST_ROOT}/{name}", unpack=True, note=note)


def _by_hand(url, target, note, **facts):
    return Source(url, "manual", target, note=note, **facts)


_FORENSYNTHS_TEST = _forensynths(
    "1z_fD3UKgWQyOTZIBbYSaQ-hz4AzUrLC1", f"{TEST_ROOT}/ForenSynths_test", "CNN_synth_testset.zip"
)
_GENIMAGE = _by_hand(
    "https://github.com/GenImage-Dataset/GenImage",
    "GenImage",
    "Drive and Baidu pages with a folder of split zips for each generator (ADM, BigGAN, glide, ...). "
    "Unpack each with 7-Zip into GenImage/<that folder>, for example: 7z x imagenet_ai_0508_adm.zip "
    "-oGenImage/ADM (unzip takes the zip of SD 1.5 for a zip bomb; 7z unpacks it)",
    unpack=True,
)
_TINY_GENIMAGE = _by_hand(
    "https://github.com/CVLabWorks/CVIMGDetection",
    "Tiny-GenImage",
    "see the README of its folder NPR; the target holds {train,val}/<generator>/{nature,ai}",
    unpack=True,
    strip=True,
)
_AIGC = _drive_folder(
    "1BUv1MT1cm90QN3WTMHLEr8PXBsKGxKC9", "AIGCDetectBenchmark", "1p4ewuAo7d5LbNJ4cKyh10Xl9Fg2yoFOw"
)
_SDXL = _by_hand(
    "https://github.com/Ekko-zn/AIGCDetectBenchmark",
    f"{TEST_ROOT}/AIGCDetectBenchmark",
    "its seventeenth set, sd_xl, where the archives of AIGCDetectBenchmark lack it",
)
_RAISE = (
    "reals: https://www.grip.unina.it/download/prog/DMimageDetection/real_RAISE_1k.zip, in the same folder"
)
_COCO = "reals: http://images.cocodataset.org/zips/val2017.zip, unpacked into datasets/MSCOCO/val2017"
_FFHQ = "reals: FFHQ, into {train,val,test}/0_real; 50,000, 10,000 and 10,000 images"
_FAKE_FACES = "fakes: 1 Million Fake Faces (Kaggle account), into {train,val,test}/1_fake; as many"

# protocol: its downloads; no two downloads unpack into the same target
SOURCES = {
    "ForenSynths": (_FORENSYNTHS_TEST,),
    "ForenSynths-train": (
        _forensynths("1iVNBV0glknyTYGA9bCxT_d0CVTOgGcKh", "ForenSynths_train_val/train", "progan_train.zip"),
        _forensynths("1FU7xF8Wl_F8b0tgL0529qg2nZ_RpdVNL", "ForenSynths_train_val/val", "progan_val.zip"),
    ),
    "CNNDetection-13": (_FORENSYNTHS_TEST,),
    "GANGen-Detection": (_drive_folder("11E0Knf9J1qlv2UuTnJSOFUjIIi90czSj", "GANGen-Detection"),),
    "DiffusionForensics": (
        _drive_folder(
            "1tKsOU-6FDdstrrKLPYuZ7RpQwtOSHxUD", "DiffusionForensics", "1jZE4hg6SxRvKaPYO_yyMeJN_DOcqGMEf"
        ),
    ),
    "UniversalFakeDetect": (_drive_folder("1nkCXClC7kFM01_fqmLrVNtnOYEFPtWO-", "UniversalFakeDetect"),),
    "Diffusion1kStep": (_drive_folder("14f0vApTLiukiPvIHukHDzLujrvJpDpRq", "Diffusion1kStep"),),
    "AIGCDetectBenchmark": (_AIGC,),
    "GenImage-NPR": (_GENIMAGE,),
    "GenImage-SSP": (_GENIMAGE,),
    "Tiny-GenImage": (_TINY_GENIMAGE,),
    "DFIG": (
        _by_hand("https://github.com/NVlabs/ffhq-dataset", "DFIG", _FFHQ),
        _by_hand("https://www.kaggle.com/datasets/tunguz/1-million-fake-faces", "DFIG", _FAKE_FACES),
    ),
    "WildRF": (
        Source(
            "1A0xoL44Yg68ixd-FuIJn2VC4vdZ6M2gn", "gdrive", "WildRF", "WildRF.zip", unpack=True, strip=True
        ),
    ),
    "Synthbuster": (_by_hand("https://zenodo.org/records/10066460", "Synthbuster", _RAISE, unpack=True),),
    "DRCT-2M": (_by_hand("https://modelscope.cn/datasets/BokingChen/DRCT-2M", "DRCT-2M", _COCO),),
    "DDA-COCO": (
        _by_hand(
            "https://huggingface.co/datasets/Junwei-Xi/DDA-COCO", "DDA-COCO", _COCO, unpack=True, strip=True
        ),
    ),
    "EvalGEN": (
        _by_hand(
            "https://huggingface.co/datasets/Junwei-Xi/EvalGEN",
            "EvalGEN",
            "fakes only; DDA takes one image per prompt, those ending in _0.jpg",
        ),
    ),
    "AIGIBench": (
        _by_hand(
            "https://huggingface.co/datasets/HorizonTEL/AIGIBench",
            "AIGIBench",
            "an archive per generator, into {train,val,test}/<generator>/{0_real,1_fake}",
        ),
    ),
    "GenImage-DDA": (_GENIMAGE,),
    "ForenSynths-DDA": (_FORENSYNTHS_TEST,),
    "AIGCDetectBenchmark-DDA": (_AIGC, _SDXL),
}
DEFAULT = tuple("ForenSynths GANGen-Detection DiffusionForensics UniversalFakeDetect Diffusion1kStep".split())


def _npr(name, size, digest):
    page = "https://raw.githubusercontent.com/chuangchuangtan/NPR-DeepfakeDetection/main/"
    return Source(page + name, "http", name, bytes=size, sha256=digest, licence=_NPR_LICENCE)


_NPR_LICENCE = "none stated: the NPR repository carries no licence, so ask its authors before you pass it on"
_WEIGHTS = {
    "NPR": _npr("NPR.pth", 17_393_733, "3939297e9399e0b992f87211610769d87d899de50d56da0204d6cbda2d483a53"),
    "NPR-3090": _npr(
        "model_epoch_last_3090.pth",
        5_842_385,
        "b67a91555ce786a6d0463ff0cb2b0b874d1c3f971b0e3febd2ae5618a80f7e8a",
    ),
    "NPR-GenImage": Source(
        "1_mD17F94xMbJqEAsWRW1gVsZ5db6YamI",
        "gdrive_folder",
        "pretrained/NPR-GenImage",
        "NPR_GenImage_sdv4.pth",
        bytes=5_842_385,
        sha256="9bc961e7d643581aa0ea879cbd322dcc2e543877568a43d2f6cdb92906379015",
        licence=_NPR_LICENCE,
    ),
    "SSP": _by_hand(
        "https://pan.baidu.com/s/1BTkl1gc7gHq4Ev457G__QQ",
        "pretrained/SSP",
        "Baidu code bcmi; Dropbox link: README of github.com/bcmi/SSP-AI-Generated-Image-Detection",
        licence="MIT, as its repository",
    ),
    "CycleISP": _by_hand(
        "https://github.com/swz30/CycleISP",
        "pretrained/sidd_rgb.pth",
        "README, `Denoising sRGB images of SIDD`: the link called model",
        licence="Academic public licence: for academic, non-commercial use only",
    ),
    "SAM": Source(
        "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
        "http",
        "pretrained/sam_vit_h_4b8939.pth",
        bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        licence="Apache-2.0",
    ),
}
WEIGHTS = {name: (source,) for name, source in _WEIGHTS.items()}  # as SOURCES
