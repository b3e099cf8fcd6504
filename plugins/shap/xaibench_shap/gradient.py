"""Expected gradients: gradient times difference, averaged over references and points between. Both routes.

Shapes: `(B, C, F, T)` in, `(B, F, T)` out; unit: spoof log-odds. Each of the draws takes a bona fide reference r and a
point t in [0, 1] and adds `(x - r) * gradient(r + t (x - r))`. The expectation sums to the score minus the mean score of
the references; at 20 draws the sum is far off, so the method does not declare it.
"""

from __future__ import annotations

import numpy as np
import shap
import torch
from torch import Tensor

from xaibench.errors import XaibenchError
from xaibench.protocols import attributor
from xaibench.view import View, derive_seed


@attributor(
    name="gradient-explainer",
    paper="expected gradients: Erion et al., Nature Machine Intelligence 2021, arXiv 1906.10670; shap.GradientExplainer",
    needs=["gradients", "references"],
    random=True,
)
def gradient_explainer(view: View, *, nsamples: int = 20) -> Tensor:
    """Expected gradients of the spoof log-odds over all references of the view, `nsamples` draws an utterance.

    The draws are fixed by the view's seed and the utterance's id. Raises XaibenchError if `nsamples` is below one.
    """
    if nsamples < 1:
        raise XaibenchError(f"gradient-explainer needs at least one draw, got nsamples={nsamples}")
    model = view.private_model()  # shap resets the gradients of the model it is given
    with torch.no_grad():  # the constructor only looks at the width of the output
        explainer = shap.GradientExplainer(model, view.references.detach(), batch_size=view.batch_size)
    maps = []
    for one in view.each():
        seed = derive_seed(one.seed, one.ids[0], "gradient-explainer") % 2**32
        with one.seeded():  # shap seeds numpy's global generator: put it back afterwards
            values = explainer.shap_values(one.inputs.detach(), nsamples=nsamples, rseed=seed)
        maps.append(np.asarray(values).reshape(one.inputs.shape).sum(axis=1))
    return torch.from_numpy(np.concatenate(maps)).to(view.inputs)
