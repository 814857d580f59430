"""Verbs that make and show data."""

from __future__ import annotations

import json
from pathlib import Path

from edgefusion.config import UNSTATED_TERMS
from edgefusion.verbs.arguments import Arguments, names, size


def demo(arguments: list[str]) -> None:
    """The main job on built-in phantoms: make them, train four networks, compare, report."""
    parser = Arguments(demo)
    parser.add("-o", "--output", type=Path, default=Path("demo"), help="folder for the study and the run")
    given = parser.read(arguments)
    from edgefusion.demo import run_demo

    print(run_demo(given.output))


def phantom(arguments: list[str]) -> None:
    """Make a study of simulated neck frames, with masks and clean images."""
    parser = Arguments(phantom)
    parser.add("-o", "--output", type=Path, required=True, help="folder of the new study")
    parser.add("--patients", type=int, default=24)
    parser.add("--frames", type=int, default=12, help="frames of each patient")
    parser.add("--seed", type=int, default=0)
    parser.add("--size", default="420x580", help="rows x columns of a frame")
    given = parser.read(arguments)
    from edgefusion.data.phantom.study import make_phantom_study

    study = make_phantom_study(given.output, given.patients, given.frames, given.seed, size(given.size))
    print(study.path)


def ingest(arguments: list[str]) -> None:
    """Make a study of a Kaggle folder, of image and mask pairs, of videos, or of NIfTI or DICOM files."""
    parser = Arguments(ingest)
    parser.add("source", type=Path, help="folder, image, video, NIfTI or DICOM file, DICOMDIR")
    parser.add("-o", "--output", type=Path, required=True, help="folder of the new study")
    parser.add("--patient-regex", type=str, help="its first group, searched in the file's name, is the patient")
    parser.add("--patients-csv", type=Path, help="table with the columns image and patient")
    parser.add("--labels", type=str, help="names of the mask values 1, 2, ..., separated by commas")
    parser.add("--name", type=str, help="name of the study; by default the output folder's")
    parser.add("--terms", default=UNSTATED_TERMS, help="terms of use, repeated in reports and model cards")
    parser.add(
        "--contradictions",
        choices=["keep", "drop", "propagate"],
        default="keep",
        help="near-identical frames, one with and one without a mask: keep both, drop the empty one, or copy the mask",
    )
    parser.add("--strict", action="store_true", help="stop at the first file that cannot be used")
    parser.add("--key", type=Path, help="file of the key of DICOM pseudonyms; by default in your configuration folder")
    parser.add("--deidentify", type=Path, help="folder for copies of the DICOM files without what identifies a person")
    given = parser.read(arguments)
    from edgefusion.data.ingest import ingest as make_study

    study = make_study(
        given.source,
        given.output,
        patient_regex=given.patient_regex,
        patients_csv=given.patients_csv,
        contradictions=given.contradictions,
        strict=given.strict,
        name=given.name,
        labels=names(given.labels) or None,
        terms=given.terms,
        key=given.key,
    )
    print(study.path)
    if given.deidentify:
        from edgefusion.data.dicom.deidentify import deidentify

        deidentify(given.source, given.deidentify, key=given.key, strict=given.strict)
        print(given.deidentify)


def channels(arguments: list[str]) -> None:
    """Show the raw, denoised and edge channels of one image, and their quality."""
    parser = Arguments(channels)
    parser.add("image", type=Path, help="an image file")
    parser.add("-o", "--output", type=Path, required=True, help="folder for the pictures")
    parser.add("--channels", default="raw,srad,dpad,edges", help="names, separated by commas")
    parser.add_json()
    given = parser.read(arguments)
    from edgefusion.channels.show import show_channels

    figures = show_channels(given.image, given.output, names(given.channels))
    if given.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, values in figures.items():
            print(f"{name:<18}" + "  ".join(f"{measure} {value:.3f}" for measure, value in values.items()))


def export_study(arguments: list[str]) -> None:
    """Write a study as a dataset of nnU-Net, with splits by patient."""
    parser = Arguments(export_study)
    parser.add("study", type=str, help="folder of a study, or s3://bucket/study")
    parser.add("--nnunet", type=Path, required=True, help="nnU-Net's folder of raw data (nnUNet_raw)")
    parser.add("--dataset-id", type=int, default=501, help="number of the dataset, 1 to 999")
    parser.add("--folds", type=int, default=5, help="folds by patient")
    given = parser.read(arguments)
    from edgefusion.data.nnunet import export_nnunet

    print(export_nnunet(given.study, given.nnunet, given.dataset_id, given.folds))
