"""From a run's folder to ``report.html``, ``summary.json`` and the numbers behind every figure."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from edgefusion.config import ChannelRecipe
from edgefusion.evaluation import figures, gallery, page, tables
from edgefusion.evaluation.aggregate import summarise
from edgefusion.evaluation.answer import answer, caveats, counted
from edgefusion.evaluation.bootstrap import RESAMPLES
from edgefusion.evaluation.chart_style import model_styles
from edgefusion.evaluation.compare import PRIMARY, compare_models
from edgefusion.evaluation.metrics import distance_unit
from edgefusion.evaluation.pictures import choose_frames
from edgefusion.evaluation.run import Run, read_run
from edgefusion.files import write_json, write_text

if TYPE_CHECKING:
    from edgefusion.data.study import Study


_DEFINITIONS = (
    "Dice: twice the shared area over the sum of both areas, for each frame; 1 where both masks are empty. 'Masked "
    "frames' averages over frames that truly show the structure, 'all frames' over all of them (the measure of the "
    "2016 Kaggle competition), 'mean of patients' averages within each patient first.",
    "Precision and recall: means over frames with a mask. Where a network marks nothing, its precision is undefined "
    "and left out, its recall is 0.",
    "Pooled precision, recall and F1: from the pixels of all frames together, false alarms on empty frames included. "
    "(On a single frame F1 is the same number as Dice.)",
    "Boundary F1: the share of border pixels within 2 pixels of the other border, both ways, as a harmonic mean; 0 "
    "for a missed frame.",
    "HD95 and surface distance: the 95th percentile and the mean of the distances between the borders, over frames "
    "that were not missed. Missed frames have a mask but an empty prediction (a mean where there are several seeds).",
    "Sensitivity and specificity: of the statement 'it is in this frame' at a presence probability of 0.5. A network "
    "without a presence output is taken at its highest pixel probability.",
    f"Intervals: 95 %, from {RESAMPLES:,} bootstrap resamples of whole patients, expanded percentiles (Hesterberg "
    "2014). Differences: the same resampled patients for both networks; a mean over frames uses the frames where both "
    "have a value. Their intervals and two-sided p-values come from the bootstrap standard error and Student's "
    "distribution with one degree of freedom fewer than patients; p is corrected by Holm's method for the number of "
    "networks.",
)


def write_report(run_dir: Path, study: Study | None = None) -> Path:
    """Sum up a finished comparison for people and for programs.

    Writes ``report.html`` (one file that needs nothing else), ``summary.json`` and ``figures/*.csv``
    into the run's folder.

    Args:
        run_dir: Folder of the run, see ``run.read_run``.
        study: The study that was judged; without it, the report shows no frames.

    Returns:
        Path of ``report.html``.

    Raises:
        UsageError: If there is no such folder, or the study lacks a frame of the run.
        DataError: If a file of the run is missing or damaged, or models were judged on different frames.
    """
    run_dir = Path(run_dir)
    run = read_run(run_dir)
    report = _Report(run, study)
    body = report.body()
    for name, parts in report.numbers.items():
        write_text(run_dir / "figures" / f"{name}.csv", pd.concat(parts).to_csv(index=False))
    write_json(run_dir / "summary.json", report.summary_for_programs())
    write_text(run_dir / "report.html", page.document(report.title, body))
    return run_dir / "report.html"


class _Report:
    """The parts of one report, which share the run, its statistics and the looks of its models."""

    def __init__(self, run: Run, study: Study | None) -> None:
        self.run, self.study = run, study
        self.styles = model_styles(run.models)
        self.summary = summarise(run.frames)
        self.comparisons = compare_models(run.frames, run.reference)
        self.labels = [str(label) for label in run.frames["label"].unique()]
        self.unit = "px or mm" if study is None else distance_unit(study.frames)
        self.answers = {label: answer(self.summary, self.comparisons, run.reference, label) for label in self.labels}
        self.title = f"{counted(len(run.models), 'network')} compared" + (f" on {study.name}" if study else "")
        self.numbers: dict[str, list[pd.DataFrame]] = {}

    def summary_for_programs(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {
            "study": self.study.name if self.study else None,
            "answers": self.answers,
            "reference": self.run.reference,
            "models": self.run.models,
            "distance_unit": self.unit,
            "resamples": RESAMPLES,
            "measures": self.summary.to_dict("records"),
            "comparisons": self.comparisons.to_dict("records"),
            "costs": self.run.costs,
        }

    def body(self) -> list[str]:
        """The page from the answer down to the settings; also fills ``numbers``."""
        parts = [self._header()]
        for label in self.labels:
            parts += self._results(label)
        return [*parts, *self._caveats(), *self._networks(), *self._channels(), *self._split(), *self._fine_print()]

    def _header(self) -> str:
        frames = self.run.frames
        judged = (
            f"{counted(frames['frame_id'].nunique(), 'frame')} of {counted(frames['patient_id'].nunique(), 'patient')}"
        )
        origin = f" {self.study.origin}" if self.study and self.study.origin else ""
        answers = "".join(f'<p class="answer">{page.unbroken(sentence)}</p>' for sentence in self.answers.values())
        return f'<h1>{escape(self.title)}</h1>{answers}<p class="soft">{judged} judged.{escape(origin)}</p>'

    def _results(self, label: str) -> list[str]:
        frames = self.run.frames[self.run.frames["label"] == label]
        summary = self.summary[self.summary["label"] == label]
        pairs = self.comparisons[self.comparisons["label"] == label]
        patients, areas = figures.patient_dice(frames), figures.area_dice(frames)
        means = summary[summary["measure"] == "dice_patients"]
        parts = [
            f"<h2>Results: {escape(label)}</h2>",
            '<p class="soft">Under each value its 95 % interval. Bold is the best value, which is not yet a claim.</p>',
            "<h3>Overlap</h3>",
            tables.overlap_table(summary, self.styles),
            "<h3>Borders and presence</h3>",
            tables.border_table(summary, self.styles, self.unit),
        ]
        if len(pairs):
            parts += [
                "<h3>Differences, frame by frame</h3>",
                '<p class="soft">Under each difference its 95 % interval and its corrected p-value. Bold is a '
                "difference with p&nbsp;below&nbsp;.05. For HD95, less is better.</p>",
                tables.difference_table(pairs, self.styles, self.unit),
            ]
        if patients.empty:
            return parts
        cards, first = [], next(iter(self.styles.values())).title
        if len(pairs):
            primary = pairs[pairs["measure"] == PRIMARY]
            cards.append(
                self._card(
                    "Difference in Dice",
                    figures.draw_differences(primary, self.styles),
                    "Right of 0 the reference is better; bars are 95 % intervals, not corrected for their number.",
                    ("differences", label, primary),
                )
            )
        cards += [
            self._card(
                "Dice by network",
                figures.draw_dice_by_model(patients, summary, self.styles),
                "Small markers are patients, a grey line each (dice_by_patient.csv); above them, means with intervals.",
                ("dice_by_model", label, means),
            ),
            self._card(
                f"Dice against the size of the {label}",
                figures.draw_dice_by_area(areas, self.styles, label),
                f"Means in bins of equally many frames; the band holds the middle half of them for {first}.",
                ("dice_by_area", label, areas),
            ),
            self._card(
                "Dice by patient",
                figures.draw_dice_by_patient(patients, self.styles),
                "From the easiest patient to the hardest.",
                ("dice_by_patient", label, patients),
            ),
        ]
        return [*parts, f'<h3>Figures</h3><div class="charts">{"".join(cards)}</div>', *self._overlays(label, frames)]

    def _card(self, title: str, svg: bytes, caption: str, numbers: tuple[str, str, pd.DataFrame]) -> str:
        name, label, table = numbers
        if "label" not in table:
            table = table.assign(label=label)
        self.numbers.setdefault(name, []).append(table)
        return page.chart_card(title, svg, caption, f"figures/{name}.csv")

    def _overlays(self, label: str, frames: pd.DataFrame) -> list[str]:
        if self.study is None:
            return []
        chosen = choose_frames(frames)
        self.numbers.setdefault("overlays", []).append(gallery.overlay_numbers(label, chosen))
        terms = f" Terms of these frames: {self.study.terms}" if self.study.terms else ""
        several = frames.duplicated(["model", "frame_id"]).any()
        seeds = " and seeds; outlines and Dice are those of the first seed" if several else ""
        return [
            "<h3>The same frames under every network</h3>",
            f'<p class="soft">The best, the median and the worst frame by Dice averaged over all networks{seeds}.'
            f" Numbers: <code>figures/overlays.csv</code>.{escape(terms)}</p>",
            gallery.overlay_gallery(self.run, self.study, label, chosen, self.styles),
        ]

    def _caveats(self) -> list[str]:
        notes = caveats(
            self.summary,
            self.run.config,
            folds=len({split.validation for split in self.run.splits}),
            tidy=self.run.judged_apart,
            origin=self.study.origin if self.study else "",
        )
        return ["<h2>Keep in mind</h2>", page.bullet_list(notes)]

    def _networks(self) -> list[str]:
        cards = []
        for label in self.labels:
            costs = figures.cost_table(self.summary[self.summary["label"] == label], self.run.costs)
            cards.append(
                self._card(
                    f"Borders of the {label} against cost",
                    figures.draw_costs(costs, self.styles),
                    "Further left is cheaper, higher is better. Parameters in millions; speed on the machine below.",
                    ("costs", label, costs),
                )
            )
        if not self.run.log.empty:
            svg = figures.draw_learning_curves(self.run.log, self.styles)
            self.numbers["learning_curves"] = [self.run.log]
            caption = "Means of all folds, each fold faintly. Dice at the network's own size."
            cards.append(page.chart_card("Learning curves", svg, caption, "figures/learning_curves.csv"))
        charts = f'<div class="charts">{"".join(cards)}</div>'
        return ["<h2>The networks</h2>", tables.cost_table(self.run, self.styles), charts]

    def _channels(self) -> list[str]:
        recipe = ChannelRecipe.from_dict(self.run.config["recipe"])
        if self.study is None or "edgefusion-unet" not in self.run.models or recipe.channels == ("raw",):
            return []
        chosen = choose_frames(self.run.frames[self.run.frames["label"] == self.labels[0]])
        if not chosen:
            return []
        frame = chosen[1].frame_id
        channels = gallery.channels_of(self.study.image(frame), recipe)
        self.numbers["channels"] = [gallery.channel_numbers(channels)]
        return [
            "<h2>What EdgeFusion-UNet sees</h2>",
            f'<p class="soft">The channels of the median frame above ({escape(frame)}), grey levels stretched for '
            f"display. The network gets them at {recipe.height}×{recipe.width} pixels. "
            "Numbers: <code>figures/channels.csv</code>.</p>",
            gallery.channel_gallery(channels),
        ]

    def _split(self) -> list[str]:
        how = (
            "Patients were divided, never frames: a patient whose frames were trained on is never judged by the same "
            "network, and near-identical frames of different patients were kept on one side."
            if self.run.judged_apart
            else "The judged frames do not match the split in splits.json, see the caveats."
        )
        names: dict[tuple[str, ...], list[str]] = {}
        for split in self.run.splits:
            names.setdefault(split.validation, []).append(split.name)
        patients = "".join(
            f"<p><strong>{escape(', '.join(splits))}</strong>, judged: {escape(', '.join(judged))}</p>"
            for judged, splits in names.items()
        )
        return [
            "<h2>How patients were divided</h2>",
            f"<p>{how} Under each network stands its Dice over the masked frames of the fold.</p>",
            tables.fold_table(self.run, self.labels[0]),
            f"<details><summary>Patients of every split</summary>{patients}</details>",
        ]

    def _fine_print(self) -> list[str]:
        flat = pd.json_normalize(self.run.environment).iloc[0]
        settings = yaml.safe_dump(self.run.config, sort_keys=False, allow_unicode=True)
        return [
            "<h2>How it was measured</h2>",
            "<p>Every prediction was judged at its frame's original size, against the original mask.</p>",
            page.bullet_list(_DEFINITIONS),
            "<h2>Machine and settings</h2>",
            page.facts({str(name): str(value) for name, value in flat.items()}),
            f"<details><summary>Settings of the run</summary><pre>{escape(settings)}</pre></details>",
            '<p class="soft">For research. Not a medical device; not for diagnosis.</p>',
        ]
