"""Rewrites of graphs that change no bit of any output: one file for each kind of thing that goes."""
