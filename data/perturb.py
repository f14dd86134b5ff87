"""Image degradations, used by training augmentation.  All take and return RGB uint8 arrays (H, W, 3).

Source of the set and its parameters: Wang et al., "CNN-generated images are surprisingly easy to spot...
for now", CVPR 2020, section 3.2 (blur and JPEG augmentation).
"""

import io

import cv2
import numpy as np
from PIL import Image


def gaussian_blur(pixels, sigma):
    """Gaussian blur of each channel; sigma in pixels, 0 leaves the image as it is."""
    if sigma == 0:
        return pixels
    from scipy.ndimage import gaussian_filter  # here, since it takes long to import

    return gaussian_filter(pixels, sigma=(sigma, sigma, 0))


def jpeg_cv2(pixels, quality):
    """JPEG round trip through OpenCV's encoder; quality 1 to 100."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def jpeg_pil(pixels, quality):
    """JPEG round trip through Pillow's encoder; quality 1 to 100."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


JPEG_METHODS = {"cv2": jpeg_cv2, "pil": jpeg_pil}
