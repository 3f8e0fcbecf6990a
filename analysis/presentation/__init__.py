"""Formatting, palette, scales, canvas and templates that all pages share."""
