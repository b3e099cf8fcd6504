"""What a method does to others is undone and said: shared tensors, torch's settings, sys.exit, wrong types."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch
import toybench
from pandas.testing import assert_frame_equal

from xaibench.errors import PluginError, XaibenchError
from xaibench.harness.guard import guarded
from xaibench.harness.run import run
from xaibench.protocols import Dataset, attributor


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


MISDEEDS = {
    "in-place": (in_place, "ok", ""),
    "no-gradient": (no_gradient, "failed", "changed torch's gradient mode"),
    "double": (double, "failed", "changed torch's default dtype"),
    "exit": (lambda view: sys.exit(3), "failed", r"called sys.exit\(3\)"),
    "array": (lambda view: np.zeros((len(view), *view.shape)), "failed", "returned ndarray, expected a real tensor"),
    "nothing": (lambda view: None, "failed", "returned NoneType"),
    "complex": (lambda view: torch.zeros(len(view), *view.shape, dtype=torch.cfloat), "failed", "complex values"),
}


@pytest.mark.parametrize("name", MISDEEDS)
def test_a_misdeed_costs_its_own_cells_and_no_other_number(root, tmp_path, monkeypatch, name):
    function, status, note = MISDEEDS[name]
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
