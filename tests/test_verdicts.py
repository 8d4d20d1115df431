"""Verdicts: what the paper printed, what the records show, and no decision without an interval."""
from __future__ import annotations

import pytest
from test_differences import record

from vixlib.report.comparison import NOT_MEASURED
from vixlib.report.differences import Difference
from vixlib.report.records import write_record
from vixlib.report.verdicts import CLAIMS, Claim, printed_difference, verdict_table


def test_without_records_every_claim_stands_there_unmeasured(tmp_path):
    accuracy = [row for row in verdict_table(results=tmp_path).rows if "over" not in row[2]]
    assert len(accuracy) == sum(len(claim.pairs) for claim in CLAIMS)
    assert all(NOT_MEASURED in row[-2] for row in accuracy)


def test_half_the_memory_is_asked_of_the_authors_formulas_and_of_ours(monkeypatch):
    def said():
        return {row[2].removeprefix("ViN over ViT, "): row[3:6] for row in verdict_table("02").rows if "over" in row[2]}

    monkeypatch.setattr("vixlib.report.benchmarks.published_peaks",
                        lambda: [({"ViT": 1000, "ViN": 490}, "measured: here"), ({"ViT": 1000}, "measured: there")])
    assert said()["authors' formulas"] == ["0.47 times", "0.49 times", "holds"]
    assert NOT_MEASURED in said()["ours, mixed, fused"][2]  # no GPU has measured it
    monkeypatch.setattr("vixlib.report.benchmarks.published_peaks", lambda: [])
    assert "authors' formulas" not in said() and len(said()) == 2


def test_two_seeds_decide_nothing_however_alike_they_are(tmp_path):
    for seed in (0, 1):
        write_record(record("ViT", "learned", 50.0 + seed, seed=seed), tmp_path)
        write_record(record("ViN", "learned", 52.0 + seed, seed=seed), tmp_path)
    row = next(row for row in verdict_table("02", tmp_path).rows if row[2] == "ViN against ViT")
    assert row[4:6] == ["+2.00 ± 0.00 (n=2)", "undecided"]


def test_printed_differences_come_from_the_tables_or_the_logs():
    assert printed_difference("ViN", "ViT") == "+10.80"
    assert printed_difference("CPV", "ResNet18") == "+5.13"
    assert printed_difference("CPV", "ViT") == "-"  # one number of each source
    assert printed_difference("HybridViT/rope", "HybridViT/learned").endswith("(logs)")
    assert printed_difference("HybridViN/rope", "HybridViP/rope2d") == "-"


@pytest.mark.parametrize(("ours", "profile", "verdict"), [
    ((60.0, 61.0, 60.5), "paper", "holds"), ((50.0, 51.0, 50.5), "paper", "does not hold"),
    ((50.0, 61.0, 54.0), "paper", "undecided"), ((60.0, 61.0, 60.5), "quick", "holds at quick")])
def test_three_seeds_decide(tmp_path, ours, profile, verdict):
    for seed, top1 in enumerate(ours):
        write_record(record("ViN", "learned", top1, seed=seed, profile=profile, config="paper"), tmp_path)
        write_record(record("ViT", "learned", 55.0 + seed / 10, seed=seed, profile=profile, config="paper"), tmp_path)
    table = verdict_table(results=tmp_path)
    row = next(row for row in table.rows if row[2] == "ViN against ViT")
    assert row[-2] == verdict and "(n=3)" in row[-3]
    assert f"{row[-1]} {profile}: " in table.notes[0]


@pytest.mark.parametrize(("gaps", "verdict"), [
    ((0.1, -0.1, 0.0), "holds"), ((5.0, 5.1, 4.9), "holds"), ((-5.0, -5.1, -4.9), "does not hold"),
    ((-1.0, -3.0, -2.0), "undecided"), ((0.1,), "undecided")])
def test_losing_no_more_than_some_points_leaves_more_open_above(gaps, verdict):
    claim = Claim("", "", (("CCN", "CCT"),), within=2.0)
    assert claim.verdict(Difference("CCN", "CCT", pairs=tuple((80.0 + gap, 80.0) for gap in gaps))) == verdict


def test_copies_of_records_change_no_verdict():
    records = [record(model, "learned", last + seed * gap, seed=seed) for seed in range(3)
               for model, last, gap in (("ViN", 51.0, 1.0), ("ViT", 48.0, 2.0))]
    assert verdict_table("02", records + records).rows == verdict_table("02", records).rows
    with pytest.raises(TypeError, match="results=5 must be a folder"):
        verdict_table("02", 5)


def told(table):
    """Its rows without the claim, each with its setting, which every table numbers by itself, in words."""
    words = {"-": "no pair yet"}
    words |= {number: text for number, text in (note.split(" ", 1) for note in table.notes if note.startswith("["))}
    return [[*row[1:-1], words[row[-1]]] for row in table.rows]


def test_a_notebook_shows_its_own_claims():
    whole, parts = verdict_table(), [verdict_table(number) for number in ("02", "03", "04", "05", "06")]
    assert sorted(told(whole)) == sorted(row for part in parts for row in told(part))
    assert {row[1] for row in verdict_table("05").rows} == {"05"}
    with pytest.raises(ValueError, match="notebook='07' is unknown"):
        verdict_table("07")
