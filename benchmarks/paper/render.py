"""Writes the tables of the README and of the pages of docs from the JSON.

    python benchmarks/paper/render.py

Replaces the text between ``<!-- NAME -->`` and ``<!-- end -->``. A cell is the mean over the seeds
in the results, with the standard deviation (n - 1) if there are several; an empty cell was not
measured.
"""

import json
import re
import sys

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
from common import HERE, Results
from mnist import CLASSIFIERS, mixture, single_vaes

sys.path.append(str(HERE.parent))
import choosing
import missing
import neighbours
import parts

ROOT = HERE.parents[1]
PAGES = (
    *(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "choosing", "paper", "scale")),
    ROOT / "README.md",
)
EPOCHS, PAPER_EPOCHS, CIFAR_EPOCHS, CIFAR = 10, 100, 40, {"data": "CIFAR-10, JPEG copy"}
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
ACCURACIES = dict.fromkeys(CLASSIFIERS, 2)
ACCURACY_HEADER = ["MLP", "linear SVM", "KNN (5)"]
PAPER_TABLE_1 = {
    "M-VAE, K = 7": "11.54",
    "M-VAE, K = 8": "10.20",
    "M-VAE, K = 10": "9.17",
    "VAE, d = 20": "13.44",
}
PAPER_TABLE_2 = {
    "Mixture": (96.59, 93.37, 97.17),
    "C1": (95.15, 90.78, 96.56),
    "C2": (94.67, 90.11, 96.39),
    "C3": (94.68, 89.83, 96.63),
    "C4": (94.30, 89.72, 96.45),
    "VAE": (95.35, 90.23, 96.34),
}

TABLES = {}


def table(name):
    """Register a function that returns (header, rows) as the table of that name."""

    def register(function):
        TABLES[name] = function
        return function

    return register


def rendered(text):
    """The text with its tables replaced."""
    for name, function in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(
            pattern, lambda m, f=function: f"{m[1]}\n{_markdown(*f())}\n\n{m[2]}", text, flags=re.S
        )
    return text


def _markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Cells:
    """Values of a file of results by settings, over all seeds."""

    def __init__(self, name):
        self._records = Results(name).records

    def values(self, settings, key):
        """The values of ``key`` for ``settings``, one per seed."""
        found = []
        for record in self._records:
            given = {k: v for k, v in record["settings"].items() if k not in ("seed", "measure")}
            wanted = {k: v for k, v in settings.items() if k not in ("seed", "measure")}
            if given == wanted and key in record["values"]:
                found.append(record["values"][key])
        return found

    def cell(self, settings, key, digits=2):
        return _cell(self.values(settings, key), digits)

    def row(self, settings, columns):
        """The cells of ``columns``, which gives the digits by key."""
        return [self.cell(settings, key, digits) for key, digits in columns.items()]

    def of_draws(self, settings, *keys):
        return [_of_draws(self.values(settings, key)) for key in keys]

    def best_component(self, settings):
        return _cell([min(values) for values in self.values(settings, "MSE of components")])

    def of_place(self, settings, key, place):
        """Mean of ``key`` over the component with the ``place``-th largest weight of each seed."""
        pairs = zip(self.values(settings, key), self.values(settings, "weights"), strict=True)
        return _cell([values[np.argsort(weights)[::-1][place]] for values, weights in pairs])


def _cell(values, digits=2):
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean}{PLUS_MINUS}{np.std(values, ddof=1):.{digits}f}"


def _of_draws(values):
    """Mean, and the spread over the draws of the labels, averaged over the seeds."""
    if not values:
        return ""
    mean = f"{np.mean(values):.1f}"
    if np.shape(values)[1] == 1:
        return mean
    return f"{mean}{PLUS_MINUS}{np.std(values, axis=1, ddof=1).mean():.1f}"


@table("table 1")
def reconstruction():
    cells = Cells("mnist")
    rows = []
    for name, settings in table_1.settings(EPOCHS, 0).items():
        error, effective, bound = cells.row(
            settings, {"MSE": 2, "effective components": 2, "bound": 1}
        )
        use = [cells.best_component(settings), effective] if settings["k"] > 1 else ["", ""]
        rows.append([name, error, PAPER_TABLE_1.get(name, ""), *use, bound])
    header = ["model", "MSE", "paper", "best component alone", "effective components"]
    return [*header, "bound, nats"], rows


def _classified(models):
    """Rows of Table II for settings by name, and the row of PCA."""
    cells, pca = Cells("mnist"), Cells("mnist_pca")
    columns = {**ACCURACIES, "MSE": 2}
    rows = [[name, *cells.row(settings, columns)] for name, settings in models.items()]
    return [*rows, ["PCA, 80", *pca.row({"columns": 80}, columns)]]


def _paper_row(name, key):
    return [f"*paper: {name}*", *(f"*{v:.2f}*" for v in PAPER_TABLE_2[key]), ""]


@table("table 2")
def classification():
    cells, model = Cells("mnist"), mixture(epochs=EPOCHS, seed=0)
    keys = [f"{name} of components" for name in (*CLASSIFIERS, "MSE")]
    whole, *others = _classified(
        {"**M-VAE, all 80 codes**": model, **single_vaes(k=4, epochs=EPOCHS, seed=0)}
    )
    alone = [
        [f"{place} component alone", *(cells.of_place(model, key, i) for key in keys)]
        for i, place in enumerate(("heaviest", "second", "third", "lightest"))
    ]
    pixels = ["pixels", *Cells("mnist_pca").row({"columns": 784}, {**ACCURACIES, "MSE": 2})]
    paper = [_paper_row(name, name) for name in PAPER_TABLE_2]
    return ["features", *ACCURACY_HEADER, "MSE"], [whole, *alone, *others, pixels, *paper]


@table("paper's length")
def papers_length():
    """Means after 10 and after 100 epochs, for the models that were trained for both."""
    cells = Cells("mnist")
    columns = {"MSE": 2, **ACCURACIES, "bound": 1}
    rows = []
    for name, settings in table_1.settings(EPOCHS, 0).items():
        longer = {**settings, "epochs": PAPER_EPOCHS}
        values = [(cells.values(settings, c), cells.values(longer, c)) for c in columns]
        if values[0][1]:
            pairs = [
                " → ".join(f"{np.mean(v):.{digits}f}" for v in pair if v)
                for pair, digits in zip(values, columns.values(), strict=True)
            ]
            rows.append([name, PAPER_TABLE_1.get(name, ""), *pairs])
    return ["model", "paper, MSE", "MSE", *ACCURACY_HEADER, "bound, nats"], rows


@table("ablations")
def ablation():
    cells = Cells("mnist")
    rows = [
        [
            name,
            cells.cell(settings, "MSE"),
            cells.best_component(settings),
            *cells.row(settings, {**ACCURACIES, "bound": 1}),
        ]
        for name, settings in ablations.settings(EPOCHS, 0).items()
    ]
    return ["setting", "MSE", "best component", *ACCURACY_HEADER, "bound, nats"], rows


@table("sharing")
def sharing():
    cells = Cells("mnist")
    columns = {"effective components": 2, "dHSIC": 4, "NMI of k-means": 2, "NMI of components": 2}
    rows = [
        [name, *cells.row(settings, columns)]
        for name, settings in ablations.settings(EPOCHS, 0).items()
    ]
    return ["setting", "effective components", "dHSIC", "NMI, k-means", "NMI, components"], rows


@table("few labels")
def labels():
    cells = Cells("few_labels")
    features = {
        **few_labels.settings(EPOCHS, 0),
        "PCA, 80": {"features": "PCA", "columns": 80},
        "pixels": {"features": "pixels"},
    }
    rows = [
        [kind, name, *cells.of_draws(settings, *(f"{kind}, {n}" for n in few_labels.LABELS))]
        for kind in ("scaled SVM", "SVM", "KNN")
        for name, settings in features.items()
    ]
    return ["classifier", "features", *(f"{n:,}" for n in few_labels.LABELS)], rows


@table("best")
def best_setting():
    cells, few = Cells("mnist"), Cells("few_labels")
    rows = [
        [
            name,
            *cells.row(settings, ACCURACIES),
            *few.of_draws(settings, "scaled SVM, 100", "SVM, 1000"),
            *cells.row(settings, {"MSE": 2, "bound": 1}),
        ]
        for name, settings in best.settings(EPOCHS, 0).items()
    ]
    header = ["features", *ACCURACY_HEADER, "scaled SVM, 100 labels", "linear SVM, 1,000 labels"]
    return [*header, "MSE", "bound, nats"], rows


@table("tables")
def scores_on_tables():
    cells = Cells("defaults")
    features = {"columns": {"features": "columns"}, "PCA": {"features": "PCA"}}
    for settings in defaults.codes(100):
        kind = "M-VAE" if settings["k"] > 1 else "VAE, d = 80"
        features[f"{kind}, {settings['objective']}, KL weight {settings['kl_weight']:g}"] = settings
    columns = {"linear": 1, "KNN": 1}
    rows = [
        [
            name,
            *(" / ".join(cells.row({"table": t, **settings}, columns)) for t in defaults.TABLES),
        ]
        for name, settings in features.items()
    ]
    return ["features", *defaults.TABLES], rows


@table("table 3")
def cifar():
    cells = Cells("cifar10")
    (real,) = cells.values({"features": "real test images"}, "inception score")
    (accuracy,) = cells.values({"features": "classifier"}, "accuracy")
    rows = []
    for name, settings in table_3.models(CIFAR_EPOCHS, 0).items():
        row = [name, cells.cell(settings | CIFAR, "RMSE")]
        for key in ("inception score", "inception score of samples"):
            values = cells.values(settings | CIFAR, key)
            row += [_cell(values), _cell([value / real for value in values])]
        rows.append([*row, cells.cell(settings | CIFAR, "effective components")])
    name = f"real test images; classifier right on {100 * accuracy:.1f} %"
    rows.append([name, "0", f"{real:.2f}", "1", "", "", ""])
    rows.append(["*paper: M-VAE*", "*3.17*", "*5.96*", "", "", "", ""])
    header = ["", "RMSE", "IS of reconstructions", "of real", "IS of samples", "of real"]
    return [*header, "effective components"], rows


@table("short images")
def short_images():
    cells = Cells("short_cifar")
    columns = {"RMSE": 2, "effective components": 2, "seconds": 0}
    rows = [
        [name, str(epochs), *cells.row(settings | CIFAR, columns)]
        for epochs in (4, 20)
        for name, settings in short_cifar.settings(epochs, 0).items()
    ]
    return ["model", "epochs", *columns], [row for row in rows if row[2]]


@table("objectives")
def objectives():
    cells = Cells("mnist")
    use = {"effective components": 2, "accuracy of components": 1, "NMI of components": 2}
    few = ("scaled SVM, 100", "LabelSpreading, 100", "LabelSpreading, 1000")
    rows = [
        [
            name,
            *cells.row(settings, ACCURACIES),
            *cells.of_draws(settings, *few),
            *cells.row(settings, {"MSE": 2, "bound": 1}),
            *(cells.row(settings, use) if settings["k"] > 1 else [""] * len(use)),
        ]
        for name, settings in components.settings(EPOCHS, 0).items()
    ]
    header = ["features", *ACCURACY_HEADER, "scaled SVM, 100 labels"]
    header += [f"LabelSpreading, {n} labels" for n in ("100", "1,000")]
    header += ["MSE", "bound, nats", "effective components", "accuracy, components"]
    return [*header, "NMI, components"], rows


@table("sheets")
def sheets():
    """Each cell: sheets apart / crossing."""
    cells = Cells("manifolds")
    columns = {"bound": 1, "median bound": 1, "MSE": 2, "ARI": 2, "effective components": 2}
    rows = []
    for name in manifolds.settings(80, 0, "apart"):
        models = [manifolds.settings(80, 0, kind)[name] for kind in manifolds.APART]
        shown = [*columns][:3] if name.startswith("VAE") else columns
        row = [
            " / ".join(cells.cell(model, key, columns[key]) for model in models).strip(" /")
            for key in shown
        ]
        rows.append([name, *row, *[""] * (len(columns) - len(row))])
    return ["model", *columns], rows


PARTS = {"accuracy": 2, "NMI": 2, "ARI": 2, "in use": 1, "seconds": 0}


@table("parts, MNIST")
def parts_of_mnist():
    figures = OverSeeds("parts")
    names = {"M-VAE, clusters, K = 10, 10 epochs": "clusters, K = 10"}
    names |= {"M-VAE, clusters, K = 16, 5 epochs": "clusters, K = 16"}
    for features in ("PCA", "UMAP"):
        simple = parts.simple_clusterings(10, 0)
        names |= {f"{name} of {features}": f"{features}, {name}" for name in simple}
    found = [[name, *figures.row(f"MNIST, {key}", PARTS)] for name, key in names.items()]
    return ["parts", *PARTS], [row for row in found if any(row[1:])]


@table("parts, tables")
def parts_of_tables():
    """Each cell: ARI, and the number of parts in use."""
    figures, rows = OverSeeds("parts"), []
    for name in parts.TABLES:
        cells = [
            " (".join(figures.row(f"{name}, {key}", {"ARI": 2, "in use": 1}))
            for key in parts.of_table(name, 2, 0)
        ]
        rows.append([name, *(f"{cell})" for cell in cells)])
    return ["table", *parts.of_table("digits", 2, 0)], rows


@table("samples")
def samples():
    figures, rows = OverSeeds("parts"), []
    columns = {"AUC": 2, "AUC of blends": 2, "bound": 0, "median bound": 0}
    columns |= {"bound of samples": 0, "median bound of samples": 0}
    for sheets in manifolds.APART:
        for objective, k in parts.SAMPLED:
            key = f"{sheets}, {objective}, K = {k}"
            rows.append([key, *figures.row(f"samples, {key}", columns)])
    return ["sheets, objective", *columns], rows


OTHER_IMPUTERS = ("KNNImputer", "IterativeImputer", "IterativeImputer, trees", "miceforest")


@table("missing, tables")
def filled_tables():
    """The lowest mean is bold."""
    figures, rows = OverSeeds("missing", "avx2"), []
    names = ("MVAEImputer", *OTHER_IMPUTERS)
    for name in missing.TABLES:
        for pattern in missing.PATTERNS:
            starts = [f"{name}, {pattern}, {imputer}" for imputer in names]
            means = [np.mean(figures.values(start, "error") or np.inf) for start in starts]
            cells = [figures.row(start, {"error": 3})[0] for start in starts]
            if np.isfinite(means[0]):
                best = int(np.argmin(means))
                cells[best] = f"**{cells[best]}**"
                rows.append([f"{name}, {pattern}", *cells])
    return ["table, missing", *names], rows


@table("missing, seconds")
def seconds_of_filling():
    figures, rows = OverSeeds("missing", "avx2"), []
    names = ("MVAEImputer", *OTHER_IMPUTERS)
    for name in missing.TABLES:
        found = [figures.values(f"{name}, 30 %, {n}", "seconds") for n in names]
        rows.append([name, *(f"{np.median(values):.1f}" if values else "" for values in found)])
    return ["CPU seconds, 30 % missing", *names], rows


@table("missing, single")
def filled_by_single_vaes():
    figures, rows = OverSeeds("missing", "avx2"), []
    names = ("MVAEImputer", "one VAE, 10 codes", "one VAE, 40 codes")
    for name in missing.TABLES:
        for pattern in missing.PATTERNS:
            cells = [figures.row(f"{name}, {pattern}, {n}", {"error": 3})[0] for n in names]
            if cells[-1]:
                rows.append([f"{name}, {pattern}", *cells])
    return ["table, missing", "mixture, 4 x 10 codes", *names[1:]], rows


@table("missing, codes")
def codes_of_holes():
    figures = OverSeeds("missing", "avx2")
    steps = missing.first_steps(0)
    rows = [
        [
            name,
            *(figures.row(f"codes of {name}, {step}", {"accuracy": 3})[0] for step in steps),
        ]
        for name in missing.LABELLED
    ]
    return ["table", "none: codes of holes", *list(steps)[1:]], rows


@table("missing, MNIST")
def mnist_with_holes():
    figures, rows = OverSeeds("missing", "avx2"), []
    columns = {"MLP": 2, "SVM": 2, "KNN": 2, "mean square": 4, "seconds": 0}
    for pattern, name in {"half_at_random": "at random", "lower_half": "the lower half"}.items():
        for weight in ("0.0625", "0"):
            cells = figures.row(f"mnist, {pattern}, neighbor_weight {weight}", columns)
            if any(cells):
                weight = "1/16" if weight != "0" else "0"
                rows.append([f"{name}: M-VAE, neighbor_weight = {weight}", *cells])
        cells = figures.row(f"mnist, {pattern}, PCA of means", columns)
        rows.append([f"{name}: PCA, 80, of mean-filled pixels", *cells])
    header = ["missing", *ACCURACY_HEADER, "mean square of a missing pixel"]
    return [*header, "fit, CPU s"], rows


@table("missing, purity")
def purity_of_holes():
    figures = OverSeeds("missing", "avx2")
    columns = {"complete": 3, "holes": 3, "means": 3}
    names = [*missing.LABELLED, "MNIST, 10,000 rows"]
    rows = [[name, *figures.row(f"purity of {name}", columns)] for name in names]
    return ["table", "no holes", "half missing", "half missing, filled with means"], rows


@table("missing, step")
def step_with_holes():
    figures = OverSeeds("missing", "avx2")
    names = [f"{n} columns, {kind}" for n in (30, 100, 784) for kind in ("gaussian", "bernoulli")]
    rows = [[name, *figures.row(f"step, {name}", {"ratio": 2})] for name in names]
    header = ["rows", "time of a step with holes, in that of one without"]
    return header, [row for row in rows if row[1]]


def _compared(task, figure, digits, ours, others, sign=1):
    """A line of the summary. Ahead is who leads by more than the spread of the lead."""
    best = max(others, key=lambda name: sign * np.mean(others[name]))
    theirs = others[best]
    if len(theirs) == len(ours):
        spread = np.std(np.subtract(ours, theirs), ddof=1)  # a seed has one split for both
    else:
        spread = sum(np.std(v, ddof=1) for v in (ours, theirs) if len(v) > 1)
    lead = sign * (np.mean(ours) - np.mean(theirs))
    ahead = "level" if abs(lead) <= spread else "M-VAE" if lead > 0 else best
    mean, best_mean = (f"{np.mean(values):.{digits}f}" for values in (ours, theirs))
    return [task, figure, mean, f"{best_mean} ({best})", ahead]


@table("summary")
def summary():
    """The mixture beside the best of the simple alternatives, by task."""
    header = ["for", "figure", "M-VAE", "best simple alternative", "ahead"]
    found = [*_by_codes(), _by_parts(), _by_filling(), *_by_density(), *_by_anomalies()]
    return header, [*found, _by_boosting()]


def _by_codes():
    figures = OverSeeds("neighbours")
    for task, figure, column in (
        ("few labels", "linear SVM, 100 labels", "SVM, 100 labels"),
        ("a linear model", "linear SVM, all labels", "linear SVM"),
        ("nearest neighbours", "KNN, all labels", "KNN"),
    ):
        ours = figures.values("K = 4, weight 0.0625", column)
        keys = {"UMAP": "UMAP, 10", "PCA": "PCA, 80"}
        others = {name: figures.values(key, column) for name, key in keys.items()}
        yield _compared(task, f"MNIST, {figure}, %", 1, ours, others)


def _by_parts():
    figures = OverSeeds("parts")
    others = {
        f"{name} of {features}": figures.values(f"MNIST, {features}, {name}", "NMI")
        for features in ("PCA", "UMAP")
        for name in ("k-means", "GaussianMixture")
    }
    ours = figures.values("MNIST, clusters, K = 10", "NMI")
    return _compared("clusters", "MNIST, ten parts, NMI", 2, ours, others)


def _by_filling():
    figures = OverSeeds("missing", "avx2")

    def mean_errors(imputer):
        """One a seed, over the tables."""
        errors = [figures.values(f"{t}, 30 %, {imputer}", "error") for t in missing.TABLES]
        return np.mean(errors, axis=0)

    others = {name: mean_errors(name) for name in OTHER_IMPUTERS[:3]}
    figure = f"{len(missing.TABLES)} tables, 30 % missing, mean error"
    return _compared("holes", figure, 2, mean_errors("MVAEImputer"), others, sign=-1)


def _by_density():
    figures = OverSeeds("choosing", "amx_bf16")
    for table in ("digits", "sheets that cross"):
        ours = figures.values(f"{table}, density, M-VAE, mixture", "nats")
        keys = {"PCA": "PCA, 0.9", "GaussianMixture": "GaussianMixture"}
        others = {n: figures.values(f"{table}, density, {key}", "nats") for n, key in keys.items()}
        yield _compared("density", f"{table}, nats a row", 1, ours, others)


def _by_anomalies():
    figures = OverSeeds("choosing", "amx_bf16")
    for share, what in zip(choosing.SHARES, ("not ", ""), strict=True):
        found = {
            name: figures.values(f"{choosing.DIGITS}, {share:g}, {name}", "AUC")
            for name in choosing.DETECTORS
        }
        simple = {n: v for n, v in found.items() if "VAE" not in n}
        task = f"anomalies, {what}among the fit's rows"
        yield _compared(task, "a digit among others, AUC", 2, found["M-VAE, mixture"], simple)


def _by_boosting():
    name = "make_classification, 40 columns"
    ours = OverSeeds("neighbours").values(f"{name}, 0.0625", "linear")
    figures = OverSeeds("choosing", "amx_bf16")
    others = {"boosting of the columns": figures.values(f"{name}, boosting", "all")}
    return _compared("a table with all labels", f"{name}, %", 1, ours, others)


@table("anomalies")
def anomaly_scores():
    """The highest mean of a line is bold."""
    figures, rows = OverSeeds("choosing", "amx_bf16"), []
    for name in choosing.ANOMALIES:
        for share in choosing.SHARES:
            keys = [f"{name}, {share:g}, {detector}" for detector in choosing.DETECTORS]
            cells = [figures.row(key, {"AUC": 2})[0] for key in keys]
            best = int(np.argmax([np.mean(figures.values(key, "AUC")) for key in keys]))
            cells[best] = f"**{cells[best]}**"
            rows.append([name, f"{100 * share:.0f} %", *cells])
    return ["normal rows and anomalies", "anomalies in the fit", *choosing.DETECTORS], rows


@table("densities")
def densities():
    """Mean log likelihood, and CPU seconds of the fit."""
    figures, rows = OverSeeds("choosing", "amx_bf16"), []
    for table in choosing.DENSITIES:
        keys = [f"{table}, density, {name}" for name in choosing.DENSITY_MODELS]
        cells = [
            f"{figures.row(key, {'nats': 1})[0]} ({np.mean(figures.values(key, 'seconds')):.1f} s)"
            for key in keys
        ]
        rows.append([table, *cells])
    return ["table", *choosing.DENSITY_MODELS], rows


@table("boosting")
def boosted():
    """A linear model on codes beside a linear model and boosting on the columns."""
    codes, figures = OverSeeds("neighbours"), OverSeeds("choosing", "amx_bf16")
    rows = []
    for name in neighbours.TABLES:
        row = [name]
        for own, other in (("linear", "all"), ("5 labels a class", "5 labels a class")):
            row += [codes.row(f"{name}, {f}", {own: 1})[0] for f in ("0.0625", "columns")]
            row += figures.row(f"{name}, boosting", {other: 1})
        rows.append(row)
    header = ["codes", "columns", "boosting"]
    return ["table", *header, *(f"{name}, 5 labels" for name in header)], rows


@table("tried")
def specialising():
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
    rows = []
    for record in cells._records:
        settings = record["settings"]
        row = [record["idea"], str(settings["k"]), str(settings["epochs"])]
        rows.append([*row, *cells.row(settings, dict(columns.values()))])
    return ["idea", "K", "epochs", *columns], rows


@table("rates")
def rates():
    cells = Cells("tried_rates")
    columns = {"SVM": 2, "KNN": 2, "MSE": 2, "bound": 1, "seconds": 0}
    rows = []
    for record in cells._records:
        settings = record["settings"]
        share, rate, betas, *sizes = settings.values()
        name = [f"{share}, {rate:g}", f"{betas[0]}, {betas[1]}", *map(str, sizes)]
        rows.append([*name, *cells.row(settings, columns)])
    header = ["learning rate", "betas", "batch", "epochs", "linear SVM, 20,000 labels"]
    return [*header, "KNN (5)", "MSE", "bound, nats", "seconds"], rows


def _kept(name, kind="amx_bf16"):
    """Figures in benchmarks/results by their keys."""
    path = ROOT / "benchmarks" / "results" / f"{name}_{kind}.json"
    return json.loads(path.read_text())


class OverSeeds:
    """Figures of a script of benchmarks by the start of their keys, over all seeds."""

    def __init__(self, name, kind="avx512_bf16"):
        self._figures = _kept(name, kind)

    def values(self, start, key):
        return [
            figures[key]
            for name, figures in self._figures.items()
            if (name == start or name.startswith(f"{start}, seed")) and key in figures
        ]

    def row(self, start, columns):
        return [_cell(self.values(start, key), digits) for key, digits in columns.items()]


class Times(OverSeeds):
    """Figures of time_to_quality.py."""

    def __init__(self, kind="avx512_bf16"):
        super().__init__("time_to_quality", kind)

    def fits_on_mnist(self):
        pattern = r"mnist, ((?:now|neighbours|before), \d+ epochs)"
        found = (re.match(pattern, name) for name in self._figures)
        names = {match[1] for match in found if match}
        order = ("now", "neighbours", "before")
        return sorted(names, key=lambda n: (order.index(n.split(",")[0]), int(n.split()[1])))

    def median(self, start):
        return np.median(self.values(start, "seconds"))

    def seconds(self, *starts):
        return [f"{self.median(start):.1f}" for start in starts]


def _on_mnist(times, fit):
    """Seconds and quality of one fit."""
    start = f"mnist, {fit}"
    return [*times.seconds(start), *times.row(start, {**ACCURACIES, "MSE": 2})]


@table("times, mnist")
def times_on_mnist():
    times = Times()
    epoch = times.median("mnist, obvious, an epoch")
    rows = []
    for fit in ["PCA", *times.fits_on_mnist()]:
        obvious = f"{epoch * int(fit.split()[1]):.0f}" if fit.startswith("before") else ""
        seconds, *quality = _on_mnist(times, fit)
        rows.append([fit.replace("PCA", "PCA, 80"), seconds, obvious, *quality])
    return ["fit", "seconds", "obvious version", *ACCURACY_HEADER, "MSE"], rows


@table("times, AMX")
def times_on_mnist_with_amx():
    times = Times("amx_bf16")
    rows = [[fit, *_on_mnist(times, fit)] for fit in times.fits_on_mnist()]
    return ["fit", "seconds", *ACCURACY_HEADER, "MSE"], rows


@table("times, processors")
def times_by_processor():
    pairs = {
        "MNIST, 2 epochs now, 6 before": ("mnist, now, 2 epochs", "mnist, before, 6 epochs"),
        "MNIST, 5 epochs now, 10 before": ("mnist, now, 5 epochs", "mnist, before, 10 epochs"),
        **{name: (f"{name}, now", f"{name}, before") for name in defaults.TABLES},
        "a search over three values of `beta`": ("search, now", "search, before"),
    }
    rows = []
    for name, (now, before) in pairs.items():
        row = [name]
        for times in (Times(), Times("amx_bf16")):
            ratio = times.median(now) / times.median(before)
            row += [*times.seconds(now, before), f"{ratio:.2f}"]
        rows.append(row)
    return ["fit", "AMD: now", "before", "ratio", "Intel, AMX: now", "before", "ratio"], rows


@table("times, tables")
def times_on_tables():
    """Seconds, and accuracy (R^2 for diabetes) of a linear model and of KNN."""
    times = Times()
    rows = []
    for name in defaults.TABLES:
        row = [name]
        for way in ("now", "before", "PCA"):
            start = f"{name}, {way}"
            row += [] if way == "PCA" else times.seconds(start)
            row.append(" / ".join(times.row(start, {"linear": 1, "KNN": 1})))
        rows.append(row)
    header = ["table", "now, s", "linear / KNN", "before, s", "linear / KNN", "PCA, linear / KNN"]
    return header, rows


@table("times, searches")
def times_of_searches():
    times = Times()
    names = {
        "search, now": "three values of `beta`, 15 epochs",
        "search, before": "the same, before, 20 epochs",
        "search of C": "four values of the SVM's C",
        "search of C, memory": "the same, `Pipeline(memory=...)`",
        "search of nine, grid": "nine candidates, `GridSearchCV`, 36 epochs",
        "search of nine, halving": "the same, `HalvingGridSearchCV`, 4 to 36 epochs",
    }
    rows = [
        [name, *times.seconds(key), *times.row(key, {"best score": 1})]
        for key, name in names.items()
    ]
    return ["search", "seconds", "best score, %"], rows


NEIGHBOURS = {
    "**M-VAE, K = 4, with neighbours**": "K = 4, weight 0.0625",
    "M-VAE, K = 4, without": "K = 4, weight 0",
    "one VAE, 80 codes, with neighbours": "one VAE, 80 codes, weight 0.0625",
    "one VAE, 80 codes, without": "one VAE, 80 codes, weight 0",
    'M-VAE, K = 4, "mixture", with neighbours': "mixture",
    'M-VAE, K = 4, "clusters", with neighbours': "clusters",
    "M-VAE of small `Conv`, with neighbours": "Conv, weight 0.0625",
    "M-VAE of small `Conv`, without": "Conv, weight 0",
    "UMAP, 10 dimensions": "UMAP, 10",
    "contrastive-ne, 10 dimensions": "contrastive-ne, 10",
    "PCA, 80": "PCA, 80",
}


def _neighbours(columns):
    figures = OverSeeds("neighbours")
    rows = [[name, *figures.row(key, columns)] for name, key in NEIGHBOURS.items()]
    return ["codes", *columns], rows


@table("neighbours, accuracy")
def neighbours_accuracy():
    return _neighbours(
        {
            "linear SVM": 2,
            "KNN": 2,
            "MLP": 2,
            "SVM, 100 labels": 1,
            "SVM, 1000 labels": 1,
            "label spreading, 100": 1,
            "label spreading, 1000": 1,
        }
    )


@table("neighbours, rest")
def neighbours_rest():
    return _neighbours({"NMI": 2, "MSE": 2, "bound": 1, "fit seconds": 0, "transform seconds": 1})


@table("neighbours, weights")
def neighbours_weights():
    columns = {"linear SVM": 2, "KNN": 2, "SVM, 100 labels": 1, "MSE": 2, "bound": 1}
    of_tables = {"linear": 1, "KNN": 1, "5 labels a class": 1}
    figures, rows = OverSeeds("neighbours"), []
    for weight in (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8):
        row = [f"1/{1 / weight:.0f}" if weight else "0"]
        row += figures.row(f"validation: MNIST, weight {weight:g}", columns)
        for name in ("digits", "make_classification, 40 columns"):
            key = f"validation: {name}, weight {weight:g}"
            row.append(" / ".join(figures.row(key, of_tables)))
        rows.append(row)
    return ["weight", *columns, "digits", "make_classification, 40 columns"], rows


@table("neighbours, tables")
def neighbours_on_tables():
    """Means over the seeds, and the gain of the term with the standard error of its mean."""
    columns = {"linear": 1, "KNN": 1, "5 labels a class": 1}
    figures, rows = OverSeeds("neighbours"), []
    for name in neighbours.TABLES:
        purity = "".join(f"{p:.2f}" for p in figures.values(f"{name}, purity", "purity"))
        of_features = {
            features: [figures.values(f"{name}, {features}", key) for key in columns]
            for features in ("columns", "PCA", "0", "0.0625")
        }
        means = [
            " / ".join(f"{np.mean(scores):.1f}" for scores in found if scores)
            for found in of_features.values()
        ]
        gains = np.subtract(*(np.array([s for s in of_features[w] if s]) for w in ("0.0625", "0")))
        errors = gains.std(axis=1, ddof=1) / gains.shape[1] ** 0.5
        cells = (
            f"{gain:+.1f}{PLUS_MINUS}{e:.1f}" for gain, e in zip(gains.mean(1), errors, strict=True)
        )
        rows.append([name, purity, *means, " / ".join(cells)])
    return ["table", "purity", "columns", "PCA", "without", "with", "gain"], rows


@table("chunks")
def chunks():
    kept = _kept("streaming")
    digits = {"MLP": 1, "SVM": 1, "KNN": 1, "MSE": 2, "bound": 1}
    rows = []
    for way in ("partial_fit", "fit", "fit, constant"):
        seeds = [value for name, value in kept.items() if name.startswith(f"{way}, seed")]
        rows.append([way, *(_cell([seed[key] for seed in seeds], n) for key, n in digits.items())])
    return ["", *ACCURACY_HEADER, "MSE", "bound, nats"], rows


@table("scaling")
def scaling():
    """Milliseconds a step, and rows a second in units of one process."""
    rows = []
    for name, kept in _kept("scaling").items():
        if match := re.search(r"(\d+) rows a process", name):
            alone, weak, strong = (
                f"{kept['milliseconds'][key]:.0f}" for key in ("alone", "weak", "strong")
            )
            gains = [f"{kept[f'{key}, times the rows a second']:.2f}" for key in ("weak", "strong")]
            share = f"{100 * kept['share of communication, weak']:.0f} %"
            rows.append([match[1], alone, weak, gains[0], share, strong, gains[1]])
    header = ["rows", "one process, ms", "two with as many each, ms", "rows a second"]
    return [*header, "of it sums over ranks", "two with half each, ms", "rows a second"], rows


@table("minibatches")
def larger_minibatches():
    rows = [
        [*re.findall(r"\d+", name), f"{kept['bound']:.1f}", f"{kept['SVM']:.2f}"]
        for name, kept in _kept("scaling").items()
        if name.startswith("minibatches of")
    ]
    header = ["rows a minibatch", "times the learning rate", "epochs", "bound, nats", "linear SVM"]
    return header, rows


def main():
    for page in PAGES:
        page.write_text(rendered(page.read_text()))


if __name__ == "__main__":
    main()
