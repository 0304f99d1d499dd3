"""From video to W+ codes: reads video, finds and aligns the face, and inverts each frame into the generator's latents."""
