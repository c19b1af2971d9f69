"""The words of the microworld: each is one token, with a leading space, and names without one too."""

PEOPLE = tuple(
    "Mia Tom Ana Leo Sam Eva Max Zoe Ben Ida Kim Ray"
    " Lily Omar Nora Hugo Mary John Anna Paul Rosa Karl Vera Finn".split()
)
PLACES = tuple(
    "park garden market school tower river forest harbor"
    " mill castle station bridge library kitchen beach museum".split()
)
THINGS = tuple(
    "book ball lamp ring cup key hat coin map bell box drum"
    " kite rope shell spoon basket mirror letter clock candle pear stone flute".split()
)
ADJECTIVES = tuple("red blue green old new small big round warm cold bright quiet heavy soft clean long".split())
JOBS = tuple("baker sailor farmer doctor painter teacher tailor singer miller guard cook hunter".split())
PETS = tuple("cat dog hen fox goat horse duck mouse".split())
ARGUMENTS = tuple(
    "size name file path line text index count data node list item state mode value width height depth rate time user"
    " host port tag code page".split()
)
FUNCTIONS = tuple("load save open move send draw find sort read mark build check".split())
EVENTS = tuple("war voyage reign feast strike drought siege journey trial storm".split())

# Three noun classes, told by the last vowel, and the particle that agrees with each.
DIALECT_NOUNS = (
    tuple("bela doma fira gosa hana jura kola lima".split()),
    tuple("beto dimo falo gero huno jelo kimo luno".split()),
    tuple("bisu dolu feru gamu hiru jolu kesu lamu".split()),
)
DIALECT_PARTICLES = ("ta", "to", "tu")
DIALECT_VERBS = tuple("marin nolin pasin radin sevin tulin".split())
DIALECT_ADJECTIVES = tuple("nib rud zek pol".split())

TWO_DIGITS = tuple(f"{number:02d}" for number in range(100))
