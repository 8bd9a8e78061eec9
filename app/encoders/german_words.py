"""German names of kinds, colours and patterns in English: written by hand, as `word_space.tokens`
writes them, so without accents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

COLOURS = """
rot*, hellrot*, knallrot*: red
orangefarben*, orangene, orangenen, orangener, orangenes, orangenem: orange
gelb*, hellgelb*: yellow
grun*, gruen*, hellgrun*, dunkelgrun*, hellgruen*, dunkelgruen*: green
blau*, kobaltblau*, konigsblau*: blue
hellblau*, himmelblau*: light blue, sky blue
dunkelblau*, marineblau*, nachtblau*: navy, navy blue
lila, violett*, purpur*: purple
flieder, fliederfarben*, lavendel: lilac, lavender
rosa, rosafarben*, pinkfarben*: pink
braun*, dunkelbraun*, hellbraun*: brown
beig*, beigefarben*: beige
cremefarben*: cream
goldfarben*, goldene, goldenen, goldener, goldenes, goldenem: gold
weiss*: white
silber, silbern*, silberfarben*: silver
anthrazit, anthrazitfarben*: charcoal, grey
grau*, hellgrau*, dunkelgrau*: grey
schwarz*: black
petrol, petrolfarben*: teal
turkis*, tuerkis*, turkisfarben*, tuerkisfarben*: turquoise, teal
bordeaux, weinrot*, dunkelrot*, bordeauxrot*: burgundy, maroon
oliv, olivgrun*, olivgruen*: olive
"""

TABLE = """
bunt*, mehrfarbig*: multicolour, multi
gestreift*: striped
kariert*: checked
gepunktet*: dotted, polka dot
gebluemt*, geblumt*: floral, flowered
einfarbig*: plain
herren, manner, maenner: men
damen, frauen: women
kinder: kids
jungen: boys
madchen, maedchen: girls
leder: leather
holz: wood, wooden
schuh, schuhe, schuhen: shoe
turnschuh, turnschuhe, sportschuh, sportschuhe, laufschuh, laufschuhe: sneaker, sports shoe
stiefel, stiefeln, stiefelette, stiefeletten: boot
sandale, sandalen: sandal
hausschuh, hausschuhe, pantoffel, pantoffeln: slipper
halbschuh, halbschuhe: loafer, shoe
absatzschuh, absatzschuhe, stockelschuh, stockelschuhe: heels
hemd, hemden: shirt
unterhemd, unterhemden: undershirt
bluse, blusen: blouse
pullover, pulli, pullis: sweater, pullover
strickjacke, strickjacken: cardigan
jacke, jacken: jacket
lederjacke, lederjacken: leather jacket
regenjacke, regenjacken: raincoat, rain jacket
weste, westen: waistcoat, vest
anzug, anzuge, anzuege: suit
sakko, sakkos: blazer
kleid, kleider, kleidern: dress
jeanshose, jeanshosen: jeans
badehose, badehosen: swim shorts, swimming trunks
strumpfhose, strumpfhosen: tights
unterhose, unterhosen: briefs
badeanzug, badeanzuge: swimsuit
schlafanzug, schlafanzuge: pajamas, pyjamas
socke, socken, strumpf, strumpfe: sock
mutze, mutzen, muetze, muetzen: beanie, cap
handschuh, handschuhe: gloves
schal, schals, halstuch, tuch: scarf
krawatte, krawatten: tie
fliege: bow tie
gurtel, guertel: belt
regenschirm, regenschirme: umbrella
tasche, taschen: bag, handbag
handtasche, handtaschen: handbag
umhangetasche, umhangetaschen: shoulder bag
reisetasche, reisetaschen: travel bag
geldbeutel, geldborse, geldboerse, brieftasche, portemonnaie: wallet
koffer: suitcase
armbanduhr, armbanduhren, uhr, uhren: watch
wanduhr, wanduhren: clock
wecker: alarm clock, clock
ohrring, ohrringe: earring
armband, armbander, armreif, armreifen: bracelet
halskette, halsketten: necklace
sonnenbrille, sonnenbrillen: sunglasses
brille, brillen: glasses
parfum, parfuem: perfume
lippenstift, lippenstifte: lipstick
nagellack: nail polish
seife, seifen: soap
becher, kaffeebecher: mug
tassen: cup, mug
untertasse, untertassen: saucer
schussel, schusseln, schuessel, schale: bowl
weinglas, weinglaser, trinkglas, trinkglaser: glass
flasche, flaschen: bottle
krug, kruge, kanne, kannen: jug
teekanne, teekannen: teapot
wasserkocher, kessel, teekessel: kettle
pfanne, pfannen: pan
topf, topfe, toepfe, kochtopf: pot
blumentopf, blumentopfe: flowerpot, plant pot
loffel, loeffel: spoon
gabel, gabeln: fork
messer: knife
lampe, lampen, leuchte, leuchten: lamp
tischlampe, tischlampen: table lamp, lamp
stehlampe, stehlampen: floor lamp, lamp
lampenschirm, lampenschirme: lampshade
kerze, kerzen: candle
kerzenhalter, kerzenstander: candlestick, candle holder
stuhl, stuhle, stuehle: chair
sessel: armchair, chair
hocker: stool
tisch, tische: table
schreibtisch, schreibtische: desk
regal, regale: shelf, bookcase
schrank, schranke: wardrobe, cabinet
bett, betten: bed
kissen: pillow, cushion
decke, decken: blanket
teppich, teppiche: rug, carpet
vorhang, vorhange: curtain
spiegel: mirror
vasen: vase
korb, korbe, koerbe: basket
kiste, kisten: box
buch, bucher, buecher: book
stift, stifte: pen
spielzeug: toy
puppe, puppen: doll
fahrrad, fahrrader: bicycle
apfel, aepfel: apple
birne, birnen: pear
banane, bananen: banana
apfelsine, apfelsinen: oranges, orange
zitrone, zitronen: lemon
limette, limetten: lime
pfirsich, pfirsiche: peaches
pflaume, pflaumen: plum
erdbeere, erdbeeren: strawberry
himbeere, himbeeren: raspberry
traube, trauben, weintraube, weintrauben: grapes
kirsche, kirschen: cherry
wassermelone, wassermelonen: watermelon
granatapfel: pomegranate
tomate, tomaten: tomato
gurke, gurken: cucumber
kartoffel, kartoffeln: potato
karotte, karotten, mohre, mohren, moehre, moehren: carrot
zwiebel, zwiebeln: onion
knoblauch: garlic
pilz, pilze, champignon, champignons: mushroom
lauch: leek
ingwer: ginger
spargel: asparagus
auberginen: aubergine, eggplant
milch: milk
saft, safte, saefte: juice
apfelsaft: apple juice
orangensaft: orange juice
joghurt: yoghurt, yogurt
kase, kaese: cheese
brot, brote: bread
"""

ALSO_ENGLISH = """
rock, rocke, roecke: skirt
hose, hosen: trousers, pants
hut, hute, huete: hat
mantel: coat
teller, tellern: plate
tasse: cup, mug
kohl: cabbage
"""
"""Those that are other things in English."""

FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "und oder mit fur fuer aus von der die das den dem des ein eine einen einem einer eines",
    )
)
"""Words that no picture shows."""

OF_ANOTHER_KIND = frozenset(
    re.findall(
        r"\w+",
        "handschuh handschuhe badeanzug badeanzuge schlafanzug schlafanzuge granatapfel knoblauch",
    )
)
"""Compounds that are not a kind of what their last part names: a glove is no shoe."""

_ENDINGS = ("", "e", "en", "er", "es", "em")
"""Of an adjective that ends with a star."""

MIN_HEAD = 4
MIN_MODIFIER = 3
"""Letters of the second and the first part of a compound: "Sommerkleid" is a dress."""


def entries(text: str) -> dict[str, tuple[str, ...]]:
    """The English words, the most usual first, of each word of a table."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.strip().splitlines():
        names, _, english = line.partition(":")
        means = tuple(each.strip() for each in english.split(","))
        for name in (each.strip() for each in names.split(",")):
            for ending in _ENDINGS if name.endswith("*") else ("",):
                known = found.get(name.removesuffix("*") + ending, ())
                found[name.removesuffix("*") + ending] = (*known, *means)
    return found


CLEAR = entries(COLOURS + TABLE)
"""What clearly German words mean in English, by word."""

ALSO_IN_ENGLISH = entries(ALSO_ENGLISH)
"""What words mean in English that are other things there, by word."""

_UMLAUTS = {"ae": "ä", "oe": "ö", "ue": "ü"}


def _written() -> dict[str, str]:
    """Names that have an umlaut, with it, by both ways to write them without: the tables have
    both."""
    found: dict[str, str] = {}
    for name in CLEAR:
        for letters, umlaut in _UMLAUTS.items():
            plain = name.replace(letters, letters[0])
            if letters in name and CLEAR.get(plain) == CLEAR[name]:
                found[name] = found[plain] = name.replace(letters, umlaut)
    return found


_WRITTEN = _written()


def written(name: str) -> str:
    """A word of CLEAR with its umlauts, as far as the tables tell them."""
    return _WRITTEN.get(name, name)


def english(word: str) -> tuple[str, ...]:
    """What a German word means in English, the most usual first; of a compound what its last part
    means; empty for several words, and for one that is not in the tables."""
    found = CLEAR.get(word) or ALSO_IN_ENGLISH.get(word)
    if found is not None or " " in word:
        return found or ()
    return general(word)


def general(word: str) -> tuple[str, ...]:
    """What the last part of a compound means in English: "Turnschuh" is a shoe; empty for other
    words and OF_ANOTHER_KIND."""
    if word in OF_ANOTHER_KIND:
        return ()
    for start in range(MIN_MODIFIER, len(word) - MIN_HEAD + 1):
        if (head := word[start:]) in CLEAR:
            return CLEAR[head]
    return ()


def in_context(words: Sequence[str]) -> list[str]:
    """Words, of which those of ALSO_ENGLISH are in English if another is clearly German."""
    if not any(word in CLEAR or word in FUNCTION_WORDS for word in words):
        return list(words)
    return [part for word in words for part in ALSO_IN_ENGLISH.get(word, (word,))[0].split()]
