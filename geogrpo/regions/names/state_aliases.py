"""First-level divisions by hand: GeoNames' names that ISO 3166-2 does not have in any language, and common ones."""

# "code: names", one division a line.
_STATES = """
AR-C: Buenos Aires F.D.; Autonomous City of Buenos Aires; CABA; Capital Federal
AT-3: Lower Austria
AT-4: Upper Austria
AT-2: Carinthia
AT-6: Styria
AT-7: Tyrol
AT-9: Vienna
BA-BIH: Federation of B&H; Federation of Bosnia and Herzegovina
BA-SRP: Srpska; Republika Srpska
BE-VLG: Flanders; Vlaanderen; Flandre
BE-WAL: Wallonia; Wallonie
BE-BRU: Brussels Capital; Brussels; Bruxelles; Brussel; Brussels Capital Region
BG-22: Sofia-Capital; Sofia City
BR-DF: Federal District; Distrito Federal
BY-HM: Minsk City; City of Minsk
BY-MI: Minsk; Minsk Region; Minsk Oblast
BY-HO: Gomel Oblast; Gomel
BY-MA: Mogilev; Mogilev Oblast
BY-HR: Grodnenskaya; Grodno; Grodno Oblast
BY-BR: Brest; Brest Oblast
CD-KE: East Kasai
CD-BC: Bas-Congo; Kongo Central
CD-SK: South Kivu
CD-NK: North Kivu
CH-GE: Geneva
CH-ZH: Zurich
CH-LU: Lucerne
CL-RM: Santiago Metropolitan; Santiago Metropolitan Region
CN-NM: Inner Mongolia; 内蒙古; 內蒙古
CN-XZ: Tibet; Xizang; 西藏
CN-XJ: Xinjiang; Sinkiang; 新疆
CN-SN: Shaanxi; 陕西; 陝西
CN-SX: Shanxi; 山西
CN-GX: Guangxi; 广西
CN-NX: Ningxia; 宁夏
CN-HI: Hainan; 海南
CO-DC: Bogota D.C.; Bogota
CZ-10: Prague; Praha
CZ-20: Central Bohemia
CZ-64: South Moravian; South Moravia
DE-BY: Bavaria; Free State of Bavaria
DE-HB: City state Bremen; Bremen
DE-HE: Hesse; Hessia
DE-NI: Lower Saxony
DE-NW: North Rhine-Westphalia; NRW; North Rhine Westphalia
DE-RP: Rhineland-Palatinate; Rheinland-Pfalz
DE-SN: Saxony
DE-ST: Saxony-Anhalt
DE-TH: Thuringia
DE-BE: Berlin; State of Berlin
DE-BW: Baden-Wurttemberg; Baden-Wuerttemberg
DE-MV: Mecklenburg-Western Pomerania; Mecklenburg-Vorpommern
DK-84: Capital Region; Capital Region of Denmark
DK-82: Central Jutland; Central Denmark Region
DK-83: South Denmark; Region of Southern Denmark
DK-85: Zealand; Region Zealand
DK-81: North Denmark; North Denmark Region
DO-01: Nacional; Distrito Nacional
ES-AN: Andalusia; Andalucia
ES-CL: Castille and Leon; Castile and Leon; Castilla y Leon
ES-CM: Castille-La Mancha; Castile-La Mancha; Castilla-La Mancha
ES-CN: Canary Islands; Canaries
ES-CT: Catalonia; Cataluna; Catalunya; Catalogne; Katalonien; Catalogna
ES-IB: Balearic Islands; Balearics; Islas Baleares
ES-PV: Basque Country; Pais Vasco; Euskadi
ES-MD: Madrid; Community of Madrid
ES-NC: Navarre; Navarra
ES-AR: Aragon
ES-AS: Asturias
ES-MC: Murcia; Region of Murcia
ES-VC: Valencia; Valencian Community; Comunidad Valenciana
ET-OR: Oromiya; Oromia
FR-BRE: Brittany; Bretagne
FR-NOR: Normandy; Normandie
FR-CVL: Centre; Centre-Val de Loire
FR-20R: Corsica; Corse
FR-IDF: Ile-de-France; Paris Region
FR-PAC: PACA; Provence-Alpes-Cote d'Azur
GB-ENG: England
GB-SCT: Scotland
GB-WLS: Wales; Cymru
GB-NIR: Northern Ireland; Ulster
GR-A: East Macedonia and Thrace
GR-B: Central Macedonia
GR-E: Thessaly
GR-G: West Greece; Western Greece
GR-H: Central Greece
GR-I: Attica
GR-J: Peloponnese
GR-M: Crete
GR-L: South Aegean
GR-K: North Aegean
GR-D: Epirus
GR-F: Ionian Islands
GR-C: West Macedonia; Western Macedonia
HR-17: Split-Dalmatia
HR-21: Zagreb; City of Zagreb
HR-01: Zagreb County
ID-JI: East Java; Jawa Timur
ID-JT: Central Java; Jawa Tengah
ID-JB: West Java; Jawa Barat
ID-JK: Jakarta; Special Capital Region of Jakarta
ID-YO: Yogyakarta; Special Region of Yogyakarta; Jogja
ID-SU: North Sumatra
ID-SS: South Sumatra
ID-SB: West Sumatra
ID-SN: South Sulawesi
ID-SA: North Sulawesi
ID-ST: Central Sulawesi
ID-SG: Southeast Sulawesi
ID-SR: West Sulawesi
ID-KI: East Kalimantan
ID-KS: South Kalimantan
ID-KT: Central Kalimantan
ID-KB: West Kalimantan
ID-KU: North Kalimantan
ID-NT: East Nusa Tenggara
ID-NB: West Nusa Tenggara
ID-BB: Bangka-Belitung Islands; Bangka Belitung
ID-MU: North Maluku
ID-KR: Riau Islands
IL-M: Central District
IL-JM: Jerusalem; Jerusalem District
IL-Z: Northern District
IL-D: Southern District
IL-HA: Haifa
IL-TA: Tel Aviv
IN-OD: Odisha; Orissa
IN-UK: Uttarakhand; Uttaranchal
IN-LD: Lakshadweep; Laccadives
IN-PY: Puducherry; Pondicherry
IN-DL: Delhi; NCT of Delhi; National Capital Territory of Delhi
IQ-NI: Nineveh; Ninawa
IQ-SU: Sulaymaniyah
IR-03: East Azerbaijan
IR-04: West Azerbaijan
IR-11: Sistan and Baluchestan
IR-28: North Khorasan
IR-09: Razavi Khorasan
IT-82: Sicily; Sicilia
IT-52: Tuscany; Toscana
IT-57: The Marches; Marche
IT-21: Piedmont; Piemonte
IT-25: Lombardy; Lombardia
IT-62: Lazio; Latium
IT-75: Apulia; Puglia
IT-88: Sardinia; Sardegna
IT-23: Aosta Valley; Valle d'Aosta
IT-32: Trentino-South Tyrol; Trentino-Alto Adige
KP-01: Pyongyang
KP-02: South Pyongan
KP-03: P'yongan-bukto; North Pyongan
KP-05: South Hwanghae
KP-06: North Hwanghae
KP-08: South Hamgyong
KP-09: North Hamgyong
KP-10: Yanggang-do; Ryanggang
KG-GB: Bishkek
KR-11: Seoul
KR-43: North Chungcheong; Chungcheongbuk-do
KR-44: South Chungcheong; Chungcheongnam-do
KR-45: North Jeolla; Jeollabuk-do
KR-46: South Jeolla; Jeollanam-do
KR-47: North Gyeongsang; Gyeongsangbuk-do
KR-48: South Gyeongsang; Gyeongsangnam-do
KR-49: Jeju; Jeju-do; Jeju Island
KZ-75: Almaty; Almaty City
KZ-19: Almaty Oblysy; Almaty Region
KZ-35: Karaganda
KZ-15: Aktyubinskaya Oblast; Aktobe
KZ-23: Atyrau Oblisi; Atyrau
KZ-63: East Kazakhstan
KZ-10: Abai Region
KZ-33: Jetisu Region
LB-BA: Beyrouth; Beirut
LB-JA: South Governorate
LV-041: Jelgava Municipality
LV-077: Rezekne Municipality
LV-106: Ventspils Municipality
LV-JEL: Jelgava
LV-REZ: Rezekne
LV-VEN: Ventspils
MA-07: Marrakesh-Safi
MX-CMX: Mexico City; Ciudad de Mexico; CDMX; Distrito Federal
MX-MEX: Mexico; State of Mexico; Estado de Mexico; Edomex
MY-14: Kuala Lumpur
MZ-MPM: Maputo City
MZ-L: Maputo Province
NG-FC: FCT; Federal Capital Territory; Abuja
NL-ZH: South Holland
NL-NH: North Holland
NL-NB: North Brabant
NL-FR: Friesland; Fryslan
PA-8: Panama
PE-LIM: Lima region
PE-LMA: Lima Province
PH-00: Metro Manila; National Capital Region; NCR
PH-01: Ilocos; Ilocos Region
PH-02: Cagayan Valley
PH-03: Central Luzon
PH-40: Calabarzon
PH-41: Mimaropa
PH-05: Bicol Region; Bicol
PH-06: Western Visayas
PH-07: Central Visayas
PH-08: Eastern Visayas
PH-09: Zamboanga Peninsula
PH-10: Northern Mindanao
PH-11: Davao Region
PH-12: Soccsksargen
PH-13: Caraga
PH-14: Autonomous Region in Muslim Mindanao; Bangsamoro
PH-15: Cordillera; Cordillera Administrative Region
PL-24: Silesia; Slask
PL-02: Lower Silesia
PL-12: Lesser Poland
PL-30: Greater Poland
PL-14: Mazovia; Masovia; Mazowsze
PL-32: West Pomerania
PL-22: Pomerania
PL-18: Subcarpathia
PL-28: Warmia-Masuria
PL-20: Podlasie
PT-11: Lisbon; Lisboa
PT-20: Azores
QA-DA: Baladiyat ad Dawhah; Doha
QA-RA: Baladiyat ar Rayyan
RU-MOW: Moscow; Moskva
RU-MOS: Moscow Oblast
RU-SPE: St.-Petersburg; Saint Petersburg; St Petersburg
RU-LEN: Leningradskaya Oblast; Leningrad Oblast
RU-SVE: Sverdlovsk Oblast
RU-ROS: Rostov; Rostov Oblast
RU-CHE: Chelyabinsk; Chelyabinsk Oblast
RU-SAM: Samara Oblast
RU-NIZ: Nizhny Novgorod Oblast
RU-KEM: Kuzbass; Kemerovo Oblast
RU-NVS: Novosibirsk Oblast
RU-STA: Stavropol Kray; Stavropol Krai
RU-IRK: Irkutsk Oblast
RU-VGG: Volgograd Oblast
RU-SAR: Saratov Oblast
RU-VOR: Voronezh Oblast
RU-KHA: Khabarovsk; Khabarovsk Krai
RU-PRI: Primorye; Primorsky Krai; Maritime Territory
RU-KDA: Krasnodar Krai
RU-KYA: Krasnoyarsk Krai; Krasnoyarskiy
RU-PER: Perm Krai
RU-ALT: Altai Krai
RU-AL: Altai Republic
RU-KAM: Kamchatka; Kamchatka Krai
RU-ORE: Orenburg Oblast
RU-OMS: Omsk Oblast
RU-KHM: Khanty-Mansia; Khanty-Mansi Autonomous Okrug
RU-TUL: Tula Oblast
RU-VLA: Vladimir Oblast
RU-TYU: Tyumen Oblast
RU-UD: Udmurtiya Republic; Udmurtia
RU-YAR: Yaroslavl Oblast
RU-KIR: Kirov Oblast
RU-TVE: Tver Oblast
RU-PNZ: Penza Oblast
RU-BEL: Belgorod Oblast
RU-ULY: Ulyanovsk; Ulyanovsk Oblast
RU-BRY: Bryansk Oblast
RU-VLG: Vologda Oblast
RU-CE: Chechnya; Chechen Republic
RU-TOM: Tomsk Oblast
RU-IVA: Ivanovo Oblast
RU-CU: Chuvash Republic; Chuvashia
RU-RYA: Ryazan Oblast
RU-LIP: Lipetsk Oblast
RU-ZAB: Zabaykalskiy (Transbaikal) Kray; Zabaykalsky Krai; Transbaikal
RU-KGD: Kaliningrad Oblast
RU-AST: Astrakhan Oblast
RU-KRS: Kursk Oblast
RU-MUR: Murmansk; Murmansk Oblast
RU-SMO: Smolensk Oblast
RU-KB: Kabardino-Balkariya Republic; Kabardino-Balkaria
RU-TAM: Tambov Oblast
RU-SA: Sakha; Yakutia; Sakha Republic
RU-AMU: Amur Oblast
RU-KGN: Kurgan Oblast
RU-KR: Karelia; Republic of Karelia
RU-SE: North Ossetia-Alania; North Ossetia
RU-KOS: Kostroma Oblast
RU-ORL: Oryol oblast
RU-PSK: Pskov Oblast
RU-NGR: Novgorod Oblast
RU-SAK: Sakhalin Oblast; Sakhalin
RU-YAN: Yamalo-Nenets
RU-NEN: Nenets
RU-KC: Karachayevo-Cherkesiya Republic; Karachay-Cherkessia
RU-TA: Tatarstan Republic; Tatarstan
RU-BA: Bashkortostan Republic; Bashkortostan; Bashkiria
RU-KLU: Kaluga Oblast
RU-ARK: Arkhangelskaya; Arkhangelsk Oblast
RU-BU: Buryatiya Republic; Buryatia
RU-MO: Mordoviya Republic; Mordovia
RU-IN: Ingushetiya Republic; Ingushetia
RU-ME: Mariy-El Republic; Mari El
RU-KK: Khakasiya Republic; Khakassia
RU-AD: Adygeya Republic; Adygea
RU-TY: Republic of Tyva; Tuva
RU-KL: Kalmykiya Republic; Kalmykia
RU-MAG: Magadan Oblast
RU-CHU: Chukotka
RU-YEV: Jewish Autonomous Oblast
SA-01: Riyadh Region; Riyadh
SA-02: Mecca Region; Makkah
SA-03: Medina Region; Madinah
SA-04: Eastern Province
TD-ND: N'Djamena
TM-S: Ashgabat
TN-11: Tunis
TR-34: Istanbul
TW-KHH: Takao; Kaohsiung
UA-30: Kyiv City; Kyiv; City of Kyiv
UA-32: Kiev; Kyiv Oblast; Kiev Oblast
UA-40: Sevastopol City; Sevastopol
UA-43: Crimea
UA-09: Luhansk
UA-48: Mykolaiv
UA-77: Chernivtsi
UA-05: Vinnytsia
UA-71: Cherkasy
UA-68: Khmelnytskyi
UA-59: Sumy
UA-18: Zhytomyr
UA-21: Transcarpathia; Zakarpattia
UA-07: Volyn
UA-51: Odessa; Odesa
UA-63: Kharkiv; Kharkov
UA-46: Lviv; Lvov
US-DC: Washington DC; Washington D.C.; D.C.
UZ-QR: Karakalpakstan
UZ-TK: Tashkent; Tashkent City
UZ-TO: Tashkent Region
VE-A: Distrito Federal; Capital District; Caracas
VN-SG: Ho Chi Minh City; Saigon
VN-HN: Hanoi
YE-SA: Amanat Alasimah
ZA-KZN: KwaZulu-Natal; KZN
ZA-WC: Western Cape
ZA-EC: Eastern Cape
"""

STATE_ALIASES = dict(line.split(": ", 1) for line in _STATES.strip().splitlines())
"""ISO 3166-2 code to names, "; " between them; the first of a code is how GeoNames writes it where that differs."""
