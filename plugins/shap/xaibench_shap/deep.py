"""DeepSHAP: DeepLIFT against several bona fide references, averaged. Native route only.

Shapes: `(B, C, F, T)` in, `(B, F, T)` out; unit: spoof log-odds. The map of an utterance sums to its score minus the mean
score of the references used (summation to delta, Shrikumar et al. 2017, arXiv 1704.02685, Eq. 1).

shap has a rule for each module *class name*; what it does not see, it differentiates, and the values are then wrong. So
Max-Feature-Map is explained in its ReLU form (`xaibench.layers.deeplift_form`), a module without a rule is refused, and
the sum is checked for every utterance: by shap against 0.01 log-odds, here also against the size of what is explained.
"""

from __future__ import annotations

import warnings

import numpy as np
import shap
import torch
from torch import Tensor, nn

from xaibench.errors import Unsupported, XaibenchError
from xaibench.layers import deeplift_form
from xaibench.protocols import attributor
from xaibench.view import View, derive_seed

#: Greatest |sum - difference of scores|, as a share of |difference| and of the sum of |values|. Measured on LCNN: the ReLU
#: form is off by less than 1e-5 of the difference, the plain max form by 40 % and more.
DIFFERENCE_SHARE, VALUES_SHARE = 1e-3, 1e-5


@attributor(
    name="deep-explainer",
    paper="DeepSHAP: Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874, section 4.2; shap.DeepExplainer",
    needs=["gradients", "modules", "references"],
    random=True,
    complete=True,
)
def deep_explainer(view: View, *, background: int = 3) -> Tensor:
    """DeepSHAP of the spoof log-odds against `background` bona fide references; time grows linearly with their number.

    The references are the same for all utterances of a view and fixed by its seed. Raises Unsupported for a module shap
    has no rule for, and XaibenchError where the values do not sum to the difference of scores.
    """
    references = background_of(view, background)
    with deeplift_form(view.private_model()) as model:
        explainer = shap.DeepExplainer(model, references)
        return torch.cat([_explain(explainer, model, one) for one in view.inputs.detach().split(1)])


def background_of(view: View, count: int) -> Tensor:
    """`count` of the view's references (all, if it has fewer), drawn by its seed. Shape: `(R, C, F, T)`.

    Raises XaibenchError if `count` is below one.
    """
    if count < 1:
        raise XaibenchError(f"deep-explainer needs at least one background reference, got background={count}")
    draw = torch.Generator().manual_seed(derive_seed(view.seed, "background"))
    chosen = torch.randperm(len(view.references), generator=draw)[:count].sort().values
    return view.references[chosen.to(view.references.device)].detach()


def _explain(explainer: shap.DeepExplainer, model: nn.Module, inputs: Tensor) -> Tensor:
    """One utterance, checked. Shape: `(1, C, F, T)` -> `(1, F, T)`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="unrecognized nn.Module")
            values = explainer.shap_values(inputs, check_additivity=True)
    except UserWarning as warning:
        raise Unsupported(_no_rule(model, str(warning))) from warning
    except AssertionError as failure:
        raise XaibenchError(f"shap's additivity check failed, so the values mean nothing: {failure}") from failure
    values = np.asarray(values, dtype=np.float64).reshape(inputs.shape)
    with torch.no_grad():
        difference = float(model(inputs)) - float(explainer.expected_value[0])
    gap = abs(float(values.sum()) - difference)
    if not gap <= DIFFERENCE_SHARE * abs(difference) + VALUES_SHARE * float(np.abs(values).sum()):
        raise XaibenchError(
            f"DeepSHAP values sum to {values.sum():.6g}, the difference of scores is {difference:.6g}: an operation of the "
            "countermeasure has no DeepLIFT rule, or one module is called twice (each call needs its own instance)"
        )
    return torch.from_numpy(values.sum(axis=1)).to(inputs)


def _no_rule(model: nn.Module, warning: str) -> str:
    kind = warning.rsplit(": ", 1)[-1]
    names = [name for name, module in model.named_modules() if type(module).__name__ == kind]
    return (
        f"deep-explainer has no DeepLIFT rule for {kind} (at {', '.join(names) or 'the top'}); give the module a "
        "deeplift_form() made of modules that shap knows, as xaibench.layers.MaxFeatureMap does"
    )
