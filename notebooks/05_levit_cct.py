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
# # 05 · LeViT and CCT: the same mixers in other hosts
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/05_levit_cct.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/notebooks/05_levit_cct.ipynb)
#
# **The question.** So far one host carried all mixers, the plain Vision Transformer. Others have redesigned that host since: LeViT made it look like a convolutional network, the Compact Convolutional Transformer (CCT) made it small. Do linear mixers hold up in *their* designs, or did they only look good in a weak host?
#
# **The answer.** In [*Vision Xformers: Efficient Attention for Image Classification*](https://arxiv.org/abs/2107.02239), Table 4, five of six swaps end between 2.2 points below and 4.8 points above the softmax they replace, in 24 to 57 % of the GPU memory that it took in 2021; today's fused softmax needs less than two of the three mixers do (section 5). The sixth, LeViL, falls by 13.9. But only two of the six rows change nothing but the mixer (LeViN gains 4.76, CCP 0.25), and LeViL turns out to be the one model of the eight without *any* normalisation (a difference, not yet a cause: section 7). Section 4 finds that out by counting parameters, section 7 puts recorded runs beside the paper's.
#
# Before this: [02 · Linear attention](02_linear_attention.ipynb) for the mixers, [03 · The Hybrid](03_hybrid.ipynb) for what convolutions in front of them do.

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
swap = "auto"  #@param ["auto", "none", "performer", "linformer", "nystrom", "all"]
#   which linear mixer is trained beside softmax, in LeViT and in CCT
patch_size = 0  #@param [0, 8, 4, 2, 1] {type:"raw"}
#   pixels from one token to the next; 1 makes every pixel a token
dim = 0  #@param {type:"slider", min:0, max:256, step:16}
depth = 0  #@param {type:"slider", min:0, max:8, step:1}
heads = 0  #@param {type:"slider", min:0, max:8, step:1}
num_landmarks = 0  #@param {type:"slider", min:0, max:256, step:4}
#   LeViN, CCN: segment means that stand for all tokens, no more than there are tokens (64 at smoke)
rank = 0  #@param {type:"slider", min:0, max:256, step:4}
#   LeViL, CCL: mixtures that the tokens are reduced to, no more than there are tokens
pictures = 0  #@param {type:"slider", min:0, max:50000, step:500}
#   training pictures; 0: 2,500 at smoke, all of them otherwise
epochs = 0  #@param {type:"slider", min:0, max:40, step:1}
batch_size = 0  #@param {type:"slider", min:0, max:256, step:8}
seed = 0  #@param {type:"integer"}
first_picture = 0  #@param {type:"slider", min:0, max:994, step:1}
#   the first of the six test pictures that section 9 looks at
checkpoints = ""  #@param {type:"string"}
#   a folder, written to after each epoch and continued from; on Colab put it on your Drive

# %%
from dataclasses import replace

from vixlib.errors import require_known

require_known("swap", swap, ("auto", "none", "performer", "linformer", "nystrom", "all"))
profile = vix.current_profile(profile, device)
given = {name: value for name, value in dict(epochs=epochs, batch_size=batch_size).items() if value}
few = {"batch_size": 32} if profile.name == "smoke" else {}  # few pictures: smaller batches give more steps an epoch
profile = replace(profile, data=dataset or profile.data, train=replace(profile.train, seed=seed, **{**few, **given}))
vix.announce(profile, device, "05_levit_cct")

data = vix.load(profile.data)
everything = len(data.train_labels)
wanted = min(pictures or (2500 if profile.name == "smoke" else everything), everything)
data = data.subset(wanted / everything, seed=seed) if wanted < everything else data
print(f"data      {data}")

# %% [markdown]
# ## 3 · The idea: a host decides what a mixer does not
#
# A mixer lets tokens exchange information. Everything else belongs to its **host**: how a picture becomes tokens, how tokens learn their places, what normalises them, and how many tokens become one vector for the classifier.
#
# | | ViT | LeViT, as the paper used it | CCT |
# |---|---|---|---|
# | tokens from | one linear map of each patch | three convolutions | three times convolution, ReLU, max-pooling |
# | places | a learned table | nothing but those convolutions | a learned table |
# | normalisation | LayerNorm before mixer and feed-forward | BatchNorm inside the mixer, none elsewhere | LayerNorm before the mixer, and between mixer and feed-forward in the line itself |
# | one vector | an extra token, CLS | mean of all tokens | weighted mean, *sequence pooling* |
#
# Sources: [Graham et al., *LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference*](https://arxiv.org/abs/2104.01136), [Hassani et al., *Escaping the Big Data Paradigm with Compact Transformers*](https://arxiv.org/abs/2104.05704). LeViT's own design has more to it (stages, a bias for distances), which the paper left out; section 10 puts it back.
#
# Do not take the table on trust. A *forward hook* is a function that PyTorch calls whenever a part of a model has computed something; the next cell hangs one on every part, sends one picture through, and writes down the shapes that come by.

# %%
# NBVAL_CHECK_OUTPUT
from vixlib import figures
from vixlib.figures import hosts

traces = {name: hosts.trace(vix.build(name)) for name in ("ViT", "LeViT", "CCT")}
for name, stages in traces.items():
    print(f"{name:6}" + " → ".join(f"{f'{s.times} × ' if s.times > 1 else ''}{s.kind} {s}" for s in stages))
mixed = {name: next(s.shape[0] for s in stages if s.kind == "block") for name, stages in traces.items()}
assert mixed == {"ViT": 1025, "LeViT": 1024, "CCT": 1024}

# %%
hosts.stage_drawing(traces);

# %% [markdown]
# Each rectangle is what one step gives: its height is the side of the token grid, its width the number of features. Three things to see:
#
# - All three do the same amount of mixing: four blocks on a 32 × 32 grid of 128 numbers. The drawing shows where they differ at the two ends; inside the blocks they differ in normalisation, in the activation that LeViT has behind attention, in how they start, in the branches that CCT leaves out at random, and in the width of the feed-forward (section 4).
# - ViT's blocks have **1025** tokens, one more than the grid has places. LeViT and CCT keep the grid, and what comes out of the last block is still a picture of 32 × 32 places with 128 channels.
# - CCT's pooling has a stride of 1 here, so that it does not shrink anything: the paper wanted all 1024 tokens. In the smaller profiles it does the shrinking.
#
# ### LeViT: a transformer that is written as a convolutional network
#
# LeViT keeps the picture a picture, except inside the attention product itself. Where a transformer has a linear layer for each token, LeViT has a **1 × 1 convolution**, which multiplies the vector at each place with one and the same matrix. That is the same thing under another name:

# %%
# NBVAL_CHECK_OUTPUT
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
picture = torch.randn(2, 128, 8, 8, dtype=torch.float64)   # [B, D, H, W]
tokens = picture.flatten(2).mT                             # [B, N, D]
linear = nn.Linear(128, 384).double()
as_convolution = F.conv2d(picture, linear.weight[:, :, None, None], linear.bias)
same = torch.allclose(as_convolution.flatten(2).mT, linear(tokens), atol=1e-12)
assert same, "the convolution multiplies each place with another matrix than the linear layer, or in another order"
print("1 × 1 convolution = linear layer on every token:", same)

# %% [markdown]
# So a LeViT layer fits into ten lines of convolutions: queries, keys and values from a 1 × 1 convolution with batch normalisation, attention, an activation, another convolution with normalisation; then a feed-forward of two more. `vixlib` writes it with tokens and linear layers. Same weights, both ways. (The gain of the last normalisation starts at *zero*, as in LeViT's own code: every layer begins as if it had no mixer, and training lets it in. `awake` sets it to one where a mixer is to be seen before any training.)

# %%
def conv1x1(x, layer):
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def norm(x, bn):
    return F.batch_norm(x, None, None, bn.weight, bn.bias, training=True, eps=bn.eps)


def levit_layer(x, mixer, ff):
    """[B, D, H, W] -> the same shape; mixer and ff lend their weights."""
    q, k, v = norm(conv1x1(x, mixer.to_qkv), mixer.qkv_norm).flatten(2).chunk(3, dim=1)     # [B, heads·d, N] each
    q, k, v = (part.unflatten(1, (mixer.heads, -1)).mT for part in (q, k, v))               # [B, heads, N, d]
    mixed = (q @ k.mT / q.shape[-1]**0.5).softmax(dim=-1) @ v
    mixed = mixed.mT.flatten(1, 2).unflatten(-1, x.shape[-2:])                              # a picture again
    x = x + norm(conv1x1(F.gelu(mixed), mixer.to_out), mixer.out_norm)
    return x + conv1x1(F.gelu(conv1x1(x, ff[0])), ff[3])                                    # ff: linear, GELU, dropout, linear


def awake(model):
    """The model with all gains of its batch normalisations at one."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.ones_(part.weight)
    return model


# %%
# NBVAL_CHECK_OUTPUT
block = awake(vix.build("LeViT", patch_size=4, depth=1, seed=0)).blocks[0].double()
ours, theirs = levit_layer(picture, block.mixer, block.ff), block(tokens)
error = (ours.flatten(2).mT - theirs).abs().max().item()
assert error < 1e-10, f"differs by {error:.1e}: the scaling, the axis of the softmax, a norm, an activation, a residual?"
print("largest difference from vixlib below 1e-10:", error < 1e-10)

# %% [markdown]
# ### BatchNorm over tokens
#
# A transformer's LayerNorm takes one token and centres and scales its *features*. LeViT's BatchNorm takes one feature and centres and scales it over *all tokens of all pictures* in the batch. A simple experiment shows who is tied to whom: three pictures of four tokens, six features each. Nudge one number (ringed) and colour all outputs that change.

# %%
x = torch.randn(3 * 4, 6, dtype=torch.float64)
nudged = x.clone()
nudged[5, 2] += 1
figure, axes = figures.new_axes(2, width=2.6, height=3.1)
for ax, layer in zip(axes, (nn.LayerNorm(6).double(), nn.BatchNorm1d(6).double()), strict=True):
    changed = (layer(nudged) - layer(x)).abs() > 1e-9
    ax.imshow(changed.numpy(), cmap="Oranges", vmin=0, vmax=1.6, aspect="auto")
    ax.plot(2, 5, "o", markersize=11, markerfacecolor="none", markeredgecolor="black")
    ax.hlines([3.5, 7.5], -0.5, 5.5, color="black", linewidth=1.5)
    ax.set(title=type(layer).__name__.removesuffix("1d"), xlabel="feature", xticks=range(6), yticks=[1.5, 5.5, 9.5])
    ax.set_yticks([1.5, 5.5, 9.5], [f"picture {i}\n(4 tokens)" for i in (1, 2, 3)])
    ax.grid(False)

# %% [markdown]
# With BatchNorm the answer for picture 2 depends, in training, on which other pictures happen to share its batch. What does one get in return? At test time BatchNorm uses averages that it has collected during training. Those are constants, so it is a fixed scaling and shift of each feature, and can be *multiplied into the weights* of the layer before it. A trained LeViT has no normalisation left to compute, which is why a network made for speed wants it. LayerNorm cannot be removed in this way, because it divides every token by a number of its own.

# %%
# NBVAL_CHECK_OUTPUT
def folded(linear, bn):
    """One linear layer that does what linear and then bn do at test time."""
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    bias = 0 if linear.bias is None else linear.bias
    return lambda x: F.linear(x, linear.weight * scale[:, None], (bias - bn.running_mean) * scale + bn.bias)


mixer = block.mixer
with torch.no_grad():
    for _ in range(5):
        mixer.qkv_norm(mixer.to_qkv(torch.randn(8, 64, 128).double()))     # collect averages, as training does
    once = folded(mixer.to_qkv, mixer.qkv_norm)(tokens)
    same = torch.allclose(once, mixer.qkv_norm.eval()(mixer.to_qkv(tokens)), atol=1e-12)
assert same
print("linear + BatchNorm = one linear layer at test time:", same)

# %% [markdown]
# ### CCT: why sequence pooling needs no CLS
#
# After the last block there are N vectors and the classifier wants one. ViT sends a messenger: CLS, a token without a picture, walks through all layers and collects in each what its attention finds; the others' results are thrown away in the end. CCT asks only once, after the last layer. Let xₙ be token n after the last layer. A learned vector w and a number b give it a score, the scores become weights zₙ, and one vector y, their weighted mean, goes to the classifier (Hassani et al. call it *SeqPool*):
#
# $$ z_n = \operatorname{softmax}_n (x_n \cdot w + b), \qquad y = \sum_n z_n\, x_n . $$

# %%
def sequence_pool(x, w, b):
    """[B, N, D] -> [B, D]: a mean of the tokens in which a learned score sets the weights."""
    weights = (x @ w + b).softmax(dim=1)          # [B, N]: one number a token, summing to 1
    return (weights[..., None] * x).sum(dim=1)


# %%
# NBVAL_CHECK_OUTPUT
from vixlib.models.vix import SequencePool

pool = SequencePool(128).double()
w, b = pool.score.weight[0], pool.score.bias
query = (w * 128**0.5).expand(2, 1, 128)          # undoes attention's 1/√D
CHECKS = {
    "equal to vixlib's": (sequence_pool(tokens, w, b), pool(tokens)),
    "w = 0 is the mean of all tokens": (sequence_pool(tokens, 0 * w, b), tokens.mean(dim=1)),
    "attention of one query that is the same for every picture": (
        sequence_pool(tokens, w, b), F.scaled_dot_product_attention(query, tokens, tokens)[:, 0]),
    "b makes no difference": (sequence_pool(tokens, w, b), sequence_pool(tokens, w, b + 7)),
}
for what, (one, other) in CHECKS.items():
    same = torch.allclose(one, other, atol=1e-12)
    print(f"{what}: {same}")
    assert same, f"{what}: apart by {(one - other).abs().max():.1e}"

# %% [markdown]
# The third line is the point. What CLS is in each layer, *a query with which one vector is gathered from all tokens*, sequence pooling is once, at the end: w is the query, and it needs no token of its own because it does not depend on the picture. (It is less: CLS may look for different things in different layers and pictures. Exercise 1 trains both.) In exchange
#
# - every token gets a gradient straight from the loss, and none is thrown away,
# - the tokens stay a picture, N = rows × columns, which convolutions, strides and pooling can work on,
# - and the class score becomes a sum over places, which section 9 draws.
#
# The price is 129 numbers, one of which does nothing: softmax ignores what all scores have in common, and b is common to all. LeViT's plain mean is the case w = 0, "all places count equally".
#
# ### Who knows where its tokens are?
#
# LeViT has no position table. Shuffle the tokens right behind the embedding, the same way for all pictures. If the scores remain the same, nothing in the layers knows about places, and all that the model knows about them must already be *in* the tokens:

# %%
# NBVAL_CHECK_OUTPUT
order, images = torch.randperm(64), torch.randn(2, 3, 32, 32, dtype=torch.float64)


def is_a_set(name, **own):
    own = vix.applicable(name, dict(patch_size=4, dim=64, depth=2, num_landmarks=16, rank=16, **own))
    model = awake(vix.build(name, seed=0, **own)).double().eval()
    with torch.no_grad():
        scores = model(images)
        model.embedding.register_forward_hook(lambda _part, _x, out: out[:, order])
        return torch.allclose(model(images), scores, atol=1e-9)


sets = {name: is_a_set(name) for name in hosts.HOST_OF} | {"CCT without its table": is_a_set("CCT", position="none")}
print("the same scores when the tokens are shuffled:", *(f"  {name}: {same}" for name, same in sets.items()), sep="\n")
assert [name for name, same in sets.items() if same] == ["LeViT", "LeViP", "CCT without its table"]

# %% [markdown]
# To LeViT's and LeViP's layers a picture is a **set** of small windows. LeViN's are told about the order by Nyström's own parts (landmarks are means of *consecutive* tokens, and a convolution runs over 33 of them), LeViL's by the projection P, which has a row for each place. In CCT the table tells all four. So in LeViT two of the three swaps, LeViN and LeViL, bring knowledge about places that the softmax model lacks; in CCT the table has given it to all four before. Remember that when you read the gains in section 7.
#
# ## 4 · The parameters, to the digit
#
# Table 4 prints counts of *torchsummary*, weights and biases of modules, which leave out bare parameters: CCT's position table and Linformer's projections (01, section 6). With `config="paper"` all eight come out:

# %%
# NBVAL_CHECK_OUTPUT
table4 = {row["model"]: row for row in vix.paper_table(4)["rows"]}
models_of_the_paper = {name: vix.build(name, config="paper") for name in table4}
counts = {name: vix.count_parameters(model) for name, model in models_of_the_paper.items()}
for name, row in table4.items():
    true, as_paper = counts[name].true, counts[name].as_paper
    print(f"{name:6} printed {row['params']:9,}   counted the same way {as_paper:9,}   true {true:9,}   "
          f"left out {true - as_paper:7,}")
    assert as_paper == row["params"]
assert 1024 * 128 == 131_072 and 4 * 1024 * 64 == 262_144   # a position table; Linformer's projections in four layers

# %% [markdown]
# A count that agrees to the digit is more than bookkeeping. It fixes what the layers *are*, and lets us ask in what else two rows differ. Read it off the modules:

# %%
# NBVAL_CHECK_OUTPUT
def inside(model):
    """Heads, width of a head, key heads, modules that normalise, hidden width, parameters of the embedding."""
    mixer = model.blocks[0].mixer
    width = mixer.to_out.in_features // mixer.heads
    keys = mixer.to_k.out_features // width if hasattr(mixer, "to_k") else mixer.heads
    norms = [sum(isinstance(m, kind) for m in model.modules()) for kind in (nn.BatchNorm1d, nn.LayerNorm)]
    embedding = sum(p.numel() for p in model.embedding.parameters())
    return mixer.heads, width, keys, *norms, model.blocks[0].ff[0].out_features, embedding


print(f"{'':6}{'heads × width':>14}{'key heads':>11}{'BatchNorms':>12}{'LayerNorms':>12}{'hidden':>8}{'embedding':>11}")
facts = {name: inside(model) for name, model in models_of_the_paper.items()}
for name, (h, width, keys, batch, layer, hidden, embedding) in facts.items():
    print(f"{name:6}{f'{h} × {width}':>14}{keys:>11}{batch:>12}{layer:>12}{hidden:>8}{embedding:>11,}")
assert facts["LeViL"][3:5] == (0, 0) and facts["CCN"][0] == 8

# %% [markdown]
# - **LeViL normalises nothing, anywhere.** LeViT's normalisation sits inside its mixer. The paper's Linformer brings none along, and LeViT's layers have no LayerNorm to fall back on. CCL has the same Linformer between nine LayerNorms. Both, as in HybridViL, share one key head of width 32, whose values are the keys.
# - **LeViP** has a larger embedding and normalises once a layer instead of twice.
# - **CCN** has eight heads where its neighbours have four.
# - What counts cannot tell: CCT's block is not ViT's. As in the published code, the norm before the feed-forward stands in the residual line itself, x = norm(x + attention(norm(x))), then x + ff(x). In training a picture leaves out a branch at random (*stochastic depth*), never in the first layer and one time in ten in the last. Its linear maps and positions start smaller than ViT's, the convolutions of its embedding larger. Left out here is a dropout on CCT's own attention matrix, which linear mixers do not form.
# - Nor can counts tell how LeViT's layers start. Behind its attention stands a BatchNorm whose gain is zero at first, so that LeViT and LeViN begin without their mixer. LeViP and LeViL have no normalisation there: their mixers work from the first step on. And LeViL lacks the GELU between attention and output map, too.
# - The LeViT rows have a hidden width of 256, the CCT rows 512, and another embedding. Table 4 compares mixers within a host; it does not compare LeViT with CCT.
#
# Every printed difference to softmax can be written as a sum of these:

# %%
# NBVAL_CHECK_OUTPUT
inner, norm_of_width = 4 * 32, lambda width: 2 * width
EXPLAINED = {
    "LeViP": 64 * 64 * 9 + 64 + 4 * (3 * inner - norm_of_width(128)),   # a 64→64 convolution; biases; one BatchNorm less
    "LeViL": 4 * (128 * 32 - 2 * 128 * inner                            # one narrow key map for two wide ones;
                  - norm_of_width(3 * inner) - norm_of_width(128)),    # no BatchNorm
    "LeViN": 4 * 4 * 33,                                               # Nyström's convolution, a filter a head
    "CCP": 4 * 3 * inner,                                              # biases
    "CCL": 4 * (128 * 32 - 2 * 128 * inner),                           # one narrow key map for two wide ones
    "CCN": 4 * (4 * 128 * inner + 8 * 33),                             # twice the heads; the convolution
}
for name, host in hosts.SWAPS:
    difference = table4[name]["params"] - table4[host]["params"]
    print(f"{name:6} less {host:5} {difference:+9,}   explained {EXPLAINED[name]:+9,}")
    assert difference == EXPLAINED[name]

# %% [markdown]
# **Only LeViN and CCP are swaps of the mixer alone**, up to 528 filter weights and 1,536 biases. `config="uniform"`, which the profiles `smoke` and `quick` train, mends what can be mended: four heads, one embedding and one hidden width a host. What it leaves is LeViP's single BatchNorm a layer, with the other start that comes of it, and LeViL, because that *is* the paper's Linformer. Exercise 3 gives LeViL a normalisation; its start and the missing activation stay.
#
# ## 5 · What it costs
#
# Bytes that one layer of each host keeps for the backward pass, for one picture: mixer, normalisation and feed-forward together. Softmax appears twice, as in notebook 02: *materialised*, with its N × N matrix stored as was usual in 2021, and *fused*, by today's kernels.

# %%
from vixlib.measure import mixer_bytes

SIDES = (8, 16, 32, 48)
LENGTHS = [side**2 for side in SIDES]


def layers(host):
    """A function from the number of tokens to one layer of the host, for each mixer."""
    def layer(name, **own):
        return lambda n: vix.build(name, depth=1, image_size=round(n**0.5), **own).blocks[0]
    return {"softmax materialised": layer(host, fused=False)} | {
        hosts.MIXER_OF[name]: layer(name) for name in (host, *hosts.HOSTS[host])}


kept = {host: mixer_bytes(layers(host), LENGTHS, dim=128) for host in hosts.HOSTS}

# %%
figure, axes = figures.new_axes(2)
for ax, (host, values) in zip(axes, kept.items(), strict=True):
    figures.cost_curves(ax, LENGTHS, {name: [b / 2**20 for b in costs] for name, costs in values.items()},
                        f"{host}: kept by a layer (MiB an image)")
    figures.slope_guides(ax, LENGTHS, {1: values["linformer"][-1] / 2**20})

# %%
for host, values in kept.items():
    stored = values["softmax materialised"][-1]
    print(f"{host}, a layer at {LENGTHS[-1]:,} tokens, in % of materialised softmax: "
          + ", ".join(f"{'fused softmax' if name == 'softmax' else name} {costs[-1] / stored:.0%}"
                      for name, costs in values.items() if costs[-1] != stored))

# %% [markdown]
# CCT adds a fixed number of bytes for each token, whatever the mixer. LeViT nearly does: its normalisation and activation belong to the mixer, and Linformer has neither. In both hosts a swap saves the same matrix. That is the paper's claim about memory, and it does not depend on the host.
#
# Now read the line of fused softmax. It keeps *less* than Performer and Nyström, in both hosts and at every length drawn; only Linformer keeps less than it does. The paper's saving is one over a matrix that need no longer be stored. What linear mixers have left to win is time, on sequences long enough (02, section 6).
#
# How close is the materialised form to the paper's last column? Whole models now, in the paper's layers, softmax materialised. Bytes for one picture are no gigabytes of a training step, but *shares* of softmax can be compared:

# %%
from vixlib.measure import kept_for_backward


def megabytes(name, **own):
    model = vix.build(name, config="paper", **own)
    return kept_for_backward(model, lambda: model(torch.randn(1, 3, 32, 32))) / 2**20


held = {name: megabytes(name, **({"fused": False} if name in hosts.HOSTS else {})) for name in table4}
print(f"{'':6}{'paper':>10}{'':11}{'kept here, an image':>24}")
for name, row in table4.items():
    host = hosts.HOST_OF[name]
    print(f"{name:6}{row['gpu_gb']:7.1f} GB  ({row['gpu_gb'] / table4[host]['gpu_gb']:4.0%}){held[name]:15.1f} MiB "
          f"({held[name] / held[host]:4.0%})")
for host, swaps in hosts.HOSTS.items():
    for where, cost in (("the paper", lambda name: table4[name]["gpu_gb"]), ("here", held.get)):
        print(f"most memory first, {where}: {' > '.join(sorted((host, *swaps), key=cost, reverse=True))}")

# %% [markdown]
# Softmax needs most and Linformer least in both columns and both hosts. Between them the order of Nyström and Performer depends on the implementation (vixlib, for instance, recomputes Nyström's pseudo-inverse in the backward pass instead of keeping all of its iterations) and on the rows: the paper's CCN has eight heads where CCP has four.
#
# ## 6 · Training
#
# Softmax and one linear mixer (`swap`) in each host, everything else equal within a host (with Nyström; section 4 says what comes along with the other two): seed, order of the pictures, number of steps. Hollow circles and dashes are LeViT's, filled squares and solid lines CCT's; the colour is the mixer's. Interrupting (the stop button) stops *one* run and goes on with the next.

# %%
grid = [-(-side // (patch_size or profile.options.get("patch_size", 1))) for side in data.image_size]
# Defaults are cut to the number of tokens; what you choose yourself is taken as it is.
own = {name: min(profile.options.get(name, 64), grid[0] * grid[1]) for name in ("num_landmarks", "rank")}
chosen = {name: value for name, value in dict(
    patch_size=patch_size, dim=dim, depth=depth, heads=heads, num_landmarks=num_landmarks, rank=rank).items() if value}
own |= chosen | dict(image_size=data.image_size, channels=data.channels, num_classes=data.num_classes)

beside = {"auto": ["nystrom"], "none": [], "all": ["performer", "linformer", "nystrom"]}.get(swap, [swap])
names = [name for name, mixer in hosts.MIXER_OF.items() if mixer in ("softmax", *beside)]


def fresh(name, **more):
    return vix.build(name, config=profile.config, seed=seed, **profile.options_for(name, **{**own, **more}))


models = {name: fresh(name) for name in names}
for name, model in models.items():
    print(f"{name:6} {vix.count_parameters(model).true:9,} parameters, {grid[0] * grid[1]:,} tokens")

# %%
runs, draw = {}, figures.live_curves(f"{data.name}, {grid[0] * grid[1]:,} tokens", style=hosts.line_style)
for name, model in models.items():
    path = Path(checkpoints) / f"05_{profile.name}_{name}.pt" if checkpoints else None
    runs[name] = vix.fit(model, data, profile.train, checkpoint=path, device=device, on_epoch=draw)
for run in runs.values():
    print(run)

# %% [markdown]
# The pictures of `smoke` are made for a question like section 3's. Their class is two facts at once: how the stripes of a figure run (a detail that a small window shows) and where the figure lies, seen from a frame (which needs places; "place" below). So one can ask for each of them separately how often a model is right about it. One model more is asked here, a CCT without its table of positions (`position="none"`): a set, as LeViT is, and in all else a CCT.

# %%
if data.name == "shapes":
    bare = fresh("CCT", position="none")
    path = Path(checkpoints) / f"05_{profile.name}_CCT_bare.pt" if checkpoints else None
    vix.fit(bare, data, profile.train, checkpoint=path, device=device)
    for name in ("LeViT", "CCT"):
        window, step = 1, 1  # of the pixels that a token is made of; between two places
        for part in models[name].embedding.modules():
            if isinstance(part, (nn.Conv2d, nn.MaxPool2d)):
                wide, stride = (size[0] if isinstance(size, tuple) else size for size in (part.kernel_size, part.stride))
                window, step = window + (wide - 1) * step, step * stride
        print(f"a token of {name} is made of {window} × {window} of the {' × '.join(map(str, data.image_size))} pixels")
    print(f"\n{'':16}{'class':>8}{'stripes':>10}{'place':>8}    (percent right; guessing: 10, 50, 20)")
    drawn = data.some(1000)
    for name, model in {**models, "CCT, no table": bare}.items():
        guess, truth = vix.predict(model, data.test_images[drawn]).argmax(dim=1).cpu(), data.test_labels[drawn].cpu()
        right = [(of(guess) == of(truth)).float().mean().item() for of in (lambda y: y, lambda y: y // 5, lambda y: y % 5)]
        print(f"{name:16}{right[0]:8.0%}{right[1]:10.0%}{right[2]:8.0%}")
else:
    print(f"{data.name}: a class here is not made of two facts that could be told apart")

# %% [markdown]
# Look at the last column. In the few steps of `smoke`, CCT, which is told its places, learns them; LeViT, to whose layers a picture is a set, learns the stripes first and may still be guessing about places. But a set of *what*? A CCT without its table is one as well, and gets far, too (change `seed` in the form: now it is behind the one with the table, now ahead). The first lines above say what differs: convolution and pooling, three times over, have put nearly the whole picture into each of CCT's tokens, figure and frame together, before any layer. A set of small windows has only their overlaps and the zeros around the picture to find places by. LeViT learns from those as well, if it is given longer: try `pictures = 10000` and `epochs = 6`. An order of its own (LeViN's layers are no set, section 3) helps only then, and then a great deal. So the column does not tell whether being a set is what holds LeViT back; windows, normalisation, starting weights, pooling and the width of the feed-forward differ, too.
#
# Do not take the column for proof of *relations* (where one figure lies, seen from the other), though: in four pictures of five, where the striped figure stands *in the picture* gives its place away, since a figure that is left of something cannot be at the right edge. Up to about 80 % no relation need have been learned; only what is beyond that asks for one.
#
# ## 7 · The table
#
# Table 4 from all sources: the paper, this project's recorded runs, and what you have just trained. The authors' logs on CIFAR-10, which stood beside Tables 1 and 3, do not include these hosts; those that exist are for another data set and follow below.

# %%
vix.compare(4, runs=runs.values())

# %% [markdown]
# ### "Performs comparably in modern hosts"
#
# That is the claim. As numbers: the accuracy of each swap less that of its host's softmax, in points, source by source.

# %%
from vixlib.report import Table

found = hosts.gains(runs.values())
swaps = [name for name, _ in hosts.SWAPS]
Table("Swap less softmax in the same host: top-1, in percentage points", ["source", *swaps],
      [[source, *(f"{gain[name]:+.2f}" if name in gain else "-" for name in swaps)] for source, gain in found.items()],
      ("paper: best epochs; recorded and this run: last epochs, over the seeds that both have. -: the source lacks one of them",))

# %% [markdown]
# What is "comparable"? The paper does not say. Both numbers of a difference are the best test epoch of the best of three runs, and that selection alone can move each of them by a point or two, and by more where seeds differ much (compare *best*, here the best of the seeds, with their mean in the table above). So count a loss of up to three points as comparable, and check whether two would change the answer. The sentences are computed from the means when the cell runs; how sure the recorded ones are, the intervals below say:

# %%
for source, gain in found.items():
    for margin in (3, 2):  # points
        fails = [f"{name} ({points:+.1f})" for name, points in gain.items() if points < -margin]
        print(f"{source}: {len(gain) - len(fails)} of {len(gain)} swaps lose no more than {margin} points"
              + (f"; not so {', '.join(fails)}" if fails else ""))
shares = [table4[name]["gpu_gb"] / table4[host]["gpu_gb"] for name, host in hosts.SWAPS]
print(f"The paper's swaps need {min(shares):.0%} to {max(shares):.0%} of the GPU memory of their softmax.")

# %% [markdown]
# The recorded runs, equal in everything but the system, as pairs with a verdict each (fewer than three seeds show a direction and decide nothing), and what each system costs. (The paper's gigabytes are above what is predicted here in float32 in every row, most of all LeViN's; as in 02, section 8, the reason is not known. Compare shares, not gigabytes.)

# %%
from vixlib.report import verdict_table

verdict_table("05")

# %% [markdown]
# The claim leaves out Linformer, whose row in LeViT is the one that falls. The same comparison for it:

# %%
from vixlib.report import claims

print(*claims([("LeViL", "LeViT"), ("CCL", "CCT")]), sep="\n")

# %%
from vixlib.report import cost_table

cost_table(4)

# %%
if ((profile.name, data.name) == ("paper", "cifar10") and not given and not chosen and wanted == everything
        and all(run.finished for run in runs.values())):
    print("This run follows the paper's protocol, with one seed.")
else:
    print(f"This run is no reproduction: {wanted:,} pictures of {data.name}, {grid[0] * grid[1]:,} tokens, "
          f"{profile.train.epochs} epoch(s), one seed. It is no evidence for or against the paper's claim.")

# %% [markdown]
# ### What the authors' logs can tell
#
# Logs of four of the eight systems are public, all on Tiny ImageNet (200 classes). Their printed counts tell which layers were trained, and these are not those of Table 4:

# %%
# NBVAL_CHECK_OUTPUT
LOGGED = {"CCN": {}, "CCP": {}, "LeViN": {"qkv_norm": False, "out_norm": False}, "LeViP": {"qkv_norm": False}}
for name, without in LOGGED.items():
    log, = vix.authors_runs(name, "none", dataset="tiny-imagenet")  # filed under "none": they do not say
    count = vix.count_parameters(vix.build(name, num_classes=200, **without)).as_paper
    print(f"{name:6} log {log['params_torchsummary']:,}   uniform layers{', no BatchNorm' if without else '':14} {count:,}   "
          f"best top-1 {log['best_top1']:.2f} in {len(log['top1'])} epochs{', resumed' if log['resumed'] else ''}")
    assert count == log["params_torchsummary"]

# %% [markdown]
# ### What agrees, what does not, and why
#
# - **All eight counts agree**, and so does the order of memory at both ends.
# - **Neither of the two clean swaps loses accuracy in the paper**: LeViN +4.76, CCP +0.25. The other three that lose no more than three points changed something else as well (CCN's heads, LeViP's embedding, CCL's key head).
# - **LeViN's gain is not evidence for Nyström attention** alone. It is the one LeViT row with neighbourhood built in; LeViL knows places as well (section 3), but has no normalisation (next point). Where a position table tells everyone, in CCT, the paper's gain is 0.86, with twice the heads. That fits, and does not prove it. The recorded short runs do not bear it out: CCN, with as many heads as CCT, is ahead of it as well, and whether LeViN is ahead of LeViT is undecided there. Exercise 2 takes the convolution out.
# - **LeViL's fall is not evidence against Linformer** alone. The same Linformer loses 2.2 points in CCT, between LayerNorms, and 13.9 in a model without normalisation. But the missing normalisation is a suspect, not a culprit (nor is the missing activation, or the start, section 4). Against it speak two things. In the recorded `quick` runs (one epoch of 64 tokens) LeViL lacks it as well and is *ahead* of softmax, the only LeViT row that is decided either way (and CCL, between LayerNorms, is ahead of CCT). And the authors' logged LeViP and LeViN have none, either, and LeViP's 41.05 % is above CCP's 40.12 %, in 39 epochs against 22. It may matter in long trainings, or with 1024 tokens. Exercise 3 is an experiment on it.
# - **The logs have a Nyström and a Performer in each host and no softmax**, so they cannot say what a swap costs. What they do say: these runs had LeViT's layers without any BatchNorm and CCN with four heads, and Performer and Nyström came out close together in CCT (40.1 and 40.8 %).
# - **Accuracies are best test epochs** of the best of three runs, and *Size (MB)* is torchsummary's estimate, as before.
#
# ## 8 · Memory against accuracy
#
# Table 4 as a picture: a line leads from each host's softmax to each of its swaps. Left is cheaper, up is better. Circles and dashes are LeViT's, squares and solid lines CCT's; the area of a marker is the *true* number of parameters.

# %%
recorded = hosts.recorded_points()
protocol = [point for group, points in recorded.items() if group.profile == "paper" for point in points]
others = {group: points for group, points in recorded.items() if group.profile != "paper"}
figure, axes = figures.new_axes(rows=1 + len(others), width=7, height=3.9, squeeze=False)
hosts.accuracy_against_memory(axes[0, 0], hosts.paper_points() + protocol, "CIFAR-10, 1024 tokens, batch 64")
for ax, (group, points) in zip(axes[1:, 0], others.items(), strict=True):
    hosts.accuracy_against_memory(ax, points, f"recorded, {group}")

# %%
print(f"{len(protocol)} of the eight systems are recorded here by the paper's protocol." if protocol else
      "No run by the paper's protocol is recorded yet: the first panel shows the paper's own numbers alone.")
for group, points in recorded.items():
    predicted = sum(point.source == "predicted" for point in points)
    print(f"{group}: memory measured on a GPU for {len(points) - predicted} system(s), predicted (float32) for {predicted}")

# %% [markdown]
# In the paper's numbers the three lines of CCT are nearly level: **memory is saved at about equal accuracy** (CCL pays 2.2 points), beside a softmax that stores its matrix. LeViT's rise to the left, but for LeViL's, and it needs more than the mixer to explain that. Note also how close the two softmax models are in memory and how far apart in accuracy: the rest of the design (embedding, positions, normalisation, a feed-forward of twice the width, pooling) weighs as much as the mixer. (Panels of recorded runs with larger patches are another matter: at 64 tokens there is hardly a matrix to save, as the left ends of section 5's curves show, and a line may well lead to the right.)
#
# ## 9 · Look inside: what each place says
#
# Neither host has a CLS. Their last vector is a weighted mean of tokens, the classifier is linear, and so the score of a class is a **sum over places**: score = Σ zₙ · (W xₙ + c), where W and c are the classifier's, xₙ is a token after the last layer (in CCT: after the final norm), and zₙ is 1/N in LeViT and learned in CCT. (c may stand inside the sum because the zₙ add up to one.) What a place adds to the score can be drawn, without any approximation (Zhou et al., [*Learning Deep Features for Discriminative Localization*](https://arxiv.org/abs/1512.04150), do this for convolutional networks).

# %%
def by_place(model, images):
    """Weights of the places [B, N], and what each adds to each class score [B, N, classes]."""
    x = model.tokens(images)
    if isinstance(getattr(model, "pool", None), SequencePool):      # CCT
        x = model.norm(x)
        weights = model.pool.weights(x)
    else:                                                           # LeViT: all places count equally
        weights = torch.full(x.shape[:2], 1 / x.shape[1], device=x.device)
    return weights, weights[..., None] * model.head(x)


shown = torch.arange(first_picture, first_picture + 6) % len(data.test_labels)
seen, labels = data.batch(shown, "test")
with torch.no_grad():
    found_in = {name: by_place(models[name].eval(), seen.to(device)) for name in ("LeViT", "CCT")}
    for name, (_, parts) in found_in.items():
        scores = models[name](seen.to(device))
        print(f"{name:6} parts add up to the scores: {torch.allclose(parts.sum(dim=1), scores, atol=1e-3)}")

# %% [markdown]
# Six test pictures. First line: the picture, its class, and which of the two models is right about it (✓). Second: CCT's pooling weights, in multiples of the mean's 1/N, so that mean pooling would be white everywhere. Then what each place adds to the score of the *true* class, less what it adds to that of its strongest rival: orange speaks for the truth, purple against it. A ✓ stands where the whole map adds up to more than zero.

# %%
import textwrap


def for_the_truth(parts):
    parts, truth, rows = parts.cpu(), labels.cpu(), torch.arange(len(labels))
    others = parts.sum(dim=1)
    others[rows, truth] = -torch.inf
    rival = others.argmax(dim=1)                                    # of the wrong classes the one with the highest score
    return (parts[rows, :, truth] - parts[rows, :, rival]).unflatten(1, tuple(grid))


def right_or_wrong(i):
    """The class of picture i, and which model recognises it."""
    marks = (f"{name} {'✓' if parts[i].sum(dim=0).argmax() == labels[i] else '✗'}" for name, (_, parts) in found_in.items())
    return f"{textwrap.fill(data.classes[labels[i]], 20)}\n{', '.join(marks)}"


even = grid[0] * grid[1]
pool_weights = found_in["CCT"][0].cpu().unflatten(1, tuple(grid)) * even
hosts.overlays(data.test_images[shown].cpu(), pool_weights,
               {f"{name}: for the\ntrue class": for_the_truth(parts) for name, (_, parts) in found_in.items()},
               [right_or_wrong(i) for i in range(len(shown))]);

# %% [markdown]
# How much does the pooling choose? Two numbers: how many places hold half of the weight (in a plain mean: half of them), and what is lost if the trained model is made to weigh all places equally, without training it for that.

# %%
import copy

many, drawn = data.some(512), data.some(1000)
evenly = copy.deepcopy(models["CCT"])
evenly.pool = None                                                  # ViX then takes the mean
with torch.no_grad():
    for label, model in (("untrained", fresh("CCT").to(device)), ("trained", models["CCT"])):
        weights = by_place(model.eval(), data.batch(many, "test")[0].to(device))[0]
        half = (weights.sort(dim=1, descending=True).values.cumsum(dim=1) < 0.5).sum(dim=1) + 1
        print(f"CCT {label:10} half of the weight lies on {half.float().mean() / even:.0%} of the places")
for label, model in (("learned weights", models["CCT"]), ("all places equal", evenly)):
    right = (vix.predict(model, data.test_images[drawn]).argmax(dim=1).cpu() == data.test_labels[drawn].cpu()).float().mean()
    print(f"CCT, {label:17} {right:.1%} top-1 of {len(drawn):,} test pictures")

# %% [markdown]
# Compare how widely the evidence is spread. LeViT's mean gives every place one voice, so that all of them have to be brought to say something; CCT may leave the answer to a few. How far it went down that road in this training is what the two numbers above tell. Mind that each row of maps has its own scale, and that a model that still guesses about places (section 6) cannot show *where* anything is: then its map is about stripes.
#
# One caution before you read the maps as "where the model looks". A place that the pooling passes over (purple) can still matter, since attention has carried what was there to other tokens: after the last layer a token stands for more than its window, and CCT may well collect its answer on empty background.
#
# ## 10 · LeViT as its authors built it
#
# The paper used LeViT's layer and left out what makes LeViT a pyramid. `vixlib` has these as options: several **stages** with *shrinking attention* between them (queries from every second row and column only, so that a quarter of the tokens comes out), **Hardswish** as activation, and the **attention bias**, a learned number for each head and each distance between two tokens, added to the scores. (Not included: a stem with batch normalisation and Hardswish that shrinks the picture sixteenfold, narrower keys, more heads and wider values where it shrinks with a feed-forward behind, normalisation in the feed-forward, a bias in the shrinking attention, and the distillation head. The three convolutions here have nothing between them: together they are *one* linear map of 7 × 7 pixels, see 03.)

# %%
# NBVAL_CHECK_OUTPUT
full = dict(dim=(64, 96, 128), depth=(2, 2, 2), activation="hardswish", out_activation="hardswish")
pyramid = vix.build("LeViT", **full, attention_bias=True)
stages = hosts.trace(pyramid)
print(" → ".join(f"{f'{s.times} × ' if s.times > 1 else ''}{s.kind} {s}" for s in stages))
biases = [block.mixer.distance_bias for block in pyramid.blocks]
print("biases a layer:", ", ".join(f"{bias.shape[0]} heads × {bias.shape[1]:,} distances" for bias in biases[::2]))
assert [s.shape[0] for s in stages if s.kind in ("block", "shrink")] == [1024, 256, 256, 64, 64]

# %%
hosts.stage_drawing({"LeViT as the paper used it": traces["LeViT"], "LeViT with three stages": stages});

# %% [markdown]
# This is another answer to N²: not a cheaper mixer, but **fewer tokens** as soon as possible. Does it save memory, too? And what does the bias do to it?

# %%
DESIGNS = {"one stage": {}, "three stages": full, "three stages, attention bias": {**full, "attention_bias": True}}
held = {}
for what, options in DESIGNS.items():
    for form, fused in (("materialised", False), ("fused", True)):
        model = vix.build("LeViT", **options, fused=fused)
        held[what, form] = kept_for_backward(model, lambda m=model: m(torch.randn(2, 3, 32, 32))) / 2 / 2**20
    print(f"{what:30} {vix.count_parameters(model).true:9,} parameters; kept for one image: "
          + ", ".join(f"{form} {held[what, form]:5.1f} MiB" for form in ("materialised", "fused")))
with_bias, without = held["three stages, attention bias", "fused"], held["three stages", "fused"]
print(f"The bias makes the fused form keep {with_bias / without:.1f} times what it keeps without.")

# %% [markdown]
# The stages save what belongs to tokens that are no longer there. With a materialised matrix the bias costs next to nothing more, because it is added to what is stored anyway. With the fused kernel it costs more than the stages save: it is added to the N × N scores, one number a pair and head, and PyTorch's fused kernel for CPUs takes no bias that is to be *learned*. So the matrix is stored after all, and the two forms come to the same. (Other kernels may do better.)
#
# Why may the paper have dropped the bias? For the other mixers there is nothing to add it to. It belongs to *pairs* of tokens, and the linear mixers are linear because they never write down pairs. `vixlib` says so instead of leaving it out silently:

# %%
# NBVAL_CHECK_OUTPUT
refused = []
for name in ("LeViP", "LeViL", "LeViN"):
    try:
        vix.build(name, attention_bias=True)
    except ValueError as error:
        refused.append(name)
        print(f"{name}: {error}")
assert refused == ["LeViP", "LeViL", "LeViN"]

# %% [markdown]
# And one property to know before you expect it to replace a position table. The bias is learned for |row offset| and |column offset|, so "three to the left" and "three to the right" are one number:

# %%
# NBVAL_CHECK_OUTPUT
from vixlib.mixers.softmax import grid_distances

distances = grid_distances(8, 8)
print("from a to b and from b to a share a bias:", torch.equal(distances, distances.T))
print(f"pairs of tokens: {distances.numel():,}, different biases: {len(distances.unique())}")
assert torch.equal(distances, distances.T) and len(distances.unique()) == 64

# %% [markdown]
# Does a LeViT with the bias still see a set? Section 3's test once more, first as built (all biases start at zero), then with biases that differ:

# %%
# NBVAL_CHECK_OUTPUT
biased = awake(vix.build("LeViT", seed=0, patch_size=4, dim=64, depth=2, attention_bias=True)).double().eval()
some, order = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.randperm(64)


def in_any_order(model):
    with torch.no_grad():
        scores = model(some)
        hook = model.embedding.register_forward_hook(lambda _part, _images, tokens: tokens[:, order])
        same = torch.allclose(model(some), scores, atol=1e-9)
        hook.remove()
    return same


at_start = in_any_order(biased)
for block in biased.blocks:
    nn.init.normal_(block.mixer.distance_bias)
print(f"the same scores in any order: as built {at_start}, with biases that differ {in_any_order(biased)}")
assert at_start and not in_any_order(biased)

# %% [markdown]
# So the bias *can* tell places apart, once it has been learned. That it can does not mean that it does so in a few epochs: train `fresh("LeViT", attention_bias=True)` and compare.

# %% [markdown]
# ### In short
#
# - A host decides how tokens are made, how they learn their places, what normalises them and how they become one vector. A swap of the mixer is clean only where all of that stays: in two of the paper's six rows.
# - LeViT's layers see a set unless the mixer brings an order along; CCT's are told their places.
# - BatchNorm becomes part of the weights after training, LayerNorm cannot.
# - Sequence pooling is one attention query, the same for every picture.
# - The memory that a swap saves is that of the stored matrix. A fused kernel saves it, too, without a swap.
#
# ## 11 · Your turn
#
# **1. CLS, mean or sequence pooling?** Train CCT with each of the three. Is the best one also the one with the most parameters?
#
# <details><summary>Solution</summary>
#
# ```python
# for pool in ("cls", "mean", "sequence"):
#     model = fresh("CCT", pool=pool)
#     print(f"{pool:9} {vix.count_parameters(model).true:,}", vix.fit(model, data, profile.train, device=device))
# ```
#
# CLS adds a token and a row to the position table, sequence pooling a vector and a number that does nothing. At `smoke`, seed 0, sequence pooling is far ahead, the mean with the fewest parameters second, and CLS last, which has the most. In short trainings CLS is often behind: gradients reach the other tokens only through its attention, and at the start that passes on some twenty times less than the other two do. One seed proves little; run three.
# </details>

# %% [markdown]
# **2. Does LeViN need its convolution?** Train LeViN without its convolution (`conv_kernel=0`) and compare it with LeViN and LeViT. Then check with section 3's function whether its layers still know about places.
#
# <details><summary>Solution</summary>
#
# ```python
# print("a set without its convolution:", is_a_set("LeViN", conv_kernel=0))
# for name, more in (("LeViT", {}), ("LeViN", {}), ("LeViN", {"conv_kernel": 0})):
#     print(name, more, vix.fit(fresh(name, **more), data, profile.train, device=device))
# ```
#
# It is no set even then, because landmarks are means of tokens that follow each other. But a token no longer learns what its own neighbours are. If accuracy falls to LeViT's, then in *this* training the gain came from the convolution; if it stays, from the rest of Nyström, whose landmarks know the order, too. (At `smoke` all three are still at the stripes, 20 %, where nothing can be told. With `pictures = 10000` and `epochs = 6`, seed 0, LeViN is far ahead, and without its convolution it is level with LeViT: there the gain is the convolution's.) Where LeViN is not ahead of LeViT, there is no gain to explain. What holds in Table 4 takes its protocol and several seeds.
# </details>

# %% [markdown]
# **3. Give LeViL a normalisation.** A mixer is any class with the mixers' interface. Write a Linformer with a batch normalisation in front (LeViT's other mixers have theirs behind the maps to queries, keys and values) and put it into LeViT.
#
# <details><summary>Solution</summary>
#
# ```python
# from vixlib.mixers import BatchNormTokens, LinformerAttention
#
# class NormedLinformer(LinformerAttention):
#     """Linformer behind batch normalisation, [B, N, D] -> [B, N, D]."""
#
#     def __init__(self, dim, *, heads, dim_head, seq_len, rank=64):
#         super().__init__(dim, heads=heads, dim_head=dim_head, seq_len=seq_len, rank=rank)
#         self.norm = BatchNormTokens(dim)
#
#     def forward(self, x, rotary=None):
#         return super().forward(self.norm(x), rotary)
#
# for more in ({}, {"mixer": NormedLinformer}):
#     print(vix.fit(fresh("LeViL", **more), data, profile.train, device=device))
# ```
#
# Watch the training loss, too (and set `pictures = 10000`, `epochs = 6` at `smoke`, or there is little to see; with seed 0 the normalised one learns much sooner, and both end ahead of LeViT, to which a picture is a set). A network of four layers can be trained without normalisation, only less surely and with smaller steps.
# </details>

# %% [markdown]
# **4. Numbers that do nothing.** b of the sequence pooling cannot change any result. Find all such parameters of LeViT, LeViP and CCT by their gradients. Why are there more in LeViP than in LeViT?
#
# <details><summary>Solution</summary>
#
# ```python
# for name in ("LeViT", "LeViP", "CCT"):
#     model = awake(vix.build(name, config="paper", patch_size=8, seed=0)).double().train()
#     F.cross_entropy(model(torch.randn(8, 3, 32, 32).double()), torch.arange(8)).backward()
#     idle = {key: p.numel() for key, p in model.named_parameters() if p.grad.abs().max() < 1e-12}
#     print(name, sum(idle.values()), sorted({key.split("mixer.")[-1] for key in idle}))
# ```
#
# (Before the first step LeViT's gains of zero hide the whole mixer; `awake` lets it be seen.) A bias right before a BatchNorm is subtracted again with the mean: LeViT's after attention (4 × 128), LeViP's of queries, keys and values (4 × 384). All are in the counts of section 4. In CCT it is b. Softmax attention has such a bias as well where it has one at all: a constant added to all keys shifts all scores of a query alike.
# </details>

# %% [markdown]
# **Next:** [06 · CXV and CvT](06_cvt_cxv.ipynb): hosts with a convolution in every stage, or in every layer.
