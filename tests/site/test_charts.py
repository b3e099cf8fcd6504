"""Charts are the board's numbers: each figure is checked against what it was made from; names in them stay text."""

import json
import math

import fake_run
import numpy as np
import pytest
from scipy.stats import kendalltau

from xaibench import maps
from xaibench.comparisons import friedman
from xaibench.errors import RunError
from xaibench.site import charts
from xaibench.site.bands import MOST, bands, top_weights
from xaibench.site.critical import critical_difference
from xaibench.site.source import read, section

HOSTILE = "<img src=x onerror=alert(1)>"
GRID = {"grid": "16000/16/8/hann"}  # 9 bins, 1 kHz apart
SHAPE = (9, 5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    scores = fake_run.SCORES | {HOSTILE: {"rank-accuracy": 0.3, "drop-twin": 0.5}}
    table = fake_run.rows(scores)
    seconds = dict(zip(scores, (0.1, 4.0, 0.02, 0.001, 0.001, 0.001, 0.02), strict=True))
    return read(
        [fake_run.write_run(tmp_path_factory.mktemp("run") / "run", table.assign(seconds=table["attributor"].map(seconds)))]
    )


@pytest.fixture(scope="module")
def board(source):
    return source.boards[0]


def trace(chart):
    return chart.figure["data"][0]


def test_skill_bars_are_the_skills_best_on_top(board):
    found = trace(charts.skills(board, "drop-twin"))
    place = 1
    assert board.columns[place].metric == "drop-twin"
    expected = {line.name: line.readings[place] for line in board.methods}
    names = [n.replace("&lt;", "<").replace("&gt;", ">") for n in found["y"]]
    assert names == sorted(expected, key=lambda n: expected[n].skill)
    for name, value, up, down in zip(
        names, found["x"], found["error_x"]["array"], found["error_x"]["arrayminus"], strict=True
    ):
        r = expected[name]
        assert (value, value + up, value - down) == pytest.approx((100 * r.skill, 100 * r.skill_high, 100 * r.skill_low))


def test_a_metric_without_a_ceiling_has_no_skill_chart(tmp_path):
    few = fake_run.rows({n: v for n, v in fake_run.SCORES.items() if n != "oracle"})
    board = read([fake_run.write_run(tmp_path / "run", few)]).boards[0]
    assert charts.skills(board, "rank-accuracy") is None and charts.cost(board, "rank-accuracy") is None


def test_cost_names_what_nothing_cheaper_surpasses(board):
    chart = charts.cost(board, "drop-twin")
    named = [t for t in trace(chart)["text"] if t]
    assert named == ["&lt;img src=x onerror=alert(1)&gt;", "saliency"]  # grad-cam is as cheap as the first, and worse
    assert chart.figure["layout"]["xaxis"]["type"] == "log"
    assert trace(chart)["x"] == pytest.approx([0.02, 0.02, 0.1, 4.0])


def test_orders_are_kendalls(board):
    chart = charts.orders(board)
    values = [[line.readings[i].value for line in board.methods] for i in range(2)]
    assert trace(chart)["z"][0][1] == pytest.approx(kendalltau(*values).statistic)
    assert trace(chart)["z"][0][0] == 1 and chart.rows[0][1] == "+1.00"


def test_orders_of_a_metric_where_lower_is_better_are_turned(tmp_path):
    scores = {n: {"drop-twin": m["drop-twin"], "deletion-twin": 1 - m["drop-twin"]} for n, m in fake_run.SCORES.items()}
    (board,) = read([fake_run.write_run(tmp_path / "run", fake_run.rows(scores, spread=0))]).boards
    assert trace(charts.orders(board))["z"][0][1] == pytest.approx(1)


@pytest.mark.parametrize("by", ["vocoder", "speaker"])
def test_a_breakdown_is_the_mean_of_its_rows(source, board, by):
    rows = section(source, board)
    chart = charts.breakdown(board, rows, "rank-accuracy", by)
    part = rows[rows["metric"].eq("rank-accuracy")].astype({"attributor": str, by: str})
    expected = part.groupby(["attributor", by])["value"].mean()
    names = [row[0] for row in chart.rows]
    assert "oracle" not in names and names.index("grad-cam") < names.index("lime") < names.index("random")
    for name, line in zip(names, trace(chart)["z"], strict=True):
        assert line == pytest.approx([expected[name, column] for column in chart.header[1:]])


def test_a_breakdown_says_where_methods_do_best_and_nothing_of_them_without_any(source, board, tmp_path):
    rows = section(source, board)
    means = rows[rows["status"].eq("ok") & rows["metric"].eq("rank-accuracy")].astype({"vocoder": str, "attributor": str})
    names = {line.name for line in board.methods}
    means = means[means["attributor"].isin(names)].groupby("vocoder")["value"].mean()
    told = charts.breakdown(board, rows, "rank-accuracy", "vocoder").alt
    assert f"score best on {means.idxmax()}, worst on {means.idxmin()}." in told
    controls = fake_run.rows({n: v for n, v in fake_run.SCORES.items() if n in ("random", "inverse-energy", "oracle")})
    alone = read([fake_run.write_run(tmp_path / "run", controls)])
    told = charts.breakdown(alone.boards[0], section(alone, alone.boards[0]), "rank-accuracy", "vocoder").alt
    assert told.startswith("Scores of 2 rows") and "best" not in told


def test_one_vocoder_is_no_breakdown(source, board):
    rows = section(source, board)
    assert charts.breakdown(board, rows[rows["vocoder"].eq("world")], "rank-accuracy", "vocoder") is None


def test_no_text_of_a_figure_holds_a_tag(source, board):
    rows = section(source, board)
    made = [charts.skills(board, "drop-twin"), charts.cost(board, "drop-twin"), charts.orders(board),
            charts.breakdown(board, rows, "drop-twin", "vocoder")]  # fmt: skip
    assert "&lt;img" in json.dumps([c.figure for c in made]) and not any("<img" in json.dumps(c.figure) for c in made)


# --- bands ---------------------------------------------------------------------------------------------------------------


def keep(run, pair, *, bin_of, method="m", resolves=None):
    """A truth in bins 2 and 3, and a map whose largest cells are all in one bin."""
    values, region = np.zeros(SHAPE), np.zeros(SHAPE, dtype=bool)
    region[2:4] = True
    values[bin_of] = 1
    facts = GRID | ({} if resolves is None else {"resolves": resolves})
    maps.write_map(maps.map_path(run, "lcnn", "native", method, pair), values + 0.01 * np.eye(*SHAPE), metadata=facts)
    valid = np.ones(SHAPE, dtype=bool)
    valid[8] = False
    maps.write_truth(maps.truth_path(run, "eq2", SHAPE[1], pair), values, region, valid, metadata=GRID)


def test_bands_are_shares_of_the_top_cells(tmp_path):
    keep(tmp_path, "u/v", bin_of=slice(4, 6))
    found = bands([tmp_path], "lcnn", "native", "eq2", ["u/v", "w/v"], ["m", "absent"])
    assert found.labels == ("0–1", "1–2", "2–3", "3–4", "4–5")
    assert found.truth == pytest.approx((0, 0.5, 0.5, 0, 0))  # a band has its upper edge: bin 2 is at 2 kHz
    assert found.shares["m"] == pytest.approx((0, 0, 0, 0.5, 0.5)) and set(found.shares) == {"m"}
    assert (found.pairs, found.total) == (1, 1)


def test_a_map_that_does_not_resolve_frequency_is_left_out_by_name(tmp_path):
    keep(tmp_path, "u/v", bin_of=1, resolves="time", method="frames")
    keep(tmp_path, "u/v", bin_of=1, resolves="frequency,time")
    found = bands([tmp_path], "lcnn", "native", "eq2", ["u/v"], ["frames", "m"])
    assert found.blind == ("frames",) and set(found.shares) == {"m"}


def test_no_maps_no_bands_and_a_damaged_one_is_an_error(tmp_path):
    assert bands([tmp_path], "lcnn", "native", "eq2", ["u/v"], ["m"]) is None
    keep(tmp_path, "u/v", bin_of=1)
    maps.map_path(tmp_path, "lcnn", "native", "m", "u/v").write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged"):
        bands([tmp_path], "lcnn", "native", "eq2", ["u/v"], ["m"])


def test_of_many_pairs_some_are_looked_at(tmp_path):
    pairs = [f"u{i}/v" for i in range(MOST + 3)]
    for pair in pairs:
        keep(tmp_path, pair, bin_of=1)
    found = bands([tmp_path], "lcnn", "native", "eq2", pairs, ["m"])
    assert (found.pairs, found.total) == (MOST, MOST + 3)


def test_ties_share_what_is_left():
    values = np.array([[3.0, 1.0, 1.0], [1.0, 1.0, 9.0]])
    valid = np.array([[True, True, True], [True, True, False]])
    assert top_weights(values, valid, 3).tolist() == [[1, 0.5, 0.5], [0.5, 0.5, 0]]
    assert top_weights(values, valid, 99).sum() == 5 and top_weights(values, valid, 0).sum() == 0


# --- critical differences ------------------------------------------------------------------------------------------------


def test_the_diagram_has_every_method_at_its_rank():
    blocks = np.random.default_rng(0).normal(size=(20, 5)) + np.array([0, 2, 2, 4, 4.1])
    found = friedman(blocks)
    diagram = critical_difference(found, ["a", "b", "c", "d", "<e>"], metric="m")
    assert dict(diagram.ranks) == {n: f"{r:.2f}" for n, r in zip(["a", "b", "c", "d", "<e>"], found.ranks, strict=True)}
    texts = " ".join(leader[3] for leader in diagram.leaders)
    assert all(name in texts for name in ("a", "b", "c", "d", "<e>"))
    start, end, words = diagram.difference
    unit = (diagram.last - diagram.first) / (math.ceil(found.ranks.max()) - math.floor(found.ranks.min()))
    assert (end - start) / unit == pytest.approx(found.critical_difference, abs=0.01) and "ranks" in words
    assert len(diagram.bars) == len(found.groups())
    for x1, x2, y in diagram.bars:
        assert diagram.first - 3 <= x1 < x2 <= diagram.last + 3 and diagram.axis < y < diagram.height


def test_bars_that_overlap_stand_on_levels_of_their_own():
    ranks = np.linspace(1, 9, 9)
    found = friedman(np.random.default_rng(1).normal(size=(40, 9)) - 1.1 * ranks)
    bars = critical_difference(found, [f"m{i}" for i in range(9)], metric="m").bars
    assert len(bars) > 2
    for i, (a1, a2, y) in enumerate(bars):
        assert not [b for b in bars[i + 1 :] if b[2] == y and b[0] <= a2 and a1 <= b[1]]


def test_a_name_is_shown_whatever_it_is():
    names = ["<b>", "$x$", "x" * 99, "x" * 98 + "y", "constructor", "__proto__", "lime"]
    shown = [charts._plain(n) for n in names]
    assert len(set(shown)) == len(names) and max(map(len, shown)) <= 40 and shown[-1] == "lime"
    assert not any(set("<>$") & set(s) for s in shown) and not {"constructor", "__proto__"} & set(shown)


def test_names_that_look_like_numbers_or_dates_are_names(tmp_path):
    scores = {n: {"rank-accuracy": 0.1 * i} for i, n in enumerate(("1", "20", "2020-01-01", "random"))}
    scores["oracle"] = {"rank-accuracy": 1.0}
    made = read([fake_run.write_run(tmp_path / "run", fake_run.rows(scores))])
    (board,) = made.boards
    plots = [charts.skills(board, "rank-accuracy"), charts.breakdown(board, made.rows, "rank-accuracy", "vocoder")]
    assert [p.figure["layout"]["yaxis"]["type"] for p in plots] == ["category"] * 2


def test_what_cannot_have_a_map_is_no_error(tmp_path):
    keep(tmp_path, "u/v", bin_of=1)
    found = bands([tmp_path], "lcnn", "native", "eq2", ["a/b/c", "u/v"], ["<b></b>", "m"])
    assert set(found.shares) == {"m"} and (found.pairs, found.total) == (1, 1)
