# %% [markdown]
# # 2. Distillation
#
# **Question.** Does a small network learn more from the teacher's soft targets than from the labels alone, and at which
# temperature and weight?
#
# The student is the ResNet-14 of the report. Its loss is that of Hinton, Vinyals and Dean (2015):
#
# $$L = (1 - \alpha)\,\mathrm{CE}(z_s, y) + \alpha\,T^2\,\mathrm{KL}(\mathrm{softmax}(z_t / T)\,\|\,\mathrm{softmax}(z_s / T))$$
#
# with the divergence summed over classes and averaged over the batch. The soft targets are the teacher's answers to exactly
# the augmented image that the student sees; notebook 1 shows some of them as pictures.

# %%
from hw2 import comparisons, measures, networks, plots, stages

teacher = stages.teacher()
print(f"student: ResNet-14, {networks.count_parameters(networks.ResNet14()):,} parameters")
print(f"teacher: ResNet-50, {teacher.metrics['parameters']:,} parameters, validation {teacher.val_accuracy:.2%}")

# %% [markdown]
# A student of this size, trained for some epochs with augmentation, does better than 92 % on its own. Keep that in mind: a
# teacher can be larger than its student and know less.
#
# ## Temperature and weight
#
# Every temperature is tried with every alpha and every seed, on Optuna, and judged on the validation split. At alpha = 1 the
# labels are not used at all.

# %%
trials = stages.tuned()
print(f"{len(trials)} trials: {trials.epochs[0]} epochs of {trials.images[0]:,} images each")

# %%
plots.show("tuning")

# %%
total = teacher.metrics["val_total"]
spread = trials.groupby(["T", "alpha"]).val_correct.std() / total
print(f"standard deviation between seeds, mean over settings: {100 * spread.mean():.2f} points")
print(f"standard error of one accuracy near 90 %, {total:,} images: {100 * (0.9 * 0.1 / total) ** 0.5:.2f} points")

# %% [markdown]
# Compare these two numbers before reading a ranking into the map: cells that differ by less cannot be told apart. What
# stands out is the corner of high temperature and high weight, where the student has little else than a blurred teacher to
# learn from.
#
# ## Does the ranking hold?
#
# A short trial flatters a weak teacher, which knows more than a student that has only begun. So two finalists are trained
# longer, on all images: the map's best setting, and the best one of the smallest weight, where such a teacher does the least
# harm. The better of the two is used from here on.

# %%
plots.show("finalists")

# %%
comparisons.finalist_table().set_index("setting")

# %%
finalists = stages.finalists()
first, second = ([100 * run.val_accuracy for run in group] for group in finalists.values())
mean, low, high = measures.paired(first, second)
print(f"first minus second: {mean:+.2f} points" + ("" if low is None else f", 95 % interval {low:+.2f} to {high:+.2f}"))
print("chosen: T = {:g}, alpha = {:g}".format(*stages.chosen()))

# %% [markdown]
# ## Controls
#
# What does the teacher add, and does the loss have to be just so? Each arm has the budget, views and seeds of a trial, and
# differs from vanilla KD at the map's best setting in one thing:

# %%
comparisons.arm_table().set_index("arm")

# %%
plots.show("arm_differences")

# %% [markdown]
# Circles are seeds, the line is the 95 % interval of the mean difference, from pairs of the same seed. An interval that
# holds zero says that the arm cannot be told from vanilla KD with so few seeds, not that both are equal. The two losses
# that claim to improve on vanilla KD, decoupled KD and standardised logits, are there to be compared: vanilla KD stays the
# method of the report, whatever they do here.
#
# The last arm asks whether the teacher is to blame. Its teacher is the network that this project delivers, smaller than
# the student itself and better than the ResNet-50.

# %%
plots.show("arm_curves")

# %% [markdown]
# ## What the student takes over
#
# Soft targets make the student agree with its teacher, also where the teacher is wrong:

# %%
plots.show("agreement")

# %% [markdown]
# and they change how sure it is. Above the diagonal a network is right more often than it says.

# %%
plots.show("student_reliability")

# %% [markdown]
# ## With and without the teacher, on all images
#
# The student with the chosen setting, from which notebook 3 goes on, and its control: the same network, images, views,
# epochs and seed, with the cross-entropy alone.

# %%
distilled, plain = stages.distilled(), stages.plain()
for name, run in (("distilled", distilled), ("alone", plain)):
    print(f"{name:10} {run.recipe['fit']['epochs']} epochs, validation {run.val_accuracy:.2%}")
difference = distilled.metrics["val_correct"] - plain.metrics["val_correct"]
print(f"difference: {difference:+d} of {total:,} images")

# %%
plots.show("student_curves")

# %% [markdown]
# That is one seed of each, so a difference within a few standard errors says nothing about distillation in general. On two
# cores the teacher gets so few epochs that the student overtakes it: what such a teacher can add is small. A stronger
# teacher (`PROFILE=full`) is where distillation should show what it can do.
