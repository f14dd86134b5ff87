"""Reading one file: exact pixels for every mode, first frames, orientation, a reason for bad files."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import EpsImagePlugin, Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from common import BadImage
from data.decode import decode
from data.jpeg import check_jpeg

ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(image, fmt="PNG", **options):
    """The file that Pillow writes of an image or of an array, as bytes."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def image_of(mode, rows):
    """A PIL image whose pixels are given row by row, as numbers or tuples."""
    image = Image.new(mode, (len(rows[0]), len(rows)))
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            image.putpixel((x, y), value)
    return image


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, idat=b"", end=True):
    """An RGB PNG by hand, its pixel data as given, whatever the header promises."""
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return header + (chunk(b"IDAT", zlib.compress(idat)) + chunk(b"IEND", b"") if end else b"")


def bmp_header(width, height):
    content = bytearray(encoded(NOISE[:8, :8], "BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def jpeg_header(width, height):
    content = bytearray(encoded(NOISE[:8, :8], "JPEG"))
    start = content.find(b"\xff\xc0") + 5
    content[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def ico(picture):
    """An icon that announces 16x16 pixels and holds any PNG."""
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + picture


@pytest.fixture
def read(tmp_path):
    """read(bytes, **options of decode) -> RGB pixels of a file with these bytes."""

    def pixels(content, name="picture.png", **options):
        path = tmp_path / name
        path.write_bytes(content)
        image = decode(path, **options)
        assert image.mode == "RGB"
        return np.asarray(image)

    return pixels


@pytest.fixture
def reason(read):
    """reason(bytes, **options of decode) -> why a file with these bytes is refused."""

    def why(content, **options):
        with pytest.raises(BadImage) as caught:
            read(content, **options)
        return str(caught.value)

    return why


def palette_image(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    return encoded(image, "PNG", **options)


GREY_RAMP = [[0, 255, 256], [0x1234, 0x80FF, 65535]]
GREY_RAMP_HIGH_BYTES = [[0, 0, 1], [0x12, 0x80, 255]]
INKS = [[(0, 0, 0, 0), (255, 0, 0, 0)]] * 2 + [[(1, 2, 3, 255), (128, 0, 0, 51)]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(image_of("1", [[0, 1], [1, 0]])), [[0, 255], [255, 0]]),
        (encoded(image_of("L", [[0, 1, 127, 255]])), [[0, 1, 127, 255]]),
        (encoded(image_of("LA", [[(7, 0), (90, 128), (200, 255)]])), [[7, 90, 200]]),
        (encoded(image_of("LA", [[(7, 0), (90, 128)]]), "TIFF"), [[7, 90]]),
        (palette_image(), [[(10, 20, 30), (200, 100, 50)]]),
        (palette_image(transparency=0), [[(10, 20, 30), (200, 100, 50)]]),
        (palette_image(transparency=b"\x00\x80"), [[(10, 20, 30), (200, 100, 50)]]),
        (encoded(image_of("RGB", [[(1, 2, 3), (250, 0, 9)]])), [[(1, 2, 3), (250, 0, 9)]]),
        (encoded(image_of("RGB", [[(1, 2, 3)]]), transparency=(1, 2, 3)), [[(1, 2, 3)]]),
        (encoded(image_of("RGBA", [[(1, 2, 3, 0), (9, 8, 7, 99)]])), [[(1, 2, 3), (9, 8, 7)]]),
        (encoded(image_of("RGBA", [[(1, 2, 3, 0), (9, 8, 7, 255)]]), "TIFF"), [[(1, 2, 3), (9, 8, 7)]]),
        (encoded(image_of("CMYK", INKS[:2]), "TIFF"), [[(255, 255, 255), (0, 255, 255)]] * 2),
        (encoded(image_of("CMYK", INKS[2:]), "TIFF"), [[(0, 0, 0), (102, 204, 204)]]),
        (encoded(image_of("I;16", GREY_RAMP)), GREY_RAMP_HIGH_BYTES),
        (encoded(image_of("I;16", GREY_RAMP), "TIFF"), GREY_RAMP_HIGH_BYTES),
        (encoded(image_of("I;16B", GREY_RAMP), "TIFF"), GREY_RAMP_HIGH_BYTES),
        (encoded(image_of("I", GREY_RAMP), "TIFF"), GREY_RAMP_HIGH_BYTES),
        (encoded(image_of("I", GREY_RAMP), "PPM"), GREY_RAMP_HIGH_BYTES),
    ],
    ids=[
        "1",
        "L",
        "LA",
        "LA tiff",
        "P",
        "P index transparent",
        "P alpha table",
        "RGB",
        "RGB colour key",
        "RGBA",
        "RGBA tiff",
        "CMYK",
        "CMYK with black",
        "I;16 png",
        "I;16 tiff",
        "I;16B tiff",
        "I tiff",
        "I pgm",
    ],
)
def test_each_mode_gives_exactly_these_rgb_pixels(read, content, expected):
    expected = np.array(expected, dtype=np.uint8)
    if expected.ndim == 2:
        expected = np.stack([expected] * 3, axis=-1)
    np.testing.assert_array_equal(read(content), expected)


@pytest.mark.parametrize(
    ("mode", "inside"),
    [("1", "1"), ("L", "L"), ("LA", "LA"), ("P", "P"), ("RGBA", "RGBA"), ("I;16", "I;16")],
)
def test_the_files_of_the_mode_table_really_have_their_mode(mode, inside):
    with Image.open(io.BytesIO(encoded(Image.new(mode, (2, 2))))) as image:
        assert image.mode == inside


def test_alpha_is_dropped_not_composited(read):
    pixels = np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read(encoded(pixels)), NOISE)


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_integer_pixels_outside_16_bit_are_refused_with_their_range(reason, value):
    assert "0..65535" in reason(encoded(image_of("I", [[5, value]]), "TIFF"))


@pytest.mark.parametrize("value", [0.0, 0.5, float("nan")])
def test_float_pixels_are_refused_as_floating_point(reason, value):
    assert "floating-point" in reason(encoded(image_of("F", [[value]]), "TIFF"))


def test_cmyk_jpeg_is_not_inverted(read):
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert read(encoded(white, "JPEG", quality=95)).min() > 250


@pytest.mark.parametrize(
    ("fmt", "options", "first", "second", "tolerance"),
    [
        ("MPO", {"quality": 95}, (200, 30, 40), (20, 30, 220), 3),
        ("GIF", {"duration": 50, "loop": 0}, (200, 30, 40), (20, 30, 220), 0),
        ("PNG", {"duration": 50}, (200, 30, 40), (20, 30, 220), 0),
        ("WEBP", {"duration": 50, "lossless": True}, (200, 30, 40), (20, 30, 220), 0),
        ("TIFF", {}, (200, 30, 40), (20, 30, 220), 0),
    ],
    ids=["mpo", "gif", "apng", "webp", "tiff"],
)
def test_files_of_several_pictures_give_the_first(read, fmt, options, first, second, tolerance):
    pictures = [Image.new("RGB", (16, 16), colour) for colour in (first, second)]
    content = encoded(pictures[0], fmt, save_all=True, append_images=pictures[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2
    assert np.abs(read(content).astype(int) - first).max() <= tolerance


UPRIGHT = {
    1: np.asarray,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
WITH_EXIF = [("PNG", {}), ("WEBP", {"lossless": True})]


def oriented(fmt, options, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(NOISE[:5, :7], fmt, exif=exif, **options)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("fmt", "options"), WITH_EXIF, ids=[fmt for fmt, _ in WITH_EXIF])
def test_orientation_is_ignored_by_default(read, fmt, options, orientation):
    np.testing.assert_array_equal(read(oriented(fmt, options, orientation)), NOISE[:5, :7])


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_tiffs_come_upright_either_way_as_pillow_reads_them(read, orientation, exif):
    pixels = read(oriented("TIFF", {}, orientation), exif=exif)
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](NOISE[:5, :7]))


@pytest.mark.parametrize("behind", [b"film \xff\xda and no other marker", bytes(4096)], ids=["film", "zeros"])
def test_a_photograph_with_other_bytes_behind_its_end_marker_is_whole(read, behind):
    photograph = encoded(NOISE, "JPEG", quality=95, restart_marker_rows=1, comment=bytes(1000))
    np.testing.assert_array_equal(read(photograph + behind), read(photograph))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("fmt", "options"), WITH_EXIF, ids=[fmt for fmt, _ in WITH_EXIF])
def test_orientation_is_applied_on_request(read, fmt, options, orientation):
    pixels = read(oriented(fmt, options, orientation), exif="apply")
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](NOISE[:5, :7]))


@pytest.mark.parametrize(("exif", "shape"), [("ignore", (40, 56, 3)), ("apply", (56, 40, 3))])
def test_orientation_of_a_jpeg_photograph_follows_the_option(read, exif, shape):
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    assert read(encoded(NOISE[:40, :56], "JPEG", exif=tags), exif=exif).shape == shape


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("tags", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
def test_corrupt_exif_does_not_cost_the_picture(read, tags, exif):
    pixels = read(encoded(NOISE, "JPEG", exif=tags), exif=exif)
    np.testing.assert_array_equal(pixels, read(encoded(NOISE, "JPEG")))


@pytest.mark.parametrize(
    ("name", "fmt", "options"),
    [
        ("png.jpg", "PNG", {}),
        ("webp.png", "WEBP", {"lossless": True}),
        ("bmp.webp", "BMP", {}),
        ("tiff.gif", "TIFF", {}),
        ("png.without_meaning", "PNG", {}),
        ("ppm", "PPM", {}),
    ],
)
def test_the_content_decides_the_format_not_the_name(read, name, fmt, options):
    np.testing.assert_array_equal(read(encoded(NOISE, fmt, **options), name), NOISE)


def test_a_jpeg_named_png_gives_the_same_pixels_as_one_named_jpg(read):
    content = encoded(NOISE, "JPEG")
    np.testing.assert_array_equal(read(content, "a.png"), read(content, "a.jpg"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (encoded(NOISE, "JPEG")[:1500], "truncated"),
        (encoded(NOISE, "PNG")[:4000], "truncated"),
        (b"<html><body>404 Not Found</body></html>", "not an image"),
        (np.random.default_rng(1).bytes(5000), "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (png(5, 5, end=False), "not an image"),
        (png(5, 5), "truncated"),
        (png(0, 5), "not an image"),
        (png(5, 0), "not an image"),
        (bmp_header(0, 8), "not an image"),
        (jpeg_header(0, 8), "not an image"),
        (b"P6 0 5 255\n", "not an image"),
        (png(20000, 20000), "20000x20000"),
        (encoded(image_of("F", [[0.5]]), "TIFF"), "floating-point"),
        (encoded(NOISE, "PNG")[:4000] + bytes(len(encoded(NOISE, "PNG")) - 4000), "broken"),
        (encoded(NOISE, "WEBP")[:-40], "decoder"),
        (encoded(NOISE, "GIF")[:900], "truncated"),
        (encoded(NOISE, "TIFF")[:900], "truncated"),
    ],
    ids=[
        "empty",
        "truncated jpeg",
        "truncated png",
        "text",
        "random",
        "png signature",
        "png header",
        "png no data",
        "png width 0",
        "png height 0",
        "bmp width 0",
        "jpeg width 0",
        "ppm width 0",
        "png bomb",
        "float tiff",
        "png zero-filled tail",
        "truncated webp",
        "truncated gif",
        "truncated tiff",
    ],
)
def test_bad_files_give_one_line_that_says_why(reason, content, word):
    text = reason(content)
    assert word in text
    assert text.strip() == text and "\n" not in text and len(text) < 200


@pytest.mark.parametrize("kind", ["missing", "folder", "broken link", "below a file"])
def test_unreadable_paths_give_a_reason_without_the_path(tmp_path, kind):
    path = tmp_path / "unlikely-name.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "broken link":
        path.symlink_to(tmp_path / "unlikely-target.png")
    elif kind == "below a file":
        path.write_bytes(b"")
        path = path / "unlikely-name.png"
    with pytest.raises(BadImage) as caught:
        decode(path)
    text = str(caught.value)
    assert "irectory" in text and "\n" not in text
    assert "unlikely" not in text


def test_a_file_without_permission_is_a_bad_image(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.png"
    path.write_bytes(encoded(NOISE))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BadImage, match="denied"):
        decode(path)


FORMATS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_is_refused_or_complete(read, name):
    fmt, options = FORMATS[name]
    content = encoded(NOISE[:24, :32], fmt, **options)
    whole = read(content)
    refused = 0
    for end in {*range(0, len(content), max(1, len(content) // 60)), *range(len(content) - 16, len(content))}:
        try:
            pixels = read(content[:end])
        except BadImage:
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, whole, err_msg=f"cut after {end} of {len(content)} bytes")
    assert refused >= 55


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_whose_tail_is_zeros_is_refused(reason, options):
    # What a download leaves that reserved its space and then broke off; libjpeg fills the rest with grey.
    content = encoded(NOISE, "JPEG", **options)
    half = len(content) // 2
    assert reason(content[:half] + bytes(len(content) - half))


SMOOTH = np.kron(NOISE[:24, :32], np.ones((8, 8, 1), np.uint8))  # 256 x 192
FLAT = np.full((512, 512, 3), 255, np.uint8)
PHOTO_WITH_BORDER = np.pad(NOISE, ((200, 200), (200, 200), (0, 0)), constant_values=255)
JPEGS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0, "optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive restarts": {"restart_marker_blocks": 3, "progressive": True},
}


def with_a_hole(content, length, fill=bytes):
    start = len(content) * 3 // 10
    return content[:start] + fill(length) + content[start + length :]


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_with_a_hole_in_the_middle_is_refused(reason, options):
    content = encoded(SMOOTH + np.tile(NOISE // 8, (4, 4, 1)), "JPEG", quality=90, **options)
    assert "damaged" in reason(with_a_hole(content, 512))


def test_a_jpeg_that_lost_a_part_between_restart_markers_is_refused(reason):
    content = encoded(SMOOTH, "JPEG", quality=95, restart_marker_rows=1)
    cut = content.index(b"\xff\xd2", len(content) // 4)
    assert "restart" in reason(content[:cut] + content[content.index(b"\xff\xd3", cut) :])


@pytest.mark.parametrize("quality", [10, 75, 100])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_flat_pictures_are_long_runs_of_zeros_and_no_holes(read, mode, options, quality):
    for pixels in (FLAT, 0 * FLAT, PHOTO_WITH_BORDER, np.tile(np.arange(256, dtype=np.uint8), (256, 1))):
        content = encoded(Image.fromarray(pixels).convert(mode), "JPEG", quality=quality, **options)
        assert read(content).shape[:2] == pixels.shape[:2]


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "TIFF"])
@pytest.mark.parametrize("fill", [bytes, np.random.default_rng(3).bytes], ids=["zeros", "random"])
def test_a_hole_in_a_format_with_checks_is_refused(reason, fmt, fill):
    options = {"compression": "tiff_lzw"} if fmt == "TIFF" else {}
    assert reason(with_a_hole(encoded(NOISE, fmt, **options), 512, fill))


@pytest.mark.skipif(not (SAMPLES / "wild-mini").is_dir(), reason="no real samples here")
def test_no_good_photograph_is_refused():
    paths = [
        path for path in (SAMPLES / "wild-mini").rglob("*.*") if path.suffix.lower() in (".jpg", ".jpeg")
    ]
    assert len(paths) > 900
    for path in paths:
        check_jpeg(path.read_bytes())


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP"])
def test_a_library_that_tolerates_truncated_files_changes_nothing(reason, monkeypatch, fmt):
    # Upstream's datasets.py and others set this switch for the whole process; the missing part would be grey.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(NOISE, fmt)
    assert "truncated" in reason(content[: len(content) // 2])


@pytest.fixture
def decoded_sizes(monkeypatch):
    """(width, height) of every image whose pixels Pillow was asked to decode."""
    sizes = []
    load = ImageFile.ImageFile.load

    def record(image, *args, **kwargs):
        sizes.append(image.size)
        return load(image, *args, **kwargs)

    monkeypatch.setattr(ImageFile.ImageFile, "load", record)
    return sizes


@pytest.mark.parametrize(
    "content",
    [png(20000, 20000), b"P6 20000 20000 255\n", bmp_header(20000, 20000), jpeg_header(20000, 20000)],
    ids=["png", "ppm", "bmp", "jpeg"],
)
def test_a_decompression_bomb_is_refused_by_its_header(reason, decoded_sizes, content):
    text = reason(content)
    assert "20000x20000" in text and "400.0 Mpx" in text and "--max_mpx 100" in text
    assert decoded_sizes == []


def test_a_bomb_inside_an_icon_is_never_decoded(reason, decoded_sizes):
    inner = encoded(Image.new("RGB", (200, 200)))
    assert reason(ico(inner), max_mpx=0.01)
    assert (200, 200) not in decoded_sizes


def test_a_postscript_file_named_png_never_starts_ghostscript(reason, monkeypatch):
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: started.append(args))
    assert "not an image" in reason(encoded(NOISE, "EPS"))
    assert started == []


@pytest.mark.parametrize("side", [100, 90])
def test_an_image_of_exactly_max_mpx_is_read(read, side):
    assert read(encoded(Image.new("RGB", (100, side))), max_mpx=0.01).shape == (side, 100, 3)


def test_an_image_one_row_above_max_mpx_is_refused(reason):
    assert "100x101" in reason(encoded(Image.new("RGB", (100, 101))), max_mpx=0.01)


def test_images_beyond_pillows_own_limit_are_read_when_max_mpx_allows(read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(encoded(NOISE)).shape == NOISE.shape


def test_metadata_text_does_not_disturb(read):
    info = PngInfo()
    info.add_text("parameters", "a prompt, " * 200)
    np.testing.assert_array_equal(read(encoded(NOISE, pnginfo=info)), NOISE)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_never_raise_anything_but_bad_image(read, name):
    fmt, options = FORMATS[name]
    content = encoded(NOISE[:24, :32], fmt, **options)
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(content)
        reach = len(content) if rng.random() < 0.5 else min(64, len(content))
        for place in rng.integers(reach, size=rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        try:
            outcomes.add(read(bytes(damaged), max_mpx=0.1).dtype)
        except BadImage as error:
            text = str(error)
            assert text and "\n" not in text
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_named_pipe_is_a_bad_image_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(BadImage, match="regular"):
        decode(tmp_path / "pipe.png")
