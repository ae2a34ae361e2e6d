"""Where images come from: folders, Parquet, the Hub, torchvision, plugins."""
