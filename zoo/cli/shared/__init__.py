"""Helpers that several commands share: options, tables, progress, messages."""
