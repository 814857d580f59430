"""Simulated frames and studies: labels, reproducibility, what patients share, and what gives nothing away."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import rankdata

from edgefusion.data.phantom import (
    PhantomFrame,
    draw_patient,
    make_phantom_study,
    simulate,
    simulate_frame,
)
from edgefusion.data.study import Study
from edgefusion.errors import UsageError

SMALL = (98, 134)
PATIENTS, FRAMES = 16, 8


@pytest.fixture(scope="module")
def shots() -> list[list[PhantomFrame]]:
    people = [draw_patient(np.random.default_rng([0, number])) for number in range(PATIENTS)]
    return [
        [simulate(person, index, np.random.default_rng([0, number, index]), SMALL) for index in range(FRAMES)]
        for number, person in enumerate(people)
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_phantom_study(tmp_path_factory.mktemp("phantom") / "study", 3, 4, seed=5, size=SMALL)


def test_pictures_are_grey_labelled_and_not_blank(shots: list[list[PhantomFrame]]) -> None:
    for shot in (shot for person in shots for shot in person):
        for picture in (shot.image, shot.mask, shot.clean):
            assert picture.shape == SMALL
            assert picture.dtype == np.uint8
        assert set(np.unique(shot.mask)) <= {0, 1}
        assert 35 < shot.image.mean() < 180
        assert 25 < shot.image.std() < 90
        assert 0.25 < shot.spacing_mm < 0.45


def test_the_nerve_is_one_patch_of_1_to_3_5_percent_within_the_frame(shots: list[list[PhantomFrame]]) -> None:
    for shot in (shot for person in shots for shot in person if shot.mask.any()):
        assert 0.01 < shot.mask.mean() < 0.035
        assert cv2.connectedComponents(shot.mask)[0] == 2
        assert shot.mask[1:-1, 1:-1].sum() == shot.mask.sum()


def test_a_fair_share_of_frames_has_no_nerve(shots: list[list[PhantomFrame]]) -> None:
    absent = np.array([[not shot.mask.any() for shot in person] for person in shots])
    assert 0.15 <= absent.mean() <= 0.4
    assert absent.mean(axis=1).max() < 0.7


def test_no_plain_statistic_tells_whether_there_is_a_nerve(shots: list[list[PhantomFrame]]) -> None:
    frames = [shot for person in shots for shot in person]
    present = np.array([shot.mask.any() for shot in frames])
    statistics = {
        "mean": [shot.image.mean() for shot in frames],
        "spread": [shot.image.std() for shot in frames],
        "black": [(shot.image < 8).mean() for shot in frames],
        "white": [(shot.image > 247).mean() for shot in frames],
        "sides": [np.abs(shot.image[:, :8].mean() - shot.image[:, -8:].mean()) for shot in frames],
        "detail": [np.abs(np.diff(shot.image.astype(float), axis=0)).mean() for shot in frames],
    }
    count = present.sum() * (~present).sum()
    for name, values in statistics.items():
        ranks = rankdata(values)
        area = (ranks[present].sum() - present.sum() * (present.sum() + 1) / 2) / count
        assert abs(area - 0.5) < 0.15, name


def test_speckle_is_new_in_every_frame_and_the_anatomy_is_not() -> None:
    person = draw_patient(np.random.default_rng(2))
    first, again, later = (
        simulate(person, index, np.random.default_rng(seed)) for index, seed in ((0, 0), (0, 1), (1, 2))
    )
    stranger = simulate(draw_patient(np.random.default_rng(3)), 0, np.random.default_rng(0))

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])

    def noise(shot: PhantomFrame) -> np.ndarray:
        difference = shot.image.astype(float) - shot.clean
        return difference - cv2.GaussianBlur(difference, (0, 0), 8)

    assert abs(correlation(noise(first), noise(again))) < 0.1
    assert abs(correlation(noise(first), noise(later))) < 0.1
    deep = slice(60, None)
    alike = correlation(first.clean[deep], later.clean[deep])
    assert alike > 0.3
    assert alike > correlation(first.clean[deep], stranger.clean[deep]) + 0.2


def test_the_clean_picture_is_the_picture_without_speckle(shots: list[list[PhantomFrame]]) -> None:
    for person in shots:
        shot = person[0]
        assert np.corrcoef(shot.image.ravel(), shot.clean.ravel())[0, 1] > 0.75
        # Speckle lowers the mean of the logarithm, by at most 2.5 dB.
        assert 0 < shot.clean.mean() - shot.image.mean() < 16


def test_any_size_shows_the_same_neck() -> None:
    large, small = simulate_frame(0, 4, 0), simulate_frame(0, 4, 0, (140, 192))
    reduced = cv2.resize(large.clean, (192, 140), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(reduced[20:].ravel(), small.clean[20:].ravel())[0, 1] > 0.75
    reduced_mask = cv2.resize(large.mask * 255, (192, 140), interpolation=cv2.INTER_AREA) > 127
    overlap = 2 * (reduced_mask & (small.mask > 0)).sum() / (reduced_mask.sum() + small.mask.sum())
    assert overlap > 0.9


def test_a_study_holds_what_was_simulated(study: Study) -> None:
    assert study.labels == ["nerve"]
    assert list(study.frames["frame_id"]) == [f"p{p:02d}_f{k:02d}" for p in range(3) for k in range(4)]
    assert list(study.frames["patient_id"].unique()) == ["p00", "p01", "p02"]
    assert study.frames["group"].is_unique
    assert study.frames["sha256"].is_unique
    assert len(study.labelled()) == 12
    shot = simulate_frame(5, 2, 3, SMALL)
    row = study.frames.set_index("frame_id").loc["p02_f03"]
    np.testing.assert_array_equal(study.image("p02_f03"), shot.image)
    np.testing.assert_array_equal(study.mask("p02_f03"), shot.mask)
    np.testing.assert_array_equal(cv2.imread(str(study.path / row["clean"]), cv2.IMREAD_UNCHANGED), shot.clean)
    assert row["area_px"] == shot.mask.sum()
    assert row["spacing_row_mm"] == row["spacing_col_mm"] == pytest.approx(shot.spacing_mm)


def test_a_frame_does_not_depend_on_how_many_there_are(study: Study, tmp_path: Path) -> None:
    other = make_phantom_study(tmp_path / "other", 2, 5, seed=5, size=SMALL)
    shared = study.frames.merge(other.frames, on="frame_id", suffixes=("", "_other"))
    assert len(shared) == 8
    assert (shared["sha256"] == shared["sha256_other"]).all()
    another = make_phantom_study(tmp_path / "another", 1, 1, seed=6, size=SMALL)
    assert another.frames["sha256"].iloc[0] not in set(study.frames["sha256"])


def test_a_study_of_phantoms_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    make_phantom_study(tmp_path / "study", 1, 2, size=SMALL)
    assert len(make_phantom_study(tmp_path / "study", 1, 1, size=SMALL).frames) == 1
    assert sorted(path.name for path in (tmp_path / "study" / "images").iterdir()) == ["p00_f00.png"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("Nerves")
    with pytest.raises(UsageError):
        make_phantom_study(tmp_path / "thesis", 1, 1, size=SMALL)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


@pytest.mark.parametrize(
    "wrong", [{"patients": 0}, {"frames": 0}, {"seed": -1}, {"size": (32, 580)}], ids=lambda wrong: next(iter(wrong))
)
def test_impossible_numbers_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        make_phantom_study(tmp_path / "study", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "study").exists()
