"""What `init` reads out of a file."""

import pytest

from headrace.cli.files import Source, open_source
from headrace.cli.infer import bounds, identifier, infer, infer_column, infer_label
from headrace.errors import InvalidInput


def column(cells):
    return infer_column("x", cells, set())


def test_types_follow_from_the_cells_and_blanks_make_a_column_optional():
    assert (column(["1", "2", "30"]).kind, column(["1", "2.5"]).kind) == ("int", "float")
    assert column(["true", "False", ""]).kind == "bool"
    assert [column(cells).optional for cells in (["1", "2"], ["1", ""], ["1", "NA"], ["1", None])] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("infinite", ["inf", "-Infinity", "1e999", "9" * 400, float("inf"), 10**400])
def test_an_infinite_number_says_nothing_of_its_column_or_of_the_label(infinite):
    found = column([1.5, infinite, 2.5])
    assert (found.kind, found.optional, found.low, found.high) == ("float", False, 1.0, 3.0)
    assert infer_label("y", [1.5, infinite, 2.5]).simplest == 0.5
    assert column(["red", "inf"]).values == ("inf", "red")


def test_few_texts_are_listed_and_many_are_open():
    listed = column(["red", "blue"] * 10)
    assert (listed.kind, listed.values) == ("str", ("blue", "red"))
    names = column([f"name {n}" for n in range(40)])
    assert (names.values, names.longest) == ((), 14)


@pytest.mark.parametrize(
    ("numbers", "kind", "expected"),
    [
        ([10, 20], "float", (5, 25)),
        ([0.5, 3.0], "float", (0, 4.3)),
        ([-3, -1], "float", (-4, 0)),
        ([0, 1], "float", (0, 1)),
        ([3, 7], "int", (3, 7)),
        ([1, 2, 10], "int", (0, 15)),
        ([5.0, 5.0], "float", (2.5, 7.5)),
    ],
)
def test_bounds_leave_half_the_range_to_both_sides_and_keep_the_sign(numbers, kind, expected):
    assert bounds(numbers, kind) == expected
    assert expected[0] <= min(numbers) <= max(numbers) <= expected[1]


@pytest.mark.parametrize(
    ("cells", "kind", "values", "simplest"),
    [
        (["yes", "no", "yes", "yes"], "bool", (), 0.75),
        (["0", "1", "1", "0", ""], "bool", (), 0.5),
        (["3", "10", "3", "2"], "classes", ("2", "3", "10"), 0.5),
        (["a", "b", "b", "b"], "classes", ("a", "b"), 0.75),
        (["1.5", "2.5"], "float", (), 0.5),
        ([str(n) for n in range(40)], "float", (), 10.0),
        ([f"class {n}" for n in range(200)], "str", (), 0.005),
    ],
)
def test_the_label_names_the_task_and_what_the_simplest_answer_reaches(cells, kind, values, simplest):
    label = infer_label("y", cells)
    assert (label.kind, label.values, label.simplest) == (kind, values, pytest.approx(simplest))


@pytest.mark.parametrize(
    ("cells", "no_change"),
    [("aaab", 2 / 3), ("abab", 0.0), (["1.5", "2.0", "1.0"], 0.75), (["10", "10", "10.5"], 0.25)],
)
def test_what_the_label_before_reaches_is_told_beside_the_simplest(cells, no_change):
    assert infer_label("y", list(cells)).no_change == pytest.approx(no_change)


def test_a_label_with_one_value_is_refused():
    with pytest.raises(InvalidInput, match="nothing to learn"):
        infer_label("y", ["1", "1", ""])


def test_column_names_become_python_names_that_differ():
    taken = set()
    names = []
    for given in ("pressure (hPa)", "Pressure", "2nd-floor", "class", "Größe", "maxTemp", "(hPa)", "json"):
        names.append(identifier(given, taken))
        taken.add(names[-1])
    assert names == ["pressure", "pressure_2", "x_2nd_floor", "x_class", "groe", "max_temp", "h_pa", "x_json"]
    assert all(name.isidentifier() for name in names)


def test_id_time_entity_label_and_empty_columns_are_no_features(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("day,a (m),nothing,rain\n" + "".join(f"d{n},{n}.5,,{n % 2}\n" for n in range(20)))
    columns, label, rows = infer(open_source(path), ["day", None, None], "rain")
    assert [(c.name, c.given) for c in columns] == [("a", "a (m)")]
    assert (label.kind, rows) == ("bool", 20)


def test_a_file_with_nothing_to_learn_from_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("day,rain\n1,0\n2,1\n")
    source: Source = open_source(path)
    with pytest.raises(InvalidInput, match="no column besides"):
        infer(source, ["day"], "rain")
