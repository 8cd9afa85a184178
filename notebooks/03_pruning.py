# %% [markdown]
# # 3. Pruning
#
# **Question.** The distilled student has 175,258 parameters, the assignment allows 100,000. Which channels can go, and what does
# the accuracy do on the way? We repeat a student's published report, which removed a share of 0.29 of the channels. That leaves 85,956
# parameters. A share of 0.24 would already fit the limit. We keep the report's, to compare with it.
#
# 1. **Sparse learning**: while training goes on, a regulariser pushes the weights of weak channels towards zero.
# 2. **Pruning** removes the weakest channels. Every group of layers loses the same share: the *ratio*, rounded up to whole channels.
# 3. **Recalibration** measures BatchNorm's running statistics again, since the old ones belong to the wider network.
# 4. **Fine-tuning** trains the pruned network with the same soft targets as before.
#
# **You will see** what breaks when one layer is pruned alone, and how a group is pruned. You prune, recalibrate and fine-tune a network
# yourself. Then you see why the accuracy collapses, and whether it matters which channels leave. In the end come the steps of the recipe
# that pay, and the control: the same widths from scratch.
#
# The *chain* is the teacher, the distilled student and the pruned network, each made from the one before. The last one of the first seed
# is the *delivered* network.
#
# **Time.** The notebook loads finished runs and trains one epoch on few images: about a minute. Three tasks have a check.
# Where `runs/` is empty it trains everything, and says before for how long.
#
# **Read on:** `hw2/pruning.py`; DepGraph, Fang et al. 2023 (arXiv:2301.12900). Torch-Pruning's `GroupNormPruner` has nothing to do with
# `nn.GroupNorm`. Before: [2. Distillation](02_distillation.ipynb). Next: [4. Summary](04_summary.ipynb).

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
import pandas as pd
import torch
import torch_pruning as tp
from IPython.display import Markdown
from torch import nn

from hw2 import data, networks, pruning, report, training, views
from hw2.experiments.obtain import obtain
from hw2.experiments.store import Store
from hw2.files import read_json
from hw2.report import comparisons, nb03_pruning, statistics, style, write

# %%
fashion, store = data.fashion_mnist(), Store()
compressed, distilled = obtain("compressed"), obtain("distilled")
recipe, names = compressed.recipe, pruning.GROUPS
few = fashion.train_images[fashion.split[0][:1_000]]  # for recalibration
held_out = recipe.task(fashion).held_out  # the validation split
images, labels = (part[:1_000] for part in held_out)
plt.style.use([style.STYLE, {"axes.prop_cycle": plt.cycler(color=style.COLOURS)}])
print(f"ratio {recipe.ratio}, regulariser {recipe.reg:g}")
sparse, fit = recipe.sparse, recipe.fit
print(f"epochs: {sparse.epochs} of sparse learning, {fit.epochs} of fine-tuning")

# %% [markdown]
# ## What breaks when one layer is pruned alone?
#
# The next layer breaks. We remove channel 0 of `conv1`. The BatchNorm layer behind it still has statistics of 16 channels, and gets 15.

# %%
network = distilled.network()
tp.prune_conv_out_channels(network.conv1, idxs=[0])
try:
    network(views.normalise(images[:2]))
except RuntimeError as error:
    print(error)

# %% [markdown]
# The channel must leave every layer that makes it or takes it in. Torch-Pruning follows it through the network and calls the result a
# *group*. A shortcut adds two layers' outputs channel by channel, so channel 0 leaves all convolutions that the shortcuts of layer1 add.
# The pruned group leaves a network that works:

# %%
network = distilled.network()
graph = tp.DependencyGraph().build_dependency(network, torch.zeros(1, 3, 28, 28))
group = graph.get_pruning_group(network.conv1, tp.prune_conv_out_channels, idxs=[0])
layers = {module: name for name, module in network.named_modules()}
for step in group:
    module = step.dep.target.module
    if module in layers:  # the others are additions and the like, without weights
        print(f"{step.dep.handler.__name__:18} {layers[module]}")
group.prune()
logits = network(views.normalise(images[:2]))
print(f"logits {tuple(logits.shape)}, {networks.count_parameters(network):,} parameters")

# %% [markdown]
# ## Which channels belong together?
#
# Channels that a shortcut adds belong together, and so do those between a block's two convolutions. A ResNet-14 has nine groups: three of
# the first kind, one in each stage, and six of the second. A channel's norm covers the weights that make it and those that read it.

# %%
pruner = pruning.pruner(distilled.network(), recipe.ratio)
channels = [len(group[0].idxs) for group in pruning.groups(pruner)]
left = pruning.narrowed(channels, recipe.ratio)
pd.DataFrame({"group": names, "channels": channels, "left": left}).set_index("group")


# %% [markdown]
# **Your turn: rank by norm** (5 minutes, easy). Write `weakest_first` for one convolution. The cell below it calls your function.
#
# <details><summary>Solution</summary>
#
# ```python
# def weakest_first(weight):
#     return weight.flatten(1).norm(dim=1).argsort().tolist()
# ```
#
# </details>

# %%
def weakest_first(weight):
    """Channels by the L2 norm of their weights, the smallest first.

    `weight` is (out, in, height, width).
    """
    ...  # yours: return a list


# %%
values = torch.tensor([-3.0, 1.0, 2.0])  # one for all weights of a channel
weight = values.view(3, 1, 1, 1).expand(3, 2, 3, 3)
if weakest_first(weight) == [1, 2, 0]:
    print("Right.")
else:
    print("Not yet: channel 1 is the weakest, channel 0 the strongest.")

# %% [markdown]
# ## Which groups are sensitive?
#
# The groups tied by the shortcuts of layer2 and layer1 are the most sensitive. With half of their channels 26.3% and 43.7% of the
# images are right. Each point is the distilled network of seed 0 with one group pruned alone, by its norms, on 1,000 images. Nothing is
# trained and no statistic is measured again. So a point shows two things at once: lost channels, and BatchNorm's statistics that no
# longer fit.

# %%
cuts = [0, 0.25, 0.5, 0.75]
accuracy = {name: [] for name in names}
for number, name in enumerate(names):
    for cut in cuts:
        network = pruning.prune_group(distilled.network(), number, cut)
        answers = training.predict(network, images)
        accuracy[name].append(100 * (answers == labels).double().mean().item())
half = sorted((accuracy[name][cuts.index(0.5)], name) for name in names)[:2]
worst = " and ".join(f"{value:.1f}% ({name})" for value, name in half)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, kind in zip(axes, ("added by shortcuts", "between convolutions")):
    for name in names:
        if name.endswith(kind):
            ax.plot(cuts, accuracy[name], marker="o", label=name.split(",")[0])
    ax.set(title=f"Groups {kind}", xlabel="share of the group's channels removed")
    ax.legend(loc="lower left")
axes[0].set_ylabel("validation accuracy, %")
report.show(figure, (
    "Validation accuracy with one group pruned alone. "
    f"With half of their channels the most sensitive keep {worst}."
))

# %% [markdown]
# ## How does sparse learning push weak channels?
#
# The regulariser adds to the gradient between `backward` and `step`. It pushes weaker channels harder towards zero. Below is one step.
# `training.fit` calls the regulariser through two hooks (`pruning.sparse_learning`).

# %%
network, batch = distilled.network().train(), fashion.split[0][:128]
pruner = pruning.pruner(network, recipe.ratio, recipe.reg)
pruner.update_regularizer()  # once an epoch: how hard each channel is pushed
logits = network(views.normalise(fashion.train_images[batch]))
nn.functional.cross_entropy(logits, fashion.train_labels[batch]).backward()
weight, of_loss = network.conv1.weight, network.conv1.weight.grad.clone()
pruner.regularize(network)  # before optimizer.step()
push = (weight.grad - of_loss).flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
of_conv1 = names.index("layer1, added by shortcuts")  # the group that conv1 is in
norms = torch.tensor(pruning.group_norms(network)[of_conv1])

# %%
print("channels, weakest first:      ", norms.argsort().tolist())
print("channels, pushed hardest first:", push.argsort(descending=True).tolist())
assert push.argmax() == norms.argmin() and push.argmin() == norms.argmax()

# %% [markdown]
# ## What is left?
#
# Half of the parameters are left, 85,956. We prune the distilled network at this ratio, here and now:

# %%
before, after = distilled.network(), pruning.prune(distilled.network(), recipe.ratio)
for name, network in (("distilled", before), ("pruned", after)):
    count = networks.count_parameters(network)
    print(f"{name:10} widths {network.widths}, {count:,} parameters")
removed = 1 - networks.count_parameters(after) / networks.count_parameters(before)
print(f"{removed:.2%} of the parameters removed")
assert after.widths == compressed.network().widths == (11, 11, 22, 45)
assert networks.count_parameters(compressed.network()) == 85_956

# %% [markdown]
# A convolution between two pruned groups loses about half of its parameters, because it loses inputs and outputs. Three quarters of the
# parameters are in layer3:

# %%
bars = {}
for words, network in (("before", before), ("after", after)):
    parameters = network.named_parameters()
    bars[words] = {name: weight.numel() for name, weight in parameters if weight.ndim > 1}
ax = pd.DataFrame(bars).plot.barh(figsize=(8, 4.5), color=[style.BLUE, style.ORANGE])
ax.set(xlabel="parameters of a layer")
ax.invert_yaxis()
share = networks.count_parameters(before.layer3) / networks.count_parameters(before)
report.show(ax.figure, (
    "Parameters of each layer before and after pruning. "
    f"layer3 holds {share:.0%} of them before."
))

# %% [markdown]
# ## What does the accuracy do on the way?
#
# It falls, and comes back. Right after pruning the networks that were made sparse have 90.13% in the mean. Without sparse learning they
# collapse to 24.30%. Recalibration, which trains no weight, brings most of that back: 81.46%. Fine-tuning ends at 94.63%. So sparse
# learning softens the fall. Whether it pays in the end is a question for the ablation below.

# %%
report.table("phases")

# %%
steps = [name for _, name, _ in nb03_pruning.PHASES]
ending = "_without_sparse_learning"
without = ["distilled", "pruned" + ending, "recalibrated" + ending]
blue, red = [], []  # a line a seed
for run in store.runs("compressed"):
    blue.append([run.at_phase(step) for step in steps])
    red.append([run.at_phase(step) for step in without])

# %%
figure, ax = plt.subplots(figsize=(8, 3.4))
for line, fall in zip(blue, red):
    ax.plot(line, marker="o", lw=1, color=style.BLUE)
    ax.plot([0, 2, 3], fall, marker="o", lw=1, color=style.VERMILION)
ax.set(yscale="logit", ylabel="validation accuracy")  # logit spreads the values near 100%
ax.set_yticks([0.1, 0.3, 0.5, 0.7, 0.9, 0.95], ["10%", "30%", "50%", "70%", "90%", "95%"])
ax.minorticks_off()
ax.set_xticks(range(5), [words for words, _, _ in nb03_pruning.PHASES])
report.show(figure, (
    "Validation accuracy after each step, a line a seed. "
    "Blue: with sparse learning. Red: without, up to recalibration."
))


# %% [markdown]
# ## Prune, recalibrate, fine-tune
#
# One epoch of 5,000 images is enough to watch it. The loop below is plain PyTorch with labels alone. `training.fit` has the same
# five lines, and adds views, soft targets and a cycle of the learning rate. The cell shows the loop, not a gain: the recipe's
# fine-tuning has 72 epochs of 55,000 images.

# %%
def train_an_epoch(network, rows, batch=128):
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    network.train()
    for chosen in rows[torch.randperm(len(rows))].split(batch):
        logits = network(views.normalise(fashion.train_images[chosen]))
        loss = nn.functional.cross_entropy(logits, fashion.train_labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# %%
torch.manual_seed(0)
network, right = pruning.prune(distilled.network(), recipe.ratio), {}
right["pruned"] = training.validate(network, images, labels)[1]
pruning.recalibrate(network, few)
right["recalibrated"] = training.validate(network, images, labels)[1]
train_an_epoch(network, fashion.split[0][:5_000])
right["fine-tuned for an epoch"] = training.validate(network, images, labels)[1]
print("from least to most images right:", ", ".join(sorted(right, key=right.get)))

# %% tags=["live"]
figure, ax = plt.subplots(figsize=(6, 1.6))
ax.barh([*right], right.values())
ax.set(xlabel="images right, of 1,000")
ax.invert_yaxis()
report.show(figure, (
    "Images right after each step. "
    "The counts differ a little from machine to machine."
))


# %% [markdown]
# ## Why does it collapse?
#
# The main cause is BatchNorm. It still divides by the variance that was measured before pruning. With fewer channels the inputs of a
# layer vary less, and in deep layers much less. After recalibration both variances agree. The figure divides the inputs' variance by the
# running variance: the median over a layer's channels, on 100 training images.

# %%
def drift(network):
    ratios, batch = {}, views.normalise(few[:100]).double()
    for name, layer in network.double().named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            def note(layer, inputs, name=name):
                variance = inputs[0].var(dim=(0, 2, 3))
                ratios[name] = (variance / layer.running_var).median().item()
            layer.register_forward_pre_hook(note)
    with torch.no_grad():
        network(batch)
    return ratios


# %%
pruned, recalibrated = (pruning.prune(distilled.network(), recipe.ratio) for _ in range(2))
pruning.recalibrate(recalibrated.double(), fashion.train_images[fashion.split[0][:2_000]])
drifts = {"pruned": drift(pruned), "recalibrated": drift(recalibrated)}
found = pd.DataFrame(drifts).round(3)  # the same on every machine

# %%
ax = found.plot(marker="o", figsize=(8, 3.8), color=[style.VERMILION, style.BLUE])
ax.set(ylabel="variance of inputs / running variance", ylim=(0, None))
ax.set_xticks(range(len(found)), found.index, rotation=45, ha="right")
deep = found.pruned[found.index.str.startswith("layer3")]
report.show(ax.figure, (
    "Variance of each layer's inputs, divided by BatchNorm's running variance, "
    "from the first layer to the last. "
    f"In layer3 the pruned network has {deep.min():.2f} to {deep.max():.2f}."
))


# %% [markdown]
# **Your turn: recalibrate** (15 minutes, medium). BatchNorm layers have `reset_running_stats()`. With `momentum = None` they average
# over all batches with equal weight, in training mode. No parameter may change.
#
# <details><summary>Solution</summary>
#
# ```python
# def recalibrate(network, pictures):
#     for layer in network.modules():
#         if isinstance(layer, nn.BatchNorm2d):
#             layer.reset_running_stats()
#             layer.momentum = None
#     network.train()
#     with torch.no_grad():
#         for part in pictures.split(500):
#             network(views.normalise(part))
#     network.eval()
# ```
#
# </details>

# %%
def recalibrate(network, pictures):
    """Measure BatchNorm's running statistics afresh, on batches of 500 of the pictures.

    `pictures` are uint8 (n, 28, 28).
    """
    ...  # yours


# %%
mine, ours = (pruning.prune(distilled.network(), recipe.ratio) for _ in range(2))
recalibrate(mine, few)
pruning.recalibrate(ours, few)
expected, wrong = ours.state_dict(), []
for name, value in mine.state_dict().items():
    if not torch.allclose(value, expected[name], rtol=1e-3, atol=1e-5):
        wrong.append(name)
if wrong:
    print(f"Not yet: {len(wrong)} tensors differ, the first is {wrong[0]}.")
else:
    print("Right.")

# %% [markdown]
# ## Does it matter which channels leave?
#
# It does, once BatchNorm is recalibrated. By norm the seeds then keep 77% to 84% without any training, and at most 70% in each of
# three draws at random. Right after pruning, with stale statistics, even the ranking by norm leaves only 12.60%, 37.02% and 23.28%. So
# we compare after recalibration. The comparison says nothing about the end of fine-tuning. The ablation asks about that.

# %%
kept = {}  # share of the images that are right: by norm, then in three draws at random
for run in store.runs("compressed"):
    parent, shares = store.made_by(run.recipe.parent).network(), []
    for draw in (None, 0, 1, 2):
        torch.manual_seed(draw or 0)
        network = pruning.prune(parent, recipe.ratio, "norm" if draw is None else "random")
        pruning.recalibrate(network, few)
        shares.append(training.validate(network, images, labels)[1] / len(labels))
    stale = run.at_phase("pruned_without_sparse_learning")
    kept[f"seed {run.recipe.seed}"] = [stale, *shares]

# %%
draws = [f"at random, draw {draw}" for draw in (1, 2, 3)]
columns = ["stale statistics, by norm", "recalibrated, by norm", *draws]
table = pd.DataFrame(kept, index=columns).T
right_after = [f"{100 * share:.2f}%" for share in table.iloc[:, 0]]
print("by norm, right after pruning:", ", ".join(right_after))
by_norm, best_draw = table.iloc[:, 1], table.iloc[:, 2:].max(axis=1)
print("every seed keeps more by norm than in each draw:", all(by_norm > best_draw))
table.map("{:.0%}".format)

# %% [markdown]
# ## What does sparse learning do to the norms?
#
# It pushes many channels near zero, but not the same share in each group. In layer1.0 11 of 16 channels are near zero and 5 leave. In
# layer3.1 2 of 64 are near zero and 19 leave. So 17 of the removed channels were not near zero. Near zero means a norm below a tenth of the group's root mean square.
# The table and the figure show the delivered network's chain before pruning.

# %%
sizes = compressed.group_norms
near_zero = []
for group in sizes["after"]:
    count = sum(norm < 0.1 for norm in group)
    near_zero.append(f"{count} of {len(group)}")
leaving = [count - rest for count, rest in zip(channels, left)]
pd.DataFrame({"group": names, "near zero": near_zero, "leave": leaving}).set_index("group")


# %%
def draw_norms(ax, layer):
    place = names.index(f"{layer}, between convolutions")
    bins = [step / 10 for step in range(26)]
    for when, colour in (("before", style.VERMILION), ("after", style.BLUE)):
        label = f"{when} sparse learning"
        ax.hist(sizes[when][place], bins=bins, alpha=0.6, color=colour, label=label)
    ax.set(title=layer, ylabel="channels")
    ax.set_xlabel("norm, relative to the group's root mean square")


# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for ax, layer in zip(axes, ("layer1.0", "layer3.1")):
    draw_norms(ax, layer)
axes[0].legend()
report.show(figure, (
    "Histograms of the channels' norms in two groups. "
    "Sparse learning leaves many of layer1.0's near zero, few of layer3.1's."
))

# %% [markdown]
# Why does every group lose the same share, then? Think before you read on.
#
# <details><summary>An answer</summary>
#
# The original report prunes by one ratio, and its widths are kept as they are for comparison. Norms are relative to their own group, so they do not
# rank channels of different groups. A ratio for each group is one number more to tune for each of nine groups.
#
# </details>
#
# **Your turn: ratios by group** (20 minutes, hard). Choose a share to remove for each group. Stay within 100,000 parameters and beat
# the smallest uniform ratio that stays within the limit, 0.24, after recalibration and without training. The figure of sensitive groups helps.
#
# <details><summary>Solution</summary>
#
# ```python
# ratio_of = dict.fromkeys(names, 0.3)
# for name in names:
#     if "shortcuts" in name:  # sensitive: they lose nothing
#         ratio_of[name] = 0.0
#     elif "layer3" in name:  # most parameters: half of its inner channels leave
#         ratio_of[name] = 0.5
# ```
#
# </details>

# %%
ratio_of = dict.fromkeys(names, 0.29)  # yours: a ratio for each group

# %%
mine, uniform = distilled.network(), pruning.prune(distilled.network(), 0.24)
for number, name in enumerate(names):
    mine = pruning.prune_group(mine, number, ratio_of[name])
for network in (mine, uniform):
    pruning.recalibrate(network, few)
reached, to_beat = (training.validate(one, images, labels)[1] for one in (mine, uniform))
if networks.count_parameters(mine) > 100_000:
    print("Not yet: it has too many parameters.")
elif reached > to_beat:
    print("Right.")
else:
    print("Not yet: it is worse.")

# %% [markdown]
# ## How does the accuracy come back?
#
# Fine-tuning brings it back, most of it in its second half, as the learning rate falls. The seeds' mean goes from 91.35%, by 92.29%
# halfway, to 94.63%. At the dashed line channels leave, and the learning rate (grey) begins a new cycle. The last point of seed 0 is the delivered
# network's: no epoch was picked afterwards.

# %%
first, curves = recipe.sparse.epochs, {}
for run in store.runs("compressed"):
    halfway = run.history.val_accuracy[first + recipe.fit.epochs // 2 - 1]
    curves[run.name] = run.at_phase("recalibrated"), halfway, run.val_accuracy
start, middle, end = (f"{100 * mean:.2f}%" for mean in pd.DataFrame(curves).mean(axis=1))
means = f"{start} recalibrated, {middle} halfway through fine-tuning, {end} at its end"

# %%
figure, ax = plt.subplots(figsize=(8, 3.4))
for run in store.runs("compressed"):
    history = run.history
    ax.plot(history.epoch, history.val_accuracy, lw=1, label=f"seed {run.recipe.seed}")
ax.axvline(first + 0.5, color=style.GREY, ls="--", lw=1)
area = {"alpha": 0.2, "color": style.GREY, "lw": 0, "transform": ax.get_xaxis_transform()}
ax.fill_between(history.epoch, history.lr, **area)
ax.set(xlabel="epoch", ylabel="validation accuracy", yscale="logit")  # logit as above
ax.set_yticks([0.75, 0.85, 0.9, 0.925, 0.95], ["75%", "85%", "90%", "92.5%", "95%"])
ax.minorticks_off()
ax.legend(loc="lower right")
report.show(figure, f"Sparse learning, then fine-tuning. Means: {means}.")

# %% [markdown]
# ## Which parts of the recipe matter?
#
# Neither of the two parts that we left out made a detected difference in the end, where 0.62 points would have been detected. Without
# sparse learning the mean is 0.01 points lower, with labels alone 0.27 points, and both intervals include 0. The ablation changes the recipe in one place at a time, at a smaller budget. All arms end with the same
# widths and are trained for 22 epochs in all, parents included. Differences are read as in notebook 2.

# %%
print(comparisons.study_note(store, "ablation"))
report.table("ablation")

# %%
report.show("ablation")

# %% [markdown]
# ## Does pruning beat the same widths from scratch?
#
# It does not: pruned minus from scratch is -0.25 points on validation. No difference was detected; 0.40 points would have been. Liu et al. (2019, arXiv:1810.05270)
# asked for this control. They found that a network of the pruned widths, trained from random weights, often does as well. Ours trained
# for 98 epochs, as many as the pruned network with its parent.

# %%
difference = comparisons.compare(store, "compressed", "scratch")
print(f"pruned minus from scratch, points: {statistics.told(difference)}")
report.table("results").filter(like="pruned", axis=0)

# %% [markdown]
# ## What does each ratio cost?
#
# From ratio 0.2 on, a higher ratio costs more: the means are 93.75% at ratio 0.2, 93.33% at 0.29, 92.96% at 0.5 and 91.00% at 0.7. Two seeds cannot tell
# neighbours apart. The table
# prunes the distilled network by several ratios, each fine-tuned for few epochs. So its accuracies are below the delivered network's, and
# are compared with one another only. At ratio 0 no channel leaves: what is lost there is the cost of sparse learning and of the short
# schedule. One of its two seeds fared badly in sparse learning, so the place of ratio 0 is uncertain. MACs are multiply-adds for one image, as Torch-Pruning counts them.

# %%
print(nb03_pruning.frontier_note(store))
report.table("frontier")

# %%
report.show("frontier")

# %% [markdown]
# ## Is half the size half the time?
#
# Half the size is not half the time. Parameters and multiply-adds fall by half. For one image no difference in time was detected: the ratio's
# range over the rounds includes 1. `make bench` measured times on the machine that docs/speed.md names. The table's ratio of times is the
# median of the rounds' ratios. Why is the smaller network not faster? Think before you read on.
#
# <details><summary>An answer</summary>
#
# One image is little work. Each layer has a fixed cost, to start it and to pass its numbers through memory. There are as many layers as
# before. Widths such as 11 and 45 also leave parts of the processor's vectors empty.
#
# </details>

# %%
widths = {"ResNet-14": networks.WIDTHS, "pruned": compressed.network().widths}
costs = {name: nb03_pruning.cost(each) for name, each in widths.items()}
table = pd.DataFrame(costs, dtype=float)
table["ratio"] = table.pruned / table["ResNet-14"]
bench = read_json(data.PROJECT / "runs/bench.json")["rows"]
large, small = (row for row in bench if row["unit"] == "ms")
table.loc["ms for one image"] = large["median"], small["median"], small["ratio"]
low, high = small["ratio_low"], small["ratio_high"]
print(f"over the rounds the ratio of times is {low:.2f} to {high:.2f}")
table.map(lambda value: f"{value:,.0f}" if value > 100 else f"{value:.2f}")

# %% [markdown]
# ## What did others reach?
#
# Others report up to 94.48% within the limit, chosen on the test set, and 93.30% as a mean. The table holds what others published, on the test set.
# Numbers that were chosen on the test set are too high. The original's headline, 93.98%, is the best epoch of the best run on the test
# set. The mean of its runs is 93.30%. A user of ResNet-20's code reported its number. The script prints the best test accuracy of all epochs, so
# this may be one.

# %%
Markdown(write.markdown(report.TABLES["others"], store))  # with links

# %% [markdown]
# ## What we learned
#
# Half of the parameters can go, if fine-tuning follows. The accuracy falls right after pruning, mostly because BatchNorm's statistics are
# stale, and comes back. No difference from the same widths, trained from scratch, was detected; 0.40 points would have been.

# %%
gone = 1 - sum(left) / sum(channels)
print(f"The pruner removes {gone:.0%} of the channels and {removed:.1%} of the parameters.")
raised = {"": "with sparse learning", "_without_sparse_learning": "without sparse learning"}
for way, words in raised.items():
    low = compressed.at_phase("pruned" + way)
    high = compressed.at_phase("recalibrated" + way)
    print(f"Recalibration raises the delivered run {words} from {low:.2%} to {high:.2%}.")

# %%
direct, control = ("pruned_directly", "pruned"), ("compressed", "scratch")
rows = {
    "Without sparse learning minus the whole recipe, in the ablation": direct,
    "Pruned minus the same widths from scratch": control,
}
for what, pair in rows.items():
    print(f"{what}: {statistics.told(comparisons.compare(store, *pair))} points")

# %% [markdown]
# ## Try it yourself
#
# Predict first, then compute.
#
# 1. **Another ratio** (2 minutes, easy). Which widths and how many parameters does ratio 0.4 leave?
# 2. **Room to spare** (5 minutes, easy). The widths are 11/11/22/45. How many channels could the last stage have with at most 100,000
#    parameters?
# 3. **In two steps** (5 minutes, medium). Prune by 0.2, then by 0.1. Are the widths those of ratio 0.3?
#
# <details><summary>Solutions</summary>
#
# ```python
# narrow = pruning.prune(distilled.network(), 0.4)
# assert narrow.widths == (9, 9, 19, 38) and networks.count_parameters(narrow) == 61_874
#
# counts = {}
# for last in range(45, 65):
#     counts[last] = networks.count_parameters(networks.ResNet14((11, 11, 22, last)))
# assert max(last for last, count in counts.items() if count <= 100_000) == 50
#
# twice = pruning.prune(pruning.prune(distilled.network(), 0.2), 0.1)
# assert twice.widths == (10, 10, 22, 45)  # 0.8 x 0.9 is 0.72, rounded down twice
# assert twice.widths != pruning.narrowed(networks.WIDTHS, 0.3)
# ```
#
# </details>
