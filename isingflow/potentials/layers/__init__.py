"""What potentials share: hidden layers, residual networks, convolutions, fused kernels."""
