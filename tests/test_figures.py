"""Pictures are made from run folders alone, one a countermeasure and route, and say what is missing."""

import fake_run
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from xaibench import audio, figures, maps, registry
from xaibench.errors import RunError, XaibenchError
from xaibench.figures import board as bars
from xaibench.figures import gallery, pairs, style
from xaibench.grid import Grid
from xaibench.leaderboard import table
from xaibench.protocols import Corpus, Dataset
from xaibench.top import largest
from xaibench.types import Utterance

RATE, N, PAIR = 8_000, 2_400, "u1/world"
GRID = Grid(sample_rate=RATE, n_fft=64, hop=32)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer pixels: the tests look at what is drawn, not at how finely."""
    monkeypatch.setattr(style, "DPI", 50)


def waveforms():
    rng = np.random.default_rng(0)
    return rng.normal(size=N), rng.normal(size=N)


@pytest.fixture
def run(tmp_path):
    rows = fake_run.rows(fake_run.SCORES)
    run = fake_run.write_run(tmp_path / "run", rows)
    rng = np.random.default_rng(1)
    shape = GRID.shape(N)
    valid = np.zeros(shape, bool)
    valid[1:-2] = True
    values = rng.random(shape) * valid
    region, _ = largest(values, valid, round(0.05 * valid.sum()))
    facts = {"grid": f"{RATE}/64/32/hann", "truth": "eq2"}
    maps.write_truth(maps.truth_path(run, "eq2", GRID.shape(N)[1], PAIR), values, region, valid, metadata=facts)
    for name in ("saliency", "lime", "random", "oracle", "unscored"):
        map_ = {"oracle": values, "lime": np.zeros(shape)}.get(name, rng.normal(size=shape))
        maps.write_map(maps.map_path(run, "lcnn", "native", name, PAIR), map_, metadata=facts)
    return run


def test_show_draws_every_method_of_a_pair(run, tmp_path):
    (path,) = figures.show(run, PAIR, *waveforms(), RATE, out=tmp_path / "out")
    assert path.name == "u1__world__lcnn__native.png"
    picture = imread(path)
    assert picture.ndim == 3 and picture[..., :3].std() > 0.05
    before = path.read_bytes()
    figures.show(run, PAIR, *waveforms(), RATE, out=tmp_path / "out")
    assert path.read_bytes() == before  # no date in it


def test_show_puts_methods_first_and_best_first():
    scores = {"a": 0.1, "b": 0.3, "c": float("nan"), "random": 0.2, "oracle": 1.0}
    order = gallery._places(dict.fromkeys(scores), scores, columns=2)
    assert order == ["b", "a", "c", None, "oracle", "random"]


def test_titles_carry_the_utterances_own_rank_accuracy(run):
    rows = table.read_rows([run])
    wanted = rows[rows["utterance"].eq("u1") & rows["vocoder"].eq("world") & rows["metric"].eq("rank-accuracy")]
    found = pairs.rank_accuracies(run, PAIR, "eq2")
    assert found == {("lcnn", "native", r.attributor): r.value for r in wanted.itertuples()}


def test_one_picture_a_route(run, tmp_path):
    facts = maps.read_truth(maps.truth_path(run, "eq2", GRID.shape(N)[1], PAIR)).metadata
    maps.write_map(maps.map_path(run, "lcnn", "grid", "saliency", PAIR), np.zeros(GRID.shape(N)), metadata=facts)
    names = [p.name for p in figures.show(run, PAIR, *waveforms(), RATE, out=tmp_path)]
    assert names == ["u1__world__lcnn__grid.png", "u1__world__lcnn__native.png"]


def test_show_run_reads_the_audio_itself(run, tmp_path, monkeypatch):
    utterances = []
    for vocoder, samples in zip(("bonafide", "world"), waveforms(), strict=True):
        path = tmp_path / f"{vocoder}.wav"
        audio.write(path, (0.1 * samples).astype(np.float32), sample_rate=RATE)
        utterances.append(Utterance("u1", "s1", "eval", vocoder, path, n_samples=N))
    corpus = Corpus(name="toy", utterances=tuple(utterances), sample_rate=RATE, valid_band=(100, 3_000))
    monkeypatch.setattr(registry, "load", lambda group, name: Dataset(name, group, lambda root: corpus))
    (path,) = figures.show_run(run, "u1", tmp_path / "out")
    assert path.name == "u1__world__lcnn__native.png"
    corpus = Corpus(name="toy", utterances=(), sample_rate=RATE, valid_band=(100, 3_000))
    with pytest.raises(RunError, match="u1/world, which toy does not hold"):
        figures.show_run(run, "u1", tmp_path / "out")


def test_show_without_maps_says_how_to_get_them(tmp_path):
    run = fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))
    with pytest.raises(RunError, match="--keep-maps"):
        figures.show(run, PAIR, *waveforms(), RATE, out=tmp_path)


def test_show_refuses_waveforms_of_another_rate_or_form(run, tmp_path):
    bonafide, spoof = waveforms()
    with pytest.raises(XaibenchError, match="16000 Hz, maps at 8000 Hz"):
        figures.show(run, PAIR, bonafide, spoof, 16_000, out=tmp_path)
    with pytest.raises(XaibenchError, match=r"\(N,\)"):
        figures.show(run, PAIR, bonafide[None], spoof[None], RATE, out=tmp_path)


def test_the_magnitude_is_the_grids():
    import torch

    truth = maps.StoredMap(np.zeros(GRID.shape(N)), {"grid": f"{RATE}/64/32/hann"})
    x = waveforms()[0]
    expected = GRID.stft(torch.from_numpy(x)[None]).abs()[0].numpy()
    np.testing.assert_allclose(pairs.magnitude(x, RATE, truth), expected, atol=1e-9)


def test_the_top_share_is_the_truths():
    import torch

    from xaibench.truth import top_share

    values = np.random.default_rng(0).integers(0, 6, (9, 11)).astype(float)
    valid = np.ones((9, 11), bool)
    valid[0] = False
    count = round(0.1 * valid.sum())
    region, tied = largest(values, valid, count)
    expected = top_share(torch.from_numpy(values)[None], torch.from_numpy(valid), 0.1)[0].numpy()
    np.testing.assert_array_equal(region, expected)
    assert tied and not largest(np.arange(99.0).reshape(9, 11), valid, count)[1]


def test_training_curves(tmp_path):
    history = tmp_path / "history.csv"
    lines = {"epoch": [0, 1, 2], "loss": [1.0, 0.5, 0.4], "dev_eer": [0.4, 0.2, 0.3], "rate": 1e-3, "seconds": 9.0}
    pd.DataFrame(lines).to_csv(history, index=False)
    path = figures.training_curves(history, tmp_path / "curves.png")
    assert imread(path)[..., :3].std() > 0.02
    with pytest.raises(XaibenchError, match="no such table"):
        figures.training_curves(tmp_path / "gone.csv", path)
    (tmp_path / "other.csv").write_text("epoch,loss\n0,1\n")
    with pytest.raises(XaibenchError, match="lacks dev_eer"):
        figures.training_curves(tmp_path / "other.csv", path)


def test_board_bars_makes_one_picture_a_section(tmp_path):
    rows = fake_run.rows(fake_run.SCORES)
    rows = fake_run.fail(rows, rows["attributor"].eq("lime"))
    runs = [
        fake_run.write_run(tmp_path / "n", rows), fake_run.write_run(tmp_path / "g", rows.assign(route="grid")),
    ]  # fmt: skip
    paths = figures.board_bars(table.board(table.read_rows(runs)), tmp_path / "out")
    assert [p.name for p in paths] == ["board__toy__eq2__lcnn__grid.png", "board__toy__eq2__lcnn__native.png"]
    assert all(imread(p)[..., :3].std() > 0.05 for p in paths)


def test_the_ceiling_does_not_squeeze_the_methods(tmp_path):
    board = table.board(table.read_rows([fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))]))
    low, high = bars._limits(board, "rank-accuracy")
    assert low == 0 and 0.4 < high < 0.5


def test_one_metric_is_enough_for_bars(tmp_path):
    rows = table.read_rows([fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))])
    assert len(figures.board_bars(table.board(rows, metrics=["drop-twin"]), tmp_path / "out")) == 1


def test_a_figure_that_cannot_be_written_is_an_error_with_a_name(tmp_path):
    (tmp_path / "file").write_text("")
    board = table.board(table.read_rows([fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))]))
    with pytest.raises(RunError, match="cannot be written"):
        figures.board_bars(board, tmp_path / "file")
