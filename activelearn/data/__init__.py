"""Structures, labelled systems, trajectories and model deviations."""
