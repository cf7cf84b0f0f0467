"""Selection: classification by trust levels, health of frames, and who gets labelled."""
