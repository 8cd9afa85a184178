"""The profiles: numbers in which trainings of smoke and full differ.

`smoke` takes minutes on two cores and shows that everything works. `full` is delivered. `long` is
being trained, and takes the place of `full` once its runs are there.
"""

from hw2.training import Fit

SMOKE_FIT = Fit(epochs=1, lr=0.1)
SMOKE_SPARSE = {
    "sparse": Fit(epochs=1, lr=0.02, weight_decay=0.0),
    "reg": 1e-2,
    "recalibration": 300,
    "images": 300,
}
SMOKE = {
    "common": {"images": 600, "validation": 300, "pad": 0},
    "teacher": {"stem": "imagenet", "fit": Fit(epochs=1, lr=0.02)},
    "student": {"fit": Fit(epochs=2, lr=0.1)},
    "short": {"fit": SMOKE_FIT},
    "continued": {"fit": Fit(epochs=3, lr=0.05)},
    "compressed": SMOKE_SPARSE
    | {"images": 600, "recalibration": 600, "fit": Fit(epochs=2, lr=0.05)},
    "tuning": {
        "fit": SMOKE_FIT,
        "images": 300,
        "temperatures": (2.0, 4.0),
        "alphas": (0.0, 0.5, 0.9),
        "seeds": (0,),
    },
    "finalist": {"fit": SMOKE_FIT},
    "study": {"fit": SMOKE_FIT, "images": 300},
    "ablation": SMOKE_SPARSE | {"fit": Fit(epochs=1, lr=0.05)},
    "unsparse": SMOKE_SPARSE | {"sparse": Fit(epochs=0, lr=0.02), "fit": Fit(epochs=2, lr=0.05)},
    "frontier": SMOKE_SPARSE | {"fit": Fit(epochs=1, lr=0.05)},
    "seeds": {
        "first": (0,),
        "chain": (0,),
        "search": (0,),
        "studies": (1,),
        "frontier": (0,),
    },
}
STUDENT = Fit(epochs=24, lr=0.2)
SPARSE = {"sparse": Fit(epochs=2, lr=0.03, weight_decay=0.0), "reg": 5e-3}
SHORT_SPARSE = {"sparse": Fit(epochs=1, lr=0.03, weight_decay=0.0), "reg": 5e-3}
TEACHER = {"stem": "stride1", "fit": Fit(epochs=20, lr=0.1, precision="bfloat16")}
SEARCH = {
    "fit": Fit(epochs=4, lr=0.2),
    "images": 15000,
    "temperatures": (1.0, 2.0, 4.0, 8.0),
    "alphas": (0.3, 0.6, 0.9, 1.0),
    "seeds": (0, 1, 2),
}
FULL = {
    "common": {"pad": 2, "views": 12},
    "teacher": TEACHER,
    "student": {"fit": STUDENT},
    "compressed": SPARSE | {"fit": Fit(epochs=72, lr=0.1)},
    "continued": {"fit": Fit(epochs=98, lr=0.2)},
    "tuning": SEARCH,
    "finalist": {"fit": Fit(epochs=8, lr=0.2)},
    # Studies have their own lengths, at the delivered setting, on all images.
    "study": {"fit": Fit(epochs=7, lr=0.2)},
    "ablation": SHORT_SPARSE | {"fit": Fit(epochs=14, lr=0.1)},
    "unsparse": SHORT_SPARSE
    | {"sparse": Fit(epochs=0, lr=0.03, weight_decay=0.0), "fit": Fit(epochs=15, lr=0.1)},
    "frontier": SHORT_SPARSE | {"fit": Fit(epochs=4, lr=0.1)},
    "seeds": {
        "first": (0,),
        "chain": (0, 1, 2),
        "search": (0, 1, 2),
        "studies": (3, 4, 5),
        "frontier": (0, 1),
    },
}
LONG = FULL | {
    "common": {"pad": 1},
    "teacher": TEACHER | {"fit": Fit(epochs=40, lr=0.1, precision="bfloat16")},
    "student": {"fit": Fit(epochs=98, lr=0.2)},
    "short": {"fit": STUDENT},
    "continued": {"fit": Fit(epochs=74, lr=0.1)},
    "tuning": SEARCH
    | {"temperatures": (1.0, 2.0, 4.0, 8.0, 16.0), "alphas": (0.0, 0.3, 0.6, 0.9, 1.0)},
    "study": {"fit": Fit(epochs=8, lr=0.2)},
    "seeds": {
        "first": (0,),
        "chain": (10, 11, 12),
        "search": (0, 1, 2),
        "studies": (20, 21, 22, 23, 24, 25, 26, 27),
        "frontier": (10, 11, 12),
    },
}
#: profile -> numbers. `common` is part of every recipe. `tuning`, and what rows of the catalogue
#: name as `numbers`, are fields of recipes. `seeds`: what rows name as `seeds` -> seeds.
PROFILES = {"smoke": SMOKE, "full": FULL, "long": LONG}
