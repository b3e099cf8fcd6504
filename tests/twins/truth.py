"""The truth of arXiv 2506.03425 once more: literal, slow, with numpy and scipy only, one pair at a time."""

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import get_window


def magnitude(x: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """|STFT| by its definition: a loop over frames centred on multiples of `hop`. `(N,)` -> `(F, T)`."""
    window = get_window("hann", n_fft, fftbins=True)
    padded = np.pad(x, n_fft // 2, mode="reflect")
    columns = []
    for start in range(0, len(x) + 1, hop):
        columns.append(np.abs(np.fft.rfft(padded[start : start + n_fft] * window)))
    return np.stack(columns, axis=1)


def gaussian(m: np.ndarray) -> np.ndarray:
    """Size 3, variance 3 along time; size 11, variance 5 along frequency. `truncate` makes the radii 1 and 5."""
    m = gaussian_filter1d(m, sigma=np.sqrt(3), axis=1, mode="reflect", truncate=1 / np.sqrt(3))
    return gaussian_filter1d(m, sigma=np.sqrt(5), axis=0, mode="reflect", truncate=5 / np.sqrt(5))


def eq1(spoof: np.ndarray, bonafide: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """|M_s - M_b| / (M_b + eps)."""
    ms, mb = magnitude(spoof, n_fft, hop), magnitude(bonafide, n_fft, hop)
    return np.abs(ms - mb) / (mb + 1e-8)


def eq2(spoof: np.ndarray, bonafide: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """|G(M_s) - G(M_b)| / (G(M_b) + eps)."""
    ms, mb = gaussian(magnitude(spoof, n_fft, hop)), gaussian(magnitude(bonafide, n_fft, hop))
    return np.abs(ms - mb) / (mb + 1e-8)


def log_difference(spoof: np.ndarray, bonafide: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """|ln(M_s + eps) - ln(M_b + eps)|."""
    ms, mb = magnitude(spoof, n_fft, hop), magnitude(bonafide, n_fft, hop)
    return np.abs(np.log(ms + 1e-8) - np.log(mb + 1e-8))


def top(values: np.ndarray, valid: np.ndarray, share: float) -> np.ndarray:
    """Mark the largest valid cells one by one, the first in row order among equals."""
    cells = [(-values[f, t], f, t) for f in range(values.shape[0]) for t in range(values.shape[1]) if valid[f, t]]
    region = np.zeros(values.shape, dtype=bool)
    for _, f, t in sorted(cells)[: round(share * len(cells))]:
        region[f, t] = True
    return region
