"""What was observed: images, masks, colour, and the cameras that took them."""

from __future__ import annotations

from .cameras import Camera
from .colmap import read_colmap
from .framing import resample
from .headers import ImageHeader, read_header
from .images import (
    Picture,
    check_texels,
    linear_to_srgb,
    read_image,
    read_picture,
    srgb_to_linear,
    to_8bit,
    write_channels,
    write_image,
)
from .shots import Capture, Shot
from .transforms import read_transforms
from .views import View, Views, check_films, load_views, read_mask
from .views_file import read_views_file

__all__ = [
    "Camera",
    "Capture",
    "ImageHeader",
    "Picture",
    "Shot",
    "View",
    "Views",
    "check_films",
    "check_texels",
    "linear_to_srgb",
    "load_views",
    "read_colmap",
    "read_header",
    "read_image",
    "read_mask",
    "read_picture",
    "read_transforms",
    "read_views_file",
    "resample",
    "srgb_to_linear",
    "to_8bit",
    "write_channels",
    "write_image",
]
