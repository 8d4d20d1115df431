"""The benchmarks measure equal things: textbook forms and packages give vixlib's outputs; records, fits and tables."""
from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import packages, peers, record, roofline, scaling, stacks, summary, timing
from vixlib.measure.live_bytes import kept_for_backward
from vixlib.report import benchmarks

SMALL = stacks.Shape(batch=2, tokens=37, depth=2, dim=24, heads=3, dim_head=8, mlp_dim=48, landmarks=5)
CPU = torch.device("cpu")


def gradients(model, x, direction):
    """Output, gradient of x, gradient of each parameter by name."""
    out = model(x)
    named = dict(model.named_parameters())
    of_x, *of_parameters = torch.autograd.grad((out * direction).sum(), [x, *named.values()])
    return {"output": out, "input": of_x, **dict(zip(named, of_parameters, strict=True))}


@pytest.mark.parametrize("model", stacks.MODELS)
def test_textbook_forms_equal_vixlib_in_output_and_all_gradients(model):
    torch.manual_seed(0)
    ours = stacks.vixlib_stack(model, SMALL, **({"padding": "front"} if model == "ViN" else {})).double()
    textbook = stacks.textbook_stack(model, SMALL).double()
    textbook.load_state_dict(ours.state_dict())
    x, direction = torch.randn(2, 2, 37, 24, dtype=torch.float64)
    x.requires_grad_()
    found, wanted = gradients(ours, x, direction), gradients(textbook, x, direction)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name] - value).abs().max() < 1e-12 * value.abs().max().clamp(min=1), name


def test_textbook_forms_keep_every_matrix_of_their_equations():
    x = torch.randn(2, 37, 24, requires_grad=True)
    kept = {model: kept_for_backward(block, lambda block=block: block(x))
            for model in ("ViT", "ViN") for block in [stacks.textbook_stack(model, SMALL)]}
    assert kept["ViT"] > 2 * 2 * 3 * 37 * 37 * 4                                  # depth x batch x heads x N x N
    assert kept["ViN"] > 2 * 2 * 3 * (2 * 40 * 5 + 6 * 4 * 5 * 5) * 4             # two tall ones, 24 iterates


def test_difference_sees_a_changed_weight():
    torch.manual_seed(0)
    ours, x = stacks.vixlib_stack("ViT", SMALL), torch.randn(2, 37, 24)
    textbook = stacks.textbook_stack("ViT", SMALL)
    textbook.load_state_dict(ours.state_dict())
    assert all(value < 1e-14 for value in peers.differences(textbook, ours, x).values())
    with torch.no_grad():
        textbook[1].mixer.to_qkv.weight[0, 0] += 1e-3
    assert all(1e-8 < value < 1e-2 for value in peers.differences(textbook, ours, x).values())


@pytest.mark.parametrize("package", packages.PACKAGES, ids=lambda package: f"{package.name}-{package.model}")
def test_packages_with_our_weights(package):
    """Where a package is installed: the same function (nearly, where it says what differs), or the row says why not."""
    if packages.installed(package.name) is None:
        pytest.skip(f"{package.name} is not installed")
    row = peers.against_package(package, SMALL, CPU, seed=0, rounds=1)
    if row["status"] == "measured":
        same_outputs = package.differs in (None, packages.CONSTANT)
        assert row["difference"] < (1e-12 if same_outputs else 0.05)
        assert row["gradient_difference"] < (0.05 if package.differs else 1e-12)
        assert row["mlp_dim"] == (96 if package.ff_factor else 48)
    else:
        assert row["status"].startswith("raises ")
        assert (package.name, package.model) == ("vision-xformer", "ViP"), row["status"]


def fake(build, names=None, name="torch"):
    return packages.Package(name, "FNet", build, names or packages.block_names("layers.", {}, packages.NET))


def test_an_absent_package_is_a_row(monkeypatch):
    def absent(package):
        raise packages.PackageNotFoundError(package)

    monkeypatch.setattr(packages, "version", absent)
    row = peers.against_package(packages.PACKAGES[0], SMALL, CPU, seed=0, rounds=1)
    assert row == {"model": "ViT", "against": "vit-pytorch", "version": None, "status": "not installed"}


def test_a_package_that_fails_is_a_row_with_the_reason():
    def broken(shape):
        raise RuntimeError("torch.qr is gone. Use another.\nmore")

    row = peers.against_package(fake(broken), SMALL, CPU, seed=0, rounds=1)
    assert row["status"] == "raises RuntimeError: torch.qr is gone. Use another."
    found = record.begin("peers", CPU, True, **vars(SMALL)) | {"rows": [row]}
    text = str(peers.table(found))
    assert "raises, see below" in text and "FNet raises RuntimeError: torch.qr is gone" in text


def test_weights_that_find_no_place_are_an_error():
    ours = stacks.vixlib_stack("FNet", SMALL)
    theirs = stacks.textbook_stack("FNet", SMALL)
    names = {"mixer_norm": "{i}.mixer_norm", "ff_norm": "{i}.ff_norm", "ff.0": "{i}.ff.0", "ff.3": "{i}.ff.3"}
    packages.load_weights(theirs, ours, names)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items())
    with pytest.raises(ValueError, match="ff.3.weight has no place"):
        packages.load_weights(theirs, ours, {key: names[key] for key in ("mixer_norm", "ff_norm", "ff.0")})
    theirs.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="parameters that vixlib does not: extra"):
        packages.load_weights(theirs, ours, names)


def test_ratio_is_the_median_over_rounds_with_extremes():
    ratio = timing.Ratio.of([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert (ratio.middle, ratio.low, ratio.high) == (2.0, 1.0, 3.0)
    assert str(ratio) == "2.00 (1.00-3.00)"


def test_steps_take_turns_and_short_ones_are_repeated(monkeypatch):
    clock, order = [0.0], []

    def takes(name, seconds):
        def step():
            order.append(name)
            clock[0] += seconds
        return step

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    taken = timing.in_turns({"slow": takes("slow", 0.5), "fast": takes("fast", 0.25)}, 3, CPU, shortest=1.0)
    assert taken == {"slow": [0.5] * 3, "fast": [0.25] * 3}
    assert order == ["slow", "fast"] * 4 + (["slow"] * 2 + ["fast"] * 4) * 3      # three to warm up, one to time


def test_peak_bytes_sees_what_lives_together_and_what_was_freed():
    def two_at_once():
        a = torch.empty(1 << 20)
        b = torch.empty(1 << 18)
        return len(a) + len(b)

    def one_after_another():
        for _ in range(3):
            torch.empty(1 << 20)

    assert timing.peak_bytes(two_at_once, CPU) == 4 * ((1 << 20) + (1 << 18))
    assert timing.peak_bytes(one_after_another, CPU) == 4 << 20


def test_traffic_counts_reads_and_writes_but_no_views():
    x = torch.ones(100)
    with roofline.Traffic() as traffic:
        (x.view(10, 10).mT + 1).relu()
    assert traffic.bytes == 4 * 100 * 4                                           # each of two operators: in and out


@pytest.mark.parametrize("content", ["", "[]", '{"benchmark": "peers"}'])
def test_a_damaged_benchmark_is_named(tmp_path, content):
    (tmp_path / "peers_CPU.json").write_text(content)
    with pytest.raises(ValueError, match=r"peers_CPU\.json holds no benchmark .*restore it or delete it"):
        benchmarks.read(tmp_path)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_slope_recovers_a_power_law(power):
    tokens = [65, 129, 257, 1025]
    assert benchmarks.slope(tokens, [3e-4 * n ** power for n in tokens]) == pytest.approx(power, abs=1e-12)
    assert benchmarks.slope(tokens[:2], [1.0, 2.0]) is None


def scaling_row(mixer, cost, tokens):
    phases = {phase: [cost(n) for n in tokens] for phase in benchmarks.PHASES}
    return {"mixer": mixer, "precision": "float32", "tokens": tokens, "seconds": phases, "bytes": phases,
            "left_out": [n for n in scaling.TOKENS if n not in tokens]}


def test_crossing_points_are_told_in_words():
    rows = [scaling_row(benchmarks.REFERENCE, lambda n: n * n, scaling.TOKENS[:6]),
            scaling_row("linear", lambda n: 300 * n, scaling.TOKENS),
            scaling_row("free", lambda n: n / 2, scaling.TOKENS),
            scaling_row("dear", lambda n: 1e6 * n, scaling.TOKENS[:5])]
    said = [benchmarks.begins(rows[0], row, "seconds", "training") for row in rows[1:]]
    assert said == ["300", "always", "not up to 1,025"]
    found = record.begin("scaling", CPU, True, batch=2, dim=128, heads=4, tokens=scaling.TOKENS,
                         limits={"seconds": 5, "bytes": 2**30})
    table = benchmarks.crossings(found | {"rows": rows})[0]
    assert table.rows[1] == ["linear", *["300"] * 4, *["1.00"] * 4]
    assert f"{benchmarks.REFERENCE} from 4,097; dear from 2,049" in str(table)
    at_1025, = benchmarks.relative(found | {"rows": rows})
    assert {row[0]: row[1] for row in at_1025.rows} == {benchmarks.REFERENCE: "1.00", "linear": f"{300 / 1025:.2f}",
                                                        "free": "0.00", "dear": f"{1e6 / 1025:.2f}"}
    assert benchmarks.relative(found | {"rows": rows}, tokens=4097) == []  # fused softmax was not measured there
    times = scaling.costs(found | {"rows": rows})[0]
    assert times.rows[-1][1] == "left out" and times.rows[0][2] == "19500.00 s | 19500.00 s"


@pytest.mark.parametrize("limits", [{"seconds": 1e-9, "bytes": 1e12}, {"seconds": 1e9, "bytes": 1}])
def test_a_length_that_would_take_too_much_is_left_out(limits):
    rows = scaling.empty_rows("float32")
    for length in (65, 129, 257):
        scaling.extend(rows, length, CPU, 1, 1, limits)
    assert all(row["tokens"] == [65] and row["left_out"] == [129, 257] for row in rows)
    assert all(row["bytes"]["training"][0] > row["bytes"]["inference"][0] > 0 for row in rows)


def test_expected_cost_grows_as_it_did_within_linear_and_quadratic():
    assert [scaling.expected(costs) for costs in ([1, 10], [1, 3], [1, 1], [1])] == [40, 9, 2, 4]


def test_records_come_back_as_written_and_the_readme_shows_them(tmp_path, monkeypatch):
    assert summary.summary(tmp_path / "nothing") == "not measured"
    monkeypatch.setattr(peers, "PACKAGES", ())
    monkeypatch.setattr(peers, "precisions", lambda device: ["float32", "bfloat16"])      # as on a GPU
    monkeypatch.setattr(peers, "in_own_process", lambda measured, *arguments: measured(*arguments))    # patched, too
    sizes = ["--device", "cpu", "--batch", "2", "--quick", "--results", str(tmp_path)]
    assert peers.main([*sizes, "--tokens", "9", "--rounds", "2", "--seed", "3"]) == 0
    (found,) = benchmarks.read(tmp_path)
    (path,) = tmp_path.iterdir()
    assert found == json.loads(path.read_text()) and path.name.startswith("peers_CPU") and "quick" in path.name
    assert found["finished"] and found["settings"]["tokens"] == 9 and found["settings"]["seed"] == 3
    assert {"device", "threads", "versions", "commit", "started"} <= found.keys()
    assert [row["model"] for row in found["rows"]] == list(stacks.MODELS)
    for row in found["rows"]:
        assert max(row["difference"], row["gradient_difference"]) < 1e-12
        for one in (row["measured"]["float32"], row["measured"]["bfloat16"]):
            assert all(len(seconds) == 2 for seconds in one["seconds"].values())
            assert one["peak"]["theirs"] > 0 < one["kept"]["vixlib"]
    text = summary.summary(tmp_path)
    assert text == str(peers.table(found)) and "authors' form" in text
    assert [line[2] for line in peers.table(found).rows[:3]] == ["float32", "bfloat16", "float32 / bfloat16"]

    record.save({**found, "quick": False, "finished": None}, tmp_path)           # a full one hides the quick one
    assert [one["quick"] for one in benchmarks.read(tmp_path)] == [False]
    assert "stopped before its end" in summary.summary(tmp_path)


@pytest.mark.parametrize("model", stacks.MODELS)
def test_what_a_stack_keeps_is_seen_though_it_ends_in_a_custom_operation(model):
    """In torch 2.11 and before, the graph of such a result ends with the result itself."""
    shape = stacks.Shape(batch=2, tokens=65, depth=2, landmarks=16)
    x = torch.randn(shape.batch, shape.tokens, shape.dim)
    assert timing.kept_bytes(stacks.vixlib_stack(model, shape), x, "float32") > 4 * x.nbytes


def test_each_pair_is_measured_in_a_process_of_its_own(tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    first, second = (peers.in_own_process(surroundings) for _ in range(2))
    assert len({first["process"], second["process"], os.getpid()}) == 3
    assert first["threads"] == second["threads"] == threads
    asked = []
    monkeypatch.setattr(peers, "in_own_process", lambda measured, what, *rest: asked.append(what) or
                        {"against": "", "status": ""})
    monkeypatch.setattr(peers, "table", str)
    assert peers.main(["--device", "cpu", "--results", str(tmp_path)]) == 0
    assert asked == [*stacks.MODELS, *packages.PACKAGES]
    assert len(pickle.loads(pickle.dumps(asked))) == len(asked)                  # can be sent to a process


def test_a_pair_that_fails_costs_the_others_nothing(tmp_path, monkeypatch, capsys):
    def one_fails(measured, what, *rest):
        if what == "ViP":
            raise RuntimeError("no kernel for this GPU\nand more")
        return measured(what, *rest)

    monkeypatch.setattr(peers, "PACKAGES", ())
    monkeypatch.setattr(peers, "in_own_process", one_fails)
    sizes = ["--device", "cpu", "--batch", "2", "--tokens", "9", "--rounds", "2", "--quick", "--results", str(tmp_path)]
    assert peers.main(sizes) == 1
    (found,) = benchmarks.read(tmp_path)
    assert {row["model"]: row["status"] for row in found["rows"]} == dict.fromkeys(stacks.MODELS, "measured") | {
        "ViP": "raises RuntimeError: no kernel for this GPU"}
    assert found["finished"] and "ViP raises RuntimeError: no kernel for this GPU" in capsys.readouterr().out
    monkeypatch.undo()
    ended = peers.measured_row(os._exit, 3)
    assert ended["against"] == peers.TEXTBOOK and ended["status"].startswith("raises BrokenProcessPool: ")


def surroundings() -> dict:
    return {"process": os.getpid(), "threads": torch.get_num_threads()}


def test_compiled_steps_are_rows_of_their_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, mode: asked.append((type(model), mode)) or model)
    monkeypatch.setattr(peers, "PACKAGES", ())
    monkeypatch.setattr(peers, "in_own_process", lambda measured, *arguments: measured(*arguments))
    sizes = ["--device", "cpu", "--batch", "2", "--tokens", "9", "--rounds", "2", "--quick", "--results", str(tmp_path)]
    assert peers.main([*sizes, "--compile", "reduce-overhead"]) == 0
    (found,) = benchmarks.read(tmp_path)
    assert asked == [(nn.Sequential, "reduce-overhead")] * len(stacks.MODELS)
    plain, compiled = peers.table(found).rows[:2]
    assert (plain[2], compiled[2]) == ("float32", "float32 / compiled float32") and plain[3] == compiled[3]
    assert plain[6] and not any(compiled[6:]) and found["settings"]["compile"] == "reduce-overhead"
    assert "mode 'reduce-overhead'" in str(peers.table(found))
    record.save(found | {"settings": found["settings"] | {"compile": "default"}}, tmp_path)  # beside, not in its place
    assert len(benchmarks.read(tmp_path)) == 2


def test_what_is_measured_runs_by_the_kernels_that_fit_trains_with(monkeypatch):
    plain, by_trial = timing.run, []
    monkeypatch.setattr(timing, "run", lambda *inputs: (by_trial.append(torch.backends.cudnn.benchmark),
                                                        plain(*inputs))[1])
    shape = stacks.Shape(batch=1, tokens=9, landmarks=3)
    assert peers.against_textbook("ViN", shape, CPU, seed=0, rounds=1)["status"] == "measured"
    scaling.measure_length(["nystrom"], replace(shape, tokens=65), "float32", CPU, rounds=1)
    roofline.measure("FNet", 1, CPU, "float32", {"flops": 1.0, "bandwidth": 1.0}, rounds=1, seed=0)
    assert len(by_trial) > 20 and all(by_trial) and not torch.backends.cudnn.benchmark


def test_roofline_counts_what_a_step_costs():
    machine = {"flops": 1e9, "bandwidth": 1e15}
    row = roofline.measure("FNet", 2, CPU, "float32", machine, rounds=1, seed=0)
    # Four blocks' two linear maps on 1025 tokens, three products each (forward and two gradients), 2 FLOPs a pair.
    assert row["flops"] == pytest.approx(2 * 1025 * 4 * 2 * 128 * 256 * 3 * 2, rel=0.01)
    assert row["bound"] == "compute" and row["floor_seconds"] == row["flops"] / 1e9
    assert row["moved_bytes"] > row["least_bytes"] > 0 and "compiled_seconds" not in row


def test_roofline_measures_a_compiled_step_beside_the_eager_one(tmp_path, monkeypatch, capsys):
    asked = []  # not compiled in truth, which needs a C++ compiler
    monkeypatch.setattr(torch, "compile", lambda model, *, mode: (asked.append(mode), model)[1])
    assert roofline.main(["--device", "cpu", "--quick", "--batch", "1", "--models", "FNet", "--compile", "default",
                          "--results", str(tmp_path)]) == 0
    (found,) = benchmarks.read(tmp_path)
    assert asked == ["default"] * len(found["rows"]) and asked
    assert [len(found["rows"][0][which]) for which in ("seconds", "compiled_seconds")] == [3, 3]
    text = str(roofline.table(found))
    assert text in capsys.readouterr().out and "compiled: by torch.compile, mode 'default'" in text


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_flops_of_a_grouped_convolution(groups):
    layer = nn.Conv2d(8, 8, (5, 1), padding=(2, 0), groups=groups)
    forward = 2 * (2 * 8 * 10) * 5 * (8 // groups)                                # outputs x taps x channels a group
    assert roofline.flops(layer, torch.randn(2, 8, 10, 1), "float32") == 3 * forward


@pytest.mark.parametrize(("arguments", "message"), [
    (["--batch", "0"], "whole number of at least 1"), (["--results", ""], "is empty; name a folder"),
    (["--batch", "1000000000"], "batch=1000000000: that takes"), (["--device", "tpu"], "device='tpu' is no device"),
    (["--seed", "-1"], "-1 must be an integer from 0 to below 2**32"), (["--results", __file__], "cannot write"),
    pytest.param(["--device", "cuda"], "no CUDA GPU", marks=pytest.mark.skipif(torch.cuda.is_available(),
                                                                               reason="of a machine without a GPU"))])
def test_bad_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        peers.main(arguments)
    assert message in capsys.readouterr().err


def test_a_limit_that_is_none_is_named(capsys):
    for limit in ("nan", "-1", "soon"):
        with pytest.raises(SystemExit):
            scaling.main(["--seconds", limit])
        assert f"{limit} must be above 0 and finite" in capsys.readouterr().err
