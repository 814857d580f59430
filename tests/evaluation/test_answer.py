from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.answer import answer, between, caveats, mean_count, number, p_text, span, text_table
from edgefusion.evaluation.compare import compare_models


def answer_of(frames: pd.DataFrame, reference: str = "edgefusion-unet") -> str:
    return answer(summarise(frames), compare_models(frames, reference), reference, "nerve")


def test_numbers_for_people():
    assert number(-0.0312, 2) == "−0.03"
    assert number(math.nan) == "–"
    assert between(-0.01, 0.025, 1, 100) == "−1.0 to 2.5"
    assert between(math.nan, math.nan) == span(math.nan, math.nan) == ""
    assert span(0.7123, 0.8) == "0.712–0.800"
    assert [p_text(p) for p in (0.0004, 0.034, 0.23, 1.0, math.nan)] == [
        "p < .001",
        "p = .034",
        "p = .23",
        "p = 1.00",
        "p –",
    ]


def test_says_who_is_better(two_models: pd.DataFrame):
    sentence = answer_of(two_models)
    assert sentence.startswith("EdgeFusion-UNet scores ")
    assert "Dice points above U-Net, the other network, on " in sentence
    assert "95 % interval" in sentence
    assert sentence.endswith("EdgeFusion-UNet is better.")
    assert answer_of(two_models, "unet").endswith("EdgeFusion-UNet is better.")


def test_says_when_nobody_is_better(make_frames):
    frames = pd.concat([make_frames("edgefusion-unet"), make_frames("unet")])
    assert answer_of(frames).endswith("the two are not distinguishable.")
    same = make_frames("unet")
    tied = answer_of(pd.concat([same.assign(model="edgefusion-unet"), same]))
    assert "scores the same Dice as U-Net" in tied


def test_of_two_sizes_the_better_one_is_the_rival(make_frames):
    shifts = {"edgefusion-unet": 0.05, "unet": -0.1, "unet-matched": 0.02, "resunet": 0.0}
    frames = pd.concat([make_frames(model, shift=shift) for model, shift in shifts.items()])
    sentence = answer_of(frames)
    assert "above U-Net, matched, the best of the others" in sentence
    assert "after Holm's correction for 3 comparisons" in sentence


def test_a_difference_that_the_correction_takes_away_is_not_claimed(two_models: pd.DataFrame):
    comparisons = compare_models(two_models, "edgefusion-unet").assign(p=0.02, p_holm=0.12, better="")
    sentence = answer(summarise(two_models), comparisons, "edgefusion-unet", "nerve")
    assert sentence.endswith("among so many comparisons the two are not distinguishable.")


def test_when_there_is_little_to_say(make_frames):
    alone = make_frames("edgefusion-unet")
    assert answer_of(alone).startswith("EdgeFusion-UNet reaches a Dice of 0.")
    empty = pd.concat([make_frames(model, empty_share=1.01) for model in ("edgefusion-unet", "unet")])
    assert answer_of(empty) == "No judged frame shows the nerve, so the networks cannot be compared on it."
    few = pd.concat([make_frames(model, patients=2, shift=s) for model, s in (("edgefusion-unet", 0.1), ("unet", 0.0))])
    assert "too few patients for an interval" in answer_of(few)
    assert answer_of(few).endswith("not distinguishable.")


def test_caveats_name_what_holds(make_frames):
    def notes(frames: pd.DataFrame, **facts) -> str:
        defaults = {"config": {"train": {"seed": 7, "patience": 0}}, "folds": 1, "tidy": True, "origin": "a clinic"}
        return " ".join(caveats(summarise(frames, resamples=50), **{**defaults, **facts}))

    many = make_frames("unet", patients=25)
    plain = notes(many)
    assert "seed 7" in plain
    assert "no epoch was chosen on the judged patients" in plain
    for phrase in (
        *("Only", "simulated", "do not match the split", "flattered", "false alarms", "folds' networks"),
        *("one earlier run", "took no part"),
    ):
        assert phrase not in plain
    assert "Only 12 patients" in notes(make_frames("unet"))
    assert "simulated" in notes(many, origin="phantoms made by edgefusion")
    assert "do not match the split" in notes(many, tidy=False)
    assert "flattered" in notes(many, config={"train": {"patience": 3}})
    assert "folds' networks" in notes(many, folds=5)
    assert "false alarms" in notes(make_frames("unet", patients=25, empty_share=0))
    pretrained = notes(many, config={"seeds": [3, 4], "pretrained": "runs/pretraining"})
    assert "trained 2 times a fold, with the seeds 3, 4" in pretrained
    assert "leaves out the luck of pretraining" in pretrained
    assert "runs/" not in pretrained
    assert "1 patient took no part" in notes(many, config={"split": {"without_patients": ["7"]}})
    assert "took no part" not in notes(many, config={"split": {"without_patients": []}, "pretrained": ""})


def test_seeds_change_no_count_in_the_answer(two_models: pd.DataFrame, repeat):
    assert answer_of(repeat(two_models, {}, {})) == answer_of(two_models)
    assert [mean_count(value) for value in (4.0, 4 / 3)] == ["4", "1.3"]


@pytest.mark.parametrize("patients", [2, 12])
def test_text_table_is_aligned_and_reads_what_json_gives_back(make_frames, patients: int):
    frames = pd.concat(
        [make_frames(m, shift=s, patients=patients) for m, s in (("edgefusion-unet", 0.05), ("resunet", 0.0))]
    )
    comparisons = compare_models(frames, "edgefusion-unet")
    summary = {
        "answers": {"nerve": answer_of(frames)},
        "models": ["edgefusion-unet", "resunet"],
        "distance_unit": "mm",
        "measures": summarise(frames).replace({np.nan: None}).to_dict("records"),
        "comparisons": comparisons.replace({np.nan: None}).to_dict("records"),
    }
    lines = text_table(json.loads(json.dumps(summary))).splitlines()
    assert lines[0].startswith("nerve: EdgeFusion-UNet scores")
    table = lines[2:5]
    assert "HD95 mm" in table[0]
    assert table[1].startswith("EdgeFusion-UNet")
    assert table[1].endswith("(reference)")
    assert "Residual U-Net" in table[2]
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= 120
