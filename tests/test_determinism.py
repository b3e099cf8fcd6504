"""Same seed, same rows: bit for bit where docs/determinism.md says so, and within the tolerances it states elsewhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import steady
import torch
import toybench

from xaibench import maps
from xaibench.harness.known import known_metrics
from xaibench.harness.results import Store
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec
from xaibench.protocols import attributor

TESTS = Path(__file__).parent
#: Of the catalogue, what two utterances of noise a quarter of a second long are scored with.
METRICS = ("rank-accuracy", "roc-auc", "spearman", "iou@5", "drop-twin", "deletion-twin", "insertion-twin", "sparseness")
METHODS = ("toy-gradient", "toy-draws", "toy-warns", "random", "energy", "oracle")


@attributor(name="toy-draws", paper="none", random=True, needs=["gradients"])
def draws(view):
    """Gradients at a few inputs with noise on them, as SmoothGrad: draws for each utterance from its own generator."""
    maps = []
    for one in view.each():
        noise = torch.randn(4, *one.inputs.shape[1:], generator=one.generator())
        x = (one.inputs + 0.1 * noise).requires_grad_()
        (grad,) = torch.autograd.grad(one.model(x).sum(), x)
        maps.append((x * grad).detach().mean(0).sum(0))
    return torch.stack(maps)


@attributor(name="toy-warns", paper="none", class_specific=False)
def warns(view):
    """Says where it is in memory, and prints a set."""
    import warnings

    warnings.warn(f"{object()}", stacklevel=1)
    print("done", "\r 10%", end="")  # noqa: T201
    return view.inputs[:, 0].clone()


@pytest.fixture
def bench(root, monkeypatch):
    """A run of the toys: six utterances, eight metrics."""
    for method in (draws, warns):
        monkeypatch.setitem(toybench.METHODS, method.name, method)
        monkeypatch.setattr(toybench, method.function.__name__, method, raising=False)
    toybench.install(monkeypatch, "toy-gradient", "toy-draws", "toy-warns")
    return toybench.spec(root, *METHODS, metrics=METRICS, keep_maps=True)


@pytest.fixture
def whole(bench, tmp_path):
    """Its folder, as nobody disturbed it."""
    run(bench, tmp_path / "whole" / "run", batch_size=4)
    return tmp_path / "whole" / "run"


def test_every_promise_of_the_page_is_asked_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert len(steady.promises()) >= 9, "the table of docs/determinism.md was not read"
    asked = {name for name in steady.promises() if f'promises()["{name}"]' in source}
    assert asked == set(steady.promises())
    assert all(0 <= value <= 1e-4 for value in steady.promises().values())


# ---- bit for bit ------------------------------------------------------------------------------------------------------


def test_twice_in_a_process(bench, whole, tmp_path):
    assert steady.promises()["process"] == 0
    run(bench, tmp_path / "again" / "run", batch_size=4)
    assert steady.differences(whole, tmp_path / "again" / "run") == []
    assert len(list((whole / "warnings").rglob("*.json"))) == 2, "what was warned is compared, too"


def test_the_comparison_finds_one_bit(bench, whole, tmp_path):
    import shutil

    copy = tmp_path / "copy" / "run"
    shutil.copytree(whole, copy)
    assert steady.differences(whole, copy) == []
    file = sorted((copy / "rows").rglob("*.parquet"))[0]
    table = pd.read_parquet(file)
    table.loc[0, "value"] = np.nextafter(table.loc[0, "value"], 9)
    table.to_parquet(file, index=False)
    next((copy / "preflight").glob("*oracle*")).unlink()
    said = steady.differences(whole, copy)
    assert len(said) == 2 and "oracle.json is in one of them only" in said[0] and f"{file.name} differs" in said[1]
    assert steady.gap(steady.rows(whole), steady.rows(whole)) == 0


FRESH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest, test_determinism as tests, toybench, torch
torch.set_num_threads(1)
root, out = map(Path, sys.argv[2:])
with pytest.MonkeyPatch.context() as patch:
    for method in (tests.draws, tests.warns):
        patch.setitem(toybench.METHODS, method.name, method)
        setattr(toybench, method.function.__name__, method)
    toybench.install(patch, "toy-gradient", "toy-draws", "toy-warns")
    tests.run(toybench.spec(root, *tests.METHODS, metrics=tests.METRICS, keep_maps=True), out, batch_size=4)
"""


def test_fresh_processes_of_other_surroundings(root, tmp_path):
    """Another hash seed, temporary folder, working directory, language and time zone."""
    assert steady.promises()["fresh"] == 0
    processes = []
    for number in range(2):
        place = tmp_path / str(number)
        environment = steady.surroundings(place / "temporary", number=number)
        command = [sys.executable, "-c", FRESH, TESTS, root, place / "run"]
        processes.append(subprocess.Popen(command, env=environment, cwd=place))
    assert [p.wait(timeout=500) for p in processes] == [0, 0]
    assert steady.differences(tmp_path / "0" / "run", tmp_path / "1" / "run") == []


class Killed(Exception):
    """A power cut."""


@pytest.mark.parametrize("after", [1, 3, 7])
def test_a_run_that_was_interrupted(bench, whole, tmp_path, monkeypatch, after):
    assert steady.promises()["resume"] == 0
    written, write = [], Store.write_rows

    def dies(store, chunk, truth, rows):
        if len(written) == after:
            raise Killed
        written.append(chunk)
        write(store, chunk, truth, rows)

    monkeypatch.setattr(Store, "write_rows", dies)
    with pytest.raises(Killed):
        run(bench, tmp_path / "parts" / "run", batch_size=4)
    monkeypatch.setattr(Store, "write_rows", write)
    run(bench, tmp_path / "parts" / "run", batch_size=4)
    assert steady.differences(whole, tmp_path / "parts" / "run") == []


def test_draws_hang_on_the_utterance_and_the_seed_alone(bench, whole, tmp_path):
    """Not on the place in the batch, the size of it, how many utterances there are, or what was computed before."""
    alone = replace(bench, attributors=("toy-draws", "random"), limit=3)
    run(alone, tmp_path / "alone", batch_size=1)
    table = steady.rows(tmp_path / "alone").drop_duplicates(["attributor", "utterance", "vocoder"])
    assert len(table) == 6
    for row in table.itertuples():
        place = ("toy", "native", row.attributor, f"{row.utterance}/{row.vocoder}")
        one, other = (maps.read_map(maps.map_path(folder, *place)) for folder in (tmp_path / "alone", whole))
        np.testing.assert_array_equal(one.values, other.values)
    run(replace(alone, seed=1), tmp_path / "other", batch_size=1)
    assert steady.rows(tmp_path / "other").value.ne(steady.rows(tmp_path / "alone").value).any(), "the seed changes nothing"


# ---- within tolerances ------------------------------------------------------------------------------------------------


def common(folder: Path, other: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that both have."""
    tables = [steady.rows(folder), steady.rows(other)]
    keys = [t.set_index(steady.KEYS).index for t in tables]
    return tuple(t[k.isin(o)].reset_index(drop=True) for t, k, o in zip(tables, keys, keys[::-1], strict=True))


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_another_batch_size(bench, whole, tmp_path, size):
    run(bench, tmp_path / "run", batch_size=size)
    assert steady.gap(steady.rows(whole), steady.rows(tmp_path / "run")) <= steady.promises()["inputs"]


CHANGES = {
    "methods": lambda spec: replace(spec, attributors=("toy-draws", *reversed(spec.attributors[2:]))),
    "metrics": lambda spec: replace(spec, metrics=tuple(reversed(spec.metrics))[1:]),
    "limit": lambda spec: replace(spec, limit=5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_order_other_neighbours_or_another_limit(bench, whole, tmp_path, name):
    run(CHANGES[name](bench), tmp_path / "run", batch_size=4)
    one, other = common(whole, tmp_path / "run")
    assert len(one) == len(other) == len(steady.rows(tmp_path / "run")) > 100
    allowed = {"methods": steady.promises()["methods"], "metrics": steady.promises()["metrics"],
               "limit": steady.promises()["limit"]}  # fmt: skip
    assert steady.gap(one, other) <= allowed[name]


# ---- the real thing ---------------------------------------------------------------------------------------------------


def test_lcnn_on_real_speech_whatever_goes_through_it_at_a_time(tmp_path):
    """A method that draws, one of gradients, and the truth; the second time in another order and one input at a time."""
    spec = RunSpec(
        countermeasures=("lcnn",), attributors=("random", "smoothgrad", "oracle"), limit=2,
        options={"smoothgrad": {"samples": 3}}, metrics=("rank-accuracy", "roc-auc", "spearman", "drop-twin"),
    )  # fmt: skip
    run(spec, tmp_path / "one", batch_size=2)
    run(replace(spec, attributors=spec.attributors[::-1]), tmp_path / "other", batch_size=1)
    assert steady.gap(steady.rows(tmp_path / "one"), steady.rows(tmp_path / "other")) <= steady.promises()["inputs"]


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_the_command_twice_and_a_third_time_isolated(tmp_path):
    one, other = steady.fresh(tmp_path / "plain", limit=2)
    assert steady.differences(one, other) == []
    (apart,) = steady.fresh(tmp_path / "apart", limit=2, options=("--isolate",), times=1)
    assert steady.promises()["isolate"] == 0
    assert steady.differences(one, apart) == []
    (two,) = steady.fresh(tmp_path / "two", limit=2, options=("--isolate", "--workers", "2"), times=1)
    assert steady.gap(steady.rows(one), steady.rows(two)) <= steady.promises()["workers"]


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_another_number_of_threads(tmp_path):
    metrics = known_metrics(["preset"], "quick")
    spec = RunSpec(countermeasures=("lcnn",), attributors=steady.METHODS, metrics=metrics, limit=2)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            run(spec, tmp_path / str(threads) / "run", batch_size=4)
    finally:
        torch.set_num_threads(before)
    one, two = (steady.rows(tmp_path / str(threads) / "run") for threads in (1, 2))
    assert steady.gap(one.drop(columns="fingerprint"), two.drop(columns="fingerprint")) <= steady.promises()["threads"]
