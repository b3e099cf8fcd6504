"""The board computed together is the board computed one interval at a time, to 1e-12; a million rows take the same path."""

import fake_run
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from twins import board as twin

from xaibench.errors import RunError, XaibenchError
from xaibench.leaderboard import reading, table

METHODS = ("saliency", "lime", "grad-cam", "random", "centre", "oracle", "extremal-twin", "moved-truth")
METRICS = ("rank-accuracy", "drop-twin", "deletion-twin", "insertion-twin", "sparseness", "pointing-game")


def many(seed: int, *, utterances: int = 9, gaps: float = 0.15, metrics: tuple[str, ...] = METRICS) -> pd.DataFrame:
    """Two countermeasures, cells that failed for several reasons or are not there, ties, and scores on both sides of 0."""
    random = np.random.default_rng(seed)
    parts = []
    for cm, route in (("lcnn", "native"), ("aasist", "grid")):
        scores = {a: {m: 1.0 if a == "oracle" else random.uniform(-0.5, 0.9) for m in metrics} for a in METHODS}
        part = fake_run.rows(
            scores, utterances=utterances, spread=0.3, seed=int(random.integers(99)), countermeasure=cm, route=route
        )
        binary = part["metric"].eq("pointing-game")
        part.loc[binary, "value"] = random.integers(0, 2, int(binary.sum())).astype(float)
        part["seconds"] = random.uniform(0.1, 2, len(part))
        for status, note in (("failed", "out of memory"), ("undefined", ""), ("void", "all zero"), ("failed", "no layer")):
            part = fake_run.fail(part, random.uniform(size=len(part)) < gaps / 4, status=status, note=note)
        parts.append(part[random.uniform(size=len(part)) > gaps / 2])
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=seed, ignore_index=True)


def stamped(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(eer=0.05, pairs=20.0, dirty=False, precision="fp32")


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert_frame_equal(found, expected, check_exact=False, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", [{}, {"metrics": METRICS}, {"cluster": "speaker"}], ids=["default", "all", "speakers"])
def test_the_board_is_that_of_the_twin(seed, options):
    rows = stamped(many(seed))
    expected = twin.board(rows, draws=400, **options)
    same(table.board(rows, draws=400, **options), expected)
    same(table.board(reading.encode(rows), draws=400, **options), expected)
    assert expected["rank-accuracy_skill_low"].notna().any() or "cluster" in options
    assert expected["drop-twin_margin_low"].notna().any() and expected["gaps"].str.contains("2 other|1 other|missing").any()


def test_the_board_of_one_utterance_and_of_five_is_that_of_the_twin():
    for utterances in (1, 2, 5):
        rows = stamped(many(0, utterances=utterances))
        same(table.board(rows, draws=400), twin.board(rows, draws=400))


def test_blocks_of_resamples_and_of_sums_change_nothing(monkeypatch):
    from xaibench import stats

    rows = stamped(many(1))
    expected = twin.board(rows, draws=400)
    monkeypatch.setattr(stats, "_RESAMPLES", 301)  # 33 draws at a time
    monkeypatch.setattr(stats, "_SUMS", 1)  # one line at a time
    same(table.board(rows, draws=400), expected)


def test_encoded_rows_are_the_rows(tmp_path):
    rows = many(2)
    rows.loc[3, "note"] = None
    run = fake_run.write_run(tmp_path / "run", rows)
    text, encoded = table.read_rows([run]), table.read_rows([run], encoded=True)
    assert isinstance(encoded["metric"].dtype, pd.CategoricalDtype) and not isinstance(
        text["metric"].dtype, pd.CategoricalDtype
    )
    for name in reading.TEXT:
        assert encoded[name].cat.categories.is_monotonic_increasing
        assert encoded[name].astype(text[name].dtype).equals(text[name])
    assert text["note"].isna().sum() == 1 and len(text) == len(rows)
    order = [*reading.CELL]
    assert_frame_equal(
        text[list(rows.columns)].sort_values(order, ignore_index=True),
        rows.sort_values(order, ignore_index=True),
        check_dtype=False,
    )


def test_categories_in_another_order_or_unused_change_nothing():
    rows = stamped(many(3))
    odd = rows.assign(
        metric=pd.Categorical(rows["metric"], categories=[*METRICS[::-1], "iou"]),
        utterance=pd.Categorical(rows["utterance"], categories=sorted(rows["utterance"].unique())[::-1]),
    )
    same(table.board(odd, draws=400), twin.board(rows, draws=400))


def test_cells_in_two_files_are_taken_once_as_the_twin_takes_them():
    rows = many(4, utterances=3)
    again = fake_run.fail(rows, rows["utterance"].eq("u1"))
    both = pd.concat([again, rows, rows[::3]], ignore_index=True)
    found = reading._unique_cells(reading.encode(both))
    expected = twin.unique_cells(both)
    assert_frame_equal(
        found.astype(dict.fromkeys(reading.TEXT, object)), expected.astype(dict.fromkeys(reading.TEXT, object))
    )
    changed = both.assign(fingerprint=both["fingerprint"].where(both.index != 7, "other"))
    cell = " / ".join(changed.loc[7, list(reading.CELL)])
    with pytest.raises(RunError, match=f"the cell {cell} is there 2 times"):
        reading._unique_cells(reading.encode(changed))


def test_a_cell_given_twice_is_refused_not_overwritten():
    rows = stamped(many(5))
    with pytest.raises(XaibenchError, match="twice"):
        table.board(pd.concat([rows, rows[rows["status"].eq("ok")][:1]], ignore_index=True))
