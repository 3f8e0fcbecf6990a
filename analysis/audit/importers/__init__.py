"""Importers: one module per layout of a campaign."""
