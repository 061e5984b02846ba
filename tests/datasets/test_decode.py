from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from penstock.datasets import decode
from penstock.datasets.decode import check_mode, read_image, to_tensor
from penstock.errors import MissingExtraError, OptionError

pytestmark = pytest.mark.usefixtures("no_descriptor_left")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(20, 12), (1, 1), (1, 50), (333, 1), (517, 400)])
def test_a_tensor_holds_pillows_pixels_channel_first(draw, mode, size):
    image = Image.open(draw("a.png", size, mode))
    pixels = np.asarray(image)
    expected = pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
    tensor = to_tensor(image)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.numpy(), expected)
    tensor += 1  # its own memory, not Pillow's
    image.close()


@pytest.mark.parametrize("stored", ["L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "LA"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_any_stored_mode_is_converted_as_pillow_does(draw, tmp_path, stored, mode):
    kind = "TIFF" if stored == "CMYK" else "PNG"
    with Image.open(draw("rgb.png")) as image:
        other = image.convert("I").convert("I;16") if stored == "I;16" else image.convert(stored)
    other.save(tmp_path / "other", kind)
    with Image.open(tmp_path / "other") as image:
        expected = image.convert(mode)
    found = read_image(str(tmp_path / "other"), mode)
    assert found.mode == mode
    assert found.tobytes() == expected.tobytes()


def test_an_image_can_be_used_and_copied_after_its_file_is_closed(draw):
    image = read_image(str(draw("a.jpg")))
    assert image.copy().resize((5, 5)).size == (5, 5)


def test_rotation_in_exif_data_is_not_applied(draw, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    path = draw("a.jpg", (20, 12), exif=exif)
    assert read_image(str(path)).size == (20, 12)


def test_a_mode_that_is_no_tensor_is_refused():
    with pytest.raises(ValueError, match="'CMYK' cannot become a uint8 tensor"):
        to_tensor(Image.new("CMYK", (2, 2)))


@pytest.mark.parametrize("mode", ["rgb", "CMYK", None, 3, ["RGB"]])
def test_an_unknown_mode_is_an_option_error(mode):
    with pytest.raises(OptionError, match="is not a mode of images here; expected"):
        check_mode(mode)


def zero_bytes(draw, path):
    path.write_bytes(b"")


def text(draw, path):
    path.write_text("no picture")


def truncated(draw, path):
    whole = draw("whole.jpg", (100, 100)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def truncated_png(draw, path):
    whole = draw("whole.png", (100, 100)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def damaged_png(draw, path):
    whole = bytearray(draw("whole.png", (100, 100)).read_bytes())
    whole[40:60] = bytes(20)
    path.write_bytes(whole)


def header_only(draw, path):
    path.write_bytes(draw("whole.jpg", (100, 100)).read_bytes()[:3])


def folder(draw, path):
    path.mkdir()


def missing(draw, path):
    pass


def dangling_link(draw, path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (zero_bytes, UnidentifiedImageError),
        (text, UnidentifiedImageError),
        (truncated, OSError),
        (truncated_png, OSError),
        (damaged_png, OSError),
        (header_only, OSError),
        (folder, IsADirectoryError),
        (missing, FileNotFoundError),
        (dangling_link, FileNotFoundError),
    ],
)
def test_a_bad_file_raises_its_natural_error_with_the_path(draw, tmp_path, spoil, error):
    path = tmp_path / "bad.jpg"
    spoil(draw, path)
    with pytest.raises(error) as caught:
        read_image(str(path))
    assert str(path) in str(caught.value)


def test_a_file_without_permission_raises_permission_error(draw, monkeypatch):
    path = str(draw("a.jpg"))

    def refuse(name, mode):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(decode, "open", refuse, raising=False)
    with pytest.raises(PermissionError, match=path):
        read_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_the_system_protects_raises_permission_error(draw):
    path = draw("a.jpg")
    path.chmod(0)
    with pytest.raises(PermissionError, match=str(path)):
        read_image(str(path))


@pytest.mark.parametrize("filters", ["error", "ignore"])
@pytest.mark.parametrize("limit", [239, 130, 100])
def test_more_pixels_than_the_limit_are_an_error_whatever_the_filters(
    draw, monkeypatch, limit, filters, recwarn
):
    import warnings

    path = str(draw("a.png", (20, 12)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        before = list(warnings.filters)
        with pytest.raises(Image.DecompressionBombError, match=path):
            read_image(path)
        assert warnings.filters == before


@pytest.mark.parametrize("limit", [240, None])
def test_as_many_pixels_as_the_limit_are_fine(draw, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert read_image(str(draw("a.png", (20, 12)))).size == (20, 12)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (20000, 10000)).save(buffer, "PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(Image.DecompressionBombError):
        read_image(str(path))


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (SyntaxError("broken PNG"), OSError, "SyntaxError: broken PNG"),
        (ValueError("chunk"), OSError, "ValueError: chunk"),
        (EOFError(), OSError, "EOFError"),
        (MemoryError(), MemoryError, "not enough memory"),
        (OSError(5, "Input/output error"), OSError, "Errno 5"),
    ],
)
def test_whatever_a_reader_raises_arrives_with_the_path(draw, monkeypatch, raised, expected, words):
    path = str(draw("a.png"))

    def fail(self):
        raise raised

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(expected, match=words) as caught:
        read_image(path)
    assert path in str(caught.value)
    assert caught.value.__cause__ is raised
    assert getattr(caught.value, "errno", None) == getattr(raised, "errno", None)


def test_an_interrupt_while_decoding_passes_unchanged(draw, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    path = str(draw("a.png"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(path)


def test_threads_may_read_bombs_and_pictures_at_once(draw, monkeypatch):
    good, bomb = str(draw("a.png", (20, 10))), str(draw("b.png", (20, 12)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    results: list[tuple[str, object]] = []

    def read(path):
        for _ in range(50):
            try:
                results.append((path, read_image(path).size))
            except Image.DecompressionBombError:
                results.append((path, None))

    threads = [threading.Thread(target=read, args=(path,)) for path in (good, bomb) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(results) == {good: (20, 10), bomb: None}
    assert len(set(results)) == 2


def test_a_missing_pillow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r'pip install "penstock\[images\]"'):
        decode.pillow()


def test_importing_the_datasets_does_not_import_pillow():
    code = "import sys, penstock.datasets; sys.exit('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ})
    assert done.returncode == 0
