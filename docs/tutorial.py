# ruff: noqa: B018, E402, T201
# The source of docs/tutorial.ipynb, cell by cell. `python docs/notebook.py` runs it and writes the notebook.

# %% [markdown]
# # Does an explanation find what a vocoder left behind?
#
# A *countermeasure* (CM) says whether speech is real (*bona fide*) or made by a machine (*spoofed*). An *attribution
# method* says which parts of the spectrogram made it say so. This notebook checks the second claim, step by step:
#
# 1. real speech and its vocoded twin, to look at and to listen to
# 2. a countermeasure, LCNN, and its equal error rate
# 3. where the vocoder changed the speech: the mask of Eq. 2
# 4. Grad-CAM and input × gradient, by hand and with `xaibench`
# 5. the top 5 % of a map against the mask, and what deleting them does to the score
# 6. a comparison over several utterances, and what it says
# 7. a recording of your own, and a method of your own
#
# It needs no GPU and downloads nothing: speech and weights come with the packages.

# %%
import os
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, display

import xaibench

plt.rcParams.update({"figure.dpi": 72, "font.size": 8, "figure.constrained_layout.use": True, "axes.titlesize": 9})
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm's, of bars that nobody shows here
UTTERANCES = int(os.environ.get("XAIBENCH_TUTORIAL_UTTERANCES", "8"))  # of step 9; a test runs the notebook with fewer

# %% [markdown]
# ## 1. The data set
#
# `minivoc` holds real speech and, for each recording, five *vocoded twins*: the same recording, taken apart and put
# together again by a vocoder. The words, the voice and the timing stay; only the traces of the vocoder are new. So
# the difference between the two **is** the spoofing, and we know where it lies.

# %%
data = xaibench.load_data("minivoc", split="eval")
data

# %% [markdown]
# One pair: a real recording and its twin by HiFi-GAN, a neural vocoder. Listen to both before you read on. Can you
# hear it?

# %%
pair = data["cs_small_cs_000/hifigan"]
for name, wave in {"real": pair.bonafide, "vocoded": pair.spoof}.items():
    print(name)
    display(Audio(wave, rate=pair.sample_rate, normalize=False))

# %% [markdown]
# ## 2. The countermeasure
#
# LCNN (Lavrentyeva et al., Interspeech 2019, [arXiv 1904.05576](https://arxiv.org/abs/1904.05576)) is a convolutional
# network over the log-power spectrogram. Its activation is *Max-Feature-Map*: of two channels the larger value
# survives.

# %%
lcnn = xaibench.countermeasure("lcnn")
lcnn

# %%
for name, layer in lcnn.module.backend.named_children():
    print(f"{name:8} {layer}")

# %% [markdown]
# Its score is the log-odds of bona fide: above 0 it leans to *real*, below 0 to *spoofed*.
#
# $$ s(x) = \log\frac{P(\text{bona fide} \mid x)}{P(\text{spoof} \mid x)} $$

# %%
for name, score in zip(["real", "vocoded"], lcnn.score([pair.bonafide, pair.spoof]), strict=True):
    print(f"{name:8} {score:6.2f}")

# %% [markdown]
# ## 3. How often does it err?
#
# Every threshold on the score misses some spoofs and rejects some real speech. The *equal error rate* (EER) is the
# rate at the threshold where both are equal. 0 % is perfect, 50 % is guessing. An explanation of a countermeasure
# that guesses explains nothing, so look at this number first.

# %%
recordings = data.utterances if UTTERANCES > 2 else data.utterances[::4]
scores = lcnn.score([data.waveform(u) for u in recordings])
real = np.array([u.bonafide for u in recordings])
eer = xaibench.equal_error_rate(scores[real], scores[~real])
print(f"EER {eer:.2%} of {len(scores)} recordings of the evaluation split")

# %% [markdown]
# The same in three lines of numpy:

# %%
miss = np.array([(scores[real] <= t).mean() for t in np.sort(scores)])
false_alarm = np.array([(scores[~real] > t).mean() for t in np.sort(scores)])
by_hand = (miss + false_alarm)[np.abs(miss - false_alarm).argmin()] / 2
print(f"EER by hand {by_hand:.2%}")
assert np.isclose(by_hand, eer)

# %% [markdown]
# By vocoder: `lyra` is a neural codec that this LCNN never saw in training.

# %%
vocoders = np.array([u.vocoder for u in recordings])
for vocoder in sorted({*vocoders} - {"bonafide"}):
    print(f"{vocoder:11} {xaibench.equal_error_rate(scores[real], scores[vocoders == vocoder]):.1%}")

# %% [markdown]
# ## 4. Two spectrograms and their difference
#
# The short-time Fourier transform (STFT) cuts the recording into frames of 32 ms, one every 10 ms. `Grid` is the
# geometry that every score of the benchmark is taken on.

# %%
grid = xaibench.Grid()  # 512 samples, one frame every 160, 16 kHz
wave = {name: torch.from_numpy(w)[None] for name, w in {"real": pair.bonafide, "fake": pair.spoof}.items()}
M_b, M_s = grid.stft(wave["real"])[0].abs(), grid.stft(wave["fake"])[0].abs()  # magnitudes (F, T), frequency first
print(grid, "->", tuple(M_s.shape))


def draw(axes, values, title, **how):
    """A picture of values (F, T) in seconds and kHz."""
    edges = grid.time(len(pair.spoof)).edges, grid.frequency.edges / 1000
    image = axes.pcolormesh(*edges, values, rasterized=True, **how)
    axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)")
    axes.label_outer()
    return image


decibels = [20 * np.log10(m.numpy() + 1e-5) for m in (M_b, M_s)]
figure, axes = plt.subplots(1, 3, figsize=(13, 2.8), sharey=True)
for axis, level, title in zip(axes, decibels, ["real", "vocoded (HiFi-GAN)"], strict=False):
    image = draw(axis, level, title, vmin=-60, vmax=decibels[0].max())
figure.colorbar(image, ax=axes[1], label="dB")
change = draw(axes[2], decibels[1] - decibels[0], "vocoded - real", cmap="PuOr", vmin=-20, vmax=20)
figure.colorbar(change, ax=axes[2], label="dB")
plt.show()

# %% [markdown]
# ## 5. The truth: Eq. 2
#
# Grinberg et al. (Interspeech 2025, [arXiv 2506.03425](https://arxiv.org/abs/2506.03425)) turn the difference into a
# mask. Both magnitudes are smoothed by a Gaussian $G$, so that a shift by one cell does not count; the difference is
# divided by the real magnitude; the top 5 % of the cells are the *truth*:
#
# $$ D = \frac{\left|G(M_s) - G(M_b)\right|}{G(M_b) + \varepsilon}, \qquad S = \mathbf{1}\left[D > Q_{0.95}(D)\right] $$
#
# $G$ has 3 cells in time and 11 in frequency, with variances 3 and 5. Only 90 to 7,000 Hz count.

# %%
from scipy.ndimage import gaussian_filter1d


def G(magnitude):
    """The Gaussian of Eq. 2 over frequency (axis 0) and time (axis 1)."""
    smooth = gaussian_filter1d(magnitude, np.sqrt(5), axis=0, radius=5)
    return gaussian_filter1d(smooth, np.sqrt(3), axis=1, radius=1)


D = np.abs(G(M_s.numpy()) - G(M_b.numpy())) / (G(M_b.numpy()) + 1e-8)
inside = np.broadcast_to(grid.band(90, 7000)[:, None], D.shape)
S = inside & (np.quantile(D[inside], 0.95) < D)

truth = xaibench.truth_of(pair)
print(f"mask by hand: {S.sum()} cells; xaibench: {truth.region.sum()}; they differ in {(truth.region != S).sum()}")
assert (truth.region != S).mean() < 1e-4  # two cells of equal rank, and rounding

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharey=True)
draw(axes[0], np.log10(D + 1e-3), "D (logarithm)")
draw(axes[1], decibels[1], "vocoded speech, and the truth in red", cmap="gray_r", vmin=-90, vmax=30)
draw(axes[1], np.ma.masked_where(~S, np.ones(S.shape)), "vocoded speech, and the truth in red", cmap="autumn")
plt.show()

# %% [markdown]
# Look where the mask lies. $D$ divides by the *real* energy, so it can be large where the real speech is quiet. Would a
# map that knows nothing of any countermeasure, and just points at quiet cells, score here? Only a comparison can say.
# That is why every method is compared with *controls* later.

# %% [markdown]
# ## 6. Two attribution methods, by hand
#
# A *view* is a countermeasure looking at one utterance: `view.inputs` is the spectrogram it sees, `view.model` gives
# the log-odds of **spoof**. So a positive value of a map means *evidence for spoof*.
#
# **Input × gradient** (Shrikumar et al. 2016, [arXiv 1605.01713](https://arxiv.org/abs/1605.01713)) multiplies each
# cell with how fast the score changes with it: $A_{ft} = x_{ft} \cdot \partial s / \partial x_{ft}$.

# %%
view = xaibench.view_of(lcnn, pair)
x = view.inputs.clone().requires_grad_()
s = view.model(x)
(gradient,) = torch.autograd.grad(s.sum(), x)
by_hand = (x * gradient).detach()[0, 0].numpy()

ixg = xaibench.attribute(lcnn, "input-x-gradient", pair)
assert np.allclose(by_hand, ixg.values, atol=1e-5)
print(f"spoof log-odds {s.item():.2f}, map", by_hand.shape)

# %% [markdown]
# **Grad-CAM** (Selvaraju et al. 2017, [arXiv 1610.02391](https://arxiv.org/abs/1610.02391)) works at a convolutional
# layer. Each channel $A^k$ is weighted with its mean gradient, and what speaks for the class remains:
#
# $$ L = \mathrm{ReLU}\Big(\sum_k w_k A^k\Big), \qquad w_k = \frac{1}{Z}\sum_{i}\frac{\partial s}{\partial A^k_{i}} $$

# %%
seen = {}
last = view.model.get_submodule(view.layers[-1])
hook = last.register_forward_hook(lambda module, args, output: seen.update(A=output))
s = view.model(view.inputs.clone().requires_grad_())
hook.remove()
(g,) = torch.autograd.grad(s.sum(), seen["A"])
L = torch.relu((g.mean(dim=(2, 3), keepdim=True) * seen["A"]).sum(1)).detach()  # (1, F', T')
print(f"{view.layers[-1]}: {seen['A'].shape[1]} channels of {L.shape[1]} x {L.shape[2]} cells")

# %% [markdown]
# The layer is coarse. To compare it with the truth it must come to the grid. Grad-CAM's authors stretch it
# (bilinear). The map of `xaibench` is theirs, scaled to a maximum of 1.

# %%
stretched = torch.nn.functional.interpolate(L[None], size=view.shape, mode="bilinear")[0, 0]
cam = xaibench.attribute(lcnn, "grad-cam", pair)
low, high = L.min().item(), L.max().item()
assert np.allclose((stretched.numpy() - low) / (high - low), cam.values, atol=0.02)

figure, axes = plt.subplots(1, 3, figsize=(13, 2.8))
axes[0].imshow(L[0], origin="lower", aspect="auto", cmap="Reds")
axes[0].set(title="Grad-CAM at its layer", xlabel="column", ylabel="row")
cam.plot(axes[1], title="Grad-CAM on the grid")
ixg.plot(axes[2], title="input × gradient")
plt.show()

# %% [markdown]
# Maps on other axes (frames of a transformer, bins of a constant-Q transform) are projected by overlap, so that their
# mass stays: $A_\text{grid} = W_f^\top A\, W_t$, where each row of a $W$ sums to 1.

# %%
from xaibench.project import project
from xaibench.types import Attribution, Axis

rows, columns = (Axis("frequency", np.linspace(0, 8000, L.shape[1] + 1)), Axis("time", np.linspace(0, 2, L.shape[2] + 1)))
spread = project(Attribution(L, rows, columns), grid.frequency, grid.time(len(pair.spoof)))
print(f"sum before {L.sum():.4f}, after {spread.values.sum():.4f}; shape {tuple(spread.values.shape)}")

# %% [markdown]
# ## 7. The top 5 % against the mask
#
# The mask is 5 % of the cells, so take the top 5 % of a map, too, and ask how many lie in the mask. This is the *rank
# accuracy* (Arras et al. 2022, [arXiv 2003.07258](https://arxiv.org/abs/2003.07258)). By chance it is 0.05.

# %%
top = ixg.top(0.05)
print(f"by hand {(top & truth.region).sum() / truth.region.sum():.4f}, xaibench {ixg.score('rank-accuracy'):.4f}")

figure, axes = plt.subplots(1, 3, figsize=(13, 2.8), sharey=True)
for axis, found in zip(axes, [cam, ixg, xaibench.attribute(lcnn, "random", pair)], strict=True):
    found.plot(axis, share=0.05, title=f"top 5 % of {found.name}: rank accuracy {found.score('rank-accuracy'):.3f}")
plt.show()

# %% [markdown]
# Red cells lie in the mask, blue ones do not. What is a good number? *Controls* say it: `random` knows nothing (the
# floor), `oracle` is the mask itself (the ceiling), `inverse-energy` points at quiet cells.

# %%
names = ["grad-cam", "input-x-gradient", "random", "inverse-energy", "oracle"]
found = {name: xaibench.attribute(lcnn, name, pair) for name in names}
pd.DataFrame({"rank accuracy": {name: m.score("rank-accuracy") for name, m in found.items()}}).round(3)

# %% [markdown]
# ## 8. Does the countermeasure *use* these cells?
#
# A map can miss the mask and still be right: perhaps LCNN listens to something else. So ask LCNN. *Deletion* replaces
# the top cells of a map and watches the score (Petsiuk et al. 2018, [arXiv
# 1806.07421](https://arxiv.org/abs/1806.07421)). What stands in the place of a cell matters. Silence would make the
# speech strange. We have something better: the same cell of the **real** twin. It takes away the vocoder's trace and
# leaves speech.
#
# `drop-twin` is the fall of the spoof log-odds when the top 5 % are replaced so, as a share of the whole gap between
# the twins:
#
# $$ \text{drop} = \frac{s(x) - s(x_{\text{top 5 \% replaced}})}{s(x_\text{fake}) - s(x_\text{real})} $$

# %%
figure, axis = plt.subplots(figsize=(6, 3.2))
for name, style in zip(names, ["-", "-", ":", "--", "-."], strict=True):
    fractions, log_odds = found[name].curve("deletion", fill="twin")
    axis.plot(100 * fractions, log_odds, style, label=name)
axis.axhline(0, color="grey", linewidth=0.5)
axis.set(xlabel="cells replaced by the real twin's, %", ylabel="spoof log-odds", title="deletion: lower is better")
axis.legend(frameon=False)
plt.show()
pd.DataFrame({metric: {n: m.score(metric) for n, m in found.items()} for metric in ("rank-accuracy", "drop-twin")}).round(3)

# %% [markdown]
# Two questions, two answers. *Alignment* (rank accuracy): does the map find the vocoder's traces? *Faithfulness*
# (drop): does it find what the countermeasure uses? Even the oracle has a small drop if LCNN listens elsewhere.

# %% [markdown]
# ## 9. One utterance is an anecdote
#
# `xaibench.run` does all this for many utterances and methods, with every control, and keeps the results in a folder.
# The same call again computes only what is missing.

# %%
run = xaibench.run(
    "lcnn", "grad-cam,input-x-gradient,saliency,lrp", limit=UTTERANCES, keep_maps=True, out="results/tutorial"
)
run

# %% [markdown]
# How to read it. *Skill* says where a method stands between the best control (0 %) and the ceiling (100 %). The numbers
# in brackets are its 95 % interval over utterances: where it holds 0, the method is not told apart from a map that knows
# nothing; where there is none, there are too few utterances to say. The first sentence below the table says whether LCNN
# uses the mask at all. On fifteen utterances and with all methods: [the README](../README.md).
#
# The rows are a table like any other:

# %%
run.rows.pivot_table(index="attributor", columns="metric", values="value")[["rank-accuracy", "drop-twin"]].round(3)

# %% [markdown]
# And the maps were kept:

# %%
run.map("lrp", data[0].id)

# %% [markdown]
# ## 10. A recording of your own
#
# Of a recording from elsewhere nobody has the real twin, and nobody knows the truth. `xaibench.explain` reads any file, and
# says what can be said: the decision, and where the cells lie that speak for spoof. Here it gets the vocoded file alone.

# %%
xaibench.explain(pair.pair.spoof.path, cm="lcnn", xai="grad-cam")

# %% [markdown]
# `.save("FOLDER")` writes it as a page, with the sound of these cells. What LCNN says of another microphone or language is
# worth little, see the last line.

# %% [markdown]
# ## 11. Your own method
#
# A method is a function of a view that returns a map `(B, F, T)`, positive = evidence for spoof. Here is one, in ten
# lines: the gradient at slightly noisy inputs, averaged (SmoothGrad, Smilkov et al. 2017,
# [arXiv 1706.03825](https://arxiv.org/abs/1706.03825)), times the input.


# %%
@xaibench.attributor(name="my-method", paper="You et al. 2026", needs=["gradients"], random=True)
def my_method(view, *, draws=8, noise=0.2):
    """Input x the mean gradient around it."""
    total, scale, generator = 0, view.inputs.std(), view.generator()  # seeded by the utterance's name
    for _ in range(draws):
        shaken = view.inputs + noise * scale * torch.randn(view.inputs.shape, generator=generator)
        shaken.requires_grad_()
        total = total + torch.autograd.grad(view.model(shaken).sum(), shaken)[0]
    return (view.inputs * total / draws).sum(1)


mine = xaibench.attribute(lcnn, my_method, pair)
print(f"rank accuracy {mine.score('rank-accuracy'):.3f}, drop {mine.score('drop-twin'):.3f}")

# %% [markdown]
# ### Exercises
#
# 1. Is `my_method` better than input × gradient on this pair? And on average over `data[i]` for ten `i`?
# 2. Use another vocoder: `data["cs_small_cs_000/lyra"]`. LCNN never saw this one in training. What is its score?
# 3. Take another truth: `xaibench.truth_of(pair, "log-difference")`. Where does the mask lie now, and why?
# 4. Fill with silence: `found["random"].curve("deletion", fill="silence")`. Why do even random cells move the score?
# 5. Take another layer: `xaibench.attribute(lcnn, "grad-cam", pair, options={"layer": view.layers[3]})`.
#
# ### Where next
#
# - Hear what a map points at, and when it speaks: [listen.md](listen.md), [activations.md](activations.md).
# - Make your method part of every board: an entry point, see [the README](../README.md#your-own-method).
# - All methods and metrics, with papers and pitfalls: [catalog.md](catalog.md).
# - What the scores mean, and how sure they are: [scores.md](scores.md).
# - A site of your run that opens in a browser: `run.site("site")`.
