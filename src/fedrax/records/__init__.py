"""What a run leaves behind: directory, manifest, metrics, checkpoints, summary, progress and video."""
