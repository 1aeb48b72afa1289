import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, classification_report, f1_score, matthews_corrcoef

from ftlab.errors import BadInput
from ftlab.evaluation import comparison
from tests.evaluation.tables import answers, assert_one_sentence, random_answers


def mcc(true, predicted) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of tables of one class
        return matthews_corrcoef(true, predicted)


MEASURES = {
    "accuracy": accuracy_score,
    "f1_macro": lambda true, predicted: f1_score(true, predicted, average="macro", zero_division=0.0),
    "f1_weighted": lambda true, predicted: f1_score(true, predicted, average="weighted", zero_division=0.0),
    "mcc": mcc,
}
TABLES = {
    **{f"{classes} classes": {"classes": classes} for classes in (2, 3, 4, 5)},
    "a class that is never predicted": {"classes": 4, "predicted": [0, 1, 3]},
    "a label that is never true": {"classes": 4, "true": [0, 1, 3]},
    "one of each": {"classes": 5, "true": [0, 1, 2, 3], "predicted": [0, 4]},
    "one class predicted": {"classes": 3, "predicted": [0]},
    "one class true": {"classes": 3, "true": [0]},
    "one class": {"classes": 1},
    "never right": {"classes": 4, "true": [0, 1], "predicted": [2, 3]},
    "few rows": {"classes": 5, "rows": 7},
}


def made(name, seed=0) -> pd.DataFrame:
    return random_answers(np.random.default_rng(seed), **{"rows": 120, **TABLES[name]})


def width(interval) -> float:
    return interval.high - interval.low


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_are_those_of_scikit_learn(name, seed):
    table = made(name, seed)
    true, predicted = table["label"], table["prediction"]
    names = sorted({*true, *predicted})
    found = comparison.scores(table)
    expected = {measure: compute(true, predicted) for measure, compute in MEASURES.items()}
    by_class = f1_score(true, predicted, labels=names, average=None, zero_division=0.0)
    expected |= {f"f1[{label}]": value for label, value in zip(names, by_class, strict=True)}
    assert {measure: interval.value for measure, interval in found.items()} == pytest.approx(expected)
    for measure, interval in found.items():
        assert (-1 if measure == "mcc" else 0) <= interval.low <= interval.high <= 1


@pytest.mark.parametrize("name", TABLES)
def test_the_report_is_that_of_scikit_learn_with_an_interval_for_each_f1(name):
    table = made(name)
    report, found = comparison.report(table), comparison.scores(table)
    expected = classification_report(table["label"], table["prediction"], output_dict=True, zero_division=0.0)
    expected.pop("accuracy")
    expected = pd.DataFrame(expected).T.rename(columns={"f1-score": "f1"})
    assert report.columns.tolist() == ["precision", "recall", "f1", "f1_low", "f1_high", "support"]
    pd.testing.assert_frame_equal(report[expected.columns], expected, check_dtype=False)
    assert report["support"].dtype == int
    keys = {"macro avg": "f1_macro", "weighted avg": "f1_weighted"}
    for line, key in ((line, keys.get(line, f"f1[{line}]")) for line in report.index):
        assert tuple(report.loc[line, ["f1_low", "f1_high"]]) == (found[key].low, found[key].high)


def test_a_label_may_be_called_accuracy():
    report = comparison.report(answers(["accuracy", "fluency", "fluency"], ["accuracy", "fluency", "accuracy"]))
    assert report.index.tolist() == ["accuracy", "fluency", "macro avg", "weighted avg"]
    assert report.loc["accuracy", "precision"] == 0.5


def test_scores_depend_on_the_rows_and_not_on_their_order_or_the_names_of_the_labels():
    table = made("4 classes")
    found = comparison.scores(table)
    assert comparison.scores(table.sample(frac=1, random_state=0)) == found
    renamed = table.replace({f"class_{number}": "wxyz"[number] for number in range(4)})
    assert list(comparison.scores(renamed).values()) == list(found.values())


def test_the_seed_decides_the_bootstrap_and_only_that():
    table = made("3 classes")
    one, two = comparison.scores(table, seed=1), comparison.scores(table, seed=2)
    assert one == comparison.scores(table, seed=1)
    assert one["accuracy"] == two["accuracy"]  # a formula
    assert one["mcc"].low != two["mcc"].low
    assert one["mcc"].low == pytest.approx(two["mcc"].low, abs=0.02)


def test_more_rows_and_less_confidence_make_narrower_intervals():
    table = made("3 classes")
    four_times = pd.concat([table] * 4, ignore_index=True)
    once, often = comparison.scores(table), comparison.scores(four_times)
    less = comparison.scores(table, level=0.5)
    for measure, interval in once.items():
        assert width(often[measure]) == pytest.approx(width(interval) / 2, rel=0.15)
        assert width(less[measure]) < 0.6 * width(interval)
        assert (less[measure].level, interval.level) == (0.5, 0.95)


def test_the_intervals_are_those_of_scipys_bootstrap():
    table = made("3 classes")
    true, predicted = table["label"].to_numpy(), table["prediction"].to_numpy()
    found = comparison.scores(table)["f1_macro"]
    reference = stats.bootstrap(
        (np.arange(len(table)),), lambda drawn: MEASURES["f1_macro"](true[drawn], predicted[drawn]),
        vectorized=False, n_resamples=500, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.02)
    assert width(found) > 0.1


def test_the_intervals_cover_the_truth_about_as_often_as_they_say():
    shares = np.array([[0.40, 0.06, 0.04], [0.05, 0.25, 0.05], [0.02, 0.03, 0.10]])  # of the true and predicted labels
    names = np.array(["a", "b", "c"])
    whole = np.round(shares * 100).astype(int)
    population = answers(np.repeat(names, whole.sum(axis=1)), np.concatenate([np.repeat(names, row) for row in whole]))
    truth = {measure: compute(population["label"], population["prediction"]) for measure, compute in MEASURES.items()}
    truth["f1[c]"] = f1_score(population["label"], population["prediction"], labels=["c"], average=None)[0]
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(truth, 0)
    for seed in range(100):
        drawn = population.iloc[rng.integers(0, len(population), 200)]
        found = comparison.scores(drawn, seed=seed)
        for measure, value in truth.items():
            covered[measure] += found[measure].low <= value <= found[measure].high
    assert all(89 <= count <= 99 for count in covered.values()), covered  # 95, give or take 2


def test_a_perfect_score_is_not_a_certain_one():
    perfect = comparison.accuracy(answers(["a"] * 50, ["a"] * 50))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.9 < perfect.low < 0.95


def test_the_interval_holds_the_mean_and_narrows_with_more_rows():
    rng = np.random.default_rng(0)
    few, many = rng.random(100) < 0.8, rng.random(10_000) < 0.8
    narrow, wide = comparison.mean_interval(many.astype(float)), comparison.mean_interval(few.astype(float))
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
    assert comparison.mean_interval(few.astype(float), seed=0) == wide


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        interval = comparison.mean_interval((rng.random(150) < 0.8).astype(float), seed=seed)
        covered += interval.low <= 0.8 <= interval.high
    assert 51 <= covered <= 60  # 95 % of 60 is 57


# Two models


def two_models(rows=300, classes=3, seed=0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two models that are often right and wrong together, as two models are."""
    rng = np.random.default_rng(seed)
    first = random_answers(rng, rows, classes, right=0.7)
    other = rng.choice(first["label"].unique(), rows)
    return first, first.assign(prediction=np.where(rng.random(rows) < 0.8, first["prediction"], other))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("classes", [2, 5])
def test_a_difference_is_that_of_the_two_scores(measure, classes):
    first, second = two_models(classes=classes)
    found = comparison.difference(first, second, measure)
    one, other = comparison.scores(first)[measure].value, comparison.scores(second)[measure].value
    assert found.value == pytest.approx(one - other)
    assert found.low < found.value < found.high
    turned = comparison.difference(second, first, measure)
    assert turned.value == pytest.approx(-found.value)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=0.01)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_difference_counts_a_class_only_where_a_model_or_the_truth_names_it(measure):
    first = answers("aabb", "aabb")
    second = answers("aabb", "aacb")  # "c" stands in no other column
    found = comparison.difference(first, second, measure)
    assert found.value == pytest.approx(1 - MEASURES[measure](second["label"], second["prediction"]))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_difference_is_paired_by_row_and_not_by_place(measure):
    first, second = two_models()
    shuffled = second.sample(frac=1, random_state=0)
    assert comparison.difference(first, shuffled, measure) == comparison.difference(first, second, measure)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_paired_interval_is_narrower_than_one_of_two_separate_samples(measure):
    first, second = two_models()
    separate = np.hypot(width(comparison.scores(first)[measure]), width(comparison.scores(second)[measure]))
    assert width(comparison.difference(first, second, measure)) < 0.8 * separate


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_models_differ_by_nothing(measure):
    first, _ = two_models()
    found = comparison.difference(first, first, measure)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_difference_of_two_accuracies_has_the_interval_that_compare_gives():
    first, second = two_models()
    found, compared = comparison.difference(first, second, "accuracy"), comparison.compare(first, second).difference
    assert found.value == pytest.approx(compared.value)
    assert (found.low, found.high) == pytest.approx((compared.low, compared.high), abs=0.01)


def test_many_classes_need_no_table_of_all_their_combinations():
    first, second = two_models(rows=500, classes=80)  # 80 cubed, 4000 times, would take 16 GB
    tracemalloc.start()
    found = comparison.difference(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e9
    assert found.low < found.value < found.high


def test_a_difference_is_of_a_score_that_there_is():
    first, second = two_models()
    with pytest.raises(BadInput) as caught:
        comparison.difference(first, second, "f1")
    assert_one_sentence(caught, "'f1'", *MEASURES)


def other_rows(table) -> pd.DataFrame:
    return table.assign(id=[*table["id"][:-1], "elsewhere"])


def a_row_less(table) -> pd.DataFrame:
    return table.iloc[:-1]


def one_row_twice(table) -> pd.DataFrame:
    return table.assign(id=[*table["id"][:-1], "r0"])


def another_label(table) -> pd.DataFrame:
    return table.assign(label=[*table["label"][:-1], "class_9"])


@pytest.mark.parametrize("judge", [comparison.compare, comparison.difference])
@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (other_rows, ["different rows", "compare them on the same ones"]),
        (a_row_less, ["different rows (r39 only one of them)", "compare them on the same ones"]),
        (one_row_twice, ["row r0", "twice", "keep one"]),
        (another_label, ["row r39", "'class_9'", "the same rows"]),
    ],
)
def test_only_answers_to_the_same_rows_can_be_compared(judge, spoil, parts):
    first, second = two_models(rows=40)
    for tables in ((first, spoil(second)), (spoil(first), second)):
        with pytest.raises(BadInput) as caught:
            judge(*tables)
        assert_one_sentence(caught, *parts)


def test_a_row_that_stands_twice_in_both_tables_is_refused_too():
    first, second = (one_row_twice(table) for table in two_models(rows=40))
    with pytest.raises(BadInput, match="row r0"):
        comparison.compare(first, second)


def test_a_few_disagreements_are_no_clear_difference_though_a_bootstrap_says_so():
    first = answers(["a"] * 200, ["a"] * 200)
    second = answers(["a"] * 200, ["b"] * 3 + ["a"] * 197)
    result = comparison.compare(first, second)
    assert result.difference.low > 0
    assert result.p_value == pytest.approx(0.25)
    assert not result.clear


def test_a_comparison_is_paired_by_row_and_not_by_place():
    first = answers(["a"] * 10, ["a"] * 9 + ["b"])
    second = answers(["a"] * 10, ["a"] * 4 + ["b"] * 6)
    shuffled = second.sample(frac=1, random_state=0)
    assert comparison.compare(first, shuffled) == comparison.compare(first, second)
    assert comparison.compare(first, second).difference.value == pytest.approx(0.5)


def test_exact_mcnemar_counts_only_disagreements():
    first = answers(["a"] * 20, ["a"] * 15 + ["b"] * 5)
    second = answers(["a"] * 20, ["a"] * 10 + ["b"] * 5 + ["b"] * 5)
    result = comparison.compare(first, second)
    assert (result.only_first, result.only_second) == (5, 0)
    assert result.p_value == pytest.approx(2 * 0.5**5)


def test_equal_models_show_no_clear_difference():
    same = answers(["a", "b"] * 10, ["a", "a"] * 10)
    result = comparison.compare(same, same)
    assert result.p_value == 1.0
    assert not result.clear
    assert "no clear difference" in str(result)


# What a number of rows can show


def power_of_mcnemar(rows, disagree, difference, times=400) -> float:
    """How often exact McNemar finds the better model, by drawing the pairs of answers and testing each draw."""
    wins = (disagree + difference) / 2
    drawn = np.random.default_rng(0).multinomial(rows, [wins, disagree - wins, 1 - disagree], size=times)
    found = [
        better > worse and stats.binomtest(int(better), int(better + worse)).pvalue < 0.05 for better, worse, _ in drawn
    ]
    return float(np.mean(found))


@pytest.mark.parametrize(("rows", "disagree"), [(120, 0.3), (300, 0.2), (1000, 0.1)])
def test_the_smallest_difference_shows_about_as_often_as_it_says(rows, disagree):
    smallest = comparison.smallest_difference(rows, disagree)
    assert 0.74 < power_of_mcnemar(rows, disagree, smallest) < 0.87
    assert power_of_mcnemar(rows, disagree, smallest / 2) < 0.5
    assert power_of_mcnemar(rows, disagree, min(disagree, 1.5 * smallest)) > 0.93


@pytest.mark.parametrize("pairs", [8, 21, 60])
def test_it_is_the_first_difference_that_is_enough_for_this_many_disagreements(pairs):
    def power(better):
        wins = [won for won in range(pairs + 1) if won > pairs / 2 and stats.binomtest(won, pairs).pvalue < 0.05]
        return stats.binom.pmf(wins, pairs, better).sum()

    gap = round(comparison.smallest_difference(1000, pairs / 1000) * 1000)
    assert power((1 + gap / pairs) / 2) >= 0.8
    assert power((1 + (gap - 1) / pairs) / 2) < 0.8


@pytest.mark.parametrize("disagree", [0.05, 0.2, 1.0])
def test_more_rows_show_smaller_differences(disagree):
    found = [comparison.smallest_difference(rows, disagree) for rows in (50, 200, 800, 3200, 12_800)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)
    assert found[-1] == pytest.approx(found[-2] / 2, rel=0.1)  # with the root of the rows
    assert all(smallest <= disagree for smallest in found if smallest < 1)


def test_more_disagreement_power_and_confidence_ask_for_larger_differences():
    found = [comparison.smallest_difference(1000, disagree) for disagree in (0.02, 0.08, 0.32)]
    assert found == sorted(set(found))
    usual = comparison.smallest_difference(1000, 0.1)
    assert comparison.smallest_difference(1000, 0.1, power=0.95) > usual
    assert comparison.smallest_difference(1000, 0.1, level=0.99) > usual


def test_too_few_disagreements_can_show_nothing():
    assert comparison.smallest_difference(1000, 0.0) == 1.0
    assert comparison.smallest_difference(0, 0.5) == 1.0
    assert comparison.smallest_difference(5, 1.0) == 1.0  # five to none has p = 0.0625
    assert comparison.smallest_difference(100, 0.05) == 1.0
    assert comparison.smallest_difference(100, 0.06) == pytest.approx(0.06)  # six to none, each time


def test_many_rows_show_small_differences():
    assert 0.015 < comparison.smallest_difference(25_000, 1.0) < 0.02


@pytest.mark.parametrize("name", ["disagree", "power", "level"])
@pytest.mark.parametrize("share", [-0.1, 1.1, 80, float("nan")])
def test_a_share_lies_between_0_and_1(name, share):
    with pytest.raises(BadInput) as caught:
        comparison.smallest_difference(100, **{"disagree": 0.1, name: share})
    assert_one_sentence(caught, f"{name} is {share}", "from 0 to 1")


# Rows that were cut


def test_a_row_is_cut_when_it_is_longer_than_max_length():
    table = answers("aaaaa", "aabab")
    found = comparison.by_truncation(table, [10, 128, 129, 500, 1], 128).set_index("rows")
    assert found["count"].to_dict() == {"read whole": 3, "cut": 2}
    for group, members in (("read whole", [0, 1, 4]), ("cut", [2, 3])):
        expected = comparison.accuracy(table.iloc[members])
        assert tuple(found.loc[group, ["accuracy", "low", "high"]]) == (expected.value, expected.low, expected.high)


def test_a_group_without_rows_has_no_accuracy():
    found = comparison.by_truncation(answers("ab", "ab"), [5, 6], 10).set_index("rows")
    assert found["count"].tolist() == [2, 0]
    assert found.loc["cut", ["accuracy", "low", "high"]].isna().all()


def test_each_row_needs_its_number_of_tokens():
    with pytest.raises(BadInput) as caught:
        comparison.by_truncation(answers("ab", "ab"), [5], 10)
    assert_one_sentence(caught, "1 token counts for 2 rows", "give one for each row")


# --- groups ---


def of_authors(rows: int, each: int) -> pd.DataFrame:
    """A table of `rows` answers, and `each` copies of each: an author is right in all rows, or wrong in all."""
    lots = np.random.default_rng(3)
    right = lots.random(rows) < 0.8
    labels = lots.choice(["a", "b"], rows)
    other = np.where(labels == "a", "b", "a")
    table = pd.DataFrame({"label": labels, "prediction": np.where(right, labels, other), "group": range(rows)})
    table = table.loc[np.repeat(table.index, each)].assign(group=lambda one: "author " + one["group"].astype(str))
    return table.reset_index(drop=True).assign(id=lambda one: [f"r{number}" for number in range(len(one))])


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "f1_weighted", "mcc", "f1[a]"])
def test_rows_of_an_author_tell_no_more_than_the_author(name):
    one, many = (comparison.scores(of_authors(120, each))[name] for each in (1, 10))
    assert many.value == pytest.approx(one.value)
    assert width(many) == pytest.approx(width(one), rel=0.05)
    as_rows = comparison.scores(of_authors(120, 10).drop(columns="group"))[name]
    assert width(as_rows) < width(many) / 2.5


def test_a_difference_over_authors_is_as_uncertain_as_over_one_row_of_each():
    def second(table):
        flipped = [int(author.split()[1]) % 9 == 0 for author in table["group"]]
        return table.assign(prediction=table["prediction"].mask(flipped, "a"))

    one, many = (of_authors(120, each) for each in (1, 10))
    for found in (comparison.difference, lambda *tables: comparison.compare(*tables).difference):
        alone, copied = (found(table, second(table)) for table in (one, many))
        assert copied.value == pytest.approx(alone.value)
        assert width(copied) == pytest.approx(width(alone), rel=0.05)
    assert comparison.compare(many, second(many)).p_value == pytest.approx(comparison.compare(one, second(one)).p_value)


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_rows_without_a_group_are_their_own(missing):
    table = of_authors(120, 1)
    grouped, alone = (comparison.scores(each) for each in (table.assign(group=missing), table.drop(columns="group")))
    for name in ("f1_macro", "mcc"):
        assert width(grouped[name]) == pytest.approx(width(alone[name]), rel=0.05)


def test_one_author_alone_has_no_interval():
    table = of_authors(1, 30)
    table.loc[:9, "prediction"] = "c"
    found = comparison.scores(table)
    assert np.isnan([found["accuracy"].low, found["f1_macro"].low, found["mcc"].high]).all()
