from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from edgefusion.evaluation import figures
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.chart_style import model_styles
from edgefusion.evaluation.compare import compare_models

MODELS = ["edgefusion-unet", "unet", "unet-matched"]
STYLES = model_styles(MODELS)


@pytest.fixture
def frames(make_frames) -> pd.DataFrame:
    rows = [make_frames(model, shift=-0.03 * place) for place, model in enumerate(MODELS)]
    table = pd.concat(rows, ignore_index=True)
    # Areas differ, as real ones do.
    sizes = np.random.default_rng(0).integers(400, 4000, len(table) // 3)
    table["true_area"] = np.where(table["has_nerve"], np.tile(sizes, 3), 0)
    return table


def words(svg: bytes) -> str:
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return " ".join(text for text in root.itertext() if text.strip())


def test_both_sizes_of_a_network_share_colour_and_marker():
    small, matched = STYLES["unet"], STYLES["unet-matched"]
    assert (small.colour, small.marker) == (matched.colour, matched.marker)
    assert small.face != matched.face
    assert small.line != matched.line
    assert STYLES["edgefusion-unet"].colour != small.colour
    assert STYLES["unet-matched"].title == "U-Net, matched"
    assert model_styles(["mine"])["mine"].title == "mine"


def test_patient_dice_by_hand(frames: pd.DataFrame):
    table = figures.patient_dice(frames).set_index(["model", "patient_id"])
    rows = frames[(frames["model"] == "unet") & (frames["patient_id"] == "p3") & frames["has_nerve"]]
    assert table.loc[("unet", "p3"), "dice"] == pytest.approx(rows["dice"].mean())
    assert table.loc[("unet", "p3"), "n_frames"] == len(rows)


def test_area_bins_hold_every_masked_frame_once(frames: pd.DataFrame):
    table = figures.area_dice(frames, bins=5)
    masked = frames[frames["has_nerve"]]
    for model, of_model in table.groupby("model"):
        assert of_model["n_frames"].sum() == (masked["model"] == model).sum()
        assert len(of_model) == 5
        assert of_model["n_frames"].max() - of_model["n_frames"].min() <= 2
        assert of_model["area_low"].iloc[1:].to_numpy() == pytest.approx(of_model["area_low"].iloc[1:].sort_values())
    weighted = (table["dice"] * table["n_frames"]).sum() / table["n_frames"].sum()
    assert weighted == pytest.approx(masked["dice"].mean())


def test_frames_are_counted_once_however_many_seeds_judged_them(frames: pd.DataFrame, repeat):
    both = repeat(frames, {"dice": frames["dice"] / 2})
    for table in (figures.patient_dice, figures.area_dice):
        once, twice = table(frames), table(both)
        assert twice["n_frames"].tolist() == once["n_frames"].tolist()
        np.testing.assert_allclose(twice["dice"], once["dice"] * 0.75)


def test_areas_all_alike_or_absent(frames: pd.DataFrame):
    alike = frames.assign(true_area=np.where(frames["has_nerve"], 500, 0))
    assert (figures.area_dice(alike)["n_frames"] == frames["has_nerve"].sum() / 3).all()
    assert figures.area_dice(frames.assign(true_area=0)).empty
    assert figures.draw_dice_by_area(figures.area_dice(alike), STYLES, "nerve")


def test_every_chart_is_svg_that_names_its_models(frames: pd.DataFrame):
    summary = summarise(frames, resamples=200)
    pairs = compare_models(frames, "edgefusion-unet", resamples=200)
    costs = {model: {"parameters": 5e5, "multiply_adds": 3e8, "ms_per_frame": 9.5} for model in MODELS}
    epochs = [
        {"model": model, "fold": fold, "epoch": epoch, "train_loss": 1 / epoch, "val_dice": 1 - 1 / epoch}
        for model in MODELS
        for fold in ("fold_0", "fold_1")
        for epoch in range(1, 4)
    ]
    patients = figures.patient_dice(frames)
    charts = [
        figures.draw_differences(pairs[pairs["measure"] == "dice_masked"], STYLES),
        figures.draw_learning_curves(pd.DataFrame(epochs), STYLES),
        figures.draw_dice_by_model(patients, summary, STYLES),
        figures.draw_dice_by_patient(patients, STYLES),
        figures.draw_dice_by_area(figures.area_dice(frames), STYLES, "nerve"),
        figures.draw_costs(figures.cost_table(summary, costs), STYLES),
    ]
    for svg in charts:
        assert "U-Net, matched" in words(svg)
        assert b"prefers-color-scheme:dark" in svg
        # Nothing is fetched: the only addresses are names of XML vocabularies.
        assert b'href="http' not in svg
        assert len(svg) < 200_000
    assert figures.draw_differences(pairs[pairs["measure"] == "hd95"], STYLES) != charts[0]


def test_the_same_numbers_give_the_same_bytes(frames: pd.DataFrame):
    patients = figures.patient_dice(frames)
    assert figures.draw_dice_by_patient(patients, STYLES) == figures.draw_dice_by_patient(patients, STYLES)


def test_costs_of_unknown_models_are_left_out(frames: pd.DataFrame):
    summary = summarise(frames, resamples=50)
    assert figures.cost_table(summary, {}).empty
    known = figures.cost_table(summary, {"unet": {"parameters": 1.0, "multiply_adds": 2.0, "ms_per_frame": 3.0}})
    assert known["model"].tolist() == ["unet"]


def test_many_patients_still_fit(make_frames):
    table = figures.patient_dice(make_frames("unet", patients=150, frames=1, empty_share=0))
    root = ElementTree.fromstring(figures.draw_dice_by_patient(table, model_styles(["unet"])))
    assert float(root.attrib["height"].removesuffix("pt")) < 900
