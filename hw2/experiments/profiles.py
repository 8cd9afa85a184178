"""The profiles: numbers in which trainings of smoke, cpu and full differ.

`smoke` takes a minute and shows that everything works. `full` takes days on two cores, minutes on an accelerator.
`cpu` is of the runs that are delivered until `full`'s are there.
"""

from hw2.errors import Named
from hw2.training import Fit

_SEEDS = {
    "first": (0,), "walk": (0, 1, 2), "scratch": (0, 1, 2), "search": (0, 1, 2), "arms": (3, 4, 5), "frontier": (0, 1)
}  # fmt: skip


def _grid(alphas: tuple[float, ...]) -> dict:
    """The search's numbers: short trainings of a part of the images."""
    grid = {"temperatures": (1.0, 2.0, 4.0, 8.0), "alphas": alphas, "seeds": _SEEDS["search"]}
    return {"fit": Fit(epochs=4, lr=0.2), "images": 15000} | grid


def _pruning(sparse: int, fine_tuning: int) -> dict:
    """The numbers of sparse learning and fine-tuning, for so many epochs each."""
    regularised = {"sparse": Fit(epochs=sparse, lr=0.03, weight_decay=0.0), "reg": 5e-3}
    return regularised | {"fit": Fit(epochs=fine_tuning, lr=0.1)}


def _tiny(epochs: int, images: int) -> dict:
    """Smoke's numbers of a compression."""
    sparse = {"sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0), "reg": 1e-2, "recalibration": images}
    return sparse | {"images": images, "fit": Fit(epochs=epochs, lr=0.05)}


#: profile -> numbers. `common` is part of every recipe. `tuning` and what rows of the catalogue name as `numbers` are
#: fields of recipes. `seeds`: for what -> seeds. `targets`: what students with a teacher learn from. `setting of
#: studies`: `best` (the search's) or `chosen` (its better finalist's).
PROFILES = Named("profile", {
    "smoke": {
        "common": {"images": 600, "validation": 300, "views": 2},
        "targets": "mean",
        "teacher": {"fit": Fit(epochs=1, lr=0.02)},
        "student": {"fit": Fit(epochs=2, lr=0.1)},
        "tuning": _grid((0.5, 0.9)) | {
            "fit": Fit(epochs=1, lr=0.1), "images": 300, "temperatures": (2.0, 4.0), "seeds": (0,),
        },
        "finalist": {"fit": Fit(epochs=1, lr=0.1)},
        "compressed": _tiny(2, 600),
        "study": {"fit": Fit(epochs=1, lr=0.1), "images": 300},
        "study pruning": _tiny(1, 300),
        "frontier": _tiny(1, 300),
        "setting of studies": "best",
        "seeds": dict.fromkeys(_SEEDS, (0,)) | {"arms": (1,)},
    },
    # Two cores and a day: the teacher gets few epochs and ends below what the student reaches alone. A short trial may
    # flatter such a teacher, which knows more than a student that has only begun: hence the finalists.
    "cpu": {
        "common": {"views": 6},
        "targets": "same view",
        "teacher": {"fit": Fit(epochs=6, lr=0.1)},
        "student": {"fit": Fit(epochs=7, lr=0.2)},
        "tuning": _grid((0.2, 0.5, 0.8, 1.0)),
        "finalist": {"fit": Fit(epochs=3, lr=0.2)},
        "compressed": _pruning(1, 24),
        "study": {"fit": Fit(epochs=4, lr=0.2), "images": 15000},
        "study pruning": {"images": 15000} | _pruning(2, 4),
        "frontier": {"images": 15000} | _pruning(2, 4),
        "setting of studies": "best",
        "seeds": _SEEDS | {"scratch": (0,)},
    },
    "full": {
        "common": {"views": 12},
        "targets": "mean",
        "teacher": {"stem": "stride1", "fit": Fit(epochs=20, lr=0.1, precision="bfloat16")},
        "student": {"fit": Fit(epochs=24, lr=0.2)},
        "tuning": _grid((0.3, 0.6, 0.9, 1.0)),
        "finalist": {"fit": Fit(epochs=8, lr=0.2)},
        "compressed": _pruning(2, 72),
        # Studies have their own lengths, at the delivered setting, on all images.
        "study": {"fit": Fit(epochs=7, lr=0.2)},
        "study pruning": _pruning(1, 14),
        "frontier": _pruning(1, 4),
        "setting of studies": "chosen",
        "seeds": _SEEDS,
    },
})  # fmt: skip
