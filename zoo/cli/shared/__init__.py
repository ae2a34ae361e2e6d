"""What several commands use: options, tables, progress, messages."""
