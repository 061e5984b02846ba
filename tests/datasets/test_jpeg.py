"""libjpeg-turbo beside Pillow: the same pixels, or None, and then it is Pillow's turn."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from penstock.datasets import jpeg
from penstock.errors import MissingExtraError

simplejpeg = pytest.importorskip("simplejpeg", reason="the extra jpeg is not installed")

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
BROKEN = ("17_truncated.jpg", "34_not_a_picture.jpg")


def photo(size=None, mode="RGB"):
    with Image.open(PHOTOS / "03_coffee.jpg") as image:
        image = image.convert(mode)
    return image if size is None else image.resize(size)


def stored(image, **save):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 95, **save})
    return bytearray(buffer.getvalue())


def decoded(data, mode="RGB", reduction=1, rows=None):
    header = jpeg.read_header(data)
    return None if header is None else jpeg.decode(data, header, mode, reduction, rows)


def by_pillow(data, mode="RGB", reduction=1):
    with Image.open(io.BytesIO(data)) as image:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_every_example_photograph_is_pillows_bit_for_bit(reduction):
    for path in sorted(PHOTOS.glob("*.jpg")):
        if path.name not in BROKEN:
            data = bytearray(path.read_bytes())
            expected = by_pillow(data, reduction=reduction)
            np.testing.assert_array_equal(decoded(data, reduction=reduction), expected)


@pytest.mark.parametrize("size", [(97, 131), (64, 64), (1, 1), (1, 50), (333, 1), (9, 8)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("save", [{"subsampling": k} for k in (0, 1, 2)] + [{"progressive": True}])
def test_colours_are_pillows_however_they_are_coded(size, mode, save):
    data = stored(photo(size), **save)
    np.testing.assert_array_equal(decoded(data, mode), by_pillow(data, mode))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_grey_files_are_pillows_in_every_mode(mode):
    data = stored(photo((40, 30), "L"))
    np.testing.assert_array_equal(decoded(data, mode), by_pillow(data, mode))


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
def test_the_upper_rows_are_those_of_the_whole_picture(sampling, reduction):
    pixels = np.asarray(photo((97, 131)).convert("L" if sampling == "Gray" else "RGB"))
    pixels = np.ascontiguousarray(pixels.reshape(131, 97, -1))
    kind = "GRAY" if sampling == "Gray" else "RGB"
    data = bytearray(simplejpeg.encode_jpeg(pixels, 95, kind, sampling))
    before = bytes(data)
    whole = decoded(data, reduction=reduction)
    fewer = 0
    for rows in range(1, len(whole) + 1):
        part = decoded(data, reduction=reduction, rows=rows)
        np.testing.assert_array_equal(part[:rows], whole[:rows])
        fewer += len(part) < len(whole)
    assert fewer > len(whole) - 5  # they are not decoded to the end
    assert data == before


def test_a_progressive_file_is_decoded_whole():
    data = stored(photo((97, 131)), progressive=True)
    assert len(decoded(data, rows=5)) == 131


def test_lines_are_known_to_come_in_order_only_if_one_scan_has_all_colours():
    data = stored(photo((97, 131)))
    scan = data.index(b"\xff\xda")
    assert data[scan + 4] == 3
    assert jpeg.read_header(data).one_scan
    data[scan + 4] = 1
    assert not jpeg.read_header(data).one_scan


@pytest.mark.parametrize("seed", range(30))
def test_damage_shows_as_it_does_with_pillow(seed):
    """Where Pillow shows something, this shows the same; where Pillow raises, this does not."""
    rng = random.Random(seed)
    data = stored(photo((160, 120)), restart_marker_rows=2 if seed % 2 else 0)
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data) // 2, len(data) - 2)] = rng.randrange(256)
    try:
        expected = by_pillow(data)
    except OSError:
        assert decoded(data) is None
    else:
        np.testing.assert_array_equal(decoded(data), expected)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_left_to_pillow(share):
    data = stored(photo((160, 120)))
    assert decoded(data[: int(len(data) * share)]) is None
    assert decoded(data[: int(len(data) * share)], rows=1) is None


def test_what_follows_the_end_of_the_picture_does_not_matter():
    data = stored(photo((50, 40)))
    np.testing.assert_array_equal(decoded(data + b"more of something else"), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_cmyk_is_left_to_pillow(mode):
    assert decoded(stored(photo((20, 10)).convert("CMYK")), mode) is None


def test_colours_that_are_to_be_grey_are_left_to_pillow():
    assert decoded(stored(photo((20, 10))), "L") is None


def test_colours_stored_as_red_green_and_blue_are_left_to_pillow():
    data = stored(photo((20, 10)), keep_rgb=True)
    assert jpeg.read_header(data) is not None
    assert decoded(data) is None


def test_twelve_bits_and_other_codings_are_left_to_pillow():
    data = stored(photo((20, 10)))
    header = jpeg.read_header(data)
    frame = header.lines_at - 5
    for at, value in ((4, 12), (1, 0xC3), (1, 0xC9), (9, 4)):
        other = bytearray(data)
        other[frame + at] = value
        assert jpeg.read_header(other) is None


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes_behind_the_signature_are_a_header_or_none(seed):
    rng = random.Random(seed)
    data = bytearray(b"\xff\xd8\xff") + bytearray(rng.randbytes(rng.randint(0, 300)))
    assert decoded(data) is None
    assert jpeg.read_header(data[: rng.randint(0, 3)]) is None


def test_a_header_is_read_past_what_applications_put_there():
    image = photo((31, 17))
    data = stored(image, exif=b"Exif\0\0" + bytes(40000), comment=b"\xff\xc0 is no frame here")
    header = jpeg.read_header(data)
    assert (header.width, header.height, header.one_scan) == (31, 17, True)
    filled = bytearray(data[:2] + b"\xff\xff" + data[2:])
    assert jpeg.read_header(filled).lines_at == header.lines_at + 2


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingExtraError, match=r'pip install "penstock\[jpeg\]"'):
        jpeg.turbo()


def test_importing_the_datasets_does_not_import_it():
    code = "import sys, penstock.datasets; sys.exit('simplejpeg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
