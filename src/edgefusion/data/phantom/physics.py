"""From a scene to a picture: attenuation, beam and pulse, speckle, noise, envelope, log compression.

Scatterers with the tissue's echogenicity are convolved with a point-spread function that widens away from the
focus; bright interfaces add a coherent echo. This is the convolution model of fully developed speckle (Wagner et
al., IEEE Transactions on Sonics and Ultrasonics 30:156, 1983); looks are averaged as in spatial compounding.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from edgefusion.data.phantom.anatomy import Scanner
from edgefusion.data.phantom.painting import Image, Scene

_SHARPEST = 0.6
"""Least standard deviation of pulse and beam, pixels; less would be smaller than a pixel."""


def take_picture(
    scene: Scene, scanner: Scanner, scale: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Take a scene's B-mode picture.

    Args:
        scene: What is seen.
        scanner: How the scanner is set.
        scale: Pixels a frame height.
        rng: Source of speckle, noise, coupling and the frame's gain.

    Returns:
        The picture, and the same without speckle; both H×W uint8.
    """
    depth = np.arange(scene.level.shape[0], dtype=np.float32) / np.float32(scale)
    received = _received(scene.loss, scanner, scale, rng)
    axial = max(scanner.axial * scale, _SHARPEST)
    # A line one pixel thick keeps its peak through a unit-gain pulse only if it is as strong as the pulse is long.
    pulse_length = np.float32(np.sqrt(2 * np.pi) * axial)
    noise = (scanner.noise + 9 * depth)[:, None]
    envelope, expected = speckle(
        _power(scene.level + received) + _power(noise),
        scene.specular * np.sqrt(_power(received)) * pulse_length,
        axial=axial,
        lateral=np.maximum(scanner.lateral * scale * np.hypot(1, (depth - scanner.focus) / 0.8), _SHARPEST),
        looks=scanner.looks,
        rng=rng,
    )
    gain = scanner.gain + rng.normal(0, 1.2)

    def shown(amplitude: Image) -> NDArray[np.uint8]:
        grey = 1 + (decibels(amplitude) + np.float32(gain)) / np.float32(scanner.dynamic_range)
        # Scanners sharpen in depth; it leaves dark seams beside bright lines.
        around = cv2.GaussianBlur(grey.clip(-0.2, 1.2), (0, 0), 0.1, sigmaY=2 * axial)
        grey += np.float32(scanner.sharpening) * (grey - around)
        return np.asarray(np.rint(255 * grey.clip(0, 1)), np.uint8)

    return shown(envelope), shown(expected)


def speckle(
    intensity: Image,
    coherent: Image,
    *,
    axial: float,
    lateral: NDArray[np.floating[Any]],
    looks: int,
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """Envelope of the echo of random scatterers and bright interfaces.

    Args:
        intensity: H×W, expected power of the diffuse echo.
        coherent: H×W, amplitude of the specular echo before pulse and beam spread it.
        axial: Standard deviation of the Gaussian pulse, pixels.
        lateral: H, standard deviation of the Gaussian beam in each row, pixels.
        looks: Speckle patterns whose envelopes are averaged.
        rng: Source of the scatterers.

    Returns:
        The envelope, and the square root of its expected power, which has no speckle; both H×W float32.
    """
    height, width = intensity.shape
    margin = int(np.ceil(4 * lateral.max()))
    padded = fft.next_fast_len(width + 2 * margin)
    view = slice(margin, margin + width)

    def widened(field: Image) -> Image:
        right = padded - width - margin
        return np.asarray(cv2.copyMakeBorder(field, 0, 0, margin, right, cv2.BORDER_REFLECT), np.float32)

    def through_pulse(rows: NDArray[Any], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        one = np.ones(1, np.float32)
        rows = np.ascontiguousarray(rows)
        return np.asarray(cv2.sepFilter2D(rows, -1, one, kernel, borderType=cv2.BORDER_REFLECT), np.float32)

    radius = int(np.ceil(4 * axial))
    pulse = np.exp(-0.5 * (np.arange(-radius, radius + 1) / axial) ** 2).astype(np.float32)
    bandwidth = (1 / (2 * np.pi * lateral[:, None])).astype(np.float32)
    frequency = fft.fftfreq(padded).astype(np.float32)
    # The transfer function of the beam's square, whose standard deviation is smaller by the root of two.
    squared_beam = np.exp(-((frequency / bandwidth) ** 2) / 4)
    beam = squared_beam**2

    half = slice(0, padded // 2 + 1)
    echo, power = (
        through_pulse(fft.irfft(fft.rfft(widened(field)) * transfer[:, half], padded)[:, view], kernel / kernel.sum())
        for field, transfer, kernel in ((coherent, beam, pulse), (intensity, squared_beam, pulse**2))
    )
    expected = np.sqrt(power.clip(0) + echo**2)

    # Uniform numbers will do: a resolution cell holds so many scatterers that their sum is Gaussian.
    scatterers = (rng.random((height, padded, 2), np.float32) - np.float32(0.5)).view(np.complex64)[..., 0]
    spectrum = fft.fft(scatterers * np.sqrt(6 * widened(intensity)))
    # With unit energy of the point-spread function, the mean power of the field is the intensity.
    beam /= np.sqrt(np.mean(beam**2, axis=1, keepdims=True))
    pulse /= np.sqrt((pulse**2).sum())
    # Each steered beam passes its own band of lateral frequencies; three bandwidths apart, the patterns are as good as
    # independent. Rolling the spectrum rather than the beam takes the steering's fringes out of the field again.
    apart = min(3 * float(bandwidth.max()), 1 / looks)
    envelope = np.zeros((height, width), np.float32)
    for look in range(looks):
        steered = np.roll(spectrum, round((look - looks // 2) * apart * padded), axis=1)
        rows = np.ascontiguousarray(fft.ifft(steered * beam)[:, view])
        field = through_pulse(rows.view(np.float32).reshape(height, width, 2), pulse).view(np.complex64)[..., 0]
        envelope += np.abs(field + echo)
    return envelope / np.float32(looks), expected


def decibels(amplitude: Image) -> Image:
    """Level of an amplitude, dB; 1 is 0 dB, and nothing is -120 dB."""
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-6)), np.float32)


def _power(level: Image) -> Image:
    return np.asarray(np.exp(np.float32(np.log(10) / 10) * level))


def _received(loss: Image, scanner: Scanner, scale: float, rng: np.random.Generator) -> Image:
    """What is gained or lost on the way, dB: shadows, time-gain error, and the contact of the probe."""
    height, width = loss.shape
    shadow = cv2.GaussianBlur(-np.cumsum(loss, axis=0) / np.float32(scale), (0, 0), 0.018 * scale, sigmaY=0.1)
    depth = (np.arange(height, dtype=np.float32) / np.float32(scale))[:, None]
    # The compensation never quite makes up for the depth.
    curve = np.interp(depth, np.linspace(0, 1, len(scanner.tgc_error)), scanner.tgc_error) - 8 * depth
    # Dust, hair and dry spots: faint columns everywhere, and in some frames a side that hardly touches.
    columns = cv2.GaussianBlur(rng.normal(0, 1, (1, width)), (0, 0), 0.02 * width)
    contact = 0.8 * columns / columns.std()
    if rng.random() < 0.3:
        side = np.linspace(0, 1, width) if rng.random() < 0.5 else np.linspace(1, 0, width)
        reach, steepness = rng.uniform(0, 0.18), rng.uniform(0.02, 0.08)
        contact = contact - rng.uniform(4, 20) / (1 + np.exp((side - reach) / steepness))
    return np.asarray(
        shadow + curve.astype(np.float32) + contact.astype(np.float32) * np.clip(0.4 + depth / 0.15, 0, 1)
    )
