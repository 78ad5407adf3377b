"""Captions that state some of what is true of an image, in varied phrasing.

Each caption comes with its claim (the attributes it mentions, with their values), so training can tell which other
images it is true of.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.mini.attributes import COLUMN, DIGIT_WORDS, NAMES, UNDEFINED, VALUES

FRAMES = ("a photo of {}", "a photo of {}", "a photo of {}", "an image of {}", "a picture of {}", "a drawing of {}",
            "a close-up of {}", "an icon of {}", "a sketch of {}", "this is {}", "a photo showing {}")  # fmt: skip
STYLES = 4  # a batch
QUALITY_WORDS = {
    "clear": ("clear", "sharp", "clean"), "blurry": ("blurry", "blurred"), "noisy": ("noisy",),
    "pixelated": ("pixelated", "low resolution"),
}  # fmt: skip
CASE_WORDS = {"small": ("small", "lowercase"), "capital": ("capital", "uppercase")}
FONT_WORDS = {"sans": ("sans-serif",), "serif": ("serif",), "mono": ("monospace", "typewriter")}
WARP_WORDS = {"straight": (), "wavy": ("wavy", "distorted")}
PAIR = ("relation", "other_digit", "other_shape", "other_color")


@dataclass(frozen=True)
class Style:
    """How a caption is framed. A batch uses a few styles, so captions repeat, and each is encoded only once."""

    frame: str
    kind: str  # what a digit is called
    figure: bool  # "3", not "three"
    form: str  # "the digit 3", "a digit 3", "digit 3"

    @staticmethod
    def draw(random_: random.Random) -> "Style":
        frame = random_.choice(FRAMES) if random_.random() < 0.7 else "{}"
        return Style(
            frame + ("." if random_.random() < 0.4 else ""),
            random_.choice(("digit", "digit", "number", "numeral", "", "")),
            random_.random() < 0.55,
            random_.choice(("the", "the", "a", "")),
        )


class Speaker:
    """Writes one caption about one view of an image; `claim` collects what it states."""

    def __init__(self, random_: random.Random, view: list[int], style: Style) -> None:
        self.random = random_
        self.view = view
        self.style = style
        self.claim: dict[str, int] = {}

    def has(self, name: str) -> bool:
        return self.view[COLUMN[name]] != UNDEFINED

    def say(self, name: str) -> str:
        """The value of a defined attribute, noted as mentioned."""
        value = self.view[COLUMN[name]]
        self.claim[name] = value
        return VALUES[name][value]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def maybe(self, name: str, probability: float) -> bool:
        return self.has(name) and self.chance(probability)

    def adjectives(self, rate: float) -> list[str]:
        """Some adjectives in English order; each with a probability of about `rate`."""
        words = []
        if self.maybe("size", rate):
            words.append({"small": ("small", "little", "tiny"), "large": ("large", "big")}[self.say("size")])
        if self.maybe("weight", rate * 0.6):
            words.append({"thin": ("thin", "light"), "bold": ("bold", "thick")}[self.say("weight")])
        if self.maybe("slant", rate * 0.4):
            words.append({"upright": ("upright",), "slanted": ("slanted", "italic")}[self.say("slant")])
        if self.has("warp") and self.view[COLUMN["warp"]] == 1 and self.chance(rate * 0.5):
            words.append(WARP_WORDS[self.say("warp")])
        if self.maybe("color", rate * 1.4):
            words.append((self.say("color"),))
        if self.has("texture") and self.view[COLUMN["texture"]] != 0 and self.chance(rate * 1.4):
            texture = self.say("texture")
            words.append((texture, "outlined") if texture == "hollow" else (texture,))
        if self.maybe("font", rate * 0.4):
            words.append(FONT_WORDS[self.say("font")])
        elif self.maybe("script", rate * 0.9):
            words.append((self.say("script"),))
        return [self.random.choice(w) for w in words]

    def digit_name(self, name: str = "digit") -> str:
        figure = self.say(name)
        return figure if self.style.figure else DIGIT_WORDS[int(figure)]

    def subject(self, rate: float) -> str:
        """A noun phrase for the object seen in this view."""
        generic = self.chance(0.05)  # "a handwritten digit": the identity is left out
        words = self.adjectives(max(rate, 0.4) if generic else rate)
        family = ("digit", "letter", "shape")[self.view[COLUMN["family"]]]
        if self.has("count") and self.view[COLUMN["count"]] > 0 and self.chance(0.85):
            number = self.say("count")
            number = number if self.chance(0.7) else str(self.claim["count"] + 1)
            noun = "shape" if generic else self.say("shape")
            if generic:
                self.say("family")
            return " ".join([number, *words, plural(noun)])
        if generic:
            self.say("family")
            return article(" ".join([*words, family]))
        if family == "shape":
            return article(" ".join([*words, self.say("shape")]))
        if family == "letter":
            name = self.say("letter")
            if self.maybe("case", 0.4):
                case = self.say("case")
                words.append(self.random.choice(CASE_WORDS[case]))
            kind = self.random.choice(("letter", "letter", "character"))
            body = " ".join([*words, kind, name])
            return f"the {body}" if self.chance(0.6) else article(body)
        name = self.digit_name()
        body = " ".join(w for w in (*words, self.style.kind, name) if w)
        if self.style.form == "the" and (self.style.kind or words):
            return f"the {body}"
        return article(body) if self.style.form == "a" else body

    def other(self) -> str:
        """The second object and where the first is relative to it."""
        relation = self.say("relation")
        color = self.say("other_color") + " " if self.chance(0.5) else ""
        noun = self.digit_name("other_digit") if self.has("other_digit") else self.say("other_shape")
        words = {"left of": ("to the left of", "left of"), "right of": ("to the right of", "right of"),
                 "above": ("above", "over"), "below": ("below", "under"), "on": ("on", "inside"),
                 "behind": ("behind", "around")}[relation]  # fmt: skip
        return f"{self.random.choice(words)} {article(color + noun)}"

    def caption(self) -> str:
        """One caption. Half of them mention only the object, as zero-shot templates do; the rest say more."""
        rate = self.random.choice((0.0, 0.0, 0.0, 0.3, 0.55))
        text = self.subject(rate)
        named = self.has("other_digit") or self.has("other_shape")
        if self.maybe("relation", 0.6) and named:
            text += " " + self.other()
        elif self.maybe("position", 0.35):
            text += f" in the {self.say('position')}"
        if rate and self.maybe("background", 0.25):
            ground = ""
            if self.maybe("ground", 0.4):
                ground = self.say("ground") + " "
            text += " on " + (article(f"{ground}{self.say('background')} background") if ground or self.chance(0.6)
                              else self.say("background"))  # fmt: skip
        frame = self.style.frame
        if rate and "a photo of" in frame and self.chance(0.25):
            quality = self.random.choice(QUALITY_WORDS[self.say("quality")])
            frame = frame.replace("a photo", f"a {quality} photo")
        return frame.format(text)


def article(noun: str) -> str:
    """The noun phrase with "a" or "an"; exact for the words used here, letter names and digits included."""
    first = noun.split()[0]
    spoken = first in ("8", "a", "e", "f", "h", "i", "l", "m", "n", "o", "r", "s", "x") or (
        len(first) > 1 and first[0] in "aeio") or first in ("uppercase", "upright", "up")  # fmt: skip
    return f"{'an' if spoken and first != 'one' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Plural of a shape name."""
    return noun + ("es" if noun.endswith(("s", "x", "sh")) else "s")


def describe(seed: int, views: Tensor) -> tuple[list[str], Tensor]:
    """One caption per image: texts and claims (image, attribute). views: (image, 2, attribute)."""
    random_ = random.Random(seed)
    styles = [Style.draw(random_) for _ in range(STYLES)]
    texts: list[str] = []
    claims = torch.full((views.shape[0], len(NAMES)), UNDEFINED, dtype=torch.int16)
    for i, pair in enumerate(views.tolist()):
        speaker = Speaker(random_, pair[random_.random() < 0.5], random_.choice(styles))
        texts.append(speaker.caption())
        if speaker.claim:
            values = torch.tensor(list(speaker.claim.values()), dtype=torch.int16)
            claims[i, [COLUMN[name] for name in speaker.claim]] = values
    return texts, claims
