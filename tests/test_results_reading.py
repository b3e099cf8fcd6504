"""Reading a run folder: what comes back, which file is named, and that resuming asks what its literal twin asks."""

import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from twins import missing as twin

from xaibench.errors import RunError
from xaibench.harness import missing
from xaibench.harness.results import SCHEMA, TEXT, Store, keys, read_files
from xaibench.leaderboard.reading import read_rows
from xaibench.truth import TruthSpec
from xaibench.types import ROW_COLUMNS, Pair, Row, Utterance

METRICS = ("rank-accuracy", "drop-twin", "deletion-twin")
PLUGIN = "plug"  # a metric of a plugin: its cells have fingerprints of their own


def frame(n: int, seed: int = 0, **fixed: object) -> pd.DataFrame:
    """Rows of `n` random cells, some of which meet."""
    random = np.random.default_rng(seed)
    status = random.choice(["ok", "failed"], n, p=[0.8, 0.2])
    text = {
        "run": "r", "dataset": "toy", "utterance": [f"u{i}" for i in random.integers(0, 6, n)], "speaker": "s",
        "vocoder": random.choice(["world", "griffinlim"], n), "countermeasure": random.choice(["lcnn", "aasist"], n),
        "attributor": random.choice(["saliency", "lime", "old"], n),
        "route": random.choice(["native", "grid"], n, p=[0.8, 0.2]),
        "truth": random.choice(["eq2", "eq1"], n, p=[0.9, 0.1]), "metric": random.choice([*METRICS, PLUGIN, "gone"], n),
        "status": status, "note": np.where(status == "ok", "", "out of memory"),
    }  # fmt: skip
    table = pd.DataFrame({**text, "value": np.where(status == "ok", random.normal(size=n), np.nan), "seconds": 0.5, **fixed})
    return table.assign(fingerprint=fixed.get("fingerprint", "0"))[list(ROW_COLUMNS)]


def write(folder, *tables: pd.DataFrame, schema: pa.Schema | None = SCHEMA) -> list:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{i:05d}.parquet" for i in range(len(tables))]
    for file, table in zip(files, tables, strict=True):
        pq.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), file)
    return files


# --- files ----------------------------------------------------------------------------------------------------------------


def test_rows_of_many_files_come_back_in_their_order_with_their_file(tmp_path):
    tables = [frame(1 + i % 4, seed=i) for i in range(150)]  # more than one task of a reader
    tables[7].loc[0, "note"] = None
    files = write(tmp_path, *tables)
    found = read_files(files)
    expected = pd.concat(tables, ignore_index=True)
    assert found["note"].isna().sum() == 1
    for name in TEXT:
        assert found[name].cat.categories.is_monotonic_increasing
        texts = (table[name].astype(object).where(table[name].notna(), None).tolist() for table in (found, expected))
        assert next(texts) == next(texts)
    np.testing.assert_array_equal(found[["value", "seconds"]], expected[["value", "seconds"]])
    assert found["file"].tolist() == [str(f) for f, t in zip(files, tables, strict=True) for _ in range(len(t))]


def test_what_is_being_written_is_no_result(tmp_path):
    write(tmp_path / "rows" / "lcnn", frame(5))
    scratch = tmp_path / "rows" / "lcnn" / ".xaibench-0123456789abcdef.tmp"
    write(scratch, frame(3))
    (scratch / "half.parquet").write_bytes(b"PAR1")
    assert len(Store(tmp_path).read_rows()) == 5
    (tmp_path / "run.json").write_text('{"spec": {}, "identity": {}, "dataset": {}, "countermeasures": {}}')
    assert len(read_rows([tmp_path])) <= 5


def test_names_that_are_no_utf_8_are_read_and_written(tmp_path):
    odd = tmp_path / os.fsdecode(b"r\xff\xfe")
    files = write_oddly(odd, frame(4))
    assert set(read_files(files)["file"]) == {str(files[0])}
    store, chunk = Store(odd), SimpleNamespace(countermeasure="toy", route="native", attributor="m", name="00001-a")
    with store.locked():
        row = Row(**{**frame(1).iloc[0].to_dict(), "run": odd.name, "note": "no file \udcff\ud800 here"})
        store.write_rows(chunk, "eq2", [row])
    found = read_files([store.rows_file(chunk, "eq2")])
    assert found["run"].tolist() == ["r\\udcff\\udcfe"] and found["note"].tolist() == ["no file \\udcff\\ud800 here"]


def write_oddly(folder, table: pd.DataFrame) -> list:
    """As `write`, where pyarrow would not take the name."""
    folder.mkdir()
    file = folder / "a.parquet"
    with file.open("wb") as out:
        pq.write_table(pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False), out)
    return [file]


def test_no_file_is_no_row_with_every_column(tmp_path):
    found = Store(tmp_path).read_rows()
    assert list(found.columns) == [*ROW_COLUMNS, "file"] and found.empty


def test_text_of_another_writer_is_read_alike(tmp_path):
    table = frame(40)
    large = pa.schema([(f.name, pa.large_string() if f.name in TEXT else f.type) for f in SCHEMA])
    plain, other = (read_files(write(tmp_path / name, table, schema=s)) for name, s in (("a", SCHEMA), ("b", large)))
    pd.testing.assert_frame_equal(plain.drop(columns="file"), other.drop(columns="file"))
    both = read_files([tmp_path / "a" / "00000.parquet", tmp_path / "b" / "00000.parquet"])
    assert len(both) == 80


def test_the_first_damaged_file_is_named(tmp_path):
    files = write(tmp_path / "rows", *[frame(3, seed=i) for i in range(90)])
    for i in (80, 70):
        files[i].write_bytes(files[i].read_bytes()[:-20])
    with pytest.raises(RunError, match=r"00070\.parquet: damaged .* remove it"):
        Store(tmp_path).read_rows()
    files[70].unlink()
    files[80].unlink()
    assert len(Store(tmp_path).read_rows()) == 88 * 3


def test_a_column_that_a_file_lacks_is_an_error_or_missing(tmp_path):
    table = frame(5)
    files = write(tmp_path / "rows", table, table.drop(columns=["note", "seconds"]), schema=None)
    with pytest.raises(
        RunError, match=r"00001\.parquet: not a row file, it lacks seconds, note; written by another version"
    ):
        read_files(files)
    found = Store(tmp_path).read_rows()
    assert found["note"].isna().tolist() == found["seconds"].isna().tolist() == [False] * 5 + [True] * 5


def test_keys_are_equal_where_the_rows_are_however_many_combinations():
    random = np.random.default_rng(0)
    columns = [f"c{i}" for i in range(12)]
    wide = pd.DataFrame({c: random.integers(0, 500, 800).astype(str) for c in columns})  # 500 to the 12: beyond 64 bits
    table = pd.concat([wide, wide[::7]], ignore_index=True).astype("category")
    table.loc[3, "c5"] = None
    found = keys(table, columns)
    numbers, _ = pd.factorize(pd.MultiIndex.from_frame(table.astype(object).fillna("-")))
    assert len(set(found)) == len(set(numbers)) == len(set(zip(found, numbers, strict=True)))
    order = np.argsort(found, kind="stable")
    assert table.iloc[order]["c0"].astype(object).is_monotonic_increasing


# --- resuming -------------------------------------------------------------------------------------------------------------


def toy(monkeypatch, **options):
    """A spec, a bench that answers what is asked here, pairs, and the fingerprints of cells."""
    pairs = [
        Pair(*(Utterance(f"u{u}", "s", "eval", v, None) for v in ("bonafide", vocoder)))
        for u in range(5) for vocoder in ("world", "griffinlim")
    ]  # fmt: skip
    spec = SimpleNamespace(
        countermeasures=("lcnn", "aasist"), attributors=("saliency", "lime"), metrics=(*METRICS, PLUGIN), keep_maps=False,
        truth=TruthSpec("eq2"), grid=SimpleNamespace(shape=lambda n: (3, 4)), **options,
    )  # fmt: skip
    bench = SimpleNamespace(
        route=lambda cm: "native", facts=lambda cm, route, a: f"{cm}/{a}", batch_size=3,
        countermeasure=lambda cm: SimpleNamespace(module=SimpleNamespace(n_samples=100)),
    )  # fmt: skip
    real = missing.registry.plugins
    monkeypatch.setattr(missing.registry, "plugins", lambda group: {PLUGIN: ()} if group == "metrics" else real(group))
    monkeypatch.setattr(missing, "fingerprints", lambda spec, facts: lambda pair: f"{facts}/{pair.id}")
    monkeypatch.setattr(missing, "cell_fingerprint", lambda pair, metric: f"{pair}!" if metric == PLUGIN else pair)
    return spec, bench, pairs


def expected_print(cm: str, attributor: str, pair: str, metric: str) -> str:
    return f"{cm}/{attributor}/{pair}" + ("!" if metric == PLUGIN else "")


def printed(table: pd.DataFrame, seed: int, wrong: float) -> pd.DataFrame:
    """The fingerprints the cells must have, a share of them wrong."""
    facts = zip(table.countermeasure, table.attributor, table.utterance + "/" + table.vocoder, table.metric, strict=True)
    prints = pd.Series([expected_print(*f) for f in facts], index=table.index)
    return table.assign(fingerprint=prints.where(np.random.default_rng(seed).uniform(size=len(table)) >= wrong, "of before"))


@pytest.mark.parametrize("seed", range(4))
def test_the_files_that_no_longer_hold_are_those_of_the_twin(tmp_path, monkeypatch, seed):
    spec, bench, pairs = toy(monkeypatch)
    write(tmp_path / "rows", *[printed(frame(12, seed=40 * seed + i), i, 0.05) for i in range(30)])
    before = Store(tmp_path).read_rows()
    known = {p.id for p in pairs}
    stale = twin.stale_files(before, spec, "native", known, {*METRICS, PLUGIN}, expected_print)
    problems: list[str] = []
    have = missing.retire_stale(spec, bench, pairs, Store(tmp_path), {}, {}, problems)
    assert 0 < len(stale) < 30 and problems[0].startswith(f"{len(stale)} row files were made by other code")
    assert set(before.file) - set(have.file) == stale
    assert {str(p) for p in (tmp_path / "rows").rglob("*.parquet")} == set(have.file)


def test_rows_of_replaced_weights_and_truths_go_whoever_made_them(tmp_path, monkeypatch):
    spec, bench, pairs = toy(monkeypatch)
    made = [
        frame(9, i, attributor="old", **of)
        for i, of in enumerate(({"countermeasure": "lcnn"}, {"countermeasure": "aasist"}))
    ]
    made.append(frame(9, 2, attributor="old", countermeasure="aasist", truth="eq1"))
    made[:2] = [t.assign(truth="eq2") for t in made[:2]]
    files = write(tmp_path / "rows", *made)
    stamps = [
        {
            "countermeasures": {"lcnn": {"weights": w}, "aasist": {"weights": "a"}},
            "truths": {"eq1": {"kernel": k}, "eq2": {}},
        }
        for w, k in (("before", 3), ("now", 5))
    ]
    have = missing.retire_stale(spec, bench, pairs, Store(tmp_path), *stamps, [])
    assert set(have.file) == {str(files[1])}


@pytest.mark.parametrize("keep_maps", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_cells_that_are_missing_are_those_of_the_twin(tmp_path, monkeypatch, seed, keep_maps):
    spec, bench, pairs = toy(monkeypatch)
    spec.keep_maps = keep_maps
    random = np.random.default_rng(seed)
    kept = {(c, a, p.id) for c in spec.countermeasures for a in spec.attributors for p in pairs if random.uniform() < 0.5}
    monkeypatch.setattr(missing, "_has_maps", lambda folder, spec, cm, route, frames, a, pair: (cm, a, pair.id) in kept)
    write(tmp_path / "rows", *[frame(25, seed=9 * seed + i) for i in range(24)])
    have = Store(tmp_path).read_rows()
    chunks = missing.missing_chunks(spec, bench, pairs, have, tmp_path)
    found = [(c.countermeasure, c.attributor, c.batch, c.metrics, tuple(p.id for p in c.pairs)) for c in chunks]
    assert found == twin.gaps(have, spec, "native", pairs, bench.batch_size, kept)
    assert any(metrics == () for *_, metrics, _ in found) == keep_maps
    full = twin.gaps(have[:0], spec, "native", pairs, bench.batch_size, kept)
    chunks = missing.missing_chunks(spec, bench, pairs, have[:0], tmp_path)
    assert [(c.countermeasure, c.attributor, c.batch, c.metrics, tuple(p.id for p in c.pairs)) for c in chunks] == full


def test_of_a_cell_with_two_rows_the_last_counts(tmp_path, monkeypatch):
    spec, bench, pairs = toy(monkeypatch)
    spec.metrics, spec.keep_maps = ("drop-twin",), True
    cell = {
        "countermeasure": "lcnn", "attributor": "lime", "route": "native", "truth": "eq2", "utterance": "u1",
        "vocoder": "world", "metric": "drop-twin",
    }  # fmt: skip
    for states, again in ((("ok", "failed"), False), (("failed", "ok"), True)):
        table = frame(2, **cell).assign(status=states, value=[0.0 if s == "ok" else np.nan for s in states])
        folder = tmp_path / states[0]
        write(folder / "rows", table)
        monkeypatch.setattr(missing, "_has_maps", lambda *_: False)
        chunks = missing.missing_chunks(spec, bench, pairs, Store(folder).read_rows(), folder)
        maps_again = [c for c in chunks if not c.metrics]
        assert bool(maps_again) == again
