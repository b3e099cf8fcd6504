"""The shipped weights are what their card says: trained without the held-out vocoder, and as good as claimed."""

from __future__ import annotations

import pytest
import torch
from xaibench_countermeasures.lcnn import recipe

from xaibench import registry
from xaibench.training import error_rates, evaluate
from xaibench.weights import load_weights, read_card


@pytest.fixture(scope="module")
def card():
    return read_card(recipe.shipped())


@pytest.fixture(scope="module")
def scores():
    model = recipe.untrained(seed=0).to(memory_format=torch.channels_last)
    load_weights(model, recipe.shipped())
    corpus = registry.load("datasets", "minivoc").open(None)
    return evaluate(model, [corpus], "eval")


def test_the_card_says_what_it_was_trained_on(card):
    assert card["trained_on"]["held_out"] == ["lyra"] and "lyra" not in card["trained_on"]["vocoders"]
    assert card["classes"] == ["spoof", "bonafide"] and card["parameters"] == 1_141_538
    corpus = registry.load("datasets", "minivoc").open(None)
    assert card["trained_on"]["data"]["minivoc"] == corpus.hash


def test_the_error_rates_of_the_card_are_measured_again(card, scores):
    found = error_rates(scores, ["lyra"])
    for vocoder, rate in card["eer"]["eval"]["minivoc"].items():
        assert found[vocoder] == pytest.approx(rate, abs=0.022), vocoder  # one utterance of 48
    assert found["pooled"] <= 0.05 and found["lyra"] <= 0.12


def test_bona_fide_scores_higher(scores):
    means = scores.groupby("vocoder").score.mean()
    assert means["bonafide"] > means.drop("bonafide").max() + 2
