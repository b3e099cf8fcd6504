"""Attributors from shap (Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874), one file each."""
