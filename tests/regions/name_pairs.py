"""Pairs of place names that mean the same place, and pairs that do not."""

# a | b | level | parent; a missing column is None
SAME = """
usa|united states
uk|united kingdom
sao paulo|São Paulo
munich|München
rome|Roma
new york|new york city
北京|Beijing
Москва|Moscow
U.S.A.|United States of America|country
US|Vereinigte Staaten|country
États-Unis|America|country
Estados Unidos|美国|country
アメリカ合衆国|USA|country
США|usa|country
الولايات المتحدة|United States|country
Deutschland|Germany|country
Allemagne|DEU|country
ドイツ|DE|country
Германия|Bundesrepublik Deutschland|country
Ελλάδα|Greece|country
España|Spain|country
भारत|India|country
Bharat|India|country
中国|People's Republic of China|country
日本|Nippon|country
대한민국|South Korea|country
한국|Republic of Korea|country
Korea, Republic of|South Korea|country
Korea|South Korea|country
Democratic People's Republic of Korea|North Korea|country
مصر|Egypt|country
ישראל|Israel|country
ประเทศไทย|Thailand|country
Việt Nam|Vietnam|country
საქართველო|Georgia|country
Հայաստան|Armenia|country
Česko|Czechia|country
Czech Republic|Czechia|country
Côte d'Ivoire|Ivory Coast|country
Cote d’Ivoire|CIV|country
Burma|Myanmar|country
Swaziland|Eswatini|country
Türkiye|Turkey|country
Holland|Netherlands|country
The Netherlands|Pays-Bas|country
Macedonia|North Macedonia|country
Micronesia|Federated States of Micronesia|country
Micronesia (Federated States of)|FM|country
DR Congo|Congo, Democratic Republic of the|country
Democratic Republic of the Congo|Zaire|country
Congo-Kinshasa|DRC|country
Congo|Republic of the Congo|country
Cape Verde|Cabo Verde|country
East Timor|Timor-Leste|country
Russia|Russian Federation|country
Republic of Ireland|Éire|country
The Gambia|Gambia|country
Bosnia & Herzegovina|Bosnia-Herzegovina|country
Vatican City|Holy See|country
UAE|United Arab Emirates|country
St. Lucia|Saint Lucia|country
Great Britain|United Kingdom|country
Germany (Deutschland)|Alemania|country
France, Europe|Frankreich|country
Kosovo|XK|country
Laos|Lao People's Democratic Republic|country
Magyarország|Hungary|country
Suomi|Finland|country
Hrvatska|Croatia|country
Bayern|Bavaria|state
Freistaat Bayern|Bavaria|state|Germany
NRW|Nordrhein-Westfalen|state
North Rhine-Westphalia|Nordrhein-Westfalen|state
CA|California|state|USA
US-TX|Texas|state
State of Texas|Texas|state
Texas, USA|TX|state
Washington State|Washington|state
Georgia (U.S. state)|Georgia|state|United States
NSW|New South Wales|state|Australia
BC|British Columbia|state|Canada
Québec|Quebec|state
Colombie-Britannique|British Columbia|state
Minas Gerais|State of Minas Gerais|state
SP|São Paulo|state|Brazil
Estado de São Paulo|Sao Paulo|state
Toscana|Tuscany|state
Sicilia|Sicily|state|Italy
Cataluña|Catalunya|state|Spain
Catalonia|Katalonien|state
Andalucía|Andalusia|state
Bretagne|Brittany|state|France
Kanagawa Prefecture|Kanagawa|state|Japan
Kanagawa-ken|神奈川県|state|Japan
Tokyo Metropolis|Tōkyō|state|Japan
Hokkaidō|Hokkaido Prefecture|state
广东省|Guangdong|state
Inner Mongolia|Nei Mongol|state
Orissa|Odisha|state
Karnataka State|Karnataka|state|India
Sverdlovsk|Sverdlovsk Oblast|state|Russia
Moskovskaya oblast'|Moscow Oblast|state
Gyeonggi|Gyeonggi-do|state|South Korea
Genève|Geneva|state|Switzerland
Canton of Zürich|Zurich|state
Wien|Vienna|state|Austria
Córdoba|Cordoba Province|state|Argentina
Wien|Vienna|city
Praha|Prague|city
Firenze|Florence|city
Napoli|Naples|city
Venezia|Venice|city
Köln|Cologne|city
Köln|Koeln|city
Genève|Geneva|city
Lisboa|Lisbon|city
Sevilla|Seville|city
København|Copenhagen|city
Warszawa|Warsaw|city
Αθήνα|Athens|city
İstanbul|Istanbul|city
القاهرة|Cairo|city
東京|Tokyo|city
Tokyo-to|Tokyo|city
Osaka-shi|大阪|city
大阪市|Osaka|city
上海|Shanghai|city
서울특별시|Seoul|city
Санкт-Петербург|Saint Petersburg|city
Kiev|Kyiv|city
Київ|Kyiv|city
Бухарест|Bucharest|city
Ростов-на-Дону|Rostov-on-Don|city|Russia
Túnez|Tunis|city
Bombay|Mumbai|city
Calcutta|Kolkata|city
Bangalore|Bengaluru|city
Peking|Beijing|city
Saigon|Ho Chi Minh City|city
กรุงเทพ|Bangkok|city
दिल्ली|Delhi|city
Xi'an|Xian|city
St. Louis|Saint Louis|city|USA
City of Sydney|Sydney|city
NYC|New York City|city
LA|Los Angeles|city|California
Washington, D.C.|Washington DC|city
Ciudad de México|Mexico City|city
México, D.F.|Mexico City|city
Den Haag|The Hague|city
Bruxelles|Brussels|city
Brussels/Bruxelles|Brussel|city
München (Munich)|Munich, Germany|city
Paris|Paris, France|city
Paris|Paris, Texas|city|Texas
Paris, Lamar County, Texas, USA|Paris|city|USA
Springfield, IL|Springfield|city|Illinois
Córdoba|Cordova|city|Spain
Córdoba, Argentina|cordoba|city|Argentina
London|Londres|city|UK
Athens|Athens, GA|city|Georgia, USA
Atlantis City|atlantis|city
Narnia|NARNIA
"""
DIFFERENT = """
niger|nigeria
india|indiana
oman|roman
georgia (country)|georgia (state)
Georgia (country)|Georgia, USA
Georgia (country)|Georgia, America
Paris, America|Paris, France|city
Guinea|Guinea-Bissau|country
Guinea|Equatorial Guinea|country
Guinea|Papua New Guinea|country
Guinea-Bissau|Equatorial Guinea
Congo|DR Congo
Republic of the Congo|Democratic Republic of the Congo
North Korea|South Korea
Korea|North Korea
Dominica|Dominican Republic
Ireland|Northern Ireland
Ireland|Iceland
United Kingdom|England
United Kingdom|Scotland
Austria|Australia
Slovakia|Slovenia
Iran|Iraq
Mali|Malawi
Mauritius|Mauritania
Gambia|Zambia
Sudan|South Sudan
Samoa|American Samoa
China|Taiwan
Republic of China|People's Republic of China
China|Hong Kong
USA|Puerto Rico
US|USSR
Latvia|Lithuania
Sweden|Switzerland
Paraguay|Uruguay
Mexico|New Mexico
Mexico|Mexico City|country
Jersey|New Jersey
Monaco|Morocco
Macedonia|Macedonia, Greece
Micronesia|Macronesia
Turkey|Turkmenistan
Tonga|Togo
Virgin Islands US|British Virgin Islands
France|Île-de-France
Netherlands|North Holland
Netherlands|Netherlands Antilles
South Africa|Central African Republic
Niger|Niger State|country
Luxembourg|Luxemburg, Iowa|country
Kansas|Arkansas
Kansas|Kansas City
Virginia|West Virginia
Washington State|Washington, D.C.
Washington|District of Columbia|state
North Carolina|South Carolina
New York State|New York City
Oklahoma|Oklahoma City
Quebec|Quebec City|state
Punjab, India|Punjab, Pakistan
Hunan|Henan
Shanxi|Shaanxi
Hebei|Hubei
Guangdong|Guangxi
Moscow|Moscow Oblast|state
Kyiv|Kyiv Oblast|state
Saxony|Lower Saxony
Saxony|Saxony-Anhalt
North Jeolla|South Jeolla|state
West Java|East Java
Upper Austria|Lower Austria
Mexico City|State of Mexico
Western Australia|South Australia
Paris|Paris, Texas|city
Paris|Paris, Texas|city|France
Munich|München|city|France
Cordoba, Spain|Cordoba, Argentina|city
Córdoba|Córdoba, Spain|city|Argentina
Birmingham, UK|Birmingham, Alabama|city
Cambridge, Massachusetts|Cambridge, England|city
Athens, Greece|Athens, Georgia|city
Springfield, Illinois|Springfield, Missouri|city
San José, Costa Rica|San Jose, California|city
Valencia, Spain|Valencia, Venezuela|city
Portland, Oregon|Portland, Maine|city
London|London, Ontario|city
Santiago|Santiago de Compostela|city
Newcastle upon Tyne|Newcastle, Australia|city
York|New York|city
Orleans|New Orleans|city
Delhi|New Delhi (Delhi), Nepal|city
Roman|Rome|city
Vienna|Vienne|city|France
Frankfurt (Oder)|Frankfurt am Main|city
Genoa|Goa|city
Baden-Baden|Baden|city|Switzerland
Mexico|Mexico City
Guatemala|Guatemala City
Oklahoma|Oklahoma City
Paris|London|city
Paris, London|London|city
Paris/London|Paris|city
Paris or London|Paris|city
Paris, London, Rome, Berlin, Madrid, Wien, Prag|Paris|city
Brasil|Brasília|city
Bucharest|Budapest|city
Tripoli, Libya|Tripoli, Lebanon|city
Narnia|Narnia North
Narn|Narnia
"""


def pairs_of(text: str) -> list[tuple[str, str, str | None, str | None]]:
    rows = [[*line.split("|"), "", ""] for line in text.strip().splitlines()]
    return [(row[0], row[1], row[2] or None, row[3] or None) for row in rows]
