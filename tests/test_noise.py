"""Files of noise patterns: what is read, what is refused, and how crops are cut."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from common import BadImage
from data.folder import RealFakeFolder, discover, scan
from data.loader import EpochBatches, create_dataloader
from data.noise import decode_noise, is_deep, noise_sample
from data.perturb import parse_views
from data.transforms import Augment, Geometry, Limits, prepare

STORED = Geometry(None, None)


def deep(path, values):
    """Saves uint16 values (H, W, 3), RGB, as a 16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(values[..., ::-1]))
    return path


def values_of(rng, width=12, height=10):
    """Values of a 16-bit file, RGB (H, W, 3), those at the ends of the range among them."""
    values = rng.integers(0, 65536, (height, width, 3)).astype(np.uint16)
    values[0, :4, 0] = [0, 1, 32768, 65535]
    return values


def numbered(width, height):
    """int16 (3, H, W) that names its place: row, column, channel."""
    rows, columns = np.mgrid[:height, :width]
    return torch.from_numpy(np.stack([rows, columns, rows * 100 + columns]).astype(np.int16))


@pytest.fixture
def root(tmp_path, rng):
    """{0_real,1_fake}/{0..3}.png of 16 bits and several sizes."""
    for name in ("0_real", "1_fake"):
        for number in range(4):
            deep(tmp_path / "set" / name / f"{number}.png", values_of(rng, 12 + number // 2 * 5, 14))
    return tmp_path / "set"


def folder(root, geometry=STORED, bits=16, **options):
    return RealFakeFolder(scan(root, discover(root)), geometry, noise_bits=bits, **options)


# --- decoding ---


def test_sixteen_bits_are_numbers_about_zero_in_the_order_rgb(tmp_path, rng):
    values = values_of(rng)
    noise = decode_noise(deep(tmp_path / "a.png", values), 16, 100)
    assert noise.dtype == torch.int16
    assert noise.shape == (3, 10, 12)
    assert noise.is_contiguous()
    assert (noise.permute(1, 2, 0).numpy().astype(int) == values.astype(int) - 32768).all()
    assert noise[0, 0, :4].tolist() == [-32768, -32767, 0, 32767]
    bgr = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert (noise[2].numpy().astype(int) + 32768 == bgr[..., 0]).all()
    assert not torch.equal(noise[0], noise[2])


def test_eight_bits_are_the_picture_of_the_file(tmp_path, rng):
    picture = Image.fromarray(rng.integers(128, 256, (10, 12, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    assert (np.array(decode_noise(tmp_path / "a.png", 8, 100)) == np.array(picture)).all()


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGB", "jpg"), ("RGBA", "png"), ("P", "png"), ("I;16", "png")]
)
def test_a_file_without_sixteen_bits_of_three_channels_is_no_signed_noise(tmp_path, mode, suffix):
    path = tmp_path / f"a.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)
    else:
        Image.new("RGB", (8, 8), (9, 8, 7)).convert(mode).save(path)
    assert not is_deep(path.read_bytes())
    with pytest.raises(BadImage, match="16-bit"):
        decode_noise(path, 16, 100)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_a_photograph_is_no_wrapped_noise(tmp_path, rng, suffix):
    photograph = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    photograph.save(tmp_path / f"a.{suffix}")
    with pytest.raises(BadImage, match="--lnp_input"):
        decode_noise(tmp_path / f"a.{suffix}", 8, 100)


@pytest.mark.parametrize(("strong", "refused"), [(9, False), (11, True)])
def test_a_tenth_of_wrapped_values_may_be_strong_noise(tmp_path, strong, refused):
    values = np.full((10, 10, 3), 200, np.uint8)
    values.reshape(-1)[: 3 * strong] = np.resize([1, 127], 3 * strong)
    values.reshape(-1)[-60:] = np.resize([0, 128], 60)  # none of these counts
    Image.fromarray(values).save(tmp_path / "a.png")
    if refused:
        with pytest.raises(BadImage, match="11 %"):
            decode_noise(tmp_path / "a.png", 8, 100)
    else:
        assert np.array(decode_noise(tmp_path / "a.png", 8, 100))[0, 0].tolist() == [1, 127, 1]


def test_transparency_beside_sixteen_bits_is_dropped(tmp_path, rng):
    values = values_of(rng)
    content = bytearray(deep(tmp_path / "a.png", values).read_bytes())
    body = b"tRNS" + bytes(6)  # one colour is transparent
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    place = content.index(b"IDAT") - 4
    (tmp_path / "b.png").write_bytes(content[:place] + chunk + content[place:])
    assert torch.equal(decode_noise(tmp_path / "b.png", 16, 100), decode_noise(tmp_path / "a.png", 16, 100))


def test_signed_noise_is_no_wrapped_noise(tmp_path, rng):
    path = deep(tmp_path / "a.png", values_of(rng))
    assert is_deep(path.read_bytes())
    with pytest.raises(BadImage, match="--lnp_encoding"):
        decode_noise(path, 8, 100)


@pytest.mark.parametrize("bits", [8, 16])
def test_empty_foreign_and_missing_files_have_their_reasons(tmp_path, bits):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BadImage, match="empty"):
        decode_noise(tmp_path / "a.png", bits, 100)
    (tmp_path / "a.png").write_bytes(b"hello, this is no picture at all")
    with pytest.raises(BadImage, match="no"):
        decode_noise(tmp_path / "a.png", bits, 100)
    with pytest.raises(BadImage, match="No such file"):
        decode_noise(tmp_path / "b.png", bits, 100)


def test_a_truncated_or_damaged_file_is_never_read_in_part(tmp_path, rng):
    path = deep(tmp_path / "a.png", values_of(rng, 20, 20))
    whole = path.read_bytes()
    for length in (*range(1, len(whole), 97), len(whole) - 1, len(whole) - 12, len(whole) - 13):
        path.write_bytes(whole[:length])
        with pytest.raises(BadImage):
            decode_noise(path, 16, 100)
    path.write_bytes(whole[:500] + bytes([whole[500] ^ 255]) + whole[501:])
    with pytest.raises(BadImage):
        decode_noise(path, 16, 100)
    path.write_bytes(whole)
    assert decode_noise(path, 16, 100).shape == (3, 20, 20)


def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path, rng, monkeypatch):
    deep(tmp_path / "16.png", values_of(rng, 40, 30))
    Image.new("RGB", (40, 30)).save(tmp_path / "8.png")
    for bits in (8, 16):
        assert decode_noise(tmp_path / f"{bits}.png", bits, 0.0012) is not None
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for bits in (8, 16):
        with pytest.raises(BadImage, match="--max_mpx"):
            decode_noise(tmp_path / f"{bits}.png", bits, 0.0011)


# --- the dataset ---


def test_a_folder_gives_int16_tensors_with_labels(root):
    dataset = folder(root)
    assert len(dataset) == 8
    for index, sample in enumerate(dataset.samples):
        item = dataset[index]
        assert item["image"].dtype == torch.int16
        assert torch.equal(item["image"], decode_noise(root / sample.path, 16, 100))
        assert (item["label"], item["index"]) == (int("1_fake" in sample.path), index)
    assert dataset.describe_input() == "16-bit noise patterns, stored size, no crop"


def test_files_of_the_other_kind_are_bad_and_say_what_to_do(root, tmp_path):
    Image.new("RGB", (8, 8)).save(root / "0_real" / "0.png")
    signed = folder(root)
    assert "tools.extract" in signed[0]["bad"]
    assert "image" in signed[1]
    wrapped = folder(root, bits=8)
    assert wrapped[0]["image"].dtype == torch.uint8
    assert "--lnp_encoding" in wrapped[1]["bad"]
    assert "image" not in wrapped[1]
    content = (root / "0_real" / "2.png").read_bytes()
    (root / "0_real" / "2.png").write_bytes(content[:-40])
    assert set(signed[2]) == {"index", "bad"}
    assert "truncated" in signed[2]["bad"]
    assert "--max_mpx" in folder(root, max_mpx=0.0001)[3]["bad"]
    assert "--max_input_mpx" in folder(root, limits=Limits(max_input_mpx=0.0001))[3]["bad"]


def test_eight_bit_noise_is_prepared_as_images_are(tmp_path, rng):
    pixels = rng.integers(128, 256, (30, 40, 3), dtype=np.uint8)
    for name in ("0_real", "1_fake"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    for augment in (None, Augment()):
        plain, noise = (folder(tmp_path, Geometry(None, 16), bits, augment=augment) for bits in (None, 8))
        assert torch.equal(plain[1, 1]["image"], noise[1, 1]["image"])
    assert "8-bit noise patterns" in noise.describe_input()


@pytest.mark.parametrize(
    "options",
    [
        {"views": parse_views("native,aligned")},
        {"views": parse_views("blur:1")},
        {"geometry": Geometry(16, 16)},
        {"augment": Augment(blur_prob=0.1)},
        {"augment": Augment(jpeg_prob=0.1)},
    ],
)
def test_what_noise_does_not_survive_is_refused(root, options):
    for bits in (8, 16):
        with pytest.raises(ValueError, match="resize"):
            folder(root, bits=bits, **options)


# --- crops ---


@pytest.mark.parametrize("crop", [None, 8, 9, 16])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (20, 9), (5, 31), (3, 4)])
def test_the_central_crop_lies_where_that_of_an_image_lies(rng, crop, size):
    width, height = size
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    geometry = Geometry(None, crop)
    expected = prepare(Image.fromarray(pixels), geometry, Limits())
    noise = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.int16) - 100)
    found = noise_sample(noise, geometry)
    assert found.dtype == torch.int16
    assert torch.equal(found, expected.to(torch.int16) - 100)


def test_noise_smaller_than_the_crop_is_repeated():
    found = noise_sample(numbered(3, 5), Geometry(None, 6))
    assert found.shape == (3, 6, 6)
    assert found[1, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert found[0, :, 0].tolist() == [2, 3, 4, 0, 1, 2]  # of two copies of five rows the central six


def test_a_strip_that_would_fill_the_memory_is_refused():
    with pytest.raises(BadImage, match="224"):
        noise_sample(torch.zeros(3, 1, 1_000_000, dtype=torch.int16), Geometry(None, 224))


@pytest.mark.parametrize("size", [(14, 11), (6, 12), (8, 8)])
def test_a_random_crop_is_a_window_maybe_flipped(size):
    tall = numbered(*size)
    copies = tall.repeat(1, -(-8 // size[1]), -(-8 // size[0]))
    seen = set()
    for seed in range(60):
        found = noise_sample(tall, Geometry(None, 8), Augment(), np.random.default_rng(seed))
        assert found.is_contiguous()
        places = [
            (top, left, flip)
            for top in range(copies.shape[1] - 7)
            for left in range(copies.shape[2] - 7)
            for flip in (False, True)
            if torch.equal(found, window(copies, top, left, flip))
        ]
        assert places
        seen.update(places)
    tops, lefts, flips = (set(one) for one in zip(*seen, strict=True))
    assert flips == {False, True}
    assert tops == set(range(copies.shape[1] - 7))
    assert lefts == set(range(copies.shape[2] - 7))


def window(noise, top, left, flip):
    part = noise[:, top : top + 8, left : left + 8]
    return part.flip(2) if flip else part


def test_without_flips_and_without_a_crop_nothing_changes():
    noise = numbered(7, 5)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        assert torch.equal(noise_sample(noise, STORED, Augment(flip=False), rng), noise)


def test_what_is_random_depends_on_seed_epoch_and_index_alone(root):
    def crops(seed=0, epochs=(0, 1)):
        dataset = folder(root, Geometry(None, 6), augment=Augment(), seed=seed)
        return [dataset[epoch, index]["image"] for epoch in epochs for index in range(8)]

    first, again = crops(), crops()
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    backwards = crops(epochs=(1, 0))
    assert all(torch.equal(one, other) for one, other in zip(first[8:], backwards[:8], strict=True))
    for others in (crops(seed=1), backwards):
        assert sum(torch.equal(one, other) for one, other in zip(first, others, strict=True)) < 8


# --- batches ---


def batches(dataset, workers):
    sampler = EpochBatches(dataset.labels, 4, seed=3)
    sampler.start(2)
    return list(create_dataloader(dataset, sampler, workers))


def test_a_batch_keeps_int16_whatever_the_number_of_workers(root):
    dataset = folder(root, Geometry(None, 6), augment=Augment())
    alone, helped = batches(dataset, 0), batches(dataset, 2)
    assert len(alone) == len(helped) == 2
    for one, other in zip(alone, helped, strict=True):
        [part], [twin] = one["parts"], other["parts"]
        assert part["image"].dtype == twin["image"].dtype == torch.int16
        assert part["image"].shape == (4, 3, 6, 6)
        assert torch.equal(part["image"], twin["image"])
        assert part["index"].tolist() == twin["index"].tolist()
        for image, index in zip(part["image"], part["index"].tolist(), strict=True):
            assert torch.equal(image, dataset[2, index]["image"])


def test_mixed_sizes_and_bad_files_go_apart(root):
    (root / "1_fake" / "0.png").write_bytes(b"")
    dataset = folder(root)
    [batch] = list(create_dataloader(dataset, [range(8)]))
    assert batch["bad"] == [(4, "empty file")]
    shapes = {tuple(part["image"].shape) for part in batch["parts"]}
    assert shapes == {(3, 3, 14, 12), (4, 3, 14, 17)}
    assert {part["image"].dtype for part in batch["parts"]} == {torch.int16}


# --- limits ---


def test_limits_hold_for_tensors_as_for_pictures():
    noise = numbered(20, 10)
    assert Limits(min_side=10, max_input_mpx=0.0002).check(noise) is noise
    with pytest.raises(BadImage, match="20x10"):
        Limits(min_side=11).check(noise)
    with pytest.raises(BadImage, match="--max_input_mpx"):
        Limits(max_input_mpx=0.0001).check(noise)
    limits = Limits(max_input_mpx=0.0001, crop_large=True)
    cut = limits.check(noise)
    picture = limits.check(Image.fromarray(noise.permute(1, 2, 0).numpy().astype(np.uint8)))
    assert cut.shape[1:] == (picture.height, picture.width)
    assert cut.shape[1] * cut.shape[2] <= 100
    assert (cut[:2].numpy() == np.array(picture).transpose(2, 0, 1)[:2]).all()
