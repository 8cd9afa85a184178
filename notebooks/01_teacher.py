# %% [markdown]
# # 1. The teacher
#
# **Question.** The assignment gives a well-trained ResNet-50 and asks for a network of at most 100,000 parameters that is
# no worse. What does the large network know that the small one could learn?
#
# **You will see** the data and its augmentation, a training step in plain code, and two stems of a ResNet-50. Then you see where
# the teacher errs, and what its soft targets say.
#
# **Time.** The notebook loads finished runs: half a minute. Where `runs/` is empty it trains, and says before for how long.
#
# **Read on:** `hw2/views.py`, `hw2/training.py`; He et al. 2016 (arXiv:1512.03385). Next: [2. Distillation](02_distillation.ipynb).
#
# The course's file `resnet-50.pth` is not public, so we train our own teacher. Whoever has the file uses it in place of training:
# `hw2 train teacher --weights resnet-50.pth`. Git holds the teacher's logits for every image of the training file, and not its weights (94 MB).

# %%
try:
    import hw2
except ImportError as error:
    error._render_traceback_ = lambda: ["hw2 is missing here: choose the kernel of .venv, or run `pip install -e ..`"]
    raise

# %%
import pandas as pd
import torch
import torch_pruning as tp
from torch.nn import functional

from hw2 import data, networks, report, views
from hw2.experiments.obtain import obtain

fashion = data.fashion_mnist()
train, validation = fashion.split
print(f"{len(train):,} images for training, {len(validation):,} for validation, {len(fashion.test_labels):,} for the test")

# %% [markdown]
# ## The data
#
# Fashion-MNIST has ten classes of clothes, in grey images of 28 x 28 pixels. T-shirts, pullovers, coats and shirts have
# similar outlines: expect mistakes among them. The data is bright on black, and the figures show it dark on white.

# %%
report.show("samples")

# %% [markdown]
# ## What a network sees
#
# It sees *views* of an image, which are moved by up to two pixels and mirrored or not. Each epoch shows one view of every image. Which one
# depends only on seed and epoch, so a view can be made again at any time. View 0 is the image as it is. The
# teacher's training takes a new one each time. A student's training cycles through the views that the teacher has answered. Its
# targets, at the end of this notebook, are the teacher's mean over them.

# %%
report.show("shown_views")

# %% [markdown]
# Then pixels are normalised: over the training images they have mean 0 and standard deviation 1.

# %%
inputs = views.normalise(fashion.train_images[train[:5000]])
print(f"one image: {tuple(inputs.shape[1:])}, three equal channels")
print(f"mean {abs(inputs.double().mean()):.2f}, standard deviation {inputs.double().std():.2f}")

# %% [markdown]
# ## A training step in plain code
#
# `training.fit` repeats five lines for each batch: predict, measure the loss, clear the old gradient, compute the new one, step.
# Here a new ResNet-14, the student of the next notebook, takes three such steps on one batch of 128 images.

# %%
torch.manual_seed(0)
network, losses = networks.ResNet14(), []
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
for _ in range(3):
    logits = network(inputs[:128])
    loss = functional.cross_entropy(logits, fashion.train_labels[train[:128]])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("loss: " + ", ".join(f"{loss:.1f}" for loss in losses))
assert losses[0] > losses[1] > losses[2]

# %% [markdown]
# ## Two stems
#
# They differ by the resolution that the blocks see, and by cost: 80 against 299 million multiply-adds. Torchvision's ResNet-50 was made for images of 224 x 224 pixels. Its
# stem, the first convolution and a pooling, divides each side by four. With stride 1 in that convolution, it divides by two. Our teacher
# has stride 1.

# %%
rows, image = [], torch.zeros(1, 3, 28, 28)
for stem in ("imagenet", "stride1"):
    network = networks.teacher(stem).eval()
    macs, parameters = tp.utils.count_ops_and_params(network, image)
    side = network.maxpool(network.conv1(image)).shape[-1]
    words = {"before the blocks": f"{side} x {side} pixels", "multiply-adds": f"{macs / 1e6:.0f} M"}
    rows.append({"stem": stem, **words, "parameters": f"{parameters:,}"})
pd.DataFrame(rows).set_index("stem")

# %% [markdown]
# ## Training
#
# The teacher reaches 94.36 % on validation. It is torchvision's ResNet-50 with a 10-way `fc`. It is trained by SGD with Nesterov momentum, and the learning rate
# runs through one cycle. `obtain` loads the committed run, or trains one where there is none. A *profile* is a set of numbers, such as epochs
# and images: `smoke` takes a minute, `full` takes more than a day on two cores.

# %%
teacher = obtain("teacher")
print(f"profile {teacher.profile}: {teacher.recipe.fit.epochs} epochs, stem {teacher.recipe.stem}")
print(f"parameters: {networks.count_parameters(networks.teacher(teacher.recipe.stem)):,}")
print(f"validation accuracy: {teacher.val_accuracy:.2%}")

# %%
report.show("teacher_curves")

# %% [markdown]
# ## Is it better than its students?
#
# One teacher cannot tell: it has 94.14 % on the test set, ResNet-14 alone 94.07 %, and distilled 94.25 %. One seed of ResNet-14, distilled for
# 98 epochs, has 94.67 %. These are as many as the pruned network and its parent have together. The course's teacher has 92.4 %. The table
# holds means over the seeds of the networks that the next notebooks train.

# %%
report.table("results")

# %% [markdown]
# ## Where does it err?
#
# Between garments of similar outlines: most often it takes a shirt for a T-shirt, 40 of 500 times. The cell prints its most frequent mistakes on validation.

# %%
logits, labels = teacher.soft_targets[0][validation], fashion.train_labels[validation]
predicted = logits.argmax(dim=1)
errors = predicted != labels
pairs = pd.Series(10 * labels[errors] + predicted[errors]).value_counts().sort_index().nlargest(4)
for pair, count in pairs.items():
    print(f"{data.CLASSES[pair // 10]:12} taken for {data.CLASSES[pair % 10]:12} {count} of {(labels == pair // 10).sum()} images")

# %% [markdown]
# In the figure, rows are true classes and columns predictions. Squares hold counts of images. The colour is the share of a row, errors
# only.

# %%
report.show("teacher_confusion")

# %% [markdown]
# ## What does it find similar?
#
# Mostly T-shirts, pullovers, coats and shirts. The softmax of logits / T, with a temperature T, tells: these probabilities are called *soft targets*. A label says "shirt" and no
# more. Soft targets also rank the other classes, and a higher temperature shows more of them. The first image is the one on which
# the teacher is surest. On the three others, each of another class, the right class leads by least. The T-shirt's lead is none in half precision.

# %%
report.show("soft_targets")

# %% [markdown]
# ## What does the student receive?
#
# The mean of the teacher's logits over the views of an image. On validation this mean has 94.74 %, and the answer to the image as it is
# 94.36 %. The logits are computed once, so a student's training never runs the ResNet-50. They are stored in half precision, where a few
# images have two equal largest logits. So the stored answers have 281 errors, and the teacher itself 282.

# %%
shape = tuple(teacher.soft_targets.shape)
print("{} views x {:,} images x {} logits".format(*shape))
assert shape == (teacher.recipe.views, len(fashion.train_labels), len(data.CLASSES))
means = teacher.soft_targets.double().mean(dim=0)[validation]
share = (means.argmax(dim=1) == labels).double().mean()
for words, answer, right in (("image as it is", logits.double(), teacher.val_accuracy), ("mean over views", means, share)):
    print(f"{words:15} validation accuracy {right:.2%}, loss {functional.cross_entropy(answer, labels):.3f}")

# %% [markdown]
# ## What we learned

# %%
tops = torch.tensor([data.CLASSES.index(name) for name in ("T-shirt/top", "Pullover", "Coat", "Shirt")])
among = torch.isin(labels, tops) & torch.isin(predicted, tops) & errors
second = logits[errors].argsort(dim=1, descending=True)[:, 1] == labels[errors]
print(f"The teacher is wrong on {errors.double().mean():.1%} of the validation images.")
print(f"{among.sum() / errors.sum():.0%} of its errors are among T-shirts, pullovers, coats and shirts.")
print(f"For {second.double().mean():.0%} of its errors the right class has the second largest probability.")
print("So its soft targets say what a label does not: what else an image could be.")

# %% [markdown]
# ## Try it yourself
#
# Predict first, then compute. Each task takes a minute at most.
#
# 1. **Unmoved images.** Images move by -2 to 2 pixels in both directions, and every second one is mirrored. Which share of the images
#    does an epoch leave as they are? Check your answer with `views.drawn(60000, pad=2, seed=0, epoch=1)`.
# 2. **The cycle.** The learning rate rises in the first fifth of the steps, then falls. Train ResNet-14 on labels for three epochs in
#    profile smoke. Which of its epochs ends with the highest learning rate?
# 3. **Order.** Does a higher temperature change which class is the likeliest? Is every answer less sure at T = 8 than at T = 1?
#
# <details><summary>Solutions</summary>
#
# ```python
# share = (views.drawn(60000, pad=2, seed=0, epoch=1) == 0).double().mean()
# assert abs(share - 1 / 25 / 2) < 0.003  # one of 25 places, as it is half of the time
#
# run = obtain("plain", profile="smoke", **{"fit.epochs": 3})
# assert run.history.lr.is_monotonic_decreasing  # the first: its rise takes 0.6 epochs
#
# logits = torch.randn(100, 10).double()
# sure, unsure = (torch.softmax(logits / T, dim=1).max(dim=1) for T in (1, 8))
# assert sure.indices.equal(unsure.indices) and (unsure.values < sure.values).all()
# ```
#
# </details>
