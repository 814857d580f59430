"""Dividing a study by patient into training and validation, so that nothing seen in training is judged."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from edgefusion.config import SplitConfig
from edgefusion.data.bounds import read_json
from edgefusion.data.study import Study
from edgefusion.errors import DataError, UsageError
from edgefusion.files import write_json
from edgefusion.progress import say

MAX_SPLITS = 1000
"""A file with more splits is refused: each is a training."""

_HOLDOUT_PARTS = 5


@dataclass(frozen=True)
class Split:
    """One division of a study's patients.

    Attributes:
        name: "fold_0", "fold_1" ... of a cross-validation, or "holdout".
        train: Patients to train on.
        validation: Patients to judge on; none of them is in ``train``.
        excluded_frames: Frames of training patients that must not be used, since a near-duplicate of them belongs to a
            validation patient.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    excluded_frames: tuple[str, ...] = ()

    def train_frames(self, study: Study) -> list[str]:
        """Ids of the labelled frames to train on."""
        excluded = set(self.excluded_frames)
        return [frame for frame in self._frames_of(study, self.train) if frame not in excluded]

    def validation_frames(self, study: Study) -> list[str]:
        """Ids of the labelled frames to judge on."""
        return self._frames_of(study, self.validation)

    def _frames_of(self, study: Study, patients: Sequence[str]) -> list[str]:
        labelled = study.labelled()
        unknown = sorted(set(patients) - set(labelled["patient_id"]))
        if unknown:
            raise UsageError(
                f"Split {self.name} names patients without labelled frames in {study.path}: {_some(unknown)}.",
                "Use the splits that were made for this study.",
            )
        return [str(frame) for frame in labelled["frame_id"][labelled["patient_id"].isin(patients)]]


def make_splits(study: Study, config: SplitConfig) -> list[Split]:
    """Divide the patients who have labelled frames.

    Patients whose frames include near-duplicates of each other stay together. The folds of a cross-validation have
    about the same share of frames without a nerve and of small, middle and large nerves (scikit-learn's
    StratifiedGroupKFold). A list of validation patients is kept to the letter; then near-duplicates of their frames are
    left out of training instead.

    Args:
        study: The study to divide.
        config: How to divide it.

    Returns:
        One split a fold, or a single one named "holdout".

    Raises:
        UsageError: If a patient is unknown, or there are too few patients for the folds.
    """
    labelled = study.labelled()
    if labelled.empty:
        raise UsageError(f"The study {study.path} has no labelled frame to divide.")
    _check_known(study, labelled, {*config.validation_patients, *config.without_patients})
    both = sorted({*config.validation_patients} & {*config.without_patients})
    if both:
        raise UsageError(f"Patients cannot be both judged and left out: {_some(both)}.")
    labelled = labelled[~labelled["patient_id"].isin(config.without_patients)]
    if labelled.empty:
        raise UsageError(f"Without those patients the study {study.path} has no labelled frame to divide.")
    if config.validation_patients:
        return [_exact_holdout(study, labelled, config.validation_patients)]
    if config.folds < 1:
        raise UsageError(f"{config.folds} folds are impossible.", "Use 2 or more, or 1 for a single hold-out.")
    blocks = patient_blocks(study.frames).loc[labelled.index]
    if config.folds == 1:
        parts = max(2, min(_HOLDOUT_PARTS, blocks.nunique()))
        return [_fold("holdout", labelled, _assign(study, labelled, blocks, parts, config.seed) == 0)]
    fold_of_frame = _assign(study, labelled, blocks, config.folds, config.seed)
    return [_fold(f"fold_{fold}", labelled, fold_of_frame == fold) for fold in range(config.folds)]


def patient_blocks(frames: pd.DataFrame) -> pd.Series[Any]:
    """For every frame the number of its block: patients tied together by near-duplicate groups share one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    patients, patient_names = pd.factorize(frames["patient_id"])
    groups, group_names = pd.factorize(frames["group"])
    count = len(patient_names) + len(group_names)
    links = coo_array((np.ones(len(frames)), (patients, groups + len(patient_names))), shape=(count, count))
    _, component = connected_components(links, directed=False)
    return pd.Series(component[patients], index=frames.index)


def _assign(study: Study, labelled: pd.DataFrame, blocks: pd.Series[Any], folds: int, seed: int) -> NDArray[np.int64]:
    """For every labelled frame the fold that judges it."""
    from sklearn.model_selection import StratifiedGroupKFold

    patients = labelled["patient_id"].nunique()
    tied = "" if blocks.nunique() == patients else f" in {blocks.nunique()} blocks tied by near-duplicate frames"
    too_few = UsageError(
        f"{patients} patients with labelled frames{tied} cannot be divided into {folds} parts ({study.path}).",
        "Use fewer folds or more patients.",
    )
    if blocks.nunique() < folds:
        raise too_few
    strata = _resampled(_strata(labelled), blocks.to_numpy(), seed)
    if np.bincount(strata).max() < folds:
        strata = np.zeros_like(strata)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    fold_of_frame = np.full(len(labelled), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # A stratum with fewer frames than folds cannot be in all of them, which is fine here.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, judged) in enumerate(splitter.split(strata, strata, blocks.to_numpy())):
            fold_of_frame[judged] = fold
    if len(np.unique(fold_of_frame)) < folds:
        raise too_few
    return fold_of_frame


def _strata(labelled: pd.DataFrame) -> NDArray[np.int64]:
    """0 for a frame without foreground, else 1 to 3 by the third of labelled areas that its own lies in."""
    area = labelled["area_px"].to_numpy(dtype=np.float64) / (labelled["height"] * labelled["width"]).to_numpy()
    present = area > 0
    strata = np.zeros(len(area), dtype=np.int64)
    if present.any():
        strata[present] = 1 + np.searchsorted(np.quantile(area[present], [1 / 3, 2 / 3]), area[present])
    return strata


def _resampled(strata: NDArray[np.int64], blocks: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Draw every block's strata again, with replacement.

    StratifiedGroupKFold places the blocks in the order of their unevenness, so its own seed only breaks ties. The draw
    lets the seed choose among divisions that are about equally balanced.
    """
    rng = np.random.default_rng(seed)
    drawn = strata.copy()
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        drawn[members] = rng.choice(strata[members], size=members.size)
    return drawn


def _fold(name: str, labelled: pd.DataFrame, judged: NDArray[np.bool_]) -> Split:
    return Split(name, _patients(labelled[~judged]), _patients(labelled[judged]))


def _patients(frames: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(patient) for patient in pd.unique(frames["patient_id"]))


def _check_known(study: Study, labelled: pd.DataFrame, named: set[str]) -> None:
    unknown = sorted(named - set(labelled["patient_id"]))
    if unknown:
        raise UsageError(
            f"The study {study.path} has no labelled frames of patients {_some(unknown)}.",
            f"Its patients are {_some(_patients(labelled))}.",
        )


def _exact_holdout(study: Study, labelled: pd.DataFrame, wanted: Iterable[str]) -> Split:
    validation = {str(patient) for patient in wanted}
    judged = study.frames["patient_id"].isin(validation)
    straddling = set(study.frames["group"][judged])
    excluded = labelled[~judged[labelled.index] & labelled["group"].isin(straddling)]
    if len(excluded):
        say(
            f"{len(excluded)} frames of {excluded['patient_id'].nunique()} training patients are left out: "
            "near-duplicates of them belong to validation patients."
        )
    split = Split(
        "holdout",
        _patients(labelled[~labelled["patient_id"].isin(validation)]),
        _patients(labelled[labelled["patient_id"].isin(validation)]),
        tuple(str(frame) for frame in excluded["frame_id"]),
    )
    if not split.train or not split.train_frames(study):
        raise UsageError("All patients are held out, so none is left to train on.", "Name fewer validation patients.")
    return split


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def write_splits(path: Path | str, splits: Sequence[Split]) -> None:
    """Write splits as JSON."""
    write_json(Path(path), {"splits": [asdict(split) for split in splits]})


def read_splits(path: Path | str) -> list[Split]:
    """Read what ``write_splits`` wrote.

    Raises:
        UsageError: If there is no such file.
        DataError: If it is not a file of splits, or a split has a patient on both sides or an empty side.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"There is no file of splits {path}.")
    content = read_json(path, "a file of splits")
    try:
        entries = content["splits"]
        if len(entries) > MAX_SPLITS:
            raise ValueError(f"it has more than {MAX_SPLITS} splits")
        splits = [_parse(entry) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a file of splits ({error}).", "Make the splits again.") from error
    if not splits or len({split.name for split in splits}) < len(splits):
        raise DataError(f"{path} has no split, or two of the same name.", "Make the splits again.")
    return splits


def _parse(entry: dict[str, Any]) -> Split:
    for side in ("train", "validation", "excluded_frames"):
        if not isinstance(entry[side], list) or not all(isinstance(name, str) for name in entry[side]):
            raise ValueError(f"{side} is not a list of names")
    split = Split(str(entry["name"]), *(tuple(entry[side]) for side in ("train", "validation", "excluded_frames")))
    if not split.train or not split.validation:
        raise ValueError(f"split {split.name} has an empty side")
    both = sorted(set(split.train) & set(split.validation))
    if both:
        raise ValueError(f"split {split.name} has patients on both sides: {_some(both)}")
    return split
