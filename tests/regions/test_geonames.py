"""GeoNames places and the large city that each belongs to."""

import numpy as np

from geogrpo.regions.sources.geonames import Places, load_geonames, with_large_cities


def test_the_city_is_the_nearest_large_one_of_the_same_country() -> None:
    rows = [
        # latitude, longitude, people, country, name
        (10.0, 0.0, 500_000, "A", "Bigtown"),
        (10.0, 5.0, 200_000, "A", "Midtown"),
        (10.0, 3.0, 900, "A", "Village"),
        (10.0, 3.1, 800_000, "B", "Over the border"),
        (20.0, 9.0, 10, "C", "Hamlet"),
        (60.0, 9.0, 20, "C", "Larger hamlet"),
    ]
    lat, lon, people, country, names = (list(column) for column in zip(*rows, strict=True))
    nothing = [None] * len(rows)
    places = Places(np.stack([lat, lon], 1), np.array(people), country, country, nothing, nothing, names)
    cities = with_large_cities(places, 100_000).city
    # A country without a large one has its most populous place.
    assert cities == ["Bigtown", "Midtown", "Midtown", "Over the border", "Larger hamlet", "Larger hamlet"]
    assert with_large_cities(places, 300_000).city[2] == "Bigtown"
    assert places.city == names


def test_every_large_city_is_its_own_and_nothing_else_changes() -> None:
    places = load_geonames()
    changed = with_large_cities(places, 100_000)
    large = places.population >= 100_000
    names = np.array(places.city, dtype=object), np.array(changed.city, dtype=object)
    assert (names[0][large] == names[1][large]).mean() > 0.999
    assert len(set(changed.city)) < 6000
    assert np.array_equal(places.latlon_deg, changed.latlon_deg)
    assert (places.state, places.country) == (changed.state, changed.country)


def test_namibia_is_not_a_missing_value() -> None:
    places = load_geonames()
    assert all(isinstance(code, str) and len(code) == 2 for code in places.country_code)
    assert {name for name, code in zip(places.country, places.country_code, strict=True) if code == "NA"} == {"Namibia"}
