"""Write the tables of docs/paper.md, and some of README.md and docs/benchmarks.md, from the JSON.

    python benchmarks/paper/render.py

Replaces what stands between ``<!-- NAME -->`` and ``<!-- end -->``. A cell is the mean over the
seeds that the results have, with the standard deviation (n - 1) where there are several; an empty
cell has not been measured.
"""

import json
import re
from dataclasses import asdict

import ablations
import best
import components
import defaults
import few_labels
import manifolds
import numpy as np
import short_cifar
import table_1
import table_3
import tried
import tried_rates
from common import HERE, Results
from mnist import CLASSIFIERS, mixture, single_vaes

ROOT = HERE.parents[1]
EPOCHS, CIFAR_EPOCHS = 10, 40
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
PAPER_TABLE_1 = {1: 13.44, 7: 11.54, 8: 10.20, 10: 9.17}
PAPER_TABLE_2 = {
    "Mixture": (96.59, 93.37, 97.17),
    "C1": (95.15, 90.78, 96.56),
    "C2": (94.67, 90.11, 96.39),
    "C3": (94.68, 89.83, 96.63),
    "C4": (94.30, 89.72, 96.45),
    "VAE": (95.35, 90.23, 96.34),
}


class Cells:
    """Values by settings, over all seeds that were run."""

    def __init__(self, name):
        self._records = Results(name).records

    def values(self, settings, key):
        """The values of ``key`` for ``settings``, whatever the seed."""
        found = []
        for record in self._records:
            given = {k: v for k, v in record["settings"].items() if k not in ("seed", "measure")}
            wanted = {k: v for k, v in settings.items() if k not in ("seed", "measure")}
            if given == wanted and key in record["values"]:
                found.append(record["values"][key])
        return found

    def cell(self, settings, key, digits=2):
        return _cell(self.values(settings, key), digits)


def _cell(values, digits):
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean}{PLUS_MINUS}{np.std(values, ddof=1):.{digits}f}"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def reconstruction():
    """Table I."""
    cells = Cells("mnist")
    rows = []
    for name, settings in table_1.settings(EPOCHS, 0).items():
        k = settings["k"]
        paper = PAPER_TABLE_1.get(k) if name.startswith("M-VAE") or name == "VAE, d = 20" else None
        rows.append(
            [
                name,
                cells.cell(settings, "MSE"),
                "" if paper is None else f"{paper:.2f}",
                _best_component(cells.values(settings, "MSE of components")) if k > 1 else "",
                cells.cell(settings, "effective components") if k > 1 else "",
                cells.cell(settings, "bound", 1),
            ]
        )
    header = [
        "model",
        "MSE",
        "paper",
        "best component alone",
        "effective components",
        "bound, nats",
    ]
    return _table(header, rows)


def _best_component(values):
    return _cell([min(components) for components in values], 2)


def classification():
    """Table II."""
    cells, pca = Cells("mnist"), Cells("mnist_pca")
    model = mixture(epochs=EPOCHS, seed=0)
    rows = [["**M-VAE, all 80 codes**", *_accuracies(cells, model), cells.cell(model, "MSE")]]
    for i, place in enumerate(("heaviest", "second", "third", "lightest")):
        row = [f"{place} component alone"]
        for name in CLASSIFIERS:
            row.append(_cell(_by_weight(cells, model, f"{name} of components", i), 2))
        rows.append([*row, _cell(_by_weight(cells, model, "MSE of components", i), 2)])
    for name, settings in single_vaes(k=4, epochs=EPOCHS, seed=0).items():
        rows.append([name, *_accuracies(cells, settings), cells.cell(settings, "MSE")])
    for name, settings in (("PCA, 80", {"columns": 80}), ("pixels", {"columns": 784})):
        rows.append([name, *_accuracies(pca, settings), pca.cell(settings, "MSE")])
    for name, values in PAPER_TABLE_2.items():
        rows.append([f"*paper: {name}*", *(f"*{v:.2f}*" for v in values), ""])
    return _table(["features", "MLP", "linear SVM", "KNN (5)", "MSE"], rows)


def headline():
    """Table II in short, with the objectives and KL weights of the page on few labels."""
    cells, pca = Cells("mnist"), Cells("mnist_pca")
    rows = [
        [name, *_accuracies(cells, settings), cells.cell(settings, "MSE")]
        for name, settings in few_labels.settings(EPOCHS, 0).items()
    ]
    ours = mixture(epochs=EPOCHS, seed=0, objective="mixture")
    row = ["M-VAE, mixture, KL weight 1", *_accuracies(cells, ours), cells.cell(ours, "MSE")]
    rows.insert(4, row)
    rows.append(["PCA, 80", *_accuracies(pca, {"columns": 80}), pca.cell({"columns": 80}, "MSE")])
    rows.append(["*paper: M-VAE*", *(f"*{v:.2f}*" for v in PAPER_TABLE_2["Mixture"]), ""])
    return _table(["features", "MLP", "linear SVM", "KNN (5)", "MSE"], rows)


def _accuracies(cells, settings):
    return [cells.cell(settings, name) for name in CLASSIFIERS]


def _by_weight(cells, settings, key, place):
    """Of the component with the ``place``-th largest mean weight, for each seed."""
    pairs = zip(cells.values(settings, key), cells.values(settings, "weights"), strict=True)
    return [values[np.argsort(weights)[::-1][place]] for values, weights in pairs]


def ablation():
    """What the objective, the KL weight and beta do to reconstructions and classifiers."""
    cells = Cells("mnist")
    rows = [
        [
            name,
            cells.cell(settings, "MSE"),
            _best_component(cells.values(settings, "MSE of components")),
            *_accuracies(cells, settings),
            cells.cell(settings, "bound", 1),
        ]
        for name, settings in ablations.settings(EPOCHS, 0).items()
    ]
    header = ["setting", "MSE", "best component", "MLP", "linear SVM", "KNN (5)", "bound, nats"]
    return _table(header, rows)


def sharing():
    """What they do to the components and their codes."""
    cells = Cells("mnist")
    rows = [
        [
            name,
            cells.cell(settings, "effective components"),
            cells.cell(settings, "dHSIC", 4),
            cells.cell(settings, "NMI of k-means"),
            cells.cell(settings, "NMI of components"),
        ]
        for name, settings in ablations.settings(EPOCHS, 0).items()
    ]
    header = ["setting", "effective components", "dHSIC", "NMI, k-means", "NMI, components"]
    return _table(header, rows)


def labels():
    """Few labels."""
    cells = Cells("few_labels")
    rows_of = {
        **few_labels.settings(EPOCHS, 0),
        "PCA, 80": {"features": "PCA", "columns": 80},
        "pixels": {"features": "pixels"},
    }
    rows = []
    for classifier in ("scaled SVM", "SVM", "KNN"):
        for name, settings in rows_of.items():
            row = [classifier, name]
            for n in few_labels.LABELS:
                row.append(_of_draws(cells.values(settings, f"{classifier}, {n}")))
            rows.append(row)
    return _table(["classifier", "features", *(f"{n:,}" for n in few_labels.LABELS)], rows)


def _of_draws(values):
    """Mean, and the mean spread over the draws of the labels, from the draws of each seed."""
    if not values:
        return ""
    mean = f"{np.mean(values):.1f}"
    if np.shape(values)[1] == 1:
        return mean
    return f"{mean}{PLUS_MINUS}{np.std(values, axis=1, ddof=1).mean():.1f}"


def best_setting():
    """Convolutions on MNIST, many labels and few."""
    cells, of_labels = Cells("mnist"), Cells("few_labels")
    rows = []
    for name, settings in best.settings(EPOCHS, 0).items():
        few = [
            _of_draws(of_labels.values(settings, key)) for key in ("scaled SVM, 100", "SVM, 1000")
        ]
        rows.append(
            [
                name,
                *_accuracies(cells, settings),
                *few,
                cells.cell(settings, "MSE"),
                cells.cell(settings, "bound", 1),
            ]
        )
    header = ["features", "MLP", "linear SVM", "KNN (5)", "scaled SVM, 100 labels"]
    header += ["linear SVM, 1,000 labels", "MSE", "bound, nats"]
    return _table(header, rows)


def tables():
    """Scores on scikit-learn's tables."""
    cells = Cells("defaults")
    rows_of = {"columns": {"features": "columns"}, "PCA": {"features": "PCA"}}
    for settings in defaults.codes(100):
        kind = "M-VAE" if settings["k"] > 1 else "VAE, d = 80"
        rows_of[f"{kind}, {settings['objective']}, KL weight {settings['kl_weight']:g}"] = settings
    rows = [
        [name]
        + [
            " / ".join(
                cells.cell({"table": table, **settings}, key, 1) for key in ("linear", "KNN")
            )
            for table in defaults.TABLES
        ]
        for name, settings in rows_of.items()
    ]
    return _table(["features", *defaults.TABLES], rows)


def cifar():
    """Table III."""
    cells = Cells("cifar10")
    real = cells.values({"features": "real test images"}, "inception score")
    rows = []
    for name, settings in table_3.models(CIFAR_EPOCHS, 0).items():
        settings["data"] = "CIFAR-10, JPEG copy"
        row = [name, cells.cell(settings, "RMSE")]
        for key in ("inception score", "inception score of samples"):
            values = cells.values(settings, key)
            row.append(_cell(values, 2))
            row.append(_cell([v / real[0] for v in values], 2) if real else "")
        rows.append([*row, cells.cell(settings, "effective components")])
    accuracy = cells.values({"features": "classifier"}, "accuracy")
    named = f"real test images; classifier right on {_cell([100 * a for a in accuracy], 1)} %"
    rows.append([named, "0", _cell(real, 2), "1", "", "", ""])
    rows.append(["*paper: M-VAE*", "*3.17*", "*5.96*", "", "", "", ""])
    header = ["", "RMSE", "IS of reconstructions", "of real", "IS of samples", "of real"]
    header += ["effective components"]
    return _table(header, rows)


def specialising():
    """Ideas for components that specialise."""
    cells = Cells("tried")
    columns = {
        "effective components": ("effective components", 2),
        "linear SVM, 20,000 labels": ("SVM", 2),
        "KNN (5)": ("KNN", 2),
        "scaled SVM, 100 labels": ("scaled SVM, 100", 1),
        "LabelSpreading, 100 labels": ("LabelSpreading, 100", 1),
        "LabelSpreading, 1,000 labels": ("LabelSpreading, 1000", 1),
        "MSE": ("MSE", 2),
        "bound, nats": ("bound", 1),
        "accuracy, components": ("accuracy of components", 2),
        "NMI, components": ("NMI of components", 2),
    }
    rows = [
        [name, str(idea.k), str(idea.epochs)]
        + [cells.cell(asdict(idea), key, digits) for key, digits in columns.values()]
        for name, idea in tried.IDEAS
    ]
    return _table(["idea", "K", "epochs", *columns], rows)


def objectives():
    """What the objectives of ours give, beside the paper's and a single VAE."""
    cells = Cells("mnist")
    rows = []
    for name, settings in components.settings(EPOCHS, 0).items():
        few = [
            _of_draws(cells.values(settings, key))
            for key in ("scaled SVM, 100", "LabelSpreading, 100", "LabelSpreading, 1000")
        ]
        of_mixture = [
            cells.cell(settings, key, digits) if settings["k"] > 1 else ""
            for key, digits in (
                ("effective components", 2),
                ("accuracy of components", 1),
                ("NMI of components", 2),
            )
        ]
        errors = [cells.cell(settings, "MSE"), cells.cell(settings, "bound", 1)]
        rows.append([name, *_accuracies(cells, settings), *few, *errors, *of_mixture])
    header = ["features", "MLP", "linear SVM", "KNN (5)", "scaled SVM, 100 labels"]
    header += [f"LabelSpreading, {n} labels" for n in ("100", "1,000")]
    header += ["MSE", "bound, nats", "effective components", "accuracy, components"]
    return _table([*header, "NMI, components"], rows)


def sheets():
    """Rows on three curved sheets: apart / crossing."""
    cells = Cells("manifolds")
    columns = {"bound": 1, "MSE": 2, "ARI": 2, "effective components": 2}
    rows = []
    for name in manifolds.settings(80, 0, "apart"):
        row = [name]
        for key, digits in columns.items():
            of_sheets = (
                cells.cell(manifolds.settings(80, 0, sheets)[name], key, digits)
                for sheets in manifolds.APART
            )
            row.append(
                ""
                if name.startswith("VAE") and key in ("ARI", "effective components")
                else " / ".join(of_sheets).strip(" /")
            )
        rows.append(row)
    return _table(["model", *columns], rows)


def short_images():
    """CIFAR-10 in four epochs."""
    cells = Cells("short_cifar")
    rows = []
    for name, settings in short_cifar.settings(4, 0).items():
        settings["data"] = "CIFAR-10, JPEG copy"
        cell = [cells.cell(settings, key) for key in ("RMSE", "effective components")]
        rows.append([name, *cell, cells.cell(settings, "seconds", 0)])
    return _table(["four epochs", "RMSE", "effective components", "seconds"], rows)


def rates():
    """Learning rates for short fits."""
    cells = Cells("tried_rates")
    columns = {"SVM": 2, "KNN": 2, "MSE": 2, "bound": 1, "seconds": 0}
    rows = [
        [
            f"{idea.share}, {idea.learning_rate:g}",
            f"{idea.betas[0]}, {idea.betas[1]}",
            str(idea.batch_size),
            str(idea.epochs),
        ]
        + [cells.cell(tried_rates.settings(idea), key, digits) for key, digits in columns.items()]
        for idea in tried_rates.IDEAS
    ]
    header = ["learning rate", "betas", "batch", "epochs", "linear SVM, 20,000 labels"]
    return _table([*header, "KNN (5)", "MSE", "bound, nats", "seconds"], rows)


class Times:
    """Figures of time_to_quality.py by the start of their keys, over all seeds that were run."""

    def __init__(self, kind="avx512_bf16"):
        path = ROOT / "benchmarks" / "results" / f"time_to_quality_{kind}.json"
        self._figures = json.loads(path.read_text())

    def values(self, start, key):
        return [
            figures[key]
            for name, figures in self._figures.items()
            if name == start or name.startswith(f"{start}, seed")
        ]

    def fits_on_mnist(self):
        found = (re.match(r"mnist, ((?:now|before), \d+ epochs)", name) for name in self._figures)
        names = {match[1] for match in found if match}
        return sorted(names, key=lambda n: (n.startswith("before"), int(n.split()[1])))

    def cell(self, start, key, digits):
        return _cell(self.values(start, key), digits)

    def seconds(self, start, digits=1):
        values = self.values(start, "seconds")
        return f"{np.median(values):.{digits}f}" if values else ""


def times_on_mnist():
    """Seconds and what they buy."""
    times = Times()
    fits = times.fits_on_mnist()
    (epoch,) = times.values("mnist, obvious, an epoch", "seconds")
    rows = []
    for fit in ["PCA", *fits]:
        is_before = fit.startswith("before")
        obvious = f"{epoch * int(fit.split()[1]):.0f}" if is_before else ""
        rows.append(
            [fit.replace("PCA", "PCA, 80"), times.seconds(f"mnist, {fit}"), obvious]
            + [times.cell(f"mnist, {fit}", key, 2) for key in ("MLP", "SVM", "KNN", "MSE")]
        )
    header = ["fit", "seconds", "obvious version", "MLP", "linear SVM", "KNN (5)", "MSE"]
    return _table(header, rows)


def times_in_short():
    """Three of the below."""
    times = Times()
    fits = {
        "digits, default `fit`": ("digits, now", "digits, before"),
        "digits, the search above": ("search, now", "search, before"),
        "MNIST, 5 epochs now, 10 before": ("mnist, now, 5 epochs", "mnist, before, 10 epochs"),
    }
    rows = [[name, *(times.seconds(start) for start in starts)] for name, starts in fits.items()]
    return _table(["seconds", "now", "plain Adam"], rows)


def times_by_processor():
    """Seconds now and before, and their ratio."""
    pairs = {
        "MNIST, 2 epochs now, 6 before": ("mnist, now, 2 epochs", "mnist, before, 6 epochs"),
        "MNIST, 5 epochs now, 10 before": ("mnist, now, 5 epochs", "mnist, before, 10 epochs"),
        **{table: (f"{table}, now", f"{table}, before") for table in defaults.TABLES},
        "the README's search": ("search, now", "search, before"),
    }
    rows = []
    for name, (now, before) in pairs.items():
        row = [name]
        for kind in ("avx512_bf16", "amx_bf16"):
            times = Times(kind)
            seconds = [np.median(times.values(start, "seconds")) for start in (now, before)]
            row += [f"{seconds[0]:.1f}", f"{seconds[1]:.1f}", f"{seconds[0] / seconds[1]:.2f}"]
        rows.append(row)
    header = ["fit", "AMD: now", "before", "ratio", "Intel, AMX: now", "before", "ratio"]
    return _table(header, rows)


def times_on_mnist_with_amx():
    """What is bought there."""
    times = Times("amx_bf16")
    keys = ("MLP", "SVM", "KNN", "MSE")
    rows = [
        [fit, times.seconds(f"mnist, {fit}"), *(times.cell(f"mnist, {fit}", k, 2) for k in keys)]
        for fit in times.fits_on_mnist()
    ]
    return _table(["fit", "seconds", "MLP", "linear SVM", "KNN (5)", "MSE"], rows)


def times_on_tables():
    """Default fits: seconds, and accuracy (R^2 for diabetes) of a linear model and of KNN."""
    times = Times()
    rows = []
    for table in defaults.TABLES:
        row = [table]
        for name in ("now", "before", "PCA"):
            start = f"{table}, {name}"
            scores = " / ".join(times.cell(start, key, 1) for key in ("linear", "KNN"))
            row += [scores] if name == "PCA" else [times.seconds(start), scores]
        rows.append(row)
    header = ["table", "now, s", "linear / KNN", "before, s", "linear / KNN", "PCA, linear / KNN"]
    return _table(header, rows)


def times_of_searches():
    """Seconds and the best score."""
    times = Times()
    names = {
        "search, now": "README, 15 epochs",
        "search, before": "README, before, 20 epochs",
        "search of C": "four values of the SVM's C",
        "search of C, memory": "the same, `Pipeline(memory=...)`",
        "search of nine, grid": "nine candidates, `GridSearchCV`, 36 epochs",
        "search of nine, halving": "the same, `HalvingGridSearchCV`, 4 to 36 epochs",
    }
    rows = [
        [name, times.seconds(key), times.cell(key, "best score", 1)] for key, name in names.items()
    ]
    return _table(["search", "seconds", "best score, %"], rows)


def kept_with_amx(name):
    path = ROOT / "benchmarks" / "results" / f"{name}_amx_bf16.json"
    return json.loads(path.read_text())


def chunks():
    """Ten passes over MNIST in chunks or at once: means over the seeds."""
    kept = kept_with_amx("streaming")
    digits = {"MLP": 1, "SVM": 1, "KNN": 1, "MSE": 2, "bound": 1}
    rows = []
    for way in ("partial_fit", "fit", "fit, constant"):
        of_way = [value for name, value in kept.items() if name.startswith(f"{way}, seed")]
        cells = [_cell([seed[name] for seed in of_way], n) for name, n in digits.items()]
        rows.append([way, *cells])
    return _table(["", "MLP", "linear SVM", "KNN (5)", "MSE", "bound, nats"], rows)


def scaling_measured():
    """Milliseconds of a step, and rows a second in units of those of one process."""
    rows = []
    for name, kept in kept_with_amx("scaling").items():
        if match := re.search(r"(\d+) rows a process", name):
            times = [f"{kept['milliseconds'][key]:.0f}" for key in ("alone", "weak", "strong")]
            gains = [f"{kept[f'{key}, times the rows a second']:.2f}" for key in ("weak", "strong")]
            share = f"{100 * kept['share of communication, weak']:.0f} %"
            rows.append([match[1], times[0], times[1], gains[0], share, times[2], gains[1]])
    header = ["rows", "one process, ms", "two with as many each, ms", "rows a second"]
    header += ["of it sums over ranks", "two with half each, ms", "rows a second"]
    return _table(header, rows)


def scaling_predicted():
    """Efficiency by speed of a device, rows and link."""
    kept = kept_with_amx("scaling")
    rows = [
        [*name.split(", "), *(f"{100 * value:.0f} %" for value in values)]
        for name, values in kept["predicted efficiency"].items()
    ]
    ranks = [f"{n} ranks" for n in kept["ranks"]]
    return _table(["device", "rows a rank", "link", *ranks], rows)


def scaling_of_shapes():
    """Efficiency by the size of the network, on 64 fast devices."""
    names = {
        "128 rows": "128 rows a rank",
        "1024 rows": "1,024 rows a rank",
        "1024 rows, bfloat16": "1,024, sums in bfloat16",
        "8192 rows": "8,192 rows a rank",
    }
    rows = []
    for shape, kept in kept_with_amx("scaling")["predicted efficiency, shapes"].items():
        sizes = [f"{kept['megabytes of gradients']:.0f}"]
        sizes.append(f"{kept['milliseconds of 1024 rows alone']:.2f}")
        rows.append([shape, *sizes, *(f"{100 * kept[name]:.0f} %" for name in names)])
    header = ["network", "gradients, MB", "1,024 rows alone, ms", *names.values()]
    return _table(header, rows)


def larger_minibatches():
    """What a few epochs of MNIST give."""
    rows = []
    for name, kept in kept_with_amx("scaling").items():
        if name.startswith("minibatches of"):
            sizes = re.findall(r"\d+", name)
            rows.append([*sizes, f"{kept['bound']:.1f}", f"{kept['SVM']:.2f}"])
    header = ["rows a minibatch", "times the learning rate", "epochs", "bound, nats", "linear SVM"]
    return _table(header, rows)


TABLES = {
    "table 1": reconstruction,
    "table 2": classification,
    "headline": headline,
    "best": best_setting,
    "ablations": ablation,
    "sharing": sharing,
    "few labels": labels,
    "tables": tables,
    "table 3": cifar,
    "objectives": objectives,
    "sheets": sheets,
    "tried": specialising,
    "short images": short_images,
    "rates": rates,
    "times, mnist": times_on_mnist,
    "times, tables": times_on_tables,
    "times, short": times_in_short,
    "times, AMX": times_on_mnist_with_amx,
    "times, processors": times_by_processor,
    "times, searches": times_of_searches,
    "chunks": chunks,
    "scaling": scaling_measured,
    "scaling, predicted": scaling_predicted,
    "scaling, shapes": scaling_of_shapes,
    "minibatches": larger_minibatches,
}


PAGES = (
    *(ROOT / "docs" / name for name in ("paper.md", "benchmarks.md", "scale.md")),
    ROOT / "README.md",
)


def rendered(text):
    """The text with its tables replaced."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}\n{t()}\n\n{m[2]}", text, flags=re.DOTALL)
    return text


def main():
    for page in PAGES:
        page.write_text(rendered(page.read_text()))


if __name__ == "__main__":
    main()
