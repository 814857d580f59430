"""Outlines, poses, and patients as they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefusion.data.phantom.anatomy import Patient, nerve_structures, pose_in_frame
from edgefusion.data.phantom.outlines import closed, oval
from edgefusion.data.phantom.patient import draw_patient


@pytest.fixture(scope="module")
def patient() -> Patient:
    return draw_patient(np.random.default_rng(3))


@given(seed=st.integers(0, 10**6), angle=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_outlines_are_closed_and_stay_near_what_they_follow(seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    egg = oval((0.1, 0.4), (0.1, 0.05), angle, rng)
    np.testing.assert_allclose(egg[0], egg[-1], atol=1e-9)
    assert np.hypot(*(egg - (0.1, 0.4)).T).max() < 0.2
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    curve = closed(corners, rng)
    assert np.hypot(*(curve[0] - curve[-1])) < 0.05
    assert -0.15 < curve.min() < 0.2
    assert 0.8 < curve.max() < 1.15


@given(frame=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_a_pose_is_small_smooth_and_nearly_invertible(patient: Patient, frame: int) -> None:
    pose = pose_in_frame(patient, frame, np.random.default_rng(frame))
    points = np.random.default_rng(0).uniform((-0.7, 0), (0.7, 1), (200, 2))
    seen = pose.to_frame(points)
    assert np.abs(pose.displacement(points)).max() < 0.2
    assert np.abs(pose.to_patient(seen) - points).max() < 0.03
    skin = np.stack([np.linspace(-0.7, 0.7, 9), np.zeros(9)], axis=1)
    np.testing.assert_allclose(pose.to_frame(skin)[:, 1], 0, atol=1e-12)
    assert 0 <= pose.plane <= 1


def test_neighbouring_frames_are_alike(patient: Patient) -> None:
    poses = [pose_in_frame(patient, frame, np.random.default_rng(frame)) for frame in range(24)]
    centre = np.array([[0.1, 0.35]])
    places = np.array([pose.to_frame(centre)[0] for pose in poses])
    steps = np.hypot(*np.diff(places, axis=0).T)
    assert 0.001 < steps.mean() < 0.04
    assert np.ptp(places, axis=0).max() > 2 * steps.mean()


def test_the_plexus_ends_somewhere_along_the_neck(patient: Patient) -> None:
    counts = set()
    for frame in range(24):
        pose = pose_in_frame(patient, frame, np.random.default_rng(frame))
        parts = nerve_structures(patient.nerve, pose, frame)
        assert bool(parts) == (pose.plane < patient.nerve.last_plane)
        counts.add(len(parts))
    assert counts == {0, 1 + len(patient.nerve.fat) + len(patient.nerve.fascicles)}


def test_patients_differ_and_are_reproducible() -> None:
    people = [draw_patient(np.random.default_rng(seed)) for seed in range(24)]
    assert {len(person.nerve.fascicles) for person in people} == {2, 3, 4, 5}
    assert {person.mirrored for person in people} == {True, False}
    assert np.ptp([person.nerve.centre[1] for person in people]) > 0.1
    again = draw_patient(np.random.default_rng(5))
    assert again.nerve.centre == people[5].nerve.centre
    np.testing.assert_array_equal(again.fibres, people[5].fibres)
    # Regions are numbered in eight bits when they are painted.
    assert max(sum(part.tissue is not None for part in person.structures) for person in people) < 200
