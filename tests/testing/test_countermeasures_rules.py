"""The rules of countermeasures: a toy keeps them all, and each breaks on a toy made to break it, with the reason."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xaibench import audio, registry
from xaibench.errors import ManifestError
from xaibench.frontends import LogPower
from xaibench.protocols import Corpus
from xaibench.recipe import Recipe
from xaibench.testing import Broken, NotApplicable, checks
from xaibench.testing.toys import GRID, N_SAMPLES, SHAPE, ConvToy, LinearToy, RawToy, utterances
from xaibench.types import Axis, Utterance
from xaibench.weights import save_weights


class Good(ConvToy):
    """`ConvToy` with weights of torch's generator, as a recipe seeds it."""

    def __init__(self) -> None:
        super().__init__()
        for parameter in self.backend.parameters():
            nn.init.normal_(parameter, std=0.3)


def recipe(build, **facts) -> Recipe:
    return Recipe(**{"name": "toy", "paper": "none: a toy", "build": build, "obtain": "train it", **facts})


def asked(thing, rule: str):
    (check,) = [c for c in checks("countermeasure", thing) if c.rule == rule]
    return check.run()


def outcomes(thing) -> dict[str, str]:
    found = {}
    for check in checks("countermeasure", thing):
        if check.rule == "pickles":
            continue  # the classes of a test have no module to be found in
        try:
            found[check.rule] = f"ok {check.run().text}"
        except NotApplicable as reason:
            found[check.rule] = f"n/a {reason}"
    return found


KEPT = {
    "seeded", "options", "checkpoint", "contract", "classes", "logits", "batch-invariance", "padding-invariance",
    "deterministic", "state-unchanged", "device", "copies", "round-trip", "memory", "true-cut", "tap-shape", "axes", "click",
    "whole-length", "gradients", "mean-tap", "layers",
}  # fmt: skip


class Raw(RawToy):
    def __init__(self) -> None:
        super().__init__()
        nn.init.normal_(self.backend[6].weight)


@pytest.mark.parametrize(("build", "also"), [(Good, {"tone"}), (Raw, set())])
def test_a_good_one_keeps_every_rule(build, also):
    found = outcomes(recipe(build))
    ours = {rule for rule, said in found.items() if said.startswith("ok")}
    assert KEPT | also <= ours and not {"tone", "class-order", "intrinsic"} - also & ours, found


# ---- the recipe ------------------------------------------------------------------------------------------------------


class FromNumpy(Good):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.backend[0].bias.fill_(float(np.random.default_rng().random()))


class Everywhere:
    """A recipe of its own making that seeds torch for everybody, and takes whatever it is given."""

    name, paper, obtain, training, options = "toy", "none", "", {}, {"where": Path("here")}

    def untrained(self, *, seed, **options):
        torch.manual_seed(seed)
        return Good()

    def shipped(self):
        return None


class Typed(Everywhere):
    options = {}  # noqa: RUF012

    def untrained(self, *, seed):
        return Good()


@pytest.mark.parametrize(
    ("thing", "rule", "message"),
    [
        (recipe(FromNumpy), "seeded", r"two builds with seed 3 differ in 1 tensors, the first is 'backend.0.bias'"),
        (recipe(ConvToy), "seeded", "seeds 3 and 4 build the same weights"),
        (Everywhere(), "options", r"cannot be written on a checkpoint's card"),
        (Typed(), "options", "raises TypeError .*no_such_option.*expected a PluginError"),
        (Everywhere(), "checkpoint", "no weights ship and `obtain` is empty"),
    ],
)
def test_a_recipe_that_breaks_a_rule(thing, rule, message):
    with pytest.raises(Broken, match=message):
        asked(thing, rule)


def test_a_recipe_that_seeds_everybody(monkeypatch):
    before = torch.random.get_rng_state()
    try:
        with pytest.raises(Broken, match="moved torch's random numbers"):
            asked(Everywhere(), "seeded")
        monkeypatch.setattr(Everywhere, "options", {})
        with pytest.raises(Broken, match="no_such_option=1 was taken in silence"):
            asked(Everywhere(), "options")
    finally:
        torch.random.set_rng_state(before)


def shipping(folder: Path, cm: nn.Module, build, **card) -> Recipe:
    made = recipe(build, folder=folder)
    save_weights(folder / "toy.safetensors", cm)
    facts = {"name": "toy", "classes": list(cm.classes), "trained_on": {"data": {"toys": "0" * 64}}, **card}
    (folder / "toy.json").write_text(json.dumps(facts), encoding="utf-8")
    return made


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"name": "other"}, "its card says name 'other', the countermeasure 'toy'"),
        ({"classes": ["bonafide", "spoof"]}, r"its card says classes \['bonafide', 'spoof'\]"),
        ({"trained_on": {}}, r"says nothing in trained_on.data"),
        ({"options": {"size": 3}}, "has no option size"),
    ],
)
def test_a_card_that_is_wrong(tmp_path, card, message):
    made = shipping(tmp_path, Good(), Good, **card)
    with pytest.raises(Broken, match=message):
        asked(made, "checkpoint")
    assert asked(shipping(tmp_path, Good(), Good), "checkpoint").text.endswith("classes spoof, bonafide; toys")


# ---- the order of the classes ----------------------------------------------------------------------------------------


class Hears(LinearToy):
    """Upper bins are weak in the toys' spoofed speech: it says so, or the opposite."""

    sign = 1.0

    def __init__(self) -> None:
        weight = torch.zeros(SHAPE)
        weight[16:] = -0.02 * self.sign
        super().__init__(weight)


class HearsWrong(Hears):
    sign = -1.0


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Six labelled pairs of the toys behind the name `toys`; nothing else is installed."""
    found = []
    for i, halves in enumerate(zip(*utterances(range(6)), strict=True)):
        for vocoder, samples in zip(("smooth", "bonafide"), halves, strict=True):
            path = tmp_path / f"{i}-{vocoder}.wav"
            audio.write(path, samples.clamp(-1, 1).numpy(), sample_rate=GRID.sample_rate)
            found.append(Utterance(f"u{i}", f"s{i}", "eval", vocoder, path))
    corpus = Corpus("toys", tuple(found), GRID.sample_rate, (90.0, 7_000.0))

    def open_corpus(name, root=None):
        if name != "toys":
            raise ManifestError(f"{name} is not here")
        return corpus

    monkeypatch.setattr(registry, "open_corpus", open_corpus)


def test_the_order_of_the_classes_is_asked_on_labelled_clips(tmp_path, clips):
    seen = asked(shipping(tmp_path, Hears(), Hears), "class-order")
    assert seen.number == 0 and "EER 0% on 6 pairs of toys" in seen.text
    with pytest.raises(Broken, match=r"EER 100% on 6 pairs of toys.*expected an EER below 50%.*right order"):
        asked(shipping(tmp_path, HearsWrong(), HearsWrong), "class-order")
    with pytest.raises(NotApplicable, match="an untrained countermeasure guesses"):
        asked(recipe(Hears), "class-order")
    with pytest.raises(NotApplicable, match=r"no labelled clips at 16000 Hz are here.*or index elsewhere"):
        asked(shipping(tmp_path, Hears(), Hears, trained_on={"data": {"elsewhere": ""}}), "class-order")


# ---- answers, state, copies ------------------------------------------------------------------------------------------


def changed(**members) -> type:
    """`Good` with other members."""
    return type("Changed", (Good,), members)


def answering(function) -> type:
    """`Good` whose answer goes through `function(self, waveform, logits)`."""
    return changed(forward=lambda self, waveform: function(self, waveform, self.backend(self.frontend(waveform))))


class Counts(Good):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.list, self.plain = [], torch.zeros(2)

    def forward(self, waveform):
        self.calls += 1
        return super().forward(waveform)


class Keeps(Good):
    def __init__(self) -> None:
        super().__init__()
        self.kept = []

    def forward(self, waveform):
        out = super().forward(waveform)
        self.kept.append(out)
        return out


class Stays(Good):
    """A tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 + torch.rand(2)

    def forward(self, waveform):
        return super().forward(waveform) * self.scale


class OldLayers(Good):
    def __init__(self) -> None:
        super().__init__()
        mine = {"mfm_1": self.backend[1], "mfm_2": self.backend[5]}
        self.remembered = lambda: mine

    @property
    def layers(self):
        return self.remembered()


def half_way(self, waveform):
    self.train()
    out = self.backend.eval()(self.frontend(waveform))
    self.eval()
    return out


def loud(self, waveform, logits):
    waveform.mul_(2)
    return logits


def double(self, waveform, logits):
    torch.set_default_dtype(torch.float64)
    return logits


def draws(self, waveform, logits):
    np.random.rand()
    return logits


ANSWERS = [
    (answering(lambda s, x, y: y[:, 0]), "logits", r"for \(3, 1600\) waveforms it gives \(3,\); expected logits \(3, 2\)"),
    (answering(lambda s, x, y: y.double()), "logits", "its logits are torch.float64; expected float32"),
    (
        answering(lambda s, x, y: y / x.abs().amax(1, keepdim=True)),
        "logits",
        "4 of 4 logits for silence are NaN or infinite",
    ),
    (changed(classes=("spoof", "real")), "classes", "must name 'bonafide' exactly once"),
    (changed(sample_rate=16_000.0), "contract", "sample_rate is 16000.0; expected a whole number of Hz"),
    (
        answering(lambda s, x, y: y - y.mean(0)),
        "batch-invariance",
        "alone and in a batch differ by .*normalise over the batch",
    ),
    (answering(lambda s, x, y: y - y.mean(0)), "padding-invariance", "two fifths of n_samples and its repetition differ by"),
    (answering(lambda s, x, y: nn.functional.dropout(y, 0.5)), "deterministic", "Is dropout on in eval mode"),
    (Counts, "state-unchanged", "a call changed weights or buffers; expected all as before"),
    (answering(loud), "state-unchanged", "changed the waveforms it was given by up to"),
    (answering(double), "state-unchanged", "a call changed torch's default dtype"),
    (answering(draws), "state-unchanged", "a call changed numpy's generator"),
    (changed(forward=half_way), "state-unchanged", r"a call that failed \(\w+\) changed mode \(train or eval\)"),
    (answering(lambda s, x, y: y + torch.zeros(2)), "device", "a tensor is made on the CPU in forward"),
    (answering(lambda s, x, y: y.cpu()), "device", r"moved to a GPU it answers on cpu.*\.cpu\(\)"),
    (Stays, "device", "neither parameter nor buffer is used in forward.*register_buffer"),
    (OldLayers, "copies", "mfm_1, mfm_2 of a deep copy are not among its own modules"),
    (changed(__deepcopy__=lambda self, memo: self), "copies", "tensors of a deep copy are the original's own memory"),
    (Stays, "round-trip", "a round trip through safetensors differ by .*no parameter and no buffer"),
    (Keeps, "memory", r"\d+ calls left \d+ tensors alive; expected none"),
]


@pytest.mark.parametrize(("build", "rule", "message"), ANSWERS, ids=[f"{r}-{i}" for i, (_, r, _) in enumerate(ANSWERS)])
def test_one_that_breaks_a_rule_of_answers(build, rule, message):
    if rule == "device" and torch.cuda.is_available():
        pytest.skip("asked on the GPU itself there")
    dtype = torch.get_default_dtype()
    with pytest.raises(Broken, match=message):
        asked(recipe(build), rule)
    assert torch.get_default_dtype() is dtype


def test_what_depends_on_numbers_can_only_be_asked_on_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("it is asked there")
    with pytest.raises(NotApplicable, match="depends on numbers"):
        asked(recipe(answering(lambda s, x, y: y if float(x.sum()) else -y)), "device")


def test_what_cannot_be_built_is_said_once():
    def build():
        raise ValueError("no such layer")

    with pytest.raises(Broken, match="no such layer"):
        asked(recipe(build), "seeded")
    with pytest.raises(NotApplicable, match="cannot be built"):
        asked(recipe(build), "logits")


# ---- the tap ---------------------------------------------------------------------------------------------------------


class Tapped(LogPower):
    """A front end whose tap goes through `after`."""

    def __init__(self, after) -> None:
        super().__init__(GRID)
        self.after = after
        self.fit(0.1 * torch.randn(8, N_SAMPLES, generator=torch.Generator().manual_seed(0)))

    def forward(self, waveform):
        return self.after(super().forward(waveform))


def tapped(after) -> type:
    """`Good` with another tap."""

    class Changed(Good):
        def __init__(self) -> None:
            super().__init__()
            self.frontend = Tapped(after)

    return Changed


class Magnitude(nn.Module):
    """sqrt of the power: no gradient at silence."""

    def forward(self, waveform):
        spectrum = GRID.stft(waveform)
        return (spectrum.real.square() + spectrum.imag.square()).sqrt().unsqueeze(1)


class Rough(Good):
    def __init__(self) -> None:
        super().__init__()
        self.frontend = Magnitude()


class Flattened(Good):
    @property
    def layers(self):
        return {"flat": self.backend[7]}


def late(tap):
    return tap.roll(4, dims=3)


def twisted(tap):
    return torch.cat([tap[..., :38], tap[..., 38:].flip(3)], dim=3)


def deaf(tap):
    return torch.cat([tap[..., : -SHAPE[1] // 4], torch.zeros_like(tap[..., -SHAPE[1] // 4 :])], dim=3)


def axes_of(frequency, time) -> property:
    return property(lambda self: (Axis("frequency", frequency), Axis("time", time)))


HERTZ, SECONDS = GRID.frequency.edges, GRID.time(N_SAMPLES).edges
TAPS = [
    (answering(lambda s, x, y: y + x.abs().mean(1, keepdim=True)), "true-cut", r"backend\(frontend\(x\)\) differs from"),
    (tapped(lambda t: t.transpose(2, 3)), "tap-shape", r"the tap of 3 recordings is \(3, 1, 51, 33\), its axes say"),
    (changed(resolves=frozenset({"time"})), "tap-shape", "has 33 rows and resolves"),
    (changed(axes=axes_of(HERTZ / 1000, SECONDS)), "axes", "from 0 to 8; expected Hz between 0 and 8000.*in kHz"),
    (changed(axes=axes_of(HERTZ, np.arange(52.0))), "axes", "from 0 to 51; expected 0 to 0.1 s.*in frames"),
    (changed(axes=property(lambda s: GRID.time(N_SAMPLES))), "axes", "its axes are of kind Axis; expected .frequency, time"),
    (tapped(late), "click", r"clicks are heard \+8.* ms from their time"),
    (tapped(twisted), "click", r"from their time \(median; [+-]\d\d.* at worst\)"),
    (tapped(lambda t: t.flip(2)), "tone", "tones at .* Hz are heard .* cells from their place.*upside down"),
    (tapped(deaf), "whole-length", "the last 160 of 1600 samples change no cell of the tap"),
    (tapped(torch.detach), "gradients", "no gradient passes from the tap to the waveform"),
    (Rough, "gradients", r"gradients at the waveform of silence are NaN or infinite.*A square root"),
    (changed(mean_tap=property(lambda s: torch.zeros(1, 1, 32, 1))), "mean-tap", r"mean_tap is \(1, 1, 32, 1\), which"),
    (changed(mean_tap=property(lambda s: torch.full((1,), torch.nan))), "mean-tap", "mean_tap has 1 NaN or infinite cells"),
    (Flattened, "layers", r"of 2 recordings the layers flat \(2, 64\) give no"),
    (changed(layers=property(lambda s: {"b": s.backend[5], "a": s.backend[1]})), "layers", "as b, a, but they ran as a, b"),
    (changed(layers=property(lambda s: {"spare": nn.Identity()})), "layers", "spare never ran"),
    (changed(intrinsic={"own": lambda tap: tap}), "intrinsic", r"the map 'own' is \(3, 1, 33, 51\)"),
    (changed(intrinsic={"own": lambda tap: tap[:, 0] / tap.abs().max()}), "intrinsic", "alone and in a batch differ by"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "rule", "message"), TAPS, ids=[f"{r}-{i}" for i, (_, r, _) in enumerate(TAPS)])
def test_one_that_breaks_a_rule_of_the_tap(build, rule, message):
    with pytest.raises(Broken) as broken:
        asked(recipe(build), rule)
    assert re.search(message, str(broken.value), re.S), str(broken.value)


def test_scores_only_is_declared_and_no_layers_is_no_fault():
    with pytest.raises(NotApplicable, match="scores only"):
        asked(recipe(changed(gradients=False)), "gradients")
    with pytest.raises(NotApplicable, match="declares no layers"):
        asked(recipe(changed(layers={})), "layers")


def test_a_rule_leaves_the_countermeasure_to_the_next(monkeypatch):
    made = recipe(Counts)
    (check,) = [c for c in checks("countermeasure", made) if c.rule == "state-unchanged"]
    with pytest.raises(Broken):
        check.run()
    with pytest.raises(Broken, match="weights or buffers"):  # asked again, on a copy of its own
        check.run()
    assert copy.deepcopy(Good()).layers.keys() == {"mfm_1", "mfm_2"}
