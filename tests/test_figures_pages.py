"""Pictures for a page: what is on them, that nothing is cut off or overlaps, and what the captions say."""

from itertools import combinations, pairwise

import fake_run
import figure_run
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from xaibench import comparisons, diagrams, maps, registry
from xaibench.errors import RunError, XaibenchError
from xaibench.figures import board as bars
from xaibench.figures import comparison, curves, style
from xaibench.figures.panels import place_of
from xaibench.figures.style import DOUBLE, LINES, SINGLE, Look
from xaibench.leaderboard import table
from xaibench.protocols import Dataset
from xaibench.stats import cluster_bootstrap, ratio_of_means

SIZES = [(SINGLE, 8.0), (DOUBLE, 8.0), (SINGLE, 10.0), (5.5, 6.0)]


def look(width=DOUBLE, font_size=8.0):
    return Look(width=width, formats=("png",), dpi=50, font_size=font_size)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, by the way."""
    found = []
    before = style.save
    monkeypatch.setattr(style, "save", lambda figure, *rest: found.append(figure) or before(figure, *rest))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return figure_run.write(tmp_path_factory.mktemp("drawn") / "run")


@pytest.fixture
def data(tmp_path, monkeypatch):
    corpus = figure_run.corpus(tmp_path)
    monkeypatch.setattr(registry, "load", lambda group, name: Dataset(name, group, lambda root: corpus))


def check_words(figure):
    """Every word lies within the figure, and no two lie upon each other."""
    boxes = [(text.get_text(), box) for text, box in figure_run.words(figure)]
    assert len(boxes) > 3
    for text, box in boxes:
        inside = box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= figure.bbox.x1 + 0.5 and box.y1 <= figure.bbox.y1 + 0.5
        assert inside, f"{text!r} is cut off: {box} of {figure.bbox}"
    for (first, a), (second, b) in combinations(boxes, 2):
        over = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over) <= 1.5, f"{first!r} lies upon {second!r}"
    return [text for text, _ in boxes]


# --- comparison --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "size"), SIZES)
def test_the_homeworks_comparison(run, data, drawn, tmp_path, width, size):
    (picture,) = comparison.compare_run(run, "u0/world", tmp_path, xai=["saliency", "lime"], look=look(width, size))
    assert [p.name for p in picture.paths] == ["comparison__u0__world__lcnn__native.png"]
    (figure,) = drawn
    assert figure.get_size_inches()[0] == pytest.approx(width)
    text = check_words(figure)
    assert {"(a) bona fide", "(b) world", "(c) world − bona fide", "(d) truth (Eq. 2), top 5 %", "(e) saliency"} < set(text)
    assert "time (s)" in text and "frequency (kHz)" in text and any("dB" in t for t in text)
    panels = [axes for axes in figure.axes if axes.get_images()][:8]
    assert {axes.get_xlim() for axes in panels} == {(0.0, 0.3)} and {axes.get_ylim() for axes in panels} == {(0.0, 4.0)}
    levels = [axes.get_images()[0] for axes in panels[:2]]
    assert levels[0].get_clim() == levels[1].get_clim() == (-80.0, 0.0)
    assert max(image.get_array().max() for image in levels) == pytest.approx(0.0)  # one loudest cell for both
    assert levels[0].get_array().max() != levels[1].get_array().max()
    score = fake_run.SCORES["lime"]["rank-accuracy"]
    assert any(t.startswith("(h) its top 5 %: ") and float(t[-5:]) == pytest.approx(score, abs=0.04) for t in text)
    assert "Eq. 2" in picture.caption and "lcnn" in picture.caption


def test_the_mask_and_hits_are_those_of_the_run(run, data, drawn, tmp_path):
    comparison.compare_run(run, "u0/world", tmp_path, xai=["saliency"], look=look())
    truth = maps.read_truth(maps.truth_path(run, "eq2", figure_run.GRID.shape(figure_run.SAMPLES)[1], "u0/world"))
    panels = [axes for axes in drawn[0].axes if len(axes.get_images()) > 1]
    (mask,) = [axes.get_images()[1].get_array()[..., 3] > 0 for axes in panels if len(axes.get_images()) == 2]
    np.testing.assert_array_equal(mask, truth.region)
    outside, hits = (image.get_array()[..., 3] > 0 for image in panels[-1].get_images()[1:])
    assert not (outside & truth.region).any() and not (hits & ~truth.region).any()
    assert (outside | hits).sum() == truth.region.sum()


def test_the_difference_is_the_smoothed_signed_one_of_eq_2(data, drawn, tmp_path):
    import torch

    from xaibench.truth import smooth

    rng = np.random.default_rng(0)
    magnitude = rng.random((9, 14))
    expected = smooth(torch.from_numpy(magnitude)[None])[0].numpy()
    np.testing.assert_allclose(comparison._smooth(magnitude), expected, atol=1e-12)


def test_what_the_vocoder_added_is_positive():
    level = np.ones((33, 20))
    stored = maps.StoredTruth(level, {}, region=level > 2, valid=level > 0)
    content = comparison.Compared("u/world", level, 2 * level, stored, place_of(20 * 32, (8_000, 64, 32, "hann")), {})
    with style.style():
        figure = comparison._figure(content, "eq2", look())
    np.testing.assert_allclose(figure.axes[2].get_images()[0].get_array(), 20 * np.log10(2))


def test_a_cell_stands_half_a_hop_and_half_a_bin_about_its_centre():
    how = place_of(640, (8_000, 64, 32, "hann"), scale=1000.0).how((33, 21))
    assert how["extent"] == pytest.approx((-0.002, 20.5 * 0.004, -0.0625, 32.5 * 0.125)) and how["origin"] == "lower"


def test_without_a_run_the_truth_is_computed(data, drawn, tmp_path):
    pictures = comparison.compare_data("toy", "u0", tmp_path, look=look(SINGLE))
    assert [p.paths[0].name for p in pictures] == ["comparison__u0__griffinlim__eq2.png", "comparison__u0__world__eq2.png"]
    check_words(drawn[0])
    with pytest.raises(XaibenchError, match="did you mean 'u0/world'"):
        comparison.compare_data("toy", "u0/wrld", tmp_path)
    (picture,) = comparison.compare_data("toy", "u0/world", tmp_path, truth="log-difference", look=look())
    assert "|log difference|" in picture.caption


def test_a_stretch_of_it(run, data, drawn, tmp_path):
    comparison.compare_run(run, "u0/world", tmp_path, seconds=(0.1, 0.2), look=look())
    assert drawn[0].axes[0].get_xlim() == (0.1, 0.2)
    check_words(drawn[0])
    for wrong in ((0.2, 0.1), (0.1, 9.0)):
        with pytest.raises(XaibenchError, match=r"lasts 0.30 s"):
            comparison.compare_run(run, "u0/world", tmp_path, seconds=wrong)


def test_a_method_without_a_map_is_named(run, data, tmp_path):
    with pytest.raises(XaibenchError, match="did you mean 'grad-cam'"):
        comparison.compare_run(run, "u0/world", tmp_path, xai=["gradcam"])


# --- board -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "skill"), [(SINGLE, False), (DOUBLE, False), (SINGLE, True), (DOUBLE, True)])
def test_bars(run, drawn, tmp_path, width, skill):
    board = table.board(table.read_rows([run]))
    (picture,) = bars.draw_board(board, tmp_path, skill=skill, look=look(width))
    text = check_words(drawn[0])
    assert {"oracle", "saliency", "inverse-energy", "ceiling", "methods", "floors", "95 % interval"} < set(text)
    assert ("skill in rank-accuracy (%)" if skill else "rank-accuracy (→ better)") in text
    assert len(drawn[0].axes) == (1 if width == SINGLE else 2)
    assert "12 pairs of toy" in picture.caption and "EER 5.0%" in picture.caption
    axes = drawn[0].axes[0]
    widths = [patch.get_width() for patch in axes.patches]
    column = board.set_index("attributor")["rank-accuracy" + ("_skill" if skill else "")]
    assert max(column[["lime", "saliency", "grad-cam"]]) * (100 if skill else 1) == pytest.approx(sorted(widths)[-2])


def test_one_metric_by_name_and_an_unknown_one(run, drawn, tmp_path):
    board = table.board(table.read_rows([run]))
    (picture,) = bars.draw_board(board, tmp_path, metrics=["drop-twin"], look=look())
    assert picture.paths[0].name == "board__toy__eq2__lcnn__native__drop-twin.png" and len(drawn[0].axes) == 1
    with pytest.raises(XaibenchError, match="did you mean 'drop-twin'"):
        bars.draw_board(board, tmp_path, metrics=["drop-twn"])


def test_no_skill_without_a_floor(tmp_path):
    scores = {name: fake_run.SCORES[name] for name in ("lime", "saliency")}
    board = table.board(table.read_rows([fake_run.write_run(tmp_path / "run", fake_run.rows(scores))]))
    with pytest.raises(XaibenchError, match="without --skill"):
        bars.draw_board(board, tmp_path, skill=True)


def test_forty_bars_with_long_names(drawn, tmp_path):
    scores = {f"integrated-gradients-of-a-long-name-{i}": {"rank-accuracy": 0.1 + 0.01 * i} for i in range(40)}
    rows = fake_run.rows({**scores, "random": {"rank-accuracy": 0.05}}, utterances=2)
    bars.draw_board(table.board(table.read_rows([fake_run.write_run(tmp_path / "run", rows)])), tmp_path, look=look(SINGLE))
    check_words(drawn[0])
    assert drawn[0].get_size_inches()[1] < 10


# --- curves ------------------------------------------------------------------------------------------------------------


def looks_of(line):
    return line.get_color(), str(line._unscaled_dash_pattern), line.get_marker()


def curve_of(figure, name):
    """The means of a curve, found by the line beside its name, and its band."""
    axes = figure.axes[0]
    text = next(t for t in axes.texts if t.get_text() == name)
    height = text.get_position()[1]
    key = next(line for line in axes.lines if line.get_transform() == axes.transAxes and line.get_ydata()[0] == height)
    mine = looks_of(key)
    (line,) = [
        x for x in axes.lines if x.get_transform() != axes.transAxes and looks_of(x) == mine and x.get_linewidth() > 1
    ]
    return line, [c for c in axes.collections if isinstance(c, PolyCollection)]


@pytest.mark.parametrize(("width", "size"), SIZES)
def test_curves_are_means_with_clustered_bands(run, drawn, tmp_path, width, size):
    (picture,) = curves.draw_curves([run], tmp_path, look=look(width, size))
    text = check_words(drawn[0])
    assert "spoof score (log-odds)" in text and any(t.startswith("cells deleted (%)") for t in text)
    assert {"saliency", "lime", "grad-cam", "random", "oracle", "inverse-energy"} < set(text)
    (found,) = curves.read_curves([run], "deletion-twin")
    assert found.values["lime"].shape == (12, 5)
    line, bands = curve_of(drawn[0], "lime")
    np.testing.assert_allclose(line.get_ydata(), found.values["lime"].mean(axis=0))
    np.testing.assert_allclose(line.get_xdata(), 100 * figure_run.FRACTIONS)
    assert len(bands) == 3  # of the methods
    (drawn_line,) = curves._lines(found, ["lime"], "deletion", "log-odds")
    expected = cluster_bootstrap(found.values["lime"][:, 2], [source for source, _ in found.pairs])
    assert (drawn_line.mean[2], drawn_line.low[2], drawn_line.high[2]) == pytest.approx(tuple(expected))
    assert "12 pairs of 6 utterances" in picture.caption and "clustered by source" in picture.caption


@pytest.mark.parametrize("direction", curves.DIRECTIONS)
def test_the_best_curve_falls_or_rises_first(run, direction):
    (found,) = curves.read_curves([run], f"{direction}-twin")
    order, _ = curves._chosen(found, ["saliency", "grad-cam", "lime"], direction, "twin")
    assert [name for name in order if name in ("saliency", "grad-cam", "lime")] == ["grad-cam", "lime", "saliency"]


def test_floors_are_dashed_ceilings_dotted_methods_solid(run, drawn, tmp_path):
    curves.draw_curves([run], tmp_path, look=look())
    looks = {name: curve_of(drawn[0], name)[0] for name in ("lime", "random", "inverse-energy", "oracle")}
    assert looks["lime"].get_linestyle() == "-" and looks["lime"].get_color() in LINES
    assert {looks[n].get_linestyle() for n in ("random", "inverse-energy", "oracle")} == {"--"}  # any dashes of one's own
    dashes = {n: looks[n]._unscaled_dash_pattern for n in ("random", "inverse-energy", "oracle")}
    assert len({str(d) for d in dashes.values()}) == 3
    assert dashes["oracle"][1][0] < min(dashes["random"][1][0], dashes["inverse-energy"][1][0])  # dots are shorter
    assert all(looks[n].get_marker() in (None, "None", "") for n in ("random", "oracle"))


def test_the_share_of_the_gap(run, tmp_path):
    (found,) = curves.read_curves([run], "deletion-twin")
    (line,) = curves._lines(found, ["lime"], "deletion", "gap")
    np.testing.assert_allclose(line.mean, 100 * (1 - figure_run.FRACTIONS) ** 2, atol=1e-9)
    assert line.low[0] == line.high[0] == 100 and line.low[-1] == line.high[-1] == 0
    values, sources = found.values["lime"], [source for source, _ in found.pairs]
    noisy = values + np.random.default_rng(0).normal(size=values.shape)
    made = curves.Curves("c", "r", found.fractions, found.pairs, {"x": noisy})
    (line,) = curves._lines(made, ["x"], "insertion", "gap")
    expected = ratio_of_means(noisy[:, 1] - noisy[:, 0], noisy[:, -1] - noisy[:, 0], sources)
    assert (line.mean[1], line.low[1], line.high[1]) == pytest.approx(tuple(100 * np.array(expected)))


def test_of_many_methods_the_best_and_worst_and_it_says_so(drawn, tmp_path):
    speeds = {f"method-{i:02}": 1 + 0.3 * i for i in range(12)}
    run = figure_run.write(tmp_path / "run", speeds={**speeds, "random": 0.5}, sources=2)
    (picture,) = curves.draw_curves([run], tmp_path, look=look(SINGLE))
    text = check_words(drawn[0])
    shown = sorted(t for t in text if t.startswith("method-"))
    assert shown == [f"method-{i:02}" for i in (0, 1, 2, 7, 8, 9, 10, 11)]
    assert "Of 12 methods the 5 best and 3 worst" in picture.caption
    (picture,) = curves.draw_curves([run], tmp_path, xai=["method-05"], curve="insertion-twin", look=look(SINGLE))
    assert "Of 12" not in picture.caption and "method-05" in check_words(drawn[1])
    with pytest.raises(XaibenchError, match="at most 8"):
        curves.draw_curves([run], tmp_path, xai=list(speeds))


def test_a_ceiling_far_off_leaves_the_axes_and_not_the_names(drawn, tmp_path):
    run = figure_run.write(tmp_path / "run", sources=3)
    for u in range(3):
        for vocoder in fake_run.VOCODERS:
            path = maps.map_path(run, "lcnn", "native", "extremal-twin", f"u{u}/{vocoder}")
            kept = {"fractions": figure_run.FRACTIONS, "deletion-twin": [5.0, -900, -999, -900, -6.0]}
            maps.write_map(path, np.ones((3, 4)), metadata=figure_run.FACTS, curves=kept)
    curves.draw_curves([run], tmp_path, look=look())
    assert "extremal-twin ↓" in check_words(drawn[0])
    assert drawn[0].axes[0].get_ylim()[0] > -30


def test_a_run_without_curves_says_how_to_get_them(tmp_path):
    run = figure_run.write(tmp_path / "run", curves=False, sources=1)
    with pytest.raises(RunError, match=r"no deletion-twin curve was kept; .*--keep-maps"):
        curves.draw_curves([run], tmp_path)


def test_mistakes_of_curves(run, tmp_path):
    with pytest.raises(RunError, match="no deletion-silence curve was kept; there are deletion-twin, insertion-twin"):
        curves.draw_curves([run], tmp_path, curve="deletion-silence")
    with pytest.raises(XaibenchError, match="did you mean 'deletion"):
        curves.draw_curves([run], tmp_path, curve="deltion-twin")
    with pytest.raises(XaibenchError, match="has no scale but log-odds"):
        curves.draw_curves([run], tmp_path, curve="deletion-mean", scale="gap")
    with pytest.raises(XaibenchError, match="did you mean 'lime'"):
        curves.draw_curves([run], tmp_path, xai=["lim"])


def test_two_trainings_are_not_mixed(run, tmp_path):
    rows = fake_run.rows(fake_run.SCORES)
    record = fake_run.run_record()
    record["countermeasures"]["lcnn"]["weights"] = "others"
    with pytest.raises(RunError, match="cannot share a table"):
        curves.draw_curves([run, fake_run.write_run(tmp_path / "other", rows, record)], tmp_path)


def test_means_are_over_the_same_pairs(tmp_path):
    run = figure_run.write(tmp_path / "run", sources=3)
    maps.map_path(run, "lcnn", "native", "lime", "u0/world").unlink()
    for pair in ("u0/world", "u0/griffinlim", "u1/world", "u1/griffinlim"):
        maps.map_path(run, "lcnn", "native", "saliency", pair).unlink()
    (found,) = curves.read_curves([run], "deletion-twin")
    assert "saliency" not in found.values and len(found.pairs) == 5 and ("u0", "world") not in found.pairs
    assert {len(v) for v in found.values.values()} == {5}


@pytest.mark.parametrize("wanted", [[0.0, 0.0, 0.0], [2.0, 0.1, 1.9, 0.2], [5.0, 5.0, -3.0, 9.0, 2.0]])
def test_names_are_spread_in_order_and_within(wanted):
    heights = curves.spread(wanted, 1.0, 6.0)
    assert min(heights) >= 0.5 - 1e-9 and max(heights) <= 5.5 + 1e-9
    rank = sorted(range(len(wanted)), key=lambda i: (wanted[i], heights[i]))
    assert all(heights[b] - heights[a] >= 1 - 1e-9 for a, b in pairwise(rank))


# --- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "count"), [(SINGLE, 6), (DOUBLE, 6), (DOUBLE, 36)])
def test_critical_differences_fit_their_column(tmp_path, drawn, width, count):
    rng = np.random.default_rng(0)
    found = comparisons.friedman(rng.normal(size=(30, count)) + np.linspace(0, 2, count))
    names = [f"gradient-{i}" for i in range(count)]
    paths = diagrams.critical_difference(found, names, tmp_path / "cd", look=look(width))
    assert [p.name for p in paths] == ["cd.png"] and drawn[0].get_size_inches()[0] == pytest.approx(width)
    text = check_words(drawn[0])
    assert sum("gradient-" in t for t in text) == count and any(t.startswith("CD = ") for t in text)


def test_too_narrow_for_the_names(tmp_path):
    found = comparisons.friedman(np.random.default_rng(0).normal(size=(30, 4)))
    with pytest.raises(XaibenchError, match=r"3.35 inches are too narrow .* needed"):
        diagrams.critical_difference(
            found, [f"a-very-long-name-of-a-method-{i}" for i in range(4)], tmp_path / "x", look=look(3.35)
        )
    with pytest.raises(XaibenchError, match="too narrow for a matrix of 40"):
        diagrams.agreement(np.eye(40), ["rank-accuracy"] * 40, tmp_path / "x", look=look(3.35))


@pytest.mark.parametrize(("width", "count"), [(SINGLE, 3), (SINGLE, 9), (DOUBLE, 20)])
def test_agreement_fits_its_column(tmp_path, drawn, width, count):
    tau = np.random.default_rng(0).uniform(-1, 1, (count, count))
    tau[0, 1] = np.nan
    diagrams.agreement(tau, [f"metric-{i}" for i in range(count)], tmp_path / "a", look=look(width))
    text = check_words(drawn[0])
    assert text.count("-") == 1 and "Kendall's tau" in text
