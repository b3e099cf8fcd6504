"""RCQ: the author's formula by a literal twin, golden values, the label reader, and what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import rcq as twin

from xaibench.errors import ManifestError, XaibenchError
from xaibench.metrics.rcq import CATEGORIES, category, heat, rcq, read_vad, vad_frames

LABELS = [1, 2, 20, 100, 101, 102, 120]


@st.composite
def labelled(draw):
    """A heat map and stretches that follow one another; the map may be longer or shorter than they."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    edges = np.cumsum([0, *lengths]) / 100
    stretches = [
        (float(a), float(b), draw(st.sampled_from(LABELS))) for a, b in pairwise(edges)
    ]  # fmt: skip
    frames = max(2, math.ceil(edges[-1] * 50) + draw(st.integers(-2, 4)))
    values = draw(st.lists(st.integers(0, 9), min_size=frames, max_size=frames))
    return np.array(values, dtype=float), stretches


@given(st.lists(labelled(), min_size=1, max_size=4))
@settings(max_examples=100)
def test_rcq_is_its_twin(items):
    frames = [vad_frames(stretches, len(h)) for h, stretches in items]
    if not sum(len(f) for of in frames for f in of.values()):
        return
    ours = rcq([h for h, _ in items], frames)
    if all(math.isnan(v) for v in ours.values()):
        assert not any(h[f].any() for (h, _), of in zip(items, frames, strict=True) for f in of.values())
        return
    theirs = twin.rcq(items)
    assert list(ours) == list(theirs)
    for name in CATEGORIES:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-9, nan_ok=True)


def test_golden():
    # 0.5 s: frames 0 to 24. Bona fide speech to 0.2 s (frames 0-9, edges dropped: 1 to 8), a transition to 0.3 s (9-14: 10
    # to 13), spoofed non-speech to 0.5 s (14 to 23, the last but one of the map: both edges kept).
    stretches = [(0.0, 0.2, 1), (0.2, 0.3, 100), (0.3, 0.5, 102)]
    frames = vad_frames(stretches, 25)
    assert {k: v.tolist() for k, v in frames.items()} == {
        "BS": list(range(1, 9)), "SS": [], "TR": [10, 11, 12, 13], "BN": [], "SN": list(range(14, 24)),
    }  # fmt: skip
    h = np.zeros(25)
    h[1:9], h[10:14], h[14:24] = 1.0, 6.0, 2.0
    h[[0, 9, 24]] = 1000.0  # counted by nobody
    found = rcq([h], [frames])  # mean of all: (8 + 24 + 20) / 22
    assert found["BS"] == pytest.approx(100 * (1 - 52 / 22) / (52 / 22))
    assert found["TR"] == pytest.approx(100 * (6 - 52 / 22) / (52 / 22))
    assert found["SN"] == pytest.approx(100 * (2 - 52 / 22) / (52 / 22))
    assert math.isnan(found["SS"]) and math.isnan(found["BN"])


def test_a_flat_heat_map_contributes_alike_everywhere():
    frames = vad_frames([(0.0, 0.4, 1), (0.4, 0.8, 5), (0.8, 1.2, 101)], 60)
    found = rcq([np.full(60, 0.3)], [frames])
    assert [found[c] for c in ("BS", "SS", "BN")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_frames_are_pooled_and_utterances_not_averaged():
    found = rcq([np.array([4.0, 0.0]), np.zeros(98)], [{"BS": [0], "SS": [1]}, {"SS": np.arange(98)}])
    assert found["BS"] == pytest.approx(100 * (4 - 0.04) / 0.04)


def test_the_last_frames_of_a_long_heat_map_are_kept():
    stretches = [(0.0, 0.2, 1)]
    assert vad_frames(stretches, 10)["BS"].tolist() == list(range(1, 8))  # clipped at T - 2 = 8
    assert vad_frames(stretches, 14)["BS"].tolist() == [i + 4 for i in range(1, 9)]


def test_frames_of_ten_milliseconds_follow_the_same_rule():
    assert vad_frames([(0.0, 0.1, 101)], 40, frame_ms=10)["BN"].tolist() == [30 + i for i in range(10)]


@pytest.mark.parametrize(
    ("heatmaps", "frames", "message"),
    [
        ([np.ones(3)], [], "1 heat maps and 0"),
        ([np.ones((3, 2))], [{"BS": [0]}], r"shape \(3, 2\)"),
        ([np.array([1.0, -1.0])], [{"BS": [0]}], "not negative"),
        ([np.array([1.0, np.nan])], [{"BS": [0]}], "finite"),
        ([np.ones(3)], [{"BS": [3]}], "BS counts frames 3 to 3 of 3"),
        ([np.ones(3)], [{"BS": [-1]}], "counts frames -1"),
        ([np.ones(3)], [{"XX": [0]}], "category 'XX', expected BS, SS"),
        ([np.ones(3)], [{"BS": []}], "no labelled frame"),
        ([], [], "no labelled frame"),
    ],
)
def test_invalid_arguments_are_named(heatmaps, frames, message):
    with pytest.raises(XaibenchError, match=message):
        rcq(heatmaps, frames)


@pytest.mark.parametrize(("stretches", "length"), [([], 10), ([(0.0, 1.0, 1)], 1)])
def test_no_labels_and_no_frames_are_errors(stretches, length):
    with pytest.raises(XaibenchError, match="expected two frames and one label"):
        vad_frames(stretches, length)


def test_a_heat_map_of_zeros_has_no_rcq():
    assert all(math.isnan(v) for v in rcq([np.zeros(4)], [{"BS": [0, 1], "SS": [2]}]).values())


@pytest.mark.parametrize(("label", "name"), list(zip(LABELS, ["BS", "SS", "SS", "TR", "BN", "SN", "SN"], strict=True)))
def test_labels_have_the_authors_categories(label, name):
    assert category(label) == name


@pytest.mark.parametrize("label", [0, -1, 21, 99, 121])
def test_other_labels_are_refused(label):
    with pytest.raises(XaibenchError, match=f"unknown label {label};"):
        category(label)


def test_a_vad_file_is_read(tmp_path):
    path = tmp_path / "CON_E_0000001.vad"
    path.write_text("0.00 0.45 1\n0.45 0.50 100\n\n0.50 1.25 3\n")
    assert read_vad(path) == ((0.0, 0.45, 1), (0.45, 0.5, 100), (0.5, 1.25, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0 1.0\n", "x.vad:1: '0.0 1.0', expected `start end label`"),
        ("0.0 1.0 1\na b 1\n", "x.vad:2"),
        ("0.0 1.0 speech\n", "x.vad:1"),
        ("0.0 1.0 50\n", "x.vad:1: unknown label 50"),
        ("1.0 0.5 1\n", "times in seconds that rise"),
        ("0.0 2.0 1\n0.5 1.0 1\n", "x.vad:2.*rise"),
        ("0.0 inf 1\n", "rise"),
        ("nan 1.0 1\n", "rise"),
        ("\n", "x.vad: empty"),
    ],
)
def test_a_bad_vad_file_is_named(tmp_path, text, message):
    path = tmp_path / "x.vad"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_vad(path)


def test_a_missing_vad_file_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.vad"):
        read_vad(tmp_path / "none.vad")


def test_a_heat_map_is_the_positive_part_from_zero_to_one():
    assert heat(np.array([-3.0, 2.0, 4.0])) == pytest.approx([0, 0.5, 1.0], abs=1e-6)
    assert heat(np.array([1.0, 2.0, 5.0])) == pytest.approx([0, 0.25, 1.0], abs=1e-6)
    assert heat(np.full(4, -1.0)).tolist() == [0.0] * 4


def test_an_edge_falls_in_the_frame_whose_window_it_is_in():
    """floor((1000 t - 10) / 20), never below 0 or above T - 2: of speech the two frames at the edges are left out."""
    for end, last in ((0.0299, 0), (0.0301, 1), (0.0499, 1), (0.0501, 2), (0.2, 8)):
        (kept,) = (found for found in vad_frames([(0.0, end, 101), (0.2, 0.2, 1)], 10).values() if len(found))
        assert kept.tolist() == list(range(last + 1))
    assert vad_frames([(9.0, 10.0, 101)], 600)["BN"].tolist() == list(range(449 + 100, 500 + 100))  # 500 are labelled


def test_stretches_and_their_frames_by_hand():
    stretches = [(0.0, 0.1, 1), (0.1, 0.16, 5), (0.16, 0.2, 100), (0.2, 0.26, 101), (0.26, 0.32, 115)]
    found = {name: frames.tolist() for name, frames in vad_frames(stretches, 16).items()}
    assert found == {"BS": [1, 2, 3], "SS": [5, 6], "TR": [8], "BN": [9, 10, 11, 12], "SN": [12, 13, 14]}
    later = {name: frames.tolist() for name, frames in vad_frames(stretches, 19).items()}
    moved = {name: [n + 3 for n in frames] for name, frames in found.items()}
    assert later == {**moved, "SN": [15, 16, 17, 18]}  # of 16 frames the last two are one
    assert vad_frames([(0.0, 0.1, 1)], 2)["BS"].tolist() == []
    assert vad_frames([(0.0, 0.1, 101)], 2)["BN"].tolist() == [0]
    assert all(frames.dtype == np.int64 for frames in vad_frames(stretches, 16).values())


def test_categories_are_named():
    assert {**CATEGORIES} == {
        "BS": "bona fide speech", "SS": "spoofed speech", "TR": "transition", "BN": "bona fide non-speech",
        "SN": "spoofed non-speech",
    }  # fmt: skip
    assert [category(n) for n in (1, 2, 20, 100, 101, 102, 120)] == ["BS", "SS", "SS", "TR", "BN", "SN", "SN"]


def test_heat_is_summed_in_double_precision_and_a_frame_counts_as_often_as_it_is_named():
    heat_map = np.array([2.0**24, 1.0, 1.0, 1.0], dtype=np.float32)
    made = rcq([heat_map, [0, 4]], [{"BS": [0, 1, 2, 3], "SS": []}, {"SN": [1, 1]}])
    mean = (2**24 + 3 + 8) / 6
    assert made["BS"] == pytest.approx(100 * ((2**24 + 3) / 4 - mean) / mean, rel=1e-12)
    assert made["SN"] == pytest.approx(100 * (4 - mean) / mean, rel=1e-12)
    assert math.isnan(made["SS"]) and math.isnan(made["TR"]) and list(made) == ["BS", "SS", "TR", "BN", "SN"]


def test_heat_by_hand():
    wanted = [0, 3 / (3 + 1e-7), 2 / (3 + 1e-7)]
    assert heat(np.array([2, 5, 4], dtype=np.float32)).tolist() == pytest.approx(wanted, rel=1e-12)
    assert heat(np.array([-3.0, -1.0])).tolist() == [0, 0]
    assert heat(np.array([1e-7, 2e-7])).tolist() == pytest.approx([0, 0.5])
