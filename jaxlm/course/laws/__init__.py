"""The laws of all exercises."""

from jaxlm.course.laws import counts, curves, functional, neural, reading, sampling, training, windows

LAWS = (
    *windows.LAWS,
    *counts.LAWS,
    *neural.LAWS,
    *sampling.LAWS,
    *training.LAWS,
    *reading.LAWS,
    *curves.LAWS,
    *functional.LAWS,
)
