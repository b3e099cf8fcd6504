"""Precision: what it changes, that it is undone, and that it reaches scores but no map."""

from dataclasses import replace

import pytest
import torch
import toybench
from toys import ConvCM, view_of

from xaibench import protocols
from xaibench.errors import RunError, XaibenchError
from xaibench.harness.plan import fingerprint, ordered_pairs
from xaibench.harness.run import run
from xaibench.harness.workbench import Workbench
from xaibench.precision import PRECISIONS, computed_in


@pytest.fixture
def root(tmp_path, monkeypatch):
    toybench.install(monkeypatch, "toy-gradient")
    toybench.write_corpus(tmp_path / "toy")
    toybench.write_checkpoint(tmp_path / "toy" / "weights")
    return tmp_path / "toy"


def test_bf16_rounds_scores_a_little_and_is_recorded_by_the_view():
    full = view_of(ConvCM(), 3)
    exact = full.score(full.inputs)
    rounded = replace(full, precision="bf16").score(full.inputs)
    assert rounded.dtype == exact.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=2e-2, atol=2e-2)
    assert torch.equal(full.score(full.inputs), exact)  # nothing stays switched on


@pytest.mark.parametrize("classes", [("spoof", "bonafide"), ("a", "bonafide", "b")])
def test_the_contrast_of_rounded_logits_is_taken_in_full_precision(classes):
    from xaibench.view import SpoofLogOdds

    logits = torch.tensor([[1.0, -9.9375, 1.03125]])[:, : len(classes)].bfloat16()  # exact in bfloat16
    contrast = SpoofLogOdds(classes)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrast(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, contrast(logits.float()))


def test_tf32_is_fp32_on_a_cpu():
    view = view_of(ConvCM(), 2)
    assert torch.equal(replace(view, precision="tf32").score(view.inputs), view.score(view.inputs))


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_cuda_settings_are_as_before_afterwards_also_after_an_error(precision):
    def settings():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = settings()
    with pytest.raises(ZeroDivisionError), computed_in(precision, "cuda"):
        if precision != "bf16":
            assert settings() == (precision == "tf32",) * 2
        raise ZeroDivisionError
    assert settings() == before


def test_an_unknown_precision_is_refused(root):
    with pytest.raises(XaibenchError, match="unknown precision 'fp8'; expected one of fp32, tf32, bf16"):
        replace(view_of(ConvCM(), 1), precision="fp8").score(torch.zeros(1))
    with pytest.raises(RunError, match="unknown precision 'fp8'"):
        toybench.spec(root, "energy", precision="fp8")


def test_maps_are_made_in_fp32_and_folders_are_not_mixed(root, tmp_path):
    exact, rounded = (toybench.spec(root, "toy-gradient", precision=p) for p in ("fp32", "bf16"))
    views = [
        Workbench(s).prepare("toy", "native", ordered_pairs(Workbench(s).corpus, "eval")[:2]).view for s in (exact, rounded)
    ]
    assert [v.precision for v in views] == ["fp32", "bf16"]
    maps = [toybench.gradient(v) for v in views]
    assert all(isinstance(m, protocols.Attribution) for m in maps) and torch.equal(maps[0].values, maps[1].values)
    for s in (exact, rounded):  # a method that asks for scores gets exact ones
        bench = Workbench(s)
        batch = bench.prepare("toy", "native", ordered_pairs(bench.corpus, "eval")[:2])
        assert bench.view_for(batch, bench.attributor("toy-gradient")).precision == "fp32"
    pair, facts = ordered_pairs(Workbench(exact).corpus, "eval")[0], {}
    assert fingerprint(exact, pair, facts) != fingerprint(rounded, pair, facts)
    run(exact, tmp_path / "run")
    with pytest.raises(RunError, match=r"holds another run .*precision: fp32 there, bf16 now"):
        run(rounded, tmp_path / "run")
