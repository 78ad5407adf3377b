"""The kinds of image and how often each is made."""

# Share of each kind of image. "general" has little handwriting, so real handwriting is a distribution shift, as users'
# images are for a pretrained model; "handwriting" is the mix that reads handwritten digits best.
MIXES = {
    "general": {
        "written digit": 0.08, "printed digit": 0.26, "written letter": 0.08, "printed letter": 0.14, "shape": 0.16,
        "count": 0.08, "pair": 0.12, "sign": 0.08,
    },
    "handwriting": {
        "written digit": 0.34, "printed digit": 0.14, "written letter": 0.04, "printed letter": 0.06, "shape": 0.12,
        "count": 0.10, "pair": 0.12, "sign": 0.08,
    },
}  # fmt: skip
# Share of handwritten characters in pairs and on signs.
WRITTEN_ELSEWHERE = {"general": 0.15, "handwriting": 0.5}
KIND = {name: i for i, name in enumerate(MIXES["general"])}
MAX_OBJECTS = 6
