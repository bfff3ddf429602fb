"""What the model is asked; parse_completion reads the answers."""

from geogrpo.parsing import parse_completion

PROMPTS: dict[str, str] = {
    "chain_of_region": (
        "Work out where on Earth this picture was taken, using only what it shows. Narrow the place down step by step"
        " and answer in exactly four lines:\n"
        "Country: its name in English\n"
        "State: the state, province or region\n"
        "City: the nearest city or village\n"
        "Coordinates: (latitude, longitude) in decimal degrees, south and west negative"
    ),
    "globe": (
        "In which country and city was this picture taken? First reason between <think> and </think>: name what you see"
        " (writing, buildings, plants, roads, landforms, the light) and where each of them points. Then decide on one"
        " place and give it between <answer> and </answer>, in exactly two lines:\n"
        "country: its name in English\n"
        "city: the nearest city or town"
    ),
    # A model trained from scratch learns the format from its answers; every prompt token costs it time.
    "short": "Where is this?",
}
"""Question text by name; the picture comes before it."""

__all__ = ["PROMPTS", "parse_completion"]
