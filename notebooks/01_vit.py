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
# # 01 · The Vision Transformer, and what its attention costs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/01_vit.ipynb)
# [![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/notebooks/01_vit.ipynb)
#
# **The question.** A Vision Transformer lets every part of a picture look at every other part. What does that cost when every *pixel* is a part, and how much of that cost is still there today?
#
# **The answer.** A CIFAR-10 picture has 1024 pixels. With the class token that makes 1025 tokens, hence 1025 × 1025 attention weights a head: 16.8 MB for four heads in float32, for every picture and every layer. The paper of this series, [*Vision Xformers: Efficient Attention for Image Classification*](https://arxiv.org/abs/2107.02239), filled 15.0 GB of a 16 GB card with batches of 64 and reached 55.67 % (Table 1). A fused kernel no longer stores those weights, so the *memory* has become linear in the number of tokens. It still computes them, so the *time* is quadratic. You will measure both below, on your own machine.
#
# You need to know what a matrix product, a gradient and a PyTorch module are. No earlier contact with attention is assumed.

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
# Leave everything as it is for a first reading. A *profile* sets data, model size and training at once: `smoke` runs anywhere in minutes on pictures that the project draws itself, `quick` takes real photographs, `paper` is the paper's protocol. A **0** or an empty text means "what the profile says".

# %%
profile = "auto"  #@param ["auto", "smoke", "quick", "paper"]
dataset = ""  #@param {type:"string"}
#   a name such as "cifar10", or a folder of pictures
patch_size = 0  #@param [0, 16, 8, 4, 2, 1] {type:"raw"}
#   pixels a side; 1 makes every pixel a token
dim = 0  #@param {type:"slider", min:0, max:256, step:16}
#   numbers in a token
depth = 0  #@param {type:"slider", min:0, max:8, step:1}
#   layers
heads = 0  #@param {type:"slider", min:0, max:8, step:1}
#   independent attentions in a layer
epochs = 0  #@param {type:"slider", min:0, max:40, step:1}
#   passes over the training pictures
batch_size = 0  #@param {type:"slider", min:0, max:256, step:8}
#   pictures in a training step
seed = 0  #@param {type:"integer"}
#   of the starting weights and of the order of the pictures
picture = 4  #@param {type:"slider", min:0, max:999, step:1}
#   the test picture that is cut up below, and looked at in the end
checkpoint = ""  #@param {type:"string"}
#   a file, written after each epoch and continued from; on Colab put it on your Drive

# %%
from dataclasses import replace

profile = vix.current_profile(profile, device)
given = {name: value for name, value in dict(epochs=epochs, batch_size=batch_size).items() if value}
profile = replace(profile, data=dataset or profile.data, train=replace(profile.train, seed=seed, **given))
vix.announce(profile, device, "01_vit")

data = vix.load(profile.data)
print(f"data      {data}")

# %% [markdown]
# ## 3 · What is a token?
#
# A transformer reads a *sequence of vectors*, called tokens. A picture is no sequence, so it is cut into square patches which are read like text: row by row, left to right. Each patch is flattened to a list of its pixel values and mapped linearly to a vector of `dim` numbers ([Dosovitskiy et al., *An Image is Worth 16x16 Words*](https://arxiv.org/abs/2010.11929), eq. 1).
#
# The only choice is the size of a patch. Large ones make a short sequence, but what lies inside a patch is merely a list of numbers: nothing tells the model that two of them are neighbours. Small patches keep detail, but halve their side and the sequence is *four* times as long. This is one of your test pictures, cut five times:

# %%
from einops import rearrange
from vixlib import figures

picture %= len(data.test_labels)  # beyond the last one it starts again
image = data.test_images[picture].cpu()
sizes = [p for p in (16, 8, 4, 2, 1) if all(side % p == 0 for side in data.image_size)]
tokens = [data.image_size[0] * data.image_size[1] // p**2 for p in sizes]
for p, n in zip(sizes, tokens, strict=True):
    print(f"patch {p:2}: {n:5,} tokens, {n * n:13,} pairs of tokens")
figures.show_pictures([figures.cut_into_patches(image, p) for p in sizes],
                      [f"{p}×{p} pixels\n{n:,} tokens" for p, n in zip(sizes, tokens, strict=True)], size=2);

# %% [markdown]
# The last picture is what the paper trains on: **every pixel is a token**. There are no patches left to hide structure in; all there is to learn about neighbourhood has to be learned by attention. Look at the last column of the printed numbers, too: halving the side of a patch makes four times as many tokens, and sixteen times as many pairs.
#
# This is how the model receives the 8 × 8 patches: one after the other, with nothing left of their arrangement.

# %%
side = 8 if 8 in sizes else sizes[0]
sequence = rearrange(image, "c (h p) (w q) -> (h w) c p q", p=side, q=side)
figures.show_pictures(sequence, [str(i + 1) for i in range(len(sequence))], columns=16, size=0.7);

# %% [markdown]
# Two things are added before the first layer. A **class token** (CLS), a learned vector, goes in front of the sequence; it holds nothing of the picture at first, and after the last layer the class is read from what it has become. And every token gets a learned vector for its **place**, because attention itself does not know any order, as you will check in section 9.

# %% [markdown]
# ## 4 · Self-attention in ten lines
#
# Each token $x_i$ makes three vectors of itself: a **query** (what am I looking for?), a **key** (what do I have?) and a **value** (what do I pass on?). A token looks at another as much as its query agrees with the other's key:
#
# $$q_i = x_i W_q, \qquad k_j = x_j W_k, \qquad v_j = x_j W_v$$
#
# $$A_{ij} = \frac{\exp(q_i \cdot k_j / \sqrt d)}{\sum_{m=1}^{N} \exp(q_i \cdot k_m / \sqrt d)}, \qquad y_i = \sum_{j=1}^{N} A_{ij}\, v_j$$
#
# This is eq. 1 of [Vaswani et al., *Attention Is All You Need*](https://arxiv.org/abs/1706.03762). Row $i$ of $A$ is positive and adds up to one: $y_i$ is an average of all values, with weights that token $i$ has chosen. The division by $\sqrt d$ keeps the scores from growing with the number $d$ of their entries. Several **heads** do this side by side with matrices of their own, and a last linear map mixes what they found.
#
# The code is shorter than the explanation. `[B, N, D]` means a batch of B pictures, N tokens each, D numbers in a token; H heads have d numbers each (`dim_head`).

# %%
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, dim, *, heads, dim_head, seq_len=None):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x, rotary=None):
        q, k, v = rearrange(self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # [B, H, N, N]: here is the cost
        return self.to_out(rearrange(attention @ v, "b h n d -> b n (h d)"))


# %% [markdown]
# (If you rewrite the class, keep the names `to_qkv` and `to_out`, whose weights the next cell copies. `seq_len` and `rotary` belong to the interface that all *mixers* of this series share: that is what we call whatever stands in attention's place. Softmax attention needs neither.)
#
# Is it right? `vixlib` has the same mixer twice: with the matrix written out (`fused=False`) and through PyTorch's `F.scaled_dot_product_attention` (`fused=True`). With the same weights all three must give the same numbers. In float64, rounding is too small to hide a mistake. (A cell that begins with `# NBVAL_CHECK_OUTPUT` has to print the same on every machine; the project's tests compare it.)

# %%
# NBVAL_CHECK_OUTPUT
from vixlib.mixers import SoftmaxAttention

torch.manual_seed(0)
x = torch.randn(2, 65, 128, dtype=torch.float64)
ours = SelfAttention(128, heads=4, dim_head=32).double()
for fused in (False, True):
    theirs = SoftmaxAttention(128, heads=4, dim_head=32, fused=fused).double()
    theirs.load_state_dict(ours.state_dict())
    worst = (ours(x) - theirs(x)).abs().max().item()
    assert worst < 1e-6, f"differs by {worst:.1e}: the scaling, the axis of the softmax, the order of the heads?"
    print(f"fused={fused!s:5}  the largest difference is below 1e-12: {worst < 1e-12}")

# %% [markdown]
# ### The whole Vision Transformer
#
# A layer does two things, and *adds* the result of each to what was there (a **residual connection**), so that gradients pass unhindered. The mixer, here attention, carries information **between** tokens. A small network of two linear maps, the **feed-forward** part, works **within** each token. Before each of them a **LayerNorm** brings the numbers of a token to mean 0 and variance 1, and scales and shifts them by learned numbers. Four such layers, a last norm, and a linear map of what CLS has become: that is the model.

# %%
# NBVAL_CHECK_OUTPUT
vit = vix.build("ViT", image_size=8, seed=0).double().eval()
pictures = torch.randn(2, 3, 8, 8, dtype=torch.float64)

tokens_of = vit.embedding(pictures)                                   # [2, 64, 128]: every pixel, mapped linearly
cls = vit.cls_token.expand(2, -1, -1)
x = torch.cat([cls, tokens_of], dim=1) + vit.position.table           # [2, 65, 128]
for block in vit.blocks:
    x = x + block.mixer(block.mixer_norm(x))                          # between tokens
    x = x + block.ff(block.ff_norm(x))                                # within a token: Linear, GELU, Linear
scores = vit.head(vit.norm(x[:, 0]))                                  # [2, 10], read from CLS
worst = (scores - vit(pictures)).abs().max().item()
assert worst < 1e-10, f"differs by {worst:.1e}: is a norm or a residual missing?"
print(f"the largest difference from vixlib is below 1e-10: {worst < 1e-10}")

# %% [markdown]
# ## 5 · Why it costs N², and what changed since 2021
#
# The matrix $A$ has N² entries per head. They have to be *computed*, 2 N² d multiplications and additions for the scores and as many for the average, and in the ten lines above they are *stored*, too: the softmax needs its own result again to work out gradients, so autograd keeps the matrix of every layer until the backward pass gets there.
#
# **Since then** attention is commonly computed without storing it ([Rabe and Staats, *Self-attention Does Not Need O(n²) Memory*](https://arxiv.org/abs/2112.05682); [Dao et al., *FlashAttention*](https://arxiv.org/abs/2205.14135)). The kernel goes through the matrix tile by tile. For each query it keeps a running sum of $\exp(\cdot)\,v$ and of $\exp(\cdot)$, corrects both when a larger score turns up, and forgets the tile. In the backward pass it computes the tiles anew. That is *more* arithmetic, not less: what it saves is memory, and the traffic to and from memory.
#
# So theory predicts: **bytes** with slope 2 in N when the matrix is materialised and slope 1 when it is fused; **time** with slope 2 for both. Slopes are those of straight lines in a plot with two logarithmic axes. First the bytes, for a ViT of a single layer at patch size 1, from pictures of 8 × 8 to 48 × 48 pixels:

# %%
WAYS = {"softmax materialised": False, "softmax": True}  # in the legend: fused?
image_sides = (8, 16, 32, 48)
lengths = [side**2 + 1 for side in image_sides]  # and CLS
kept = {way: [vix.saved_bytes_per_image(vix.build("ViT", depth=1, image_size=side, fused=fused))
              for side in image_sides] for way, fused in WAYS.items()}

print(f"{'tokens':>8} {'materialised':>14} {'fused':>10} {'difference':>12} {'4 heads × N² × 4 bytes':>24}   (MB)")
for n, whole, lean in zip(lengths, *kept.values(), strict=True):
    print(f"{n:8,} {whole / 1e6:14.2f} {lean / 1e6:10.2f} {(whole - lean) / 1e6:12.2f} {4 * n * n * 4 / 1e6:24.2f}")

# %% [markdown]
# The last two columns are the point. What fusing saves is the attention matrix and nothing else, nearly to the byte (the kernel keeps a little instead: one number for each row of the matrix, the logarithm of its sum). Now the time of a forward and a backward pass through the attention itself, without the linear maps around it:

# %%
from time import perf_counter

import torch.nn.functional as F

ATTENTION = {"softmax materialised": lambda q, k, v: SoftmaxAttention.attention(q, k) @ v,
             "softmax": F.scaled_dot_product_attention}
clocked = (1024, 2048, 4096, 8192) if device.type == "cuda" else (256, 512, 1024, 2048)
wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None  # a GPU answers before it is done


def milliseconds(attend, n):
    q, k, v = torch.randn(3, 1, 4, n, 32, device=device, requires_grad=True).unbind()
    times = []
    for _ in range(7):
        wait()
        start = perf_counter()
        attend(q, k, v).sum().backward()
        wait()
        times.append(perf_counter() - start)
    return 1e3 * min(times)  # whatever else the machine is doing can only add


spent = {way: [milliseconds(attend, n) for n in clocked] for way, attend in ATTENTION.items()}

# %%
figure, (memory, clock) = figures.new_axes(2)
figures.cost_curves(memory, lengths, {way: [b / 1e6 for b in values] for way, values in kept.items()},
                    "kept, one layer (MB per image)")
figures.slope_guides(memory, lengths, {2: kept["softmax materialised"][-1] / 1e6, 1: kept["softmax"][-1] / 1e6})
figures.cost_curves(clock, clocked, spent, "attention, forward + backward (ms)")
figures.slope_guides(clock, clocked, {2: spent["softmax"][-1]})

# %% [markdown]
# Solid: fused; dashed: materialised; dotted: the slopes of the theory. The legends give the slope between the last two points. On the left the fused curve follows slope 1 closely, while the other approaches slope 2 as the matrix outgrows everything else that a layer keeps. On the right theory gives both slope 2, with about a sixth more operations for the fused way, which computes QKᵀ a second time (seven N × N products instead of six). The clock need not follow. On a CPU the materialised way may be much steeper: on Linux a tensor of more than 32 MB (this matrix has 17 MB at N = 1024 and 67 MB at N = 2048) is usually fetched from the operating system at each call and given back after it, and every fresh page has to be filled with zeros first. The rest is traffic to memory. Neither is arithmetic. Short sequences look less steep: there, a call costs what every call costs, whatever its size. A machine that is busy with other things makes the times jump about; run the cell again.
#
# **That is where linear attention comes in.** In 2021 it promised to save memory *and* time. The memory has since been won without any approximation. What is left to win is the slope of the right plot, and for that the matrix must not be computed at all: the subject of notebook 02.

# %% [markdown]
# ## 6 · ViT's row in the paper
#
# **Parameters (Table 1).** The paper prints 792,586. Its text describes one configuration for all models, but the printed numbers come from layers that differ between the rows; for ViT they are four heads of 64 numbers and a feed-forward part of width 256. `config="paper"` builds exactly those layers. Here is the sum, term by term:

# %%
# NBVAL_CHECK_OUTPUT
paper_vit = vix.build("ViT", config="paper")
count = vix.count_parameters(paper_vit)

norm, embedding = 128 + 128, 3 * 128 + 128
attention = 128 * (3 * 4 * 64) + (4 * 64) * 128 + 128
feed_forward = (128 * 256 + 256) + (256 * 128 + 128)
layer = norm + attention + norm + feed_forward
head = norm + 128 * 10 + 10
print(f"embedding {embedding:,} + 4 layers of {layer:,} + head {head:,} = {embedding + 4 * layer + head:,}")
assert embedding + 4 * layer + head == count.as_paper == vix.paper_table(1)["rows"][0]["params"]

positions, cls = 1025 * 128, 128
print(f"true: {count.as_paper:,} + positions {positions:,} + class token {cls} = {count.true:,}")
assert count.as_paper + positions + cls == count.true

# %% [markdown]
# The two differ because the paper's column was printed by the tool *torchsummary*, which adds up the `weight` and `bias` of modules. The position table and the class token are parameters too, but they are nobody's `weight`, so it passes over them. Nothing is wrong with the model; but where sizes are compared, it is the true number that counts.
#
# The paper's "Size (MB)", 222.40 for ViT, comes from the same tool: an estimate for one picture from the outputs of all modules it hooked. It changes with the way modules are nested, so it is no property of the model. The bytes that you measured in section 5 are.

# %% [markdown]
# **Memory and the largest batch (Table 2).** The paper fits batches of 64 into 16 GB, using 15.0 GB. Two things have changed since. The authors' scripts put only the *loss* under mixed precision, so that the forward and backward passes ran in float32, where four heads × 1025² × 4 bytes × 64 pictures make 1.08 GB a layer for one copy of the attention matrix. And there was no fused kernel.
#
# `vix.max_batch_size` predicts the peak memory of a whole training step from tensors that have shapes but no content. That needs no GPU, only a few seconds. It adds a margin of 15 % and leaves 1 GiB of the card alone, so it errs on the low side.

# %%
TODAY = {"as in 2021: materialised, float32": (False, "float32"),
         "materialised, mixed precision": (False, "float16"),
         "fused, mixed precision": (True, "float16")}
largest = {}
for way, (fused, precision) in TODAY.items():
    largest[way] = vix.max_batch_size(vix.build("ViT", config="paper", fused=fused), 16, precision)
    print(f"{way:34} {largest[way]:5} pictures a batch in 16 GB, predicted")
print(f"{'Table 2 of the paper':34} {vix.paper_table(2)['rows'][0]['batch_size']:5}")
gain = largest["fused, mixed precision"] / largest["as in 2021: materialised, float32"]
print(f"The same model takes batches {gain:.1f} times as large today.")

# %% [markdown]
# That the second line is no larger than the first is no slip. On a GPU, PyTorch's mixed precision computes a softmax in float32 all the same; it keeps the result, four bytes an entry, and a half-precision copy for the product with V, two more. A stored matrix gets *larger* by that. What halves is everything else.
#
# The first line need not be the paper's 64: the paper does not say how its gigabytes were read. A figure from `nvidia-smi`, for instance, includes all that PyTorch has reserved, which is more than it uses. Copies of the matrix do not explain the difference: the authors' published formulas, run with today's PyTorch, keep one per layer, as this project's do. Unless the PyTorch of 2021 kept more, it stays open. The *ratio* of the lines says more than each line by itself. On a GPU the next cell measures the same step at two batch sizes and extends the line through them, with the same margin; without one, it says so.

# %%
def measured_batch(fused, precision, memory_gb=16):
    model = vix.build("ViT", config="paper", fused=fused).to(device)
    small, large = (vix.measure.MARGIN * vix.peak_memory(model, batch, precision).bytes for batch in (8, 24))
    per_image = (large - small) / 16
    return int(((memory_gb - 1) * 2**30 - (small - 8 * per_image)) / per_image)


for way, choice in TODAY.items():
    found = f"{measured_batch(*choice):5} (measured)" if device.type == "cuda" else "not measured: no GPU here"
    print(f"{way:34} {largest[way]:5} (predicted)   {found}")

# %% [markdown]
# **Where does 16 GB end?** Drag the size of a patch and watch the tokens move along the axis. Each curve is the memory of a training step of a four-layer model with `uniform` layers (those that the profiles train, smaller than Table 1's: section 8), a *prediction* for a machine that need not exist: a straight line in N (for the materialised matrix a parabola without constant term) through two computed lengths, 257 and 1,025 tokens. Against a third one, 4,097 tokens, four of the five curves are exact, and Nyström's is nine per cent too low. The coloured three are the linear mixers of notebook 02, here already so that you can see what they have to beat: the black solid line, which is softmax, fused.

# %%
from vixlib.figures import explore

explore.interact(explore.memory_by_patch, patch_size=[16, 8, 4, 2, 1], image_side=[32, 64, 224],
                 batch_size=[1, 8, 16, 64, 256])

# %% [markdown]
# With 32 pixels a side only the matrix that is written down in float32 comes near the line. Set the side to 224, a usual photograph: at patches of 16 everything fits, at 4 everything but the stored matrix, and with a token a pixel nothing at all, at batch 64. **This cost is why ViT works on patches.**

# %% [markdown]
# ## 7 · Training it
#
# Everything is chosen; what is left is to train. `vix.fit` is the usual loop: batches of pictures, cross-entropy, AdamW with a constant learning rate (0.001 in the paper, 0.002 at `smoke`), no augmentation, and after each epoch an evaluation on the test pictures. The profile decides how much of the paper's protocol your machine can handle. The bar below runs, and the curve is redrawn after every epoch. You may interrupt at any time (the stop button): what has been learned is kept, and the cells below work with it.

# %%
choices = {name: value for name, value in
           dict(patch_size=patch_size, dim=dim, depth=depth, heads=heads).items() if value}
options = profile.options_for("ViT", **choices, image_size=data.image_size, channels=data.channels,
                              num_classes=data.num_classes)
model = vix.build("ViT", config=profile.config, seed=seed, **options)
print(f"{vix.count_parameters(model).true:,} parameters, {model.seq_len:,} tokens of {model.cls_token.shape[-1]} numbers, "
      f"{len(model.blocks)} layers of {model.blocks[0].mixer.heads} heads")

# %%
run = vix.fit(model, data, profile.train, checkpoint=checkpoint or None, device=device, on_epoch=figures.live_curve())
run

# %% [markdown]
# ## 8 · The table
#
# Four sources side by side: what the paper printed, what its authors' public training logs say, what this project has recorded, and what you just trained. *Top-1* is the percentage of test pictures whose class gets the highest score. This notebook fills ViT's row; notebook 02 trains the other three, ViP (Performer), ViL (Linformer) and ViN (Nyström). FNet and MLPMixer are no rows of the paper's; they are there for scale, and 02 says what they are.

# %%
vix.compare(1, runs=[run])

# %%
here = {"data": run.dataset, "tokens": model.seq_len, "epochs": len(run.history),
        "batch": run.config.batch_size, "learning rate": run.config.lr, "layers": f"config {run.model_config!r}"}
paper = {"data": "cifar10", "tokens": 1025, "epochs": 40, "batch": 64, "learning rate": 1e-3, "layers": "config 'paper'"}
differs = [f"{what}: {here[what]} instead of {paper[what]}" for what in paper if here[what] != paper[what]]
differs += [f"chosen in the form: {name} = {value}" for name, value in choices.items()]
print("This run follows the paper's protocol." if not differs else
      "This run is no reproduction; its accuracy does not belong beside the paper's. It differs in\n  "
      + "\n  ".join(differs))
if run.history:
    print(f"Guessing would give {100 / data.num_classes:.1f} %, the last epoch gives {run.last_top1:.1f} %.")

# %% [markdown]
# ### How to read the paper's number
#
# Three habits to know when you read the paper's rows, none of them unusual in its time; only the first touches this 55.67 %:
#
# - **The best epoch was chosen on the test pictures**, and then the best of three runs. A maximum of forty noisy numbers is higher than a typical one. (In the authors' own log, below, best and last differ by almost two points; a part of that is real, because the model gets worse in the end.) So the tables here give two numbers: *best*, to compare with the paper, and *last*, in which nothing was chosen.
# - **Evaluation ran mostly without eval mode**, in which dropout stays on. In this row nothing comes of it, because its dropout is 0; in models with dropout it lowers the result. `vix.evaluate` always switches, and averages over pictures, not over batches of unequal size.
# - **The forward pass was float32**, although the paper speaks of mixed precision (section 6). So its gigabytes are those of float32, and a comparison with them has to say which precision it used.

# %%
# NBVAL_CHECK_OUTPUT
log = vix.authors_runs("ViT")[0]
print(f"parameters {log['params_torchsummary']:,}, {len(log['top1'])} epochs in the log")
print(f"best epoch {max(log['top1']):.2f} %, last epoch {log['top1'][-1]:.2f} %, "
      f"training pictures in the last epoch {log['train_acc'][-1]:.2f} %")
uniform = vix.count_parameters(vix.build("ViT"))
assert uniform.as_paper == log["params_torchsummary"]
print(f"config 'uniform' has the log's layers: {uniform.as_paper:,} counted their way, {uniform.true:,} in truth")

# %% [markdown]
# Two more things can be seen in this log. Its parameter count is not that of Table 1: it belongs to the later, smaller configuration with heads of 32, called `uniform` here, and yet its accuracy is no lower. And the model knows its training pictures much better than the test pictures: of the 50,000, not one of them flipped or shifted, it gets three quarters right in its last epoch (the log stops at epoch 20 of 40 planned), of the others little more than half; and while it goes on learning the former, it loses two points on the latter. That does not explain the level: the authors' log of the same model with *rotary positions* learns its training pictures even better and still gets to 69.33 % on the test pictures. **What seems to be missing is not size but an idea of neighbourhood.** Notebook 04 puts it into the positions, notebook 03 in front: with three convolutions there, the authors' hybrid of the same transformer gets to 74.07 % in its log (Table 3, with wider heads: 73.94).

# %% [markdown]
# ## 9 · Look inside
#
# **Where does the class token look?** Row 0 of each attention matrix says from which patches the class token collects. With even attention every patch would get 1/N; the colours below count in multiples of that. White is an even share, orange is more, purple less. In colour beside them is the picture that you cut up in section 3.

# %%
from vixlib.measure import attention_maps

picture %= len(data.test_labels)
image = data.test_images[picture].cpu()  # once more, as you may have chosen another since
index = torch.tensor([picture])
seen, label = (tensor.to(device) for tensor in data.batch(index, "test"))
maps = [attention[0].float().cpu() for attention in attention_maps(model, seen)]  # [H, N, N] a layer
guess = vix.predict(model, data.test_images[index])[0]
print(f"true class: {data.classes[int(label)]!r}; the model says {data.classes[int(guess.argmax())]!r} "
      f"with {100 * guess.max():.0f} %")

towards = torch.stack([m[:, 0, 1:].unflatten(-1, model.grid) for m in maps]) * model.seq_len
figures.attention_grid(image, towards, "attention of CLS (in units of 1/N)");

# %% [markdown]
# After some training heads differ: there are pale ones, which look at nearly everything, and some with a few strong patches. A panel that is purple throughout belongs to a head in which the class token looks at *itself*: its own share is not drawn. An orange patch is one whose value goes into the class token in *this* layer; it does not follow that the class hangs on it, because by the second layer each token has mixed with all the others. Attention maps show where information flows, not why the answer is what it is ([Jain and Wallace, *Attention is not Explanation*](https://arxiv.org/abs/1902.10186)).
#
# **Where does a single patch look?** The same for the patch in the ring, in the centre of the picture. Do its heads look at the neighbourhood, as a convolution would, or at things of the same look elsewhere?

# %%
rows, columns = model.grid
query = (rows // 2, columns // 2)
position = 1 + query[0] * columns + query[1]  # CLS is number 0
outwards = torch.stack([m[:, position, 1:].unflatten(-1, model.grid) for m in maps]) * model.seq_len
figures.attention_grid(image, outwards, "attention of the patch (in units of 1/N)", query);

# %% [markdown]
# One picture is an anecdote. The mean **attention distance** says the same for many pictures in one number a head: how far away, in pixels, is what a patch looks at, on average over all patches? (Dosovitskiy et al. show it in their figure 7.) A head that attends evenly sits on the dotted line, a head that stays in its neighbourhood far below. Which of the two are yours?

# %%
some = data.batch(data.some(8), "test")[0].to(device)
places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) * torch.tensor(model.embedding.patch)
apart = torch.cdist(places.float(), places.float())  # pixels between any two patches

figure, ax = figures.new_axes(width=5)
for layer, attention in enumerate(attention_maps(model, some), 1):
    between = attention.float().cpu()[:, :, 1:, 1:]
    distance = (between / between.sum(-1, keepdim=True) * apart).sum(-1).mean(dim=(0, 2))  # one a head
    ax.plot([layer] * len(distance), distance, "o", color=figures.COLOURS["softmax"], alpha=0.6)
    print(f"layer {layer}: " + "  ".join(f"{d:4.1f}" for d in distance) + f" pixels; evenly {apart.mean():.1f}")
ax.axhline(apart.mean(), linestyle=":", color="#777777")
ax.annotate("attending evenly", (0.55, apart.mean()), xytext=(0, 4), textcoords="offset points", fontsize=8)
ax.set(xlabel="layer", ylabel="mean attention distance (pixels)", xticks=range(1, len(maps) + 1),
       xlim=(0.5, len(maps) + 0.5), ylim=(0, 1.2 * float(apart.mean())));

# %% [markdown]
# Being on the line does not mean attending evenly. A head that looks for one *thing*, wherever it is, gets there as well. Compare the maps above: one that lights up on the stripes or the frame from anywhere is selective and not local. A short training on few pictures seldom makes a head local.
#
# **Positions.** Nothing in the ten lines of section 4 refers to *where* a token is. Permute the tokens, and the outputs are permuted in the same way; the class token, which stays in front, does not notice at all. Without a position table a ViT whose patches are single pixels cannot tell a picture from the same pixels in random order. That can be checked exactly:

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
pictures = torch.randn(2, 3, 8, 8, dtype=torch.float64)
scrambled = pictures.flatten(2)[:, :, torch.randperm(64)].view_as(pictures)
for position in ("none", "learned"):
    small = vix.build("ViT", image_size=8, position=position, seed=0).double().eval()
    same = torch.allclose(small(pictures), small(scrambled), atol=1e-9)
    assert same == (position == "none")
    print(f"position={position!r:9}  the same class scores for scrambled pixels: {same}")

# %% [markdown]
# The table is learned from random starting values, one vector for each place and none related to its neighbours': the model has to find out that pixels 1 and 2 are neighbours, and that pixels 1 and 33 are as well. In the paper's code these vectors start with standard deviation 1. How loud is that beside what the patches say?

# %%
with torch.no_grad():
    content, place = model.embedding(some), model.position.table[:, 1:]
    across_pictures, across_places = content.std(dim=0).mean().item(), place.std(dim=1).mean().item()
print(f"In the trained model, what a patch says varies by {across_pictures:.2f} from picture to picture,\n"
      f"its position vector by {across_places:.2f} from place to place (standard deviations).")

# %% [markdown]
# With `smoke` the table is several times as loud: what a token *is* starts as a murmur under *where* it is. Rotary positions need no table at all; with them this ViT goes from 56.82 % to 69.33 % in the authors' logs. Notebook 04 is about them.

# %% [markdown]
# ## 10 · Your own pictures
#
# Any model of the series learns any folder of pictures, as long as all have one size. The name of a folder is the name of a class:
#
# ```
# my_pictures/train/cat/1.jpg    my_pictures/train/dog/a.png    ...
# my_pictures/test/cat/7.jpg     my_pictures/test/dog/b.png     ...
# ```
#
# Leave the first field empty, and the cell below it writes such a folder itself and names its first files.

# %%
my_pictures = ""  #@param {type:"string"}
#   a folder as above; empty: one that is written now
my_model = "ResNet18"  #@param ["ViT", "ViP", "ViL", "ViN", "FNet", "MLPMixer", "HybridViT", "HybridViP", "HybridViL", "HybridViN", "LeViT", "LeViN", "CCT", "CCN", "CvT", "CvN", "CPV", "CNV", "CLTV", "ResNet18"]
#   the notebooks after this one explain them
my_patch_size = 4  #@param [16, 8, 4, 2, 1] {type:"raw"}
#   has to divide the sides of your pictures; the models with convolutions in front take 4, 2 or 1
my_epochs = 5  #@param {type:"slider", min:1, max:40, step:1}

# %%
import tempfile

from PIL import Image


def write_folder(folder, pictures):
    """One PNG a picture: folder/train/<class>/0001.png and folder/test/<class>/0001.png."""
    for part in ("train", "test"):
        images, labels = getattr(pictures, f"{part}_images"), getattr(pictures, f"{part}_labels")
        for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            place = Path(folder, part, pictures.classes[label])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{i:04}.png")
    return folder


folder = Path(my_pictures).expanduser() if my_pictures else write_folder(tempfile.mkdtemp(), vix.load("shapes", train=600, test=60))
mine = vix.load(folder)
files = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
print(mine, *files[:3], "...", sep="\n")

# %% [markdown]
# Training is the same call as before; what differs is the number of classes and the size of a picture, and the model is told both. Few pictures and few epochs teach little, and least to a transformer, which has to learn even that neighbouring pixels belong together. So the form starts with a convolutional network, ResNet-18, which is built to know it; choose HybridViT instead and compare (notebook 03 is about the difference).

# %%
my_grid = [side // my_patch_size for side in mine.image_size]
reduced = {name: min(16, my_grid[0] * my_grid[1]) for name in ("num_landmarks", "rank")}  # no more than there are tokens
my_options = profile.options_for(my_model, patch_size=my_patch_size, image_size=mine.image_size,
                                 channels=mine.channels, num_classes=mine.num_classes, **reduced)
my_network = vix.build(my_model, seed=seed, **my_options)
my_run = vix.fit(my_network, mine, replace(profile.train, epochs=my_epochs), device=device)
my_run

# %%
from textwrap import fill

shown = torch.linspace(0, len(mine.test_labels) - 1, 8).long()  # spread over all classes
chances = vix.predict(my_network, mine.test_images[shown])
titles = [f"{fill(mine.classes[guess], 20)}\n{chance[guess]:.0%}, "
          + ("right" if guess == label else f"wrong:\n{fill(mine.classes[label], 20)}")
          for chance, guess, label in zip(chances, chances.argmax(dim=1).tolist(), mine.test_labels[shown].tolist(), strict=True)]
figures.show_pictures(mine.test_images[shown], titles, columns=4, size=2.2);

# %% [markdown]
# Above each picture stands the model's guess, with the largest of its class probabilities: how sure it *says* it is. Where it is wrong, the true class stands below. Networks trained to the end are often surer than they are right ([Guo et al., *On Calibration of Modern Neural Networks*](https://arxiv.org/abs/1706.04599)). Later, elsewhere, the trained model takes any picture of this size as `vix.predict(my_network, pixels[None])`, uint8 `[1, 3, height, width]`.

# %% [markdown]
# ### In short
#
# - A picture becomes a sequence of patches; a class token and a vector for each place are added. Each layer mixes **between** tokens (attention) and works **within** them (feed-forward), and adds both results to what was there.
# - Attention compares every token with every other: N² work. If its weights are stored, N² memory, too. Fused kernels compute them piece by piece: memory is linear today, time is quadratic still.
# - Gigabytes mean little without precision, batch and the way attention was computed; parameters mean little without saying what was counted.
# - The best epoch on the test pictures is a maximum that was chosen; the last epoch is not.
# - Attention maps show where information flows, not why the answer is what it is.
#
# ## 11 · Your turn
#
# **1. Predict, then measure.** The paper's ViT takes patches of 1. By what factor do the bytes kept per image fall with patches of 2, materialised and fused? Write down two numbers first.
#
# <details><summary>Solution</summary>
#
# Four times fewer tokens: a factor of 4 for all that is linear in N, and of 16 for the matrix. Fused is close to 4; materialised lies between, nearer to 16 the more the matrix dominates.
#
# ```python
# for fused in (False, True):
#     one, two = (vix.saved_bytes_per_image(vix.build("ViT", config="paper", patch_size=p, fused=fused)) for p in (1, 2))
#     print(fused, one / two)
# ```
# </details>

# %% [markdown]
# **2. How much does *choosing* matter?** Replace the attention weights with 1/N: each token gets the plain average of all values. Train that instead. What is lost?
#
# <details><summary>Solution</summary>
#
# Any class with the interface of `SelfAttention` can be a mixer. Now all tokens receive the same vector, so that no token can ask for anything in particular; how much that costs says how much your data needs asking. (At `smoke` such a model may not get beyond guessing in two epochs, though a class here has a part that needs no asking, the stripes, which alone give 20 %: take `epochs = 8`, and compare then.)
#
# ```python
# class AverageAttention(SelfAttention):
#     def forward(self, x, rotary=None):
#         v = self.to_qkv(x).chunk(3, dim=-1)[2]
#         return self.to_out(v.mean(dim=1, keepdim=True).expand_as(v))
#
# average = vix.build("ViT", config=profile.config, seed=seed, mixer=AverageAttention, **options)
# print(vix.fit(average, data, profile.train, device=device), run, sep="\n")
# ```
# </details>

# %% [markdown]
# **3. A bag of patches.** Take away the positions and train again. Why is the accuracy not down to guessing?
#
# <details><summary>Solution</summary>
#
# ```python
# bag = vix.build("ViT", config=profile.config, seed=seed, position="none", **options)
# print(vix.fit(bag, data, profile.train, device=device), run, sep="\n")
# ```
#
# *Which* patches there are is still known, only not where. Colours, textures and stripes are in the patches; "left of" is not. With patch size 1, only the colours are left.
# </details>

# %% [markdown]
# **4. Twice the side.** How large a batch of 64 × 64 pictures (4097 tokens) fits into 16 GB, as in 2021 and as today? By what factor does each fall, compared with 32 × 32?
#
# <details><summary>Solution</summary>
#
# ```python
# from vixlib.measure.lengths import stored
#
# for way in ("softmax materialised", "softmax"):
#     needs = stored()[way]  # of the configuration "uniform", whose heads are half as wide as the paper's; 1 GB and 15 % to spare
#     batches = [int((15 * 2**30 / 1.15 - needs.bytes(n, 0)) / (needs.bytes(n, 1) - needs.bytes(n, 0))) for n in (1025, 4097)]
#     print(f"{way:22} {batches[0]} -> {batches[1]}, a factor of {batches[0] / batches[1]:.1f}")
# ```
#
# Four times as many tokens: about four times smaller where the matrix is not stored, and towards sixteen times where it is. The arithmetic of attention grows sixteenfold either way, which is what the next notebook is about.
# </details>

# %% [markdown]
# **Next:** [02 · Linear attention](02_linear_attention.ipynb), three ways never to compute the matrix, and Table 1 in full.
