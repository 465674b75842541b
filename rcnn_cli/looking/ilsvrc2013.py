"""The papers' numbers on ILSVRC2013 detection (R-CNN, arXiv 1311.2524v5): Tables 4 and 8 and Figure 3."""

from __future__ import annotations

from collections.abc import Iterable

TABLE_4 = (
    ("val1, fc6", 20.9, 17.7),
    ("val1+train.5k, fc6", 24.1, 21.0),
    ("val1+train1k, fc6", 24.1, 21.4),
    ("val1+train1k, FT val1, fc7", 26.5, 24.8),
    ("val1+train1k, FT val1+train1k, fc7", 29.7, 29.2),
    ("val1+train1k, FT val1+train1k, fc7, BB val1", 31.0, 29.6),
)
"""The SVMs' training set, the network's, the layer and the box regressors', with mAP and median AP on val2 in percent.
On test, of SVMs trained on val+train1k: 30.2 and 29.0; with box regressors trained on val 31.4 and 30.3."""
FIGURE_3 = (
    ("R-CNN BB", 31.4),
    ("OverFeat (2)", 24.3),
    ("UvA-Euvision", 22.6),
    ("NEC-MU", 20.9),
    ("OverFeat (1)", 19.4),
    ("Toronto A", 11.5),
    ("SYSU_Vision", 10.5),
    ("GPU_UCLA", 9.8),
    ("Delta", 6.1),
    ("UIUC-IFP", 1.0),
)
"""mAP on the test set in percent; OverFeat (2) is a result after the competition. R-CNN, both of OverFeat and NEC-MU
used data from outside: ILSVRC's classification images."""
TABLE_8: dict[str, float] = {
    "accordion": 50.8, "airplane": 50.0, "ant": 31.8, "antelope": 53.8, "apple": 30.9, "armadillo": 54.0,
    "artichoke": 45.0, "axe": 11.8, "baby bed": 42.0, "backpack": 2.8, "bagel": 37.5, "balance beam": 32.6,
    "banana": 21.9, "band aid": 17.4, "banjo": 55.3, "baseball": 41.8, "basketball": 65.3, "bathing cap": 37.2,
    "beaker": 11.3, "bear": 62.7, "bee": 52.9, "bell pepper": 38.8, "bench": 12.7, "bicycle": 41.1, "binder": 6.2,
    "bird": 70.9, "bookshelf": 19.3, "bow tie": 38.8, "bow": 9.0, "bowl": 26.7, "brassiere": 31.2, "burrito": 25.7,
    "bus": 57.5, "butterfly": 88.5, "camel": 37.6, "can opener": 28.9, "car": 44.5, "cart": 48.0, "cattle": 32.3,
    "cello": 28.9, "centipede": 30.4, "chain saw": 14.1, "chair": 19.5, "chime": 24.6, "cocktail shaker": 46.2,
    "coffee maker": 21.5, "computer keyboard": 39.6, "computer mouse": 21.2, "corkscrew": 24.2, "cream": 29.9,
    "croquet ball": 30.0, "crutch": 23.7, "cucumber": 22.8, "cup or mug": 34.0, "diaper": 10.1, "digital clock": 18.5,
    "dishwasher": 19.9, "dog": 76.8, "domestic cat": 44.1, "dragonfly": 27.8, "drum": 19.9, "dumbbell": 14.1,
    "electric fan": 35.0, "elephant": 56.4, "face powder": 22.1, "fig": 44.5, "filing cabinet": 20.6,
    "flower pot": 20.2, "flute": 4.9, "fox": 59.3, "french horn": 24.2, "frog": 64.1, "frying pan": 21.5,
    "giant panda": 42.5, "goldfish": 28.6, "golf ball": 51.3, "golfcart": 47.9, "guacamole": 32.3, "guitar": 33.1,
    "hair dryer": 13.0, "hair spray": 13.8, "hamburger": 34.2, "hammer": 9.9, "hamster": 46.0, "harmonica": 12.6,
    "harp": 50.4, "hat with a wide brim": 40.5, "head cabbage": 17.4, "helmet": 33.4, "hippopotamus": 38.0,
    "horizontal bar": 7.0, "horse": 41.7, "hotdog": 28.7, "iPod": 59.2, "isopod": 19.5, "jellyfish": 23.7,
    "koala bear": 44.3, "ladle": 3.0, "ladybug": 58.4, "lamp": 9.1, "laptop": 35.4, "lemon": 33.3, "lion": 51.3,
    "lipstick": 23.1, "lizard": 38.9, "lobster": 32.4, "maillot": 31.0, "maraca": 30.1, "microphone": 4.0,
    "microwave": 40.1, "milk can": 33.3, "miniskirt": 14.9, "monkey": 49.6, "motorcycle": 42.2, "mushroom": 31.8,
    "nail": 4.5, "neck brace": 31.6, "oboe": 27.5, "orange": 38.8, "otter": 22.2, "pencil box": 11.4,
    "pencil sharpener": 9.0, "perfume": 32.8, "person": 41.7, "piano": 20.5, "pineapple": 22.6,
    "ping-pong ball": 21.0, "pitcher": 19.2, "pizza": 43.7, "plastic bag": 6.4, "plate rack": 15.2,
    "pomegranate": 32.0, "popsicle": 21.2, "porcupine": 37.2, "power drill": 7.9, "pretzel": 24.8, "printer": 21.3,
    "puck": 14.1, "punching bag": 29.4, "purse": 8.0, "rabbit": 71.0, "racket": 16.2, "ray": 41.1, "red panda": 61.1,
    "refrigerator": 14.0, "remote control": 41.6, "rubber eraser": 2.5, "rugby ball": 34.5, "ruler": 11.5,
    "salt or pepper shaker": 24.6, "saxophone": 40.8, "scorpion": 57.3, "screwdriver": 10.6, "seal": 20.9,
    "sheep": 48.9, "ski": 9.0, "skunk": 57.9, "snail": 36.2, "snake": 33.8, "snowmobile": 58.8, "snowplow": 69.2,
    "soap dispenser": 16.8, "soccer ball": 43.7, "sofa": 16.3, "spatula": 6.8, "squirrel": 31.3, "starfish": 45.1,
    "stethoscope": 18.3, "stove": 8.1, "strainer": 9.9, "strawberry": 26.8, "stretcher": 13.2, "sunglasses": 18.8,
    "swimming trunks": 9.1, "swine": 45.3, "syringe": 5.7, "table": 21.7, "tape player": 21.4, "tennis ball": 59.1,
    "tick": 42.6, "tie": 24.6, "tiger": 61.8, "toaster": 29.2, "traffic light": 24.7, "train": 60.8, "trombone": 13.8,
    "trumpet": 14.4, "turtle": 59.1, "tv or monitor": 41.7, "unicycle": 27.2, "vacuum": 19.5, "violin": 13.7,
    "volleyball": 59.7, "waffle iron": 24.0, "washer": 39.8, "water bottle": 8.1, "watercraft": 40.9, "whale": 48.6,
    "wine bottle": 31.2, "zebra": 49.6,
}  # fmt: skip
"""R-CNN BB's AP of each class on the test set, in percent."""
PROTOCOL = (
    "R-CNN (arXiv 1311.2524v5), Table 4, mAP on val2: T-Net in Caffe, the authors' lists. FT: fine-tuned on, BB: "
    "box regressors trained on. Here: the recipe's network, lists and settings."
)


def is_ilsvrc2013(classes: Iterable[str]) -> bool:
    """Whether these are the 200 classes, whatever the case of letters and with "_" for blanks or not."""
    return {plain(name) for name in classes} == {plain(name) for name in TABLE_8}


def plain(name: str) -> str:
    """A class's name for comparisons."""
    return name.lower().replace("_", " ").replace("-", " ")


def published_aps(classes: Iterable[str]) -> dict[str, float]:
    """Table 8's AP of each class, from 0 to 1, by the names given."""
    published = {plain(name): ap / 100 for name, ap in TABLE_8.items()}
    return {name: published[plain(name)] for name in classes}
