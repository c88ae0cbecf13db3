"""Numerical methods that flows are made with: Runge-Kutta, L-BFGS, Krylov."""
