"""Boundary terms of edge sampling: where the integrand jumps, how fast the jump moves, and what it is worth."""
