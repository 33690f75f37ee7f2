"""Faults, injected at seeded points: how many were survived as promised, and what was lost."""
