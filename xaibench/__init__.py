"""xaibench: score explanations of speech anti-spoofing countermeasures against vocoder-difference truth."""

__version__ = "0.1.0"
