"""English nouns of what a photograph of a place can show: how reasoning is searched for the things it claims to see.

GENERIC ones are in nearly every outdoor photograph, say nothing about where it was taken, and count for nobody. The
lists are ours; broad rather than complete, in the singular, lower case.
"""

_GENERIC = """
    sky cloud sun sunlight light shadow air day daytime background foreground scene image photo photograph picture view
    tree grass plant leaf vegetation foliage greenery bush shrub ground soil water land landscape area
    building house structure wall roof window door road street path pavement sidewalk way
    person people man woman child crowd pedestrian car vehicle sign object thing item element feature detail clue
    color colour style architecture design
"""

_NATURE = """
    mountain hill peak ridge cliff canyon gorge valley volcano crater dune desert sand beach shore coast coastline bay
    cove lagoon reef island peninsula fjord glacier iceberg snow ice rock boulder pebble gravel lava geyser waterfall
    river stream creek canal lake pond wetland marsh swamp mangrove ocean sea wave tide estuary delta harbor harbour
    forest jungle rainforest woodland taiga tundra steppe savanna savannah prairie meadow pasture plain plateau mesa
    butte badland oasis field farmland cropland orchard vineyard plantation paddy terrace hedge hedgerow moor heath
    palm pine fir spruce cedar cypress birch oak maple beech eucalyptus acacia baobab bamboo cactus agave yucca fern
    moss lichen ivy olive willow poplar sycamore sequoia redwood banyan teak mahogany coconut banana sugarcane maize
    corn wheat barley rice cotton tea coffee tobacco sunflower lavender tulip rose lily lotus orchid bougainvillea
    hibiscus jacaranda magnolia azalea heather thistle fog mist haze rain rainbow storm lightning sunset sunrise dusk
    aurora moon star
"""
_ANIMALS = """
    animal dog cat horse donkey mule cow bull ox buffalo bison yak sheep goat lamb pig camel dromedary llama alpaca
    elephant giraffe zebra lion tiger leopard cheetah hyena monkey ape baboon gorilla orangutan lemur kangaroo wallaby
    koala wombat emu ostrich deer elk moose reindeer caribou antelope gazelle bear wolf fox raccoon rabbit squirrel
    beaver otter seal walrus whale dolphin shark fish turtle tortoise lizard iguana crocodile alligator snake frog bird
    pigeon dove gull seagull crow raven eagle hawk vulture owl parrot toucan flamingo pelican stork heron crane swan
    duck goose chicken rooster turkey peacock penguin puffin butterfly bee
"""
_BUILDINGS = """
    skyscraper tower highrise apartment condominium townhouse bungalow cottage cabin hut shack villa mansion farmhouse
    barn silo shed greenhouse windmill watermill lighthouse castle fortress fort palace citadel rampart battlement moat
    temple pagoda shrine stupa mosque minaret dome synagogue church chapel cathedral basilica abbey monastery convent
    steeple spire belfry campanile cross crucifix crescent altar torii cemetery tomb mausoleum grave tombstone ruin
    pyramid obelisk monument memorial statue sculpture bust fountain arch archway colonnade column pillar portico facade
    balcony veranda porch patio courtyard atrium staircase stair ramp railing banister fence gate gateway wall brick
    stone marble granite adobe stucco plaster concrete timber wood thatch shingle tile slate chimney gable dormer attic
    shutter awning canopy parapet cornice gargoyle mosaic fresco mural graffiti mall market bazaar souk stall kiosk shop
    store storefront supermarket boutique bakery pharmacy bank office hotel motel hostel restaurant cafe bar pub tavern
    pizzeria school university campus library museum gallery theater theatre cinema opera stadium arena gym hospital
    clinic courthouse parliament capitol embassy prison factory warehouse refinery mill mine quarry dam reservoir
    powerplant reactor observatory planetarium aquarium zoo casino skyline plaza square piazza park garden playground
    lawn hedge promenade boardwalk pier dock wharf jetty marina quay shipyard lock levee dike embankment
"""
_ROADS = """
    highway motorway freeway expressway boulevard avenue alley lane crosswalk crossing intersection junction roundabout
    overpass underpass flyover bridge viaduct aqueduct tunnel tollbooth toll median curb kerb gutter manhole guardrail
    bollard barrier cone milestone kilometre speedbump asphalt tarmac cobblestone dirt shoulder parking garage driveway
    streetlight lamppost lamp lantern traffic signpost billboard banner poster advertisement placard plaque nameplate
    signage lettering text inscription script alphabet language word logo brand flag emblem crest coat pole utility
    cable wire transformer insulator pylon antenna satellite mast meter hydrant mailbox postbox bin dumpster bench
    shelter phonebox telephone booth plate license numberplate bumper windshield steering
"""
_VEHICLES = """
    bus minibus coach tram trolley streetcar trolleybus train locomotive railway railroad rail track platform station
    subway metro monorail funicular gondola cablecar truck lorry van pickup trailer caravan taxi cab rickshaw tuktuk
    jeepney minivan sedan hatchback suv limousine ambulance firetruck motorcycle motorbike scooter moped bicycle bike
    cart carriage wagon tractor bulldozer excavator crane forklift boat ship ferry yacht sailboat canoe kayak raft
    barge catamaran dhow junk tanker cruise submarine airplane plane aircraft jet helicopter airport runway hangar
    terminal balloon drone rocket anchor buoy
"""
_LIFE = """
    clothing uniform suit dress skirt robe kimono sari sarong hijab burqa turban headscarf scarf veil hat cap helmet
    sombrero beret fez umbrella parasol bag backpack basket jar pot bottle cup plate bowl spoon knife chopstick menu
    food bread baguette pastry cake noodle soup sushi taco burrito pizza burger sausage cheese meat seafood fruit apple
    orange lemon mango papaya pineapple watermelon melon grape pomegranate date tomato pepper chili spice wine beer sake
    tent camp campfire barbecue blanket carpet rug curtain chair table sofa bed desk shelf cabinet fireplace stove oven
    sink bathtub toilet mirror clock painting candle incense bell drum guitar flute book newspaper magazine screen
    television computer phone camera currency coin banknote ticket stamp map festival parade carnival procession
    wedding costume mask puppet dragon lantern firework ski snowboard surfboard skateboard golf tennis cricket baseball
    football soccer rugby basketball hockey net goal scoreboard stage podium cyrillic hangul hiragana katakana kanji
    hanzi arabic hebrew devanagari thai tamil bengali khmer georgian armenian greek latin
"""

GENERIC = frozenset(_GENERIC.split())
VOCABULARY = frozenset(" ".join((_NATURE, _ANIMALS, _BUILDINGS, _ROADS, _VEHICLES, _LIFE)).split()) - GENERIC
"""What counts as a thing seen."""
