# %% [markdown]
# # 4. Summary
#
# **Question.** Is the compressed network small enough, and is it good enough?
#
# The networks side by side. Settings were chosen on the validation split; the test set was read once for each
# recipe, after the delivered run had been named, and `runs/test_ledger.csv` records it.

# %%
try:
    import hw2
except ImportError as error:
    error._render_traceback_ = lambda: ["hw2 is missing here: choose the kernel of .venv, or run `pip install -e ..`"]
    raise

# %%
from hw2 import grading, report
from hw2.experiments import store, walk
from hw2.report import write

profile = store.default_profile()
delivered = walk.deliver(profile)
report.table("results")

# %%
report.show("arms")

# %% [markdown]
# Is one network better than another? Differences in percentage points, paired by seed, with 95 % intervals that tell of
# other seeds. `only one right`: test images that only the first, and only the second network gets right, for seed 0; `p` is
# McNemar's, which tells of other images. The pruned network goes on from the distilled one and has trained for longer
# than it or the ResNet-14 alone: a lead over these may tell of that as much as of anything else. Against the last two, trained
# from random weights for as long as the whole chain, at the pruned widths and at ResNet-14's own, it has no such advantage.

# %%
report.table("pairs")

# %% [markdown]
# ## The network
#
# The delivered network in torchsummary's words. The count that torchsummary prints is checked against the parameters that
# PyTorch knows.

# %%
print(grading.summary_table(delivered.network()))

# %% [markdown]
# ## How fast
#
# What `hw2 bench` measured, on the machine that the report names; nothing is timed here, so that this notebook gives the
# same everywhere. The classmates' loop is how public answers to this assignment train: pictures one by
# one, the teacher in every step.

# %%
report.show("speed")

# %% [markdown]
# ## Demo
#
# The first test image of each class with the three likeliest classes: green is the true one. Own pictures:
# `hw2 predict IMAGE`.

# %%
report.show("demo")

# %% [markdown]
# Class by class:

# %%
report.table("classes")

# %% [markdown]
# How sure it may be believed to be, on the validation split:

# %%
report.show("reliability")

# %% [markdown]
# The ten mistakes with the lowest probability for the true class. Would you have labelled them as the data set does?

# %%
report.show("mistakes")

# %% [markdown]
# ## Grading
#
# The rubric line by line. Parameters, accuracy and submission are recomputed from weights and data now; the reading of the
# test set must agree with the ledger's.
#
# `hw2.grade(weights=..., submission=...)` grades files of your own.

# %%
print(hw2.grade())

# %% [markdown]
# ## Figures, report, submission
#
# Everything that the report shows is written here, from the runs.

# %%
folder = write.write(profile)
print(len(report.FIGURES), "figures, report.md, model_card.md and submission.csv written")
