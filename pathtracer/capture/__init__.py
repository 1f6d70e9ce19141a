"""What was observed: images, masks, colour, and the cameras that took them."""

from __future__ import annotations

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
from .views import View, Views, check_films, load_views, read_mask

__all__ = [
    "ImageHeader",
    "Picture",
    "View",
    "Views",
    "check_films",
    "check_texels",
    "linear_to_srgb",
    "load_views",
    "read_header",
    "read_image",
    "read_mask",
    "read_picture",
    "resample",
    "srgb_to_linear",
    "to_8bit",
    "write_channels",
    "write_image",
]
