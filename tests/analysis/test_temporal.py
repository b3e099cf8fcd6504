"""Pictures of activations: what is drawn where, the class colours, and that odd input draws, too."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from xaibench.analysis import temporal
from xaibench.analysis.activations import Rules, frame_edges, observe
from xaibench.analysis.statistics import histograms
from xaibench.analysis.temporal import ClassCurves, Panel, Sound, class_colours, histogram_figure, temporal_map
from xaibench.errors import RunError, XaibenchError
from xaibench.figures.style import BLUE, ORANGE, VERMILLION, style

RULES = Rules(thresholds=(0.3, 0.6))


def activity(seed=0, frames=101, *, sign=True):
    draw = np.random.default_rng(seed).standard_normal(frames)
    truth = np.arange(frames) // 20 == 2
    speech = np.arange(frames) > 10
    return observe(draw if sign else np.abs(draw), frame_edges(frames, 0.01), speech, rules=RULES, truth=truth)


def sound():
    draw = np.random.default_rng(0).standard_normal(16_000)
    return Sound(0.1 * draw, 16_000, spoofed=((0.4, 0.6),))


def drawn(axes, colour):
    """Spans of the bars of one colour in a panel, in seconds."""
    found = []
    for collection in axes.collections:
        if to_hex(collection.get_facecolor()[0]) == colour.lower():
            for path in collection.get_paths():
                x = path.vertices[:, 0]
                found.append((x.min(), x.max()))
    return sorted(found)


def test_a_temporal_map_shows_truth_guard_and_every_segment():
    one = activity()
    with style():
        figure = temporal._map("t", sound(), {"a": one, "b": activity(1, sign=False)}, RULES, None)
    labels, _curve, bars = figure.axes[2:5]
    assert drawn(labels, VERMILLION) == [pytest.approx((0.4, 0.6))]
    low = temporal.segments_above(one.h, 0.3, one.edges)
    high = temporal.segments_above(one.h, 0.6, one.edges)
    assert len(low) > len(high) > 2
    assert np.array(drawn(bars, VERMILLION)) == pytest.approx(np.array(sorted((s.start, s.end) for s in (*low, *high))))
    assert {t.get_text() for t in bars.texts} == {"0.3", "0.6"}
    texts = {t.get_text() for axes in figure.axes for t in axes.texts}
    assert {"a", "b", "truth", "speech (energy)", "guard 100 ms", "waveform"} <= texts
    assert figure.axes[-1].get_xlabel() == "time (s)" and figure.axes[-1].get_xlim() == (0.0, 1.0)
    assert figure.axes[3].get_ylim()[0] < -1 and figure.axes[5].get_ylim()[0] > -0.1  # b has nothing for bona fide


def test_class_maps_get_their_colours_and_the_largest_wins():
    values = np.zeros((3, 50))
    values[0, :20], values[2, 20:] = 1.0, 2.0
    curves = ClassCurves(("bonafide", "tts", "vc"), values, np.linspace(0, 1, 51))
    with style():
        figure = temporal._map("t", sound(), {"a": activity()}, RULES, curves)
    panel, strip = figure.axes[3:5]
    lines = {line.get_color(): line.get_ydata() for line in panel.lines}
    assert lines[BLUE][:20] == pytest.approx(2 / 3) and lines[ORANGE][20:] == pytest.approx(4 / 3)
    assert drawn(strip, BLUE) == [pytest.approx((0, 0.4))] and drawn(strip, ORANGE) == [pytest.approx((0.4, 1))]
    assert not drawn(strip, VERMILLION)


def test_class_colours_do_not_depend_on_where_bona_fide_stands():
    assert class_colours(["vc", "bonafide", "tts"]) == {"vc": VERMILLION, "bonafide": BLUE, "tts": ORANGE}
    with pytest.raises(XaibenchError, match="6 kinds of spoofing"):
        class_colours([*"abcdef", "bonafide"])


def test_files_are_pictures_the_same_twice_and_no_name_is_maths(tmp_path):
    names = {"$x^2$ <b>": activity(), "a name much too long for the margin it stands in, truly": activity(2)}
    first = temporal_map("$\\frac$ & a title", sound(), names, tmp_path / "a" / "1.png", rules=RULES)
    second = temporal_map("$\\frac$ & a title", sound(), names, tmp_path / "2.png", rules=RULES)
    assert first.read_bytes() == second.read_bytes()
    image = Image.open(first)
    assert image.width == round(temporal.WIDTH * 180) and image.height > 500


def test_a_flat_silent_recording_draws():
    flat = observe(np.zeros(101), frame_edges(101, 0.01), np.zeros(101, bool), rules=RULES)
    with style():
        figure = temporal._map("t", Sound(np.zeros(16_000), 16_000), {"a": flat}, RULES, None)
    assert not drawn(figure.axes[4], VERMILLION)


def test_histograms_draw_every_side(tmp_path):
    sides = {"bona fide frames": [np.array([0.05, 0.1])], "spoofed frames": [np.array([0.9])], "twin": []}
    shown = [Panel(f"m{i}", "delta 0.5", histograms(sides, 10)) for i in range(5)]
    path = histogram_figure("$ title", shown, tmp_path / "h.png", rules=RULES)
    assert Image.open(path).width > 1000
    with pytest.raises(XaibenchError, match="no method"):
        histogram_figure("t", [], tmp_path / "h.png", rules=RULES)


def test_what_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=re.escape(str(tmp_path / "file"))):
        temporal_map("t", sound(), {"a": activity()}, tmp_path / "file" / "x.png", rules=RULES)
    with pytest.raises(XaibenchError, match="no method"):
        temporal_map("t", sound(), {}, tmp_path / "x.png", rules=RULES)
