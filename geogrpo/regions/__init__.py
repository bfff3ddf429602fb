"""Geography: places, the region index, Chain of Region text."""
