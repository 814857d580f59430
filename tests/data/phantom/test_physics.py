"""Speckle against theory: Rayleigh envelopes, exponential intensities, Gaussian correlation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefusion.data.phantom.physics import decibels, speckle

SHAPE = (512, 768)


def homogeneous(
    looks: int = 1, axial: float = 1.6, lateral: float = 3.0, power: float = 1.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    intensity = np.full(SHAPE, power, np.float32)
    return speckle(
        intensity,
        np.zeros(SHAPE, np.float32),
        axial=axial,
        lateral=np.full(SHAPE[0], lateral),
        looks=looks,
        rng=np.random.default_rng(7),
    )


@pytest.fixture(scope="module")
def envelope() -> NDArray[np.float32]:
    return homogeneous()[0]


def test_the_envelope_is_rayleigh(envelope: NDArray[np.float32]) -> None:
    # A Rayleigh variable has mean/sd = sqrt(pi / (4 - pi)) = 1.913, skewness .631, and median/mean .9394.
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.05)
    deviation = (envelope - envelope.mean()) / envelope.std()
    assert (deviation**3).mean() == pytest.approx(0.631, abs=0.07)
    assert np.median(envelope) / envelope.mean() == pytest.approx(0.9394, abs=0.01)


def test_the_intensity_is_exponential(envelope: NDArray[np.float32]) -> None:
    intensity = envelope.astype(float) ** 2
    assert intensity.std() / intensity.mean() == pytest.approx(1.0, abs=0.05)


def test_the_logarithm_spreads_by_5_57_decibels(envelope: NDArray[np.float32]) -> None:
    # sd(10 log10 of an exponential variable) = 10 / ln 10 * pi / sqrt 6, mean -2.51 dB.
    level = decibels(envelope)
    assert level.std() == pytest.approx(5.57, abs=0.2)
    assert level.mean() == pytest.approx(-2.51, abs=0.2)


@pytest.mark.parametrize("looks", [2, 4])
def test_independent_looks_raise_the_snr_by_the_root_of_their_number(looks: int) -> None:
    # Three bandwidths fit side by side only for a beam of some pixels.
    envelope = homogeneous(looks, lateral=4.5)[0]
    assert envelope.mean() / envelope.std() == pytest.approx(1.913 * np.sqrt(looks), rel=0.06)


@pytest.mark.parametrize("power", [1e-4, 1.0])
def test_mean_power_is_the_intensity_up_to_the_border(power: float) -> None:
    envelope, expected = homogeneous(power=power)
    assert np.mean(envelope.astype(float) ** 2) == pytest.approx(power, rel=0.05)
    np.testing.assert_allclose(expected, np.sqrt(power), rtol=1e-3)
    border = np.concatenate([envelope[:, :24].ravel(), envelope[:, -24:].ravel()]).astype(float)
    assert np.mean(border**2) == pytest.approx(power, rel=0.15)


def test_speckle_has_the_size_of_pulse_and_beam(envelope: NDArray[np.float32]) -> None:
    # The intensity of a Gaussian point-spread function's speckle correlates as exp(-d^2 / (2 sigma^2)).
    intensity = envelope.astype(float) ** 2
    intensity -= intensity.mean()
    for axis, sigma in ((0, 1.6), (1, 3.0)):
        for distance in (1, 2, 3):
            moved = np.roll(intensity, distance, axis=axis)
            correlation = (intensity * moved).mean() / (intensity**2).mean()
            assert correlation == pytest.approx(np.exp(-(distance**2) / (2 * sigma**2)), abs=0.04)


def test_the_beam_widens_row_by_row() -> None:
    envelope, _ = speckle(
        np.ones(SHAPE, np.float32),
        np.zeros(SHAPE, np.float32),
        axial=1.5,
        lateral=np.linspace(2, 8, SHAPE[0]),
        looks=1,
        rng=np.random.default_rng(1),
    )
    change = np.abs(np.diff(envelope, axis=1)).mean(axis=1)
    assert change[:64].mean() > 2 * change[-64:].mean()
    assert envelope[-128:].mean() == pytest.approx(envelope[:128].mean(), rel=0.1)


def test_a_wide_bright_interface_keeps_its_amplitude() -> None:
    axial, shape = 2.0, (128, 256)
    coherent = np.zeros(shape, np.float32)
    coherent[64] = 0.7 * np.sqrt(2 * np.pi) * axial
    nothing, lateral = np.zeros(shape, np.float32), np.full(shape[0], 4.0)
    envelope, expected = speckle(nothing, coherent, axial=axial, lateral=lateral, looks=3, rng=np.random.default_rng(0))
    np.testing.assert_allclose(envelope[64, 40:-40], 0.7, rtol=0.01)
    np.testing.assert_allclose(envelope, expected, atol=1e-4)


def test_without_any_echo_there_is_black_not_nan() -> None:
    np.testing.assert_allclose(decibels(np.zeros((2, 2), np.float32)), -120, rtol=1e-4)
