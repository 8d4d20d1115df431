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
# # 04 · Rotary positions: knowing the place without learning it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/04_rope.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/notebooks/04_rope.ipynb)
#
# **The question.** A Vision Transformer has to learn where its tokens are: one vector for each place, 131,200 numbers in the paper's models. Rotary positions (RoPE) have nothing to learn. They turn queries and keys by an angle that grows with the place. Does that raise the accuracy of a model of the same size, as the later version of [*Vision Xformers*](https://arxiv.org/abs/2107.02239) claims?
#
# **The answer.** The tables that this series repeats are the first version's, without RoPE; of the later one it has the abstract alone. So the authors' own training logs on CIFAR-10 are the reference. In the one fair pair of logs without convolutions it does: ViT's best epoch went from 56.82 % to **69.33 %**, a larger step than from softmax to the best mixer in Table 1. Behind three convolutions little of it is left, 74.07 % to 75.70 % for HybridViT, or nothing, 64.77 % to 64.40 % for HybridViL. These are single logs, those with RoPE longer than the others, and a longer one has more epochs to be best in. Section 8 puts what this project has recorded beside them, and a cell there says in words which way each comparison went.
#
# Before this: [01 · The Vision Transformer](01_vit.ipynb), where the position table is introduced, and [02 · Linear attention](02_linear_attention.ipynb) for the mixers. You should have met complex numbers; that multiplying by $e^{i\alpha}$ turns by the angle α is all that is needed.

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
system = "ViT"  #@param ["ViT", "ViP", "ViL", "ViN", "HybridViT", "HybridViP", "HybridViL", "HybridViN"]
#   the model that is trained with each of the four positions
position_std = 1.0  #@param {type:"number"}
#   learned positions start as random numbers of this size; 1 as in the authors' code, exercise 1 tries less
patch_size = 0  #@param [0, 8, 4, 2, 1] {type:"raw"}
#   pixels a side; 1 makes every pixel a token
dim = 0  #@param {type:"slider", min:0, max:256, step:16}
depth = 0  #@param {type:"slider", min:0, max:8, step:1}
heads = 0  #@param {type:"slider", min:0, max:8, step:1}
num_landmarks = 0  #@param {type:"slider", min:0, max:256, step:4}
#   of ViN, no more than there are tokens (65 at smoke)
rank = 0  #@param {type:"slider", min:0, max:256, step:4}
#   of ViL, no more than there are tokens
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
vix.announce(profile, device, "04_rope")

data = vix.load(profile.data)
print(f"data      {data}")

# %% [markdown]
# ## 3 · The idea
#
# Attention compares a query with a key by `q·k` and does not see where the two tokens are (01, section 9). There are two ways to tell it. A learned table **adds** a vector to each token. Leaving aside the normalisation in between, `q·k` in the first layer is then a sum of four terms: content with content, content with place, place with content, place with place. Only the last one knows both places, and nothing makes it the same for all pairs at the same offset: that has to be learned, from one vector for each place.
#
# RoPE **multiplies** instead ([Su et al., *RoFormer*](https://arxiv.org/abs/2104.09864), eq. 34). Take the numbers of a query two at a time, and read each pair as *one complex number*. At position m, turn it by an angle proportional to m:
#
# $$q^{(j)} \;\longmapsto\; q^{(j)}\, e^{\,i\, m\,\theta_j}, \qquad \theta_j = 10000^{-j/(d/2)}, \qquad j = 0, \dots, d/2-1 .$$
#
# Keys likewise. Each pair has a speed of its own, like the hands of a clock: the first turns by one radian a step, the last hardly moves. Fast hands tell neighbours apart, slow ones tell near from far. Four of the sixteen hands of a head of width 32, at positions 0 to 6:

# %%
from math import pi

from vixlib import figures
from vixlib.figures import places

speeds = 10_000.0 ** (-torch.arange(16, dtype=torch.float64) / 16)
shown = [0, 2, 4, 8]
places.dials(torch.outer(torch.arange(7, dtype=torch.float64), speeds[shown]),
             [f"j = {j}: {speeds[j]:.3f} rad a step\nonce around in {2 * pi / speeds[j]:,.0f} steps" for j in shown]);

# %% [markdown]
# In code the formula is as short as on paper. `torch.polar` makes numbers from lengths and angles, `view_as_complex` reads pairs as complex numbers, and the product does the turning. (`vixlib` does the same; half-precision queries are turned in single precision, because PyTorch cannot train complex numbers in half precision.)

# %%
def rope(x, steps, base=10_000.0):
    """Turn the features of x [..., N, d], in pairs, by angles proportional to steps [N]."""
    pairs = x.shape[-1] // 2
    speeds = base ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.outer(steps.double(), speeds)                            # m·θ, [N, d/2]
    turns = torch.polar(torch.ones_like(angles), angles)                    # e^(i·m·θ)
    numbers = torch.view_as_complex(x.double().unflatten(-1, (pairs, 2)))
    return torch.view_as_real(numbers * turns).flatten(-2).to(x.dtype)


# %%
# NBVAL_CHECK_OUTPUT
from vixlib.positions import AxialRotaryPosition, RotaryPosition, rotate

one_d = RotaryPosition(dim=128, dim_head=32, grid=(8, 8), cls=True)         # 64 patches and CLS
angles = one_d.angles((8, 8), torch.device("cpu"))
torch.manual_seed(0)
x = torch.randn(2, 4, 65, 32, dtype=torch.float64)
error = (rope(x, torch.arange(65)) - rotate(x, angles)).abs().max().item()
stretched = (rope(x, torch.arange(65)).norm(dim=-1) - x.norm(dim=-1)).abs().max().item()
assert error < 1e-12 and stretched < 1e-12, f"differs by {error:.1e}, lengths by {stretched:.1e}: the pairs, the sign of the angle?"
print(f"largest difference from vixlib below 1e-12: {error < 1e-12}; lengths unchanged: {stretched < 1e-12}")

# %% [markdown]
# ### Only the offset counts
#
# Why turn? The dot product of two vectors is, pair by pair, the real part of one number times the conjugate of the other. The conjugate turns the key's angle *backwards*, so that
#
# $$\mathrm{Re}\!\left[\, q\,e^{i m\theta}\; \overline{k\,e^{i n\theta}}\,\right] \;=\; \mathrm{Re}\!\left[\, q\,\bar k\; e^{\,i (m-n)\theta}\right].$$
#
# m and n are gone; what is left is **m − n**. A head that has learned "look three to the left" has learned it for the whole picture at once. Take one query vector and one key vector, put them at all pairs of 64 positions, and compare the scores: below with table vectors added, then rotated.

# %%
# NBVAL_CHECK_OUTPUT
q, k = torch.randn(2, 1, 32, dtype=torch.float64).expand(2, 64, 32).contiguous()
table = torch.randn(64, 32, dtype=torch.float64)
scores = {"a random table added": (q + table) @ (k + table).mT,
          "rotated": rope(q, torch.arange(64)) @ rope(k, torch.arange(64)).mT}
for name, matrix in scores.items():
    spreads = [(line.max() - line.min()).item() for line in (matrix.diagonal(offset) for offset in range(-62, 63))]
    print(f"{name:22}  pairs of equal offset have equal scores, to 1e-12: {max(spreads) < 1e-12}")
assert max(spreads) < 1e-12

# %%
figure, axes = figures.new_axes(3, width=3.5, height=3.2)
for ax, (name, matrix) in zip(axes[:2], scores.items(), strict=True):
    largest = matrix.abs().max()
    ax.imshow(matrix.numpy(), cmap="PuOr_r", vmin=-largest, vmax=largest, interpolation="nearest")
    ax.set(title=f"q·k, {name}", xlabel="position n of the key", ylabel="position m of the query")
    ax.grid(False)
for m, colour, width in ((10, "#bbbbbb", 7), (32, "#E69F00", 4), (50, "#000000", 1.2)):
    axes[2].plot(m - torch.arange(64), scores["rotated"][m], color=colour, linewidth=width, label=f"query at m = {m}")
axes[2].set(xlabel="offset m − n", ylabel="q·k, rotated", title="the same curve for every m")
axes[2].legend(fontsize=8, frameon=False);

# %% [markdown]
# Stripes along the diagonals are the whole point: equal offsets, equal scores. On the right three rows of the middle matrix, drawn against the offset, lie on one curve and merely end at different places. A random table (left) makes one stripe by itself, the main diagonal, where a place's vector meets itself; and that only because query and key get the same vector here. In a ViT the vectors pass through W_q and W_k first, which are random at the start: then not even that stripe is there. A table *can* learn stripes, but nothing makes it.
#
# ### A picture is not a line
#
# The authors number the tokens as they come: CLS is 0, then the pixels row by row. Two pixels side by side are one step apart; two pixels **one above the other are a whole row apart**, 32 steps at 32 × 32. Meanwhile the fastest hand has been around five times. And the last pixel of a row counts as the neighbour of the first one in the next row, at the other end of the picture.
#
# The cure is to give each half of the head's numbers a direction of its own. One half turns by the row, the other by the column ([Heo et al., *Rotary Position Embedding for Vision Transformer*](https://arxiv.org/abs/2403.13298), eq. 7). Sides are short, so their base is 100 instead of 10000.

# %%
def rope2d(x, rows, columns, base=100.0):
    """Turn the first half of the features of x [..., rows·columns, d] by the row, the second by the column."""
    by_row, by_column = x.chunk(2, dim=-1)
    row = torch.arange(rows).repeat_interleave(columns)                     # 0 0 0 1 1 1 2 2 2
    column = torch.arange(columns).repeat(rows)                             # 0 1 2 0 1 2 0 1 2
    return torch.cat([rope(by_row, row, base), rope(by_column, column, base)], dim=-1)


# %%
# NBVAL_CHECK_OUTPUT
two_d = AxialRotaryPosition(dim=128, dim_head=32, grid=(8, 8), cls=False)
patches = x[:, :, 1:]
error = (rope2d(patches, 8, 8) - rotate(patches, two_d.angles((8, 8), x.device))).abs().max().item()
assert error < 1e-12, f"differs by {error:.1e}: which half turns by the row, which by the column?"
print("2-D: largest difference from vixlib below 1e-12:", error < 1e-12)

# %% [markdown]
# Now look at it. One pixel of a 32 × 32 picture asks (framed), every pixel answers; q and k are the same vectors everywhere, so that all differences come from the places. In the upper row q and k are equal, all ones, which shows what rotation does by itself. In the lower row both are random, as an untrained head may have them.

# %%
side, query = 32, (12, 19)
steps = torch.arange(side * side)
ones = torch.ones(side * side, 32, dtype=torch.float64)
q, k = torch.randn(2, 1, 32, dtype=torch.float64).expand(2, side * side, 32).contiguous()
TURNS = {"1-D: by the place in the sequence": lambda x: rope(x, steps),
         "2-D: by row and column": lambda x: rope2d(x, side, side)}


def score_grids(q, k):
    """q·k for every pair of places, [rows, columns, rows, columns], in 1-D and 2-D."""
    return {name: (turn(q) @ turn(k).mT).view(side, side, side, side) for name, turn in TURNS.items()}


alike, different = score_grids(ones, ones), score_grids(q, k)
places.score_maps({label: {name: s[query] for name, s in grids.items()}
                   for label, grids in {"q = k = all ones": alike, "q, k random": different}.items()}, query);

# %%
# NBVAL_CHECK_OUTPUT
ways = {"one to the right": (12, 19, 12, 20), "one below": (12, 19, 13, 19),
        "end of a row, start of the next": (12, 31, 13, 0)}
print(f"{'score relative to the pixel itself':36}{'1-D':>8}{'2-D':>8}")
for way, places_of in ways.items():
    values = [(s[places_of] / s[12, 19, 12, 19]).item() for s in alike.values()]
    print(f"  {way:34}{values[0]:8.2f}{values[1]:8.2f}")
line, plane = alike.values()
assert abs(line[12, 31, 13, 0] - line[12, 19, 12, 20]) < 1e-10      # 1-D takes them for neighbours
assert abs(plane[12, 19, 13, 19] - plane[12, 19, 12, 20]) < 1e-10   # in 2-D down is like right

# %% [markdown]
# In 1-D the neighbourhood is a *line*: strong to the left and right, running over the edge into the next row, while the pixel below is just some far-away token. In 2-D the four neighbours are equal. It is a cross rather than a disc, because the score is a sum of a part that knows the row and a part that knows the column. The random head shows what each has to build with: 1-D makes streaks along the rows, which have little to do with those above and below; 2-D adds one pattern of rows to one of columns.
#
# 1-D does not make it *impossible* to look down: "32 steps on" is an offset like any other, and training can find it. But it has to be found, and it is another number in a picture of another width. Section 9 tries that.
#
# **And CLS?** It is no place in the picture. In 1-D the authors count it as token 0, so that its distance to a pixel is the pixel's number in the sequence. In 2-D `vixlib` leaves it unturned, as if it sat in the upper left corner. Either way the offset from CLS to a pixel *is* that pixel's absolute place, the one thing that relative positions otherwise hide, and CLS is what the class is read from.

# %% [markdown]
# ## 4 · How each mixer takes it
#
# Softmax compares all pairs, so rotation meets it unchanged. The linear mixers (02) never form the pairs, and the order of things matters. `vixlib` has one rule: **rotate queries and keys right after their linear maps, before anything is mixed, averaged or mapped. Never the values**, which are what is passed on.
#
# - **Nyström**: before the landmarks. A landmark is then a mean of tokens turned by different angles; fast hands cancel in it, slow ones remain.
# - **Linformer**: before P mixes the N keys. A rotation differs from token to token, so it cannot be swapped with P as in 02, and N keys must be computed after all.
# - **Performer**: before the features φ. Turning φ(q) instead can make features negative, so that the normaliser may vanish or change its sign.
#
# Does "only the offset counts" survive? Move all tokens on by ten steps: nothing may change. (The tokens are random, the mixers untrained.)

# %%
# NBVAL_CHECK_OUTPUT
from vixlib.mixers import MIXERS

tokens_in = torch.randn(4, 65, 128, dtype=torch.float64)


def change_after_a_shift(kind, by=10, **own):
    torch.manual_seed(1)
    mixer = MIXERS[kind](128, heads=4, dim_head=32, seq_len=65, **own).double()
    here = mixer(tokens_in, rotary=lambda t: rotate(t, angles))
    there = mixer(tokens_in, rotary=lambda t: rotate(t, angles + by * angles[1]))
    return ((there - here).norm() / here.norm()).item()


for kind, own in {"softmax": {}, "nystrom": {"num_landmarks": 16}, "linformer": {"rank": 16}, "performer": {}}.items():
    invariant = change_after_a_shift(kind, **own) < 1e-12
    assert invariant == (kind != "performer")
    print(f"{kind:10} the same after all positions moved by 10: {invariant}")

# %% [markdown]
# Three are exact. Performer is not, and the reason says what it is. Its random features *estimate* exp(q·k), which depends on the offset alone; but the estimate is made with a few fixed directions w, and turning q and k under them gives another draw of the estimate. Then it should get better with the number of features, like one over its square root: half the error for four times as many.

# %%
print("output changes, when all positions move by 10:")
for count in (110, 440, 1760, 7040):
    favor, relu = (change_after_a_shift("performer", num_features=count, kernel=kernel) for kernel in ("favor", "relu"))
    print(f"{count:5} features: {favor:6.1%} with exp features, {relu:6.1%} with ReLU features")

# %% [markdown]
# With exp it falls a little more slowly than that: a few large exponentials dominate each sum. ReLU features follow the rule, because they are an estimate, too, though not of exp(q·k). The mean of relu(w·q) relu(w·k) over random w is |q||k| (sin α + (π − α) cos α) / 2π with α the angle between q and k ([Cho and Saul, *Kernel Methods for Deep Learning*](https://papers.nips.cc/paper/3628-kernel-methods-for-deep-learning), order 1), and turning leaves lengths alone and moves α by the offset only. 110 is what a Performer with heads of 32 has, so a ViP with RoPE sees offsets *and*, blurred, absolute places.
#
# ### An unequal comparison, and the equal one
#
# The paper's later Linformer has a single key head that serves all four query heads. For RoPE the authors switched to one key head each, which costs parameters: their two ViL logs are not of one size. (Both of their HybridViL logs have a key head each.) There is no need to; a single head can be rotated as well as four. `vixlib` rotates it, and theirs is the option `shared_head=False`:

# %%
# NBVAL_CHECK_OUTPUT
logs = {position: vix.authors_runs("ViL", position)[0] for position in ("learned", "rope")}
for position, own in (("learned", {}), ("rope", {"shared_head": False}), ("rope", {})):
    count = vix.count_parameters(vix.build("ViL", position=position, **own)).as_paper
    theirs = logs[position]["params_torchsummary"]
    print(f"{position:8} {str(own or 'one shared key head'):24} {count:,}   the authors' log: {theirs:,}"
          + ("" if count == theirs else "   (matched to 'learned' instead)"))
    assert (count == theirs) == (own != {} or position == "learned")
print(f"difference: {464_906 - 415_754:,} = 4 layers × 128 × (128 − 32)")
assert 464_906 - 415_754 == 4 * 128 * (128 - 32)

# %% [markdown]
# ## 5 · No parameters
#
# Angles are computed, not learned. A model with RoPE has as many parameters as one without any positions, and 1025 × 128 = 131,200 fewer than one with a table:

# %%
# NBVAL_CHECK_OUTPUT
from vixlib.report import ROPE_MODELS

print(f"{'':10}{'none':>10}{'rope':>10}{'rope2d':>10}{'learned':>10}   authors' rope log less `rope`")
for name in ROPE_MODELS:
    own = {"shared_head": False} if name.endswith("ViL") else {}
    true = {p: vix.count_parameters(vix.build(name, position=p, **own)).true for p in ("none", "rope", "rope2d", "learned")}
    assert true["none"] == true["rope"] == true["rope2d"] == true["learned"] - 131_200
    unused = vix.authors_runs(name, "rope")[0]["params_true"] - true["rope"]
    assert unused in (0, 131_200)
    print(f"{name:10}" + "".join(f"{count:10,}" for count in true.values()) + f"   {unused:+,}")

# %% [markdown]
# The last column: four of the authors' eight RoPE models still carry the table. Their code creates it and never adds it. It does nothing, but it is in the model's size; the column that torchsummary prints passes over it in any case (01, section 6). So "the same size" is true in the paper's way of counting (but for ViL's key heads, section 4), and RoPE is *smaller* in truth.

# %% [markdown]
# ## 6 · What turning costs
#
# Each query and key is multiplied once: work in proportion to N, in each layer, where the table is added once for the whole model. In memory, attention keeps its queries and keys for the backward pass, turned or not. Unrotated they are parts of one tensor which holds the values, too. Rotated ones are new tensors, and `vixlib` copies the values as well, so that the tensor which held all three can be given back: what is added are the turns themselves. (Without that copy a view of the values would hold on to the unturned queries and keys.) One layer of width 128, four heads of 32, forward and backward, with and without turning:

# %%
from torch import nn

from vixlib.measure import mixer_bytes, mixer_seconds


class Turned(nn.Module):
    """A mixer that is called with 1-D rotary positions, whatever the number of tokens."""

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    def forward(self, x):
        place = RotaryPosition(dim=128, dim_head=32, grid=(1, x.shape[1]), cls=False)
        return self.mixer(x, rotary=place.rotary((1, x.shape[1]), x.device))


MIXED = {"softmax": {}, "nystrom": {"num_landmarks": 64}}
builders = {}
for kind, own in MIXED.items():
    builders[kind] = plain = lambda n, kind=kind, own=own: MIXERS[kind](128, heads=4, dim_head=32, seq_len=n, **own)
    builders[f"{kind} rotated"] = lambda n, plain=plain: Turned(plain(n))
lengths = [64, 128, 256, 512, 1024, 2048]
kept = mixer_bytes(builders, lengths, dim=128)
batch = 8 if device.type == "cuda" else 2
clocked, seconds = mixer_seconds(builders, 128, device=device, batch_size=batch, smallest=128, largest=2048, budget=10)

# %%
figure, (memory, clock) = figures.new_axes(2)
figures.cost_curves(memory, lengths, {name: [b / 2**20 for b in values] for name, values in kept.items()}, "kept for backward (MiB an image)")
figures.slope_guides(memory, lengths, {1: kept["softmax"][-1] / 2**20})
figures.cost_curves(clock, clocked, {name: [1e3 * s / batch for s in values] for name, values in seconds.items()},
                    "forward + backward (ms an image)")
figures.slope_guides(clock, clocked, {1: 1e3 * seconds["nystrom"][-1] / batch, 2: 1e3 * seconds["softmax"][-1] / batch})

# %%
for kind in MIXED:
    at = lengths.index(1024)
    more = kept[f"{kind} rotated"][at] / kept[kind][at]
    slower = [turned / plain for turned, plain in zip(seconds[f"{kind} rotated"], seconds[kind], strict=True)]
    print(f"{kind:8} with turning: {more:.2f} times the bytes at 1,024 tokens; "
          f"{slower[0]:.2f} times the seconds at {clocked[0]} tokens, {slower[-1]:.2f} times at {clocked[-1]:,}")

# %%
for name in ("ViT", "HybridViT"):
    before, after = (vix.authors_runs(name, position)[0]["seconds_per_epoch"] for position in ("learned", "rope"))
    print(f"The authors' {name}: {before:.0f} s an epoch with the table, {after:.0f} s with RoPE")

# %% [markdown]
# Bytes have slope 1, turned or not. A turn is one complex number for each pair of features and token, and one copy serves the whole batch, so that with 64 pictures it is hardly anything. The work of turning grows with N, too, so that beside softmax's N² it must fade as the sequence grows, while beside a linear mixer it does not. (The times end where the cell's ten seconds were spent. A factor below one says that the machine was busy with something else; run the cell again.) The authors' logs show how careful one has to be with times: the same rotation in a model of the same width doubled the epoch in one log and added little in the other. Something else differed there, perhaps the card: ViT's run with RoPE was made in Colab, the others in Kaggle, and the logs name no card.

# %% [markdown]
# ## 7 · Training the four
#
# One model, four positions, everything else equal: seed, order of the pictures, epochs, and the `uniform` layers in every profile. The table starts as in the authors' code, with numbers of size `position_std` = 1. Curves are redrawn after every epoch. Interrupting (the stop button) stops *one* run and goes on with the next; what was learned is kept.

# %%
grid = [size // (patch_size or profile.options.get("patch_size", 1)) for size in data.image_size]
# Defaults are cut to the number of tokens; what you choose yourself is taken as it is.
own = {name: min(profile.options.get(name, 64), grid[0] * grid[1] + 1) for name in ("num_landmarks", "rank")}
chosen = {name: value for name, value in dict(
    patch_size=patch_size, dim=dim, depth=depth, heads=heads, num_landmarks=num_landmarks, rank=rank).items() if value}
own |= chosen | dict(image_size=data.image_size, channels=data.channels, num_classes=data.num_classes,
                     position_std=position_std)

models = {position: vix.build(system, seed=seed, **profile.options_for(system, **own, position=position))
          for position in ("none", "learned", "rope", "rope2d")}
for position, model in models.items():
    print(f"{system}, {position:8} {vix.count_parameters(model).true:9,} parameters, {model.seq_len:,} tokens")

# %%
runs, draw = {}, figures.live_curves(f"{system} on {data.name}, {model.seq_len:,} tokens",
                                     lambda run: run.options["position"], figures.in_colours(places.COLOURS))
for position, model in models.items():
    path = Path(checkpoints) / f"04_{profile.name}_{system}_{position}.pt" if checkpoints else None
    runs[position] = vix.fit(model, data, profile.train, checkpoint=path, device=device, on_epoch=draw)
for position, run in runs.items():
    print(f"{position:8} {run}")

# %% [markdown]
# ## 8 · The table
#
# Rows are models, columns positions. First the authors' logs, then what this project has recorded with equal layers and equal settings, then your runs. In brackets stands the difference to the learned table.

# %%
from vixlib.report import rope_claims, rope_table

rope_table(runs.values())

# %% [markdown]
# The same in words, and in four comparisons, computed from the recorded runs when this cell runs. Two runs are compared only if profile, data set, layers, sizes, epochs and seed are the same. One seed gives a direction; a claim is called decided when a 95 % interval over three seeds or more leaves out zero. (One such interval in twenty does so by chance, and a comparison has up to eight of them: one decided line, close to zero, is weak evidence.) The pairs are printed for the last question alone:

# %%
said = rope_claims()
last = max(i for i, line in enumerate(said) if not line.startswith(" "))
print(*(line for line in said[:last] if not line.startswith("    ")), *said[last:], sep="\n")

# %% [markdown]
# Read the last question with the first. Where RoPE is ahead of the learned table but not of *no positions at all*, what was gained may be no more than what the table had cost: neither that cost nor a gain by rotation is decided there. How can a model do without positions? Without them not every model sees a mere set: Linformer's P has a row for each token, Nyström's landmarks and its convolution follow the sequence, and convolutions in front see surroundings. Plain softmax and Performer do see a set; all they know of places lies within a patch. So one expects ViT and ViP to gain most, ViP by the blurred offsets of section 4, which are still more than none. Compare that with the lines above. One line does not fit: HybridViT gains as much as ViT. With patches of 4 × 4 its three convolutions see little more than the next patches, and without positions it is hardly better than ViT without (the first column of the table).
#
# If the table costs something, is it because its numbers start so large? The same models with a table that starts at 0.02:

# %%
from vixlib.report import reasons_table

reasons_table("04")

# %% [markdown]
# The lower rows put the quiet table against RoPE itself. Unless their interval leaves zero out, these seeds cannot tell RoPE from a quiet table after one epoch of these patches: a smaller number in one line of code may have done as well. With a token a pixel it has not: there a quiet table, too, is behind RoPE (one seed; more under "Their first epoch, and ours"). Whether any of this lasts is another question. Trainings of more than one epoch with a quiet start are not among the records.
#
# And the authors' own claim, 1-D RoPE against the learned table, pair by pair beside their logs:

# %%
from vixlib.report import verdict_table

verdict_table("04")

# %% [markdown]
# ### What the authors' logs can tell
#
# A best epoch is a maximum, and a longer log has more to choose from. So compare over the epochs that *both* logs of a pair have, and only pairs of logs that start from scratch and last ten epochs or more (ViT's with RoPE may have had a tenth of an epoch before, see ‡ below: far too little to matter here):

# %%
# NBVAL_CHECK_OUTPUT
for name in ROPE_MODELS:
    logs = [log for position in ("learned", "rope") for log in vix.authors_runs(name, position)]
    short = [log["position"] for log in logs if log["resumed"] or len(log["top1"]) < 10]
    if len(logs) < 2 or short:
        why = "only one of the two has a log" if len(logs) < 2 else f"{', '.join(short)} resumed or too short"
        print(f"{name:10} no fair pair: {why}")
        continue
    n = min(len(log["top1"]) for log in logs)
    best, last = ([of(log["top1"][:n]) for log in logs] for of in (max, lambda curve: curve[-1]))
    print(f"{name:10} {n} epochs: best {best[0]:.2f} -> {best[1]:.2f} ({best[1] - best[0]:+.2f}), "
          f"epoch {n}: {last[0]:.2f} -> {last[1]:.2f} ({last[1] - last[0]:+.2f})")
assert [vix.authors_runs("ViT", p)[0]["best_top1"] for p in ("learned", "rope")] == [56.82, 69.33]

# %%
figure, ax = figures.new_axes(width=6, height=3.4)
styles = {"learned": "--", "rope": "-"}
looks = {"ViT": ("#000000", None), "HybridViT": ("#000000", "s"), "HybridViL": ("#0072B2", "s")}  # the mixer's colour
for name, (colour, marker) in looks.items():
    for position, style in styles.items():
        curve = vix.authors_runs(name, position)[0]["top1"]
        ax.plot(range(1, len(curve) + 1), curve, style, color=colour, marker=marker, markersize=4,
                markerfacecolor=colour if position == "rope" else "white", label=f"{name}, {position}")
ax.set(xlabel="epoch", ylabel="test top-1 accuracy (%)")
ax.set_title("the authors' logs, CIFAR-10, every pixel a token", fontsize=9)
ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5));

# %% [markdown]
# - **ViT's gain is there from the first epochs on** and far larger than what logs wobble by. Nobody has to wait for a maximum to see it.
# - **With convolutions it shrinks or vanishes.** HybridViT's gain keeps its sign in all epochs that both logs have, and varies from a fraction of a point to nearly five; whether HybridViL gains or loses depends on the epoch one looks at. A convolution knows neighbourhoods already, and through the zeros at its edges even something about absolute places.
# - **Five models cannot be read as "learned against RoPE".** ViP's learned log starts from an earlier checkpoint; ViL's is two epochs long, with other batches and fewer parameters (section 4); ViN, HybridViN and HybridViP have no log with a table. That the final numbers with RoPE are high is true; by how much RoPE raised them, these logs do not say.
# - **The table that lost had a loud start.** Its random numbers of size 1 are louder than what the pixels say (01, section 9). Part of ViT's gain may be what *that* start cost. The records with a quiet start, above, are about that: with a token a pixel it is the smaller part. The columns `none` and `rope2d` are what the authors' experiments lack: they separate "no table" from "rotation", and the line from the plane.

# %% [markdown]
# ### Their first epoch, and ours
#
# Whole runs with every pixel a token are a GPU's work. But one epoch of them can be trained on a CPU, too, and the logs say what theirs had reached after the first: so that much can be repeated at full size, with the same layers, batch size and optimiser. (`python -m vixlib.reproduce --table logs --profile first-epoch` adds to the records.) The last rows are of our own adding and have no log.

# %%
from vixlib.report import first_epochs_table

first_epochs_table()

# %% [markdown]
# One or two runs against one log: a difference of two or three points is what another seed makes (HybridViL's and HybridViN's runs with RoPE differ in nothing but the seed: see their ±). A match says that layers, training and evaluation are alike where they could be followed, and nothing about the other thirty-nine epochs. A gap of several points asks for a reason. That is how an error was found in `vixlib`'s own Performer: the first epoch of ViP with RoPE ended far below the log, because the backward pass took for a constant what is none (02, exercise 1). The table's run is the mended model's.
#
# ViT's and Linformer's runs agree with their logs as far as seeds allow. Nyström's are further off: ViN's log is some four points ahead of our run, HybridViN's on average some three of ours. ViN's is marked ‡: its first losses are those of a model that has already learnt, so that a part of its gap may be a head start. HybridViN's log starts from nothing; but its two runs, alike except for the seed, are two points apart themselves. How queries and keys are rotated is not the reason: the authors' rotated Linformer and Nyström layers, written out beside ours and given our weights, return the same numbers (`tests/test_logs.py`). What is left, beside the seed and the JPEG copy of the pictures, is the number that the pseudo-inverse starts from: theirs is one for the whole batch and has its gradient, `vixlib`'s is one for each picture and head and constant in the backward pass (02, section 3). The largest of a batch is larger than a picture's own, so that their six iterations end further from the pseudo-inverse than ours. Whether it is that, or no more than seeds, unlucky ones here and a lucky one there, **nobody has tried** at this size: until then, take what the records say of Nyström with RoPE with that question mark.
#
# What RoPE brings is in the table, too: take *ViT, learned* from *ViT, rope*. It is ten points in the authors' logs (a part of that perhaps the head start of ‡) and nearly ten in our runs, several times what 4 × 4 patches showed above. So at full size the gain is there from the first epoch on, with the authors' data and code as with ours, as far as one seed can tell. For HybridViL, whose two logs share all settings as well, it is within what seeds make. Is it the rotation that helps ViT there, or the loud table that hurts? One of the last rows is the same ViT with a table that starts at 0.02. On 4 × 4 patches such a table had caught up with RoPE. Here it makes up for little more than a quarter of the distance, and its training loss is no better than the loud table's. So what the start costs is the smaller part at full size; with 1,024 vectors to be learned one by one, rotation, which has nothing to learn, is ahead by itself. One seed says so, after one epoch of forty.
#
# For Performer, one difference is left on purpose. The number that keeps a Performer's exponentials from overflowing is one for the keys of the whole batch in the authors' code, and one for each picture and head in `vixlib`, where no picture's result may depend on its neighbours'. Because ε is added to the features, that number does not quite cancel (02, section 3), so these two Performers are not quite the same model.

# %%
chance = 100 / data.num_classes
if all(run.history for run in runs.values()):
    order = sorted(runs, key=lambda position: -runs[position].last_top1)
    reached = " > ".join(f"{position} {runs[position].last_top1:.1f}" for position in order)
    print(f"This run's order: {reached} (guessing: {chance:.1f})")
as_the_paper = ((profile.name, data.name) == ("paper", "cifar10") and not given and not chosen and position_std == 1
                and all(run.finished for run in runs.values()))
print(f"{data.name}, {model.seq_len:,} tokens, {profile.train.epochs} epochs, one seed: "
      + ("the paper's data and length." if as_the_paper else "no evidence for or against the authors' claim."))
if data.name == "shapes":
    print("Half of a class here is how one figure lies to another: left, right, above, below, inside. The first four\n"
          "are offsets in the plane, which 2-D rotation offers directly, 1-D rotation only in part. (In four pictures of\n"
          "five where the striped figure is in the picture gives its place away: there, no offset is needed.)")

# %% [markdown]
# ## 9 · Look inside
#
# **What has the table learned?** It started as random vectors without any relation. If training has found out which places are neighbours, their vectors have become alike. Each small map belongs to one place, marked by a cross: how similar is its vector to the vectors of all other places? (Dosovitskiy et al. show this in figure 7 for a large ViT.)

# %%
start = vix.build(system, seed=seed, **profile.options_for(system, **own, position="learned")).position.table[0, 1:].detach()
table = models["learned"].position.table[0, 1:].detach().cpu()
cosines = {what: places.similarity(vectors.unflatten(0, models["learned"].grid)) for what, vectors in
           {"at the start": start, "after training": table, "what training added": table - start}.items()}
for what in ("after training", "what training added"):
    places.similarity_maps(cosines[what], what, most=5)

# %%
for what, one in cosines.items():
    print("similarity of touching places {:+.2f}, of all pairs {:+.2f}: {}".format(*places.neighbour_similarity(one), what))
moved = (table - start).square().mean().sqrt().item()
print(f"each number started at about {position_std:g} and has moved by about {moved:.2f}")

# %% [markdown]
# The last line explains why the first figure is mere noise. Training moves each number by a certain amount. Where it started at 1, as in the authors' code, that movement is lost in the noise of the start, although the model may use it well: to the model, noise that never changes *is* the code for the place. Subtract the start, and a trace of what was learned remains. After a short training it is too faint for the eye; the numbers show it: compare how alike touching places are with all pairs, line by line.
#
# **Another size of picture.** A model trained at one size gets larger pictures: here the test pictures, enlarged by half with `F.interpolate`. The number of tokens grows. A table has no vectors for the new places and must say so; it can be *interpolated*, stretched over the new grid. Rotation needs nothing: an angle for row 11 is computed like any other.

# %%
import copy

import torch.nn.functional as F

drawn = data.some(2000)
small, labels = data.test_images[drawn], data.test_labels[drawn]
larger = [size + size // n * max(1, n // 2) for size, n in zip(data.image_size, models["rope2d"].grid, strict=True)]
large = F.interpolate(small.float(), size=larger, mode="bilinear", align_corners=False).round().to(torch.uint8)


def accuracy(model, images):
    hits = (vix.predict(model, images).argmax(1) == labels.cpu()).sum().item()
    return f"{100 * hits / len(labels):.1f} %"


def accuracy_or_error(model, images):
    try:
        return accuracy(model, images)
    except ValueError as error:
        return f"ValueError: {error}"


stretched = copy.deepcopy(models["learned"])
stretched.position.resize(stretched.embedding.grid(*larger))
print(f"test accuracy at {data.image_size[0]}×{data.image_size[1]}, and at {larger[0]}×{larger[1]} pixels")
for label, model in (models | {"learned, resized": stretched}).items():
    known = models["learned"] if model is stretched else model
    print(f"  {label:17}{accuracy(known, small):>7}   {accuracy_or_error(model, large)}")

# %% [markdown]
# Running is one thing, being right another (and two thousand pictures leave a point or so uncertain). Everything in the larger pictures is larger, too, also what lies within a patch, and no model has been trained for that. On top of it each kind of position has a difficulty of its own:
#
# - **1-D** has learned that "one below" is so many steps on. The rows are longer now, and the offset means another place.
# - **2-D** keeps its meaning, one row is one row. But the same two things are now more rows apart than in training.
# - **The stretched table** has each vector where it was relative to the picture, so that its places still fit the enlarged things.
#
# The stretched table suggests a cure for the second: **squeeze the places**. Let the angles of the larger picture run over the range of training, so that row 9 of 12 turns as far as row 6 of 8. For 2-D positions that is one factor on all angles.

# %%
squeezed = copy.deepcopy(models["rope2d"])
plain, trained_rows = models["rope2d"].position.angles, models["rope2d"].grid[0]
# Instead of the method: the same angles, scaled.
squeezed.position.angles = lambda grid, device: plain(grid, device) * trained_rows / grid[0]
print(f"rope2d at {data.image_size[0]}×{data.image_size[1]}, as trained: {accuracy(models['rope2d'], small)}")
for label, model in (("as it is", models["rope2d"]), ("squeezed", squeezed)):
    print(f"rope2d at {larger[0]}×{larger[1]}, {label}: {accuracy_or_error(model, large)}")

# %% [markdown]
# This is *position interpolation* ([Chen et al., *Extending Context Window of Large Language Models via Positional Interpolation*](https://arxiv.org/abs/2306.15595)), and it is to rotation what `resize` is to the table. So RoPE *runs* at any size, without being asked. Whether it is *good* there is another question: what counts is that equal angles mean equal things, and which angles those are depends on whether a larger picture shows larger things or more of them.
#
# (Linformer cannot be asked at all: its P has one row for each token of the training size, whatever the positions. Set `system = "ViL"` to read the message.)

# %% [markdown]
# ### In short
#
# - Adding a table mixes content and place; turning queries and keys makes the score depend on the **offset** alone.
# - 1-D rotation takes a picture for a line. 2-D rotation restores up and down.
# - It is exact for softmax, Nyström and Linformer, and approximate for Performer.
# - "RoPE beats a learned table" may be a matter of how that table starts: compare with *no positions* and with a table that starts quietly before you believe it. With 64 places that start explained the lead, with 1,024 it did not (one epoch, one seed).
# - With rotation a model *runs* at any size. Whether it is right there is another question.
#
# ## 10 · Your turn
#
# **1. A quiet start.** Train the learned model with `position_std=0.1` and draw its similarity map, with nothing subtracted. Is it more accurate, too?
#
# <details><summary>Solution</summary>
#
# ```python
# options = profile.options_for(system, **{**own, "position_std": 0.1}, position="learned")
# quiet = vix.build(system, seed=seed, **options)
# print(vix.fit(quiet, data, profile.train, device=device), "instead of", runs["learned"])
# learned = places.similarity(quiet.position.table[0, 1:].detach().cpu().unflatten(0, quiet.grid))
# places.similarity_maps(learned, "a quiet start, after training")
# print(places.neighbour_similarity(learned))
# ```
#
# The map begins to show what was learned, because that is no longer small beside the start; with 0.02, as in the records of section 8, hardly anything else is in the vectors. Whether the model is more accurate is another question (for photographs, section 8 has records of a start of 0.02). Loud vectors tell the first layer from the first step on *which* place this is, and drown *what* is there; which of the two matters more depends on the data.
# </details>

# %% [markdown]
# **2. Speeds.** The base 10000 was chosen for texts of many thousand words. What do 1-D positions gain from base 100, and 2-D ones lose from 10000? First look at the picture of section 3 with the bases exchanged.
#
# <details><summary>Solution</summary>
#
# ```python
# TURNS = {"1-D, base 100": lambda x: rope(x, steps, 100.0), "2-D, base 10000": lambda x: rope2d(x, side, side, 10_000.0)}
# places.score_maps({"q = k = all ones": {name: s[query] for name, s in score_grids(ones, ones).items()}}, query)
#
# for position, base in (("rope", 100.0), ("rope2d", 10_000.0)):
#     other = vix.build(system, seed=seed, rope_base=base, **profile.options_for(system, **own, position=position))
#     print(position, base, vix.fit(other, data, profile.train, device=device), "instead of", runs[position])
# ```
#
# With base 10000 the slow half of the hands hardly moves over 8 or 32 rows: those pairs carry content without any place. That is not all bad; a head may want some of it. In 1-D base 100 wakes the slow hands, too, but the slowest still turns 1/75 radian a step: in 1,024 tokens it goes around twice, and places far apart look like near ones. In 64 tokens it does not.
# </details>

# %% [markdown]
# **3. Squeeze the line.** One factor on all angles does not repair the 1-D model at the larger size. Why? Which step number must the patch in row r, column c of the larger grid get?
#
# <details><summary>Solution</summary>
#
# With 12 columns instead of 8, the patch in row r and column c has the number 12r + c. Squeezed by 8/12 that is 8r + ⅔c. To the right it is as it should be, ⅔ of a step. But one below is 8 steps, a whole row of training, where it should be ⅔ of one, 16/3 steps. No single factor gives both, because the length of a row has changed, too. So put row and column back where they were in training, as far as a line allows, and count from there:
#
# ```python
# from vixlib.positions import frequencies
#
# line = copy.deepcopy(models["rope"])
#
# def as_in_training(grid, device):
#     rows, columns = (torch.arange(n, dtype=torch.float64) * old / n for n, old in zip(grid, line.grid))
#     steps = torch.cat([torch.zeros(1), 1 + (rows[:, None] * line.grid[1] + columns).flatten()])
#     return torch.outer(steps.to(device), frequencies(line.position.dim_head // 2, line.position.base, device))
#
# line.position.angles = as_in_training
# print(accuracy(models["rope"], small), accuracy_or_error(models["rope"], large), "->", accuracy_or_error(line, large))
# ```
#
# It repairs most of the loss, and cannot repair all of it: 8·⅔r + ⅔c = ⅔(8r + c), so row 1, column 0 gets the same number as row 0, column 8. The places between two rows of training are taken by columns, and 44 of the 144 patches get a number that another has already. A line has no room there; a plane has, which is what 2-D positions have built in.
# </details>

# %% [markdown]
# **4. Behind convolutions.** Train the four kinds of positions once more, in a Hybrid. Predict first: which of the four gains most by the convolutions?
#
# <details><summary>Solution</summary>
#
# ```python
# name = "Hybrid" + system.removeprefix("Hybrid")  # the same mixer
# for position, plain in runs.items():
#     options = profile.options_for(name, **own, position=position, normalisation="batch")  # 03: it starts faster
#     hybrid = vix.fit(vix.build(name, seed=seed, **options), data, profile.train, device=device)
#     print(f"{position:8} {plain}\n      -> {hybrid}")
# ```
#
# An argument for `none`: convolutions with zero padding tell tokens near an edge that they are near an edge, and three of them in a row tell a token about its surroundings, so that even a set of such tokens knows something about places, and less is left for positions to add (compare the authors' HybridViT above). An argument against: with large patches three convolutions see little more than a neighbouring patch, and what lies far apart still has no place. The table of section 8 has the recorded runs: compare the row of a model with that of its Hybrid, column by column. (Those Hybrids have no batch normalisation, yours has.) At `smoke`, seed 0, it is rope2d that gains most; in the records of `quick` it is the learned table, with every mixer; with the other three, softmax's Hybrid is hardly ahead, Linformer's and Nyström's are on average behind, and Performer gains without positions, too. Your run decides for your data; a difference of a point or two needs several seeds.
# </details>

# %% [markdown]
# **Next:** [05 · LeViT and CCT](05_levit_cct.ipynb): the same mixers in hosts that others designed.
