"""Files as examples and labels."""

import gzip
import json
import lzma
from datetime import UTC, datetime

import pytest

from headrace.cli.cells import to_time
from headrace.cli.files import open_source
from headrace.cli.rows import BadRow, Roles, events, missing_columns, resolve_roles, unknown_columns
from headrace.errors import InvalidInput, Missing
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.stream import ExampleArrived, LabelArrived

SPEC = ContractSpec(
    name="Weather",
    features=(
        FeatureSpec(name="pressure", type="float", alias="pressure (hPa)"),
        FeatureSpec(name="clouds", type="int", optional=True),
        FeatureSpec(name="sky", type="str", optional=True, values=("clear", "NA")),
        FeatureSpec(name="dry", type="bool", optional=True),
    ),
    label=LabelSpec(type="bool"),
)
CSV = "pressure (hPa),clouds,sky,dry,rain\n1001,3,clear,yes,1\n1002.5,,NA,no,0\nlow,2.5,,,\n"


@pytest.fixture
def write(tmp_path):
    def to(text, name="days.csv"):
        path = tmp_path / name
        path.write_text(text)
        return open_source(path)

    return to


def published(source, spec=SPEC, given=None, **options):
    roles = resolve_roles(source, spec, given or Roles())
    return [event for _, event in events(source, spec, roles, **options)]


def test_cells_become_the_contracts_types_and_blank_ones_are_left_out(write):
    examples = [event for event in published(write(CSV)) if isinstance(event, ExampleArrived)]
    assert [e.features for e in examples] == [
        {"pressure": 1001.0, "clouds": 3, "sky": "clear", "dry": True},
        {"pressure": 1002.5, "sky": "NA", "dry": False},
        {"pressure": "low", "clouds": 2.5},  # the validator says why it is rejected
    ]
    assert [type(e.features["pressure"]) for e in examples] == [float, float, str]


def test_the_only_column_that_the_contract_does_not_know_is_the_label(write):
    labels = [event for event in published(write(CSV)) if isinstance(event, LabelArrived)]
    assert [label.label for label in labels] == [True, False]


def test_columns_that_might_be_the_label_are_those_that_nothing_else_is(write):
    source = write("day,pressure,clouds,rain\n1,1001,3,1\n")
    assert unknown_columns(source, SPEC, resolve_roles(source, SPEC, Roles())) == ["day", "rain"]
    assert unknown_columns(source, SPEC, resolve_roles(source, SPEC, Roles(id="day"))) == []


def test_labels_come_so_many_rows_later_and_keep_their_examples_id(write):
    rows = "pressure,rain\n" + "".join(f"{1000 + n},{n % 2}\n" for n in range(4))
    kinds = [(type(event).__name__[0], event.id.split("-")[1]) for event in published(write(rows), label_delay=2)]
    assert kinds == [("E", "1"), ("E", "2"), ("E", "3"), ("L", "1"), ("E", "4"), ("L", "2"), ("L", "3"), ("L", "4")]


def test_the_same_file_has_the_same_ids_and_another_value_another_id(write):
    first, again = published(write(CSV)), published(write(CSV))
    assert [event.id for event in first] == [event.id for event in again]
    other = published(write(CSV.replace("1001,", "1003,")))
    assert other[0].id != first[0].id
    assert other[2].id == first[2].id


def test_id_time_and_entity_come_from_the_columns_named(write):
    rows = "when,station,day,pressure,rain\n2020-01-01,a,d1,1000,1\n1577923200,b,d2,1001,0\n"
    spec = SPEC.model_copy(update={"entity": True})
    found = published(write(rows), spec, Roles(id="day", time="when", entity="station", label="rain"))
    assert [(e.id, e.entity, e.time) for e in found if isinstance(e, ExampleArrived)] == [
        ("d1", "a", datetime(2020, 1, 1, tzinfo=UTC)),
        ("d2", "b", datetime(2020, 1, 2, tzinfo=UTC)),
    ]


def test_a_file_without_time_takes_the_clock_it_is_given(write):
    moment = datetime(2001, 1, 1, tzinfo=UTC)
    assert {event.time for event in published(write(CSV), clock=lambda number: moment)} == {moment}


@pytest.mark.parametrize(
    ("text", "given", "says"),
    [
        ("a,b\n1,2\n", Roles(), "no column of the contract"),
        ("pressure,rain\n1,2\n", Roles(label="snow"), "no column 'snow' \\(--label\\); it has pressure, rain"),
        ("pressure,rain\n1\n", Roles(), "line 2: not 2 columns"),
        ("pressure,when\n1,soon\n", Roles(time="when"), "row 1, 'when': 'soon' is no time"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(write, text, given, says):
    with pytest.raises(InvalidInput, match=says):
        published(write(text), given=given)


def test_required_columns_that_the_file_lacks_are_named(write):
    assert missing_columns(write("clouds,rain\n1,0\n"), SPEC) == ["pressure"]
    assert missing_columns(write(CSV), SPEC) == []


def test_json_lines_hold_rows_or_events(write):
    flat = write(json.dumps({"pressure": 1001, "rain": True}), "flat.jsonl")
    nested = write(json.dumps({"id": "a", "features": {"pressure": 1001}, "label": True}), "nested.jsonl")
    assert [event.features for event in published(flat)[:1]] == [{"pressure": 1001.0}]
    example, label = published(nested)
    assert (example.id, example.features, label.label) == ("a", {"pressure": 1001.0}, True)
    assert not example.history


def test_an_event_that_is_history_is_published_as_history(write):
    event = {"id": "a", "features": {"pressure": 1001}, "label": True, "history": True}
    example, _ = published(write(json.dumps(event), "history.jsonl"))
    assert example.history


def test_rows_whose_time_is_none_are_left_out_where_that_is_asked_for_and_change_nothing_of_the_others(write):
    times = ["2020-01-01", "soon", "2020-01-03", "", "2020-01-05 25:00", "2020-01-06"]
    source = write("pressure,when,rain\n" + "".join(f"{n},{time},true\n" for n, time in enumerate(times)))
    roles, bad = Roles(time="when", label="rain"), []
    found = list(events(source, SPEC, roles, label_delay=1, skip=bad.append))
    assert [(number, type(event).__name__[:5]) for number, event in found] == [
        (1, "Examp"), (3, "Examp"), (1, "Label"), (4, "Examp"), (3, "Label"), (6, "Examp"), (4, "Label"), (6, "Label"),
    ]  # fmt: skip
    assert [str(one) for one in bad] == [
        f"{source.path}, row {n}, 'when': {times[n - 1]!r} is no time (ISO 8601, or seconds since 1970)" for n in (2, 5)
    ]
    unasked = events(source, SPEC, roles, label_delay=1)
    assert next(unasked) == found[0]
    with pytest.raises(BadRow, match="row 2, 'when'"):
        next(unasked)


def test_features_of_an_event_are_neither_its_id_nor_its_time_nor_its_label(write):
    names = ("id", "label", "time")
    spec = ContractSpec(
        name="W", features=tuple(FeatureSpec(name=name, type="int") for name in names), label=LabelSpec(type="bool")
    )
    features = dict.fromkeys(names, 7)
    event = {"id": "a", "time": "2026-01-31T12:00:00Z", "features": features}
    (example,) = published(write(json.dumps(event), "named.jsonl"), spec)
    assert (example.id, example.time, example.features) == ("a", datetime(2026, 1, 31, 12, tzinfo=UTC), features)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.open), (".xz", lzma.open)])
def test_compressed_files_read_the_same(tmp_path, write, suffix, pack):
    path = tmp_path / f"days.csv{suffix}"
    with pack(path, "wt") as file:
        file.write(CSV)
    assert [event.id for event in published(open_source(path))] == [event.id for event in published(write(CSV))]


def test_parquet_reads_as_csv_does(tmp_path, write):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "days.parquet"
    parquet.write_table(pa.table({"pressure (hPa)": [1001.0, None], "clouds": [3, None], "rain": [True, False]}), path)
    example, label, second, _ = published(open_source(path))
    assert (example.features, label.label, second.features) == ({"pressure": 1001.0, "clouds": 3}, True, {})


def test_a_key_that_the_first_json_line_leaves_out_is_a_column(write):
    lines = [{"pressure": 1001}, {"pressure": 1002, "clouds": 3, "rain": True}]
    source = write("\n".join(map(json.dumps, lines)), "sparse.jsonl")
    assert source.columns == ("pressure", "clouds", "rain")
    assert [event.label for event in published(source) if isinstance(event, LabelArrived)] == [True]


@pytest.mark.parametrize("name", ["days.csv", "days.csv.gz", "days.jsonl"])
def test_bytes_that_are_no_text_in_utf_8_are_refused_wherever_they_stand(tmp_path, name):
    row, header = (b'{"pressure": 1}\n', b"") if "json" in name else (b"1\n", b"pressure\n")
    text = header + 50_000 * row + "é\n".encode("latin-1")
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(InvalidInput, match="not in UTF-8: the byte 0xe9"):
        published(open_source(tmp_path / name))


@pytest.mark.parametrize(("name", "pack"), [("days.csv.gz", gzip.compress), ("days.csv.xz", lzma.compress)])
def test_an_archive_that_is_none_or_is_cut_is_refused(tmp_path, name, pack):
    for content in (b"pressure,rain\n", pack(CSV.encode())[:-9]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match="cannot be unpacked"):
            open_source(tmp_path / name)


def test_two_columns_of_one_name_are_refused_but_those_without_a_name_are_not(tmp_path, write):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "days.parquet"
    parquet.write_table(pa.table([[1.0], [2.0]], names=["pressure", "pressure"]), path)
    with pytest.raises(InvalidInput, match="two columns named 'pressure'"):
        open_source(path)
    with pytest.raises(InvalidInput, match="two columns named 'pressure'"):
        write("pressure,pressure,rain\n1,2,1\n")
    assert [event.features for event in published(write("pressure,rain,,\n1001,1,,\n"))[:1]] == [{"pressure": 1001.0}]


def test_parquet_has_nanoseconds_and_decimals(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path, ns = tmp_path / "days.parquet", 1_711_852_200_123_456_789
    columns = {
        "when": pa.array([ns], pa.timestamp("ns")),
        "pressure": pa.array(["1001.50"]).cast(pa.decimal128(10, 2)),
        "clouds": pa.array(["3"]).cast(pa.decimal128(10, 0)),
    }
    parquet.write_table(pa.table(columns), path)
    (example,) = published(open_source(path), given=Roles(time="when"))
    assert (example.time, example.features) == (
        datetime(2024, 3, 31, 2, 30, 0, 123_456, tzinfo=UTC),
        {"pressure": 1001.5, "clouds": 3},
    )


def test_what_no_float_holds_stays_a_text_that_the_validator_rejects(write):
    huge = "1" + "0" * 400
    spec = SPEC.model_copy(update={"label": LabelSpec(type="float")})
    lines = write(f'{{"pressure": Infinity, "rain": -Infinity}}\n{{"pressure": {huge}, "rain": 1e400}}\n', "rows.jsonl")
    cells = write(f"pressure,rain\ninf,-inf\n{huge},inf\n")
    for found in (published(lines, spec), published(cells, spec)):
        values = [event.label if isinstance(event, LabelArrived) else event.features["pressure"] for event in found]
        assert values == ["inf", "-inf", huge, "inf"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("20240331", datetime(2024, 3, 31, tzinfo=UTC)),
        ("20249931", datetime(1970, 8, 23, 8, 58, 51, tzinfo=UTC)),
        ("1577836800.5", datetime(2020, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-03-31T02:30:00+02:00", datetime(2024, 3, 31, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_day_without_dashes_is_a_day_and_other_numbers_are_seconds(cell, expected):
    assert to_time(cell, "row 1") == expected


@pytest.mark.parametrize("cell", ["1700000000000", 1700000000000, "-1e300", float("inf"), "31.03.2024", [1]])
def test_a_time_that_is_none_is_refused_with_its_place(cell):
    with pytest.raises(InvalidInput, match=r"row 1: .* is no time"):
        to_time(cell, "row 1")


def test_a_missing_empty_or_unknown_file_says_so(tmp_path, write):
    with pytest.raises(Missing, match="there is no file"):
        open_source(tmp_path / "no.csv")
    with pytest.raises(InvalidInput, match="no rows"):
        write("a,b\n")
    with pytest.raises(InvalidInput, match=r"\.csv, \.tsv"):
        write("x", "rows.xls")
