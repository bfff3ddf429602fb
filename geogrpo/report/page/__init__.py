"""One run as one HTML file that opens anywhere, without a network, and the same plots as PNG files."""
