"""What the options' own checks share."""


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise ValueError, naming the option's full key, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key} must be {expected}, got {value!r}.")
