"""How near pictures are to given ones, pixel by pixel: PSNR, SSIM and L1, for tasks where the right picture is known.

Wang, Bovik, Sheikh, Simoncelli 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity". PSNR
and SSIM equal scikit-image's `peak_signal_noise_ratio` and `structural_similarity` with the paper's settings, which the
tests compare. They say nothing of a generator whose pictures answer to no particular real one.
"""

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
PEAK = 255.0
SIGMA = 1.5  # pixels, of SSIM's window; the paper's, as all constants here
RADIUS = 5  # pixels: the window is 11 x 11
WINDOW = 2 * RADIUS + 1
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
BLOCK = 2**16  # pixels worked on together, so that they stay in a processor's cache


def psnr(a: U8, b: U8) -> F64:
    """Peak signal-to-noise ratio of each picture in decibels: [n] float64, inf for equal pictures.

    a, b: uint8 [n, H, W, C]. 10 log10(255^2 / MSE), the mean squared error over a picture's pixels and channels. Raises
    ArgumentError for other types or shapes.
    """
    check_pictures(a, b)
    errors = np.array([np.square(np.subtract(x, y, dtype=np.float64)).mean() for x, y in zip(a, b, strict=True)])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / errors)


def mean_absolute_error(a: U8, b: U8) -> F64:
    """L1 of each picture: [n] float64 in grey levels, 0 (equal) to 255, the mean over its pixels and channels.

    a, b: uint8 [n, H, W, C]. Raises ArgumentError for other types or shapes.
    """
    check_pictures(a, b)
    return np.array([np.abs(np.subtract(x, y, dtype=np.int16)).mean() for x, y in zip(a, b, strict=True)])


def ssim(a: U8, b: U8) -> F64:
    """Structural similarity of each picture: [n] float64 in [-1, 1], 1 for equal pictures.

    a, b: uint8 [n, H, W, C], at least 11 x 11 pixels: the window, a Gaussian of sigma 1.5, must fit. The mean over all
    of its places inside the picture, and over the channels. Raises ArgumentError for other types or shapes.
    """
    check_pictures(a, b)
    n, height, width, channels = a.shape
    if min(height, width) < WINDOW:
        raise ArgumentError(
            f"pictures are {height} x {width}; SSIM's window takes {WINDOW} x {WINDOW} pixels or more: use psnr"
        )
    step = max(1, BLOCK // (height * width * channels))
    return np.concatenate([_ssim(a[i : i + step], b[i : i + step]) for i in range(0, n, step)])


def _ssim(a: U8, b: U8) -> F64:
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (var_x + var_y + C2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def blur(x: F64) -> F64:
    """[n, H, W, C] under the window at all its places: [n, H - 10, W - 10, C]. One axis after the other."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    height, width = x.shape[1] - 2 * RADIUS, x.shape[2] - 2 * RADIUS
    x = sum(weight * x[:, i : i + height] for i, weight in enumerate(weights))
    return sum(weight * x[:, :, i : i + width] for i, weight in enumerate(weights))


def check_pictures(a: U8, b: U8) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.size == 0 or not a.dtype == b.dtype == np.uint8:
        raise ArgumentError(
            f"two equal shapes uint8 [n, H, W, C] without a 0 are needed, got {a.dtype} {list(a.shape)} and "
            f"{b.dtype} {list(b.shape)}"
        )
