"""The paper's "Size (MB)" sees what its parameter counts cannot: how wide the layers behind a row are."""
import pytest

import vixlib as vix

TOKENS, PADDED, LANDMARKS = 1025, 1088, 64  # PADDED: to a multiple of the landmarks, as Nyström's published code does
SEQUENCE = TOKENS * 128


def size_mb(name: str, params: int, inner: int, hidden: int) -> float:
    """torchsummary's estimate for one picture: 4 bytes for each input and parameter, 8 for each output of a module.

    The modules are those of the published code: their nesting has a sequence counted as often as a module returns it.
    inner: heads × head width;  hidden: the width of the feed-forward.
    """
    embedding = 1024 * (32 + 64 + 128 + 128 if "Hybrid" in name else 3 + 128)  # the last: rearranged, or mapped
    own = "ViL" if name == "ViL" else name[-1]
    attention = {
        "T": TOKENS * 3 * inner + 4 * TOKENS**2 + 3 * SEQUENCE,  # q k v, softmax; the map, dropout, all of it
        "P": TOKENS * 4 * inner + 3 * SEQUENCE,  # q, k, v, random features; the map, dropout, all of it
        "ViL": TOKENS * (3 * inner + 4 * LANDMARKS) + 2 * SEQUENCE,
        "L": TOKENS * (inner + 32 + 4 * LANDMARKS) + 2 * SEQUENCE,  # one key head of 32, whose values are the keys
        "N": PADDED * (4 * inner + 2 * 128) + SEQUENCE,  # q k v, the convolution; the map, dropout
    }[own]
    feedforward = TOKENS * 3 * hidden + (3 if own in "TP" else 2) * SEQUENCE
    layers = 4 * (attention + feedforward + 2 * 2 * SEQUENCE)  # each part with a norm, and within a pre-norm
    around = SEQUENCE * (1 if own == "N" else 2)  # dropout; the stack of layers
    if own == "P":
        layers, around = 2 * (layers + SEQUENCE), SEQUENCE  # the stack is hooked twice, as its parameters are
    return (4 * (3 * 32 * 32 + params) + 8 * (embedding + layers + around + 2 * 128 + 10)) / 2**20


@pytest.mark.parametrize(("table", "name"), [(1, "ViT"), (1, "ViP"), (1, "ViL"), (1, "ViN"), (3, "HybridViT"),
                                             (3, "HybridViP"), (3, "HybridViL"), (3, "HybridViN")])
def test_the_paper_rows_have_the_widths_that_its_sizes_tell(table, name):
    row, = (row for row in vix.paper_table(table)["rows"] if row["model"] == name)
    block = vix.build(name, "paper").blocks[0]
    widths = block.mixer.heads * block.mixer.dim_head, block.ff[0].out_features
    assert size_mb(name, row["params"], *widths) == pytest.approx(row["size_mb"], abs=0.006)
    for others in {(128, 256), (128, 512), (256, 256), (256, 512)} - {widths}:
        assert size_mb(name, row["params"], *others) != pytest.approx(row["size_mb"], abs=1)


def test_the_count_of_vip_alone_leaves_its_widths_open():
    """Wide heads, a narrow feed-forward and an output map without biases have as many parameters; 202.29 MB, though."""
    of_the_row = vix.count_parameters(vix.build("ViP", "paper"))
    assert vix.count_parameters(vix.build("ViP", "paper", dim_head=64, mlp_dim=256, out_bias=False)) == of_the_row
    assert size_mb("ViP", of_the_row.as_paper, 256, 256) == pytest.approx(202.29, abs=0.006)
    assert size_mb("ViP", of_the_row.as_paper, 128, 512) == pytest.approx(218.30, abs=0.006)
