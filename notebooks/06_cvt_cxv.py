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
# # 06 · CXV and CvT: a convolution in every layer
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/06_cvt_cxv.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/notebooks/06_cvt_cxv.ipynb)
#
# **The question.** The Hybrid of notebook 03 has three convolutions *in front of* the transformer and none in it. What changes if there is one *inside every layer*, and the class token and the positions are left out in exchange?
#
# **The answer.** [*Convolutional Xformers for Vision*](https://arxiv.org/abs/2201.10271) (CXV) is by the authors of this series' paper. A summary of it in the newsletter *The Batch* quotes three accuracies on CIFAR-10: **91.42 %** for CPV, a CXV with Performer; **77.54 %** for a HybridViP with about as many parameters and nearly twice the memory; 86.29 % for a ResNet-18 with eight times CPV's parameters. This notebook had the summary, the abstract and the authors' code, not the article's own tables: what is called *missing* below is missing there. What we find: the 3 × 3 convolution in each layer takes the place of positions (section 3), and of a layer's three parts it is the one that is missed most (section 8). It is half of CPV's parameters, and CPV keeps 13 times ResNet-18's bytes for the backward pass (section 5). The quoted accuracies stand unconfirmed. In the short runs that are recorded here so far (section 7: one epoch of photographs in 4 × 4 patches, one learning rate for all) CPV is ahead of FNet alone and 20 points behind the ResNet, some of which a smaller rate gives back. That decides nothing about 40 epochs on pixels.
#
# Before this: [02 · Linear attention](02_linear_attention.ipynb) for the mixers and [03 · The Hybrid](03_hybrid.ipynb) for what a convolution is.

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
systems = "auto"  #@param ["auto", "CXV", "CvT", "all"]
#   which rows of the table are trained; CPV always is
ablated = "CPV"  #@param ["CPV", "CNV", "CLTV"]
#   the model that section 8 takes apart
ablation_seeds = 1  #@param {type:"slider", min:1, max:5, step:1}
#   runs of each variant there
patch_size = 0  #@param [0, 4, 2, 1] {type:"raw"}
#   pixels from one token to the next; 1 makes every pixel a token
dim = 0  #@param {type:"slider", min:0, max:256, step:16}
depth = 0  #@param {type:"slider", min:0, max:8, step:1}
#   layers; of CvT: stages of one layer each
heads = 0  #@param {type:"slider", min:0, max:8, step:1}
num_landmarks = 0  #@param {type:"slider", min:0, max:256, step:4}
#   CNV and CvN: segment means that stand for all tokens, no more than there are tokens (64 at smoke)
feature_map = "softmax"  #@param ["softmax", "elu"]
#   of CLTV's linear attention
initialisation = "auto"  #@param ["auto", "torch", "he"]
#   the convolutions' starting weights, see section 6
pictures = 0  #@param {type:"slider", min:0, max:50000, step:500}
#   training pictures; 0: 3,500 at smoke, all of them otherwise
epochs = 0  #@param {type:"slider", min:0, max:40, step:1}
switch_epoch = 0  #@param {type:"slider", min:0, max:41, step:1}
#   the first epoch with SGD; 0: for the last quarter, beyond the last epoch: never
sgd_lr = 0.0  #@param {type:"number"}
batch_size = 0  #@param {type:"slider", min:0, max:256, step:8}
seed = 0  #@param {type:"integer"}
picture = 1  #@param {type:"slider", min:0, max:999, step:1}
#   the test picture that is looked at
checkpoints = ""  #@param {type:"string"}
#   a folder, written to after each epoch and continued from; on Colab put it on your Drive

# %% [markdown]
# `smoke` needs some choices of its own here, because a convolution in each layer costs a CPU several times what a plain layer does: narrow models, 3,500 training and 1,000 test pictures, many small steps. And no dropout: CXV's own is 0.5, against overfitting in long trainings, and five epochs are too short to need it.

# %%
from dataclasses import replace

from vixlib.errors import require_known

require_known("systems", systems, ("auto", "CXV", "CvT", "all"))
require_known("initialisation", initialisation, ("auto", "torch", "he"))
profile = vix.current_profile(profile, device)
smoke = profile.name == "smoke"
if smoke:
    profile = replace(profile, train=replace(profile.train, epochs=5, batch_size=16, lr=2e-3, sgd_lr=0.01),
                      options={**profile.options, "dim": 32, "mlp_dim": 64, "dim_head": 8, "dropout": 0.0})
given = {name: value for name, value in dict(epochs=epochs, batch_size=batch_size, sgd_lr=sgd_lr).items() if value}
train = replace(profile.train, seed=seed, **given)
last_quarter = train.epochs + 1 - max(1, round(train.epochs / 4)) if train.epochs > 1 else None
profile = replace(profile, data=dataset or profile.data, train=replace(train, sgd_from=switch_epoch or last_quarter))
vix.announce(profile, device, "06_cvt_cxv")

data = vix.load(profile.data)
everything = len(data.train_labels)
wanted = min(pictures or (3500 if smoke else everything), everything)
data = data.subset(wanted / everything, seed=seed) if wanted < everything else data
if smoke:
    some = data.some(1000)
    data = replace(data, test_images=data.test_images[some], test_labels=data.test_labels[some])
print(f"data      {data}")

# %% [markdown]
# ## 3 · The idea: not in front, but inside
#
# Three ways to put convolutions (blue) and a token mixer (orange) together. What stands in a dashed frame is repeated; a line around a branch means that the branch is *added* to what it started from.

# %%
from vixlib.figures import diagrams

diagrams.layer_stacks();

# %% [markdown]
# - **The Hybrid** turns the picture into tokens once, by convolution. From there on tokens meet in the mixer alone, and a table of positions has to say where they are.
# - **CXV** ([Jeevan and Sethi](https://arxiv.org/abs/2201.10271)) begins each layer with a convolution of 3 × 3 *tokens*. Neighbours are brought together again and again, in features that get more and more abstract. Note what is missing: no CLS, no positions, no line around the convolution (a *residual connection*), no norm before the feed-forward (*ff*). And note where the one norm stands: not in a branch, as in ViT, but in the line itself, so that what the convolution delivers goes on normalised. (So it is in [the authors' code](https://github.com/pranavphoenix/CXV); parameter counts would not tell.)
# - **CvT** ([Wu et al., *CvT: Introducing Convolutions to Vision Transformers*](https://arxiv.org/abs/2103.15808)) keeps the layer of ViT and puts the convolutions into the maps that make queries, keys and values. It has three stages, and each begins with a convolution and a norm of its own (the drawing shows one stage). Here, as in the authors' CvN and CvP, all stages have one grid and one width. Wu et al.'s own is a pyramid: the grid shrinks and the width grows from stage to stage, a CLS token reads the class in the last, and keys and values are taken with stride 2, so that N queries meet N/4 keys.
#
# A CXV layer as code. Tokens and picture are the same numbers in two arrangements, `[B, N, D]` and `[B, D, H, W]`, so that convolution and mixer can take turns:

# %%
from einops import rearrange


def cxv_layer(x, conv, norm, mixer, ff):
    """[B, D', H, W] -> [B, D, H, W]"""
    x = conv(x)                                        # each place meets its eight neighbours
    rows = x.shape[2]
    tokens = norm(rearrange(x, "b d h w -> b (h w) d"))
    tokens = tokens + mixer(tokens)                    # each place meets all places
    tokens = tokens + ff(tokens)                       # each place by itself
    return rearrange(tokens, "b (h w) d -> b d h w", h=rows)

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
for name in ("CPV", "CNV", "CLTV"):
    model = vix.build(name, image_size=16).double().eval()  # without dropout
    x = model.stem(images)
    for block in model.blocks:
        x = cxv_layer(x, block.conv, block.norm, block.mixer, block.ff)
    error = (model.head(x.mean(dim=(2, 3))) - model(images)).abs().max().item()
    assert error < 1e-10, f"{name} differs by {error:.1e}: the order of convolution, norm and sums?"
    print(f"{name:4} {len(model.blocks)} layers, largest difference from vixlib below 1e-10: {error < 1e-10}")

# %% [markdown]
# ### How far one place sees
#
# Two 3 × 3 convolutions (the *stem*) let a place see 5 × 5 pixels, and each further one adds a pixel on every side. A mixer sees everything at once. Both can be read off the model itself: take the features of the middle place after each layer, and ask by how much they change with each pixel. Where *no* path leads the derivative is exactly zero (grey). The model is untrained; in the lower row its mixers have been taken out.

# %%
from vixlib.figures import layers

untrained = vix.build("CPV", seed=0, dim=32, mlp_dim=64, dim_head=8, channels=data.channels,
                      image_size=data.image_size)
picture %= len(data.test_labels)  # beyond the last one it starts again
one_picture = data.batch(torch.tensor([picture]), "test")[0][0]
reached = {"whole": layers.reach(untrained, one_picture),
           "without mixer": layers.reach(layers.without(untrained, "mixer"), one_picture)}
layers.reach_maps(reached);

# %%
# NBVAL_CHECK_OUTPUT
alone = layers.without(vix.build("CPV", seed=0, dim=32, mlp_dim=64, dim_head=8), "mixer")
windows = {name: layers.window(seen) for name, seen in layers.reach(alone, torch.zeros(3, 32, 32)).items()}
print("convolutions alone:", ", ".join(f"{name} {height} × {width}" for name, (height, width) in windows.items()))
assert list(windows.values()) == [(5 + 2 * layer, 5 + 2 * layer) for layer in range(6)]

# %% [markdown]
# Convolutions alone would need fourteen layers before the middle sees all of a 32 × 32 picture, and even then the far end only faintly: in the lower row the corners of the window fade, because few paths lead there. With a mixer the whole picture is in view from the first layer on, at a level that is low (some thousandths of the largest answer) but does not fall off: far places count as much as less far ones. Near places stand out through the convolutions. So the two divide the work: **the convolution knows what is near, the mixer what else there is.** A number for it, the share of the squared answer that comes from beyond the convolutions' window:

# %%
for name, strength in list(reached["whole"].items())[1:]:
    beyond = strength[reached["without mixer"][name] == 0].square().sum() / strength.square().sum()
    print(f"{name}: {beyond:.2%} from beyond the window")

# %% [markdown]
# ### Linear attention without random numbers
#
# Performer and Nyström are known from 02. The third CXV, CLTV, has the simplest mixer of the series. Linear attention replaces the weights `softmax(QKᵀ)` by a product `φ(Q) ψ(K)ᵀ` and multiplies from the right. Which φ and ψ? Any that give positive weights which add up to one. [Shen et al., *Efficient Attention: Attention with Linear Complexities*](https://arxiv.org/abs/1812.01243), eq. 3, take two softmaxes, one in each direction:
#
# $$\underbrace{\mathrm{softmax}_{\text{features}}(Q)}_{N \times d}\;\Big(\underbrace{\mathrm{softmax}_{\text{tokens}}(K)^\top}_{d \times N}\; \underbrace{V}_{N \times d}\Big)$$
#
# Read it from the right. Each of the d rows of the middle matrix is *one way to look at the picture*: weights over all N tokens that add up to one. It makes one summary of the values. Then each token mixes the d summaries, with weights of its own, out of its query. What a token takes of all tokens adds up to one, because both softmaxes do: Σₙ Σ_c φ(q)_c ψ(k)ₙ_c = Σ_c φ(q)_c (Σₙ ψ(k)ₙ_c) = Σ_c φ(q)_c = 1. (CLTV's code divides q and k by d^¼ first, as softmax of q·k would the product by √d.) ([Katharopoulos et al., *Transformers are RNNs*](https://arxiv.org/abs/2006.16236), eqs. 4 and 7, take φ = ψ = elu + 1 instead and divide by the sums.)

# %%
import torch.nn.functional as F


def linear_attention(q, k, v):
    summaries = k.softmax(dim=-2).mT @ v                     # [B, H, d, d]: nothing in it is N long
    return q.softmax(dim=-1) @ summaries


def elu_attention(q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1                        # positive
    return q @ (k.mT @ v) / (q @ k.sum(dim=-2)[..., None])   # divided by the sum of the weights

# %%
# NBVAL_CHECK_OUTPUT
from vixlib.mixers import LinearAttention

torch.manual_seed(0)
x = torch.randn(3, 100, 48, dtype=torch.float64)
for name, textbook in {"softmax": linear_attention, "elu": elu_attention}.items():
    mixer = LinearAttention(48, heads=3, dim_head=16, feature_map=name).double()
    q, k, v = mixer.split(x, None)
    error = (mixer.join(textbook(q, k, v)) - mixer(x)).abs().max().item()
    every_token = torch.eye(100, dtype=torch.float64).expand(3, 3, 100, 100)
    weights = textbook(q, k, every_token)                    # what each token takes of each: the matrix never formed
    sums, rank = weights.sum(-1), torch.linalg.matrix_rank(weights).max().item()
    assert error < 1e-10, f"{name} differs by {error:.1e}: the axis of a softmax, the sum of the weights?"
    assert (weights > 0).all() and torch.allclose(sums, torch.ones_like(sums)) and rank <= 16
    print(f"{name:7}  difference from vixlib below 1e-10: {error < 1e-10}; "
          f"the 100 × 100 weights: positive, rows sum to 1, rank {rank}")

# %% [markdown]
# The implied 100 × 100 matrix is a perfectly good attention matrix but for its rank: it is a product of matrices with 16 columns, so its hundred rows are mixtures of **sixteen**. That is the price. A token cannot pick out one place of its own choosing; it can only combine ways of looking that all tokens share. It is also the reason why N × N numbers are never needed, because 2 · N × d determine them all.
#
# ### No CLS, no positions
#
# In notebook 01 tokens without positions were a *set*: in any order they gave the same result. CXV has no positions. Does it know where things are? Test it on tokens, to leave the stem out of the game: mix up the places that the stem delivers, run the layers on them, and compare the class scores. Once as they are, and once with 1 × 1 convolutions in place of the 3 × 3 ones (`layers.without`, the tool of section 8), so that no place knows its neighbours.

# %%
# NBVAL_CHECK_OUTPUT
def scores_after(model, x):
    for block in model.blocks:
        x = block(x)
    return model.head(x.mean(dim=(2, 3)))  # the mean over all places takes the part of CLS


images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
order = torch.randperm(16 * 16)
print(f"{'same scores in any order?':26}{'CXV layers':>12}{'without their convolution':>28}")
for kind in ("softmax", "performer", "linear", "nystrom", "linformer"):
    whole = vix.build("CPV", seed=0, mixer=kind, image_size=16, depth=2).double().eval()
    same = []
    for model in (whole, layers.without(whole, "conv")):
        x = model.stem(images)
        mixed_up = x.flatten(2)[..., order].unflatten(2, (16, 16))
        same.append(torch.allclose(scores_after(model, x), scores_after(model, mixed_up), atol=1e-8))
    print(f"{kind:26}{same[0]!s:>12}{same[1]!s:>28}")
    assert same == [False, kind in ("softmax", "performer", "linear")]

# %% [markdown]
# **It is the convolution that tells places apart.** With it the order counts, whatever the mixer; without it three mixers see a set. The other two depend on the order by themselves: Nyström's landmarks are means of *consecutive* tokens and its own convolution runs along the sequence, and Linformer's matrix P has one row for each place.
#
# What a convolution tells is not *where* a place is but *what is around it*, and at the edge, where zeros come in, that it is near the edge. That needs no table, and so no table has the wrong length when a picture has another size. A model built for 32 × 32 pixels gets pictures of 64 × 48:

# %%
# NBVAL_CHECK_OUTPUT
larger = torch.randn(1, 3, 64, 48)
sized = {f"CPV with {kind}": vix.build("CPV", seed=0, mixer=kind, patch_size=4, depth=1).eval()
         for kind in ("softmax", "performer", "linear", "fourier")}
sized |= {"CNV": vix.build("CNV", seed=0, patch_size=4, depth=1, num_landmarks=16).eval(),
          "CPV with linformer": vix.build("CPV", seed=0, mixer="linformer", patch_size=4, depth=1, rank=16).eval(),
          "CPV with mlp": vix.build("CPV", seed=0, mixer="mlp", patch_size=4, depth=1).eval(),
          "CLTV": vix.build("CLTV", seed=0, patch_size=4, depth=1).eval()}
fits = {}
for name, model in sized.items():
    try:
        fits[name] = model(larger).shape == (1, 10)
        print(f"{name:19} runs on 64 × 48")
    except ValueError as error:
        fits[name] = False
        print(f"{name:19} {error}")
assert [name for name, runs_on_it in fits.items() if not runs_on_it] == ["CPV with linformer", "CPV with mlp", "CLTV"]

# %% [markdown]
# Linformer and the MLP-Mixer have learned matrices with one row for each token: they cannot run on more tokens without new rows. CLTV could. Its queries, keys and values come from 3 × 3 convolutions of their own, and `vixlib` tells them the shape of the grid when the model is built; CvT's likewise. Running is one thing and being right another (04, section 9), but what a 3 × 3 neighbourhood looks like does not depend on the size of the picture.

# %% [markdown]
# ## 4 · Parameters, to the digit
#
# For CXV no count is printed, only "1.3 million"; for CvN and CvP there are the authors' logs on Tiny ImageNet with its 200 classes. Here every count is the model's own, beside what is known.

# %%
# NBVAL_CHECK_OUTPUT
quoted = {row["model"]: row for row in vix.paper_table("cxv")["rows"]}
for name, expected in {"CPV": 1_345_994, "CNV": 1_344_734, "CLTV": 3_967_434, "HybridViP-6/8": 1_416_522,
                       "ResNet18": 11_173_962}.items():
    count = vix.count_parameters(vix.build(name))
    known = f"{quoted[name]['params_million']} million" if name in quoted else "-"
    assert count.true == expected
    assert name not in quoted or round(count.as_paper / 1e6, 1) == quoted[name]["params_million"]
    print(f"{name:14} true {count.true:10,}   as the paper counts {count.as_paper:10,}   quoted {known}")
for name in ("CvT", "CvN", "CvP"):
    count = vix.count_parameters(vix.build(name, num_classes=200))
    logged = next((log["params_torchsummary"] for log in vix.authors_runs(name, "none", "tiny-imagenet")), None)
    assert count.as_paper == (logged or 867_784)  # CvT has no log: our own count, so that it cannot change unseen
    print(f"{name}, 200 classes true {count.true:9,}   as the paper counts {count.as_paper:10,}   authors' log "
          + (f"{logged:,}" if logged else "-"))

# %% [markdown]
# Wherever a count is known, it agrees. HybridViP-6/8 (six layers of eight heads) has 1.3 million only in the paper's way of counting, which passes over its 131,200 numbers of positions and the 128 of CLS (notebook 01, section 6); truly it has 1.4. (Table 3's HybridViP also counts the Performer's layers twice. This row can't have been counted so: it would be far above 1.3 million.) CPV has no positions; what its true count has more, 1,280, are its five norms, whose scales and shifts are bare parameters in the authors' code, which torchsummary passes over as well. CvT's 2,816 are its eleven.
#
# Where are CPV's parameters? And what does a convolution cost as a *map to queries, keys and values*? CvT uses *separable* ones: first one 3 × 3 filter for each channel alone, then a 1 × 1 map that mixes channels. CLTV uses full 3 × 3 ones, which explains its size.

# %%
# NBVAL_CHECK_OUTPUT
def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters())


cpv = vix.build("CPV")
sizes = {"stem": count(cpv.stem), "head": count(cpv.head)}
sizes |= {part: count(*(getattr(block, part) for block in cpv.blocks)) for part in ("conv", "norm", "mixer", "ff")}
total = sum(sizes.values())
print("CPV: " + ", ".join(f"{part} {n:,} ({n / total:.0%})" for part, n in sizes.items()))
assert total == 1_345_994 and sizes["conv"] == 9 * (64 + 4 * 128) * 128 + 5 * 128
mixers = {name: vix.build(name).blocks[-1].mixer for name in ("CvP", "CvT", "CLTV")}
for name, kind, own, by_hand in (("CvP", "linear", count(mixers["CvP"].to_qkv) // 3, 128 * 128 + 128),
                                 ("CvT", "separable", count(mixers["CvT"].to_q), 9 * 128 + 2 * 128 + 128 * 128),
                                 ("CLTV", "full 3 × 3", count(mixers["CLTV"].to_q), 9 * 128 * 128 + 128)):
    assert own == by_hand
    print(f"{name:4} {kind:10} map to queries: {own:7,}")

# %% [markdown]
# Half of CPV is convolution. And a separable one is hardly larger than a linear map: 9 numbers a channel, and 2 for the batch normalisation between (less the bias that CvP's map has).
#
# Mind the difference between the rows: **the authors' CvN and CvP are not CvT with another mixer.** Their published code has plain linear maps to queries, keys and values, and with that the very idea of CvT is gone; what is left of it are the convolutions before the stages. `vix.build("CvP", projection="separable")` is the clean swap.
#
# ## 5 · What it costs
#
# Few parameters do not make a cheap model. CPV uses each of its weights at each of the 1024 places; ResNet-18 holds most of its eleven million in late layers, which see 4 × 4 places. So measure what a step needs: the **bytes** that are kept for the backward pass, and the **time** of forward and backward pass with the optimiser. Whole models of width 128, every pixel a token, pictures from 8 × 8 upwards:

# %%
COMPARED = {"performer CPV": "CPV", "nystrom CNV": "CNV", "linear CLTV": "CLTV", "softmax CvT": "CvT",
            "ResNet18": "ResNet18"}


def sized_model(name, side):
    return vix.build(name, seed=0, **vix.applicable(name, {"image_size": side, "num_landmarks": 64}))


sides = (8, 16, 32)
tokens = [side**2 for side in sides]
kept = {label: [vix.saved_bytes_per_image(sized_model(name, side), (side, side)) for side in sides]
        for label, name in COMPARED.items()}

# %%
batch = 32 if device.type == "cuda" else 2
timed = (8, 16, 32, 64) if device.type == "cuda" else (8, 16, 24)
spent = {label: [1e3 / vix.throughput(sized_model(name, side).to(device), batch, 2, image_size=(side, side))
                 for side in timed] for label, name in COMPARED.items()}

# %%
from vixlib import figures

figure, (memory, clock) = figures.new_axes(2, width=4.6, height=3.6)
figures.cost_curves(memory, tokens, {label: [b / 2**20 for b in values] for label, values in kept.items()},
                    "kept for backward (MiB per image)")
figures.slope_guides(memory, tokens, {1: kept["ResNet18"][-1] / 2**20})
figures.cost_curves(clock, [side**2 for side in timed], spent, "training step (ms per image)")
figures.slope_guides(clock, [side**2 for side in timed], {1: min(values[-1] for values in spent.values())})

# %%
at = sides.index(32)
base, resnet = kept["performer CPV"][at], kept["ResNet18"][at]
print(f"kept at 1,024 tokens: CPV {base / 2**20:.0f} MiB an image, {base / resnet:.0f} times ResNet18's "
      f"{resnet / 2**20:.1f} MiB, with {count(cpv) / quoted['ResNet18']['params_million'] / 1e6:.2f} times its parameters")
slowest, fastest = (pick(spent, key=lambda label: spent[label][-1]).split()[-1] for pick in (max, min))
print(f"slowest at {timed[-1]**2:,} tokens on {vix.describe(device)}: {slowest}; fastest: {fastest}")
growth = [values[-1] / values[-2] for label, values in spent.items()]
print(f"{timed[-1]**2 / timed[-2]**2:.2f} times the tokens take {min(growth):.2f} to {max(growth):.2f} times as long")

# %% [markdown]
# The bytes of all five follow slope 1: even CvT's, whose softmax runs in a fused kernel and stores no matrix (01, section 5). Only its *time* has a part that grows with N². Where the drawn lengths end, softmax's CvT keeps least of the four transformers. It has four layers instead of five and no full convolution in them, so that says nothing against linear mixers; but it is not the linear mixer that makes a CXV cheap at these sizes. For ResNet-18 on small pictures the slope of time says little, as a step has to go over eleven million weights whatever it looks at.
#
# Memory is CPV's price, and the source of the quoted accuracies names it: 3.2 GB against ResNet-18's 0.6. It does not say for which batch. Here is what a whole step needs at its peak for 64 pictures, the batch of the series' paper:

# %%
from vixlib.report.memory import cost_table, stored

cost_table("cxv")

# %%
needed, source = stored()
for name, row in quoted.items():
    peak = needed[name, "paper"]["peak_bytes"]["float32, matrix stored"]
    print(f"{name:14} {row['gpu_gb']} GB quoted, " + ("out of memory here" if peak is None else
          f"{peak / 2**30:.2f} here in float32 at batch 64: {peak / 2**30 / row['gpu_gb']:.2f} times as much"))
print(f"here: {source}")

# %% [markdown]
# A batch of 64 would explain the quoted gigabytes roughly, which is no proof that it was 64. What is left goes both ways: here the CPV needs more than is quoted, the ResNet less. Code, precision, batch and the way memory was read may all differ (a figure from `nvidia-smi` has in it what CUDA takes for itself, some hundred megabytes); three numbers cannot tell which.
#
# ## 6 · Training, in two phases
#
# CXV's authors train with two optimisers in turn: AdamW first, which gets anywhere fast, then **SGD** with momentum 0.9 for the last epochs. `TrainConfig(sgd_from=..., sgd_lr=...)` does that: from epoch `sgd_from` on the same weights go on under the other rule. Neither the epoch nor the rate is quoted; here it is the last quarter of the epochs (`switch_epoch`), and the dotted line in the curves marks it. (With a single epoch, as at `quick` on a CPU, there is no second phase.) Every system below trains with the same settings, so that none has the advantage of the second phase alone.
#
# **A slow start, again?** As in 03, section 6, convolutions in a row start *quiet*: PyTorch draws their weights from ±1/√n for n inputs, so that unrelated inputs come out smaller by a factor of √3. In a CXV a norm follows the convolution of each layer and makes all loud again. Two things it does not undo. A convolution adds a *bias*, drawn from ±1/√n as well; beside a quiet input that is much of what the norm then makes loud, and it is the same for every picture. And AdamW moves each weight by about the learning rate, however large the weight is: before a norm, where only the *ratio* of the weights counts, small weights are turned over by steps that large ones hardly feel. [He et al., *Delving Deep into Rectifiers*](https://arxiv.org/abs/1502.01852) ask for a variance of 2/n, as a uniform draw ±√6/√n (for a ReLU after each convolution, which a CXV has not). How much of the features differs from picture to picture at the start? (Behind a norm, all that varies, from picture to picture or not, has a variance of 1.)

# %%
side_tokens = [-(-side // (patch_size or profile.options.get("patch_size", 1))) for side in data.image_size]
num_tokens = side_tokens[0] * side_tokens[1]
own = {"num_landmarks": min(profile.options.get("num_landmarks", 64), num_tokens)}  # what you choose is taken as it is
own |= {name: value for name, value in dict(patch_size=patch_size, dim=dim, depth=depth, heads=heads,
                                            num_landmarks=num_landmarks).items() if value}
own |= dict(image_size=data.image_size, channels=data.channels, num_classes=data.num_classes, feature_map=feature_map)
if stages := own.get("depth", profile.options.get("depth")):
    own["depths"] = (1,) * stages
own["conv_init"] = initialisation if initialisation != "auto" else "he" if smoke else "torch"


def fresh(name, seed=seed, **more):
    named = ("depth", "heads") if name == "HybridViP-6/8" else ()  # its name says them
    options = {option: value for option, value in profile.options_for(name, **own | more).items() if option not in named}
    return vix.build(name, config=profile.config, seed=seed, **options)

# %%
some = data.batch(data.some(128, "train"))[0]
ways = {"torch": "PyTorch's", "he": "He's"}
for start, way in ways.items():
    model = fresh("CPV", conv_init=start)
    with torch.no_grad():
        volume = [x.std(dim=0).mean().item() for x in (some, *layers.layer_maps(model, some).values())]
    print(f"{way:9} start: pixels, stem and layers vary from picture to picture by",
          ", ".join(f"{v:.2f}" for v in volume))
print(f"below: {ways[own['conv_init']]} start")

# %% [markdown]
# A long training may get over the quiet start. For the thousand steps of `smoke`, and only there, `initialisation="auto"` takes He's weights for the 3 × 3 convolutions of CXV and CvT (`conv_init="he"`; a ResNet starts that way in any case). Try `"torch"` to see what it is worth here; a smaller learning rate makes up for a part of it, as one would expect of steps that were too large for small weights.

# %%
AUTO = {"smoke": ["CPV", "CvT", "CvP"], "quick": ["CPV", "CvT", "CvP", "ResNet18"]}
CHOICES = {"CXV": ["CPV", "CNV", "CLTV"], "CvT": ["CPV", "CvT", "CvP", "CvN"], "auto": AUTO.get(profile.name)}
chosen = CHOICES.get(systems) or list(layers.SYSTEM_COLOURS)  # "all", and "auto" at paper
models = {name: fresh(name) for name in chosen}
for name, model in models.items():
    print(f"{name:14} {vix.count_parameters(model).true:10,} parameters")
switch = profile.train.sgd_from
print(f"{num_tokens:,} tokens; " + (f"SGD from epoch {switch} of {profile.train.epochs}, rate {profile.train.sgd_lr:g}"
      if switch and switch <= profile.train.epochs else f"AdamW in all {profile.train.epochs} epoch(s)"))

# %%
runs, draw = {}, figures.live_curves(f"{data.name}, {num_tokens:,} tokens", style=figures.in_colours(layers.SYSTEM_COLOURS))


def trained(model, what, train=profile.train, **options):
    file = f"06_{profile.name}_{what}.pt".replace("/", "-").replace(" ", "_")
    path = Path(checkpoints) / file if checkpoints else None
    return vix.fit(model, data, train, checkpoint=path, device=device, **options)


for name, model in models.items():
    runs[name] = trained(model, name, on_epoch=draw)
for run in runs.values():
    print(run)

# %%
for name, run in runs.items():
    if switch and 1 < switch <= len(run.history):
        before, after = run.history[switch - 2], run.history[switch - 1]
        print(f"{name:14} first epoch of SGD: training loss {before['loss']:.2f} -> {after['loss']:.2f}, "
              f"top-1 {before['top1']:.1f} -> {after['top1']:.1f} %")

# %% [markdown]
# On `shapes`, guessing gives 10 %, and a system that stays near 20 % has learned how the stripes run and not yet where they are (section 8). Five epochs of few pictures are a race, not a verdict.
#
# Before you praise SGD for a jump at the dotted line: would AdamW have jumped, too? The control costs one more training:

# %%
if switch and 1 < switch <= profile.train.epochs and "CPV" in runs:
    adam = trained(fresh("CPV"), "CPV AdamW alone", replace(profile.train, sgd_from=None))
    for way, run in (("with SGD at the end", runs["CPV"]), ("AdamW throughout", adam)):
        if run.history:
            print(f"CPV, {way:20} training loss {run.history[-1]['loss']:.2f}, top-1 {run.last_top1:.1f} %")
else:
    print("no second phase in this training: nothing to compare")

# %% [markdown]
# What changes at the line is not only the rule but the *size of the steps*. AdamW moves every weight by about its learning rate in every step, however small the gradient; SGD's steps shrink with it. Any optimiser that is slowed down at the end stops jumping about the minimum; and where training is not near a minimum yet, as after a few epochs, slowing down gains nothing. Exercise 1 separates the two.
#
# ## 7 · The table
#
# The three quoted rows, and beside them the systems of the sources for which no CIFAR-10 accuracy is quoted.

# %%
vix.compare("cxv", runs=runs.values())

# %%
from vixlib.report import claims

print("quoted:", ", ".join(f"CPV against {name} {quoted['CPV']['top1'] - quoted[name]['top1']:+.2f} points"
                           for name in ("HybridViP-6/8", "ResNet18")))
compared = [("CPV", "CvP"), ("CNV", "CvN"), ("CvP", "CvT")]
print("recorded here, beside the claims below:", *claims(compared), sep="\n  ")
differs = {"data": (data.name, "cifar10"), "tokens": (num_tokens, 1024), "epochs": (profile.train.epochs, 40),
           "pictures": (len(data.train_labels), 50_000)}
print("this run: one seed" + "".join(f", {what} {here} instead of {there}" for what, (here, there) in differs.items()
                                     if here != there))

# %% [markdown]
# Your run and the records may rank these systems differently. They are about different pictures: on `shapes` the class *is* a detail and a place, on photographs it is neither. And `smoke` gives the convolutions He's start and CXV no dropout, which the records do not. Neither order speaks of the other's data.

# %%
from vixlib.report import verdict_table

verdict_table("06")

# %% [markdown]
# The last claim is the abstract's: CXV outperforms FNet and MLP-Mixer, ViT, CCT and CvT, hybrid X-formers and ResNets (the first two claims; and ConvMixer, which is not tried here), "in scenarios with limited data and GPU resources". (An interval over three seeds is 4.3 standard errors to either side. Two would leave 12.7, and decide nothing here.) The abstract also says that training with two optimisers helps many architectures. The records of one epoch cannot speak to that; exercise 1 does.
#
# Where CPV is behind ResNet-18 in a short training: is that the architecture, the dropout of 0.5, the quiet start of section 6, or the learning rate? And why does CLTV stand where guessing is? In each line of the next table one thing is changed, an option or the rate (0.0003 in profile `quick-slow`, 0.001 in `quick`):

# %%
from vixlib.report import reasons_table

reasons_table("06")

# %%
for name in ("CvN", "CvP"):
    log = vix.authors_runs(name, "none", "tiny-imagenet")[0]
    assert not vix.authors_runs(name, "none")  # none for CIFAR-10
    print(f"authors' log of {name}: Tiny ImageNet, {len(log['top1'])} epochs, "
          f"best top-1 {log['best_top1']:.2f} %, last {log['top1'][-1]:.2f} %")

# %% [markdown]
# ### What agrees, what does not, and why
#
# - **Parameters agree**: 1.3, 11.2 and 1.3 million, the last in the paper's way of counting.
# - **The accuracies stand unconfirmed** as long as the column *recorded, paper protocol* says "not measured". Runs of the other profiles have larger tokens and fewer epochs; they are about the *order* of systems in one short training, not about 91.42. And that training is equal in data, steps and optimiser, but not in what the systems bring along: CXV its dropout of 0.5, with PyTorch's quiet start (section 6), ResNet and CCT a start of their own, CCT branches that are left out at random, the others nothing of the kind. A CPV that is behind in one epoch has not lost anything yet. A part of its distance is the training (the experiments above): the learning rate of 0.001 is too large for it, and not for the ResNet, and perhaps its quiet start costs it something, too. At the smaller rate half of the distance to the ResNet is left, and of that to HybridViP-6/8 hardly more than a point (one seed). With the better of the two rates for each the ResNet is still ahead by more than ten points. The dropout is not what holds CPV back there: without, it gets no further.
# - **CLTV stands near chance** in the recorded epoch, with every seed: at the series' learning rate, 0.001, its loss stays where guessing is. Linear attention is not the reason: with linear maps instead of its 3 × 3 convolutions it learns. Nor are the convolutions by themselves: at a rate of 0.0003 it learns with them, too, and gets about as far as CPV (the experiments above). One rate for all is equal treatment, and not equally good for all: what a table compares is systems *at that rate*.
# - **The settings are missing from the summary.** It quotes the three numbers without epochs, batch, augmentation, number of seeds, or the epoch at which the optimiser was switched. Dropout and layer sizes are those of the authors' code. Whoever finds 88 or 93 has neither refuted nor confirmed anything.
# - **The summary calls HybridViP a model "without convolutions".** It has three, in front of its layers: that is what "Hybrid" means in this series. The 13.9 points between CPV and HybridViP-6/8 are thus not about whether there are any. The two rows differ in where the convolutions stand and how many there are, in CLS and positions, in depth and heads, in a norm before the feed-forward, and perhaps in dropout and the two-phase training, of which it is not said whether HybridViP had them. "A convolution in every layer beats one in front" is one reading of that.
# - **86.29 % is not what a ResNet-18 can do.** The much-copied training scripts [kuangliu/pytorch-cifar](https://github.com/kuangliu/pytorch-cifar) list 93.02 % for it, with random crops and flips, SGD, and learning rates in three steps over 350 epochs. That a CXV beats a ResNet with eight times its parameters can hold for some trainings at best, not for all (see the recorded short one above). Exercise 4 is about that.
# - **CvN and CvP have no CIFAR-10 number at all.** The authors' logs are for Tiny ImageNet, 64 × 64 pixels and 200 classes; they do not belong in this table. As said in section 4, they lack CvT's convolutional maps, so a comparison of CvT with CvP changes two things.
#
# ## 8 · Taking a layer apart
#
# A layer of CXV has three parts. Which does the work? `layers.without(model, part)` makes a copy of an untrained model in which *every* layer lacks one of them, with all other starting weights the same:
#
# - **without conv**: a 1 × 1 convolution instead (the middle weights of the 3 × 3, three times as large, because there are nine times fewer inputs). The stem stays, so that this is a model with convolutions *in front* alone, the Hybrid's idea, with neither positions nor CLS.
# - **without mixer**: nothing is added; what remains is a small convolutional network with residual feed-forwards.
# - **without ff**: the non-linearities left in a layer are the norm and the mixer.
#
# Write down your guess of the order before you run the cell.

# %%
variants = {"whole": fresh, **{f"without {part}": lambda name, seed, part=part: layers.without(fresh(name, seed), part)
                               for part in layers.PARTS}}
taken, parameters, last = {}, {}, {}
for label, make in variants.items():
    for s in range(seed, seed + ablation_seeds):
        known = ablated in runs and (label, s) == ("whole", seed)  # trained in section 6
        model = last[label] = models[ablated] if known else make(ablated, s)
        run = runs[ablated] if known else trained(model, f"{ablated} {label} seed {s}", replace(profile.train, seed=s))
        parameters[label] = vix.count_parameters(model).true
        if run.history:
            taken.setdefault(label, []).append(run.last_top1)
            print(f"{label:14} seed {s}: training loss {run.history[-1]['loss']:.2f}, top-1 {run.last_top1:.1f} %")

# %%
figure, ax = figures.new_axes(width=7, height=2.6)
layers.part_bars(ax, taken, parameters, 100 / data.num_classes)
ax.set_title(f"{ablated} on {data.name}, {num_tokens:,} tokens, {profile.train.epochs} epoch(s), "
             f"{ablation_seeds} seed(s)", fontsize=9);

# %%
from statistics import fmean

means = {label: fmean(values) for label, values in taken.items()}
if "whole" in means and len(means) > 1:
    losses = {label: means["whole"] - mean for label, mean in means.items() if label != "whole"}
    for label, loss in sorted(losses.items(), key=lambda pair: -pair[1]):
        fewer = 1 - parameters[label] / parameters["whole"]
        print(f"{label:14} {abs(loss):5.1f} points {'less' if loss >= 0 else 'more'} than the whole, {fewer:4.0%} fewer parameters")
    print(f"missed most: {max(losses, key=losses.get).split()[-1]}; least: {min(losses, key=losses.get).split()[-1]}")
print(f"{ablation_seeds} seed(s) each: " + ("even ten points between two of them may be chance." if ablation_seeds < 3 else
      "look at the dots before you believe a difference."))

# %% [markdown]
# What to make of your order:
#
# - On the pictures of `smoke` a class is a detail (which way stripes about two pixels wide run) *and* a relation (where the striped figure is, seen from the frame). Knowing the detail alone gives one in five, 20 %; the relation alone gives one in two, 50 %. Without the convolution the tokens have seen the detail in the stem, but are a set from there on, apart from what the zeros at the edges betray: **which windows are neighbours has been lost, and a mixer that sees a set cannot bring it back** (Nyström sees more, section 3). A run near 20 % says just that. (It takes small windows, too: the stem sees 7 × 7 pixels. A CCT without positions is a set as well and gets far on these pictures, because each of its tokens has seen nearly all of the picture: 05, section 6.)
# - Without the mixer the relation has to be found by windows of convolution. At `smoke` two layers see 23 of 32 pixels, nearly enough; and in four pictures of five the striped figure's place *in the picture*, which a window with the edge in it knows, gives the answer away. So this variant may well do better than one would think of a transformer without attention. Where it comes out beside the whole or, as with seed 0, ahead of it, the Performer is no help in these epochs. It is used all the same: see the shares at the end of section 9. With single pixels as tokens the window is 15 of 32.
# - Without the feed-forward the model is short of *non-linearity*, and of the parameters too. Is it the parameters? Compare the numbers beside the bars: the variants without mixer and without feed-forward are of one size, so that what lies between them is no matter of parameters; the one without convolution is smaller.
# - An ablation shows what *this* training misses on *this* data. It does not show that a part is useless: what one part could do is often done by another once the first is gone. And one seed is one draw: set `ablation_seeds = 3` and see which differences stay.
#
# ## 9 · Look inside
#
# **What each variant makes of a picture.** The mean over all channels, after the stem and after each layer, of the models just trained. Each map has its own scale, orange above the map's mean, purple below.

# %%
from vixlib.figures import pairs

seen = data.batch(torch.tensor([picture]), "test")[0].to(device)
with torch.no_grad():
    means_by_layer = {label: torch.cat([features.mean(dim=1) for features in layers.layer_maps(model, seen).values()])
                      for label, model in last.items()}
    means_by_layer = {label: maps - maps.mean(dim=(1, 2), keepdim=True) for label, maps in means_by_layer.items()}
stages = ["after the stem", *(f"after layer {i + 1}" for i in range(len(last["whole"].blocks)))]
pairs.map_grid(data.test_images[picture], means_by_layer, columns=len(stages), size=1.5, titles=stages);

# %% [markdown]
# From left to right: the picture, the stem, the layers. A map shows *where* something happens, not what. Look for two things. Do the maps keep the outline of the figures, or does a layer spread it over the picture? And in the variant without convolution, are the maps after the layers more than a recoloured stem? They may look new, because every layer mixes the channels anew; but no place has learned anything of its neighbours, since they meet in the mixer alone, which cannot tell them from anybody else.
#
# **What a place sees after training.** The picture of section 3 once more, for the trained models: how strongly do the features of the middle place answer to each pixel?

# %%
after = {label: layers.reach(model, seen[0]) for label, model in last.items()}
layers.reach_maps(after);

# %%
start = layers.reach(fresh(ablated).to(device), seen[0])
for name in list(start)[1:]:
    outside = after["without mixer"][name] == 0
    if not outside.any():
        print(f"{name}: the window of the convolutions covers the picture")
        continue
    before_it, after_it = (s[outside].square().sum() / s.square().sum() for s in (start[name], after["whole"][name]))
    print(f"{name}: from beyond the window of the convolutions come {before_it:.1%} of the squared answer at the start,"
          f" {after_it:.1%} now")

# %% [markdown]
# The first map of each line is the stem's window and of one size for all. Without convolution a place never sees more than that window closely; beyond it there is only what the mixer brings from everywhere. Without mixer the window grows by one token on each side in every layer, trained or not: training changes how strongly paths are used, never which paths there are. In the others every pixel can matter after one layer, and the printed shares say whether training has made more or less use of the far ones.

# %% [markdown]
# ### In short
#
# - In a CXV the convolution knows what is near, and the mixer *can* bring what else there is; whether that helps is a matter of data and training.
# - Without its convolution it sees a set, if the mixer does: the convolution stands in for positions.
# - Half of CPV's parameters are convolution. Few parameters are neither little memory nor little time.
# - The linear mixer is a product of thin matrices without random numbers: tokens mix a few shared summaries.
# - A new architecture looks as good as the training of what it is compared with is weak. Train the baseline as well as you train it.
#
# ## 10 · Your turn
#
# **1. SGD, or smaller steps?** Train CPV once more with AdamW throughout, and once with AdamW at a tenth of the rate in the last epochs. Which is nearer to the run with SGD? (It takes two epochs at least; at `quick` on a CPU set `epochs = 4` and run the notebook again.)
#
# <details><summary>Solution</summary>
#
# ```python
# assert switch and 1 < switch <= profile.train.epochs, "no second phase: set epochs to 2 or more, switch_epoch to 0"
# adam = vix.fit(fresh("CPV"), data, replace(profile.train, sgd_from=None), device=device)
# slower = fresh("CPV")
# first = replace(profile.train, sgd_from=None, epochs=switch - 1)
# vix.fit(slower, data, first, device=device)
# slow = vix.fit(slower, data, replace(first, epochs=profile.train.epochs - switch + 1, lr=first.lr / 10), device=device)
# print(runs["CPV"], adam, slow, sep="\n")
# ```
#
# If the slowed-down AdamW gains as much as SGD does, the second optimiser is a learning-rate schedule under another name. (The second `fit` starts again with the first epoch's order of the pictures, and with fresh moments, as the switch to SGD does; that it warns of a model trained before is meant here.) One seed decides little; three are a start.
# </details>
#
# **2. What is left without mixer *and* feed-forward?** Predict first: which kind of function remains, how would you show it, and what accuracy do you expect on `shapes`?
#
# <details><summary>Solution</summary>
#
# ```python
# import copy
#
# normed = layers.without(layers.without(fresh("CPV"), "mixer"), "ff")
# affine = copy.deepcopy(normed)
# for block in affine.blocks:
#     block.norm = torch.nn.Identity()
# x, y = torch.randn(2, 1, data.channels, *data.image_size)
# for name, bare in (("with norms", normed), ("without", affine)):
#     with torch.no_grad():
#         additive = torch.allclose(bare(x + y), bare(x) + bare(y) - bare(torch.zeros_like(x)), atol=1e-4)
#     print(f"{name}: additive {additive}")
#     print(vix.fit(bare, data, profile.train, device=device))
# ```
#
# Convolutions, norms, a mean, a linear head. The norms are the last non-linearity: each place is divided by its own σ. Without them the whole model is one affine map, f(x + y) = f(x) + f(y) − f(0). And away from the border the mean over all places makes it the *same* weights everywhere (with patches of 4 pixels: the same 4 × 4 pattern of weights repeated over the picture), so that it can tell little more than the mean colour. `shapes` is made such that this does not help: expect guessing, 10 %. With the norms a place can at least tell a strong answer from a weak one; at `smoke` that is worth a few points, if any.
# </details>
#
# **3. CvT's own maps.** Give CvP the separable maps of CvT, and CvT the linear ones. Which of the two differences in the table mattered, the maps or the mixer?
#
# <details><summary>Solution</summary>
#
# ```python
# for name, projection in (("CvT", "linear"), ("CvP", "separable")):
#     before = runs.get(name) or vix.fit(fresh(name), data, profile.train, device=device)
#     swapped = vix.fit(fresh(name, projection=projection), data, profile.train, device=device)
#     print(projection, swapped, "instead of", before)
# ```
#
# Four runs, two differences: maps (separable, linear) and mixer (softmax, Performer). If the effect of one is about the same whatever the other is, you may speak of *the* effect of the maps. At `smoke` they weigh more than the mixer: where the class is a place, it pays that queries and keys know their neighbours, and linear maps do not. (He's start of section 6 is one of the convolutions, so the separable maps have a little help.)
# </details>
#
# **4. A fair ResNet.** Train ResNet-18 and CPV with `augment=("crop", "flip")`. Does the order of the two stay? (On `shapes` leave out "flip": it turns *left of* into *right of* without changing the label.)
#
# <details><summary>Solution</summary>
#
# ```python
# ways = ("crop",) if data.name == "shapes" else ("crop", "flip")
# for name in ("CPV", "ResNet18"):
#     for augment in ((), ways):
#         print(augment, vix.fit(fresh(name), data, replace(profile.train, augment=augment), device=device))
# ```
#
# Augmentation helps most where a model has the parameters to learn the training pictures by heart and the training is long enough to do so. In a single epoch it can only make things harder. (Four trainings, two of them of ResNet-18: some minutes on a CPU.) So a comparison of architectures is always one of architectures *under a training*, and the weaker the training of the baseline, the better the newcomer looks.
# </details>

# %% [markdown]
# **This was the last of the six.** [01](01_vit.ipynb) what a Vision Transformer costs · [02](02_linear_attention.ipynb) linear mixers · [03](03_hybrid.ipynb) convolutions in front · [04](04_rope.ipynb) rotary positions · [05](05_levit_cct.ipynb) other hosts. `python -m vixlib` lists every system, and a mixer of your own is one class that any host takes: `vix.build("CPV", mixer=YourMixer)`.
