# %% [markdown]
# # Building brains: one net, every strategy
#
# A small convolutional net learns to tell pictures apart, again and again: alone, and by every way that braidwater knows of
# spreading a training over workers. Before each training the planner says what it will cost; afterwards both stand side by
# side with the bytes that the workers sent and what the net has learnt.
#
# The pictures are those of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017) where the folder `BRAIDWATER_DATA` has them, and
# scikit-learn's handwritten digits where it does not. This page was written by `python docs/tutorials/render.py`, which runs
# `building_brains.py` cell by cell.

# %%
import gzip
import os
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

import braidwater as bw
from braidwater.deep import CNN
from braidwater.options import format_bytes
from braidwater.parallel import (
    DiLoCo,
    ElasticAveraging,
    Ensemble,
    Hierarchical,
    Mesh,
    ParameterServer,
    Pipeline,
    Sharded,
    SpatialParallel,
    TensorParallel,
)
from braidwater.planner import Plan
from braidwater.report.charts import Series, line_chart

# %% [markdown]
# ## The pictures as a table
# A picture is a value of a column: here bytes, 784 or 64 of them a row. It could as well be a column of a Parquet file or of a
# database; a training reads it once and then from its blocks.


# %%
def read_pictures(most: int = 8_000) -> tuple[np.ndarray, np.ndarray]:
    """Pictures ``(rows, height, width)`` as bytes, and their classes."""
    folder = Path(os.environ.get("BRAIDWATER_DATA", "")) / "fashion_mnist"
    if not folder.is_dir():
        digits = load_digits()
        return digits.images.astype(np.uint8), digits.target
    with (
        gzip.open(folder / "train-images-idx3-ubyte.gz") as images,
        gzip.open(folder / "train-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        return pixels[:most], np.frombuffer(labels.read(), np.uint8, offset=8)[:most]


pictures, classes = read_pictures()
shape = pictures.shape[1:]
table = bw.table(pa.table({"picture": pa.array([one.tobytes() for one in pictures]), "class": classes}))
train, test = bw.train_test_split(table, test=0.25, seed=0)
print(
    f"{len(pictures):,} pictures of {shape[0]} x {shape[1]}, {len(set(classes.tolist()))} classes; {os.cpu_count()} cores"
)

# %% [markdown]
# ## One training, and what it will cost
# Everything but the strategy is the same in all trainings. Nothing is trained yet: `explain` looks at the table and at the net.

# %%
EPOCHS = 3
columns = {"label": "class", "features": {"picture": bw.Image(shape)}}
settings = {"epochs": EPOCHS, "batch_size": 64, "learning_rate": 3e-3, "metrics": ("accuracy",)}
print(bw.explain(bw.Trainer(CNN, **settings), train, **columns))

# %% [markdown]
# Of strategies that learn what one worker would learn the planner takes the fastest. A training of some seconds is soonest done
# in one process, because processes take seconds to start; their price is in the table all the same. Which strategies get ahead
# of one process depends on the epochs, the net and the machine: that is what the plan is for.
#
# Now the first training. It also gets out of the way what only the first one pays (compiled code, imports).

# %%
trainer = bw.Trainer(CNN, strategy="single", **settings).fit(train, validation=test, **columns)
for record in trainer.history_:
    print(
        f"epoch {record['epoch']}: loss {record['loss']:.4f}, "
        f"of held-out rows {record['validation_loss']:.4f}, accuracy {record['validation_accuracy']:.3f}"
    )

# %% [markdown]
# ## Every strategy
# Two workers each. What the strategies are for is told in [the guide](../parallel.md). An ensemble needs a net with members:
# here two of the same convolutional nets, each of which sees one half of the rows.

# %%
strategies = {
    "single": bw.Single(),
    "all_reduce": bw.AllReduce(workers=2),
    "all_reduce, bf16": bw.AllReduce(workers=2, compression="bf16"),
    "sharded": Sharded(workers=2, min_parameters=1_000),
    "tensor_parallel": TensorParallel(workers=2),
    "spatial": SpatialParallel(workers=2),
    "pipeline": Pipeline(workers=2),
    "mesh, 2 x data": Mesh(data=2),
    "averaging, epoch": bw.Averaging(workers=2),
    "averaging, 8 steps": bw.Averaging(workers=2, every=8),
    "hierarchical": Hierarchical(groups=2, group_size=1),
    "diloco, 16 steps": DiLoCo(workers=2, every=16),
    "elastic_averaging": ElasticAveraging(workers=2),
    "parameter_server": ParameterServer(workers=2),
    "ensemble": Ensemble(workers=2),
}


def trainer_of(strategy):
    if isinstance(strategy, Ensemble):
        arguments = {"modules": ["CNN"], "members": 2}
        return bw.Trainer(
            "braidwater.deep.ensembles:ensemble", module_arguments=arguments, strategy=strategy, **settings
        )
    return bw.Trainer(CNN, strategy=strategy, **settings)


plans = {name: trainer_of(strategy).explain(train, **columns) for name, strategy in strategies.items()}


def foreseen(plan: Plan) -> float:
    """Seconds of the whole training, as estimated."""
    return plan.root.estimated.seconds


named = min(plans, key=lambda name: foreseen(plans[name]))
print(f"the plan says: fastest will be {named!r}, in {foreseen(plans[named]):.2f} s")

# %% [markdown]
# The plan has spoken; now the trainings. The figures come from the same events that progress bars and reports listen to.


# %%
def train_by(strategy):
    """A trained trainer, and the bytes that worker 0 sent."""
    seen = []
    with bw.listen(seen.append):
        trained = trainer_of(strategy).fit(train, validation=test, **columns)
    sent = sum(event.value for event in seen if getattr(event, "name", "") == "bytes_exchanged")
    return trained, int(sent)


results = {name: train_by(strategy) for name, strategy in strategies.items()}

# %%
took = {name: trained.plan_.root.measured.seconds for name, (trained, _) in results.items()}
print(f"{'':22} {'planned':>9} {'took':>9} {'an epoch':>9} {'sent':>9} {'loss':>8} {'accuracy':>9}")
for name in sorted(took, key=took.get):
    trained, sent = results[name]
    last = trained.history_[-1]
    epoch = median(record["seconds"] for record in trained.history_)
    print(
        f"{name:22} {foreseen(plans[name]):7.2f} s {took[name]:7.2f} s {epoch:7.2f} s {format_bytes(sent):>9} "
        f"{last['validation_loss']:8.4f} {last['validation_accuracy']:9.3f}"
    )
fastest = min(took, key=took.get)
print(f"\nfastest: {fastest!r}; the plan had named {named!r}")

# %% [markdown]
# *Planned* and *took* are the whole training, the start of processes included; *an epoch* is the median without it. *Sent* is
# what worker 0 handed to others (of the parameter server: what its server received and sent; averaging by epochs is done by
# threads of one process, which send nothing); *loss* and *accuracy* are of the held-out rows.
#
# Strategies that part the rows of a step, or the net, and sum what they must (all-reduce, sharded, tensor, spatial, pipeline,
# mesh) end at the loss of one process, to the rounding of float32; bf16 rounds what is sent. Those that leave the workers on
# their own for a while send less, and learn something else:

# %%
shown = {
    "all_reduce": "all_reduce",
    "averaging": "averaging, epoch",
    "diloco": "diloco, 16 steps",
    "elastic": "elastic_averaging",
    "server": "parameter_server",
}


def curve(title: str, name: str) -> Series:
    losses = [record["validation_loss"] for record in results[name][0].history_]
    return Series(title, range(1, EPOCHS + 1), losses)


picture = line_chart(
    "loss of held-out rows after each epoch",
    [curve(title, name) for title, name in shown.items()],
    x_label="epoch",
    y_label="loss",
    whole_x=True,
)

# %% [markdown]
# ## What follows
# - `strategy="auto"` takes the fastest of those that change nothing but the time. It is the default.
# - The others are asked for by name, where workers are joined by slow lines, or a worker may come and go.
# - `Averaging(every="epoch")` on a table in the order of its classes fails, and the plan says so before it starts: see
#   [shards that are not alike](../parallel.md#shards-that-are-not-alike).
