"""What people name and say: names that can be seen, as variables of a copied cell, and words that hide nothing."""

from __future__ import annotations

import builtins
import keyword
import re
import zlib

from workbench.figures.text import visible

LONGEST = 80  # characters
EDITED = "edited"  # of the run with the interventions on
# What a copied cell names itself: a prompt's run must not take its place, nor be replaced by it.
TAKEN = frozenset(
    "wb torch experiments figures model run base vectors values layers name edit each make i layer head expert index "
    "before after compared pattern seen earlier routes statistics unchosen documents text texts domains contexts grid "
    "components direct left right movers floor groups together direction random directions steered control graph trace "
    "generated chosen atlas specialisation rows following effects".split()
) | frozenset(dir(builtins))

# Format, control, surrogate and separator characters, but for line breaks and tabs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def spelled(words: str) -> str:
    """Words with those characters by number that cannot be seen, or that turn others around."""
    if words.isascii() and words.isprintable():
        return words
    return _UNSEEN.sub(lambda found: visible(found[0]), words)


def check_name(name: str, what: str = "prompt") -> str:
    """A name as it was given, if it can be seen: it stands in lists, titles and files.

    Raises:
        ValueError: for one that is empty, long, begins or ends with a space, or holds characters that cannot be seen
            or turn others around.
    """
    if name == EDITED:
        raise ValueError(f"a {what} cannot be named {EDITED!r}, the name of the run with the interventions")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST or visible(name) != name:
        raise ValueError(
            f"a {what} cannot be named '{visible(str(name), LONGEST)}'; expected 1 to {LONGEST} visible characters, "
            "without spaces at an end or beside another"
        )
    return name


def variable(name: str) -> str:
    """A name as a variable's. Unlike names give unlike variables, and none that means something else in a cell."""
    plain = name.isascii() and name.isidentifier() and not name.startswith(("_", "prompt_"))
    if plain and not keyword.iskeyword(name) and name not in TAKEN:
        return name
    words = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    if plain:
        return f"prompt_{words}"
    return f"prompt_{words}_{zlib.crc32(name.encode('utf-8', 'surrogatepass')):08x}".replace("__", "_")
