from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.datasets.sources import EXTENSIONS, list_source
from penstock.errors import OptionError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a function that makes empty files; the current folder is where they are."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def paths_of(source, by_class=True):
    return list(list_source(source, by_class).paths)


def test_a_list_keeps_its_order_and_is_not_looked_at():
    assert paths_of(["b.jpg", "nowhere/a.txt", "b.jpg"]) == ["b.jpg", "nowhere/a.txt", "b.jpg"]


def test_a_generator_of_paths_is_a_source():
    assert paths_of(f"{k}.jpg" for k in range(3)) == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_glob_is_sorted_and_leaves_folders_and_hidden_files_out(tree):
    tree("p/b.jpg", "p/a.txt", "p/.c.jpg", "p/sub/d.jpg")
    assert paths_of("p/*") == ["p/a.txt", "p/b.jpg"]
    assert paths_of("p/**/*.jpg") == ["p/b.jpg", "p/sub/d.jpg"]
    assert paths_of(Path("p/*.jpg")) == ["p/b.jpg"]
    assert paths_of(b"p/*.jpg") == ["p/b.jpg"]


def test_a_single_file_is_a_source_even_if_its_name_looks_like_a_glob(tree):
    tree("a[1].jpg", "a1.jpg", "folder[x]/b.jpg")
    assert paths_of("a1.jpg") == ["a1.jpg"]
    assert paths_of("a[1].jpg") == ["a[1].jpg"]
    assert paths_of("folder[x]") == ["folder[x]/b.jpg"]


def test_a_folder_with_pictures_has_no_classes(tree):
    tree("p/b.jpg", "p/a.PNG", "p/notes.txt", "p/.hidden.jpg", "p/texts/c.txt", "p/.git/d.jpg")
    listing = list_source("p", by_class=True)
    assert list(listing.paths) == ["p/a.PNG", "p/b.jpg"]
    assert listing.classes == []
    assert listing.labels is None


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_extension_counts_in_any_case(tree, extension):
    tree(f"p/a{extension}", f"p/b{extension.upper()}", f"p/c{extension}x")
    assert paths_of("p") == [f"p/a{extension}", f"p/b{extension.upper()}"]


def test_sub_folders_are_classes_sorted_and_searched_at_any_depth(tree):
    tree("p/dog/z.jpg", "p/dog/a/y.jpg", "p/dog/a-b/x.jpg", "p/cat/1.jpg", "p/Zebra/1.jpg")
    listing = list_source("p", by_class=True)
    assert listing.classes == ["Zebra", "cat", "dog"]
    assert list(listing.paths) == [
        "p/Zebra/1.jpg",
        "p/cat/1.jpg",
        "p/dog/z.jpg",
        "p/dog/a/y.jpg",
        "p/dog/a-b/x.jpg",
    ]
    assert listing.labels is not None
    assert listing.labels.tolist() == [0, 1, 2, 2, 2]


def test_pictures_beside_class_folders_are_refused_unless_classes_do_not_matter(tree):
    tree("p/a.jpg", "p/cat/b.jpg")
    with pytest.raises(OptionError, match=r"holds 1 pictures \(such as 'p/a.jpg'\) beside .*'cat'"):
        list_source("p", by_class=True)
    assert paths_of("p", by_class=False) == ["p/a.jpg", "p/cat/b.jpg"]


def test_a_class_without_pictures_is_named(tree):
    tree("p/cat/b.jpg", "p/dog/notes.txt")
    with pytest.raises(OptionError, match=r"hold no image.*'dog'"):
        list_source("p", by_class=True)
    assert paths_of("p", by_class=False) == ["p/cat/b.jpg"]


def test_the_order_is_the_same_with_and_without_classes(tree):
    tree("p/a-b/1.jpg", "p/a/1.jpg", "p/a/x/2.jpg", "p/a/x-y/3.jpg")
    assert paths_of("p", by_class=True) == paths_of("p", by_class=False)


def test_symbolic_links_are_followed_and_a_loop_of_them_ends(tree):
    root = tree("p/cat/a.jpg", "elsewhere/b.jpg")
    (root / "p/cat/linked").symlink_to(root / "elsewhere")
    (root / "p/cat/loop").symlink_to(root / "p")
    found = paths_of("p")
    assert found[:2] == ["p/cat/a.jpg", "p/cat/linked/b.jpg"]
    assert all("loop/cat/loop" not in path for path in found)


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_a_name_that_is_not_utf_8_is_found_in_a_folder_and_by_a_glob(tree):
    root = tree("p/keep.txt")
    odd = os.fsencode(root) + b"/p/\xff.jpg"
    Path(os.fsdecode(odd)).touch()
    assert [os.fsencode(path) for path in paths_of("p")] == [b"p/\xff.jpg"]
    assert [os.fsencode(path) for path in paths_of("p/*.jpg")] == [b"p/\xff.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty list"),
        ("", "empty string"),
        ("nowhere", "source='nowhere' does not exist; the current folder is"),
        ("~/nowhere", "~ is not expanded"),
        ("nowhere/*.jpg", r"the glob source='nowhere/\*.jpg' matches no file"),
        ({"a.jpg"}, "set, whose order"),
        ({"a.jpg": 1}, "dict, whose order"),
        (None, "source=None is not a source of images"),
        (7, "source=7 is not a source"),
        (["a.jpg", None], "item 1 of source is None"),
        ("a\0b", "does not exist"),
        ("texts", "the folder source='texts' holds no image"),
    ],
)
def test_a_source_that_cannot_be_used_is_named_with_the_remedy(tree, source, message):
    tree("texts/a.txt", "texts/sub/b.txt")
    with pytest.raises(OptionError, match=message):
        list_source(source, by_class=True)


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tree, monkeypatch):
    tree("p/cat/a.jpg", "p/dog/b.jpg")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("dog"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OptionError, match="the folder 'p/dog' cannot be listed"):
        list_source("p", by_class=True)
