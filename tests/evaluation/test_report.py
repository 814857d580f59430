from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from edgefusion.config import ChannelRecipe
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.evaluation.answer import text_table
from edgefusion.evaluation.report import write_report
from edgefusion.evaluation.run import read_run
from edgefusion.evaluation.tables import fold_table

FIGURES = {
    *("differences", "dice_by_model", "dice_by_patient", "dice_by_area", "costs", "learning_curves"),
    *("overlays", "channels"),
}
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what a reader would fetch and read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.alternatives: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def words(self) -> str:
        """What is written on the page, with ordinary hyphens and spaces."""
        joined = "".join(self.text)
        return joined.replace("\N{NON-BREAKING HYPHEN}", "-").replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        named = dict(attrs)
        self.fetched += [named[key] or "" for key in ("src", "href") if key in named]
        if tag == "img":
            self.alternatives.append(named["alt"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def written(make_finished_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three models on two labels, with its report."""
    folder = tmp_path_factory.mktemp("report")
    study = make_finished_run(folder, ["edgefusion-unet", "unet", "unet-matched"], ["nerve", "vessel"])
    assert write_report(folder / "run", study) == folder / "run" / "report.html"
    return folder / "run"


def test_the_page_needs_nothing_else(written: Path):
    html = (written / "report.html").read_text()
    page = Page(html)
    assert all(address.startswith("data:image/") for address in page.fetched)
    assert "http" not in re.sub(r"data:image/[^\"]*", "", html).replace("http-equiv", "")
    assert "prefers-color-scheme:dark" in html
    assert "width=device-width" in html
    # Of both labels three frames under three models and five charts; three channels; the learning curves.
    assert len(page.alternatives) == 2 * (3 * 3 + 5) + 3 + 1
    assert all(page.alternatives)


def test_the_answer_comes_first_and_the_caveats_are_there(written: Path):
    page = Page((written / "report.html").read_text())
    text = page.words()
    summary = json.loads((written / "summary.json").read_text())
    first, second = summary["answers"].values()
    assert text.index(first) < text.index(second) < text.index("Results: nerve") < text.index("Keep in mind")
    for phrase in ("Only 6 patients", "simulated", "Patients were divided, never frames", "CC0.", "a machine"):
        assert phrase in text


def test_names_are_text_not_markup(written: Path):
    html = (written / "report.html").read_text()
    assert "<b>more</b>" not in html
    assert "Necks &amp; &lt;b&gt;more&lt;/b&gt;" in html


def test_every_figure_has_its_numbers(written: Path):
    files = {file.stem: pd.read_csv(file) for file in (written / "figures").glob("*.csv")}
    assert set(files) == FIGURES
    assert set(files["dice_by_patient"]["label"]) == {"nerve", "vessel"}
    assert len(files["dice_by_patient"]) == 2 * 3 * 6
    assert files["differences"]["measure"].unique().tolist() == ["dice_masked"]
    assert files["overlays"]["why"].tolist() == ["Best", "Median", "Worst"] * 2
    assert files["channels"]["channel"].tolist() == ["raw", "dpad", "edges"]


def test_the_summary_is_for_programs(written: Path):
    summary = json.loads((written / "summary.json").read_text())
    assert summary["reference"] == "edgefusion-unet"
    assert summary["distance_unit"] == "px"
    measures = pd.DataFrame(summary["measures"])
    assert set(measures["model"]) == {"edgefusion-unet", "unet", "unet-matched"}
    assert {"value", "low", "high", "n_frames", "n_patients"} <= set(measures.columns)
    pairs = pd.DataFrame(summary["comparisons"])
    assert set(pairs["other"]) == {"unet", "unet-matched"}
    assert "EdgeFusion-UNet" in text_table(summary)


def test_one_model_and_one_split(make_finished_run, tmp_path: Path):
    make_finished_run(tmp_path, ["unet"], folds=1)
    text = Page(write_report(tmp_path / "run").read_text()).words()
    assert "1 network compared" in text
    assert "Differences, frame by frame" not in text


def test_several_seeds(make_finished_run, tmp_path: Path):
    study = make_finished_run(tmp_path, ["edgefusion-unet", "unet"], folds=1, seeds=(3, 4))
    page = Page(write_report(tmp_path / "run", study).read_text())
    text = page.words()
    assert "with the seeds 3, 4" in text
    assert "averaged over all networks and seeds; outlines and Dice are those of the first seed." in text
    # Who was judged is listed once, and a row a seed says with what Dice.
    assert text.count(", judged: ") == 1
    assert "holdout_seed_3, holdout_seed_4, judged: " in text
    run = read_run(tmp_path / "run")
    rows = fold_table(run, "nerve").split("<tr>")[-2:]
    dice = run.frames[run.frames["true_area"] > 0].groupby(["fold", "model"])["dice"].mean()
    for row, seed in zip(rows, (3, 4), strict=True):
        assert f"holdout seed {seed}" in row
        assert all(f"{dice[f'holdout_seed_{seed}', model]:.3f}" in row for model in run.models)


@pytest.mark.parametrize(("model", "channels"), [("edgefusion-unet", ("raw",)), ("unet", ("raw", "dpad"))])
def test_only_channels_of_edgefusion_unet_are_shown(make_finished_run, tmp_path: Path, model: str, channels):
    study = make_finished_run(tmp_path, [model], folds=1, recipe=ChannelRecipe(channels))
    page = Page(write_report(tmp_path / "run", study).read_text())
    assert "What EdgeFusion-UNet sees" not in page.words()
    assert "seeds; outlines" not in page.words()
    assert not (tmp_path / "run" / "figures" / "channels.csv").exists()


def test_nothing_found_at_all_is_still_a_report(finished_run, tmp_path: Path):
    path = shutil.copytree(finished_run[0], tmp_path / "run")
    frames = pd.read_csv(path / "frames.csv")
    frames[["dice", "recall", "boundary_f1", "tp", "predicted_area"]] = 0
    frames[["precision", "hd95", "surface_distance"]] = float("nan")
    frames.to_csv(path / "frames.csv", index=False)
    page = Page(write_report(path).read_text())
    assert "scores the same Dice as U-Net" in page.words()
    # Without the study, the report shows no frames.
    assert not any("contours" in text for text in page.alternatives)
    assert json.loads((path / "summary.json").read_text())["study"] is None


def test_another_study_is_refused(finished_run, make_finished_run, tmp_path: Path):
    path = shutil.copytree(finished_run[0], tmp_path / "copy")
    other = make_finished_run(tmp_path, ["unet"])
    frames = other.frames.assign(frame_id="other_" + other.frames["frame_id"])
    with pytest.raises(UsageError, match="no frame"):
        write_report(path, Study(other.path, "other", ["nerve"], "", "", frames))
