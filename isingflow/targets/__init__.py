"""Unnormalised densities that flows are trained on."""
