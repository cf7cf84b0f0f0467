"""Going on with a run that DP-GEN began."""
