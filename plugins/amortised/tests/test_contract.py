"""What xaibench asks of every attributor: the rules of its conformance kit, on the countermeasure whose network ships."""

from xaibench.testing import checks_of

EXPECTED = {
    "needs": "it knows its countermeasure by the hash of the model, which the kit wraps to take its gradients away",
    "no-op-input": "a network answers from what it has seen, and a plane of the fill alone was no excerpt of its training",
}


@checks_of("attributor", "fast-shap", cm="lcnn", expected=EXPECTED)
def test_contract(check):
    check()
