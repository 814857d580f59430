"""Synthetic ultrasound of the neck with a known truth: the interscalene view of the brachial plexus.

``patient`` draws who is scanned (``neck`` and ``outlines`` the anatomy, in the terms of ``anatomy``), ``painting``
lays one pose of it on the pixel grid, ``physics`` takes the picture, and ``study`` writes what comes of it.
"""

from edgefusion.data.phantom.patient import draw_patient
from edgefusion.data.phantom.study import PhantomFrame, make_phantom_study, simulate, simulate_frame

__all__ = ["PhantomFrame", "draw_patient", "make_phantom_study", "simulate", "simulate_frame"]
