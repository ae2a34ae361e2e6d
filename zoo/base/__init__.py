"""Files, paths, structs and text: what every room may use, and what knows nothing of models."""
