"""captum's attribution methods as xaibench attributors.

captum (Kokhlikyan et al. 2020, arXiv 2009.07896) computes; this package chooses the settings, bounds the memory, seeds the
draws, leaves the countermeasure as it was, and corrects what is known to be wrong on Max-Feature-Map networks. Each
method says in its docstring what was adapted.

gradients      the gradient of the spoof log-odds, averaged, integrated or passed through changed ReLUs
deeplift       DeepLIFT and DeepSHAP
lrp            layer-wise relevance propagation
perturbation   methods that replace rectangular patches by a fill and look at the score
"""
