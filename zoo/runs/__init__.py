"""One run folder: its record, results, weights, lock and images, and how it is found again."""
