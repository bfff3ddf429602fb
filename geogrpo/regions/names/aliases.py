"""Countries and cities by hand: common names that no source has.

Decisions: England, Scotland, Wales and Northern Ireland are parts of the United Kingdom, so states, and none of them is
it. Holland is the Netherlands, Britain and Great Britain are the United Kingdom, America is the United States, plain
Korea is South Korea, plain Congo the one of Brazzaville and Ireland the republic: so the words are used. A name that a
country has given up counts where atlases, photographs and older texts still have it (Burma, Swaziland, Zaire).
Territories with a code of their own (Puerto Rico, Hong Kong, Greenland) are not the state they belong to.
"""

COUNTRY_ALIASES = {
    "BA": "Bosnia; Bosnia Herzegovina; BiH",
    "BS": "Bahamas; Commonwealth of the Bahamas",
    "CD": "DRC; DR Congo; D.R. Congo; Congo DR; Congo DRC; Dem. Rep. Congo; Dem Rep of Congo; Congo Kinshasa; Zaire; "
    "RDC; Democratic Republic of Congo; Democratic Republic of the Congo; Congo, Democratic Republic; "
    "Congo, Democratic Republic of the",
    "CG": "Congo; Congo Brazzaville; Republic of Congo; Republic of the Congo; Congo Republic; Congo, Republic of the",
    "CI": "Ivory Coast; Cote d Ivoire; Republic of Ivory Coast",
    "CN": "China; PRC; P.R. China; PR China; Mainland China; People's Republic of China",
    "CV": "Cape Verde; Cabo Verde",
    "CZ": "Czech Republic; Czechia; Czech",
    "DO": "Dominican Republic; Dominican Rep; Dominican Rep.",
    "FK": "Falklands; Malvinas",
    "FM": "Micronesia; Federated States of Micronesia; FSM",
    "GB": "UK; Britain; Great Britain; G.B.; United Kingdom of Great Britain",
    "GE": "Georgia; Sakartvelo",
    "GM": "Gambia; The Gambia",
    "GN": "Guinea; Guinea Conakry; Guinee Conakry; Republic of Guinea",
    "HK": "Hong Kong; Hongkong; Hong Kong SAR",
    "IE": "Ireland; Eire; Republic of Ireland; Irish Republic; ROI",
    "IR": "Iran; Islamic Republic of Iran",
    "JP": "Nippon; Nihon",
    "KG": "Kyrgyzstan; Kirghizia; Kyrgyz Republic",
    "KN": "St Kitts; Saint Kitts; Saint Kitts and Nevis",
    "KP": "North Korea; DPRK; N. Korea; Korea North; Democratic People's Republic of Korea",
    "KR": "South Korea; Korea; ROK; S. Korea; Korea South; 한국; Republic of Korea",
    "LA": "Laos; Lao; Lao PDR",
    "LY": "Libya; Libyan Arab Jamahiriya",
    "MD": "Moldova; Republic of Moldova",
    "MK": "Macedonia; FYROM; FYR Macedonia; Former Yugoslav Republic of Macedonia; North Macedonia",
    "MM": "Burma; Myanmar; Myanmar Burma",
    "MO": "Macau; Macao; Macau SAR",
    "NL": "Holland; Netherlands; The Netherlands",
    "PS": "Palestine; Palestinian Territories; State of Palestine; Palestinian Territory; "
    "Occupied Palestinian Territory",
    "RU": "Russia; Russian Federation",
    "ST": "Sao Tome",
    "SY": "Syria; Syrian Arab Republic",
    "SZ": "Swaziland; Eswatini; eSwatini; Kingdom of Eswatini",
    "TH": "ประเทศไทย; Siam",
    "TL": "East Timor; Timor Leste; Timor",
    "TR": "Turkey; Türkiye; Turkiye; Republic of Turkey; Republic of Türkiye",
    "TT": "Trinidad; Trinidad and Tobago",
    "TW": "Taiwan; Republic of China; Chinese Taipei; Taiwan ROC",
    "TZ": "Tanzania; United Republic of Tanzania",
    "AE": "UAE; Emirates; United Arab Emirates",
    "AG": "Antigua; Antigua and Barbuda",
    "US": "USA; US; America; United States; United States of America; U.S. of A.; The States",
    "VA": "Vatican; Vatican City; Holy See; Vatican City State",
    "VC": "St Vincent; Saint Vincent; Saint Vincent and the Grenadines",
    "VG": "British Virgin Islands; BVI",
    "VI": "US Virgin Islands; USVI; U.S. Virgin Islands; Virgin Islands US",
    "VN": "Vietnam; Viet Nam",
    "WS": "Samoa; Western Samoa",
    "AS": "American Samoa",
    "XK": "Kosovo; Republic of Kosovo; XKX; XK",
}
"""ISO 3166-1 alpha-2 (XK: Kosovo) to names, "; " between them. These win over every source."""

CITY_ALIASES = {
    ("US", "new york city"): "NYC; New York; City of New York; Big Apple",
    ("US", "los angeles"): "LA; L.A.",
    ("US", "san francisco"): "SF; San Fran; Frisco",
    ("US", "washington"): "DC; D.C.; Washington DC; Washington City",
    ("US", "philadelphia"): "Philly",
    ("US", "new orleans"): "NOLA",
    ("US", "las vegas"): "Vegas",
    ("MY", "kuala lumpur"): "KL",
    ("VN", "ho chi minh city"): "HCMC; Saigon",
    ("MX", "mexico city"): "CDMX; Mexico D.F.; Ciudad de Mexico",
    ("BR", "rio de janeiro"): "Rio",
    ("ZA", "johannesburg"): "Joburg",
    ("AE", "abu dhabi"): "Abu Dhabi City",
}
"""(country, key of the city's own name) to names; the most populous such city is meant."""
