"""What is read from disk: configs, models, weights, datasets, images, checkpoints."""
