"""What one recording, or one run, shows: explanations of any file, regions in seconds and Hz, activations in time."""
