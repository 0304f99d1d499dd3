"""StyleGAN2 in plain PyTorch: networks, weights, rendering, training."""
