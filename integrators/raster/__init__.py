"""What the two rasterisers share: clipped and projected triangles, Lambertian shading, refusals."""
