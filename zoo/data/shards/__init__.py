"""Images inside shards (tar and parquet files): addressed, read in blocks, and shuffled by blocks and windows."""
