"""The shipped weights are what their cards say: trained without the held-out vocoder, and as good as claimed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from xaibench import registry
from xaibench.harness.known import load_countermeasure
from xaibench.protocols import Corpus, Countermeasure
from xaibench.training import error_rates, evaluate

NAMES = [
    name for name, (plugin, *_) in registry.plugins("countermeasures").items()
    if plugin.distribution == "xaibench-countermeasures" and registry.load("countermeasures", name).shipped() is not None
]  # fmt: skip
#: Trainable and fixed parameters of what ships; the published sizes are in each countermeasure's own tests.
PARAMETERS = {
    "aasist": 85_306, "cnn": 161_050, "lcnn": 1_141_538, "lcnn-lfcc": 342_067, "lcnn-lfcc-lstm": 269_731,
    "rawnet2": 545_314, "resnet-cqt": 708_914, "ssl-res1d": 531_712, "tca": 465_943,
}  # fmt: skip
MEGABYTES = 6


@cache
def corpus() -> Corpus:
    return registry.open_corpus("minivoc")


@cache
def loaded(name: str) -> tuple[Countermeasure, dict]:
    module, card, _ = load_countermeasure(name, None, {})
    return module.to(memory_format=torch.channels_last), card


def few() -> Corpus:
    """Every sixth evaluation utterance in all its versions."""
    sources = sorted({u.source for u in corpus().utterances if u.split == "eval"})[::6]
    return replace(corpus(), utterances=tuple(u for u in corpus().utterances if u.source in sources))


def test_every_countermeasure_that_fits_ships_its_weights():
    assert set(NAMES) == set(PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_it_was_trained_on(name):
    module, card = loaded(name)
    assert card["trained_on"]["held_out"] == ["lyra"] and "lyra" not in card["trained_on"]["vocoders"]
    assert card["trained_on"]["data"]["minivoc"] == corpus().hash
    assert card["classes"] == list(module.classes)
    assert card["parameters"] == PARAMETERS[name] == sum(p.numel() for p in module.parameters())
    assert registry.load("countermeasures", name).shipped().stat().st_size <= MEGABYTES * 1e6


@pytest.mark.parametrize("name", NAMES)
def test_bona_fide_scores_higher_than_every_vocoder_of_the_training(name):
    scores = evaluate(loaded(name)[0], [few()], "eval")
    means = scores.groupby("vocoder").score.mean()
    assert len(scores) == 8 * 6 and means["bonafide"] > means.drop(["bonafide", "lyra"]).max()


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_the_error_rates_of_the_card_are_measured_again(name):
    module, card = loaded(name)
    found = error_rates(evaluate(module, [corpus()], "eval"), ["lyra"])
    for vocoder, rate in card["eer"]["eval"]["minivoc"].items():
        assert found[vocoder] == pytest.approx(rate, abs=0.022), vocoder  # one utterance of 48
    assert found["pooled"] < 0.3


def test_the_lcnn_that_ships_is_as_good_as_the_readme_says():
    found = error_rates(evaluate(loaded("lcnn")[0], [corpus()], "eval"), ["lyra"])
    assert found["pooled"] <= 0.05 and found["lyra"] <= 0.12
