"""From footage to latents: read video, find and align the face, invert it into W+."""
