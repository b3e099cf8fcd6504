"""Class activation maps for xaibench: twelve methods of pytorch-grad-cam 1.5 (github.com/jacobgil/pytorch-grad-cam).

`adapter` runs a library class on a view without touching the shared model, `corrected` holds the few places where the
library's formula does not hold for a single signed score or for signed activations, `methods` is the list of attributors.
"""
