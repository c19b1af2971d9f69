"""Texts, conversations and tools that several tests share."""

from __future__ import annotations

from typing import Any

MULTILINGUAL = [
    "",
    " ",
    "Mia went to the park, and Tom didn't.",
    "Où est Mia ? Elle est allée à la forêt.",
    "Die Straße ist für Fußgänger gesperrt.",
    "Kde je Mia? Šla do lesa s žlutým košíkem.",
    "Где Миа? Она пошла в парк.",
    "Πού είναι η Μία; Στο πάρκο.",
    "美雅去公园了，汤姆没有去。",
    "ミアは公園に行きました。",
    "미아는 공원에 갔어요.",
    "ذهبت ميا إلى الحديقة.",
    "מיה הלכה לפארק.",
    "मिया पार्क गई।",
    "மியா பூங்காவிற்குச் சென்றாள்.",
    "มีอาไปสวนสาธารณะ",
    "Mia công viên đã đi rồi.",
    "👩‍🚀 and 🇫🇷 and 👍🏽, then a single 🙂",
    "a\u0301 is not \u00e1, and \ufb01 is a ligature",
    "x = [i ** 2 for i in range(10)]\n\n\n    return x  # done\t\tnow\r\n",
    "1234567 + 89.01 = 1234656.01; 2⁷ ≤ 128 ∴ ½",
    "    leading, and trailing   \n  \n",
    "\x00\x01 control \x7f and \u200b zero width",
    "don't DON'T I'll we've ÉCOLE'S",
]

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "The city and country"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "integer", "default": 3},
        "places": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
}
WEATHER = {"name": "get_weather", "description": "Tells the weather.", "parameters": PARAMETERS}
NOTE = {"name": "get_place", "description": "Tells where the user is."}


def as_openai(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in the envelope that transformers takes."""
    return {"type": "function", "function": tool}


def call(name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An assistant's message that calls a tool, in transformers' form."""
    return {"role": "assistant", "tool_calls": [as_openai({"name": name, "arguments": arguments})], **more}
