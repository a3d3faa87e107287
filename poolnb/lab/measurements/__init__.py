"""Measurements beside runs, one module per kind; `records` keeps them."""
