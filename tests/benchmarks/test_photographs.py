from __future__ import annotations

import importlib.util
import io
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_photographs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("make_photographs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_photographs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs that are large enough, and what is not to be used."""
    folder = tmp_path_factory.mktemp("originals")
    draw = np.random.default_rng(0)
    for name, size in [("b.jpg", (900, 1200)), ("a.jpeg", (950, 920)), ("small.jpg", (300, 400))]:
        pixels = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, "JPEG")
    large = Image.fromarray(pixels).resize((900, 900))
    large.save(folder / "lossless.png")
    large.save(folder / "screenshot.jpg", "JPEG")
    (folder / "Honeywave").mkdir()
    large.save(folder / "Honeywave" / "drawing.jpg", "JPEG")
    (folder / "link.jpg").symlink_to(folder / "b.jpg")
    return folder


def test_only_large_photographs_are_originals(script: ModuleType, originals: Path) -> None:
    assert [path.name for path in script.find_originals(originals)] == ["a.jpeg", "b.jpg"]


def test_the_same_photographs_are_made_again(
    script: ModuleType, originals: Path, tmp_path: Path
) -> None:
    found = script.find_originals(originals)
    for name, count in [("one", 6), ("two", 6), ("fewer", 3)]:
        script.make(found, tmp_path / name, count)
    one, two, fewer = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two", "fewer")
    )
    assert one == two
    assert len(one) == 6
    assert len(set(one.values())) == 6
    # The first of many are those of few.
    assert fewer == {name: one[name] for name in sorted(one)[:3]}


def test_photographs_have_the_sizes_of_imagenet(
    script: ModuleType, originals: Path, tmp_path: Path
) -> None:
    script.make(script.find_originals(originals), tmp_path / "made", 12)
    sizes = set()
    for path in (tmp_path / "made").iterdir():
        with Image.open(path) as image:
            assert image.format == "JPEG"
            sizes.add(image.size)
    assert sizes <= set(script.SIZES)
    assert len(sizes) > 1


def test_a_piece_of_sky_is_drawn_again(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    qualities: list[int] = []
    save = Image.Image.save

    def noting(image: Image.Image, file: io.BytesIO, kind: str, quality: int) -> None:
        qualities.append(quality)
        save(image, file, kind, quality=quality)

    monkeypatch.setattr(Image.Image, "save", noting)
    script.crop(Image.new("RGB", (800, 800), "skyblue"), random.Random(0))
    assert len(qualities) == script.TRIES
    assert set(qualities) <= set(range(90, 97))


def test_a_folder_that_is_there_is_whole(
    script: ModuleType, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(original: Image.Image, generator: random.Random) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "crop", broken)
    with pytest.raises(KeyboardInterrupt):
        script.make(script.find_originals(originals), tmp_path / "made", 2)
    assert not (tmp_path / "made").exists()


def test_without_debian_s_tools_the_error_says_what_else_to_do(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.CannotMakeError, match=r"apt-get is not here.*--images DIR"):
        script.fetch(tmp_path / "cache")


def test_a_failed_download_says_why(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("apt-get", "dpkg"):
        program = tmp_path / tool
        program.write_text("#!/bin/sh\necho no such package >&2\nexit 100\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(script.CannotMakeError, match=r"no such package.*--images DIR"):
        script.fetch(tmp_path / "cache")


def test_packages_are_downloaded_once(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-get").write_text(
        f'#!/bin/sh\necho "$3" >> {tmp_path}/downloads\ntouch "$3_1.0_all.deb"\n'
    )
    (tmp_path / "dpkg").write_text('#!/bin/sh\ntouch "$3/picture.jpg"\n')
    for tool in ("apt-get", "dpkg"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(script, "PACKAGES", ("skies", "seas"))
    folder = script.fetch(tmp_path / "cache")
    script.fetch(tmp_path / "cache")
    assert (tmp_path / "downloads").read_text().split() == ["skies", "seas"]
    assert (folder / "skies" / "picture.jpg").is_file()
    assert (folder / "seas" / "picture.jpg").is_file()


def test_a_folder_without_photographs_is_said(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.CannotMakeError, match="no JPEG with 900 pixels"):
        script.find_originals(tmp_path)
