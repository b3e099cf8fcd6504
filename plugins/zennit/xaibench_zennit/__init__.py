"""Attributors from zennit (Anders et al., 2021, arXiv 2106.13200): layer-wise relevance propagation and its kin."""
