"""Measured images and their builds."""
