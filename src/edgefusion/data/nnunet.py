"""A study as a dataset of nnU-Net, with its splits by patient.

Format: nnU-Net's documentation/dataset_format.md, and ``splits_final.json`` of manual_data_splits.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import edgefusion
from edgefusion.config import SplitConfig
from edgefusion.data.splits import make_splits
from edgefusion.data.study import Study
from edgefusion.errors import UsageError
from edgefusion.files import write_json, write_text
from edgefusion.progress import track

ENDING = ".png"
"""Of images and labels; nnU-Net reads them with its NaturalImage2DIO, which knows no spacing."""


def export_nnunet(study: Study | Path | str, output: Path, dataset_id: int = 501, folds: int = 5) -> Path:
    """Write a study as a dataset of nnU-Net.

    Labelled frames go to ``imagesTr`` and ``labelsTr``, the others to ``imagesTs``. ``splits_final.json`` has the folds
    of ``make_splits``: whole patients, and no near-duplicate of a frame that judges is trained on. nnU-Net looks for it
    in its folder of preprocessed data, and would otherwise divide by frame. ``cases.csv`` says whose each case is.

    Args:
        study: The study, or its folder.
        output: nnU-Net's folder of raw data; the dataset gets a folder of its own in it.
        dataset_id: Number of the dataset, 1 to 999; nnU-Net's own begin at 1.
        folds: Folds by patient, 2 or more.

    Returns:
        The dataset's folder, ``DatasetNNN_Name``.

    Raises:
        UsageError: If the number is out of range, the folder exists and is not empty, or there are too few patients.
    """
    study = study if isinstance(study, Study) else Study.load(study)
    if not 1 <= dataset_id <= 999 or folds < 2:
        raise UsageError(f"Dataset {dataset_id} in {folds} folds.", "Use a number from 1 to 999, and 2 folds or more.")
    splits = make_splits(study, SplitConfig(folds=folds))
    name = "".join(part[:1].upper() + part[1:] for part in re.findall(r"[A-Za-z0-9]+", study.name)) or "Study"
    folder = Path(output) / f"Dataset{dataset_id:03d}_{name}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not a new or empty folder.", "Choose another number or folder.")
    cases = _case_names(study)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for row in track(study.frames.to_dict("records"), "Copying frames", total=len(study.frames)):
        case = cases[row["frame_id"]]
        images = "imagesTr" if row["mask"] else "imagesTs"
        (folder / images).mkdir(exist_ok=True)
        (folder / images / f"{case}_0000{ENDING}").write_bytes((study.path / row["image"]).read_bytes())
        if row["mask"]:
            (folder / "labelsTr" / f"{case}{ENDING}").write_bytes((study.path / row["mask"]).read_bytes())
    table = study.frames[["frame_id", "patient_id"]].assign(case=study.frames["frame_id"].map(cases))
    write_text(folder / "cases.csv", table[["case", "frame_id", "patient_id"]].to_csv(index=False, lineterminator="\n"))
    write_json(
        folder / "splits_final.json",
        [
            {
                "train": [cases[frame] for frame in split.train_frames(study)],
                "val": [cases[frame] for frame in split.validation_frames(study)],
            }
            for split in splits
        ],
    )
    # The description comes last: a folder that has one is whole.
    write_json(
        folder / "dataset.json",
        {
            # Any name but "CT" and a few others makes nnU-Net bring each frame to zero mean and unit variance.
            "channel_names": {"0": "ultrasound"},
            "labels": {"background": 0, **{label: value for value, label in enumerate(study.labels, start=1)}},
            "numTraining": len(study.labelled()),
            "file_ending": ENDING,
            "name": study.name,
            "reference": study.origin,
            "licence": study.terms or "not stated",
            "converted_by": f"EdgeFusion {edgefusion.__version__}",
        },
    )
    return folder


def _case_names(study: Study) -> dict[str, str]:
    """For each frame a name of letters, digits, dot, dash and underscore, as no two cases have."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for frame in study.frames["frame_id"]:
        stem = name = re.sub(r"[^A-Za-z0-9._-]", "_", str(frame))
        number = 1
        # Some file systems take "A" and "a" for the same.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[str(frame)] = name
    return names
