"""What there is: models, recipes, datasets and plugins as data. Nothing here imports torch."""
