"""Where the public sets and weights come from: one row each, for data/download.py.

Links are the published ones; some are dead or gated by now.  Sizes and checksums stand where they are known.
"""

from dataclasses import dataclass

KINDS = ("http", "gdrive", "gdrive_folder", "manual")
DRIVE = {
    "gdrive": "https://drive.google.com/file/d/{}/view",
    "gdrive_folder": "https://drive.google.com/drive/folders/{}",
}
ARCHIVES = "archives"  # folder of the downloaded archives below the destination root
TEST_ROOT = "Generalization_Test"


@dataclass(frozen=True)
class Source:
    """One download: what to fetch, and where it goes below the destination root."""

    where: str  # URL, or the id of a Drive file or folder
    kind: str  # one of KINDS
    target: str  # folder of the images; without `unpack` the file itself, or a copy of the Drive folder
    name: str = ""  # file name of the archive; in a Drive folder without `unpack`, the file that counts
    bytes: int | None = None  # of the file called `name`, or of `target`
    sha256: str | None = None
    unpack: bool = False  # `name`, or what the folder holds, is an archive: data/archives.py finds out which
    strip: bool = False  # drop a single folder that wraps everything in the archive
    note: str = ""  # for the user: other places, and what to do by hand

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.target}: unknown kind {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def page(self):
        """The address to open in a browser."""
        return DRIVE.get(self.kind, "{}").format(self.where)

    @property
    def archive_folder(self):
        """Where the archives lie below the destination root."""
        return f"{ARCHIVES}/{self.target}"


@dataclass(frozen=True)
class Weights:
    """A published weight file and what its publisher says about its use."""

    source: Source
    licence: str


_CNN = "CNNDetection's own page says (July 2024) that its Drive links moved; a copy: huggingface.co/datasets/"
_CNN_NOTE = f"{_CNN}sywang/CNNDetection"
_FORENSYNTHS_TEST = Source(
    "1z_fD3UKgWQyOTZIBbYSaQ-hz4AzUrLC1",
    "gdrive",
    f"{TEST_ROOT}/ForenSynths_test",
    name="CNN_synth_testset.zip",
    unpack=True,
    strip=True,
    note=_CNN_NOTE,
)
_GENIMAGE = Source(
    "https://github.com/GenImage-Dataset/GenImage",
    "manual",
    "GenImage",
    unpack=True,
    note="Drive and Baidu pages, one folder of multi-part zips per generator (ADM, BigGAN, glide, ...): "
    "keep these folders",
)


def _drive_folder(folder_id, name, note=""):
    return Source(folder_id, "gdrive_folder", f"{TEST_ROOT}/{name}", unpack=True, note=note)


SOURCES = {  # protocol -> its downloads; one target, one download
    "ForenSynths": (_FORENSYNTHS_TEST,),
    "ForenSynths-train": (
        Source(
            "1iVNBV0glknyTYGA9bCxT_d0CVTOgGcKh",
            "gdrive",
            "ForenSynths_train_val/train",
            name="progan_train.zip",
            unpack=True,
            strip=True,
            note=_CNN_NOTE,
        ),
        Source(
            "1FU7xF8Wl_F8b0tgL0529qg2nZ_RpdVNL",
            "gdrive",
            "ForenSynths_train_val/val",
            name="progan_val.zip",
            unpack=True,
            strip=True,
            note=_CNN_NOTE,
        ),
    ),
    "CNNDetection-13": (_FORENSYNTHS_TEST,),
    "GANGen-Detection": (_drive_folder("11E0Knf9J1qlv2UuTnJSOFUjIIi90czSj", "GANGen-Detection"),),
    "DiffusionForensics": (
        _drive_folder(
            "1tKsOU-6FDdstrrKLPYuZ7RpQwtOSHxUD",
            "DiffusionForensics",
            "DIRE's own folder: https://drive.google.com/drive/folders/1jZE4hg6SxRvKaPYO_yyMeJN_DOcqGMEf",
        ),
    ),
    "UniversalFakeDetect": (_drive_folder("1nkCXClC7kFM01_fqmLrVNtnOYEFPtWO-", "UniversalFakeDetect"),),
    "Diffusion1kStep": (_drive_folder("14f0vApTLiukiPvIHukHDzLujrvJpDpRq", "Diffusion1kStep"),),
    "AIGCDetectBenchmark": (
        _drive_folder(
            "1BUv1MT1cm90QN3WTMHLEr8PXBsKGxKC9",
            "AIGCDetectBenchmark",
            "the README of the benchmark names another folder: "
            "https://drive.google.com/drive/folders/1p4ewuAo7d5LbNJ4cKyh10Xl9Fg2yoFOw",
        ),
    ),
    "GenImage-NPR": (_GENIMAGE,),
    "GenImage-SSP": (_GENIMAGE,),
    "Tiny-GenImage": (
        Source(
            "https://github.com/CVLabWorks/CVIMGDetection",
            "manual",
            "Tiny-GenImage",
            unpack=True,
            strip=True,
            note="see the README of its folder NPR; the target holds train/<generator> and val/<generator>, "
            "each with nature and ai",
        ),
    ),
    "DFIG": (
        Source(
            "https://github.com/NVlabs/ffhq-dataset",
            "manual",
            "DFIG",
            note="reals: FFHQ, into {train,val,test}/0_real; 50,000, 10,000 and 10,000 images",
        ),
        Source(
            "https://www.kaggle.com/datasets/tunguz/1-million-fake-faces",
            "manual",
            "DFIG",
            note="fakes: 1 Million Fake Faces (Kaggle account), into {train,val,test}/1_fake; as many",
        ),
    ),
}
DEFAULT = tuple("ForenSynths GANGen-Detection DiffusionForensics UniversalFakeDetect Diffusion1kStep".split())

_NPR = "https://raw.githubusercontent.com/chuangchuangtan/NPR-DeepfakeDetection/main/"
_NPR_LICENCE = "none stated: the NPR repository carries no licence, so ask its authors before you pass it on"
WEIGHTS = {
    "NPR": Weights(
        Source(
            f"{_NPR}NPR.pth",
            "http",
            "NPR.pth",
            bytes=17_393_733,
            sha256="3939297e9399e0b992f87211610769d87d899de50d56da0204d6cbda2d483a53",
        ),
        _NPR_LICENCE,
    ),
    "NPR-3090": Weights(
        Source(
            f"{_NPR}model_epoch_last_3090.pth",
            "http",
            "model_epoch_last_3090.pth",
            bytes=5_842_385,
            sha256="b67a91555ce786a6d0463ff0cb2b0b874d1c3f971b0e3febd2ae5618a80f7e8a",
        ),
        _NPR_LICENCE,
    ),
    "NPR-GenImage": Weights(
        Source(
            "1_mD17F94xMbJqEAsWRW1gVsZ5db6YamI",
            "gdrive_folder",
            "pretrained/NPR-GenImage",
            name="NPR_GenImage_sdv4.pth",
            bytes=5_842_385,
            sha256="9bc961e7d643581aa0ea879cbd322dcc2e543877568a43d2f6cdb92906379015",
        ),
        _NPR_LICENCE,
    ),
    "SSP": Weights(
        Source(
            "https://pan.baidu.com/s/1BTkl1gc7gHq4Ev457G__QQ",
            "manual",
            "pretrained/SSP",
            note="Baidu code bcmi; a Dropbox link stands in the README of "
            "https://github.com/bcmi/SSP-AI-Generated-Image-Detection",
        ),
        "MIT, as its repository",
    ),
    "CycleISP": Weights(
        Source(
            "https://github.com/swz30/CycleISP",
            "manual",
            "pretrained/sidd_rgb.pth",
            note="README, `Denoising sRGB images of SIDD`: the link called model",
        ),
        "Academic public licence: for academic, non-commercial use only",
    ),
    "SAM": Weights(
        Source(
            "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
            "http",
            "pretrained/sam_vit_h_4b8939.pth",
            bytes=2_564_550_879,
            sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        "Apache-2.0",
    ),
}
