"""What a method does to others is undone and said: shared tensors, torch's settings, sys.exit, wrong types."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pandas as pd
import pytest
import torch
import toybench
from pandas.testing import assert_frame_equal
from torch.nn.modules.module import register_module_forward_hook

from xaibench import registry
from xaibench.errors import PluginError, XaibenchError
from xaibench.harness.guard import guarded
from xaibench.harness.run import run
from xaibench.protocols import Dataset, Metric, attributor
from xaibench.types import Attribution


def in_place(view):
    values = toybench.gradient.function(view)
    view.inputs.mul_(0.5)
    for fill in view.fills.values():
        fill.zero_()
    return values


def no_gradient(view):
    torch.set_grad_enabled(False)
    return torch.zeros(len(view), *view.shape)


def double(view):
    torch.set_default_dtype(torch.float64)
    return torch.zeros(len(view), *view.shape)


def leaving(change):
    """A method that does its work and leaves something changed."""

    def method(view):
        values = toybench.gradient.function(view)
        change()
        return values

    return method


def raising(error):
    def method(view):
        raise error

    return method


def double_it(module, inputs, output):
    return output * 2


class Unspeakable(Exception):
    """Not even its text can be read."""

    def __str__(self):
        raise RuntimeError


class Lethal(Exception):
    """Whoever reads its text leaves."""

    def __str__(self):
        sys.exit(0)


MISDEEDS = {
    "in-place": (in_place, "ok", ""),
    "no-gradient": (no_gradient, "failed", "changed torch's gradient mode"),
    "double": (double, "failed", "changed torch's default dtype"),
    "exit": (lambda view: sys.exit(3), "failed", r"called sys.exit\(3\)"),
    "array": (lambda view: np.zeros((len(view), *view.shape)), "failed", "returned ndarray, expected a real tensor"),
    "nothing": (lambda view: None, "failed", "returned NoneType"),
    "complex": (lambda view: torch.zeros(len(view), *view.shape, dtype=torch.cfloat), "failed", "complex values"),
    "meta": (lambda view: torch.zeros(len(view), *view.shape, device="meta"), "failed", "device `meta`, which holds no"),
    "sparse": (lambda view: view.inputs[:, 0].to_sparse(), "failed", "of another kind, torch.sparse_coo, expected"),
    "huge": (lambda view: view.inputs[:, 0].double() * 1e300, "failed", "returned NaN or infinity for"),
    "no-axes": (lambda view: Attribution(view.inputs[:, 0], None, None), "failed", "on NoneType, expected an Axis"),
    "autocast": (leaving(lambda: torch.autocast("cpu", torch.bfloat16).__enter__()), "failed", "torch's autocast"),
    "rounding": (leaving(lambda: torch.set_float32_matmul_precision("medium")), "failed", "torch's matmul precision"),
    "elsewhere": (leaving(lambda: torch.set_default_device("meta")), "failed", "changed torch's default device"),
    "anomalies": (leaving(lambda: torch.autograd.set_detect_anomaly(True)), "failed", "changed torch's anomaly mode"),
    "cudnn": (leaving(lambda: setattr(torch.backends.cudnn, "benchmark", True)), "failed", "torch's cuDNN settings"),
    "all-hooks": (leaving(lambda: register_module_forward_hook(double_it)), "failed", "torch's hooks of all modules"),
    "recursion": (leaving(lambda: sys.setrecursionlimit(150)), "ok", ""),
    "deaf-to-ctrl-c": (leaving(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)), "ok", ""),
    "unspeakable": (raising(Unspeakable()), "failed", r"^Unspeakable: \(what it says cannot be printed\)$"),
    "lethal": (raising(Lethal()), "failed", r"^Lethal: \(what it says cannot be printed\)$"),
    "talkative": (raising(ValueError("no" * 10**6)), "failed", r"^ValueError: (?:no){250} \.\.\.$"),
    "surrogate": (raising(ValueError("bad \udcff")), "failed", "^ValueError: bad  $"),
    "escapes": (raising(ValueError("\x1b[31mred")), "failed", r"^ValueError:  \[31mred$"),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_misdeed_costs_its_own_cells_and_no_other_number(root, tmp_path, monkeypatch, name):
    function, status, note = MISDEEDS[name]
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests are a job in the background
    toybench.install(monkeypatch, "toy-gradient", "toy-deaf")
    # "toy-deaf" runs before "toy-gradient" in the plan below, with the misdeed in its place
    method = attributor(name="toy-deaf", paper="none", needs=["gradients"])(function)
    monkeypatch.setattr(toybench, "deaf", method)
    spec = toybench.spec(root, "toy-deaf", "toy-gradient", "random", limit=4)
    run(spec, tmp_path / "with")
    run(toybench.spec(root, "toy-gradient", "random", limit=4), tmp_path / "without")
    found, clean = (pd.read_parquet(tmp_path / n / "rows") for n in ("with", "without"))
    mine = found[found.attributor == "toy-deaf"]
    assert set(mine.status) == {status} and mine.note.str.contains(note).all(), mine[["status", "note"]].drop_duplicates()
    keys = ["attributor", "utterance", "vocoder", "metric"]
    kept = [*keys, "value", "status"]
    others = found[found.attributor != "toy-deaf"].sort_values(keys)[kept].reset_index(drop=True)
    assert_frame_equal(others, clean.sort_values(keys)[kept].reset_index(drop=True), check_exact=True)
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
    assert signal.getsignal(signal.SIGINT) is before and sys.getrecursionlimit() > 150


def vandalise(evidence):
    """Writes into all that it is shown."""
    tensors = [evidence.on_view, evidence.attribution.values, evidence.truth.values, evidence.probe.untouched]
    tensors += [evidence.probe.view.inputs, *evidence.probe.view.fills.values()]
    tensors += [answer for kept in evidence._known.values() for answer in kept.values()]
    for tensor in tensors:
        tensor.fill_(0.5)
    evidence.truth.region.fill_(True)
    evidence.probe.valid.fill_(False)
    return torch.zeros(len(evidence.on_view))


def metric(name, function):
    return Metric(name, "axioms", function, "higher", (0, 1), "none", "none", "always")


vandal = metric("vandal", vandalise)
numberless = metric("numberless", lambda evidence: 0.5)
clumsy = metric("clumsy", lambda evidence: evidence.no_such_thing)


def test_a_foreign_metric_harms_no_other_and_is_named(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    offered = [("vandal", "vandal"), ("numberless", "numberless"), ("clumsy", "clumsy")]
    entries = [(name, EntryPoint(name, f"test_guard:{where}", "xaibench.metrics")) for name, where in offered]
    theirs = tuple(registry.Plugin("metrics", name, "a-metric", "1.0", entry) for name, entry in entries)
    known = registry._scan()
    monkeypatch.setattr(registry, "_scan", lambda: known + theirs)
    ours = ("drop-twin", "rank-accuracy")
    names = (ours[0], "vandal", "numberless", "clumsy", ours[1])
    done = run(toybench.spec(root, "toy-gradient", "random", metrics=names), tmp_path / "with")
    run(toybench.spec(root, "toy-gradient", "random", metrics=ours), tmp_path / "without")
    found, clean = (pd.read_parquet(tmp_path / n / "rows") for n in ("with", "without"))
    keys = ["attributor", "utterance", "vocoder", "metric"]
    theirs, found = found[~found.metric.isin(ours)], found[found.metric.isin(ours)]
    kept = [*keys, "value", "status"]
    found, clean = (rows.sort_values(keys)[kept].reset_index(drop=True) for rows in (found, clean))
    assert_frame_equal(found, clean, check_exact=True)
    said = {
        "vandal": "ok ",
        "numberless": "failed XaibenchError: metric numberless returned float, expected a real tensor (B,)",
        "clumsy": "failed metric clumsy: AttributeError: 'Evidence' object has no attribute 'no_such_thing'",
    }
    assert {row.metric: f"{row.status} {row.note}" for row in theirs.itertuples()} == said
    blamed = [p for p in done.problems if p.startswith("failed: ")]
    assert [p.partition(" on ")[0] for p in blamed] == ["failed: metric numberless", "failed: metric clumsy"], blamed


def test_settings_are_restored_after_a_crash_too():
    with pytest.raises(ZeroDivisionError), guarded("a method"):
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError
    assert torch.get_default_dtype() is torch.float32
    with pytest.raises(XaibenchError, match=r"a method called sys\.exit"), guarded("a method"):
        sys.exit(1)


def test_a_data_set_that_cannot_open_says_which_and_why(root, tmp_path, monkeypatch):
    toybench.install(monkeypatch)
    monkeypatch.setattr(toybench, "corpus", Dataset("toy", "noise", lambda folder: folder / 3))
    with pytest.raises(PluginError, match=r"data set 'toy' of toy-package 1\.0 could not be opened: TypeError.*--root"):
        run(toybench.spec(root, "energy"), tmp_path)


def test_a_method_that_empties_the_valid_cells_empties_nobodys(root, tmp_path):
    from toys import ConvCM, truth_of, view_of

    from xaibench.harness.guard import private_tensors
    from xaibench.metrics.evidence import Probe

    view = view_of(ConvCM(), 2, truth=truth_of(2))
    probe = Probe(view, view.truth.valid, (0.1, 0.5))
    before = {n: getattr(view.truth, n).clone() for n in ("values", "region", "valid", "added")}
    own = private_tensors(view)
    for name in before:
        getattr(own.truth, name).zero_()
    assert all(torch.equal(getattr(view.truth, name), value) for name, value in before.items())
    assert int(probe.valid.sum()) == probe.cells > 0
