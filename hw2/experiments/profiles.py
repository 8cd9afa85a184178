"""The profiles: numbers in which trainings of smoke and full differ.

`smoke` takes a minute and shows that everything works. `full` is delivered: days on two cores (`hw2 train --estimate`).
"""

from hw2.errors import Named
from hw2.training import Fit

_SEEDS = {
    "first": (0,),
    "walk": (0, 1, 2),
    "choices": (),  # those whose runs are there; `hw2 train pad_1 --seed 0` trains another
    "search": (0, 1, 2),
    "arms": (3, 4, 5),
    "frontier": (0, 1),
}


def _pruning(sparse: int, fine_tuning: int) -> dict:
    """The numbers of sparse learning and fine-tuning, for so many epochs each."""
    regularised = {"sparse": Fit(epochs=sparse, lr=0.03, weight_decay=0.0), "reg": 5e-3}
    return regularised | {"fit": Fit(epochs=fine_tuning, lr=0.1)}


def _tiny(epochs: int, images: int) -> dict:
    """Smoke's numbers of a compression."""
    sparse = {"sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0), "reg": 1e-2, "recalibration": images}
    return sparse | {"images": images, "fit": Fit(epochs=epochs, lr=0.05)}


#: profile -> numbers. `common` is part of every recipe. `tuning` and what rows of the catalogue name as `numbers` are
#: fields of recipes; a float is written as 1.0, or the digest is another. `seeds`: for what -> seeds.
PROFILES = Named("profile", {
    "smoke": {
        "common": {"images": 600, "validation": 300, "views": 2},
        "teacher": {"fit": Fit(epochs=1, lr=0.02)},
        "student": {"fit": Fit(epochs=2, lr=0.1)},
        "tuning": {
            "fit": Fit(epochs=1, lr=0.1), "images": 300,
            "temperatures": (2.0, 4.0), "alphas": (0.5, 0.9), "seeds": (0,),
        },
        "finalist": {"fit": Fit(epochs=1, lr=0.1)},
        "compressed": _tiny(2, 600),
        "study": {"fit": Fit(epochs=1, lr=0.1), "images": 300},
        "study pruning": _tiny(1, 300),
        "frontier": _tiny(1, 300),
        "seeds": dict.fromkeys(_SEEDS, (0,)) | {"arms": (1,)},
    },
    "full": {
        "common": {"views": 12},
        "teacher": {"stem": "stride1", "fit": Fit(epochs=20, lr=0.1, precision="bfloat16")},
        "student": {"fit": Fit(epochs=24, lr=0.2)},
        "tuning": {
            "fit": Fit(epochs=4, lr=0.2), "images": 15000, "temperatures": (1.0, 2.0, 4.0, 8.0),
            "alphas": (0.3, 0.6, 0.9, 1.0), "seeds": _SEEDS["search"],
        },
        "finalist": {"fit": Fit(epochs=8, lr=0.2)},
        "compressed": _pruning(2, 72),
        # Studies have their own lengths, at the delivered setting, on all images.
        "study": {"fit": Fit(epochs=7, lr=0.2)},
        "study pruning": _pruning(1, 14),
        "frontier": _pruning(1, 4),
        "seeds": _SEEDS,
    },
})  # fmt: skip
