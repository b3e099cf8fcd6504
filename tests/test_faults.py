"""Faults in the work, each in a whole run: the status and the sentence are right, nobody else's number moves, and a later
run goes on from there. What a plugin does to the process is in `test_guard.py`, in a process of its own in
`test_isolation.py`, memory and a lost device in the middle of a run in `test_harness_recovery.py`.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import toybench
from pandas.testing import assert_frame_equal
from toys import GRID, N_SAMPLES, SHAPE, LinearCM

from xaibench.errors import RunError, XaibenchError
from xaibench.harness.form import scores
from xaibench.harness.run import run
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.probe import Probe
from xaibench.metrics.undefined import SILENT_IN_BAND
from xaibench.protocols import Metric, attributor
from xaibench.types import Attribution, Axis
from xaibench.weights import save_weights

KEYS = ["attributor", "utterance", "vocoder", "metric"]
MINE, OTHERS = "toy-deaf", ("toy-gradient", "random")
#: One that ranks, one that divides by the pair's gap, one that needs many forward passes.
ASKED = ("rank-accuracy", "drop-twin", "deletion-twin")


def table(folder: Path, *names: str) -> pd.DataFrame:
    found = pd.read_parquet(folder / "rows")
    found = found[found.attributor.isin(names)] if names else found
    return found.sort_values(KEYS)[[*KEYS, "value", "status", "note"]].reset_index(drop=True)


def go(root, out, *names, **changes):
    return run(toybench.spec(root, *names, **{"limit": 4, "metrics": ASKED, **changes}), out, batch_size=2)


def fault(monkeypatch, function) -> None:
    """In the place of the method that comes first in every plan below."""
    method = attributor(name=MINE, paper="none", needs=["gradients"], class_specific=False)(function)
    monkeypatch.setattr(toybench, "deaf", method)


@pytest.fixture
def toys(monkeypatch):
    toybench.install(monkeypatch, *OTHERS[:1], MINE)


@pytest.fixture(scope="module")
def clean(root, tmp_path_factory):
    """The rows of a run without a fault; the method in question does what `toy-gradient` does."""
    folder = tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch:
        toybench.install(patch, *OTHERS[:1], MINE)
        fault(patch, gradient)
        assert go(root, folder, MINE, *OTHERS).statuses == {"ok": 36}
    return table(folder)


def gradient(view):
    return toybench.gradient.function(view)


# ---- a method ----------------------------------------------------------------------------------------------------------


class Doom(BaseException):
    """What no `except Exception` catches."""


def raising(error):
    def method(view):
        raise error

    return method


def of_speaker(speaker, make):
    """A method whose maps of one speaker are made by `make` of the right ones."""

    def method(view):
        values = gradient(view)
        mine = torch.tensor([name.startswith(speaker) for name in view.ids])
        return torch.where(mine[:, None, None], make(values), values)

    return method


def endless_recursion(view):
    return endless_recursion(view)


def diverges(view):
    """Gradient descent with a step that is far too large."""
    values = gradient(view)
    for _ in range(400):
        values = values - 1e3 * values
    return values


def too_fine(view):
    """On axes of its own, twice as fine, where the largest number of float32 is everywhere."""
    frequency, time = view.axes
    edges = np.sort(np.concatenate([time.edges, time.centres]))
    values = torch.full((len(view), len(frequency), len(edges) - 1), 3e38)
    return Attribution(values, frequency, Axis("time", edges))


def out_of_band(view):
    values = torch.zeros(len(view), *view.shape)
    values[:, 0] = 1 + torch.arange(view.shape[1])
    return values


BUFFER = torch.zeros(8, *SHAPE)


def one_buffer(view):
    """Gives the same memory out each time."""
    BUFFER[: len(view)] = gradient(view)
    return BUFFER[: len(view)]


def later(view):
    """Writes into the map that it gave away, once it is asked again."""
    for given in KEPT:
        given.fill_(7.0)
    KEPT[:] = [gradient(view)]
    return KEPT[0]


KEPT: list[torch.Tensor] = []


def inference(view):
    values = gradient(view)
    with torch.inference_mode():
        return values.clone()


def removes_its_folder(view):
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
    return gradient(view)


def threads(view):
    found = []
    worker = threading.Thread(target=lambda: found.append(1 / 0))
    worker.start()
    worker.join()
    return gradient(view)


def forks(view):
    if os.fork() == 0:
        return gradient(view)  # the child goes on as if it were the run
    os.wait()
    return gradient(view)


def talks(view):
    sys.stdout.write("hello" * 500_000)
    return gradient(view)


def shuts_up(view):
    sys.stdout.close()
    return gradient(view)


#: Method, status of its cells, beginning of their note. "as ever": the numbers of the right map.
METHODS = {
    "StopIteration": (raising(StopIteration()), "failed", "StopIteration"),
    "GeneratorExit": (raising(GeneratorExit()), "failed", "XaibenchError: toy-deaf raised GeneratorExit, which is meant"),
    "CancelledError": (raising(asyncio.CancelledError()), "failed", "XaibenchError: toy-deaf raised CancelledError"),
    "Doom": (raising(Doom("now")), "failed", "XaibenchError: toy-deaf raised Doom, which is meant to end the process: now"),
    "RecursionError": (endless_recursion, "failed", "RecursionError: maximum recursion depth exceeded"),
    "MemoryError": (raising(MemoryError()), "failed", "MemoryError"),
    "out of memory": (raising(torch.OutOfMemoryError("CUDA out of memory")), "failed", "OutOfMemoryError: CUDA out of"),
    "cublas": (raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
               "failed", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
    "invalid argument": (raising(RuntimeError("CUDA error: invalid argument")), "failed", "RuntimeError: CUDA error: inv"),
    "diverges": (diverges, "failed", "XaibenchError: toy-deaf returned NaN or infinity for"),
    "too fine": (too_fine, "failed", "XaibenchError: toy-deaf: its map is too large, sums of its cells on other axes"),
    "out of band": (out_of_band, "undefined", SILENT_IN_BAND),
    "constant": (lambda view: torch.ones(()).expand(len(view), *view.shape), "ok", ""),
    "one buffer": (one_buffer, "as ever", ""),
    "writes later": (later, "as ever", ""),
    "inference mode": (inference, "as ever", ""),
    "with history": (lambda view: gradient(view).requires_grad_() * 1, "as ever", ""),
    "doubles": (lambda view: gradient(view).double(), "as ever", ""),
    "not contiguous": (lambda view: gradient(view).mT.contiguous().mT, "as ever", ""),
    "removes its folder": (removes_its_folder, "as ever", ""),
    "a thread that fails": (threads, "as ever", ""),
    "forks": (forks, "as ever", ""),
    "talks": (talks, "as ever", ""),
    "shuts up": (shuts_up, "as ever", ""),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", METHODS)
def test_a_method_at_fault_costs_its_own_cells(root, tmp_path, monkeypatch, toys, clean, name):
    function, status, note = METHODS[name]
    fault(monkeypatch, function)
    folder = os.getcwd()
    done = go(root, tmp_path, MINE, *OTHERS)
    assert os.getcwd() == folder and not sys.stdout.closed
    rows = table(tmp_path)
    mine, others = rows[rows.attributor == MINE], rows[rows.attributor != MINE].reset_index(drop=True)
    assert len(mine) == 12
    assert_frame_equal(others, clean[clean.attributor != MINE].reset_index(drop=True), check_exact=True)
    if status == "as ever":
        assert_frame_equal(mine, clean[clean.attributor == MINE], check_exact=True)
    else:
        assert set(mine.status) == {status} and mine.note.str.startswith(note).all(), mine.note.unique()
    blamed = [p for p in done.problems if p.startswith("failed: ")]
    assert len(blamed) == (status == "failed") and all(p.startswith("failed: toy-deaf on toy, on 4 utt") for p in blamed)
    again = go(root, tmp_path, MINE, *OTHERS)
    assert (again.computed, again.kept) == (0, 36)
    if status == "failed":  # and when it is put right
        fault(monkeypatch, gradient)
        spec = toybench.spec(root, MINE, *OTHERS, limit=4, metrics=ASKED)
        assert run(spec, tmp_path, batch_size=2, retry_failed=True).computed == 12
        assert_frame_equal(table(tmp_path), clean, check_exact=True)


#: What the maps of one speaker are, and what becomes of them.
SOME = {
    "NaN": (lambda values: torch.full_like(values, torch.nan), "failed", "XaibenchError: toy-deaf returned NaN or infinity"),
    "one inf": (
        lambda values: values.index_fill(1, torch.tensor([3]), torch.inf),
        "failed",
        "XaibenchError: toy-deaf retur",
    ),
    "zero": (torch.zeros_like, "undefined", "the map is zero everywhere"),
    "a constant": (lambda values: torch.full_like(values, -0.5), "ok", ""),
}


@pytest.mark.parametrize("name", SOME)
def test_maps_of_some_utterances_at_fault_cost_these(root, tmp_path, monkeypatch, toys, clean, name):
    make, status, note = SOME[name]
    fault(monkeypatch, of_speaker("d-", make))
    go(root, tmp_path, MINE, *OTHERS)
    rows = table(tmp_path)
    hit = (rows.attributor == MINE) & (rows.utterance == "d-1")
    assert set(rows[hit].status) == {status} and rows[hit].note.str.startswith(note).all()
    assert 0 < hit.sum() < 12
    others = (rows.attributor != MINE).to_numpy()
    assert_frame_equal(rows[others], clean[others], check_exact=True)
    kept = ~hit.to_numpy()  # of the other half of a batch that was explained one by one, but for the last bits
    assert_frame_equal(rows[kept], clean[kept], rtol=1e-5)


def test_ctrl_c_from_within_a_method_stops_the_run_and_loses_nothing(root, tmp_path, monkeypatch, toys, clean):
    fault(monkeypatch, raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        go(root, tmp_path, *OTHERS, MINE)
    kept = len(table(tmp_path))
    assert 0 < kept < 36
    fault(monkeypatch, gradient)
    again = go(root, tmp_path, *OTHERS, MINE)
    assert (again.kept, again.computed) == (kept, 36 - kept)
    assert_frame_equal(table(tmp_path), clean, check_exact=True)


# ---- a metric ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.5, "returned 1.5, outside the range 0 to 1 that it declares"), (-1e-3, "returned -0.001, outside the range"),
     (float("inf"), "returned infinity")],
)  # fmt: skip
def test_a_score_outside_its_range_is_no_score(root, tmp_path, monkeypatch, toys, clean, value, message):
    real = METRICS["rank-accuracy"]

    def beyond(evidence):
        values = real.function(evidence)
        return torch.where(torch.tensor([n.startswith("d-1/") for n in evidence.probe.view.ids]), value, values)

    monkeypatch.setitem(METRICS, "rank-accuracy", replace(real, function=beyond))
    go(root, tmp_path, *OTHERS)
    rows, whole = table(tmp_path), clean[clean.attributor != MINE].reset_index(drop=True)
    hit = ((rows.metric == "rank-accuracy") & (rows.utterance == "d-1")).to_numpy()
    assert hit.sum() == 2 and set(rows[hit].status) == {"failed"} and rows[hit].note.str.contains(message).all()
    assert_frame_equal(rows[~hit], whole[~hit], check_exact=True)


def test_rounding_is_no_score_outside_its_range():
    metric = Metric("m", "axioms", len, "higher", (0.0, 1.0), "none", "none", "always")
    assert scores(metric, torch.tensor([1 + 1e-9, -1e-9, torch.nan]), 3)[:2] == pytest.approx([1, 0], abs=1e-8)
    with pytest.raises(XaibenchError, match=r"metric m returned 1\.00001, outside the range 0 to 1"):
        scores(metric, torch.tensor([0.5, 1.00001]), 2)


# ---- a countermeasure --------------------------------------------------------------------------------------------------


class FaultyBackend(torch.nn.Module):
    """The toy's back end, and what befalls it: `before(inputs)` may raise, `after(logits, inputs)` gives the logits."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        PASSES.append(len(x))
        BEFALLS["before"](x)
        return BEFALLS["after"](self.inner(x), x)


PASSES: list[int] = []
BEFALLS: dict = {}


def well() -> None:
    PASSES.clear()
    BEFALLS.update(before=lambda x: None, after=lambda logits, x: logits)


class FaultyRecipe(toybench.ToyRecipe):
    def untrained(self, *, seed):
        cm = super().untrained(seed=seed)
        cm.backend = FaultyBackend(cm.backend)
        return cm


@pytest.fixture
def faulty(tmp_path, monkeypatch, toys):
    """A folder with the toy data and the weights of a countermeasure that `BEFALLS` breaks, whole to begin with."""
    well()
    monkeypatch.setattr(toybench, "recipe", FaultyRecipe())
    folder = tmp_path / "data"
    toybench.write_corpus(folder)
    toybench.write_checkpoint(folder / "weights")
    yield folder
    well()


def lost(text):
    def before(x):
        raise RuntimeError(text)

    return before


def no_room(limit):
    def before(x):
        if len(x) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    return before


def ends(error):
    def before(x):
        raise error

    return before


def test_a_countermeasure_that_fits_one_at_a_time_gives_every_number(faulty, tmp_path):
    go(faulty, tmp_path / "whole", *OTHERS)
    BEFALLS["before"] = no_room(1)
    done = go(faulty, tmp_path / "run", *OTHERS)
    assert done.statuses == {"ok": 24} and not done.problems
    assert_frame_equal(table(tmp_path / "run"), table(tmp_path / "whole"), rtol=1e-5)


#: What a countermeasure does whenever it is asked, and why every method on it is void.
VOID = {
    "no room for one": (no_room(0), None, "it raised OutOfMemoryError: CUDA out of memory"),
    "MemoryError": (ends(MemoryError()), None, "it raised MemoryError"),
    "sys.exit": (ends(SystemExit(3)), None, "it raised SystemExit: 3"),
    "GeneratorExit": (ends(GeneratorExit()), None, "it raised GeneratorExit"),
    "raises": (lost("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), None, "it raised RuntimeErr"),
    "a list": (None, lambda logits, x: logits.tolist(), "it raised AttributeError"),
    "one logit": (None, lambda logits, x: logits[:, :1], "it raised PluginError: expected logits (B, 2)"),
    "NaN": (None, lambda logits, x: logits * torch.nan, "it gives NaN or infinity as the score of"),
    "inf": (None, lambda logits, x: logits / 0, "it gives NaN or infinity as the score of"),
    "constant": (None, lambda logits, x: 0 * logits, "it gives every one of"),
    "wrong way round": (None, lambda logits, x: -logits, "its EER on these utterances is 100%, worse than guessing"),
}


@pytest.mark.parametrize("name", VOID)
def test_a_countermeasure_at_fault_is_void_and_scored_when_it_works(faulty, tmp_path, name):
    before, after, why = VOID[name]
    BEFALLS.update({k: f for k, f in (("before", before), ("after", after)) if f})
    done = go(faulty, tmp_path / "run", *OTHERS)
    rows = table(tmp_path / "run")
    assert done.statuses == {"void": 24} and rows.note.str.startswith(why).all(), rows.note.unique()
    assert any(p.startswith(f"void: every method on toy: {why}") for p in done.problems)
    well()
    again = go(faulty, tmp_path / "run", *OTHERS)
    # What raised may have been the machine's fault and is tried again; what it answered is its own, and stays.
    assert again.computed == (24 if "raised" in why else 0)
    assert again.statuses == ({"ok": 24} if "raised" in why else {})
    assert len(table(tmp_path / "run")) == 24


POISON = [
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
    "CUDA error: uncorrectable ECC error encountered",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED: CUDA error: unspecified launch failure",
]


@pytest.mark.parametrize("text", POISON)
@pytest.mark.parametrize("at", ["while it is judged", "in the work"])
def test_a_poisoned_context_stops_the_run_by_name_and_keeps_what_is_done(faulty, tmp_path, text, at):
    go(faulty, tmp_path / "whole", *OTHERS)
    after, _ = len(PASSES), PASSES.clear()

    def before(x):
        if len(PASSES) > (0 if at == "while it is judged" else after * 3 // 4):
            raise RuntimeError(text)

    BEFALLS["before"] = before
    doing = "judging toy" if at == "while it is judged" else r"(toy-gradient|random) on toy"
    with pytest.raises(RunError, match=rf"{doing}: cpu on .* was lost to .*same command continues"):
        go(faulty, tmp_path / "run", *OTHERS)
    kept = len(table(tmp_path / "run")) if (tmp_path / "run" / "rows").exists() else 0
    assert (kept > 0) == (at == "in the work") and kept < 24
    well()
    assert go(faulty, tmp_path / "run", *OTHERS).kept == kept
    assert_frame_equal(table(tmp_path / "run"), table(tmp_path / "whole"), check_exact=True)


#: What ends the countermeasure in the work, after it was judged: every method's cells fail, and nothing ends the run.
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Doom("now"), ValueError("no"), MemoryError()])
def test_a_countermeasure_that_ends_in_the_work_fails_cells_only(faulty, tmp_path, error):
    go(faulty, tmp_path / "whole", *OTHERS)
    after, _ = len(PASSES), PASSES.clear()

    def before(x):
        if len(PASSES) > after * 3 // 4:
            raise error

    BEFALLS["before"] = before
    done = go(faulty, tmp_path / "run", *OTHERS)
    assert set(done.statuses) == {"ok", "failed"} and sum(done.statuses.values()) == 24
    rows, whole = table(tmp_path / "run"), table(tmp_path / "whole")
    ok = (rows.status == "ok").to_numpy()
    assert_frame_equal(rows[ok], whole[ok], check_exact=True)
    assert rows[~ok].note.str.contains(type(error).__name__ if not isinstance(error, SystemExit) else r"sys.exit\(3\)").all()
    well()
    spec = toybench.spec(faulty, *OTHERS, limit=4, metrics=ASKED)
    assert run(spec, tmp_path / "run", batch_size=2, retry_failed=True).statuses.keys() == {"ok"}
    assert_frame_equal(table(tmp_path / "run"), whole, rtol=1e-5)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_no_number_for_masked_inputs_is_no_number_of_the_metric(faulty, tmp_path, monkeypatch, wrong):
    """It answers every recording, and has no number for one speaker's with cells filled: of that nothing follows."""
    metrics = (*ASKED, "fid-in-twin")
    go(faulty, tmp_path / "whole", *OTHERS, metrics=metrics)
    real, masked = Probe.ask, []

    def ask(probe, keep, number, fill):
        masked.append([name.startswith("d-") for name in probe.view.ids])
        try:
            return real(probe, keep, number, fill)
        finally:
            masked.pop()

    def after(logits, x):
        bad = torch.tensor(masked[-1]).repeat_interleave(len(x) // len(masked[-1])) if masked else torch.zeros(len(x)) > 0
        return torch.where(bad[:, None], wrong, logits)

    monkeypatch.setattr(Probe, "ask", ask)
    BEFALLS["after"] = after
    done = go(faulty, tmp_path / "run", *OTHERS, metrics=metrics)
    rows, whole = table(tmp_path / "run"), table(tmp_path / "whole")
    hit = ((rows.utterance == "d-1") & (rows.metric != "rank-accuracy")).to_numpy()
    assert set(rows[hit].status) == {"failed"}
    assert done.statuses["failed"] == hit.sum() > 0
    assert rows[hit].note.str.contains("the countermeasure gives NaN or infinity as the score of").all()
    assert_frame_equal(rows[~hit], whole[~hit], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_a_countermeasure_that_is_always_right_and_certain_is_scored(faulty, tmp_path, scale):
    """Equal error rate 0, scores identical within a class: nothing to fall, and nothing out of range."""
    BEFALLS["after"] = lambda logits, x: scale * torch.sign(logits - 0) if not logits.requires_grad else logits
    done = go(faulty, tmp_path, *OTHERS, metrics=(*ASKED, "deletion-twin-probability", "average-drop-twin"))
    assert set(done.statuses) <= {"ok", "undefined"} and done.statuses["ok"] >= 24
    rows = table(tmp_path)
    assert np.isfinite(rows[rows.status == "ok"].value).all() and (rows[rows.status != "ok"].note.str.len() > 20).all()
    assert json.loads((tmp_path / "run.json").read_text())["countermeasures"]["toy"]["eer"] == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_score_nothing(tmp_path, toys, value):
    toybench.write_corpus(tmp_path)
    path = toybench.write_checkpoint(tmp_path / "weights")
    cm = LinearCM()
    with torch.no_grad():
        next(iter(cm.backend.parameters()))[0, 0] = value
    save_weights(path, cm)
    try:
        done = go(tmp_path, tmp_path / "run", *OTHERS)
    except XaibenchError as error:
        assert "NaN" in str(error) and "toy" in str(error)
    else:
        assert done.statuses == {"void": 24} and "NaN or infinity" in done.problems[0]


# ---- a corpus ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path, toys):
    toybench.write_corpus(tmp_path)
    toybench.write_checkpoint(tmp_path / "weights")
    return tmp_path


def rewrite(root, change):
    """Every recording through `change(samples, row)`, None leaves it out; the table says what is there then."""
    lines = list(csv.DictReader((root / "toy.csv").open()))
    with (root / "toy.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
        out.writeheader()
        for row in lines:
            path = root / row["path"]
            samples = change(soundfile.read(path)[0], row)
            if samples is None:
                continue
            soundfile.write(path, samples, GRID.sample_rate, subtype="PCM_16")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            out.writerow({**row, "n_samples": len(samples), "sha256": digest})


def test_one_utterance_is_a_corpus(corpus):
    rewrite(corpus, lambda x, row: x if row["split"] != "eval" or (row["speaker"], row["vocoder"]) in (
        ("c", "bonafide"), ("c", "comb")) else None)  # fmt: skip
    done = go(corpus, corpus / "run", *OTHERS)
    assert done.statuses == {"ok": 6}
    assert go(corpus, corpus / "run", *OTHERS).computed == 0


@pytest.mark.parametrize("without", ["bonafide", "spoof"])
def test_a_corpus_of_one_class_is_refused_by_name(corpus, without):
    rewrite(corpus, lambda x, row: None if (row["vocoder"] == "bonafide") == (without == "bonafide") else x)
    with pytest.raises(XaibenchError, match=r"toy.*(bona fide|pair|twin|vocoded|spoof)"):
        go(corpus, corpus / "run", *OTHERS)


#: Samples of every recording of speaker c, and the sentence about it: 20 ms and half an hour are the extremes.
@pytest.mark.parametrize(
    ("count", "sentence"),
    [(320, r"toy hears 0\.25 s: 2 utterances are repeated to that \(c-1/(comb|smooth) of 0\.02 s\)"),
     (1, r"repeated to that \(c-1/(comb|smooth) of 6\.25e-05 s\)"),
     (60 * GRID.sample_rate, r"toy hears 0\.25 s: 2 utterances are cut to that \(c-1/(comb|smooth) of 60 s\)"),
     pytest.param(1800 * GRID.sample_rate, r"cut to that \(c-1/(comb|smooth) of 1800 s\)", marks=pytest.mark.heavy),
     (2 * N_SAMPLES, "")],
)  # fmt: skip
def test_a_recording_far_from_the_window_is_scored_and_said(corpus, count, sentence):
    rewrite(corpus, lambda x, row: np.resize(x, count) if row["speaker"] == "c" else x)
    done = go(corpus, corpus / "run", *OTHERS)
    assert sum(done.statuses.values()) == 24 and set(done.statuses) <= {"ok", "undefined"}
    assert [p for p in done.problems if "hears" in p] == ([done.problems[0]] if sentence else [])
    if sentence:
        assert pd.Series(done.problems).str.contains(sentence).any(), done.problems
    hears = json.loads((corpus / "run" / "run.json").read_text())["countermeasures"]["toy"]["hears"]
    assert hears["cut"] + hears["repeated"] == 2 and count / GRID.sample_rate in (hears["shortest"], hears["longest"])


#: What becomes of the halves of speaker c's pairs.
SOUNDS = {
    "silence": lambda x, bonafide: 0 * x,
    "silence in the bona fide half": lambda x, bonafide: 0 * x if bonafide else x,
    "silence in the vocoded half": lambda x, bonafide: x if bonafide else 0 * x,
    "silence at the end": lambda x, bonafide: np.where(np.arange(len(x)) < 1000, x, 0),
    "DC": lambda x, bonafide: 0 * x + (0.5 if bonafide else 0.25),
    "full scale": lambda x, bonafide: np.sign(x) * 0.99,
    "one sample": lambda x, bonafide: np.where(np.arange(len(x)) == 100, 0.5, 0),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_a_strange_recording_costs_no_other_a_number(corpus, clean, name):
    every = ("rank-accuracy", "drop-twin", "deletion-twin", "robustness-noise", "sparseness", "completeness-twin")
    rewrite(corpus, lambda x, row: SOUNDS[name](x, row["vocoder"] == "bonafide") if row["speaker"] == "c" else x)
    done = go(corpus, corpus / "run", *OTHERS, "energy", metrics=every)
    assert set(done.statuses) <= {"ok", "undefined"} and sum(done.statuses.values()) == 72, done.problems
    rows = table(corpus / "run")
    assert np.isfinite(rows[rows.status == "ok"].value).all()
    assert not rows[rows.status != "ok"].note.str.contains("does not say why").any()
    assert set(rows[rows.status == "undefined"].utterance) <= {"c-1"} | set(
        rows[rows.metric == "completeness-twin"].utterance)  # fmt: skip
    if name == "silence":
        mine = rows[(rows.utterance == "c-1") & (rows.metric == "rank-accuracy") & (rows.attributor == "random")]
        assert set(mine.note) == {"the twins do not differ, so there is no truth to find"}
    others = rows[(rows.utterance != "c-1") & rows.metric.isin(ASKED) & (rows.attributor != "energy")]
    whole = clean[(clean.utterance != "c-1") & (clean.attributor != MINE)]
    assert_frame_equal(others.reset_index(drop=True), whole.reset_index(drop=True), rtol=1e-5)


# ---- at the command line -----------------------------------------------------------------------------------------------

AT_THE_SHELL = {
    "a method that raises": (raising(ValueError("no")), 0, "failed: toy-deaf on toy, on 2 utterances: ValueError: no"),
    "a lost device": (raising(RuntimeError(POISON[1])), 2, "error: toy-deaf on toy: cpu on "),
    "Ctrl-C": (raising(KeyboardInterrupt()), 130, "topped"),
}


@pytest.mark.parametrize("name", AT_THE_SHELL)
def test_what_the_shell_is_told(root, tmp_path, monkeypatch, toys, command, name):
    """A run with failed cells is a finished run; one that was stopped is not, and says so without a traceback."""
    function, status, text = AT_THE_SHELL[name]
    fault(monkeypatch, function)
    code, out, err = command(
        "run", "--cm", "toy", "--data", "toy", "--root", root, "--checkpoint", root / "weights" / "toy.safetensors",
        "--xai", MINE, "--metrics", "rank-accuracy", "--limit", 2, "--n-fft", GRID.n_fft, "--hop", GRID.hop,
        "--device", "cpu", "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == status and text in out + err and "Traceback" not in out + err, out + err
