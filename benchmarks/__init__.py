"""Figures: what raymill reaches, beside a floor or a peer measured in the same run."""
