# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 02 · Linear attention: three ways never to compute the matrix
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/02_linear_attention.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/notebooks/02_linear_attention.ipynb)
#
# **The question.** Softmax attention compares every token with every other: N² comparisons. Can a Vision Transformer do without, and what does it lose?
#
# **The answer.** In the paper of this series, [*Vision Xformers: Efficient Attention for Image Classification*](https://arxiv.org/abs/2107.02239), it *gains*: on CIFAR-10 with every pixel a token, the Nyström model reached 66.47 % in 7.1 GB where softmax reached 55.67 % in 15.0 GB (Table 1). Two of the three linear models beat softmax; the third, Linformer, fell to 45.43 %, and rose to 57.01 % when it was trained with a larger batch (Table 2): one setting moved it as far as the best mixer is ahead. Since then fused kernels have taken most of the memory argument away and left the one about time. Where that one begins to hold on *your* machine, in tokens, you will measure in section 6.
#
# Before this: [01 · The Vision Transformer](01_vit.ipynb), which builds softmax attention and measures its cost.

# %% [markdown]
# ## 1 · Set-up

# %%
# Finds vixlib: in the checkout around this notebook, installed, attached at Kaggle, else cloned. Leaves torch alone.
import re, subprocess, sys, zipfile
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = "https://github.com/OWNER/REPOSITORY"
around = (Path.cwd(), *Path.cwd().parents, Path("vision-xformers"))
homes = [folder for folder in around if (folder / "vixlib/__init__.py").is_file()]
if not homes and find_spec("vixlib") is None:
    wheels = sorted(Path("/kaggle/input").rglob("vixlib*.whl"), key=lambda w: [int(n) for n in re.findall(r"\d+", w.name)])
    for wheel in wheels[-1:]:  # the newest
        zipfile.ZipFile(wheel).extractall(f"vixlib-wheel/{wheel.stem}")
    unpacked = [*Path("vixlib-wheel").glob(f"{wheels[-1].stem}/vixlib/__init__.py")] if wheels else []
    attached = [*unpacked, *Path("/kaggle/input").rglob("vixlib/__init__.py")]
    homes = [file.parents[1] for file in attached] or [Path("vision-xformers")]
    if not attached and subprocess.run(f"git clone --depth 1 {REPOSITORY} vision-xformers", shell=True).returncode:
        raise RuntimeError(f"{REPOSITORY} could not be cloned, see above. Without internet? Kaggle: Settings > Internet "
                           "on, or Add Input > a data set with the project's folder or the wheel (vixlib-*.whl) of `make wheel`.")
sys.path[:0] = [str(home.resolve()) for home in homes[:1]]  # first, so that no older vixlib is imported instead

import torch
import vixlib as vix

device = vix.pick_device()

# %% [markdown]
# ## 2 · Choices
#
# Leave everything as it is for a first reading. A *profile* sets data, model size and training at once: `smoke` runs anywhere on pictures that the project draws itself, `quick` takes real photographs, `paper` is the paper's protocol. A **0** or an empty text means "what the profile says".

# %%
profile = "auto"  #@param ["auto", "smoke", "quick", "paper"]
dataset = ""  #@param {type:"string"}
#   a name such as "cifar10", or a folder of pictures
patch_size = 0  #@param [0, 8, 4, 2, 1] {type:"raw"}
#   pixels a side; 1 makes every pixel a token
dim = 0  #@param {type:"slider", min:0, max:256, step:16}
depth = 0  #@param {type:"slider", min:0, max:8, step:1}
heads = 0  #@param {type:"slider", min:0, max:8, step:1}
num_features = 0  #@param {type:"slider", min:0, max:512, step:8}
#   Performer: random features a head
rank = 0  #@param {type:"slider", min:0, max:256, step:4}
#   Linformer: mixtures that the tokens are reduced to, no more than there are tokens (65 at smoke)
num_landmarks = 0  #@param {type:"slider", min:0, max:256, step:4}
#   Nyström: segment means that stand for all tokens, no more than there are tokens
epochs = 0  #@param {type:"slider", min:0, max:40, step:1}
batch_size = 0  #@param {type:"slider", min:0, max:256, step:8}
seed = 0  #@param {type:"integer"}
checkpoints = ""  #@param {type:"string"}
#   a folder, written to after each epoch and continued from; on Colab put it on your Drive

# %%
from dataclasses import replace

profile = vix.current_profile(profile, device)
given = {name: value for name, value in dict(epochs=epochs, batch_size=batch_size).items() if value}
profile = replace(profile, data=dataset or profile.data, train=replace(profile.train, seed=seed, **given))
vix.announce(profile, device, "02_linear_attention")

data = vix.load(profile.data)
print(f"data      {data}")

# %% [markdown]
# ## 3 · The idea
#
# Softmax attention is `softmax(QKᵀ/√d) V`. Without the softmax it would be a product of three thin matrices, and such a product may be bracketed either way:
#
# $$(Q K^\top)\,V \;=\; Q\,(K^\top V).$$
#
# The left side builds an N × N matrix, the right side only a d × d one: same result, but the cost grows with N, not N². The softmax is taken of QKᵀ as a whole; it stands between Kᵀ and V and forbids the move. Each of the three mechanisms of this notebook is a way around it: **replace the N × N matrix by a product of thin ones, and multiply from the right.**
#
# - **Performer** replaces the softmax's *exponential* by random features φ, so that it becomes a product again.
# - **Linformer** keeps the softmax and shortens the *sequence*: m learned mixtures of the keys and values instead of N.
# - **Nyström** keeps the softmax and the length and *samples* the matrix: m rows and m columns of it, from which the rest is rebuilt.
#
# The models that carry them are **ViT** (softmax), **ViP** (Performer), **ViL** (Linformer) and **ViN** (Nyström), one and the same transformer with another mixer.
#
# To scale, with m = N/5. Only the large grey square grows with N in both directions:

# %%
from vixlib import figures
from vixlib.figures import diagrams

diagrams.factor_shapes();

# %% [markdown]
# What follows writes each of them as a function of `q, k, v`, all of shape `[B, H, N, d]` (pictures, heads, tokens, features), straight from its equation and with no care for speed. `vixlib` computes the same in leaner ways; under each function a cell compares the two with the *same weights*, in float64: first what comes out, then the gradient of x. An error in either would show, and one of the gradient alone is the worse one: such a model gives all the right numbers and learns badly (exercise 1).

# %%
def softmax_attention(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ v

# %%
# NBVAL_CHECK_OUTPUT
from vixlib import mixers

torch.manual_seed(0)
sample = torch.randn(3, 65, 48, dtype=torch.float64)  # three pictures, 65 tokens of 48 numbers
shape = dict(heads=3, dim_head=16, seq_len=65)


def same(name, module, textbook):
    """Does `textbook`, given the module's own maps, compute what the module does, forward and backward?"""
    tokens = sample.clone().requires_grad_()
    outs = textbook(tokens), module(tokens)
    slopes = (torch.autograd.grad(out.square().sum(), tokens)[0] for out in outs)
    for what, (one, other) in {"outputs": outs, "gradients": slopes}.items():
        error = ((one - other).abs().max() / other.abs().max()).item()
        assert error < 1e-10, (name, what, error)
        print(f"{name}, {what}: largest relative difference from vixlib below 1e-10: {error < 1e-10}")


module = mixers.SoftmaxAttention(48, **shape).double()
same("softmax", module, lambda x: module.join(softmax_attention(*module.split(x, None))))

# %% [markdown]
# ### Performer: the exponential as an average of products
#
# A softmax weight is, up to its normaliser, `exp(q·k)` (put the 1/√d into q and k). For a Gaussian random direction w, [Choromanski et al., *Rethinking attention with Performers*](https://arxiv.org/abs/2009.14794), Lemma 1, show that
#
# $$e^{q\cdot k} \;=\; \mathbb{E}_{w}\!\left[\, e^{\,w\cdot q - |q|^2/2}\; e^{\,w\cdot k - |k|^2/2}\,\right].$$
#
# Inside the expectation stands a product of something of q alone with something of k alone. So draw m directions once, let φ(x), the *feature map*, be the vector of the m values `exp(w·x − |x|²/2)`, and `φ(q)·φ(k)/m`, a mean over the draws, estimates the softmax's numerator, without bias and always positive. The normaliser is the same sum without V, so that the 1/m cancels. Now the brackets may move (their eq. 4). (vixlib draws the directions orthogonal to each other in blocks of d, which keeps the mean and makes the estimate less noisy.)
#
# Three practical details appear in the code. Exponentials overflow, so the largest w·x is subtracted first, a factor that the normaliser would cancel: for queries row by row, since each row is normalised anyway; for keys once a picture and head, since keys must keep their weights relative to each other. And a small ε keeps the denominator from vanishing, at the price of pulling all weights a little towards 1/N. Because ε is added *after* the subtraction, the factor does not quite cancel, so the largest w·x must have its gradient like everything else; exercise 1 leaves it out.

# %%
def performer(q, k, v, directions, epsilon=1e-4):
    def phi(x, over):
        exponent = x @ directions.T                                          # w·x, [B, H, N, m]
        largest = exponent.amax(over, keepdim=True)
        return (exponent - x.square().sum(-1, keepdim=True) / 2 - largest).exp() + epsilon

    q, k = q / q.shape[-1] ** 0.25, k / k.shape[-1] ** 0.25
    phi_q, phi_k = phi(q, over=-1), phi(k, over=(-2, -1))
    numerator = phi_q @ (phi_k.mT @ v)                                       # from the right: m × d, then N × d
    normaliser = phi_q @ phi_k.sum(dim=-2)[..., None]
    return numerator / normaliser

# %%
# NBVAL_CHECK_OUTPUT
module = mixers.PerformerAttention(48, **shape).double()
assert module.directions.shape == (44, 16)  # int(d ln d) at d = 16
print(f"{module.num_features} random directions of {module.directions.shape[1]} numbers")
same("performer", module, lambda x: module.join(performer(*module.split(x, None), module.directions)))

# %% [markdown]
# ### Linformer: fewer keys
#
# If the attention matrix has low rank, N keys are more than it needs. [Wang et al., *Linformer: Self-attention with linear complexity*](https://arxiv.org/abs/2006.04768), eq. 7, mix them with a learned matrix P of shape N × m, keys and values alike, and then do ordinary softmax attention to the m mixtures:
#
# $$\mathrm{softmax}\!\left(\frac{Q\,(P^\top K)^\top}{\sqrt d}\right) P^\top V .$$
#
# That is one line. Note what it is *not*: the mixing happens **inside** the softmax, so nothing makes the result close to the attention one started from. Linformer is a different layer that is trained from the beginning, rather than an approximation of a given one. Note also that P has one row for each token: a Linformer is built for one size of picture.

# %%
def linformer(q, k, v, projection):
    return softmax_attention(q, projection.mT @ k, projection.mT @ v)

# %%
# NBVAL_CHECK_OUTPUT
module = mixers.LinformerAttention(48, **shape, rank=16).double()
assert module.project_k.shape == (65, 16)  # P: a row for each token


def whole(x):
    q, k = module.as_heads(module.to_q(x)), module.as_heads(module.to_k(x))
    k = k.expand(-1, 3, -1, -1)  # one key head serves all three query heads, and in this option it is the value, too
    return module.to_out(linformer(q, k, k, module.project_k).transpose(1, 2).flatten(2))


same("linformer", module, whole)

# %% [markdown]
# vixlib never forms the N keys. Projecting the tokens first and mapping them to keys afterwards is the same, `(PᵀX)W = Pᵀ(XW)`, and leaves only m keys to compute and to keep.
#
# ### Nyström: rebuild the matrix from samples
#
# Cut the sequence into m runs of neighbours and average each: m *landmark* queries $\tilde Q$ and keys $\tilde K$. [Xiong et al., *Nyströmformer*](https://arxiv.org/abs/2102.03902), eq. 13, take three softmax matrices, the first tall, the second small, the third wide,
#
# $$F = \mathrm{softmax}(Q\tilde K^\top),\qquad A = \mathrm{softmax}(\tilde Q\tilde K^\top),\qquad B = \mathrm{softmax}(\tilde Q K^\top),$$
#
# (each with its 1/√d), and rebuild attention as `F A⁺ B V` (letters as in their paper; the code below has `F` for `torch.nn.functional`). A⁺ is the pseudo-inverse of an m × m matrix: if landmarks were tokens and there were no normalisers, F and B would be columns and rows of the true matrix and A their intersection, which `F · B` counts twice and A⁺ takes out once. That is the Nyström method, older than any neural network. (The normalisers are there: a row of F sums over m landmarks, a row of the true matrix over N tokens. The authors accept the difference.)
#
# An exact pseudo-inverse needs a singular value decomposition, slow on a GPU, so they iterate (their eq. 15), Z₀, Z₁, … towards A⁺, and stop after **six**. Keep the six in mind, section 9 comes back to them.

# %%
def landmarks(x, m):
    return torch.stack([run.mean(dim=-2) for run in x.tensor_split(m, dim=-2)], dim=-2)


def pseudo_inverse(a, iterations=6):
    scale = a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1)
    z = a.mT / scale[..., None, None].detach()  # constant in vixlib's backward, too: see below
    one = torch.eye(a.shape[-1]).to(a)
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z


def nystrom(q, k, v, m, inverse=pseudo_inverse):
    def attention(q, k):
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)

    q_land, k_land = landmarks(q, m), landmarks(k, m)
    return attention(q, k_land) @ (inverse(attention(q_land, k_land)) @ (attention(q_land, k) @ v))

# %%
# NBVAL_CHECK_OUTPUT
import torch.nn.functional as F

module = mixers.NystromAttention(48, **shape, num_landmarks=16).double()


def whole(x):
    q, k, v = module.split(x, None)
    neighbours = F.conv2d(v, module.conv.weight, padding=(16, 0), groups=3)  # 33 tokens, one filter a head
    return module.join(nystrom(q, k, v, 16) + neighbours)


same("nystrom", module, whole)
q, k, v = module.split(sample, None)
all_landmarks = nystrom(q, k, v, 65, inverse=torch.linalg.pinv)
assert torch.allclose(all_landmarks, softmax_attention(q, k, v), atol=1e-9)
print("with as many landmarks as tokens and the exact inverse it is softmax attention: True")

# %% [markdown]
# The model has one more part, which the check had to add: a **depthwise convolution** of the values over 33 neighbours in the sequence. It has little to do with attention, and it hands this model what the others lack, a built-in idea of neighbourhood. But the sequence is a line: 16 tokens to either side are neighbours along the row, and with 32 pixels a row the one *above* is out of its reach (at `smoke`, with 8 tokens a row, it spans two rows up and down). Remember it when you compare accuracies.
#
# `.detach()` in the function leaves a part of the gradient out (next to nothing while q and k are short, some per cent of it once attention is sharp) because after six iterations the result still depends a little on where they started. vixlib does so as well, in all its runs; the published code does not. (A larger shortcut of the same kind is the subject of exercise 1.)
#
# And a detail with consequences: 1025 tokens are no multiple of 64 landmarks. The published implementation puts zeros in front until they are, so the first landmarks average over nothing. vixlib lets runs differ by one token instead, as `tensor_split` does here. Exercise 2 looks at the difference.

# %% [markdown]
# ## 4 · What each keeps in memory
#
# Training must keep, between the forward and the backward pass, whatever the backward pass needs. `kept` is that, in bytes, for one mixer and one picture; it is a count, the same on every machine. Width 128 and m = 64 landmarks or mixtures, as in the paper; four heads of 32 for all (Table 1's ViT and ViN have 64), which gives Performer 110 features. Softmax appears twice: *materialised*, as was usual in 2021, and *fused*, today's kernel, which recomputes the matrix piece by piece in the backward pass.

# %%
from vixlib.measure import crossing, mixer_bytes, mixer_seconds

COMPARED = {"softmax materialised": ("softmax", {"fused": False}), "softmax": ("softmax", {}),
            "performer": ("performer", {}), "linformer": ("linformer", {"rank": 64}),
            "nystrom": ("nystrom", {"num_landmarks": 64})}
builders = {name: lambda n, kind=kind, own=own: mixers.MIXERS[kind](128, heads=4, dim_head=32, seq_len=n, **own)
            for name, (kind, own) in COMPARED.items()}
sizes = [64, 128, 256, 512, 1024, 2048, 4096]
kept = mixer_bytes(builders, sizes, dim=128)

# %%
figure, ax = figures.new_axes(width=6.2, height=3.8)
figures.cost_curves(ax, sizes, {name: [b / 2**20 for b in kept[name]] for name in kept}, "kept for backward (MiB per image)")
at = sizes.index(1024)
for name in sorted(kept, key=lambda name: kept[name][at]):
    print(f"{name:22} {kept[name][at] / 2**20:6.2f} MiB at 1024 tokens, {kept[name][-1] / 2**20:7.2f} at 4096")

# %% [markdown]
# The exponent in the legend is the slope over the last two points. There is one quadratic line; all others are linear, **fused softmax among them**. That is the news since 2021: the memory that the paper set out to save is saved today by a kernel that changes nothing about the result. Performer, with its m features for each of N tokens, keeps the most of the linear ones.
#
# ## 5 · Table 2: how large a batch fits
#
# The paper's second table asks what the saving is good for: the largest batch in 16 GB. `vix.max_batch_size` predicts it from a training step on tensors with shapes but no content, in a few seconds and without a GPU. It adds a margin of 15 % and leaves 1 GiB to the driver. The layers are those behind the paper's rows (`config="paper"`).

# %%
paper_rows = {row["model"]: row for row in vix.paper_table(2)["rows"]}
MATERIALISED = {"ViT": {"fused": False}}
fits = {}
for name in paper_rows:
    as_then = vix.build(name, config="paper", **MATERIALISED.get(name, {}))
    fits[name] = (vix.max_batch_size(as_then, 16, "float32"),
                  vix.max_batch_size(vix.build(name, config="paper"), 16, "float16"))

# %%
from vixlib.report import NOT_MEASURED, Table, largest_batches

measured = [largest_batches(way) for way in ("float32, matrix stored", "mixed, fused")]
Table("Largest batch in 16 GB, 1025 tokens",
      ["model", "paper", "float32, softmax\nmaterialised, predicted", "measured", "mixed precision,\nfused, predicted", "measured"],
      [[name, str(row["batch_size"]), *(text for guess, found in zip(fits[name], measured, strict=True)
                                        for text in (str(guess), found.get(name, NOT_MEASURED)))]
       for name, row in paper_rows.items()],
      ("paper: Table 2; predicted, measured: for this project's code",
       f"{NOT_MEASURED}: python -m vixlib.reproduce --table 2 --profile paper --batches --memory-gb 16 on a GPU fills it"))

# %%
then = [fits[name][0] / fits["ViT"][0] for name in ("ViP", "ViL", "ViN")]
now = [fits[name][1] / fits["ViT"][1] for name in ("ViP", "ViL", "ViN")]
print("Batches as a multiple of ViT's:        ViP   ViL   ViN")
print("  paper                             ", *(f"{paper_rows[n]['batch_size'] / 64:5.1f}" for n in ("ViP", "ViL", "ViN")))
print("  predicted, float32, softmax stored", *(f"{r:5.1f}" for r in then))
print("  predicted, mixed, softmax fused   ", *(f"{r:5.1f}" for r in now))
larger = [name for name, ratio in zip(("ViP", "ViL", "ViN"), now, strict=True) if ratio > 1.05]
print("A clearly larger batch than fused softmax allows today:", ", ".join(larger) or "none of the three")

# %% [markdown]
# The predicted numbers need not equal the paper's, for reasons that lie on both sides. vixlib's mixers are leaner than the published ones (Nyström's tall softmaxes are fused calls and its pseudo-inverse is recomputed; Linformer never forms its long keys), so ViN and ViL fit more pictures. A Performer's memory is mostly its features, d·ln d of them a head. And how the paper read its gigabytes is not said. But both columns of 2021 have one order: all three fit more than ViT, ViL by far the most, then ViP, then ViN. What has changed most since is the ratio to ViT.
#
# ## 6 · When is it worth it today?
#
# Fused softmax keeps little, but it still computes N² products. So there is a number of tokens from which a linear mixer is *faster*; where it lies depends on the machine and its kernels. Forward and backward together, the mixers taking turns:

# %%
batch = 8 if device.type == "cuda" else 2
lengths, seconds = mixer_seconds(builders, 128, device=device, batch_size=batch, budget=12)

figure, ax = figures.new_axes(width=6.2, height=3.8)
figures.cost_curves(ax, lengths, {name: [1e3 * s / batch for s in seconds[name]] for name in seconds},
                    "forward + backward (ms per image)")

# %%
print(f"On {vix.describe(device)}, width 128, four heads of 32, batch {batch}, "
      "64 landmarks or mixtures, 110 features:")
for name in ("performer", "linformer", "nystrom"):
    n = crossing(lengths, seconds["softmax"], seconds[name])
    at_end = seconds["softmax"][-1] / seconds[name][-1]
    where = (f"not faster than fused softmax up to N = {lengths[-1]:,}" if n is None else
             f"faster at every size from N = {lengths[0]}" if n == lengths[0] else f"faster from about N = {n:,.0f}")
    print(f"  {name:9} {where}; at N = {lengths[-1]:,} it takes {1 / at_end:.2f} of softmax's time")
print("For scale: 8×8 patches of a 224-pixel picture make N = 784, 16×16 patches 196, CIFAR-10's pixels 1,024.")

# %% [markdown]
# A few seconds on a machine that does other things as well are a rough answer. The records of this project took longer over it, tell training from inference, and count the most memory that is allocated at once, not only what is kept for backward (`python -m benchmarks.scaling` adds your machine to them):

# %%
from IPython.display import display
from vixlib.report.benchmarks import crossings, read, relative

for found in read(benchmark="scaling"):
    display(*relative(found), *crossings(found))

# %%
for table in (table for found in read(benchmark="scaling") for table in relative(found)):
    print(f"Training with 1,025 tokens, {table.notes[-1].split(',')[0]}:")
    for what, column in (("faster", 1), ("less memory", 3)):
        cheaper = [row[0] for row in table.rows if row[0] in ("performer", "linformer", "nystrom") and float(row[column]) < 0.95]
        print(f"  {what} than fused softmax, by more than 5 %: {', '.join(cheaper) or 'none of the three'}")

# %% [markdown]
# Read the crossing point as a property of *your machine and this code*, not of the mechanisms. On a GPU expect another N, because its fused kernel is tuned harder than the rest, and with a wider model, whose linear maps cost the same for every mixer and hide the difference; a busy machine shifts it from run to run. On a GPU in half precision there is one more reason: Performer's features and sums, and Nyström's inverse, are computed in float32 whatever the precision, because halves would be too coarse for them, so that they miss the fast units for halves that fused softmax uses. (Table 1's ViT and ViN have heads of 64: change `builders` and measure.) What is certain is the shape: a slope of two meets a slope of one somewhere, and beyond that point softmax loses more with each doubling. Below the crossing no time is won. **What is left there is accuracy**, and that takes training; and memory, for a mixer whose memory crosses before its time does (look for one in the second table). (The tables have two more rows for scale: *linear* is a softmax of q over features and of k over tokens, the mixer of notebook 06; *fourier*, the FNet of the next table, has no attention at all but a Fourier transform. MLPMixer, below as well, learns two N × N matrices.)
#
# ## 7 · Training all four
#
# Everything is the same, only the mixer differs: one seed, one order of the data, one number of epochs. The curves are redrawn after every epoch. Interrupting (the stop button) stops *one* model and goes on with the next; what was learned is kept. The short `smoke` runs catch all four in the middle of learning, so their order says who starts fast rather than who ends high: set `epochs = 8` in the form, if you have the time, and see how much of it was impatience.

# %%
grid = [side // (patch_size or profile.options.get("patch_size", 1)) for side in data.image_size]
tokens = grid[0] * grid[1] + 1
# Defaults are cut to the number of tokens; what you choose yourself is taken as it is.
own = {name: min(profile.options.get(name, 64), tokens) for name in ("num_landmarks", "rank")}
chosen = {name: value for name, value in dict(
    patch_size=patch_size, dim=dim, depth=depth, heads=heads, num_features=num_features, rank=rank,
    num_landmarks=num_landmarks).items() if value}
own |= chosen | dict(image_size=data.image_size, channels=data.channels, num_classes=data.num_classes)

models = {name: vix.build(name, config=profile.config, seed=seed, **profile.options_for(name, **own))
          for name in ("ViT", "ViP", "ViL", "ViN")}
for name, model in models.items():
    print(f"{name}  {vix.count_parameters(model).true:9,} parameters, {model.seq_len:,} tokens")

# %%
runs, draw = {}, figures.live_curves(f"{data.name}, {tokens:,} tokens")
for name, model in models.items():
    path = Path(checkpoints) / f"02_{profile.name}_{name}.pt" if checkpoints else None
    runs[name] = vix.fit(model, data, profile.train, checkpoint=path, device=device, on_epoch=draw)
for run in runs.values():
    print(run)

# %% [markdown]
# ## 8 · The tables
#
# Table 1 from four sources: the paper, its authors' public training logs, this project's recorded runs, and what you have just trained.

# %%
vix.compare(1, runs=runs.values())

# %% [markdown]
# One row of the recorded columns should give pause: MLPMixer, which has no attention at all but two learned matrices over the 64 patches, the same for every picture, is ahead of all four with less than half of their parameters, after one epoch and after ten (one seed). In short trainings on short sequences choosing by content has yet to pay. (With a token a pixel the two have two million numbers a layer, as the parameter count says.)
#
# Table 2's accuracies. The paper trained each model a second time with its largest batch; the batches are in section 5. Look at ViL: 45.43 % with batches of 64, 57.01 % with 336, and now *above* softmax, while ViP falls with its larger batch. (The column of the authors' logs has other batches again, and ViL's log ends after two epochs.) Your runs used one batch size for all, so the column of this run repeats them for orientation, and so does the recorded one of other profiles.

# %%
vix.compare(2, runs=runs.values())

# %%
trained = sorted((run for run in runs.values() if run.history), key=lambda run: -run.last_top1)
printed = sorted(vix.paper_table(1)["rows"], key=lambda row: -row["top1"])
print("The paper's order: ", " > ".join(f"{row['model']} {row['top1']:.1f}" for row in printed))
print("This run's order:  ", " > ".join(
    f"{run.model} {run.last_top1:.1f}" + ("" if run.finished else f" (stopped after epoch {len(run.history)})")
    for run in trained) or "no run has an epoch yet",
      f"  (guessing gives {100 / data.num_classes:.1f})")
same_protocol = (profile.name == "paper" and data.name == "cifar10" and not given and not chosen
                 and all(run.finished for run in runs.values()))
print("This run follows the paper's protocol, with one seed." if same_protocol else
      f"This run is no reproduction: {data.name}, {tokens:,} tokens, {profile.train.epochs} epochs, one seed. "
      "Its order is not evidence for or against the paper's.")

# %% [markdown]
# ### What it costs, and the verdict
#
# The other half of the paper's claim is memory. Today's figures for the same systems, three ways: as the paper ran them, in mixed precision with the matrix stored, and with the fused kernel. Then the claims, each with a verdict that is computed from the records when this cell runs (fewer than three seeds show a direction and decide nothing). The runs of a pair are subtracted seed by seed, so that both saw the pictures in the same order; the ± is half of a 95 % interval for the mean of these differences (Student's t). "Half the memory" is asked twice: of the authors' formulas, softmax's and Nyström's alike, measured at the paper's length, and of ours.

# %%
from vixlib.report import cost_table

cost_table(1)

# %%
from vixlib.report import verdict_table

verdict_table("02")

# %% [markdown]
# ### The parameters, to the digit
#
# The printed counts of Table 1 can be reproduced exactly, and that is how most of the layers behind each row were found. The rule of the tool that printed them, *torchsummary*: add up every module's `weight` and `bias`. It passes over the position table, the class token and Linformer's P, which are bare parameters, and it counts a module twice if it can be reached by two paths. In the published ViP, the whole transformer can.

# %%
# NBVAL_CHECK_OUTPUT
for row in vix.paper_table(1)["rows"]:
    model = vix.build(row["model"], config="paper")
    count = vix.count_parameters(model)
    assert count.as_paper == row["params"]
    print(f"{row['model']}  printed {row['params']:9,}   counted the same way {count.as_paper:9,}   true {count.true:9,}")

vip = vix.build("ViP", config="paper")
once = sum(p.numel() for p in vip.blocks.parameters())
bare = vip.position.table.numel() + vip.cls_token.numel()
rest = vix.count_parameters(vip).true - once - bare
print(f"ViP: {once:,} in the transformer, {rest:,} in embedding and head, {bare:,} in positions and class token")
print(f"     printed {2 * once + rest:,} = 2 × {once:,} + {rest:,}   true {once + rest + bare:,}")
assert 2 * once + rest == 1_588_234 and once + rest + bare == vix.count_parameters(vip).true

# %% [markdown]
# So ViP is not twice ViT's size. It is 2,560 parameters larger: half as wide in its attention, twice as wide in its feed-forward part, with biases for q, k and v. Is that certain? A count can come out to the digit with the wrong layers:

# %%
# NBVAL_CHECK_OUTPUT
wide_heads = {"dim_head": 64, "mlp_dim": 256, "out_bias": False}
for widths, instead in {"heads of 32, hidden width 512": {}, "heads of 64, hidden width 256": wide_heads}.items():
    model = vix.build("ViP", config="paper", **instead)
    count = vix.count_parameters(model).as_paper
    print(f"{widths}  {count:,} parameters, {model.blocks[0].mixer.directions.shape[0]} features a head")
    assert count == 1_588_234

# %% [markdown]
# Three things speak for the first. *Size (MB)*, the tool's estimate from the outputs of all modules, knows widths: it gives the printed 218.30 for the first and 202.29 for the second (`tests/test_sizes.py` does the sum, for all rows of Tables 1 and 3). The published code has 110 features a head. And Table 2 fits more pictures with ViP than with ViN, which section 5 gets with the first only.
#
# ### What agrees, what does not, and why
#
# - **Parameter counts agree** for all four rows, to the digit.
# - **The rows are not the same network with another mixer.** The text gives the feed-forward part 256 hidden units for all; ViP's, ViL's and ViN's numbers only come out with **512**. ViN also has its 33-token convolution, and ViT and ViN have heads of 64 where the other two have 32. So "Nyström beats softmax by 10.8 points" is a statement about two packages. For a fair comparison take `config="uniform"` (the default of `vix.build` and of the profiles `smoke` and `quick`), which gives all of them the same widths; the authors used equal sizes in their later version, too. Nyström keeps its convolution even there.
# - **The Performer's kernel.** The text says ReLU; the published code runs the random features of section 3, and never redraws them. vixlib follows the code, and offers `kernel="relu"` (section 10 tries it).
# - **GPU memory.** The 15.0 GB of ViT are float32: the scripts put only the loss under mixed precision. A stored matrix has 64 × 4 × 1025 × 1025 floats, 1.0 of the table's GB. With one in each of the four layers the whole step comes to about half of the 15.0 (the table above). The published formulas keep one matrix per layer, too, so that the other half is unexplained; how the paper read its gigabytes is not said. Mixed precision does not shrink a stored matrix (01, section 6); with a fused kernel it is gone (section 4).
# - **Accuracy is the best test epoch of the best of three runs**, a maximum chosen on the test pictures. "last" in our tables is the last epoch, in which nothing was chosen. (That the authors' log of ViT shows more than Table 1 prints is another matter: it belongs to a later and smaller configuration.)
# - **Size (MB)** in the paper is torchsummary's estimate for one picture. It depends on how modules are nested; the bytes of section 4 do not, so that column is not repeated here. Its use was to find ViP's layers.
#
# ## 9 · How good are the approximations?
#
# Take the softmax model that you have just trained, and the q, k, v that its attention really works with. Replace its N × N matrix S by what each method implies, Ŝ, and measure ‖Ŝ − S‖ / ‖S‖. To obtain Ŝ, hand the functions of section 3 the **identity matrix as V**: attention to the identity *is* the matrix.
#
# Two lines give the scale. Nothing of rank m can come closer than the truncated singular value decomposition (Eckart and Young, 1936), the grey line. And looking everywhere equally, 1/N, needs no computation at all: any curve above that dotted line would have done better to ignore q and k.
#
# Linformer cannot compete fairly here, because its P is trained together with the rest. It gets two guesses for P: the random start of training, and segment means, Nyström's landmarks without the correction by A⁺.

# %%
from vixlib.measure import mixer_inputs

vit = models["ViT"]
layer = max(0, len(vit.blocks) - 2)  # in the last layer only the class token's row matters, the others go nowhere
index = data.some(max(1, 520 // tokens))
some = data.batch(index, "test")[0].to(device)
x, rotary = mixer_inputs(vit, some)[layer]
with torch.no_grad():
    q, k, v = (t.double() for t in vit.blocks[layer].mixer.split(x, rotary))
identity = torch.eye(tokens).to(q).expand(*q.shape[:2], -1, -1)
exact = softmax_attention(q, k, identity)


def error(matrix, reference=exact):
    """Mean over pictures and heads of |matrix - reference| / |reference|, Frobenius norms."""
    return ((matrix - reference).norm(dim=(-2, -1)) / reference.norm(dim=(-2, -1))).mean().item()

# %%
from vixlib.mixers import linformer_projection, orthogonal_features

U, S, Vh = torch.linalg.svd(exact)
generator = torch.Generator().manual_seed(seed)
METHODS = {
    "performer": lambda m: performer(q, k, identity, orthogonal_features(m, q.shape[-1], generator).to(q)),
    "linformer": lambda m: linformer(q, k, identity, linformer_projection(tokens, m).data.to(q)),
    # Averaging runs of tokens is a P, too: landmarks of the identity.
    "linformer, segment means": lambda m: linformer(q, k, identity, landmarks(torch.eye(tokens).to(q), m).mT),
    "nystrom": lambda m: nystrom(q, k, identity, m),
    "nystrom, exact inverse": lambda m: nystrom(q, k, identity, m, torch.linalg.pinv),
    "best of rank m": lambda m: U[..., :m] * S[..., None, :m] @ Vh[..., :m, :],
}
ranks = [2**i for i in range(1, 20) if 2**i < tokens] + [tokens]
torch.manual_seed(seed)
errors = {name: [error(method(m)) for m in ranks] for name, method in METHODS.items()}
more = [m * 4**i for m in ranks[-1:] for i in (1, 2)]  # random features may outnumber the tokens
errors["performer"] += [error(METHODS["performer"](m)) for m in more]

# %%
figure, ax = figures.new_axes(width=6.6, height=4)
for name, values in errors.items():
    kind = name.split(",")[0]
    ax.plot((ranks + more)[:len(values)], values, "-" if name == kind else "--", marker=figures.MARKERS.get(kind),
            color=figures.COLOURS.get(kind, "#999999"), markersize=4, label=name)
uniform = error(torch.full_like(exact, 1 / tokens))
ax.axhline(uniform, linestyle=":", color="#333333", label="1/N everywhere")
ax.set(xscale="log", yscale="log", ylim=(1e-3, 30), xlabel="m: features, mixtures, landmarks, rank",
       ylabel="relative error of the attention matrix", title=f"layer {layer + 1} of your ViT, {tokens:,} tokens")
ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5));

# %%
m = min(models["ViN"].blocks[0].mixer.num_landmarks, tokens)
nearest = min(range(len(ranks)), key=lambda i: abs(ranks[i] - m))
print(f"At m = {ranks[nearest]} of {tokens:,} tokens, the error of the matrix:")
for name, values in sorted(errors.items(), key=lambda item: item[1][nearest]):
    print(f"  {name:26} {values[nearest]:8.1%}" + ("   (worse than 1/N everywhere)" if values[nearest] > uniform else ""))
print(f"  {'1/N everywhere':26} {uniform:8.1%}")

# %% [markdown]
# What to see, beyond the ranking that your run printed:
#
# - **Performer falls slowly**, where it falls at all. Its error is that of an average over m random draws. For short q and k it shrinks like 1/√m: half the error takes four times the features. When attention is sharp, a few rare draws decide the average, since the spread of e^(w·q) grows exponentially with the length of q, and many more features change little. Is your line nearly level? Then that is where your ViT is. The line goes on beyond m = N, where softmax itself would be cheaper.
# - **Linformer with a random P stays far off**, even with m = N: attention to random mixtures of tokens is not attention to tokens. Nothing is wrong with it; it was never meant to imitate. With segment means it improves, and at m = N, where P is the identity, it is exact.
# - **Nyström with the exact inverse is exact at m = N**, where every token is its own landmark, and there alone. Before that, compare the two green lines: the *in*exact inverse may well be the better one. Why, you will see below.
# - **Most of the matrix is in few dimensions** if the grey line falls early. Linformer and Nyström set out from that observation; Performer does not, but its m features make a matrix of rank m as well, so that the grey line bounds all three.
#
# ### What a size costs
#
# An error alone is half of the matter: a larger m also keeps more bytes for the backward pass. Here each method is a path through both, one point for each m; the large markers follow the choices below. The bytes are counted, for one layer as wide as your models'. Linformer is drawn with segment means for P. Softmax has no m and no error: the solid line is its fused form, the dashed one stores the matrix.

# %%
from vixlib.figures import explore

kept_at = explore.kept_by_size(vit, ranks)
drawn = {"performer": "performer", "linformer": "linformer, segment means", "nystrom": "nystrom"}
trade_off = explore.trade_off({name: errors[which] for name, which in drawn.items()}, kept_at, ranks)
explore.interact(trade_off, features=ranks, rank=ranks, landmarks=ranks)

# %% [markdown]
# Whatever lies to the right of the solid line is an approximation that keeps *more* than the exact result does. At so few tokens that is most of the points; with more tokens the lines move apart, because only the dashed one grows with N².
#
# ### Six iterations are part of the model
#
# The iteration converges to the pseudo-inverse, given time. Is more of it better? Two errors answer differently: that of Z as a pseudo-inverse of A, and that of the attention matrix that comes of it. On the right the same with q and k doubled, which makes the scores four times as large.

# %%
counts = [2, 4, 6, 8, 10, 12, 15, 20, 25, 30]
figure, axes = figures.new_axes(2, width=4.4, height=3.6, sharey=True)
best = {}
for ax, (label, factor) in zip(axes, {"your ViT": 1, "q and k doubled": 2}.items(), strict=True):
    sharp_q, sharp_k = factor * q, factor * k
    sharp = softmax_attention(sharp_q, sharp_k, identity)
    a = softmax_attention(landmarks(sharp_q, m), landmarks(sharp_k, m), torch.eye(m).to(q).expand(*q.shape[:2], -1, -1))
    true_inverse = torch.linalg.pinv(a)
    inverse_error = [error(pseudo_inverse(a, n), true_inverse) for n in counts]
    matrix_error = [error(nystrom(sharp_q, sharp_k, identity, m, lambda a, n=n: pseudo_inverse(a, n)), sharp) for n in counts]
    best[label] = counts[matrix_error.index(min(matrix_error))], matrix_error[counts.index(6)], matrix_error[-1]
    ax.plot(counts, inverse_error, "--", color="#777777", marker="x", markersize=4, label="of Z as an inverse")
    ax.plot(counts, matrix_error, color=figures.COLOURS["nystrom"], marker="D", markersize=4, label="of the attention matrix")
    ax.axvline(6, linestyle=":", color="#333333")
    ax.set(yscale="log", ylim=(1e-2, 1e5), xlabel="iterations", title=label)
axes[0].set_ylabel(f"relative error, {m} landmarks")
axes[0].legend(fontsize=8, frameon=False);

# %%
for label, (count, at_six, at_thirty) in best.items():
    print(f"{label:16}: attention error {at_six:.3g} after 6 iterations, {at_thirty:.3g} after 30; "
          f"the best of those tried is {count} iterations")

# %% [markdown]
# The dashed line goes down as it must. The green one need not follow: when landmarks are averages, A is nearly singular, its true inverse is huge, and what it multiplies is no exact sample of the matrix. After six iterations Z is about as far from A⁺ as a matrix of zeros would be (a relative error near 1), and attention is near its best there. **Stopping early acts as a regulariser.** So "six" is no accuracy setting that one may turn up at leisure: a ViN trained with six iterations is another model than one with thirty, and vixlib keeps the number in its definition (`iterations=6`).
#
# ## 10 · Look inside: where one pixel looks
#
# One picture, one token that asks (framed), and the row of the attention matrix that belongs to it. The upper row shows the matrix of your ViT and what the three methods make of the *same* q and k, with the m that you trained with. Its four maps share one scale. The lower row shows what the other three models do when they are trained *as themselves*, each on its own scale (which never ends below four times 1/N: an even look is pale). In every model it is the head that looks at the fewest places. Unlike in notebook 01, grey is *no weight*: orange is weight, **purple is negative weight**, which softmax and Performer cannot have.

# %%
def implied(model):
    """The matrix that the trained model's own mixer applies to its values, for `some`: [B, H, N, N]."""
    x, rotary = mixer_inputs(model, some)[layer]
    mixer = model.blocks[layer].mixer
    if model.name == "ViL":
        q, k = mixer.as_heads(mixer.to_q(x)), mixer.as_heads(mixer.to_k(x))
        return linformer(q, k, identity.to(x), mixer.project_k)
    q, k, _ = mixer.split(x, rotary)
    return (performer(q, k, identity.to(x), mixer.directions, mixer.epsilon) if model.name == "ViP" else
            nystrom(q, k, identity.to(x), mixer.num_landmarks))


with torch.no_grad():
    trained = {f"{name}, trained": implied(models[name]) for name in ("ViP", "ViL", "ViN")}
features = models["ViP"].blocks[layer].mixer.num_features
imitations = {"ViT: softmax": exact, f"performer, m = {features}": METHODS["performer"](features),
              f"segment means, m = {m}": METHODS["linformer, segment means"](m), f"nystrom, m = {m}": METHODS["nystrom"](m)}

# %%
def sharpest(matrix):
    """The head whose rows have the largest maxima: it looks at the fewest places."""
    return int(matrix[0].amax(-1).mean(-1).argmax())


row, column = grid[0] // 2, grid[1] // 2
token = 1 + row * grid[1] + column  # token 0 is the class token
one_head = {name: matrix[0, sharpest(exact)] for name, matrix in imitations.items()}
one_head |= {name: matrix[0, sharpest(matrix)] for name, matrix in trained.items()}
seen = {name: matrix[token, 1:].unflatten(-1, grid).float() for name, matrix in one_head.items()}

figure, axes = figures.new_axes(4, 2, width=2.1, height=2.2)
picture = data.test_images[index[0]]
figures.heat_maps(axes[0], picture, {name: seen[name] for name in imitations}, (row, column))
figures.heat_maps(axes[1, :1], picture, {"the picture": torch.zeros(grid)}, (row, column))
for ax, name in zip(axes[1, 1:], trained, strict=True):
    figures.heat_maps([ax], picture, {name: seen[name]}, (row, column))
axes[1, 0].imshow(figures.as_picture(picture).numpy());

# %%
for name, matrix in one_head.items():
    line = matrix[token]
    print(f"{name:22} weights sum to {line.sum():5.2f}, smallest {line.min():+.3f}, largest {line.max():+.3f}, "
          f"rank {int(torch.linalg.matrix_rank(matrix.double(), rtol=1e-3))} of {tokens}")

# %% [markdown]
# That was one patch of one picture in one layer. Choose others. The upper choice of `shown` takes q and k of your ViT and lets each method imitate the softmax; the lower one shows what the four models do as they were trained. For Linformer the map is $\mathrm{softmax}(q\,(P^\top K)^\top/\sqrt d)\,P^\top$: it attends to mixtures, and what is drawn is the part that every patch has in them. As an imitation it gets segment means for P. The maps of a strip share one scale, which ends at the largest weight in any of them: here even attention is not pale. Above each map stands the sum of its weights; what is missing to one in softmax's went to the class token. (Nyström's convolution is not part of the maps.)

# %%
looks = explore.looks(models, data.test_images)
explore.interact(looks, picture=range(min(20, len(data.test_labels))), layer=range(1, len(vit.blocks) + 1),
                 head=range(1, vit.blocks[0].mixer.heads + 1), row=range(grid[0]), column=range(grid[1]),
                 shown=[explore.IMITATED, explore.TRAINED])

# %% [markdown]
# The printed lines say what the pictures mean. Compare the smallest and the largest weight of each trained row with 1/N: the nearer both are to it, the less that head chooses; where the largest is far above it, the head looks at a few places. Softmax and Performer rows are weighted averages: positive, sum one. Linformer's weights are learned mixtures, of either sign, with any sum. Nyström's come from a product with an inverse: single weights may be negative, and their sum is close to one as soon as the iteration is right for the constant vector, long before the inverse is good, so that a sum of one proves nothing. None of this stops the models from learning, because each is trained with the attention it has. **"Approximation" explains where these mixers come from; what decides is how they train.**

# %% [markdown]
# ### An experiment: the code's features, or the text's?
#
# A Performer is two things: the *form* φ(Q)(φ(K)ᵀV), and the *features* φ. The published code, and the runs recorded here, take the positive features of section 3, which estimate softmax. The paper's text says ReLU, which estimates another function (04, section 4, says which). So train ViP once more with φ(x) = relu(Wx), and nothing else changed. If being an estimate of softmax is what makes a Performer learn, this one will fall behind.

# %%
if profile.name == "paper":
    print("Left out here, because it is one more run of 40 epochs; the profiles smoke and quick make it.")
else:
    relu = vix.build("ViP", config=profile.config, seed=seed, kernel="relu", **profile.options_for("ViP", **own))
    feature_maps = {"positive features (the code)": runs["ViP"], "ReLU (the text)": vix.fit(relu, data, profile.train, device=device),
                    "softmax itself (ViT)": runs["ViT"]}
    for label, run in feature_maps.items():
        print(f"{label:30} " + (f"top-1 {run.last_top1:5.1f} %   training loss {run.history[-1]['loss']:.2f}   epoch {len(run.history)}" if run.history
                                else "interrupted before its first epoch was over"))

# %% [markdown]
# One seed each, early in training: that is a direction. The same experiment on photographs, with more seeds and paired runs, is among the records, and there ReLU's ViP is compared with ViT, too:

# %%
from vixlib.report import reasons_table

reasons_table("02")

# %% [markdown]
# What the runs do not tell is *why* the two differ, where they do. A difference that one can name: relu(Wx) grows with x in proportion, so shrinking all q and k hardly changes its weights (as long as the features are large beside ε = 0.001): it chooses between tokens even where they are short. The exponential of short vectors is nearly one everywhere. Another suspect is the noise of the estimate: `vix.build("ViP", num_features=4 * features, …)` has less of it, and steps that cost several times as much. And some reasons lie in neither form nor features: exercise 1 takes one term out of the gradient.

# %% [markdown]
# ## 11 · Bring your own mixer
#
# A mixer is any class that is built as `Mixer(dim, *, heads, dim_head, seq_len)` and turns `x`, `[B, N, D]`, into as many tokens of the same width; `rotary` is for mixers with queries and keys and may be ignored. Change this one, or write another over it. As it stands, each feature collects *one* weighted mean of all tokens, and each token decides by a gate how much of it to take, and no query is ever compared with a key (*AFT-simple* of [Zhai et al., *An Attention Free Transformer*](https://arxiv.org/abs/2105.14103)):
#
# $$ y_n = \sigma(W_g x_n) \odot \sum_{j=1}^{N} \operatorname{softmax}_j(W_s x_j) \odot W_v x_j . $$
#
# σ is the logistic function, ⊙ multiplies feature by feature.

# %%
from torch import nn


class GatedMean(nn.Module):
    def __init__(self, dim, *, heads, dim_head, seq_len):
        super().__init__()
        self.to_gate, self.to_score, self.to_value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, x, rotary=None):
        weights = self.to_score(x).softmax(dim=1)                           # over the N tokens, for each feature
        mean = (weights * self.to_value(x)).sum(dim=1, keepdim=True)        # [B, 1, D]
        return self.to_gate(x).sigmoid() * mean

# %% [markdown]
# Before it trains: is it what it claims to be? `check_mixer` reorders tokens, exchanges the other pictures of the batch, compares autograd's gradient with finite differences, and measures how cost grows with N.

# %%
from vixlib.measure import check_mixer

check_mixer(GatedMean)

# %% [markdown]
# One line deserves a question: a bias of the scores "does nothing". Why? (The softmax over tokens cancels what all of them share. It is also a check: had you taken the softmax over the features by mistake, `dim=-1`, everything would look as well, but this bias would do something.) Now the same training as the four models had, and the same table, with one more row:

# %%
own_model = vix.build("ViT", config=profile.config, seed=seed, mixer=GatedMean, **profile.options_for("ViT", **own))
own_model.name = GatedMean.__name__
own_run = vix.fit(own_model, data, profile.train, device=device)  # no checkpoint: it knows your mixer by its name alone
print(f"{vix.count_parameters(own_model).true:,} parameters, {vix.count_parameters(models['ViT']).true:,} in the ViT")
vix.compare(1, runs=[*runs.values(), own_run])

# %% [markdown]
# Any host takes it in the same way: `vix.build("CCT", mixer=GatedMean)`. If it holds up there, and over three seeds, you have something.
#
# ### In short
#
# - `(QKᵀ)V = Q(KᵀV)`, but for the softmax in between. Performer replaces the exponential by features, Linformer shortens the sequence, Nyström samples the matrix; then all multiply from the right.
# - The memory that the paper set out to save is saved today by a fused kernel, without any approximation. What is left to win is time, from a number of tokens on that each machine has for itself.
# - As imitations of softmax they are rough; as layers that are trained with the attention they have, they learn. Where they come from does not decide how well.
# - Details are part of the model: six iterations, the convolution over 33 tokens, one draw of directions.
# - The rows of the paper's table differ in more than the mixer, so that a difference between two rows speaks of two packages.
#
# ## 12 · Your turn
#
# **1. A constant that is none.** In section 3 the largest w·x is subtracted, and the normaliser nearly cancels that again. It invites a shortcut: take it for a constant in the backward pass. The package *performer-pytorch* does. Write `.detach()` behind `amax(...)` in the function `performer`, run that cell again, and train a ViP with it.
#
# <details><summary>Solution</summary>
#
# ```python
# class Written(mixers.PerformerAttention):  # with the function of section 3, as it stands now
#     def forward(self, x, rotary=None):
#         q, k, v = self.split(x, rotary)
#         return self.join(performer(q, k, v, self.directions, self.epsilon))
#
# model = vix.build("ViP", config=profile.config, seed=seed, mixer=Written, **profile.options_for("ViP", **own))
# print(vix.fit(model, data, profile.train, device=device), "instead of", runs["ViP"])
# ```
#
# The outputs are the same to the last digit, so that no comparison of outputs finds it; section 3's check does, and stops at the gradients. ε is 0.0001 and looks like nothing. But the largest w·x of *all* keys stands above that of most tokens, so that most of their features are small, and beside many small features ε is not. What is left out is the part of the gradient that says how far ε flattens the weights: some per cent of the keys' gradient while q and k are short, half of it and more once they are longer. (A query's constant matters less, because each row has its own.) What that does to a training, the printed line says (at `smoke`, seed 0, accuracy stays at what the stripes alone give; without the `.detach()` it ends within a point of `vixlib`'s). This series had that shortcut in its own Performer, until one epoch at the paper's full size came out far below the authors' log. (Take the `.detach()` out again when you are done.)
# </details>
#
# **2. Padding.** The published Nyström code pads 1025 tokens to 1088 with zeros in front. How many of the 64 landmarks are *nothing but* zeros, and what does that do to A?
#
# <details><summary>Solution</summary>
#
# ```python
# long = torch.randn(2, 1, 1, 1025, 32, dtype=torch.float64)  # queries and keys
# padded = [landmarks(F.pad(t, (0, 0, 63, 0)), 64) for t in long]
# print("empty landmarks:", int((padded[0].abs().sum(-1) == 0).sum()))
# a = (padded[0] @ padded[1].mT / 32**0.5).softmax(-1)
# print("rank of A:", int(torch.linalg.matrix_rank(a)), "of 64")
# ```
#
# 63 zeros fill three runs of 17 and most of a fourth. Three rows of A are equal (and so are three columns), so its rank is 62 and it has no inverse. The zeros also act as keys: each draws weight exp(0) in B. `vix.build("ViN", padding="front")` is that model.
# </details>
#
# **3. Draw again.** A trained ViP has learned with *one* set of random directions. What is left of it with another?
#
# <details><summary>Solution</summary>
#
# ```python
# import copy
# for draw in range(3):
#     again = copy.deepcopy(models["ViP"])
#     for block in again.blocks:
#         block.mixer.redraw(torch.Generator().manual_seed(draw))
#     print(vix.evaluate(again, data).top1, "instead of", runs["ViP"].last_top1)
# ```
#
# If the features estimated softmax well, any other draw would do as well, and nothing much would happen. The more is lost, the more the model has learned to use these very directions, as fixed weights of a layer instead of as an estimate. That is one reason why the published code, which never redraws, trains something else than "softmax, approximated"; more features (`num_features`) bring it closer to an estimate. (At `smoke`, seed 0, about half of the accuracy is lost.)
# </details>
#
# **4. Rank.** How small can Linformer's rank be before ViL gets worse? And why is it no contradiction that section 9 found its error to be large at every rank?
#
# <details><summary>Solution</summary>
#
# ```python
# for r in (1, 4, 16, tokens):
#     model = vix.build("ViL", config=profile.config, seed=seed, **profile.options_for("ViL", **{**own, "rank": r}))
#     print(r, vix.fit(model, data, profile.train, device=device, progress=False))
# ```
#
# At `smoke`, seed 0, 16 mixtures of the 65 tokens cost a few points, four cost nearly everything. At rank 1 the softmax is over a single mixture and always 1, so each token receives the same vector: a learned pooling of the picture, without any choice. Training shapes P, W_q and W_k together for the task; distance from a softmax matrix is nowhere in its loss.
# </details>
#
# **Next:** [03 · The Hybrid](03_hybrid.ipynb): what three convolutions in front of the same models know that attention has to learn.
