"""What a run leaves to read: logs, display, figures, tables."""
