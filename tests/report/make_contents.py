"""Contents of a report of any size, with names that try to break out of the page."""

from __future__ import annotations

import base64
import io
import random
from itertools import product

from PIL import Image

from residualign.report.contents import (
    MEASURES,
    ChangedImage,
    ComponentLine,
    End,
    Fact,
    MethodLine,
    MovedLine,
    ReportContents,
    UnitLine,
)

ATTACK = '</script><script>window.attacked = true</script><img src=x onerror="window.attacked = true">\'"&'
"""In a class name, a key, a text: nothing of it may run."""


def make_contents(
    n_layers: int = 5,
    n_heads: int = 3,
    n_components: int = 7,
    n_pictures: int = 11,
    picture_side: int = 24,
    mlp_components: int = 4,
) -> ReportContents:
    random_ = random.Random(7)
    pictures = {f"{i:016x}.jpg": _picture(random_, picture_side) for i in range(n_pictures)}
    names = tuple(pictures)

    def end(seed: int) -> End:
        texts = (f"striped fabric {seed}", ATTACK, "a photo of a red circle")
        return End(texts, tuple(names[(seed + k) % len(names)] for k in range(3)))

    def measures() -> dict[str, float | None]:
        values = {
            "ratio": lambda: 2 ** random_.uniform(-3, 3),
            "share": random_.random,
            "number": lambda: 40 * random_.random(),
        }
        return {measure.name: values[measure.scale]() for measure in MEASURES}

    units = [UnitLine("embedding", "embedding", None, None, {}, None, (), ())]
    for layer in range(n_layers):
        mlp = tuple(ComponentLine(k, 0.9**k, random_.gauss(1, 0.5)) for k in range(mlp_components))
        units.append(UnitLine(f"L{layer}.mlp", "mlp", layer, None, measures() | {"two_nn": None}, None, (), mlp))
    for layer in range(n_layers):
        for head in range(n_heads):
            components = tuple(
                ComponentLine(
                    k, 0.5**k, random_.gauss(1, 0.5), end(k) if k < 3 else None, end(k + 1) if k < 3 else None
                )
                for k in range(n_components)
            )
            label = f"L{layer}.H{head}"
            texts = (f"words of {label}", ATTACK)
            units.append(UnitLine(label, "head", layer, head, measures(), (3.1, 4.7), texts, components))
    classes = ("apple", ATTACK, "a class with a long name, commas and \u2028 more", "pear", "plum")
    before = {pair: random_.randrange(20) for pair in product(classes, repeat=2)}
    after = {(true, guess): random_.randrange(20) + 30 * (true == guess) for true, guess in before}
    return ReportContents(
        title=f"mini on {ATTACK}",
        model="mini",
        data=f"data {ATTACK}",
        method="residual",
        scales_of="residual",
        scale_free=False,
        rest="keep",
        components_of="8192 generated images (comes with the model)",
        n_test=359,
        before_is="zero-shot: class vectors from text",
        methods=(
            MethodLine("zero-shot", "before", 0.791, (0.746, 0.830), None, None),
            MethodLine("residual", "method", 0.969, (0.946, 0.983), 1992, 1.7, 0.989, is_chosen=True),
            MethodLine("coarse", "method", 0.772, (0.726, 0.812), 36, 1.2, 0.8),
            MethodLine("linear probe", "probe", 0.958, (0.932, 0.974), 1290, None, 0.983),
        ),
        n_layers=n_layers,
        n_heads=n_heads,
        units=tuple(units),
        profiles=[
            {"kind": kind, "quantity": name, "layer": layer,
             "mean": (5.0 + layer) / size, "mean_low": (4.5 + layer) / size, "mean_high": (5.5 + layer) / size}
            for kind in ("head", "mlp")
            for name, size in (("linear_dimension", 1), ("two_nn", 1), ("ratio", 1), ("evr_first", 10 + n_layers))
            for layer in range(n_layers)
        ],
        moved=(
            MovedLine(f"L{n_layers - 1}.H0", 0, 2.31, 0.42, ("a digit", ATTACK)),
            MovedLine("L0.mlp", None, 0.11, 0.2, ("", "")),
        ),
        put_back=[
            {"order": order, "seed": seed, "put_back": count, "accuracy": 0.97 - 0.02 * count}
            for order, seed in (("largest", None), ("smallest", None), ("random", 0))
            for count in range(7)
        ],
        curve=[
            {"solver": "lbfgs", "candidate": run, "step_name": "iteration", "step": float(step), "train_loss": 0.4,
             "val_loss": 0.5, "val_accuracy": 0.8 + 0.02 * step, "seconds": 0.1}
            for run in ("a", ATTACK)
            for step in range(1, 6)
        ],
        class_names=classes,
        confusion=[
            {"true": true, "predicted": guess, "before": n, "after": after[true, guess]}
            for (true, guess), n in before.items()
            if n or after[true, guess]
        ],
        n_changed=64,
        changed=tuple(
            ChangedImage(
                key,
                picture,
                label,
                before,
                after,
                probability,
                change,
                (("L0.H1", 1.5), ("L1.mlp", -0.25), ("rest", 0.1)),
            )
            for key, picture, label, before, after, probability, change in (
                (f"test/{ATTACK}.png", names[0], "apple", "pear", "apple", 0.97, 2.5),
                ("test/2.png", names[1], ATTACK, ATTACK, "plum", 0.99, 10.5),
                ("test/3.png", None, "apple", "plum", "pear", 0.98, 9.25),
                ("test/4.png", names[2], "plum", "pear", "plum", 0.6, 3.5),
            )
        ),
        made=(Fact("command", f"residualign adapt mini '{ATTACK}'"), Fact("seed", "0")),
        findings=("Accuracy rose from 79.1 % to 96.9 %.", ATTACK),
        notes=(ATTACK,),
        pictures=pictures,
    )  # fmt: skip


def _picture(random_: random.Random, side: int) -> str:
    image = Image.new("RGB", (side, side))
    image.putdata(
        [(random_.randrange(256), random_.randrange(256), random_.randrange(256)) for _ in range(side * side)]
    )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()
