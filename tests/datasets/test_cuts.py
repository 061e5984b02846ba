from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.datasets.cuts import Box, Cut, central_cut, need, random_cut

SIDES = st.integers(1, 900)
RATIO = (3 / 4, 4 / 3)


def draw(width, height, seed=0, size=224, scale=(0.08, 1.0), ratio=RATIO, flip=0.5):
    random.seed(seed)
    return random_cut(width, height, size, scale, ratio, flip)


@given(SIDES, SIDES, st.integers())
def test_a_random_box_lies_in_the_picture(width, height, seed):
    box = draw(width, height, seed).box
    assert box.width >= 1
    assert box.height >= 1
    assert 0 <= box.left <= box.right <= width
    assert 0 <= box.top <= box.bottom <= height


@given(st.integers(200, 900), st.integers(200, 900), st.integers())
def test_a_random_box_keeps_to_area_and_ratio(width, height, seed):
    scale = (0.2, 0.4)
    box = draw(width, height, seed, scale=scale).box
    # Each side is rounded, by half a pixel at most; a box in the middle keeps to the ratio only.
    slack = 0.5 / box.width + 0.5 / box.height + 1e-9
    assert RATIO[0] * (1 - 2 * slack) <= box.width / box.height <= RATIO[1] * (1 + 2 * slack)
    middle = ((width - box.width) // 2, (height - box.height) // 2)
    if (box.left, box.top) != middle:
        share = box.width * box.height / (width * height)
        assert scale[0] * (1 - 2 * slack) <= share <= scale[1] * (1 + 2 * slack)


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (100, 1000, Box(0, 433, 100, 133)),
        (1000, 100, Box(433, 0, 133, 100)),
        (1, 500, Box(0, 249, 1, 1)),
    ],
)
def test_where_no_box_fits_it_is_the_largest_in_the_middle(width, height, box):
    # As large as the picture and far from its shape: all ten boxes are too large.
    assert draw(width, height, scale=(1.0, 1.0)).box == box


def test_the_draws_are_spread_as_torchvision_has_them():
    cuts = [draw(1000, 1000, seed) for seed in range(3000)]
    logs = [math.log(cut.box.width / cut.box.height) for cut in cuts]
    assert abs(sum(logs) / len(logs)) < 0.02  # wide and upright alike
    # Uniform in the logarithm: half of the ratios are nearer to 1 than √(4/3).
    near = sum(abs(value) < math.log(4 / 3) / 2 for value in logs) / len(logs)
    assert 0.45 < near < 0.58
    shares = sorted(cut.box.width * cut.box.height / 1e6 for cut in cuts)
    # Uniform from 0.08 on; boxes that do not fit are drawn again, which takes from the largest.
    assert shares[0] > 0.079
    assert 0.25 < shares[len(shares) // 4] < 0.32
    assert 0.45 < sum(cut.flip for cut in cuts) / len(cuts) < 0.55
    places = [cut.box.left / (1000 - cut.box.width) for cut in cuts if cut.box.width < 800]
    assert 0.47 < sum(places) / len(places) < 0.53
    assert min(places) == 0
    assert max(places) == 1


@pytest.mark.parametrize(("flip", "expected"), [(0.0, {False}), (1.0, {True})])
def test_no_or_every_picture_is_flipped(flip, expected):
    assert {draw(50, 40, seed, flip=flip).flip for seed in range(200)} == expected


@pytest.mark.parametrize(
    ("sides", "gap", "reduction"),
    [
        ((448, 448), 2.0, 1),
        ((895, 2000), 2.0, 1),
        ((896, 896), 2.0, 2),
        ((896, 896), 1.0, 4),
        ((1792, 4000), 2.0, 4),
        ((9000, 9000), 2.0, 8),
        ((9000, 9000), None, 1),
    ],
)
def test_a_picture_is_reduced_while_it_stays_so_much_larger(sides, gap, reduction):
    cut = Cut(Box(0, 0, *sides), (224, 224), Box(0, 0, 224, 224))
    assert cut.reduction(gap) == reduction


@given(SIDES, SIDES, st.integers(1, 64), st.sampled_from([1.0, 1.5, 2.0]), st.booleans())
def test_what_is_needed_is_there(width, height, size, gap, middle):
    cut = central_cut(width, height, size) if middle else draw(width, height, size, size=size)
    reduction = cut.reduction(gap)
    _, _, across, down = need(cut, (width, height), reduction, 1.0)
    for span, side in ((across, width), (down, height)):
        assert 0 <= span.start < span.stop <= -(-side // reduction)
    assert reduction == 1 or min(across.step, down.step) >= gap


def test_rows_below_the_window_and_its_filter_are_not_needed():
    _, _, across, down = need(central_cut(400, 800, 200), (400, 800), 1, 1.0)
    # The square is in rows 200 to 600 of the picture, the filter reaches two pixels farther.
    assert (across.start, across.stop, across.results) == (0, 400, 200)
    assert (down.start, down.results) == (0, 300)
    assert 602 <= down.stop <= 604
