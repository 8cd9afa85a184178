# %% [markdown]
# # 1. The teacher
#
# **Question.** The assignment gives a well-trained ResNet-50 and asks for a network of at most 100,000 parameters that is
# no worse. What does the large network know that the small one could learn?
#
# **Words.** A *run* is one finished training. Its *recipe* holds all settings. A *profile* sets the size: `smoke` takes a minute, `full`
# takes more than a day on two cores. `obtain(name)` loads a run, or trains it where there is none.
#
# **You will see** the data and its augmentation, the training loop in plain PyTorch, and two stems of a ResNet-50. Then you see
# where the teacher errs, and what its soft targets say.
#
# **Time.** The notebook loads finished runs and trains a small network for half a minute: a minute in all. Where `runs/` is empty
# it trains the teacher, and says before for how long.
#
# **Read on:** `hw2/views.py`, `hw2/training.py`; He et al. 2016 (arXiv:1512.03385). Next: [2. Distillation](02_distillation.ipynb).
#
# The course's file `resnet-50.pth` is not public, so we train our own teacher. Whoever has the file uses it in place of training:
# `hw2 train teacher --weights resnet-50.pth`. Git holds the teacher's logits for every image of the training file, and not its weights (94 MB).

# %% tags=["hide-input"] jupyter={"source_hidden": true}
try:
    import hw2
except ImportError as error:
    error._render_traceback_ = lambda: [
        "hw2 is missing here: choose the kernel of .venv, or run `pip install -e ..`"
    ]
    raise

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch_pruning as tp
from torch.nn import functional

from hw2 import data, distillation, networks, report, training, views
from hw2.experiments.obtain import obtain

plt.style.use(report.style.STYLE)

# %% [markdown]
# ## The data
#
# Fashion-MNIST has ten classes of clothes, in grey images of 28 x 28 pixels. T-shirts, pullovers, coats and shirts have
# similar outlines: expect mistakes among them.

# %%
fashion, teacher = data.fashion_mnist(), obtain("teacher")
train, validation = fashion.split
counts = len(train), len(validation), len(fashion.test_labels)
print("{:,} images for training, {:,} for validation, {:,} for the test".format(*counts))

# %%
figure, axes = plt.subplots(4, 10, figsize=(9, 4))
for label, column in enumerate(axes.T):
    examples = train[fashion.train_labels[train] == label]
    column[0].set_title(data.CLASSES[label], fontsize=8)
    for ax, image in zip(column, fashion.train_images[examples[:4]].numpy()):
        ax.imshow(image, cmap="gray")
        ax.axis("off")
report.show(figure, "Four training images of each of the ten classes.")

# %% [markdown]
# ## What a network sees
#
# A network sees *views* of an image, which are moved by a few pixels and mirrored or not. Each epoch shows one view of every image. Which
# one depends only on seed and epoch, so a view can be made again at any time. View 0 is the image as it is. The teacher's training takes a
# new view each time. For the student the teacher computed its logits for some views of each image, once. A student's training shows these.

# %%
task = teacher.recipe.task(fashion)
figure, axes = plt.subplots(3, 8, figsize=(9, 3.5))
for epoch, column in enumerate(axes.T):
    column[0].set_title(f"epoch {epoch + 1}", fontsize=8)
    shown = views.cut(fashion.train_images, task.view(epoch), task.pad)[train[:3]]
    for ax, image in zip(column, shown.numpy()):
        ax.imshow(image, cmap="gray")
        ax.axis("off")
report.show(figure, (
    "Three training images in the teacher's first eight epochs: "
    f"moved by up to {task.pad} pixels, mirrored or not."
))

# %% [markdown]
# Then pixels are normalised: over the training images they have mean 0 and standard deviation 1.

# %%
few = train[:4_992]  # 39 batches of 128
inputs, targets = views.normalise(fashion.train_images[few]), fashion.train_labels[few]
print(f"one image: {tuple(inputs.shape[1:])}, three equal channels")
pixels = inputs.double()
print(f"mean {abs(pixels.mean()):.2f}, standard deviation {pixels.std():.2f}")

# %% [markdown]
# ## The training loop
#
# For each batch the loop predicts, measures the loss, clears the old gradient, computes the new one, and steps. Here a new ResNet-14,
# the student of the next notebook, trains for two epochs of about 5,000 images. This shows the loop and not what a network can reach:
# `training.fit` has the same loop, with views, all images, more epochs, and a learning rate that rises and falls.

# %%
torch.set_num_threads(1)  # the same losses, however many cores are free
torch.manual_seed(0)
network, losses = networks.ResNet14(), []
settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
optimizer = torch.optim.SGD(network.parameters(), lr=0.05, **settings)
for epoch in range(2):
    for batch in torch.randperm(len(few)).split(128):
        loss = functional.cross_entropy(network(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

# %% tags=["live"]
assert losses[-1] < losses[0]
figure, ax = plt.subplots(figsize=(6, 3))
ax.plot(range(1, len(losses) + 1), losses)
ax.set(xlabel="step", ylabel="cross-entropy of the batch", ylim=(0, None))
report.show(figure, (
    "The loss of a new ResNet-14 falls over its first steps, a batch of 128 images each."
))

# %% [markdown]
# ## Two stems
#
# The stem is a network's first convolution and its pooling. Torchvision's ResNet-50 was made for images of 224 x 224 pixels, and its stem
# divides each side by four. With stride 1 in the convolution the stem divides by two, so the blocks see more. That costs 299 M in place of
# 80 M multiply-adds. Our teacher has stride 1. We did not compare the two in accuracy.

# %%
rows, image = [], torch.zeros(1, 3, 28, 28)
for stem in ("imagenet", "stride1"):
    resnet50 = networks.teacher(stem).eval()
    macs, parameters = tp.utils.count_ops_and_params(resnet50, image)
    side = resnet50.maxpool(resnet50.conv1(image)).shape[-1]
    words = {
        "before the blocks": f"{side} x {side} pixels",
        "multiply-adds": f"{macs / 1e6:.0f} M",
        "parameters": f"{parameters:,}",
    }
    rows.append({"stem": stem, **words})
pd.DataFrame(rows).set_index("stem")

# %% [markdown]
# ## Training the teacher
#
# The teacher reaches 94.36% on validation. A student that is 134 times smaller comes as far: notebook 4 compares them.
#
# The teacher is torchvision's ResNet-50 with a 10-way `fc`, trained by SGD with Nesterov momentum. The learning rate
# runs through one cycle.

# %%
parameters = {"teacher": teacher.metrics["parameters"]}
parameters["student"] = networks.count_parameters(networks.ResNet14())
recipe = teacher.recipe
print(f"profile {teacher.profile}: {recipe.fit.epochs} epochs, stem {recipe.stem}")
print(", ".join(f"{name} {count:,} parameters" for name, count in parameters.items()))
print(f"the student is {parameters['teacher'] / parameters['student']:.0f} times smaller")
print(f"validation accuracy of the teacher: {teacher.val_accuracy:.2%}")

# %%
history = teacher.history
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(history.epoch, history.train_loss, ":", label="training loss, of views")
left.plot(history.epoch, history.val_loss, label="validation loss")
left.set(xlabel="epoch", ylabel="cross-entropy", xticks=history.epoch[4::5])
left.legend()
right.plot(history.epoch, 100 * history.val_accuracy)
right.set(xlabel="epoch", ylabel="validation accuracy, %", xticks=history.epoch[4::5])
report.show(figure, (
    "The teacher by epoch. "
    "The training loss is of moved and mirrored images, a mean over the epoch."
))

# %% [markdown]
# ## Where does it err?
#
# The teacher errs between garments of similar outlines. Most often it takes a shirt for a T-shirt, 40 of 500 times. The cell prints its
# four most frequent mistakes on validation, and the figure shows all of them.

# %%
logits, labels = teacher.soft_targets[0][validation], fashion.train_labels[validation]
predicted = logits.argmax(dim=1)
errors = predicted != labels
pairs = pd.Series(10 * labels[errors] + predicted[errors]).value_counts().sort_index()
for pair, count in pairs.nlargest(4).items():
    true, taken = data.CLASSES[pair // 10], data.CLASSES[pair % 10]
    total = (labels == pair // 10).sum()
    print(f"{true:12} taken for {taken:12} {count} of {total} images")
matrix = np.zeros((10, 10))
for pair, count in pairs.items():
    matrix[pair // 10, pair % 10] = count

# %%
figure, ax = plt.subplots(figsize=(6, 5))
for pair, count in pairs.items():
    color = "white" if 2 * count > pairs.max() else "black"
    ax.text(pair % 10, pair // 10, count, ha="center", va="center", color=color, fontsize=8)
ax.imshow(matrix, cmap="Blues")
ax.set_xticks(range(10), data.CLASSES, rotation=45, ha="right")
ax.set_yticks(range(10), data.CLASSES)
ax.set(xlabel="predicted class", ylabel="true class")
ax.grid(False)
report.show(figure, (
    "The teacher's errors on validation: images by true and predicted class."
))

# %% [markdown]
# ## What does it find similar?
#
# For this image the teacher finds a coat, a shirt and a pullover similar. It is the one on which its two likeliest classes are closest. We
# divide the logits by a *temperature* T before the softmax. The probabilities are called *soft targets*. A label names one class and no
# more. Soft targets also rank the others, and a higher temperature shows more of them: at T = 8 a dress gets 8.1% in place of 0.1%. The
# axis of probabilities is logarithmic. At the dotted line all classes would be equal.

# %%
doubtful = training.margins(logits.double()).argmin()

def soften(ax, T):
    soft = distillation.soft_targets(logits[doubtful][None].double(), T)[0]
    ax.bar(range(10), soft.numpy())
    ax.axhline(0.1, color="grey", ls=":")
    ax.set(yscale="log", ylim=(1e-5, 1), title=f"T = {T:g}")
    ax.set_xticks(range(10), data.CLASSES, rotation=90, fontsize=8)


# %%
figure, (left, *panels) = plt.subplots(1, 4, figsize=(9, 3), width_ratios=(2, 3, 3, 3))
left.imshow(fashion.train_images[validation[doubtful]].numpy(), cmap="gray")
left.set_title(f"label: {data.CLASSES[labels[doubtful]]}")
left.axis("off")
panels[0].set_ylabel("probability")
for ax, T in zip(panels, (1, 4, 8)):
    soften(ax, T)
report.show(figure, (
    "A doubtful image, and the teacher's soft targets for it at T = 1, 4 and 8."
))

# %%
for T in (1, 4, 8):
    soft = distillation.soft_targets(logits[doubtful][None].double(), T)[0]
    dress = soft[data.CLASSES.index("Dress")]
    print(f"T = {T}: a dress gets {dress:.1%}")

# %% [markdown]
# In a live kernel a slider changes T: set `slider = True` and run the cell.

# %%
slider = False

def at_temperature(T):
    figure, ax = plt.subplots(figsize=(5, 3))
    soften(ax, T)
    report.show(figure, f"Soft targets at T = {T:g}.")

if slider:
    import ipywidgets
    ipywidgets.interact(at_temperature, T=(0.5, 16.0))

# %% [markdown]
# ## What does the student receive?
#
# The student receives the mean of the teacher's logits over the views of an image. On validation the mean is right more often: 94.74%
# against 94.36% for the image as it is. Notebook 2 asks whether this helps a student. `teacher.soft_targets` keeps these logits, and any
# temperature makes soft targets of them. They are computed once, so a student's training never runs the ResNet-50.

# %%
print("{} views x {:,} images x {} logits".format(*teacher.soft_targets.shape))
assert teacher.soft_targets.shape[1:] == (len(fashion.train_labels), len(data.CLASSES))
means = teacher.soft_targets.double().mean(dim=0)[validation]
share = (means.argmax(dim=1) == labels).double().mean()
for words, answer, right in (
    ("image as it is", logits.double(), teacher.val_accuracy),
    ("mean over views", means, share),
):
    loss = functional.cross_entropy(answer, labels)
    print(f"{words:15} validation accuracy {right:.2%}, loss {loss:.3f}")

# %% [markdown]
# ## What we learned

# %%
similar = ("T-shirt/top", "Pullover", "Coat", "Shirt")
tops = torch.tensor([data.CLASSES.index(name) for name in similar])
among = torch.isin(labels, tops) & torch.isin(predicted, tops) & errors
second = logits[errors].argsort(dim=1, descending=True)[:, 1] == labels[errors]
print(f"The teacher is wrong on {errors.double().mean():.1%} of the validation images.")
within, near = among.sum() / errors.sum(), second.double().mean()
print(f"{within:.0%} of its errors are among T-shirts, pullovers, coats and shirts.")
print(f"For {near:.0%} of its errors the right class has the second largest probability.")
print("So its soft targets say what a label does not: what else an image could be.")

# %% [markdown]
# ## Try it yourself
#
# Predict first, then compute.
#
# 1. **Unmoved images** (5 minutes, easy). Images move by -2 to 2 pixels in both directions, and every second one is mirrored. Which share
#    of the images does an epoch leave as they are? Check your answer with `views.drawn(60000, pad=2, seed=0, epoch=1)`: it gives the
#    number of each image's view, and 0 is the image as it is.
# 2. **The cycle** (5 minutes, medium). The learning rate rises in the first fifth of the steps, then falls. Train ResNet-14 on labels for
#    three epochs in profile smoke: `obtain("plain", profile="smoke", fit=training.Fit(epochs=3, lr=0.1))`. Which epoch ends with the highest learning rate?
# 3. **Order** (5 minutes, easy). Does a higher temperature change which class is the likeliest? Is every answer less sure at T = 8 than at
#    T = 1?
#
# <details><summary>Solutions</summary>
#
# ```python
# share = (views.drawn(60000, pad=2, seed=0, epoch=1) == 0).double().mean()
# assert abs(share - 1 / 25 / 2) < 0.003  # one of 25 places, as it is half of the time
#
# run = obtain("plain", profile="smoke", fit=training.Fit(epochs=3, lr=0.1))
# assert run.history.lr.is_monotonic_decreasing  # the first: its rise takes 0.6 epochs
#
# logits = torch.randn(100, 10).double()
# sure, unsure = (torch.softmax(logits / T, dim=1).max(dim=1) for T in (1, 8))
# assert sure.indices.equal(unsure.indices) and (unsure.values < sure.values).all()
# ```
#
# </details>
